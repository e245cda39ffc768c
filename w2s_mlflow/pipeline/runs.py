"""Compute the fingerprint and the name of a stage's run, and find that run or create it.

No function here reads ground truth.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow import config as options
from w2s_mlflow import metrics, models
from w2s_mlflow.data import splits
from w2s_mlflow.exceptions import ConfigError, DivergedError, must
from w2s_mlflow.local import temporary
from w2s_mlflow.pipeline import fit_check
from w2s_mlflow.pipeline.context import Context, StageOptions
from w2s_mlflow.pipeline.options import NONE, Training, model_name
from w2s_mlflow.records import NO_LABEL, Row, SoftLabels, read_predictions

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.fingerprint import FingerprintParts
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
MODEL = "w2s.model_id"
"""Tag with the id of a run's logged model."""
ROOTS = ("data.loading:resolve_and_split", "records:SoftLabels", "records:Predictions")
"""Definitions whose source code enters the fingerprint of every trained result, besides those of its stage and model family.
The code that defines the task does not enter the fingerprint. The rows of the task do, through the data digest, so that the
same rows loaded by other code give the same result."""
LABELS = "w2s.labels"
"""Tag that names the origin of labels of `transfer` that were not made by a supervisor. It is set on the runs that make such
labels and on the students trained on them."""
CHECKPOINTS = "w2s.checkpoints"
"""Tag with the pretrained checkpoints that a run's models start from, of models whose checkpoint varies with the seed."""
TUNED_ON_GOLD = "w2s.tuned_on_gold"
"""Tag of a run whose options a search with the objective `oracle` chose by ground truth of `selection`. Its value is the name
of the study."""
GOLD = "w2s.gold"
"""Tag of a run that depends on ground truth of `transfer`, directly or through an input. Labels made by such a run are not weak
labels."""
HELDOUT = "w2s.heldout"
"""Tag of a run whose task is built from a user's file: digest of the rows of `selection`, which are the same for all seeds. It
shows whether two paths name the same file."""

COLLAPSED = "w2s.collapsed"
"""Tag of a trained run: ONE_CLASS if its predictions on `validation` have collapsed (`metrics.collapsed`), NOT_FINITE if its
loss is not finite and the run has failed, else NO. The rule needs no gold labels."""
ONE_CLASS, NOT_FINITE, NO = "one class", "loss not finite", "no"


def weak_labels(run: Result) -> SoftLabels:
    """Return the labels that a run made for the rows of `transfer`, for a student to train on.

    Raises:
        ConfigError: the labels depend on ground truth of `transfer`.
    """
    if GOLD in run.tags:
        raise ConfigError(
            f"run {run.run_id} ({run.name}) depends on ground truth of {run.tags[GOLD]}, so a student trained on its labels "
            "would not be weak-to-strong"
        )
    return run.weak_labels()


def find_label_run(name: str, context: Context[StageOptions]) -> Result:
    """Find the run whose id or name is `name`, and check that a student can train on its labels of `transfer`.

    Args:
        context: the student's context. The run must have the same rows and the same weak model as the student.

    Raises:
        ConfigError: there is no such run; it has no labels, other rows or another weak model; or its labels are damaged or
            depend on ground truth.
    """
    from w2s_mlflow.tracking import results

    run, weak = results.find(name, "labels"), context.names()["weak"]
    shown = f"{run.name} ({run.run_id})"
    if results.WEAK_LABELS not in run.digests:
        raise must("labels", "a run that has labels for the rows of transfer", shown)
    if run.tags.get("w2s.data") != context.split.digest:
        raise must("labels", "a run with the same data (--task, --seed and sizes)", shown)
    if run.params.get("weak") != weak:
        raise must("labels", f"a run with the weak model {weak}", f"{shown}, whose weak model is {run.params.get('weak')}")
    weak_labels(run)
    return run


def parts(
    stage: str, version: int, context: Context[Training], inputs: Mapping[str, Result], roots: Sequence[str]
) -> FingerprintParts:
    """Return all parts of the fingerprint of a stage's result.

    Args:
        roots: definitions of the stage that make the result, and the plug-ins that they use, as `module:name`.
    """
    from w2s_mlflow.tracking import fingerprint, source

    spec = context.model
    return fingerprint.FingerprintParts(
        stage=stage,
        version=version,
        options=result_options(context),
        data=context.split.digest,
        inputs={role: result.fingerprint for role, result in inputs.items()},
        libraries=fingerprint.libraries(*(["peft"] if context.options.lora else [])),
        source=source.digests((*ROOTS, f"models.{spec.family}:load", *roots)),
        weights=models.revision(spec),
    )


def result_options(context: Context[StageOptions]) -> dict[str, Any]:
    """Return the options that enter a fingerprint.

    Paths of tasks and models are replaced by names, so that moving a file does not change the fingerprint. File contents
    enter separately, through the data digest, a weights digest or the supervisor's fingerprint.
    """
    values = options.identity(context.options)
    names = {role: name for role, name in context.names().items() if role in values}
    if values.get("chain"):
        values["chain"] = ",".join(model_name(name, "chain") for name in values["chain"].split(","))
    return values | names | {"task": context.task.key}


def produce(
    parts: FingerprintParts,
    context: Context[StageOptions],
    labels: Mapping[str, str],
    note: str,
    make: Callable[[Recorder], Head | None],
    inputs: Mapping[str, Result] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Result:
    """Return the result with this fingerprint: a finished run if there is one, else a new run made by `make`.

    Args:
        labels: values of `weak`, `strong` and `method`, by which the UI groups runs. A value that does not apply is NONE.
        inputs: input runs by role. If one of them has the tag GOLD, the result gets it too.
        tags: additional tags.
    """
    from w2s_mlflow.tracking import session, store

    config, inputs = context.options, inputs or {}
    identity = {"task": config.task, "seed": str(config.seed), **labels}
    tags = {f"w2s.{role}_run_id": run.run_id for role, run in inputs.items()} | dict(tags or {})
    if learned := [run.tags[GOLD] for run in inputs.values() if GOLD in run.tags]:
        tags[GOLD] = learned[0]
    if varied := [f"{spec.name}@{spec.checkpoint}" for spec in context.models.values() if spec.checkpoints > 1]:
        tags[CHECKPOINTS] = ",".join(varied)
    if context.task.key != context.task.name:
        tags[HELDOUT] = splits.digest(Row(example, NO_LABEL) for example in context.split.selection)
    request = store.RunRequest(run_name(parts.stage, identity, _other_head(context)), parts, config, identity, tags, note)

    heads: list[Head | None] = [None]

    def make_with_data(recorder: Recorder) -> None:
        rows = {name: len(examples) for name, examples in context.split.parts().items()}
        recorder.dataset(config.task, context.split.digest, context.task.source, rows)
        for check in session.current().before_making:
            check()
        fit_check.check_models(context)
        with _collapse_tagged(recorder):
            heads[0] = head = make(recorder)
        if head is not None:
            recorder.metrics({"model/parameters": head.model.num_parameters()})

    run = store.produce(request, make_with_data)
    if (plan := session.current().plan) and not run.run_id:
        plan.downloads |= {f"{spec.source}@{spec.commit}": models.bytes_to_download(spec) for spec in context.models.values()}
    return _with_model(run, heads[0], make) if vars(config).get("keep_model") == "always" else run


@contextlib.contextmanager
def _collapse_tagged(recorder: Recorder) -> Iterator[None]:
    """Set the tag COLLAPSED of a run that is made within the block, if it predicts `validation` or its training diverges."""
    try:
        yield
    except DivergedError:
        recorder.tags[COLLAPSED] = NOT_FINITE
        raise
    file = recorder.directory / "predictions" / "validation.parquet"
    if file.exists():
        collapsed = metrics.collapsed(read_predictions(file).probabilities_NC)
        recorder.tags[COLLAPSED] = ONE_CLASS if collapsed else NO


def _with_model(run: Result, head: Head | None, make: Callable[[Recorder], Head | None]) -> Result:
    """Ensure that a finished run has an undamaged logged model. If it has none, log `head`.

    If `head` is None, the model is first retrained, bit for bit.
    """
    from w2s_mlflow.tracking import followers, logged_model, reports, session
    from w2s_mlflow.tracking.reports import Report

    def has_model() -> bool:
        return MODEL in run.tags and logged_model.is_complete(run.tags[MODEL])

    if plan := session.current().plan:
        return run if has_model() else plan.refit(run)
    if followers.leader_decides(has_model):
        return run
    fitted, reads = (head, {}) if head is not None else _fitted_again(run, make)

    def keep() -> Result:
        return reports.attach(run, "model", Report(metrics=reads, tags={MODEL: logged_model.log(run.run_id, fitted)}))

    return followers.leader_only(run, keep)


def _fitted_again(run: Result, make: Callable[[Recorder], Head | None]) -> tuple[Head, dict[str, float]]:
    """Retrain the head of a finished run. Return the head and the run's counts of gold reads, including the new reads.

    Raises:
        ConfigError: an artifact of the retrained model differs from the run's artifact.
    """
    from w2s_mlflow.tracking import results
    from w2s_mlflow.tracking.dry_recorder import DryRecorder

    LOG.info("the model of %s was not kept, so it is trained again", run.name)
    with temporary.directory() as directory:
        dry = DryRecorder(run.run_id, Path(directory))
        head = make(dry)
        digests = results.digests_of(Path(directory))
    assert head is not None
    for path, digest in digests.items():
        if digest != run.digests[path]:
            raise ConfigError(
                f"the model of run {run.run_id} ({run.name}) was not kept and cannot be reproduced: retraining it on this "
                f"machine gave a different {path}; use --reuse never to train it again, together with the runs that need it"
            )
    reads = {name: value for name, value in dry.last.items() if name.startswith("gold/")}
    return head, {name: value + run.metrics.get(name, 0) for name, value in reads.items()}


def _other_head(context: Context[StageOptions]) -> str:
    """Return the part of a run's name that names the head, such as `classification head`, or "" for the task's default head."""
    head = vars(context.options).get("head")
    return f"{head} head" if head not in (None, context.task.head) else ""


def run_name(stage: str, identity: Mapping[str, str], head: str = "") -> str:
    """Return a run's name, such as `student sst2 gpt2->gpt2-large confidence seed 0`."""
    models_ = "->".join(name for name in (identity["weak"], identity["strong"]) if name != NONE)
    method = "" if identity["method"] in (stage, NONE) else identity["method"]
    labels = f"on labels {identity['labels']}" if "labels" in identity else ""
    iteration = f"iteration {identity.get('iteration', '1')}"
    if iteration == "iteration 1" or iteration in method:  # the method of an aligned model already names the iteration
        iteration = ""
    seed = "" if identity["seed"] == NONE else f"seed {identity['seed']}"
    return " ".join(word for word in (stage, identity["task"], models_, head, method, labels, iteration, seed) if word)
