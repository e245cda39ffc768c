"""The share of padding among the tokens of a batch, over the texts of SST-2 with the given tokenizer.

    W2S_DATA_DIR=MIRROR python benchmarks/padding.py --tokenizer PATH

Of 500, 2,000 and all rows: batches as training makes them (sorted by length within equal pools), as it made them before
(within pools of 50 batches, the last one of what was left), the least that as many batches of at most 32 rows can have, random
batches padded to their longest row, and every row padded to the longest of all; and what predictions put through at once, by a
budget of tokens and by 256 rows. And what it takes to tokenise once, and to read what is kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from transformers import AutoConfig, AutoModel, AutoTokenizer

from w2s_mlflow.modeling import token_batches
from w2s_mlflow.modeling.tokenization import Reader
from w2s_mlflow.records import Ints
from w2s_mlflow.training import batching

BATCH, ROWS, POOL = 32, 256, 50
SIZES = (500, 2000)


def share(lengths_N: Ints, batches: Iterable[Ints], width: int | None = None) -> float:
    """Padding / all tokens, in percent; each batch as wide as its longest row, or `width`."""
    return of_cells(lengths_N, sum(len(batch) * (width or int(lengths_N[batch].max())) for batch in batches))


def of_cells(lengths_N: Ints, cells: int) -> float:
    """Padding / all tokens, in percent, where `cells` tokens go through."""
    return round(100 * (1 - int(lengths_N.sum()) / cells), 1)


def least(lengths_N: Ints) -> int:
    """The fewest tokens, padding included, of any ceil(N / 32) batches of at most 32 rows.

    Whatever the sizes of the batches, rows in order of length need the fewest; over all sizes that is found batch by batch, by
    the rows that batches have been short of so far.
    """
    sorted_N, count = np.sort(lengths_N), math.ceil(len(lengths_N) / BATCH)
    room = count * BATCH - len(lengths_N)
    best = [0.0, *[math.inf] * room]
    for batch in range(1, count + 1):
        ends = [batch * BATCH - short for short in range(room + 1)]
        best = [
            min(best[before] + (BATCH - short + before) * int(sorted_N[max(end, 1) - 1]) for before in range(short + 1))
            if 0 < end <= len(lengths_N)
            else math.inf
            for short, end in enumerate(ends)
        ]
    return int(best[room])


def made_before(lengths_N: Ints) -> list[Ints]:
    """Training batches until 2026-11-29: a pool of 50 batches after the other."""
    shuffled, batches = np.random.default_rng(0).permutation(len(lengths_N)), []
    for start in range(0, len(shuffled), POOL * BATCH):
        pool = shuffled[start : start + POOL * BATCH]
        pool = pool[np.argsort(lengths_N[pool], kind="stable")]
        batches += [pool[i : i + BATCH] for i in range(0, len(pool), BATCH)]
    return batches


def shares(lengths_N: Ints) -> dict[str, float]:
    """Every way, in percent."""
    shuffled, order = np.random.default_rng(0).permutation(len(lengths_N)), np.argsort(lengths_N, kind="stable")
    random_batches = [shuffled[start : start + BATCH] for start in range(0, len(shuffled), BATCH)]
    return {
        "batches of train": share(lengths_N, batching.batches(lengths_N, BATCH, np.random.default_rng(0))),
        "as made before": share(lengths_N, made_before(lengths_N)),
        "the least": of_cells(lengths_N, least(lengths_N)),
        "random batches": share(lengths_N, random_batches),
        "to the longest of all": share(lengths_N, random_batches, int(lengths_N.max())),
        "predictions by a budget": share(lengths_N, token_batches.by_length(lengths_N)),
        "predictions by 256 rows": share(lengths_N, [order[start : start + ROWS] for start in range(0, len(order), ROWS)]),
    }


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
    result = {
        "rows": len(rows),
        "tokens": int(lengths_N.sum()),
        "longest": int(lengths_N.max()),
        **{str(size): shares(lengths_N[:size]) for size in (*SIZES, len(rows))},
        "seconds to tokenise": seconds[0],
        "seconds to read what is kept": seconds[1],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
