"""Two processes that hold shards of the weights come to what one comes to that holds them whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests import _sharded
from tests.test_processes import ROOT


@pytest.mark.slow
def test_two_processes_with_shards_have_the_gradients_and_the_weights_of_one(tmp_path: Path) -> None:
    _sharded.stopped(tmp_path / "alone")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "tests._sharded", str(tmp_path)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1", "ACCELERATE_USE_FSDP": "true"}  # gloo, wherever the test runs
    done = subprocess.run(launch, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (safetensors.torch.load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    expected = _sharded.results()
    whole = _sharded.going_on("x", tmp_path / "new")
    expected |= {f"continued/{kind}/{name[2:]}": tensor for kind in ("shards", "alone") for name, tensor in whole.items()}
    assert set(first) == set(second) == set(expected) and len(expected) > 300
    for name, tensor in expected.items():
        assert torch.equal(first[name], second[name]), name
        atol = 2e-2 if "bfloat16" in name else 1e-5
        assert torch.allclose(first[name], tensor, rtol=1e-3, atol=atol), name
    again = _sharded.going_on("x", tmp_path / "shards")  # one process goes on from what two have kept in shards
    for name, tensor in whole.items():
        assert torch.allclose(again[name], tensor, rtol=1e-3, atol=1e-5), name
