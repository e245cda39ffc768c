"""The share of padding among the tokens of a batch, over the texts of SST-2 with the given tokenizer.

    W2S_DATA_DIR=MIRROR python benchmarks/padding.py --tokenizer PATH

Three ways: batches as training makes them (shuffled, then sorted by length within a window), random batches padded to their
longest row, and every row padded to the longest of all. And what it takes to tokenise once, and to read what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoConfig, AutoModel, AutoTokenizer

from w2s_mlflow import batching
from w2s_mlflow.records import Ints
from w2s_mlflow.tokens import Reader

BATCH = 32


def share(lengths_N: Ints, batches: Iterable[Ints], width: int | None = None) -> float:
    """Padding / all tokens, in percent; each batch as wide as its longest row, or `width`."""
    cells = sum(len(batch) * (width or int(lengths_N[batch].max())) for batch in batches)
    return round(100 * (1 - int(lengths_N.sum()) / cells), 1)


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    path = parser.parse_args().tokenizer
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    model = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    reader = Reader(AutoTokenizer.from_pretrained(path, local_files_only=True), model)
    file = Path(os.environ["W2S_DATA_DIR"]) / "nyu-mll" / "glue" / "sst2" / "train.parquet"
    rows = [(text,) for text in pq.read_table(file).column("sentence").to_pylist()]

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["W2S_SCRATCH"] = scratch
        reader.read(rows[:1])  # the first call starts the tokenizer's threads
        seconds = []
        for _ in range(2):
            started = time.perf_counter()
            lengths_N = reader.read(rows).lengths_N()
            seconds.append(round(time.perf_counter() - started, 3))
    shuffled = np.random.default_rng(0).permutation(len(rows))
    ordered = [shuffled[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    found = {
        "rows": len(rows),
        "tokens": int(lengths_N.sum()),
        "longest": int(lengths_N.max()),
        "batches of train": share(lengths_N, batching.batches(lengths_N, BATCH, np.random.default_rng(0))),
        "random batches": share(lengths_N, ordered),
        "to the longest of all": share(lengths_N, ordered, int(lengths_N.max())),
        "seconds to tokenise": seconds[0],
        "seconds to read what is kept": seconds[1],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
