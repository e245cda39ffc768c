"""Rows cut by their tokens, padding included: what goes through a model at once costs as much, whatever the rows' lengths."""

from __future__ import annotations

import numpy as np

from w2s_mlflow.records import Ints

BUDGET = 2048
"""Tokens, padding included, that go through a model at once where nothing is learned.

On a CPU more is no faster for MiniLM and chess-426k, and pads and holds more; less is slower (benchmarks/LOG.md).
"""


def batch_slices(lengths_N: Ints, budget: int) -> list[slice]:
    """Rows in consecutive slices, each as long as it can be: rows * longest row <= budget, or a single row."""
    found, start, longest = [], 0, 0
    for row, length in enumerate(lengths_N.tolist()):
        longest = max(longest, length)
        if row > start and (row + 1 - start) * longest > budget:
            found.append(slice(start, row))
            start, longest = row, length
    return [*found, slice(start, len(lengths_N))] if len(lengths_N) else []


def by_length(lengths_N: Ints, micro_batch: int | None = None, *, rows: int = 1, processes: int = 1) -> list[Ints]:
    """All examples once, the short ones first, in what goes through a model at once where nothing is learned.

    Args:
        lengths_N: the longest token row of each example.
        micro_batch: at most as many tokens at once as so many of the longest examples have; None: BUDGET alone.
        rows: token rows of an example.
        processes: those that share each batch out evenly among them; the share of each keeps to the budget.
    """
    order = np.argsort(lengths_N, kind="stable")
    budget = BUDGET if micro_batch is None else min(BUDGET, micro_batch * rows * int(lengths_N.max(initial=0)))
    tuples = [order[start : start + processes] for start in range(0, len(order), processes)]  # one example for each process
    longest = np.array([lengths_N[some[-1]] for some in tuples], dtype=np.int64)
    return [np.concatenate(tuples[part]) for part in batch_slices(rows * longest, budget)]
