"""Algorithms 3 and 4: the strong model finetuned on the weak supervisor's labels of `transfer`.

Asked for by its result: the supervisor whose labels it needs and the ceiling it is reported against are found among the
finished runs, or trained. The ceiling is a reporting input: it has no part in the student's fingerprint.

Metrics: `train/loss` and `train/gradient_norm` by step; `validation/agreement` with the labels it trains on;
`test/accuracy`, `test/auroc`, `test/brier`, `test/ece`; `test/agreement` with the supervisor; `test/weak_accuracy`,
`test/ceiling_accuracy`, and `test/pgr` with `test/pgr_low` and `test/pgr_high`. The interval of a single student is over
test groups only; over seeds it is that of `analyze`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from w2s_mlflow import config as options
from w2s_mlflow import losses, models
from w2s_mlflow.config import ConfigError, must, unknown
from w2s_mlflow.records import SoftLabels
from w2s_mlflow.split import Examples, Split
from w2s_mlflow.stages import _finetune, _gold, ceiling, supervisor
from w2s_mlflow.stages._finetune import Labelled
from w2s_mlflow.stages._options import Training

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1

PRIMITIVES = {"loss": "cross_entropy", "labels": "weak", "weights": "pretrained"}
METHODS: dict[str, dict[str, str]] = {
    "baseline": {},
    "confidence": {"loss": "confidence"},
    "untuned": {"labels": "nothing"},
    "random_weights": {"weights": "random"},
}
"""Presets over the primitives: Algorithms 3 and 4, and the controls."""
AUTO, CUSTOM = "auto", "custom"


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """A student: the strong model, trained on weak labels."""

    weak: str = "chess-60k"
    """The weak model that supervises."""
    strong: str = "chess-426k"
    """The strong model that learns."""
    method: str = AUTO
    """A preset: baseline, confidence, untuned or random_weights; auto is whatever --loss, --labels and --weights make."""
    loss: str | None = None
    """What is minimised: a file of losses/; none takes the method's."""
    loss_options: Mapping[str, Any] = options.option(None, loss_options=True)
    """The options of the loss (`--alpha`, `--warmup`)."""
    labels: str | None = None
    """What it is trained on: weak, or nothing (scored as it comes, where its head allows); none takes the method's."""
    weights: str | None = None
    """Where it starts: pretrained or random; none takes the method's."""
    early_stopping: str = "weak"
    """weak: stop at the first epoch that agrees no better with the weak labels of the validation slice, best weights
    back; none: all epochs."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        models.find(self.weak, "weak")
        if self.method not in (*METHODS, AUTO, CUSTOM):
            raise unknown("--method", self.method, (*METHODS, AUTO))
        legal = {"early_stopping": ("weak", "none"), "labels": ("weak", "nothing"), "weights": ("pretrained", "random")}
        for name, values in legal.items():
            if getattr(self, name) not in (*values, None):
                raise unknown(options.flag(name), getattr(self, name), values)
        self._check_loss()

    def _check_loss(self) -> None:
        loss = self._primitives()["loss"]
        found = options.plugin("losses", loss, "--loss").Options
        for name in self.loss_options:
            if name not in found.__dataclass_fields__:
                having = ", ".join(options.losses_with(name))
                raise ConfigError(f"{options.flag(name)} is an option of --loss {having}, not of {loss}")
        found(**self.loss_options)

    def _primitives(self) -> dict[str, str]:
        """loss, labels and weights: the method's, unless given; one given against its method is an error."""
        preset = METHODS.get(self.method)
        found = PRIMITIVES | (preset or {})
        for name, value in found.items():
            given = getattr(self, name)
            if given is not None and preset is not None and given != value:
                raise must(name, f"{value} under --method {self.method} (or leave --method out)", given)
            found[name] = given or value
        return found

    def resolved(self) -> Config:
        """The same with the primitives, the loss's options and the method's name filled in."""
        primitives = self._primitives()
        names = [name for name, preset in METHODS.items() if PRIMITIVES | preset == primitives]
        plugin = options.plugin("losses", primitives["loss"], "--loss")
        chosen = losses.resolve(plugin.Options(**self.loss_options), large=self.rung().large)
        values: dict[str, Any] = {**primitives, "loss_options": vars(chosen), "method": names[0] if names else CUSTOM}
        filled = replace(self, **values)
        resolved: Config = super(Config, filled).resolved()
        if resolved.labels == "nothing" and resolved.head != "choose":
            raise must("head", "choose for an untuned model (another head starts from random weights)", resolved.head)
        return resolved


def run(config: Config) -> Result:
    """The student's run, found or trained, with its inputs. Raises ConfigError before anything is written."""
    config, cut = _gold.cut(config.resolved())
    inputs, roots = {}, []
    if config.labels == "weak":
        inputs, roots = {"weak": _supervisor(config)}, [f"losses.{config.loss}"]
    parts = _finetune.parts("student", VERSION, config, cut, inputs, roots)
    identity = {"weak": config.weak, "strong": config.strong, "method": config.method}

    def make(recorder: Recorder) -> Head:
        labels = {role: _finetune.weak_labels(found) for role, found in inputs.items()}
        return _make(config, cut, labels.get("weak"), recorder)

    found = _finetune.produce(parts, config, cut, identity, _note(config, inputs), make, inputs)
    if config.report == "none":
        return found
    beside = {"weak": _supervisor(config), "ceiling": ceiling.run(ceiling.Config(strong=config.strong, **config.shared()))}
    return _gold.report(found, config, cut, beside)


def _supervisor(config: Config) -> Result:
    return supervisor.run(supervisor.Config(weak=config.weak, **config.shared()))


def _make(config: Config, cut: Split, labels: SoftLabels | None, recorder: Recorder) -> Head:
    head = _finetune.build_head(config, pretrained=config.weights == "pretrained")
    if labels is not None:
        training, validation = _join(cut.transfer, labels), _join(cut.transfer_validation, labels)
        watched = validation if config.early_stopping == "weak" else None
        assert config.loss is not None
        _finetune.fit_head(head, config, training, watched, recorder, config.loss, config.loss_options)
    recorder.predictions("validation", _finetune.predictions(head, cut.transfer_validation))
    _finetune.record_heldout(head, cut, recorder)
    return head


def _join(examples: Examples, labels: SoftLabels) -> Labelled:
    return Labelled(examples, labels.of([example.id for example in examples]))


def _note(config: Config, inputs: Mapping[str, Result]) -> str:
    from w2s_mlflow.tracking import results

    how = f"finetuned on the labels of {results.link(inputs['weak'])}" if inputs else "untuned"
    return f"`{config.strong}` {how}, method `{config.method}`. The PGR interval here is over test groups only."
