"""Options of the `student` stage, their consistency checks, and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from w2s_mlflow import config as options
from w2s_mlflow import exceptions, losses, models, registry
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import ConfigError, must, unknown
from w2s_mlflow.methods import bootstrapping, presets
from w2s_mlflow.methods.presets import AUTO, CUSTOM, FORMER_METHODS, LOSS, METHODS, labels_file, preset_of
from w2s_mlflow.pipeline.options import GIVEN, Training

ROUNDS, DECAY = 3, 10.0
AFTER_READING = {"learning_rate": 0.5, "batch_size": 16}
"""Defaults after generative finetuning: learning rate factor (the paper has 5e-5 instead of 1e-4) and batch size."""
ORACLE = "oracle"


@checked_dataclass
class Config(Training):
    """Options of a student: the strong model, trained on weak labels."""

    weak: str = "chess-60k"
    """Weak model, trained as the supervisor."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """Strong model, trained as the student."""
    method: str = option(default=AUTO, former_values=FORMER_METHODS)
    """Preset of the options below: `baseline`, `confidence`, `bootstrap`, `generative`, `full` (the last three together) or
    `full-without-X` (X is one of the three); `loss:NAME` and `PRESET+loss:NAME`: the baseline or a preset with another loss;
    controls: `zero_shot`, `random_weights`, `hard_labels`, `random_labels`, `oracle`; labels decided by a
    judge: `debate`, `consultancy`, `no_explanation`. `auto`: no preset; the method is named after --loss, --chain,
    --generative-epochs, --labels and --weights."""
    loss: str | None = option(default=None, unset="method")
    """Training loss: the name of a file in losses/; `method`: the method's loss."""
    loss_options: Mapping[str, Any] = option(default=None, loss_options=True)
    """Options of the loss, such as `--alpha` and `--warmup`."""
    labels: str | None = option(default=None, unset="method", former_values={"nothing": "none"})
    """Training labels. `weak`: the supervisor's; `hard`: their most probable classes; `random`: ground truth with as
    many errors as the weak labels, at random rows; `oracle`: ground truth; `none`: no training, for head lm_choice only;
    `debate`, `consultancy`, `no_explanation`: weak labels, decided by a judge where a plain student disagrees (`debate --split
    transfer`); `run:ID`: labels by a finished run, such as a facilitated weak model; a path: a parquet file with the columns
    id and probabilities, instead of a supervisor's labels; `method`: set by the method."""
    ceiling: Literal["gold", "none"] = option(default="gold", result=False)
    """Ceiling for PGR. `gold`: the strong model finetuned on ground truth; `none`: no ceiling and no PGR."""
    weights: Literal["pretrained", "random"] | None = option(default=None, unset="method")
    """Initial weights. `pretrained`: the pretrained weights; `random`: random weights; `method`: set by the method."""
    chain: str | None = option(default=None, unset="method")
    """Intermediate models for bootstrapping (Algorithm 5), comma-separated, smallest first. `auto`: two models of the strong
    model's family with sizes between those of the weak and the strong model; `method`: set by the method."""
    chain_rounds: int | None = option(default=None, ge=1, formerly="rounds")
    """Number of bootstrapping rounds. Default: 3."""
    lr_decay: float | None = option(default=None, ge=1)
    """Learning rate decay along the chain: each model's rate is divided by lr_decay^position. Positions count from 0, and the
    strong model is last. 1: no decay. Default: 10, as in the paper."""
    strong_each_round: bool = False
    """Whether to train the strong model in every round and start the next round from its labels, as Algorithm 5 is written."""
    generative_epochs: int | None = option(default=None, ge=0, unset="method")
    """Epochs of language modelling on the task's unlabelled text before training on the weak labels (Algorithm 6). If
    above 0, the default learning rate is halved and the default batch size is 16. 0: none; `method`: set by the method."""
    calibrate: bool = False
    """Whether to temperature-scale the supervisor's labels; the temperature is fitted on the ground truth of the supervision
    half's validation split."""
    early_stopping: Literal["weak", "none", "oracle"] = "weak"
    """Early stopping. `weak`: stop at the first epoch without better agreement with the weak labels of the validation split,
    and restore the best weights; `none`: train for all epochs; `oracle`: as a control, use the ground truth of that split
    instead (but weak labels for the intermediate models of a chain)."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        if labels_file(self.labels) is None:
            models.find(self.weak, "weak")
        if self.method not in (AUTO, CUSTOM) and preset_of(self.method) is None:
            raise unknown("--method", self.method, (*METHODS, AUTO, f"{LOSS}NAME", f"PRESET+{LOSS}NAME"))
        if self._primitives()["generative_epochs"] and self._primitives()["weights"] == "random":
            raise must("generative_epochs", "0 with --weights random", self._primitives()["generative_epochs"])
        self._check_labels()
        self._check_chain()
        self._check_loss()

    def _check_labels(self) -> None:
        labels = self._primitives()["labels"]
        if self.calibrate and labels != "weak":
            raise must("calibrate", "left out unless --labels is weak", labels)
        if self.early_stopping == ORACLE and labels == "none":
            raise must("early_stopping", "weak or none with --labels none", self.early_stopping)

    def _check_chain(self) -> None:
        chain = self._primitives()["chain"]
        for name in ("chain_rounds", "lr_decay", "strong_each_round"):
            value = getattr(self, name)
            if value and not chain:
                raise must(name, "left out without --chain", value)
        if chain and self._primitives()["labels"] != "weak":
            raise must("chain", "left out unless --labels is weak", chain)
        if chain and chain != bootstrapping.AUTO:
            bootstrapping.names(chain)

    def _check_loss(self) -> None:
        loss = self._primitives()["loss"]
        found = registry.plugin("losses", loss, "--loss").Options
        for name in self.loss_options:
            if name not in found.__dataclass_fields__:
                having = " or ".join(options.losses_with(name))
                raise ConfigError(f"{exceptions.flag(name)} is an option of --loss {having}, not of {loss}")
        found(**self.loss_options)

    def _primitives(self) -> dict[str, Any]:
        return presets.primitives(self.method, {name: getattr(self, name) for name in presets.PRIMITIVES})

    def resolved(self) -> Self:
        """Return a copy with all defaults filled in, including the primitive options, loss options and method name."""
        primitives = self._primitives()
        plugin = registry.plugin("losses", primitives["loss"], "--loss")
        chosen = losses.resolve(plugin.Options(**self.loss_options), large=self.spec().large)
        values: dict[str, Any] = {**primitives, "loss_options": vars(chosen), "method": presets.name_of(primitives)}
        if path := labels_file(self.labels):
            values["weak"] = f"{GIVEN}{Path(path).stem}"
        if primitives["generative_epochs"]:
            values["learning_rate"] = self.learning_rate or AFTER_READING["learning_rate"] * self.own_rate()
            values["batch_size"] = self.batch_size or AFTER_READING["batch_size"]
        if primitives["chain"]:
            values |= {"chain_rounds": self.chain_rounds or ROUNDS, "lr_decay": self.lr_decay or DECAY}
        if primitives["chain"] == bootstrapping.AUTO:
            values["chain"] = ",".join(bootstrapping.between(models.find(self.weak, "weak"), self.spec()))
        filled = replace(self, **values)
        resolved = super(Config, filled).resolved()
        if resolved.labels == "none" and resolved.head != "lm_choice":
            raise must("head", "lm_choice with --labels none (another head starts from random weights)", resolved.head)
        return resolved
