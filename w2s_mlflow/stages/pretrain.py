"""Pretrain one of the shipped chess models from random weights, as a small language model of chess moves.

A training text is a random position or its mirror image, followed by random moves and their recaptures
(tasks/_chess_play.py). The loss is that of next-token prediction, on the text after the position only.

Metrics: `train/loss` in nats per token, averaged over 100 steps at a time; `validation/loss`, the loss of the
trained model on positions that it was not trained on.
Files in `out`/<model>/<seed>: config.json; model.safetensors in float16; pretraining.json with the loss curve and the
training options.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from w2s_mlflow import config as options
from w2s_mlflow import models, registry, streams
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import LARGEST, must
from w2s_mlflow.pipeline.options import NONE, OneModel
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks import chess

if TYPE_CHECKING:
    from w2s_mlflow.modeling.language_modeling import Language
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 3
FAMILY = "chess"
LOG = logging.getLogger("w2s_mlflow")
VALIDATION = 1_000
"""Number of positions reserved for `validation/loss`."""
CHUNK = 5_000
"""Number of positions in a chunk, which one worker generates from a separate random stream."""
CURVE = 100
"""Number of steps averaged into one point of the loss curve."""

Play = list[tuple[str, str]]
"""Pretraining texts. Each is a pair: a position, and a line of moves, each followed by the recapture."""


@checked_dataclass
class Config(OneModel):
    """Options of pretraining."""

    model: str = option(default="chess-27k", lookup=models.find, formerly="rung")
    """Model to pretrain, one of those shipped with the package."""
    num_positions: int = option(default=180_000, ge=1, formerly="positions")
    """Number of random positions. The model is also trained on the mirror image of each position."""
    epochs: int = option(default=3, ge=1)
    """Number of passes over all positions."""
    batch_size: int = option(default=64, ge=1)
    """Number of texts per optimizer step."""
    learning_rate: float = option(default=3e-3, gt=0, lt=LARGEST)
    """Peak learning rate of AdamW."""
    seed: int = option(default=0, ge=0, lt=2**32)
    """Random seed of the texts, the initial weights and the order of batches."""
    out: str = option(default="weights", result=False)
    """Output directory. The model is written to its subdirectory MODEL/SEED."""
    text_cache: str = option(default="", result=False, formerly="play")
    """File that caches the training texts. If the file does not exist, it is written. Empty: no cache."""
    workers: int = option(default=2, ge=1, result=False)
    """Number of processes that generate the training texts."""
    threads: int = option(default=1, ge=1, result=False)
    """Number of torch threads."""
    checkpoint_every: int = option(default=2000, ge=0, result=False)
    """Number of steps between checkpoints. Interrupted training resumes from the last checkpoint. 0: save a checkpoint only on
    interruption."""

    MODEL: ClassVar[str] = "model"

    def __post_init__(self) -> None:
        if self.spec().family != FAMILY:
            raise must("model", f"a model of the family {FAMILY}", self.model)


def run(config: Config) -> Result:
    """Find or train the model, and copy its files to the directory `out`."""
    from w2s_mlflow.tracking import fingerprint, source, store

    parts = fingerprint.FingerprintParts(
        stage="pretrain",
        version=VERSION,
        options=options.identity(config),
        data="",
        inputs={},
        libraries=fingerprint.libraries(),
        source=source.digests(["stages.pretrain:make", f"models.{FAMILY}"]),
    )
    identity = {"task": FAMILY, "weak": NONE, "strong": config.model, "method": "pretrain", "seed": str(config.seed)}
    note = f"`{config.model}` pretrained from random weights on moves in {config.num_positions} positions."
    name = f"pretrain {config.model} seed {config.seed}"
    pretrained = store.produce(
        store.RunRequest(name, parts, config, identity, {}, note), lambda recorder: make(config, recorder)
    )
    if pretrained.run_id:
        shutil.copytree(pretrained.artifact("model"), Path(config.out) / config.model / str(config.seed), dirs_exist_ok=True)
    return pretrained


def make(config: Config, recorder: Recorder) -> None:
    """Generate the texts, train the model on them, and save model and loss curve in the artifact directory `model`."""
    import torch

    from w2s_mlflow.modeling import language_modeling
    from w2s_mlflow.training import loop

    began = time.time()
    play = read_play(config)
    refuse_task_positions(play)
    LOG.info("texts of %d positions are ready after %.0f s", config.num_positions, time.time() - began)
    loop.seed_everything(config.seed)
    torch.set_num_threads(config.threads)
    family = registry.plugin("models", FAMILY, "--model")
    head = language_modeling.Language(*models.load(config.spec(), pretrained=False))
    curve = _fit(head, play[2 * VALIDATION :], config, recorder)
    loss = language_modeling.mean_loss(head, head.encode(_examples(play[: 2 * VALIDATION])))
    recorder.metrics({"validation/loss": loss}, step=curve[-1][0])
    family.save(head.model, recorder.directory / "model")
    story = {"options": options.result_options(config), "validation_loss": loss, "seconds": time.time() - began, "curve": curve}
    recorder.text("model/pretraining.json", json.dumps(story) + "\n")


def _fit(head: Language, play: Play, config: Config, recorder: Recorder) -> list[tuple[int, float]]:
    """Train the model, and return the loss curve: pairs of a step and the mean loss since the previous pair."""
    from w2s_mlflow.modeling import language_modeling
    from w2s_mlflow.training import loop

    curve: list[tuple[int, float]] = recorder.extra_state.setdefault("curve", [])
    recent: list[float] = recorder.extra_state.setdefault("recent", [])
    began = time.time()

    def report(step: int, steps: int, values: dict[str, float]) -> None:
        recent.append(values["train/loss"])
        if step % CURVE and step != steps:
            return
        curve.append((step, round(sum(recent) / len(recent), 4)))
        recorder.metrics({"train/loss": curve[-1][1]}, step)
        recent.clear()
        if len(curve) % 10 == 0:
            LOG.info("step %d of %d, loss %.3f, %.0f s", step, steps, curve[-1][1], time.time() - began)

    training = loop.Options(
        epochs=config.epochs, batch_size=config.batch_size, learning_rate=config.learning_rate, seed=config.seed
    )
    checkpoint = recorder.checkpoint(config.checkpoint_every)
    loop.fit(head, head.encode(_examples(play)), None, language_modeling.loss, training, report=report, checkpoint=checkpoint)
    return curve


def _examples(play: Play) -> list[Example]:
    return [Example(str(number), str(number), (position,), (line,)) for number, (position, line) in enumerate(play)]


def read_play(config: Config) -> Play:
    """Read two texts per position from `text_cache` if this file exists, else generate them. Validation texts come first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(config.text_cache) if config.text_cache else None
    if path and path.exists():
        table = pq.read_table(path)
        return list(zip(table["position"].to_pylist(), table["line"].to_pylist(), strict=True))[
            : 2 * (VALIDATION + config.num_positions)
        ]
    play = draw_play(VALIDATION + config.num_positions, config.seed, config.workers)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        positions, lines = zip(*play, strict=True)
        pq.write_table(pa.table({"position": positions, "line": lines}), path, compression="zstd")
    return play


def refuse_task_positions(play: Play) -> None:
    """Raise ConfigError if any text contains a position of the shipped tasks, or the mirror image of such a position."""
    overlap = chess.overlap(chess.shipped(), (position for position, _ in play))
    if overlap:
        raise must("text_cache", "a file without positions of the shipped tasks", f"{overlap} texts with such a position")


def draw_play(positions: int, seed: int, workers: int) -> Play:
    """Generate two texts per random position: one of the position itself, and one of its mirror image.

    The result does not depend on the number of workers.
    """
    counts = [min(CHUNK, positions - start) for start in range(0, positions, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        return [text for chunk in pool.map(_draw_chunk, counts, [seed] * len(counts), range(len(counts))) for text in chunk]


def _draw_chunk(count: int, seed: int, chunk: int) -> Play:
    rng = random.Random(streams.integer(seed, streams.PRETRAINING_TEXTS, chunk))
    positions = islice(chess_play.positions(rng, task=False), count)
    return [chess_play.sequence(seen, rng) for position in positions for seen in (position, position.mirrored())]
