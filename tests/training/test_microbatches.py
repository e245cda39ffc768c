"""A batch in parts is the same batch: to float tolerance without dropout, with it from the same draws. And bfloat16."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import trunks
from w2s_mlflow.losses import confidence
from w2s_mlflow.modeling import heads, inference, language_modeling
from w2s_mlflow.modeling.heads import Batch, Encoded, Head
from w2s_mlflow.records import Example, Floats
from w2s_mlflow.registry import plugin, plugins
from w2s_mlflow.tasks import HEADS
from w2s_mlflow.training import batching, loop, microbatches

LETTERS = np.array(list("abcd"))
WHOLE = confidence.Options(alpha=0.5, warmup=0)
"""A loss that needs the whole batch: its threshold is one over all rows."""


def named(name: str) -> microbatches.Loss:
    """A loss of losses/, its own term at work from the start."""
    module = plugin("losses", name, "x")
    fields = module.Options.__dataclass_fields__
    options = module.Options(**{key: value for key, value in {"alpha": 0.5, "warmup": 0.0}.items() if key in fields})

    def loss(logits: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
        found: Tensor = module.loss(logits, labels_NC, progress, options)
        return found

    return microbatches.PerExampleLoss(loss) if module.PER_EXAMPLE else loss


LOSSES = {name: named(name) for name in plugins("losses")}


def examples(count: int) -> list[Example]:
    """Texts of 2 to 10 letters, two answers each."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(LETTERS, 2 + n % 9)) for n in range(count)]
    return [Example(str(n), str(n), (text,), ("a", "b")) for n, text in enumerate(texts)]


def made(kind: str, name: str, dropout: float = 0.0) -> Head:
    """A small head from random weights."""
    loop.seed_everything(0)
    model, tokenizer = getattr(trunks, kind)()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return language_modeling.Language(model, tokenizer) if name == "language" else heads.build(name, model, tokenizer, 2)


def labels(count: int) -> Floats:
    return np.random.default_rng(1).dirichlet((1, 1), count).astype(np.float32)


def of_batch(head: Head, loss: microbatches.Loss, micro_batch: int, dtype: str = "float32") -> tuple[float, list[Tensor]]:
    """The loss and the gradients of one batch of 32, which goes through the model in parts."""
    data = head.encode(examples(32))
    labels_NC = None if isinstance(head, language_modeling.Language) else torch.from_numpy(labels(32))
    answer = microbatches.forward_in(head, dtype)
    parts = [
        data.batch(part) for part in batching.micro_batch_rows(data, np.arange(32), None if micro_batch == 32 else micro_batch)
    ]
    head.train()
    value = microbatches.batch_gradients(
        answer, head, parts, labels_NC, loss, 0.5, lambda tensor, **given: tensor.backward(**given)
    )
    found = [weight.grad.clone() for weight in head.parameters() if weight.grad is not None]
    head.zero_grad()
    return value.item(), found


KINDS = [(kind, name) for kind in ("bert", "gpt2", "llama") for name in ("classification", "reward")]
EVERY = [(loss, "bert", "classification") for loss in LOSSES] + [("confidence", *kind) for kind in KINDS[1:]]
"""Every loss, and every kind of trunk under both heads."""


@pytest.mark.parametrize(("loss", "kind", "name"), EVERY)
def test_a_batch_in_parts_has_the_same_loss_and_gradients(loss: str, kind: str, name: str) -> None:
    head = made(kind, name)
    value, expected = of_batch(head, LOSSES[loss], 32)
    assert any(gradient.abs().max() > 1e-4 for gradient in expected) and len(expected) > 5
    for micro_batch in (1, 4, 5, 32):
        again, found = of_batch(head, LOSSES[loss], micro_batch)
        assert again == pytest.approx(value, abs=1e-6)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_parts_that_are_averaged_would_not_do() -> None:
    """What the confidence loss makes of each part alone is something else: the test above can fail."""
    head = made("llama", "classification")
    _, expected = of_batch(head, LOSSES["confidence"], 32)
    data, labels_NC = head.encode(examples(32)), labels(32)
    for start in range(0, 32, 4):
        part = np.arange(start, start + 4)
        value = LOSSES["confidence"](head(data.batch(part)), torch.from_numpy(labels_NC[part]), 0.5)
        value.div(8).backward()  # type: ignore[no-untyped-call]
    found = [weight.grad for weight in head.parameters() if weight.grad is not None]
    assert max(float((one - other).abs().max()) for one, other in zip(found, expected, strict=True)) > 1e-3


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_part_goes_through_twice_only_where_the_loss_needs_the_whole_batch(name: str) -> None:
    head, passes = made("llama", "classification"), []
    forward = head.forward

    def spy(batch: Batch) -> Tensor:
        passes.append(len(batch["input_ids"]))
        return forward(batch)

    head.forward = spy  # type: ignore[method-assign]
    of_batch(head, LOSSES[name], 12)
    assert passes == [14, 12, 6] * (2 if name == "confidence" else 1)  # short rows go through together


@pytest.mark.parametrize("micro_batch", [1, 4])
def test_next_tokens_are_averaged_over_the_whole_batch(micro_batch: int) -> None:
    """Parts have different numbers of scored tokens."""

    def loss(logits_MV: Tensor, words_M: Tensor, progress: float) -> Tensor:
        return nn.functional.cross_entropy(logits_MV, words_M)

    head = made("llama", "language")
    value, expected = of_batch(head, loss, 32)
    again, found = of_batch(head, loss, micro_batch)
    assert again == pytest.approx(value, abs=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_with_dropout_the_second_pass_is_the_first(kind: str) -> None:
    head, seen = made(kind, "classification", dropout=0.3), []
    forward = head.forward

    def spy(batch: Batch) -> Tensor:
        seen.append(forward(batch))
        return seen[-1]

    head.forward = spy  # type: ignore[method-assign]
    of_batch(head, LOSSES["confidence"], 8)
    first, second = seen[:4], seen[4:]
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert [tensor.requires_grad for tensor in seen] == [False] * 4 + [True] * 4
    head.eval()
    assert not torch.equal(first[0], forward(head.encode(examples(32)).batch(np.arange(8))))


def test_what_the_loss_draws_is_not_drawn_again() -> None:
    draws: list[float] = []

    def noisy(logits: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
        draws.append(float(torch.rand(())))
        return LOSSES["cross_entropy"](logits, labels_NC, progress)

    head = made("bert", "classification", dropout=0.3)
    of_batch(head, noisy, 8)
    assert float(torch.rand(())) != draws[0]


@pytest.mark.parametrize("loss", ["cross_entropy", "confidence"])
def test_a_training_in_parts_ends_with_the_same_weights(loss: str) -> None:
    heads_ = [made("llama", "classification") for _ in range(3)]
    steps = []
    for head, micro_batch in zip(heads_, (None, 4, 32), strict=True):
        options = loop.Options(epochs=2, batch_size=16, learning_rate=1e-3, seed=0, micro_batch=micro_batch)
        steps.append(loop.fit(head, head.encode(examples(40)), labels(40), LOSSES[loss], options))
    whole, parts, one_part = (head.state_dict() for head in heads_)
    assert steps[0] == steps[1] == steps[2] and steps[0].steps == 6
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-3, atol=1e-5)
        assert torch.equal(one_part[name], weight)
    assert any(not torch.equal(parts[name], weight) for name, weight in whole.items())


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def fitted(dtype: str, micro_batch: int | None = None) -> tuple[Head, Encoded]:
    head = made("llama", "classification")
    data = head.encode(examples(40))
    options = loop.Options(epochs=1, batch_size=16, learning_rate=1e-3, seed=0, dtype=dtype, micro_batch=micro_batch)
    loop.fit(head, data, labels(40), LOSSES["cross_entropy"], options)
    return head, data


def test_bfloat16_is_computed_in_and_nothing_else() -> None:
    head, seen = made("llama", "classification"), []
    block = head.model.base_model.get_submodule("layers.0.mlp")
    for layer in (block, head.linear):
        layer.register_forward_hook(lambda module, given, found: seen.append(found.dtype))  # type: ignore[union-attr]
    value, found = of_batch(head, LOSSES["cross_entropy"], 32, "bfloat16")
    exact, expected = of_batch(head, LOSSES["cross_entropy"], 32)
    assert seen == [torch.bfloat16, torch.float32, torch.float32, torch.float32]  # the block and the last layer, twice
    assert {gradient.dtype for gradient in found} == {torch.float32}
    assert value != exact and value == pytest.approx(exact, abs=0.02)
    assert all(torch.isfinite(one).all() and one.shape == other.shape for one, other in zip(found, expected, strict=True))


def shifted(head: Head, constant: float) -> Head:
    """The head with a constant added to all its logits, which changes no probability."""
    layer: Any = head.linear if isinstance(head, heads.Classification) else cast(Any, head).unembedding()
    assert isinstance(layer, nn.Linear)
    bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
    layer.bias = nn.Parameter(bias + constant)
    return head


@pytest.mark.parametrize("name", HEADS)
def test_close_logits_are_not_rounded_to_a_tie(name: str) -> None:
    """Rounded to bfloat16, whose numbers near 100 are 0.5 apart, most logits would be equal, and the answer the first class."""
    rows = [replace(row, candidates=("a b", "b a") if name == "reward" else ("b", "c")) for row in examples(80)]
    head = made("llama", name)
    plain_NC = inference.probabilities(head, head.encode(rows), dtype="bfloat16")
    found_NC = inference.probabilities(shifted(head, 100.0), head.encode(rows), dtype="bfloat16")
    assert (found_NC[:, 0] != found_NC[:, 1]).all() and np.array_equal(found_NC.argmax(axis=1), plain_NC.argmax(axis=1))
    np.testing.assert_allclose(found_NC, plain_NC, atol=1e-4)


@pytest.mark.parametrize("name", ["classification", "lm_choice"])
def test_the_second_class_wins_by_a_hair_in_bfloat16(name: str) -> None:
    head = shifted(made("llama", name), 100.0)
    layer: Any = head.linear if isinstance(head, heads.Classification) else cast(Any, head).unembedding()
    first, second = (0, 1) if name == "classification" else (head.reader.continuation(word)[0] for word in "bc")
    with torch.no_grad():  # two logits near 100 that differ by .01
        layer.weight[second] = layer.weight[first]
        layer.bias[second] = layer.bias[first] + 0.01
    rows = [replace(row, candidates=("b", "c")) for row in examples(40)]
    found_NC = inference.probabilities(head, head.encode(rows), dtype="bfloat16")
    np.testing.assert_allclose(found_NC[:, 1], 1 / (1 + np.exp(-0.01)), atol=1e-5)


def test_trainings_of_both_kinds_alternate_in_one_process() -> None:
    found = [fitted(dtype)[0].state_dict() for dtype in ("float32", "bfloat16", "float32", "bfloat16")]
    for first, second in ((0, 2), (1, 3)):
        assert all(torch.equal(found[first][name], found[second][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert {weight.dtype for weight in found[1].values()} == {torch.float32}
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight, rtol=0, atol=0.02)


def test_parts_in_bfloat16_draw_and_learn_as_the_whole() -> None:
    whole, parts = fitted("bfloat16")[0].state_dict(), fitted("bfloat16", 4)[0].state_dict()
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=0, atol=0.02)


def test_predictions_are_computed_in_it_too() -> None:
    head, data = fitted("bfloat16")
    exact, coarse = (inference.probabilities(head, data, dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert coarse.dtype == np.float32 and not np.array_equal(coarse, exact)
    np.testing.assert_allclose(coarse, exact, atol=0.02)
    np.testing.assert_allclose(coarse.sum(axis=1), 1, atol=1e-6)


def test_a_fitted_head_can_be_copied_and_is_its_own() -> None:
    head, data = fitted("bfloat16")
    twin = copy.deepcopy(head)
    with torch.no_grad():
        head.linear.weight.zero_()  # type: ignore[union-attr, operator]
    assert not np.array_equal(inference.probabilities(twin, data), inference.probabilities(head, data))
