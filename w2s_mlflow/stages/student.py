"""Algorithms 3 to 6: the strong model finetuned on the weak supervisor's labels of `transfer`.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from w2s_mlflow import config as options
from w2s_mlflow import losses, models, tasks
from w2s_mlflow.config import ConfigError, must, unknown
from w2s_mlflow.records import GIVEN, SoftLabels
from w2s_mlflow.split import Examples, Split
from w2s_mlflow.stages import _chain, _finetune, _given, _gold, ceiling, generative, supervisor
from w2s_mlflow.stages._finetune import Labelled
from w2s_mlflow.stages._options import GIVEN as GIVEN_LABELS
from w2s_mlflow.stages._options import NONE, Training, model_name

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1

PRIMITIVES: dict[str, Any] = {"loss": "cross_entropy", "chain": None, "generative_epochs": 0}
PRIMITIVES |= {"labels": "weak", "weights": "pretrained"}
FULL = {"loss": "confidence", "chain": _chain.AUTO, "generative_epochs": 1}
METHODS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "confidence": {"loss": "confidence"},
    "bootstrap": {"chain": _chain.AUTO},
    "generative": {"generative_epochs": 1},
    "full": FULL,
    "full-without-confidence": {**FULL, "loss": "cross_entropy"},
    "full-without-bootstrap": {**FULL, "chain": None},
    "full-without-generative": {**FULL, "generative_epochs": 0},
    "untuned": {"labels": "nothing"},
    "random_weights": {"weights": "random"},
    "hard_labels": {"labels": "hard"},
    "random_labels": {"labels": "random"},
    "oracle": {"labels": "oracle"},
}
"""Presets over the primitives: Algorithms 3 to 6, the ablation of Table 2, and the controls."""
ROUNDS, DECAY = 3, 10.0
AFTER_READING = {"learning_rate": 0.5, "batch_size": 16}
"""The paper's rate after generative finetuning is half of its own, 5e-5 of 1e-4; and its batch."""
CHAIN = "w2s.chain_run_ids"
"""The tag with the ids of all links of a student's chain, in the order in which they were made."""
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
    """A preset: baseline, confidence, bootstrap, generative, full (these three together), full-without-confidence and so on, or
    a control: untuned, random_weights, hard_labels, random_labels or oracle; auto is whatever --loss, --chain,
    --generative-epochs, --labels and --weights make."""
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
    chain: str | None = None
    """Models between weak and strong through which the labels go (Algorithm 5), the smallest first, with commas between them;
    auto takes two of the strong model's ladder; none takes the method's."""
    rounds: int | None = None
    """How often the labels go through the chain; none takes 3."""
    lr_decay: float | None = None
    """A model's rate is its own by this to the power of its position in the chain, the strong model last; none takes 10, the
    paper's, 1 leaves rates as they are."""
    strong_each_round: bool = False
    """Whether the strong model is fitted in each round, and the next starts from its labels: Algorithm 5 to the letter."""
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
        self._check_chain()
        self._check_loss()

    def _check_chain(self) -> None:
        chain = self._primitives()["chain"]
        for name in ("rounds", "lr_decay", "strong_each_round"):
            value = getattr(self, name)
            if value and not chain:
                raise must(name, "left out without --chain", value)
            if value is not None and value is not False and not 1 <= value < float("inf"):
                raise must(name, "finite and at least 1", value)
        if chain and (self._given() or self._primitives()["labels"] != "weak"):
            raise must("chain", "left out unless --labels is weak", chain)
        if chain and chain != _chain.AUTO:
            _chain.names(chain)

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
        """What a method is made of: the method's, unless given; one given against its method is an error."""
        preset = METHODS.get(self.method)
        found = PRIMITIVES | (preset or {})
        for name, value in found.items():
            given = getattr(self, name)
            if given is not None and preset is not None and self._kind(name, given) != self._kind(name, value):
                raise must(name, f"{value} under --method {self.method} (or leave --method out)", given)
            found[name] = value if given is None else given
        return found

    def _kind(self, name: str, value: Any) -> Any:
        """What a method says of a primitive: labels from a file are weak labels, any chain is one, reading twice is reading."""
        if name == "labels" and self._given():
            return "weak"
        return bool(value) if name in ("generative_epochs", "chain") else value

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
        if primitives["chain"]:
            values |= {"rounds": self.rounds or ROUNDS, "lr_decay": self.lr_decay or DECAY}
        if primitives["chain"] == _chain.AUTO:
            values["chain"] = ",".join(_chain.between(models.find(self.weak, "weak"), self.rung()))
        filled = replace(self, **values)
        resolved: Config = super(Config, filled).resolved()
        if resolved.labels == "nothing" and resolved.head != "choose":
            raise must("head", "choose for an untuned model (another head starts from random weights)", resolved.head)
        return resolved


def run(config: Config) -> Result:
    """The student's run, found or trained, with its inputs. Raises ConfigError before anything is written."""
    asked, (config, cut) = config, _gold.cut(config.resolved())
    given = _labels_given(config, cut)
    inputs = {"weak": _supervisor(config)} if config.labels in (*WEAK, "random") else {}
    links: list[Result] = []
    if config.chain:
        links, inputs["labels"] = _links(asked, config, cut, inputs.pop("weak"))
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
        return _make(_at_end(config), cut, given or _labels(config, cut, inputs, recorder), start, recorder)

    tags = {_finetune.GOLD: "transfer"} if config.labels in GOLD else {}
    tags |= {CHAIN: ",".join(link.run_id for link in links)} if links else {}
    found = _finetune.produce(parts, config, cut, identity, _note(config, inputs, links), make, inputs, tags)
    return found if config.report == "none" else _gold.report(found, config, cut, _beside(config), given)


def _links(asked: Config, config: Config, cut: Split, weak: Result) -> tuple[list[Result], Result]:
    """The runs of the chain, and the one whose labels the strong model learns.

    Args:
        asked: the options as the user gave them, so that each link takes its own model's rate and alpha.
        config: the same, resolved.
    """
    from w2s_mlflow import metrics

    ids = [example.id for example in cut.transfer_validation]

    def fit(name: str, position: int, before: Result) -> Result:
        own: dict[str, Any] = {
            "chain": None,
            "rounds": None,
            "lr_decay": None,
            "strong_each_round": False,
            "method": AUTO,
            "strong": name,
        }
        sizes: dict[str, Any] = {
            "train_size": config.train_size,
            "test_size": config.test_size,
            "head": config.head,
            "pooling": None,
        }
        primitives = {name: getattr(config, name) for name in ("loss", "generative_epochs", "labels", "weights")}
        link = replace(asked, **own, **sizes, **primitives, keep_model="never").resolved()
        return _link(link, cut, position, float(config.lr_decay or 1), before, weak)

    def agreement(link: Result) -> float:
        return metrics.agreement_score(*(_finetune.weak_labels(found).of(ids) for found in (link, weak)))

    def best(links: Sequence[Result]) -> Result:
        planned_only = not all(link.run_id for link in links)
        return links[-1] if planned_only else max(links, key=agreement)  # of equal ones the first, the smallest

    names = _chain.names(str(config.chain))
    strong = config.strong if config.strong_each_round else None
    return _chain.walk(names, int(config.rounds or 1), weak, fit, best, strong)


def _link(config: Config, cut: Split, position: int, decay: float, before: Result, weak: Result) -> Result:
    """One model of a chain, fitted on the labels of the one before; it labels `transfer` anew."""
    from w2s_mlflow.tracking import results

    assert config.learning_rate is not None
    config = replace(config, learning_rate=config.learning_rate / decay**position)
    inputs = {"labels": before} | ({"generative": _reader(config)} if config.generative_epochs else {})
    parts = _finetune.parts("link", VERSION, config, cut, inputs, [f"losses.{config.loss}"])
    identity = {"weak": model_name(config.weak, "weak"), "strong": config.rung().name, "method": config.method}

    def make(recorder: Recorder) -> Head:
        start = inputs["generative"].artifact(generative.WEIGHTS) if config.generative_epochs else None
        head = _make(config, cut, _finetune.weak_labels(before), start, recorder)
        recorder.weak_labels(_finetune.predictions(head, cut.transfer + cut.transfer_validation, config))
        return head

    note = f"`{config.rung().name}` at position {position} of a chain, finetuned on the labels of {results.link(before)}."
    found = _finetune.produce(parts, config, cut, identity, note, make, inputs)
    return found if config.report == "none" else _gold.report(found, config, cut, {"weak": weak})


def _at_end(config: Config) -> Config:
    """At the end of a chain, with the rate of that position."""
    if not config.chain:
        return config
    assert config.learning_rate is not None and config.lr_decay is not None
    return replace(config, learning_rate=config.learning_rate / config.lr_decay ** len(_chain.names(config.chain)))


def _labels(config: Config, cut: Split, inputs: Mapping[str, Result], recorder: Recorder) -> SoftLabels | None:
    """What the student is trained on, where it is not given from outside; None for nothing."""
    if config.labels == "oracle":
        return _gold.oracle_labels(config, cut, recorder)
    if not {"weak", "labels"} & set(inputs):
        return None
    weak = _finetune.weak_labels(inputs.get("labels") or inputs["weak"])
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


def _note(config: Config, inputs: Mapping[str, Result], links: Sequence[Result]) -> str:
    from w2s_mlflow.tracking import results

    how = HOW.get(str(config.labels), f"finetuned on {model_name(config.weak, 'weak')}")
    if "weak" in inputs:
        how = f"{how} the labels of {results.link(inputs['weak'])}"
    if "labels" in inputs:
        through = ", ".join(results.link(link) for link in links)
        how = f"finetuned on the labels of {results.link(inputs['labels'])}, the best of the last round of {through}"
    if "generative" in inputs:
        how = f"{how}, after {results.link(inputs['generative'])}"
    return f"`{config.rung().name}` {how}, method `{config.method}`. The PGR interval here is over test groups only."
