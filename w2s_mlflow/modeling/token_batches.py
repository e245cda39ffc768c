"""Batches limited by tokens, padding included, so that each pass costs about the same whatever the rows' lengths."""

from __future__ import annotations

import numpy as np

from w2s_mlflow.records import Ints

BUDGET = 2048
"""Tokens, padding included, per forward pass without training.

On a CPU a larger budget is no faster for MiniLM and chess-426k, and needs more padding and memory; a smaller one is slower
(benchmarks/LOG.md).
"""


def batch_slices(lengths_N: Ints, budget: int) -> list[slice]:
    """Return consecutive slices of rows, each as long as possible: rows * longest row <= budget, or a single row."""
    found, start, longest = [], 0, 0
    for row, length in enumerate(lengths_N.tolist()):
        longest = max(longest, length)
        if row > start and (row + 1 - start) * longest > budget:
            found.append(slice(start, row))
            start, longest = row, length
    return [*found, slice(start, len(lengths_N))] if len(lengths_N) else []


def by_length(lengths_N: Ints, micro_batch: int | None = None, *, rows: int = 1, processes: int = 1) -> list[Ints]:
    """Return batches for inference that cover all examples once, the short ones first.

    Args:
        lengths_N: the longest token row of each example.
        micro_batch: limit the tokens per pass to those of this many of the longest examples; None: BUDGET alone.
        rows: token rows per example.
        processes: number of ranks that share each batch evenly; the budget applies to each rank's share.
    """
    order = np.argsort(lengths_N, kind="stable")
    budget = BUDGET if micro_batch is None else min(BUDGET, micro_batch * rows * int(lengths_N.max(initial=0)))
    tuples = [order[start : start + processes] for start in range(0, len(order), processes)]  # one example per rank
    longest = np.array([lengths_N[some[-1]] for some in tuples], dtype=np.int64)
    return [np.concatenate(tuples[part]) for part in batch_slices(rows * longest, budget)]
