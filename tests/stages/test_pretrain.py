"""Pretraining from nothing, small: play that any number of workers draws alike, a loss that falls, weights that load."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.models import chess
from w2s_mlflow.stages import pretrain
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks import chess as chess_task
from w2s_mlflow.tracking.recorder import Recorder


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> pretrain.Config:
    monkeypatch.setattr(pretrain, "VALIDATION", 40)
    monkeypatch.setattr(pretrain, "CHUNK", 60)
    monkeypatch.setattr(pretrain, "CURVE", 5)
    return pretrain.Config(model="chess-27k", num_positions=200, epochs=3, batch_size=16, learning_rate=1e-2, workers=1)


def test_play_does_not_depend_on_the_number_of_workers(config: pretrain.Config) -> None:
    one, two = (pretrain.draw_play(130, seed=4, workers=workers) for workers in (1, 2))
    assert one == two
    assert len(one) == 260
    assert pretrain.draw_play(130, seed=5, workers=1) != one


def test_play_comes_with_its_mirror_image_and_never_from_the_task(config: pretrain.Config) -> None:
    play = pretrain.draw_play(30, seed=0, workers=1)
    for (prompt, _), (image, _) in zip(play[::2], play[1::2], strict=True):
        position = chess_play.shown(prompt)
        assert chess_play.mirror(position) == chess_play.shown(image)
        assert not chess_play.belongs_to_task(position)


def test_kept_play_is_read_again(config: pretrain.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(config, text_cache=str(tmp_path / "play.parquet"))
    drawn = pretrain.read_play(config)
    monkeypatch.setattr(pretrain, "draw_play", None)
    assert pretrain.read_play(config) == drawn
    assert len(pretrain.read_play(replace(config, num_positions=50))) == 2 * 90


def test_the_loss_falls_and_the_weights_load(config: pretrain.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder("run", tmp_path)
    pretrain.make(config, recorder)
    story = json.loads((tmp_path / "model" / "pretraining.json").read_text(encoding="utf-8"))
    steps, losses = zip(*story["curve"], strict=True)
    assert steps[-1] == 3 * math.ceil(400 / 16)
    assert losses[-1] < losses[0] - 0.5
    assert story["validation_loss"] < math.log(len(chess.VOCABULARY)) - 1
    assert story["options"]["learning_rate"] == 1e-2
    monkeypatch.setattr(chess, "WEIGHTS", tmp_path)
    (tmp_path / "chess-27k").mkdir()
    (tmp_path / "model").rename(tmp_path / "chess-27k" / "0")
    assert chess.load(chess.SPECS[0], pretrained=True)[0].num_parameters() == 27_344


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rung": "chess-1k"}, "--model must be one of .*chess-27k"),
        ({"positions": 0}, "--num-positions must be at least 1, got 0"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"learning_rate": float("nan")}, "--learning-rate must be"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pretrain.Config(**options)  # type: ignore[arg-type]


def test_play_that_shows_a_task_position_is_refused(config: pretrain.Config, tmp_path: Path) -> None:
    planted = chess_play.mirror(chess_task.shipped()[7])
    play = [*pretrain.draw_play(5, seed=0, workers=1), (chess_play.prompt(planted), "Qd5 -")]
    with pytest.raises(
        ConfigError, match=r"--text-cache must be a file without positions of the shipped tasks, got 1 texts with"
    ):
        pretrain.refuse_task_positions(play)
    pretrain.refuse_task_positions(play[:-1])
