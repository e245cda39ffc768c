"""Algorithms 3, 4 and 6: the strong model finetuned on the weak supervisor's labels of `transfer`.

Asked for by its result: the supervisor whose labels it needs and the ceiling it is reported against are found among the
finished runs, or trained. The ceiling is a reporting input: it has no part in the student's fingerprint.

Labels may also come from outside (`--labels FILE`, of people or an API model), and where nobody knows the truth there is no
ceiling and no PGR (`--ceiling none`).

Metrics: `train/loss` and `train/gradient_norm` by step; `validation/agreement` with the labels it trains on;
`test/accuracy`, `test/auroc`, `test/brier`, `test/ece`; `test/agreement` with the supervisor; `test/weak_accuracy`,
`test/ceiling_accuracy`, and `test/pgr` with `test/pgr_low` and `test/pgr_high`. The interval of a single student is over
test groups only; over seeds it is that of `analyze`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from w2s_mlflow import config as options
from w2s_mlflow import losses, models, tasks
from w2s_mlflow.config import ConfigError, must, unknown
from w2s_mlflow.records import GIVEN, SoftLabels
from w2s_mlflow.split import Examples, Split
from w2s_mlflow.stages import _finetune, _given, _gold, ceiling, generative, supervisor
from w2s_mlflow.stages._finetune import Labelled
from w2s_mlflow.stages._options import GIVEN as GIVEN_LABELS
from w2s_mlflow.stages._options import NONE, Training, model_name

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1

PRIMITIVES: dict[str, Any] = {"loss": "cross_entropy", "labels": "weak", "weights": "pretrained", "generative_epochs": 0}
METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "confidence": {"loss": "confidence"},
    "generative": {"generative_epochs": 1},
    "untuned": {"labels": "nothing"},
    "random_weights": {"weights": "random"},
    "hard_labels": {"labels": "hard"},
    "random_labels": {"labels": "random"},
    "oracle": {"labels": "oracle"},
}
"""Presets over the primitives: Algorithms 3, 4 and 6, and the controls."""
AFTER_READING = {"learning_rate": 0.5, "batch_size": 16}
"""The paper's rate after generative finetuning is half of its own, 5e-5 of 1e-4; and its batch."""
AUTO, CUSTOM = "auto", "custom"
WEAK = ("weak", "hard")
"""Labels that are a supervisor's."""
GOLD = ("random", "oracle")
"""Labels that ground truth goes into: controls, whose runs are tagged."""
LABELS = (*WEAK, *GOLD, "nothing")
CEILINGS = ("gold", "none")
HOW = {
    "weak": "finetuned on",
    "hard": "finetuned on the most probable classes of",
    "random": "finetuned on noise, as often right as",
    "oracle": "finetuned on the ground truth",
    "nothing": "untuned",
}
"""What the note of a run says of its labels."""


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """A student: the strong model, trained on weak labels."""

    weak: str = "chess-60k"
    """The weak model that supervises."""
    strong: str = "chess-426k"
    """The strong model that learns."""
    method: str = AUTO
    """A preset: baseline, confidence, generative, or a control: untuned, random_weights, hard_labels, random_labels or oracle;
    auto is whatever --loss, --labels, --weights and --generative-epochs make."""
    loss: str | None = None
    """What is minimised: a file of losses/; none takes the method's."""
    loss_options: Mapping[str, Any] = options.option(None, loss_options=True)
    """The options of the loss (`--alpha`, `--warmup`)."""
    labels: str | None = None
    """What it is trained on: weak; hard, the weak labels' most probable classes; random, as often right as the weak ones but
    wrong at random; oracle, ground truth; nothing (scored as it comes, where its head allows); or a parquet file of labels
    from outside, with the columns id and probabilities, in place of a supervisor's; none takes the method's."""
    ceiling: str = options.option("gold", result=False)
    """What it is reported against: gold, the strong model finetuned on ground truth; or none, and then there is no PGR."""
    weights: str | None = None
    """Where it starts: pretrained or random; none takes the method's."""
    generative_epochs: int | None = None
    """Passes of language modelling over the task's unlabelled text before the weak labels (Algorithm 6), which are then learned
    at half the rate in batches of 16, unless given; 0 for none; none takes the method's."""
    early_stopping: str = "weak"
    """weak: stop at the first epoch that agrees no better with the weak labels of the validation slice, best weights
    back; none: all epochs."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (path := self._given()) is None:
            models.find(self.weak, "weak")
        elif not Path(path).expanduser().is_file():
            legal = f"{', '.join(LABELS)}, or a parquet file with the columns id and probabilities"
            raise must("labels", legal, path)
        if self.method not in (*METHODS, AUTO, CUSTOM):
            raise unknown("--method", self.method, (*METHODS, AUTO))
        choices = {"early_stopping": ("weak", "none"), "weights": ("pretrained", "random"), "ceiling": CEILINGS}
        for name, values in choices.items():
            if getattr(self, name) not in (*values, None):
                raise unknown(options.flag(name), getattr(self, name), values)
        if self.generative_epochs is not None and self.generative_epochs < 0:
            raise must("generative_epochs", "at least 0", self.generative_epochs)
        if self._primitives()["generative_epochs"] and self._primitives()["weights"] == "random":
            raise must("generative_epochs", "0 with --weights random", self._primitives()["generative_epochs"])
        self._check_loss()

    def _given(self) -> str | None:
        """The file of labels from outside, if that is what `labels` is."""
        return None if self.labels in (None, *LABELS) else self.labels

    def _check_loss(self) -> None:
        loss = self._primitives()["loss"]
        found = options.plugin("losses", loss, "--loss").Options
        for name in self.loss_options:
            if name not in found.__dataclass_fields__:
                having = " or ".join(options.losses_with(name))
                raise ConfigError(f"{options.flag(name)} is an option of --loss {having}, not of {loss}")
        found(**self.loss_options)

    def _primitives(self) -> dict[str, Any]:
        """loss, labels, weights and generative epochs: the method's, unless given; one given against its method is an error."""
        preset = METHODS.get(self.method)
        found = PRIMITIVES | (preset or {})
        for name, value in found.items():
            given = getattr(self, name)
            if given is not None and preset is not None and self._kind(name, given) != self._kind(name, value):
                raise must(name, f"{value} under --method {self.method} (or leave --method out)", given)
            found[name] = value if given is None else given
        return found

    def _kind(self, name: str, value: Any) -> Any:
        """What a method says of a primitive: labels from a file are weak labels, and reading twice is reading."""
        if name == "labels" and self._given():
            return "weak"
        return value > 0 if name == "generative_epochs" else value

    def resolved(self) -> Config:
        """The same with the primitives, the loss's options and the method's name filled in."""
        primitives = self._primitives()
        kinds = {name: self._kind(name, value) for name, value in primitives.items()}
        presets = {name: PRIMITIVES | preset for name, preset in METHODS.items()}
        names = [name for name, preset in presets.items() if kinds == {key: self._kind(key, preset[key]) for key in preset}]
        plugin = options.plugin("losses", primitives["loss"], "--loss")
        chosen = losses.resolve(plugin.Options(**self.loss_options), large=self.rung().large)
        values: dict[str, Any] = {**primitives, "loss_options": vars(chosen), "method": names[0] if names else CUSTOM}
        if path := self._given():
            values["weak"] = f"{GIVEN_LABELS}{Path(path).stem}"
        if primitives["generative_epochs"]:
            values["learning_rate"] = self.learning_rate or AFTER_READING["learning_rate"] * self.rung().learning_rate
            values["batch_size"] = self.batch_size or AFTER_READING["batch_size"]
        filled = replace(self, **values)
        resolved: Config = super(Config, filled).resolved()
        if resolved.labels == "nothing" and resolved.head != "choose":
            raise must("head", "choose for an untuned model (another head starts from random weights)", resolved.head)
        return resolved


def run(config: Config) -> Result:
    """The student's run, found or trained, with its inputs. Raises ConfigError before anything is written."""
    config, cut = _gold.cut(config.resolved())
    given = _labels_given(config, cut)
    inputs = {"weak": _supervisor(config)} if config.labels in (*WEAK, "random") else {}
    if config.generative_epochs:
        inputs["generative"] = _reader(config)
    roots = [f"losses.{config.loss}"] if config.labels != "nothing" else []
    parts = _finetune.parts("student", VERSION, config, cut, inputs, roots)
    if given:
        parts = replace(
            parts,
            inputs={**parts.inputs, "labels": _given.digest(given)},
            options={**parts.options, "labels": "file", "weak": NONE},
        )
    identity = {"weak": model_name(config.weak, "weak"), "strong": config.rung().name, "method": config.method}

    def make(recorder: Recorder) -> Head:
        if given:
            given.write(recorder.directory / GIVEN)
        start = inputs["generative"].artifact(generative.WEIGHTS) if config.generative_epochs else None
        return _make(config, cut, given or _labels(config, cut, inputs, recorder), start, recorder)

    tags = {_finetune.GOLD: "transfer"} if config.labels in GOLD else {}
    found = _finetune.produce(parts, config, cut, identity, _note(config, inputs), make, inputs, tags)
    return found if config.report == "none" else _gold.report(found, config, cut, _beside(config), given)


def _labels(config: Config, cut: Split, inputs: Mapping[str, Result], recorder: Recorder) -> SoftLabels | None:
    """What the student is trained on, where it is not given from outside; None for nothing."""
    if config.labels == "oracle":
        return _gold.oracle_labels(config, cut, recorder)
    if "weak" not in inputs:
        return None
    weak = _finetune.weak_labels(inputs["weak"])
    if config.labels == "random":
        return _gold.random_labels(config, cut, weak, recorder)
    return weak.hardened() if config.labels == "hard" else weak


def _labels_given(config: Config, cut: Split) -> SoftLabels | None:
    """The labels from outside, if that is what the student is trained on."""
    if config.labels is None or config.labels in LABELS:
        return None
    labels = _given.read(config.labels, tasks.find(config.task).classes)
    _given.check(labels, cut.transfer + cut.transfer_validation, config.labels)
    return labels


def _beside(config: Config) -> dict[str, Result]:
    """What the student is reported against: its supervisor, where it has one, and its ceiling, where one is wanted."""
    found = {"weak": _supervisor(config)} if config.labels in LABELS else {}
    if config.ceiling == "gold":
        found["ceiling"] = ceiling.run(ceiling.Config(strong=config.strong, pooling=config.pooling, **config.shared()))
    return found


def _reader(config: Config) -> Result:
    shared = {name: getattr(config, name) for name in generative.SHARED}
    return generative.run(generative.Config(**shared, epochs=int(config.generative_epochs or 0)))


def _supervisor(config: Config) -> Result:
    return supervisor.run(supervisor.Config(weak=config.weak, **config.shared()))


def _make(config: Config, cut: Split, labels: SoftLabels | None, start: Path | None, recorder: Recorder) -> Head:
    head = _finetune.build_head(config, pretrained=config.weights == "pretrained", start=start)
    if labels is not None:
        training, validation = _join(cut.transfer, labels), _join(cut.transfer_validation, labels)
        watched = validation if config.early_stopping == "weak" else None
        assert config.loss is not None
        _finetune.fit_head(head, config, training, watched, recorder, config.loss, config.loss_options)
    recorder.predictions("validation", _finetune.predictions(head, cut.transfer_validation, config))
    _finetune.record_heldout(head, config, cut, recorder)
    return head


def _join(examples: Examples, labels: SoftLabels) -> Labelled:
    return Labelled(examples, labels.of([example.id for example in examples]))


def _note(config: Config, inputs: Mapping[str, Result]) -> str:
    from w2s_mlflow.tracking import results

    how = HOW.get(str(config.labels), f"finetuned on {model_name(config.weak, 'weak')}")
    if "weak" in inputs:
        how = f"{how} the labels of {results.link(inputs['weak'])}"
    if "generative" in inputs:
        how = f"{how}, after {results.link(inputs['generative'])}"
    return f"`{config.rung().name}` {how}, method `{config.method}`. The PGR interval here is over test groups only."
