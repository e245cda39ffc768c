"""What a student is asked for: its options, what does not go together, and how `none` is filled in."""

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
from w2s_mlflow.methods.presets import AUTO, CUSTOM, METHODS, labels_file
from w2s_mlflow.pipeline.options import GIVEN, Training

ROUNDS, DECAY = 3, 10.0
AFTER_READING = {"learning_rate": 0.5, "batch_size": 16}
"""The paper's rate after generative finetuning is half of its own, 5e-5 of 1e-4; and its batch."""
ORACLE = "oracle"


@checked_dataclass
class Config(Training):
    """A student: the strong model, trained on weak labels."""

    weak: str = "chess-60k"
    """The weak model that supervises."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """The strong model that learns."""
    method: str = AUTO
    """A preset: baseline, confidence, bootstrap, generative, full (these three together), full-without-confidence and so on, or
    a control: untuned, random_weights, hard_labels, random_labels or oracle; or debate, consultancy, no_explanation; auto is
    whatever --loss, --chain, --generative-epochs, --labels and --weights make."""
    loss: str | None = option(default=None, unset="method")
    """What is minimised: a file of losses/; none takes the method's."""
    loss_options: Mapping[str, Any] = option(default=None, loss_options=True)
    """The options of the loss (`--alpha`, `--warmup`)."""
    labels: str | None = option(default=None, unset="method")
    """What it is trained on: weak; hard, the weak labels' most probable classes; random, as often right as the weak ones but
    wrong at random; oracle, ground truth; nothing (scored as it comes, where its head allows); debate, consultancy or
    no_explanation: what a judge makes of the weak ones where a plain student disagrees (`debate --split transfer`); run:ID,
    those of a finished run, such as a weak model's after facilitation; or a parquet file of labels from outside, with the
    columns id and probabilities, in place of a supervisor's; none takes the method's."""
    ceiling: Literal["gold", "none"] = option(default="gold", result=False)
    """What it is reported against: gold, the strong model finetuned on ground truth; or none, and then there is no PGR."""
    weights: Literal["pretrained", "random"] | None = option(default=None, unset="method")
    """Where it starts: pretrained or random; none takes the method's."""
    chain: str | None = option(default=None, unset="method")
    """Models between weak and strong through which the labels go (Algorithm 5), the smallest first, with commas between them;
    auto takes two of the strong model's ladder; none takes the method's."""
    rounds: int | None = option(default=None, ge=1)
    """How often the labels go through the chain; none takes 3."""
    lr_decay: float | None = option(default=None, ge=1)
    """Each model's learning rate is divided by this to the power of its position in the chain, the strong model's the last;
    none takes 10, the paper's, 1 leaves rates as they are."""
    strong_each_round: bool = False
    """Whether the strong model is fitted in each round, and the next starts from its labels: Algorithm 5 to the letter."""
    generative_epochs: int | None = option(default=None, ge=0, unset="method")
    """Passes of language modelling over the task's unlabelled text before the weak labels (Algorithm 6), which are then learned
    at half the rate in batches of 16, unless given; 0 for none; none takes the method's."""
    calibrate: bool = False
    """Whether the supervisor's labels are first scaled by the temperature that fits the truth of its own validation slice best,
    which is of the other half."""
    early_stopping: Literal["weak", "none", "oracle"] = "weak"
    """weak: stop at the first epoch that agrees no better with the weak labels of the validation slice, best weights
    back; none: all epochs; oracle, a control: by the truth of that slice (the models of a chain stop by weak labels even
    then)."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        if labels_file(self.labels) is None:
            models.find(self.weak, "weak")
        if self.method not in (*METHODS, AUTO, CUSTOM):
            raise unknown("--method", self.method, (*METHODS, AUTO))
        if self._primitives()["generative_epochs"] and self._primitives()["weights"] == "random":
            raise must("generative_epochs", "0 with --weights random", self._primitives()["generative_epochs"])
        self._check_labels()
        self._check_chain()
        self._check_loss()

    def _check_labels(self) -> None:
        labels = self._primitives()["labels"]
        if self.calibrate and labels != "weak":
            raise must("calibrate", "left out unless --labels is weak", labels)
        if self.early_stopping == ORACLE and labels == "nothing":
            raise must("early_stopping", "weak or none for an untuned model", self.early_stopping)

    def _check_chain(self) -> None:
        chain = self._primitives()["chain"]
        for name in ("rounds", "lr_decay", "strong_each_round"):
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
        """The same with the primitives, the loss's options and the method's name filled in."""
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
            values |= {"rounds": self.rounds or ROUNDS, "lr_decay": self.lr_decay or DECAY}
        if primitives["chain"] == bootstrapping.AUTO:
            values["chain"] = ",".join(bootstrapping.between(models.find(self.weak, "weak"), self.spec()))
        filled = replace(self, **values)
        resolved = super(Config, filled).resolved()
        if resolved.labels == "nothing" and resolved.head != "choose":
            raise must("head", "choose for an untuned model (another head starts from random weights)", resolved.head)
        return resolved
