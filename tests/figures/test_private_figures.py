"""The figures of single runs draw the names of models and tasks as they are, not as mathematics."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from w2s_mlflow import figures
from w2s_mlflow.figures import _chain, _trajectory

NAME = "a model $_{ of $1"


def test_a_chain_and_a_trajectory_have_any_names(tmp_path: Path) -> None:
    nodes = [_chain.Node(NAME, 0, 0, None, None, None), _chain.Node(NAME, 1, 0, 0, 0.9, 0.8)]
    figures.save(lambda: _chain.figure(nodes, "test"), tmp_path / "chain.png")
    rows = pd.DataFrame({"iteration": [0, 1], "model": ["weak", "strong"], "name": NAME, "accuracy": [0.6, 0.7]})
    figures.save(lambda: _trajectory.figure(rows, NAME, "test", 0.9), tmp_path / "trajectory.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in ("chain", "trajectory"))
