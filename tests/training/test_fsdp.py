"""Processes that hold shards of the weights come to what one comes to that holds them whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import _sharded
from tests._launched import _backward
from tests.distributed.test_process_group import ROOT
from tests.training.test_microbatches import LOSSES, examples, labels, made
from w2s_mlflow.modeling import language_modeling
from w2s_mlflow.training import fsdp, microbatches, trainable


@pytest.mark.parametrize(("kind", "block"), [("bert", "BertLayer"), ("gpt2", "GPT2Block"), ("llama", "LlamaDecoderLayer")])
@pytest.mark.parametrize("lora", [None, 2])
def test_blocks_are_the_layers_of_the_trunk(lora: int | None, kind: str, block: str) -> None:
    head = made(kind, "classification")
    with trainable.learning(head, lora=lora, freeze=None, gradient_checkpointing=False):
        assert [type(module).__name__ for module in fsdp._blocks(head)] == [block]
    head.model.config.num_hidden_layers = 7
    assert not list(fsdp._blocks(head))


def test_without_shards_tensors_stay_as_they_are() -> None:
    head = made("bert", "classification")
    weight = torch.ones(3)
    assert fsdp.like(weight, torch.zeros(3)) is weight and fsdp.gathered({"x": weight}, keep=True)["x"] is weight
    assert fsdp.gathered({"x": weight}, keep=False) == {}
    with fsdp.joined(head, head):
        assert all(weight.numel() for weight in head.parameters())


@pytest.mark.parametrize("name", ["classification", "reward", "language"])
def test_an_idle_part_has_no_effect(name: str) -> None:
    """Its gradient is zero, so that a batch with it is the batch without."""
    found = []
    for idle in (0, 2):
        head = made("llama", name)
        data, labels_NC = head.encode(examples(4)), None if name == "language" else torch.from_numpy(labels(4))
        parts = [data.batch(np.arange(4)), *[data.batch(np.arange(1)) | {microbatches.IDLE: torch.ones(())}] * idle]
        loss = language_modeling.loss if name == "language" else LOSSES["confidence"]
        value = microbatches.batch_gradients(head, head, parts, labels_NC, loss, 0.5, _backward)
        found.append([value.detach(), *(weight.grad for weight in head.parameters() if weight.grad is not None)])
    assert len(found[0]) == len(found[1]) > 5
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_three_processes_with_shards_have_the_gradients_and_the_weights_of_one(tmp_path: Path) -> None:
    """Three, so that a weight of two rows, of two classes, leaves one process with an empty shard."""
    _sharded.stopped(tmp_path / "alone")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "3", "-m", "tests._sharded", str(tmp_path)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "ACCELERATE_USE_FSDP": "true"}  # gloo, wherever the test runs
    done = subprocess.run(launch, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, *others = (safetensors.torch.load_file(tmp_path / f"{rank}.safetensors") for rank in range(3))
    expected = _sharded.results()
    whole = _sharded.going_on("x", tmp_path / "new")
    expected |= {f"continued/{kind}/{name[2:]}": tensor for kind in ("shards", "alone") for name, tensor in whole.items()}
    assert all(set(found) == set(expected) for found in (first, *others)) and len(expected) > 300
    for name, tensor in expected.items():
        assert all(torch.equal(first[name], other[name]) for other in others), name
        atol = 2e-2 if "bfloat16" in name else 1e-5
        assert torch.allclose(first[name], tensor, rtol=1e-3, atol=atol), name
    again = _sharded.going_on("x", tmp_path / "shards")  # one process goes on from what three have kept in shards
    for name, tensor in whole.items():
        assert torch.allclose(again[name], tensor, rtol=1e-3, atol=1e-5), name
