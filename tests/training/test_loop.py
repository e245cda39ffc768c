"""fit(): order, schedule, early stopping, seeds."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from w2s_mlflow import models
from w2s_mlflow.distributed.process_group import Group
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.losses import cross_entropy
from w2s_mlflow.modeling.heads import Encoded, Head, build
from w2s_mlflow.records import Example, Floats
from w2s_mlflow.training import batching, loop

OPTIONS = loop.Options(epochs=2, batch_size=8, learning_rate=1e-2, seed=3)
WORDS = ("Ke1", "kf8", "Qd4", "rb7", "Nf3")


def examples(count: int) -> list[Example]:
    """Positions of different lengths, two moves to choose from."""
    return [Example(f"i{n}", f"g{n}", (" ".join(WORDS[: 2 + n % 4]),), ("Qd5", "Nf5")) for n in range(count)]


def loss(logits: torch.Tensor, labels: torch.Tensor, progress: float) -> torch.Tensor:
    return cross_entropy.loss(logits, labels, progress, cross_entropy.Options())


@pytest.fixture
def head() -> Head:
    """A small head from random weights."""
    loop.seed_everything(0)
    return build("lm_choice", *models.load(models.find("chess-27k", "weak"), pretrained=False), 2)


@pytest.fixture
def data(head: Head) -> tuple[Encoded, Floats]:
    """20 encoded examples and their soft labels."""
    labels = np.random.default_rng(0).dirichlet((1, 1), 20).astype(np.float32)
    return head.encode(examples(20)), labels


@given(st.lists(st.integers(1, 40), min_size=1, max_size=300), st.integers(1, 33))
def test_an_epoch_holds_every_example_once_and_sorts_by_length(lengths: list[int], batch_size: int) -> None:
    lengths_N = np.array(lengths)
    found = list(batching.batches(lengths_N, batch_size, np.random.default_rng(0)))
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert len(found) == math.ceil(len(lengths) / batch_size)  # by so many steps a training falls to rate zero
    assert sorted(map(len, found))[1:] == [batch_size] * (len(found) - 1)
    spread = sum(int(lengths_N[batch].max() - lengths_N[batch].min()) for batch in found)
    assert spread <= max(1, round(len(found) / batching.POOL)) * (max(lengths) - min(lengths))


@pytest.mark.parametrize(("count", "pools"), [(500, 1), (2000, 1), (2400, 2), (8000, 5)])
def test_no_pool_is_small(count: int, pools: int) -> None:
    """Batches of one pool do not overlap in length, and each pool reaches over all lengths."""
    lengths_N = np.random.default_rng(1).permutation(count)
    found = list(batching.batches(lengths_N, 32, np.random.default_rng(0)))
    ranges = [(lengths_N[batch].min(), lengths_N[batch].max()) for batch in found]
    overlaps = [sum(low <= length <= high for low, high in ranges) for length in range(count // 10, count - count // 10)]
    assert max(overlaps) == pools and np.mean(overlaps) > 0.9 * pools


def test_batches_differ_from_epoch_to_epoch_and_with_the_seed() -> None:
    order = np.random.default_rng(0)
    epochs = [np.concatenate(list(batching.batches(np.ones(50, dtype=np.int64), 8, order))).tolist() for _ in range(2)]
    other = np.concatenate(list(batching.batches(np.ones(50, dtype=np.int64), 8, np.random.default_rng(1)))).tolist()
    assert epochs[0] != epochs[1] and other not in epochs


def test_the_rate_grows_over_a_tenth_and_falls_to_zero() -> None:
    rates = [loop.warmup_then_linear(step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    assert rates[10] == 1 and rates[-1] == pytest.approx(1 / 90)
    assert np.diff(rates[10:]) == pytest.approx(-1 / 90)


def test_the_same_seed_gives_the_same_bits(head: Head, data: tuple[Encoded, Floats]) -> None:
    twin = copy.deepcopy(head)
    for one in (head, twin):
        loop.fit(one, *data, loss, OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(head.state_dict().values(), twin.state_dict().values(), strict=True))


def test_training_lowers_the_loss_and_reports_every_step(head: Head, data: tuple[Encoded, Floats]) -> None:
    seen: list[tuple[int, int, float]] = []
    labels = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (20, 1))
    options = loop.Options(epochs=6, batch_size=8, learning_rate=1e-2, seed=0)
    found = loop.fit(
        head, data[0], labels, loss, options, report=lambda step, steps, m: seen.append((step, steps, m["train/loss"]))
    )
    assert [step for step, _, _ in seen] == list(range(1, 19)) and {steps for _, steps, _ in seen} == {18}
    assert found.steps == 18 and seen[-1][2] < 0.3 * seen[0][2]


def test_it_stops_at_the_first_epoch_that_is_no_better_and_restores_the_best(head: Head, data: tuple[Encoded, Floats]) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    scores = iter([0.5, 0.7, 0.7, 0.9])

    def validate(step: int) -> float:
        weights.append(copy.deepcopy(head.state_dict()))
        return next(scores)

    found = loop.fit(head, *data, loss, loop.Options(epochs=4, batch_size=8, learning_rate=1e-2, seed=0), validate=validate)
    assert found.scores == [0.5, 0.7, 0.7] and found.best_epoch == 1
    kept = head.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in weights[1].items())
    assert any(not torch.equal(kept[name], value) for name, value in weights[2].items())


def test_the_loss_sees_the_whole_batch_and_growing_progress(head: Head, data: tuple[Encoded, Floats]) -> None:
    seen: list[tuple[int, float]] = []

    def spy(logits: torch.Tensor, labels: torch.Tensor, progress: float) -> torch.Tensor:
        seen.append((len(logits), progress))
        return loss(logits, labels, progress)

    loop.fit(head, *data, spy, OPTIONS)
    assert sorted(size for size, _ in seen[:3]) == [4, 8, 8]
    assert [progress for _, progress in seen] == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


def test_without_a_fused_adamw_the_training_is_the_same(
    head: Head, data: tuple[Encoded, Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    fused, plain, asked = copy.deepcopy(head), copy.deepcopy(head), list[bool]()
    loop.fit(fused, *data, loss, OPTIONS)

    def refuse(*given: Any, fused: bool = False, **options: Any) -> torch.optim.AdamW:
        asked.append(fused)
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be floating point Tensors of supported devices")
        return torch.optim.AdamW(*given, **options)

    monkeypatch.setattr(loop, "AdamW", refuse)
    loop.fit(plain, *data, loss, OPTIONS)
    assert asked == [True, False]
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(fused.state_dict()[name], weight, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(fused.state_dict()[name], weight) for name, weight in plain.state_dict().items())


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("batch_size", 0), ("learning_rate", float("nan"))])
def test_impossible_options_are_named(name: str, value: float) -> None:
    values = {"epochs": 1, "batch_size": 1, "learning_rate": 1.0, "seed": 0} | {name: value}
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be .*got {value}"):
        loop.Options(**values)  # type: ignore[arg-type]


def test_processes_drop_out_units_of_their_own_in_each_step_and_the_first_those_of_one_alone() -> None:
    drawn: list[tuple[float, ...]] = []
    for rank, size, step in ((0, 3, 0), (0, 1, 0), (1, 3, 0), (1, 3, 0), (2, 3, 0), (0, 3, 8), (1, 3, 8)):
        torch.rand(1 + len(drawn))  # whatever has been drawn before
        loop._seed_dropout(3, Group(rank, size), step, torch.device("cpu"))
        drawn.append(tuple(torch.rand(4).tolist()))
    assert drawn[0] == drawn[1] and drawn[2] == drawn[3]
    assert len(set(drawn)) == 5


def test_dropout_hangs_on_the_seed_and_the_step_and_not_on_what_was_drawn_before(data: tuple[Encoded, Floats]) -> None:
    def drops(before: int, seed: int = 3) -> list[tuple[float, ...]]:
        """What the loss of each step draws: dropout draws from the same state."""
        found: list[tuple[float, ...]] = []

        def drawing_loss(logits: torch.Tensor, labels: torch.Tensor, progress: float) -> torch.Tensor:
            found.append(tuple(torch.rand(4).tolist()))
            return loss(logits, labels, progress)

        loop.seed_everything(0)
        model = build("lm_choice", *models.load(models.find("chess-27k", "weak"), pretrained=False), 2)
        torch.rand(before)
        loop.fit(model, *data, drawing_loss, loop.Options(epochs=1, batch_size=8, learning_rate=1e-2, seed=seed))
        return found

    first = drops(1)
    assert first == drops(5) and len(set(first)) == 3 and not set(first) & set(drops(1, seed=4))
