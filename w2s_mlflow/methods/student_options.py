"""Options of the `student` stage, their consistency checks, and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from w2s_mlflow import config as options
from w2s_mlflow import exceptions, losses, models, registry
from w2s_mlflow.config import checked_dataclass, option, selected
from w2s_mlflow.exceptions import ConfigError, must, unknown
from w2s_mlflow.methods import chain_models, presets
from w2s_mlflow.methods import labels as label_sources
from w2s_mlflow.methods.presets import AUTO, CUSTOM, FORMER_METHODS, METHODS, PLUGINS, UNTRAINED, labels_file, preset_of
from w2s_mlflow.pipeline.options import GIVEN, Training, rule_name

ROUNDS, DECAY = 3, 10.0
AFTER_READING = {"learning_rate": 0.5, "batch_size": 16}
"""Defaults after generative finetuning. The default learning rate is multiplied by the factor `learning_rate` (the paper uses
5e-5 instead of 1e-4)."""
ORACLE = "oracle"


@checked_dataclass
class Config(Training):
    """Options of a student: the strong model, trained on weak labels."""

    weak: str = "chess-60k"
    """Weak model, trained as the supervisor. `rule:NAME`: a rule of the task, with one-hot answers, takes its place."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """Strong model, trained as the student."""
    method: str = option(default=AUTO, former_values=FORMER_METHODS)
    """Preset of the options --loss, --chain, --generative-epochs, --labels and --weights. Methods: `baseline`, `confidence`,
    `bootstrap`, `generative`, `full` (confidence, bootstrap and generative together), `full-without-X` (X is one of them).
    Controls: `self_training`, `random_weights`, `hard_labels`, `random_labels`, `matched_noise`, `oracle`, `gold_subset`.
    Controls without training: `zero_shot` answers by a prompt of the task (--prompt), `best_prompt` by the prompt that is most
    accurate on the ground truth of supervision, `planner` by a prompt that adds rules of the task. Labels decided by a judge:
    `debate`, `consultancy`, `no_explanation`. `loss:NAME` or `labels:NAME`: the baseline with another loss or other labels;
    `PRESET+loss:NAME` or `PRESET+labels:NAME`: a preset with them. `auto`: no preset; the method is named after the values
    of these options."""
    loss: str | None = option(default=None, unset="method", plugins="losses")
    """Training loss: the name of a file in losses/. `method`: set by --method."""
    loss_options: Mapping[str, Any] = option(default=None, options_of=("losses", "loss"))
    """Options of the loss, such as `--alpha` and `--warmup`."""
    labels: str | None = option(default=None, unset="method", plugins="methods.labels", former_values={"nothing": "none"})
    """Training labels: the name of a file in methods/labels. `run:ID`: the labels predicted by a finished run, such as a
    facilitated weak model; the path of a parquet file with the columns id and probabilities: the labels in this file,
    instead of a supervisor's; `method`: set by --method."""
    label_options: Mapping[str, Any] = option(default=None, options_of=("methods.labels", "labels"), introduced={})
    """Options of the kind of labels selected by `--labels`."""
    ceiling: Literal["gold", "none"] = option(default="gold", result=False)
    """Ceiling for PGR. `gold`: the strong model finetuned on ground truth; `none`: no ceiling and no PGR."""
    weights: Literal["pretrained", "random"] | None = option(default=None, unset="method")
    """Initial weights. `pretrained`: the pretrained weights; `random`: random weights; `method`: set by --method."""
    chain: str | None = option(default=None, unset="method")
    """Intermediate models for bootstrapping (Algorithm 5), comma-separated, smallest first. `auto`: two models of the strong
    model's family with sizes between those of the weak and the strong model; `method`: set by --method."""
    chain_rounds: int | None = option(default=None, ge=1, formerly="rounds")
    """Number of bootstrapping rounds. Default: 3."""
    lr_decay: float | None = option(default=None, ge=1)
    """Learning rate decay along the chain: the rate of each model is divided by lr_decay^position, where positions count from
    0 and the strong model is the last. 1: no decay. Default: 10, as in the paper."""
    strong_each_round: bool = False
    """Whether to train the strong model in every round and start the next round from its labels, as in the published
    Algorithm 5."""
    generative_epochs: int | None = option(default=None, ge=0, unset="method")
    """Epochs of language modelling on the task's unlabelled text before training on the weak labels (Algorithm 6). If
    above 0, the default learning rate is halved and the default batch size is 16. 0: none; `method`: set by --method."""
    calibrate: bool = False
    """Whether to temperature-scale the supervisor's labels. The temperature is fitted on the ground truth of the validation
    slice of supervision."""
    early_stopping: Literal["weak", "none", "oracle"] = "weak"
    """`weak`: stop after the first epoch that does not improve agreement with the weak labels of the validation split, and
    restore the best weights; `none`: train for all epochs; `oracle`: a control that uses the ground truth of the validation
    split instead of weak labels (but not for the intermediate models of a chain)."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        if labels_file(self.labels) is None:
            self.check_weak(self.weak)
        if self.method not in (AUTO, CUSTOM) and preset_of(self.method) is None:
            plugins = [f"{preset}{option}:NAME" for option in PLUGINS for preset in ("", "PRESET+")]
            raise unknown("--method", self.method, (*METHODS, AUTO, *plugins))
        if self._primitives()["generative_epochs"] and self._primitives()["weights"] == "random":
            raise must("generative_epochs", "0 with --weights random", self._primitives()["generative_epochs"])
        self._check_labels()
        self._check_chain()
        self._check_plugin("losses", "loss", self.loss_options)
        self._check_plugin("methods.labels", "labels", self.label_options)
        self._check_batch_size()

    def _check_labels(self) -> None:
        labels = self._primitives()["labels"]
        if self.calibrate and labels != "weak":
            raise must("labels", "weak with --calibrate", labels)
        if self.calibrate and rule_name(self.weak) is not None:
            raise must("weak", "a model with --calibrate, because the answers of a rule have no probabilities", self.weak)
        if self.early_stopping == "weak" and labels == presets.GOLD_SUBSET:
            raise must("early_stopping", f"none with --labels {labels}, which labels no validation row", self.early_stopping)
        if self.early_stopping == ORACLE and labels in (*UNTRAINED, label_sources.ZERO_SHOT):
            raise must("early_stopping", f"weak or none with --labels {labels}", self.early_stopping)
        if labels == "best_prompt" and self._primitives()["generative_epochs"]:
            raise must("generative_epochs", "0 with --labels best_prompt", self._primitives()["generative_epochs"])

    def _check_chain(self) -> None:
        chain = self._primitives()["chain"]
        for name in ("chain_rounds", "lr_decay", "strong_each_round"):
            value = vars(self)[name]
            if value and not chain:
                raise must(name, "left out without --chain", value)
        if chain and self._primitives()["labels"] != "weak":
            raise must("chain", "left out unless --labels is weak", chain)
        if chain == AUTO and rule_name(self.weak) is not None:
            raise must("chain", f"names of models with --weak {self.weak}, because a rule has no size", chain)
        if chain and chain != AUTO:
            chain_models.names(chain)

    def _check_plugin(self, package: str, option: str, given: Mapping[str, Any]) -> None:
        """Check that the plug-in that `option` names exists and has the given options."""
        name = self._plugin(option)
        legal = registry.plugin(package, name, exceptions.flag(option)).Options
        for key in given:
            if key not in options.declarations(legal):
                others = " or ".join(options.plugins_with(package, key))
                raise ConfigError(f"{exceptions.flag(key)} is an option of {exceptions.flag(option)} {others}, not of {name}")
        legal(**given)

    def _check_batch_size(self) -> None:
        loss = self._plugin("loss")
        if self.batch_size == 1 and not registry.plugin("losses", loss, "--loss").PER_EXAMPLE:
            raise must("batch_size", f"at least 2 with --loss {loss}, which compares the examples of a batch", self.batch_size)

    def _plugin(self, option: str) -> str:
        """Return the name of the plug-in that an option, `loss` or `labels`, selects."""
        value: str = self._primitives()[option]
        return presets.kind_of_labels(value) if option == "labels" else value

    def _primitives(self) -> dict[str, Any]:
        return presets.primitives(self.method, selected(self, presets.PRIMITIVES))

    def resolved(self) -> Self:
        """Return a copy with the name of the method and with the defaults of method, loss, labels and chain filled in."""
        primitives = self._primitives()
        loss = registry.plugin("losses", primitives["loss"], "--loss").Options(**self.loss_options)
        task = self.find_task()
        labels = label_sources.resolved(self._plugin("labels"), self.label_options, task, self.head or task.head)
        values: dict[str, Any] = {**primitives, "method": presets.name_of(primitives)}
        values |= {"loss_options": vars(losses.resolve(loss, large=self.spec().large)), "label_options": labels}
        if path := labels_file(self.labels):
            values["weak"] = f"{GIVEN}{Path(path).stem}"
        if primitives["generative_epochs"]:
            values["learning_rate"] = self.learning_rate or AFTER_READING["learning_rate"] * self.default_rate()
            values["batch_size"] = self.batch_size or AFTER_READING["batch_size"]
        if primitives["chain"]:
            values |= {"chain_rounds": self.chain_rounds or ROUNDS, "lr_decay": self.lr_decay or DECAY}
        if primitives["chain"] == AUTO:
            values["chain"] = ",".join(chain_models.between(models.find(self.weak, "weak"), self.spec()))
        filled = replace(self, **values)
        if primitives["labels"] in UNTRAINED and labels != {"prompt": None} and self.keep_model == "always":
            rule = f"never with --labels {primitives['labels']}, because answers by a prompt are not those of a trained head"
            raise must("keep_model", rule, self.keep_model)
        return super(Config, filled).resolved()
