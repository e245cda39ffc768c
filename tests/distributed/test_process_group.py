"""Two processes come to what one comes to: losses, gradients, weights, predictions, whatever the loss and the micro-batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests import _launched
from w2s_mlflow.distributed.process_group import ALONE, Group

ROOT = Path(__file__).parents[2]


def test_shares_are_all_rows_once_in_their_order() -> None:
    for rows, size in ((33, 2), (7, 3), (1, 4), (0, 2)):
        shares = [Group(rank, size).share(np.arange(rows)) for rank in range(size)]
        assert np.concatenate(shares).tolist() == list(range(rows))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_everything_stays_as_it_is() -> None:
    weight = torch.ones(3, requires_grad=True)
    ALONE.sum_gradients([weight])
    assert ALONE.any(True) and not ALONE.any(False) and ALONE.agree_on("word")
    assert weight.grad is None and ALONE.total(weight) is weight and torch.equal(ALONE.gather(weight, 3), weight)


@pytest.mark.slow
def test_two_processes_have_the_gradients_and_the_weights_of_one(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "tests._launched", str(tmp_path)]
    environment = os.environ | {"ACCELERATE_USE_CPU": "1"}  # gloo, wherever the test runs
    done = subprocess.run(launch, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (safetensors.torch.load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    alone = _launched.results()
    assert set(first) == set(second) == set(alone) and len(alone) > 300
    for name, tensor in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], tensor, rtol=1e-3, atol=1e-5), name
