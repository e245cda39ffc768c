"""Batches with a limited number of tokens, including padding, so that every forward pass has about the same cost."""

from __future__ import annotations

import numpy as np

from w2s_mlflow.records import Ints

BUDGET = 2048
"""Maximum number of tokens of a forward pass in inference, including padding.

For MiniLM and chess-426k on a CPU, a larger limit is no faster and needs more padding and memory; a smaller one is slower
(benchmarks/LOG.md).
"""


def batch_slices(lengths_N: Ints, budget: int) -> list[slice]:
    """Split rows into consecutive slices that have at most `budget` tokens each, including padding.

    Rows are padded to the longest row of their slice. Each slice has as many rows as fit; a row that is longer than the budget
    is a slice of its own.
    """
    slices, start, longest = [], 0, 0
    for row, length in enumerate(lengths_N.tolist()):
        longest = max(longest, length)
        if row > start and (row + 1 - start) * longest > budget:
            slices.append(slice(start, row))
            start, longest = row, length
    return [*slices, slice(start, len(lengths_N))] if len(lengths_N) else []


def by_length(lengths_N: Ints, micro_batch: int | None = None, *, rows: int = 1, processes: int = 1) -> list[Ints]:
    """Return batches for inference, as indices of examples. They cover every example once, in order of increasing length.

    Args:
        lengths_N: the length of each example's longest token row.
        micro_batch: maximum size of a forward pass, counted in examples as long as the longest of all. The limit BUDGET
            applies as well; if `micro_batch` is None, it is the only limit.
        rows: number of token rows per example.
        processes: number of ranks that share each batch evenly; the budget applies to each rank's share.
    """
    order = np.argsort(lengths_N, kind="stable")
    budget = BUDGET if micro_batch is None else min(BUDGET, micro_batch * rows * int(lengths_N.max(initial=0)))
    # Group the examples into tuples with one example per rank, so that all ranks get equally many examples of a batch.
    tuples = [order[start : start + processes] for start in range(0, len(order), processes)]
    longest = np.array([lengths_N[examples[-1]] for examples in tuples], dtype=np.int64)
    return [np.concatenate(tuples[part]) for part in batch_slices(rows * longest, budget)]
