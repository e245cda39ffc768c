"""Time and memory to load and cut a task of 100,000 rows from a mirror, in a process of its own.

    python benchmarks/loading.py [--rows 100000]

The rows are made up, with lengths as in MNLI: three hypotheses to a premise of 20 words. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = 20_000
MEASURE = "--measure"


def write(directory: Path, rows: int) -> None:
    """A mirror with an MNLI of so many training rows, and a tenth as many held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(0)
    for split, count in (("train", rows), ("validation_matched", rows // 10)):
        premises = [_text(rng, 20) for _ in range(count // 3 + 1)]
        columns = {
            "premise": [premises[n // 3] for n in range(count)],
            "hypothesis": [_text(rng, 10) for _ in range(count)],
            "label": [n % 3 for n in range(count)],
            "idx": list(range(count)),
        }
        file = directory / "nyu-mll" / "glue" / "mnli" / f"{split}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file)


def _text(rng: random.Random, words: int) -> str:
    return " ".join(f"word{rng.randrange(WORDS)}" for _ in range(words))


def measure(directory: str) -> None:
    """Load and cut, and print."""
    from w2s_mlflow import tasks
    from w2s_mlflow.data import splits

    started = time.perf_counter()
    rows = tasks.find("mnli").load(Path(directory))
    loaded_at = time.perf_counter()
    pool = splits.pool("mnli", rows)
    splits.split_task(pool, seed=0, train_size=pool.train_rows(), test_size=pool.test_rows())
    split_at = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    seconds = {"load": round(loaded_at - started, 1), "cut": round(split_at - loaded_at, 1)}
    print(json.dumps({"rows": len(rows.train) + len(rows.heldout), "seconds": seconds, "peak_gb": round(peak, 2)}))


def main() -> None:
    """Write the mirror here, measure in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(MEASURE, default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure)
    with tempfile.TemporaryDirectory() as directory:
        write(Path(directory), options.rows)
        subprocess.run([sys.executable, __file__, MEASURE, directory], check=True)


if __name__ == "__main__":
    main()
