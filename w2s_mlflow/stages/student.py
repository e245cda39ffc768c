"""Algorithms 3 to 6: the strong model finetuned on the weak supervisor's labels of `transfer`.

The supervisor, and the ceiling that the student is compared with, are found among the finished runs or trained. The ceiling is
used only for reporting and does not enter the student's fingerprint.

Labels may also come from a file (`--labels FILE`), made by people or an API model. Without ground truth there is no ceiling and
no PGR (`--ceiling none`).

Metrics: `train/loss` and `train/gradient_norm` by step; by epoch `validation/agreement` with the training labels
(`validation/oracle_accuracy` with `--early-stopping oracle`), and `validation/best_<name>`, its value for the weights that are
kept; `test/accuracy` and the other metrics of metrics.py; `test/agreement` with the supervisor; `test/weak_accuracy`,
`test/ceiling_accuracy`, and `test/pgr` with `test/pgr_low` and `test/pgr_high`. The interval of a single student is over test
groups only; `analyze` reports intervals over seeds.
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
"""Whether this stage supports distributed training (docs/how-to/launch.md)."""
CHAIN = "w2s.chain_run_ids"
"""Tag with the run ids of all models of a student's chain, in training order."""
TEMPERATURE = "validation/temperature"
"""Supervisor metric: the fitted temperature that `--calibrate` applies."""


def run(config: Config) -> Result:
    """Find or train the student, with its inputs. Raises ConfigError before anything is written."""
    return _run(config, None)


def on_labels_of(labeller: Result, config: Config) -> Result:
    """Find or train a student on another run's labels of `transfer` instead of its supervisor's."""
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
    if labeller:  # identified by fingerprint, and described for readers; run ids differ between stores and seeds
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
    if config.eval_split == "none":
        return found
    found = scoring.report(found, config, cut, _beside(config), given)
    return bootstrapping.draw(found, links, _supervisor(config), config.eval_split) if links else found


def _roots(config: Config) -> list[str]:
    """Return the definitions whose source enters the fingerprint of a student or chain model with these options."""
    found = ["stages.student:_make", "stages.student:_at_end"]
    if config.labels != "none":
        found += [f"losses.{config.loss}", "stages.student:_weak_labels"]
    if config.labels == "random":
        found.append("pipeline.ground_truth:random_labels")
    if ORACLE in (config.labels, config.early_stopping):
        found.append("pipeline.ground_truth:oracle_labels")
    return found


def _links(asked: Config, config: Config, cut: Split, weak: Result) -> tuple[list[Result], Result]:
    """Find or train the chain models; return their runs, and the run whose labels the strong model is trained on.

    Args:
        asked: the options as the user gave them, so that each chain model has its default learning rate and alpha.
        config: the options, resolved.
    """
    from w2s_mlflow import metrics

    ids = [example.id for example in cut.transfer_validation]

    def fit(name: str, position: int, before: Result) -> Result:
        """Find or train this chain model on the labels of the run `before`."""
        own: dict[str, Any] = {
            "chain": None,
            "chain_rounds": None,
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
        return links[-1] if planned_only else max(links, key=agreement)  # in a tie the first and smallest

    names = bootstrapping.names(str(config.chain))
    strong = config.strong if config.strong_each_round else None
    return bootstrapping.run_chain(names, int(config.chain_rounds or 1), weak, fit, best, strong)


def _link(config: Config, cut: Split, position: int, decay: float, before: Result, weak: Result) -> Result:
    """Find or train a chain model on the labels of the run `before`; the model then labels `transfer` itself."""
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
    return found if config.eval_split == "none" else scoring.report(found, config, cut, {"weak": weak})


def _at_end(config: Config) -> Config:
    """Return the strong model's options; if there is a chain, its learning rate is decayed for the last position."""
    if not config.chain:
        return config
    assert config.learning_rate is not None and config.lr_decay is not None
    return replace(config, learning_rate=config.learning_rate / config.lr_decay ** len(bootstrapping.names(config.chain)))


def _labels(config: Config, cut: Split, inputs: Mapping[str, Result], recorder: Recorder) -> SoftLabels | None:
    """Return the training labels if they do not come from a file; None to skip training."""
    if config.labels == "oracle":
        return ground_truth.oracle_labels(config, cut.transfer + cut.transfer_validation, recorder)
    if not {"weak", "labels"} & set(inputs):
        return None
    weak = _weak_labels(config, inputs.get("labels") or inputs["weak"])
    if config.labels == "random":
        return ground_truth.random_labels(config, cut, weak, recorder)
    return weak.hardened() if config.labels == "hard" else weak


def _weak_labels(config: Config, found: Result) -> SoftLabels:
    """Return a run's labels. `--calibrate` temperature-scales the labels of a supervisor."""
    labels = runs.weak_labels(found)
    return labels.at_temperature(found.metrics[TEMPERATURE]) if config.calibrate and found.stage == "supervisor" else labels


def _watched(config: Config, cut: Split, labels: SoftLabels | None, recorder: Recorder) -> SoftLabels | None:
    """Return the validation labels for early stopping, or None to disable it."""
    if config.early_stopping == ORACLE and config.labels != ORACLE:
        return ground_truth.oracle_labels(config, cut.transfer_validation, recorder)
    return None if config.early_stopping == "none" else labels


def _labels_given(config: Config, cut: Split) -> SoftLabels | None:
    """Read and check the labels file; None if `--labels` is not a file."""
    if (path := labels_file(config.labels)) is None:
        return None
    labels = label_files.read(path, tasks.find(config.task).classes)
    label_files.check(labels, cut.transfer + cut.transfer_validation, path)
    return labels


def _beside(config: Config) -> dict[str, Result]:
    """Return the runs to compare with: the supervisor, if there is one, and the ceiling, if `--ceiling gold` is set."""
    found = {} if labels_file(config.labels) else {"weak": _supervisor(config)}
    if config.ceiling == "gold":
        found["ceiling"] = ceiling.run(ceiling.Config(strong=config.strong, pooling=config.pooling, **config.shared()))
    return found


def _reader(config: Config) -> Result:
    shared = {name: getattr(config, name) for name in generative.SHARED}
    return generative.run(generative.Config(**shared, epochs=int(config.generative_epochs or 0)))


def _debated(asked: Config) -> Result:
    """Find or run the debates on `transfer` between a plain student with these options and the supervisor, for the labels."""
    stage = registry.plugin("stages", "debate", "the stage")  # by name, because the debate stage imports this module
    own = {name: getattr(asked, name) for name in OF_STUDENT}
    protocol = presets.primitives(asked.method, {name: getattr(asked, name) for name in presets.PRIMITIVES})["labels"]
    how = {"protocol": protocol, "split": "transfer", "num_questions": None, "eval_split": "none", "traces": 0}
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
    """Build a head and train it on `labels`, unless None. `watched` has the labels for early stopping, or None."""
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
