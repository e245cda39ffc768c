"""Rows cut by their tokens: all of them once, as many at once as a budget holds, as much work for each process."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.test_microbatches import examples, made
from tests.trunks import ragged
from w2s_mlflow.distributed.process_group import Group
from w2s_mlflow.modeling import inference, token_batches
from w2s_mlflow.training import batching, microbatches

LENGTHS = st.lists(st.integers(1, 60), max_size=120)


@given(LENGTHS, st.integers(1, 500))
def test_slices_are_all_rows_in_order_within_the_budget_and_as_long_as_they_can_be(lengths: list[int], budget: int) -> None:
    lengths_N = np.array(lengths, dtype=np.int64)
    found = token_batches.batch_slices(lengths_N, budget)
    assert [row for part in found for row in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in found:
        own = lengths[part]
        assert len(own) == 1 or len(own) * max(own) <= budget
        more = lengths[part.start : part.stop + 1]
        assert part.stop == len(lengths) or len(more) * max(more) > budget


@given(LENGTHS, st.integers(1, 2), st.integers(1, 4), st.none() | st.integers(1, 9))
def test_predictions_take_every_example_once_and_no_process_more_than_the_budget(
    lengths: list[int], rows: int, processes: int, micro_batch: int | None
) -> None:
    lengths_N = np.array(lengths, dtype=np.int64)
    budget = min(micro_batch * rows * max(lengths, default=0), 300) if micro_batch else 300
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_batches, "BUDGET", 300)
        found = token_batches.by_length(lengths_N, micro_batch, rows=rows, processes=processes)
    order = np.concatenate([*found, np.empty(0, dtype=np.int64)])
    assert order.tolist() == np.argsort(lengths_N, kind="stable").tolist()
    for batch in found:
        shares = [lengths_N[Group(rank, processes).share(batch)] for rank in range(processes)]
        assert all(len(own) <= 1 or rows * len(own) * own.max() <= budget for own in shares)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=64), st.integers(1, 9), st.integers(1, 4))
def test_with_shards_every_process_has_as_many_parts(lengths: list[int], micro_batch: int, size: int) -> None:
    """And none has more tokens than so many of the longest rows, which all processes have seen."""
    data, rows = ragged([[1] * length for length in lengths]), np.argsort(lengths, kind="stable")
    group, device = Group(0, size), torch.device("cpu")
    shares = [
        batching.micro_batches(data, rows, micro_batch, device, replace(group, rank=rank), even=True) for rank in range(size)
    ]
    assert len({len(parts) for parts in shares}) == 1
    at_work = [part["input_ids"] for parts in shares for part in parts if microbatches.IDLE not in part]
    assert sum(map(len, at_work)) == len(rows) and all(ids.numel() <= micro_batch * max(lengths) for ids in at_work)
    parts = [[*batching.micro_batch_rows(data, rows, micro_batch, replace(group, rank=rank))] for rank in range(size)]
    assert np.concatenate([part for own in parts for part in own]).tolist() == rows.tolist()


def test_short_rows_go_through_together() -> None:
    data = ragged([[1] * length for length in (2, 2, 2, 2, 2, 3, 9, 10)])
    assert [part.tolist() for part in batching.micro_batch_rows(data, np.arange(8), 2)] == [[0, 1, 2, 3, 4, 5], [6, 7]]
    assert [part.tolist() for part in batching.micro_batch_rows(data, np.arange(8), None)] == [list(range(8))]


@pytest.mark.parametrize("budget", [1, 40, 8192])
@pytest.mark.parametrize(("kind", "name"), [("bert", "classification"), ("gpt2", "reward"), ("llama", "classification")])
def test_predictions_are_those_of_each_row_alone_in_the_order_asked(
    kind: str, name: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, asked = made(kind, name), examples(33)
    alone_NC = np.concatenate([inference.probabilities(head, head.encode([one])) for one in asked])
    assert len(np.unique(alone_NC.round(5))) > 10
    monkeypatch.setattr(token_batches, "BUDGET", budget)
    np.testing.assert_allclose(inference.probabilities(head, head.encode(asked)), alone_NC, atol=1e-6)
