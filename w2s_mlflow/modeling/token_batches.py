"""Batches limited by tokens, padding included, so that a forward pass costs about the same for short and for long rows."""

from __future__ import annotations

import numpy as np

from w2s_mlflow.records import Ints

BUDGET = 2048
"""Token limit of a forward pass in inference, padding included.

On a CPU a larger budget is no faster for MiniLM and chess-426k, and needs more padding and memory; a smaller one is slower
(benchmarks/LOG.md).
"""


def batch_slices(lengths_N: Ints, budget: int) -> list[slice]:
    """Return consecutive slices, each as long as possible with number of rows * longest row <= budget, or a single row."""
    slices, start, longest = [], 0, 0
    for row, length in enumerate(lengths_N.tolist()):
        longest = max(longest, length)
        if row > start and (row + 1 - start) * longest > budget:
            slices.append(slice(start, row))
            start, longest = row, length
    return [*slices, slice(start, len(lengths_N))] if len(lengths_N) else []


def by_length(lengths_N: Ints, micro_batch: int | None = None, *, rows: int = 1, processes: int = 1) -> list[Ints]:
    """Return inference batches that cover every example once, shortest first.

    Args:
        lengths_N: the length of each example's longest token row.
        micro_batch: further limit on a forward pass, in examples as long as the longest; None: BUDGET alone.
        rows: token rows per example.
        processes: number of ranks that share each batch evenly; the budget applies to each rank's share.
    """
    order = np.argsort(lengths_N, kind="stable")
    budget = BUDGET if micro_batch is None else min(BUDGET, micro_batch * rows * int(lengths_N.max(initial=0)))
    tuples = [order[start : start + processes] for start in range(0, len(order), processes)]  # one example per rank
    longest = np.array([lengths_N[examples[-1]] for examples in tuples], dtype=np.int64)
    return [np.concatenate(tuples[part]) for part in batch_slices(rows * longest, budget)]
