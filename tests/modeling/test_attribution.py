"""Evidence: scores against finite differences, which tokens are kept, and what is left of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests import trunks
from w2s_mlflow.modeling import attribution, heads, inference
from w2s_mlflow.modeling.heads import Encoded, Head
from w2s_mlflow.records import Example
from w2s_mlflow.training import loop

EXAMPLES = [Example(str(n), str(n), (" ".join("abcd"[: 1 + n % 4]),), ("c", "d b")) for n in range(5)]
ANSWERS = np.array([0, 1, 1, 0, 1])
KINDS: dict[str, type[Head]] = {"bert": heads.Classification, "gpt2": heads.LMChoice, "llama": heads.Reward}


def made(kind: str) -> Head:
    loop.seed_everything(0)
    model, tokenizer = getattr(trunks, kind)()
    classes = {"classes": 3} if kind == "bert" else {}
    return KINDS[kind](model, tokenizer, **classes).eval()


def encoded(head: Head) -> Encoded:
    words = ("a", "b") if isinstance(head, heads.LMChoice) else ("c", "d b")
    return head.encode([replace(example, candidates=words) for example in EXAMPLES])


@contextmanager
def scaled(head: Head, row: int, token: int, factor: float) -> Iterator[None]:
    """Inside, one token's embedding is longer by a factor."""

    def change(module: Any, given: Any, made: torch.Tensor) -> torch.Tensor:
        longer = made.clone()
        longer[row, token] *= factor
        return longer

    hook = head.model.get_input_embeddings().register_forward_hook(change)
    yield
    hook.remove()


def margin(head: Head, data: Encoded, example: int) -> float:
    with torch.inference_mode():
        logits = head(data.batch(np.array([example])))[0].double()
    others = torch.tensor([value for c, value in enumerate(logits.tolist()) if c != ANSWERS[example]])
    return float(logits[ANSWERS[example]] - others.logsumexp(0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_how_the_margin_grows_with_the_embedding(kind: str) -> None:
    head = made(kind)
    data = encoded(head)
    found_T = attribution.scores(head, data, ANSWERS, micro_batch=3)
    step, k = 1e-2, data.rows_per_example
    checked = 0
    for row, (start, length) in enumerate(zip(data.offsets_R, data.lengths_R, strict=True)):
        for token in range(length):
            values = []
            for factor in (1 + step, 1 - step):
                with scaled(head, row % k, token, factor):
                    values.append(margin(head, data, row // k))
            assert found_T[start + token] == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-4)
            checked += 1
    assert checked == len(found_T) and np.abs(found_T).max() > 1e-3


def test_scores_leave_no_gradient_and_no_hook_and_dropout_is_off() -> None:
    head = made("bert").train()
    data = encoded(head)
    first, second = (attribution.scores(head, data, ANSWERS) for _ in range(2))
    assert np.array_equal(first, second) and head.training
    assert all(parameter.grad is None for parameter in head.parameters())
    assert not head.model.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize("kind", KINDS)
def test_no_weight_needs_a_gradient_for_the_same_bits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    head = made(kind)
    data, (first, *others) = encoded(head), head.parameters()
    first.requires_grad_(False)
    learned: list[bool] = []
    head.model.get_input_embeddings().register_forward_hook(
        lambda *given: learned.append(any(own.requires_grad for own in others))
    )
    found_T = attribution.scores(head, data, ANSWERS)
    assert not first.requires_grad and all(own.requires_grad for own in others)
    monkeypatch.setattr(attribution, "_frozen", nullcontext)
    assert np.array_equal(attribution.scores(head, data, ANSWERS), found_T)
    assert learned == [False, True]


def test_the_highest_scores_of_each_row_are_kept_and_marks_always() -> None:
    head = made("bert")
    a, b, c, d, e = range(4, 9)
    data = trunks.ragged([[trunks.CLS, a, b, c, d, e, trunks.SEP], [trunks.CLS, a, trunks.SEP]])
    scores_T = np.array([9, 0.1, 0.5, -1, 0.5, 0.4, 9, -9, -9, -9], dtype=np.float32)
    kept_T = attribution.top_tokens(head, data, scores_T, 0.4)  # 2 of 5, and 1 of 1
    assert kept_T.tolist() == [True, False, True, False, True, False, True, True, True, True]
    assert attribution.top_tokens(head, data, scores_T, 0.41).sum() == kept_T.sum() + 1  # 2.05 is 3
    left = attribution.select_tokens(data, kept_T)
    assert left.batch(np.array([0, 1]))["input_ids"].tolist() == [
        [trunks.CLS, b, d, trunks.SEP],
        [trunks.CLS, a, trunks.SEP, 0],
    ]
    assert attribution.quotes(head, data, kept_T) == ["b … d", "a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_kept_whole_is_answered_as_before(kind: str) -> None:
    head = made(kind)
    data = encoded(head)
    whole = attribution.select_tokens(data, np.ones(len(data.flat), dtype=bool))
    assert np.array_equal(inference.probabilities(head, whole), inference.probabilities(head, data))
    part = attribution.select_tokens(data, attribution.top_tokens(head, data, attribution.scores(head, data, ANSWERS), 0.3))
    assert len(part) == len(data) and (part.lengths_R >= 1).all() and len(part.flat) < len(data.flat)
    assert not np.array_equal(inference.probabilities(head, part), inference.probabilities(head, data))
    if data.types is not None:
        assert part.types is not None and len(part.types) == len(part.flat)
