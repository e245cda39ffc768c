"""Algorithms 3 to 6: the strong model finetuned on the weak supervisor's labels of `transfer`.

Asked for by its result: the supervisor whose labels it needs and the ceiling it is reported against are found among the
finished runs, or trained. The ceiling is a reporting input: it has no part in the student's fingerprint.

Labels may also come from outside (`--labels FILE`, of people or an API model), and where nobody knows the truth there is no
ceiling and no PGR (`--ceiling none`).

Metrics: `train/loss` and `train/gradient_norm` by step; `validation/agreement` by epoch with the labels it trains on
(`validation/oracle_accuracy` under `--early-stopping oracle`), and as `validation/best_...` that of the weights kept;
`test/accuracy`, `test/auroc`, `test/brier`, `test/ece`; `test/agreement` with the supervisor; `test/weak_accuracy`,
`test/ceiling_accuracy`, and `test/pgr` with `test/pgr_low` and `test/pgr_high`. The interval of a single student is over
test groups only; over seeds it is that of `analyze`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow import registry, tasks
from w2s_mlflow.data import label_files, loading
from w2s_mlflow.data.splits import Split
from w2s_mlflow.methods import bootstrapping, presets
from w2s_mlflow.methods.presets import AUTO, labels_file, labels_run
from w2s_mlflow.methods.student_options import ORACLE, Config
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.pipeline.options import NONE, OF_STUDENT, model_name
from w2s_mlflow.records import GIVEN, SoftLabels
from w2s_mlflow.stages import ceiling, generative, supervisor

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

__all__ = ["VERSION", "Config", "run"]

VERSION = 2
LAUNCHED = True
"""Several processes may be launched to train it together (docs/launch.md)."""
CHAIN = "w2s.chain_run_ids"
"""The tag with the ids of all links of a student's chain, in the order in which they were made."""
TEMPERATURE = "validation/temperature"
"""The metric of a supervisor by which its labels are calibrated."""


def run(config: Config) -> Result:
    """The student's run, found or trained, with its inputs. Raises ConfigError before anything is written."""
    return _run(config, None)


def on_labels_of(labeller: Result, config: Config) -> Result:
    """The run of a student that learns what another run says of `transfer`, in place of its supervisor's labels."""
    return _run(replace(config, labels=f"{presets.RUN}{labeller.run_id}"), labeller)


def _run(config: Config, labeller: Result | None) -> Result:
    asked, (config, cut) = config, loading.resolve_and_split(config.resolved())
    given = _labels_given(config, cut)
    if labeller is None and (run_id := labels_run(config.labels)) is not None:
        labeller = runs.find_label_run(run_id, config.weak, cut)
    inputs = {"weak": _supervisor(config)} if config.labels in (*presets.WEAK, "random") else {}
    inputs |= {"labels": labeller} if labeller else {}
    links: list[Result] = []
    if config.chain:
        links, inputs["labels"] = _links(asked, config, cut, inputs.pop("weak"))
    if config.labels in presets.DEBATES:
        inputs["labels"] = _debated(asked)
    if config.generative_epochs:
        inputs["generative"] = _reader(config)
    parts = runs.parts("student", VERSION, config, cut, inputs, _roots(config))
    if given:
        parts = replace(
            parts,
            inputs={**parts.inputs, "labels": label_files.digest(given)},
            options={**parts.options, "labels": "file", "weak": NONE},
        )
    identity = {"weak": model_name(config.weak, "weak"), "strong": config.spec().name, "method": config.method}
    if labeller:  # by its fingerprint, and for readers by what it is: ids differ from store to store, and from seed to seed
        parts = replace(parts, options={**parts.options, "labels": "run"})
        identity["labels"] = labeller.tags.get(runs.LABELS, f"of {labeller.stage}")

    def make(recorder: Recorder) -> Head:
        if given:
            given.write(recorder.directory / GIVEN)
        start = inputs["generative"].artifact(generative.WEIGHTS) if config.generative_epochs else None
        labels = given or _labels(config, cut, inputs, recorder)
        return _make(_at_end(config), cut, labels, _watched(config, cut, labels, recorder), start, recorder)

    tags = {runs.GOLD: "transfer"} if config.labels in presets.GOLD or config.early_stopping == ORACLE else {}
    tags |= {CHAIN: ",".join(link.run_id for link in links)} if links else {}
    found = runs.produce(parts, config, cut, identity, _note(config, inputs, links), make, inputs, tags)
    if config.report == "none":
        return found
    found = scoring.report(found, config, cut, _beside(config), given)
    return bootstrapping.draw(found, links, _supervisor(config), config.report) if links else found


def _roots(config: Config) -> list[str]:
    """The source that makes a student, or a link of a chain, of these options."""
    found = ["stages.student:_make", "stages.student:_at_end"]
    if config.labels != "nothing":
        found += [f"losses.{config.loss}", "stages.student:_weak_labels"]
    if config.labels == "random":
        found.append("pipeline.ground_truth:random_labels")
    if ORACLE in (config.labels, config.early_stopping):
        found.append("pipeline.ground_truth:oracle_labels")
    return found


def _links(asked: Config, config: Config, cut: Split, weak: Result) -> tuple[list[Result], Result]:
    """The runs of the chain, and the one whose labels the strong model learns.

    Args:
        asked: the options as the user gave them, so that each link takes its own model's rate and alpha.
        config: the same, resolved.
    """
    from w2s_mlflow import metrics

    ids = [example.id for example in cut.transfer_validation]

    def fit(name: str, position: int, before: Result) -> Result:
        """The link of this model, trained on the labels of the one before."""
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
        link = replace(asked, **own, **sizes, **primitives, early_stopping=stopping, keep_model="never").resolved()
        return _link(link, cut, position, float(config.lr_decay or 1), before, weak)

    def agreement(link: Result) -> float:
        return metrics.agreement_score(*(runs.weak_labels(found).of(ids) for found in (link, weak)))

    stopping = "weak" if config.early_stopping == ORACLE else config.early_stopping

    def best(links: Sequence[Result]) -> Result:
        planned_only = not all(link.run_id for link in links)
        return links[-1] if planned_only else max(links, key=agreement)  # of equal ones the first, the smallest

    names = bootstrapping.names(str(config.chain))
    strong = config.strong if config.strong_each_round else None
    return bootstrapping.run_chain(names, int(config.rounds or 1), weak, fit, best, strong)


def _link(config: Config, cut: Split, position: int, decay: float, before: Result, weak: Result) -> Result:
    """One model of a chain, fitted on the labels of the one before; it labels `transfer` anew."""
    from w2s_mlflow.tracking import results

    assert config.learning_rate is not None
    config = replace(config, learning_rate=config.learning_rate / decay**position)
    inputs = {"labels": before} | ({"generative": _reader(config)} if config.generative_epochs else {})
    parts = runs.parts("link", VERSION, config, cut, inputs, _roots(config))
    identity = {"weak": model_name(config.weak, "weak"), "strong": config.spec().name, "method": config.method}

    def make(recorder: Recorder) -> Head:
        start = inputs["generative"].artifact(generative.WEIGHTS) if config.generative_epochs else None
        labels = _weak_labels(config, before)
        head = _make(config, cut, labels, _watched(config, cut, labels, recorder), start, recorder)
        recorder.weak_labels(finetune.predictions(head, cut.transfer + cut.transfer_validation, config))
        return head

    note = f"`{config.spec().name}` at position {position} of a chain, finetuned on the labels of {results.link(before)}."
    found = runs.produce(parts, config, cut, identity, note, make, inputs)
    return found if config.report == "none" else scoring.report(found, config, cut, {"weak": weak})


def _at_end(config: Config) -> Config:
    """At the end of a chain, with the rate of that position."""
    if not config.chain:
        return config
    assert config.learning_rate is not None and config.lr_decay is not None
    return replace(config, learning_rate=config.learning_rate / config.lr_decay ** len(bootstrapping.names(config.chain)))


def _labels(config: Config, cut: Split, inputs: Mapping[str, Result], recorder: Recorder) -> SoftLabels | None:
    """What the student is trained on, where it is not given from outside; None for nothing."""
    if config.labels == "oracle":
        return ground_truth.oracle_labels(config, cut.transfer + cut.transfer_validation, recorder)
    if not {"weak", "labels"} & set(inputs):
        return None
    weak = _weak_labels(config, inputs.get("labels") or inputs["weak"])
    if config.labels == "random":
        return ground_truth.random_labels(config, cut, weak, recorder)
    return weak.hardened() if config.labels == "hard" else weak


def _weak_labels(config: Config, found: Result) -> SoftLabels:
    """The labels of a supervisor, calibrated where that is asked for, or of a link."""
    labels = runs.weak_labels(found)
    return labels.at_temperature(found.metrics[TEMPERATURE]) if config.calibrate and found.stage == "supervisor" else labels


def _watched(config: Config, cut: Split, labels: SoftLabels | None, recorder: Recorder) -> SoftLabels | None:
    """The labels of the validation slice by which the training stops; None for no such stop."""
    if config.early_stopping == ORACLE and config.labels != ORACLE:
        return ground_truth.oracle_labels(config, cut.transfer_validation, recorder)
    return None if config.early_stopping == "none" else labels


def _labels_given(config: Config, cut: Split) -> SoftLabels | None:
    """The labels from outside, if that is what the student is trained on."""
    if (path := labels_file(config.labels)) is None:
        return None
    labels = label_files.read(path, tasks.find(config.task).classes)
    label_files.check(labels, cut.transfer + cut.transfer_validation, path)
    return labels


def _beside(config: Config) -> dict[str, Result]:
    """What the student is reported against: its supervisor, where it has one, and its ceiling, where one is wanted."""
    found = {} if labels_file(config.labels) else {"weak": _supervisor(config)}
    if config.ceiling == "gold":
        found["ceiling"] = ceiling.run(ceiling.Config(strong=config.strong, pooling=config.pooling, **config.shared()))
    return found


def _reader(config: Config) -> Result:
    shared = {name: getattr(config, name) for name in generative.SHARED}
    return generative.run(generative.Config(**shared, epochs=int(config.generative_epochs or 0)))


def _debated(asked: Config) -> Result:
    """The debates on `transfer` whose verdicts are the labels: a plain student of these options against the supervisor."""
    stage = registry.plugin("stages", "debate", "the stage")  # by its name, as it needs students itself
    own = {name: getattr(asked, name) for name in OF_STUDENT}
    form = presets.primitives(asked.method, {name: getattr(asked, name) for name in presets.PRIMITIVES})["labels"]
    how = {"form": form, "split": "transfer", "questions": None, "report": "none", "traces": 0}
    found: Result = stage.run(stage.Config(**own, **asked.shared() | how))
    return found


def _supervisor(config: Config) -> Result:
    return supervisor.run(supervisor.Config(weak=config.weak, **config.shared()))


def _make(
    config: Config,
    cut: Split,
    labels: SoftLabels | None,
    watched: SoftLabels | None,
    start: Path | None,
    recorder: Recorder,
) -> Head:
    """A head fitted on `labels`, or as it comes without; it stops by those of `watched`, if given."""
    head = finetune.build_head(config, pretrained=config.weights == "pretrained", start=start)
    if labels is not None:
        assert config.loss is not None
        training = LabelledExamples.joined(cut.transfer, labels)
        validation = LabelledExamples.joined(cut.transfer_validation, watched) if watched else None
        score = "oracle_accuracy" if config.early_stopping == ORACLE else "agreement"
        finetune.fit_head(head, config, training, validation, recorder, config.loss, config.loss_options, score)
    recorder.predictions("validation", finetune.predictions(head, cut.transfer_validation, config))
    finetune.record_heldout(head, config, cut, recorder)
    return head


def _note(config: Config, inputs: Mapping[str, Result], links: Sequence[Result]) -> str:
    from w2s_mlflow.tracking import results

    how = presets.HOW.get(str(config.labels), f"finetuned on {model_name(config.weak, 'weak')}")
    if "weak" in inputs:
        how = f"{how} the labels of {results.link(inputs['weak'])}"
    if config.labels in presets.DEBATES:
        how = f"{how} {results.link(inputs['labels'])}"
    elif "labels" in inputs:
        how = f"finetuned on the labels of {results.link(inputs['labels'])}"
    if links:
        through = ", ".join(results.link(link) for link in links)
        how = f"finetuned on the labels of {results.link(inputs['labels'])}, the best of the last round of {through}"
    if "generative" in inputs:
        how = f"{how}, after {results.link(inputs['generative'])}"
    return f"`{config.spec().name}` {how}, method `{config.method}`. The PGR interval here is over test groups only."
