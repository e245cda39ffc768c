"""Finetune the strong model on the weak supervisor's labels of `transfer` (Algorithms 3 to 6).

The supervisor, and the ceiling with which the student is compared, are trained or reused from finished runs. The ceiling is
used only for reporting and does not enter the student's fingerprint.

Labels may also come from a file (`--labels FILE`), made by people or an API model. For a task without ground truth, use
`--ceiling none`; PGR is then not reported.

Metrics: per step, `train/loss` and `train/gradient_norm`; per epoch, `validation/agreement`, the agreement with the training
labels (or `validation/oracle_accuracy` with `--early-stopping oracle`); `validation/best_<name>`, the value of this metric at
the epoch whose weights are kept; `test/accuracy` and the other metrics of metrics.py; `test/agreement`, the agreement with the
supervisor; `test/weak_accuracy` and `test/ceiling_accuracy`, the accuracies of supervisor and ceiling;
`transfer/label_accuracy`, the accuracy of the weak labels on the rows that the student learns; `test/pgr`, with its interval
from `test/pgr_low` to `test/pgr_high`. The interval of a single student covers test groups only; `analyze` reports
intervals over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from w2s_mlflow import registry
from w2s_mlflow.config import selected
from w2s_mlflow.data import label_files
from w2s_mlflow.methods import bootstrapping, chain_models, elicitation, presets, weak_finetuning
from w2s_mlflow.methods import labels as label_sources
from w2s_mlflow.methods.presets import labels_file, labels_run
from w2s_mlflow.methods.student_options import ORACLE, Config
from w2s_mlflow.pipeline import fit_check, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import NONE, OF_STRONG, OF_STUDENT
from w2s_mlflow.records import GIVEN, SoftLabels
from w2s_mlflow.stages import ceiling, supervisor
from w2s_mlflow.tasks import Prompt

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.fingerprint import FingerprintParts
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

__all__ = ["VERSION", "Config", "run"]

VERSION = 2
LAUNCHED = True
"""Whether this stage supports distributed training (docs/how-to/launch.md)."""
CHAIN = "w2s.chain_run_ids"
"""Tag with the run ids of all models of a student's bootstrapping chain, in training order."""


@dataclass(frozen=True)
class _Inputs:
    """Inputs of a student's training.

    Attributes:
        runs: the input runs by role. `weak`: the supervisor; `labels`: a run whose labels replace the supervisor's, such as the
            strong model without finetuning;
            `generative`: the run of generative finetuning, from whose weights the training starts.
        chain: the models of the bootstrapping chain, in training order.
        file_labels: labels from a file, which replace the labels of a run. None if `--labels` is not a file.
        epochs: number of epochs to train.
    """

    runs: Mapping[str, Result]
    chain: Sequence[Result]
    file_labels: SoftLabels | None
    epochs: int


def run(config: Config) -> Result:
    """Find or train the student, after finding or making its inputs.

    Raises ConfigError for invalid options, before anything is written.
    """
    return _find_or_train(config, None)


def on_labels_of(labeller: Result, config: Config) -> Result:
    """Find or train a student on labels of `transfer` that come from the run `labeller` instead of the supervisor."""
    return _find_or_train(replace(config, labels=f"{presets.RUN}{labeller.run_id}"), labeller)


def _find_or_train(config: Config, labeller: Result | None) -> Result:
    context = resolve(config)
    with fit_check.required(context):
        inputs = _find_inputs(config, context, labeller)
    student = runs.produce(
        _fingerprint(context, inputs),
        context,
        _identity(context, inputs),
        _note(context, inputs),
        lambda recorder: _train(context, inputs, recorder),
        inputs.runs,
        _tags(context.options, inputs),
    )
    if context.options.eval_split == "none":
        return student
    if context.options.labels in presets.LABEL_FREE and context.options.eval_split == "test":
        # The analysis compares label-free answers with the ceiling on `selection`, to decide whether PGR is `elicited`.
        selection = replace(context, options=replace(context.options, eval_split="selection"))
        student = scoring.report(student, selection, _references(selection.options), inputs.file_labels)
    student = scoring.report(student, context, _references(context.options), inputs.file_labels)
    if not inputs.chain:
        return student
    return bootstrapping.draw(student, inputs.chain, _supervisor(context.options), context.options.eval_split)


def _find_inputs(config: Config, context: Context[Config], labeller: Result | None) -> _Inputs:
    """Find or train the student's inputs: the run that labels `transfer`, the chain, and the weights to start from.

    Args:
        config: the options as the user gave them, before defaults are filled in.
        labeller: the run that labels `transfer`. If `labeller` is None, the options select the run.
    """
    # Check the labels first, so that an invalid file or option raises ConfigError before anything is trained.
    file_labels = _read_labels(context)
    epochs = label_sources.epochs(presets.kind_of_labels(context.options.labels), context)
    labelling, chain = ({}, ()) if file_labels else _find_labeller(config, context, labeller)
    return _Inputs(labelling | weak_finetuning.generative_run(context.options), chain, file_labels, epochs)


def _read_labels(context: Context[Config]) -> SoftLabels | None:
    """Read and check the labels file. Return None if `--labels` is not a file."""
    if (path := labels_file(context.options.labels)) is None:
        return None
    labels = label_files.read(path, context.task.classes)
    label_files.check(labels, context.split.transfer + context.split.transfer_validation, path)
    return labels


def _find_labeller(
    config: Config, context: Context[Config], labeller: Result | None
) -> tuple[dict[str, Result], Sequence[Result]]:
    """Find or make the run that labels `transfer`. Return it as the input `weak` or `labels`, with the runs of the chain."""
    options = context.options
    if options.chain:
        chain = bootstrapping.train_chain(config, context, _supervisor(options))
        return {"labels": chain.labeller}, chain.links
    if (name := labels_run(options.labels)) is not None:  # "" in a plan, in which the run has no id yet
        return {"labels": labeller or runs.find_label_run(name, context)}, ()
    match label_sources.source(str(options.labels)).LABELLER:
        case label_sources.SUPERVISOR:
            return {"weak": _supervisor(options)}, ()
        case label_sources.ZERO_SHOT:
            return {"labels": _zero_shot(config)}, ()
        case label_sources.DEBATE:
            return {"labels": _debates(config)}, ()
    return {}, ()


def _supervisor(options: Config) -> Result:
    return supervisor.run(supervisor.Config(weak=options.weak, **options.shared()))


def _zero_shot(config: Config) -> Result:
    """Find or make the run in which the same strong model answers `transfer` without finetuning (method `zero_shot`)."""
    untrained: dict[str, Any] = {**dict.fromkeys(presets.PRIMITIVES), "loss_options": {}, "label_options": {}}
    return run(replace(config, method="zero_shot", keep_model="never", **untrained))


def _debates(config: Config) -> Result:
    """Find or run the debates on `transfer` that provide labels. A plain student with these options debates the supervisor."""
    # Find the stage by name instead of importing it, because stages/debate.py imports this module.
    stage = registry.plugin("stages", "debate", "the stage")
    protocol = presets.primitives(config.method, selected(config, presets.PRIMITIVES))["labels"]
    options = {"protocol": protocol, "split": "transfer", "num_questions": None, "eval_split": "none", "traces": 0}
    debates: Result = stage.run(stage.Config(**selected(config, OF_STUDENT), **config.shared() | options))
    return debates


def _references(options: Config) -> dict[str, Result]:
    """Return the runs to compare the student with: the supervisor, if there is one, and, with `--ceiling gold`, the ceiling."""
    references = {} if labels_file(options.labels) else {"weak": _supervisor(options)}
    if options.ceiling == "gold":
        references["ceiling"] = ceiling.run(ceiling.Config(**selected(options, OF_STRONG), **options.shared()))
    return references


def _train(context: Context[Config], inputs: _Inputs, recorder: Recorder) -> Head | None:
    if inputs.file_labels:
        inputs.file_labels.write(recorder.directory / GIVEN)
    labels = inputs.file_labels or _training_labels(context, inputs.runs, recorder)
    start = weak_finetuning.start_weights(inputs.runs)
    if labels is None or isinstance(labels, Prompt):
        return elicitation.record(context, labels, start, recorder)
    if context.options.freeze is not None:
        return weak_finetuning.train_frozen(context, labels, start, recorder).head()
    watched = weak_finetuning.validation_labels(labels, context, recorder)
    context = replace(context, options=replace(context.options, epochs=inputs.epochs))
    return weak_finetuning.train(_last_of_chain(context), labels, watched, start, recorder)


def _training_labels(context: Context[Config], inputs: Mapping[str, Result], recorder: Recorder) -> SoftLabels | Prompt | None:
    """Return the training labels that the plug-in selected by `--labels` makes from a run's labels.

    If it returns a prompt or None, the student is not trained (see methods/labels/__init__.py).
    """
    options = context.options
    source = label_sources.source(presets.kind_of_labels(options.labels))
    labeller = inputs.get("labels") or inputs.get("weak")
    weak = weak_finetuning.weak_labels(labeller, context) if labeller else None
    labels: SoftLabels | Prompt | None = source.labels(weak, context, source.Options(**options.label_options), recorder)
    return labels


def _last_of_chain(context: Context[Config]) -> Context[Config]:
    """Return the context. If the student is the last model of a bootstrapping chain, its learning rate is decayed."""
    if not context.options.chain:
        return context
    return bootstrapping.decayed(context, context.options, len(chain_models.names(context.options.chain)))


def _fingerprint(context: Context[Config], inputs: _Inputs) -> FingerprintParts:
    """Return the parts of the fingerprint. Labels from a file or run enter by their content, not by path or run id."""
    roots = weak_finetuning.roots(context.options) + (["methods.bootstrapping:decayed"] if inputs.chain else [])
    parts = runs.parts("student", VERSION, context, inputs.runs, roots)
    if labels_run(context.options.labels) is not None:
        return replace(parts, options={**parts.options, "labels": "run"})
    if not inputs.file_labels:
        return parts
    return replace(
        parts,
        inputs={**parts.inputs, "labels": label_files.digest(inputs.file_labels)},
        options={**parts.options, "labels": "file", "weak": NONE},
    )


def _identity(context: Context[Config], inputs: _Inputs) -> dict[str, str]:
    """Return the parameters by which runs are grouped. A description replaces `run:ID`, because ids differ between seeds."""
    identity = context.names() | {"method": context.options.method}
    if labels_run(context.options.labels) is not None:
        labeller = inputs.runs["labels"]
        identity["labels"] = labeller.tags.get(runs.LABELS, f"of {labeller.stage}")
    return identity


def _tags(options: Config, inputs: _Inputs) -> dict[str, str]:
    reads_gold = label_sources.source(presets.kind_of_labels(options.labels)).GOLD or options.early_stopping == ORACLE
    tags = {runs.GOLD: "transfer"} if reads_gold else {}
    if options.labels in presets.UNTRAINED:
        tags[runs.LABELS] = _as_labeller(options)
    return tags | ({CHAIN: ",".join(link.run_id for link in inputs.chain)} if inputs.chain else {})


def _as_labeller(options: Config) -> str:
    """Return a description of an untrained student as a source of labels."""
    return " ".join(word for word in (str(options.method), options.label_options.get("prompt")) if word)


def _note(context: Context[Config], inputs: _Inputs) -> str:
    from w2s_mlflow.tracking import results

    options, names = context.options, context.names()
    labeller = inputs.runs.get("labels") or inputs.runs.get("weak")
    training = label_sources.source(presets.kind_of_labels(options.labels)).NOTE
    if inputs.file_labels:
        training = f"finetuned on {names['weak']}"
    elif labeller:
        training = f"{training} {results.link(labeller)}"
    if inputs.chain:
        training = f"{training}, the best of the last round of {', '.join(results.link(link) for link in inputs.chain)}"
    if "generative" in inputs.runs:
        training = f"{training}, from the weights of {results.link(inputs.runs['generative'])}"
    return f"`{names['strong']}` {training}, method `{options.method}`. The PGR interval covers test groups only, not seeds."
