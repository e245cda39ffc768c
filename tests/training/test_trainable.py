"""Adapters, a frozen trunk, activations that are not held: what is learned, and what is left of it afterwards."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.test_microbatches import LOSSES, examples, labels, made
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import inference, saved_heads
from w2s_mlflow.modeling.heads import Classification, Encoded, Head
from w2s_mlflow.training import checkpoint, loop, state, trainable
from w2s_mlflow.training.checkpoint import Checkpoint

OPTIONS = loop.Options(epochs=2, batch_size=8, learning_rate=1e-2, seed=0)
PLAIN: dict[str, Any] = {"lora": None, "freeze": None, "gradient_checkpointing": False}
CASES = [("bert", "classification"), ("bert", "reward")]
CASES += [(kind, name) for kind in ("gpt2", "llama") for name in ("classification", "reward", "lm_choice")]


def fit(head: Head, data: Encoded | None = None, kept: Checkpoint | None = None, **options: Any) -> state.Fit:
    """Train a head on 40 examples; `dies` is the step after which the process would be killed."""
    dies, seed = options.pop("dies", None), options.pop("seed", 0)
    loop.seed_everything(seed)

    def report(step: int, steps: int, values: dict[str, float]) -> None:
        if step == dies:
            raise InterruptedError

    with trainable.learning(head, **PLAIN | options):
        given = data or head.encode(examples(40))
        return loop.fit(head, given, labels(40), LOSSES["cross_entropy"], OPTIONS, report=report, checkpoint=kept)


def weights(head: Head) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in head.state_dict().items()}


def changed(head: Head, before: dict[str, torch.Tensor]) -> set[str]:
    after = head.state_dict()
    assert after.keys() == before.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


# --- adapters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_adapters_are_merged_and_a_plain_head_is_left(kind: str, name: str, tmp_path: Path) -> None:
    head = made(kind, name)
    before, layers = weights(head), [type(module) for module in head.modules()]
    fit(head, lora=2)
    assert [type(module) for module in head.modules()] == layers
    moved = changed(head, before)
    trunk = {name for name in moved if name.startswith("model.")}
    assert trunk and all(before[name].ndim == 2 and "emb" not in name and "wte" not in name for name in trunk)
    assert moved - trunk == ({"linear.weight", "linear.bias"} if name != "lm_choice" else set())
    assert not [name for name in moved if "lm_head" in name]
    assert all(weight.requires_grad for weight in head.parameters())
    difference = before[min(trunk)] - head.state_dict()[min(trunk)]
    assert torch.linalg.matrix_rank(difference, atol=1e-5) <= 2
    saved_heads.save(head, tmp_path)
    assert not [file for file in tmp_path.iterdir() if "adapter" in file.name]
    assert "peft" not in (tmp_path / "config.json").read_text()
    loaded, data = saved_heads.load(tmp_path), head.encode(examples(9))
    np.testing.assert_array_equal(inference.probabilities(loaded, data), inference.probabilities(head, data))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_every_linear_layer_of_the_trunk_has_an_adapter_and_nothing_else_is_learned(kind: str) -> None:
    head = made(kind, "classification")
    matrices = {name for name, weight in head.model.base_model.named_parameters() if weight.ndim == 2 and "emb" not in name}
    with trainable.learning(head, **PLAIN | {"lora": 3}):
        names = {name for name, weight in head.named_parameters() if weight.requires_grad}
        assert {name for name in names if "lora" not in name} == {"linear.weight", "linear.bias"}
        assert trainable.state(head).keys() == names
        assert {weight.shape[0 if "lora_A" in name else 1] for name, weight in head.named_parameters() if "lora" in name} == {3}
        count = sum("lora_A" in name for name in names)
    assert count == len([name for name in matrices if name.split(".")[0] not in ("wte", "wpe")])


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_the_merged_head_answers_as_with_its_adapters(kind: str) -> None:
    head = made(kind, "classification")
    data = head.encode(examples(9))
    plain = inference.probabilities(head, data)
    with trainable.learning(head, **PLAIN | {"lora": 2}):
        np.testing.assert_array_equal(inference.probabilities(head, data), plain)  # an adapter begins as nothing
        loop.fit(head, head.encode(examples(40)), labels(40), LOSSES["cross_entropy"], OPTIONS)
        before = inference.probabilities(head, data)
    np.testing.assert_allclose(inference.probabilities(head, data), before, atol=1e-5)
    assert np.abs(before - plain).max() > 1e-3


def test_an_adapter_counts_twice_whatever_its_rank() -> None:
    for rank in (1, 4):
        head = made("llama", "classification")
        before = head.model.model.layers[0].mlp.up_proj.weight.clone()
        with trainable.learning(head, **PLAIN | {"lora": rank}):
            layer: Any = head.model.model.layers[0].mlp.up_proj
            torch.nn.init.normal_(layer.lora_B.default.weight)
            product = layer.lora_B.default.weight @ layer.lora_A.default.weight
        torch.testing.assert_close(head.model.model.layers[0].mlp.up_proj.weight, before + 2 * product)


@pytest.mark.parametrize(
    ("step", "kind", "options"),
    [(1, "gpt2", {"lora": 2}), (5, "gpt2", {"lora": 2}), (9, "bert", {"lora": 2}), (5, "bert", {"freeze": "backbone"})],
)
def test_a_training_that_dies_goes_on_to_the_same_bits(step: int, kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    whole, again = made(kind, "classification", dropout=0.2), made(kind, "classification", dropout=0.2)
    expected = fit(whole, **options)
    with pytest.raises(InterruptedError):
        fit(again, kept=Checkpoint(tmp_path, 2), dies=step, **options)
    again = made(kind, "classification", dropout=0.2)
    assert fit(again, kept=Checkpoint(tmp_path, 2), seed=0 if step == 1 else 9, **options) == expected
    assert not changed(again, weights(whole))


def test_a_checkpoint_holds_no_frozen_weight(tmp_path: Path) -> None:
    head = made("gpt2", "classification")
    fit(head, kept=Checkpoint(tmp_path, 3), lora=2)
    saved = checkpoint.read(tmp_path)
    assert saved is not None
    names = checkpoint.tensors(saved)["model"].keys()
    assert {"linear.weight", "linear.bias"} < names and all("lora" in name or "linear" in name for name in names)


# --- a frozen trunk ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["classification", "reward"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_of_a_frozen_trunk_the_linear_layer_alone_learns_from_what_it_says_once(kind: str, name: str) -> None:
    head = made(kind, name, dropout=0.3)
    assert isinstance(head, Classification)
    before, data, passes = weights(head), head.encode(examples(40)), []
    plain = inference.probabilities(head, data)
    pooled = inference.pooled(head, data, micro_batch=7)
    np.testing.assert_allclose(inference.probabilities(head, pooled), plain, atol=1e-6)
    head.model.register_forward_hook(lambda *_: passes.append(1))
    head.model.base_model.register_forward_hook(lambda *_: passes.append(1))
    fit(head, pooled, freeze="backbone")
    assert not passes and changed(head, before) == {"linear.weight", "linear.bias"}
    np.testing.assert_allclose(inference.probabilities(head, pooled), inference.probabilities(head, data), atol=1e-6)
    assert all(weight.requires_grad for weight in head.parameters())


def test_it_learns_what_a_linear_layer_on_the_frozen_trunk_learns() -> None:
    """The same training, the long way: the trunk at every step, in eval mode, without gradient."""
    one, other = made("llama", "classification"), made("llama", "classification")
    assert isinstance(one, Classification) and isinstance(other, Classification)
    fit(one, inference.pooled(one, one.encode(examples(40))), freeze="backbone")
    other.model.requires_grad_(False)
    loop.fit(other, other.encode(examples(40)), labels(40), LOSSES["cross_entropy"], OPTIONS)
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(weight, other.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_rows_keep_their_order_and_a_comparison_its_two() -> None:
    head = made("bert", "reward")
    assert isinstance(head, Classification)
    data = head.encode(examples(9))
    rows = inference.pooled(head, data, micro_batch=4).pooled_RD
    assert rows is not None and rows.shape == (18, 16)
    with torch.inference_mode():
        for n in range(9):
            expected = head.eval().pooled_RD(data.batch(np.array([n]))).numpy()
            np.testing.assert_allclose(rows[2 * n : 2 * n + 2], expected, atol=1e-6)


# --- activations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "dropout"),
    [*((kind, options, 0.3) for kind in ("bert", "gpt2", "llama") for options in ({}, {"lora": 2})), ("llama", {}, 0.0)],
)
def test_activations_computed_again_give_the_same_bits(kind: str, options: dict[str, Any], dropout: float) -> None:
    held, again, calls = made(kind, "classification", dropout), made(kind, "classification", dropout), []
    linear = {"bert": "encoder.layer.0.attention.self.query", "gpt2": "h.0.attn.c_attn", "llama": "layers.0.self_attn.q_proj"}[
        kind
    ]
    again.model.base_model.get_submodule(linear).register_forward_pre_hook(lambda *_: calls.append(1))
    steps = fit(held, **options)
    assert fit(again, **options, gradient_checkpointing=True) == steps
    assert not changed(again, weights(held))
    assert len(calls) == 2 * steps.steps
    assert not again.model.is_activation_checkpointing
    assert not [module for module in again.modules() if module._forward_hooks]


def test_a_model_without_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    head = made("llama", "classification")
    monkeypatch.setattr(type(head.model), "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="used only with a model that supports it, got LlamaForCausalLM"):
        fit(head, gradient_checkpointing=True)


def test_adapters_are_not_loaded_before_they_are_asked_for() -> None:
    source = Path(str(importlib.import_module("w2s_mlflow.training.trainable").__file__)).read_text(encoding="utf-8")
    assert "\nfrom peft" not in source and "    from peft" in source
