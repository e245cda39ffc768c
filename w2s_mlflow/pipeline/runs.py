"""Fingerprint and name a stage's run, and find it or make it.

Nothing here reads ground truth.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow import config as options
from w2s_mlflow import models, tasks
from w2s_mlflow.data import splits
from w2s_mlflow.data.loading import SplitOptions
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.pipeline.options import NONE, Training, model_name
from w2s_mlflow.records import SoftLabels

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.fingerprint import FingerprintParts
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
MODEL = "w2s.model_id"
"""Tag with the id of a run's logged model."""
ROOTS = ("data.loading:resolve_and_split", "records:SoftLabels", "records:Predictions")
"""Definitions whose source enters the fingerprint of every trained result, besides those of its stage and model family. The
task is left out: its rows enter through the data digest, so that the same rows from another source give the same result."""
LABELS = "w2s.labels"
"""Tag of a run other than a supervisor that labels `transfer`, and of students on these labels: what made the labels."""
GOLD = "w2s.gold"
"""Tag of a run that depends on ground truth of `transfer`, directly or through an input, so its labels are not weak."""


def weak_labels(found: Result) -> SoftLabels:
    """Return a run's labels of `transfer`, for a student to train on.

    Raises:
        ConfigError: the labels depend on ground truth of `transfer`.
    """
    if GOLD in found.tags:
        raise ConfigError(
            f"run {found.run_id} ({found.name}) has learned the ground truth of {found.tags[GOLD]}: a student on its labels "
            "would not be weak-to-strong"
        )
    return found.weak_labels()


def find_label_run(run: str, weak: str, cut: splits.Split) -> Result:
    """Find the run with this id or name, and check that a student can train on its labels of `transfer`.

    Args:
        weak: the student's weak model, which the run must have as well.

    Raises:
        ConfigError: there is no such run; it has no labels, other rows or another weak model; or its labels are damaged or
            depend on ground truth.
    """
    from w2s_mlflow.tracking import results

    found = results.find(run)
    if results.WEAK_LABELS not in found.digests:
        raise must("labels", "of a run that has labelled transfer", f"{found.name} ({found.run_id})")
    if found.tags.get("w2s.data") != cut.digest:
        raise must("labels", "of a run on the same rows: task, seed, sizes", f"{found.name} ({found.run_id}), which has others")
    if found.params.get("weak") != model_name(weak, "weak"):
        raise must("labels", f"of a run whose weak model is --weak {weak}", f"{found.name} ({found.run_id})")
    weak_labels(found)
    return found


def parts(
    stage: str, version: int, config: Training, cut: splits.Split, inputs: Mapping[str, Result], roots: Sequence[str]
) -> FingerprintParts:
    """Return the parts of a result's fingerprint.

    Args:
        roots: the stage's definitions that make the result, and the plug-ins that they use.
    """
    from w2s_mlflow.tracking import fingerprint, source

    spec = config.spec()
    return fingerprint.FingerprintParts(
        stage=stage,
        version=version,
        options=result_options(config),
        data=cut.digest,
        inputs={role: result.fingerprint for role, result in inputs.items()},
        libraries=fingerprint.libraries(*(["peft"] if config.lora else [])),
        source=source.digests((*ROOTS, f"models.{spec.family}:load", *roots)),
        weights=models.revision(spec),
    )


def result_options(config: SplitOptions) -> dict[str, Any]:
    """Return the options that enter a fingerprint; paths of tasks and models become names, so that files can be moved.

    File contents enter separately, through the data digest, a weights digest or the supervisor's fingerprint.
    """
    found = options.identity(config)
    named = {name: model_name(found[name], name) for name in ("weak", "strong") if name in found}
    if found.get("chain"):
        found["chain"] = ",".join(model_name(name, "chain") for name in found["chain"].split(","))
    return found | named | {"task": tasks.find(config.task).key}


def produce(
    parts: FingerprintParts,
    config: SplitOptions,
    cut: splits.Split,
    labels: Mapping[str, str],
    note: str,
    make: Callable[[Recorder], Head | None],
    inputs: Mapping[str, Result] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Result:
    """Return the result with this fingerprint: a finished run if there is one, else a new run made by `make`.

    Args:
        labels: `weak`, `strong` and `method`, by which the UI groups runs; NONE where a label does not apply to the stage.
        inputs: input runs by role; the result inherits their tag GOLD.
        tags: additional tags.
    """
    from w2s_mlflow.tracking import store

    identity = {"task": config.task, "seed": str(config.seed), **labels}
    marks = {f"w2s.{role}_run_id": found.run_id for role, found in (inputs or {}).items()} | dict(tags or {})
    if learned := [found.tags[GOLD] for found in (inputs or {}).values() if GOLD in found.tags]:
        marks[GOLD] = learned[0]
    request = store.RunRequest(run_name(parts.stage, identity, _other_head(config)), parts, config, identity, marks, note)

    heads: list[Head | None] = [None]

    def make_with_data(recorder: Recorder) -> None:
        rows = {name: len(examples) for name, examples in cut.parts().items()}
        recorder.dataset(config.task, cut.digest, tasks.find(config.task).source, rows)
        heads[0] = head = make(recorder)
        if head is not None:
            recorder.metrics({"model/parameters": head.model.num_parameters()})

    found = store.produce(request, make_with_data)
    return _with_model(found, heads[0], make) if getattr(config, "keep_model", "never") == "always" else found


def _with_model(found: Result, head: Head | None, make: Callable[[Recorder], Head | None]) -> Result:
    """Ensure that a finished run has an undamaged logged model. Without `head` the model is retrained, bit for bit."""
    from w2s_mlflow.tracking import followers, logged_model, reports, session
    from w2s_mlflow.tracking.reports import Report

    def whole() -> bool:
        return MODEL in found.tags and logged_model.is_complete(found.tags[MODEL])

    if plan := session.current().plan:
        return found if whole() else plan.refit(found)
    if followers.leader_decides(whole):
        return found
    fitted, reads = (head, {}) if head is not None else _fitted_again(found, make)

    def keep() -> Result:
        return reports.attach(found, "model", Report(metrics=reads, tags={MODEL: logged_model.log(found.run_id, fitted)}))

    return followers.leader_only(found, keep)


def _fitted_again(found: Result, make: Callable[[Recorder], Head | None]) -> tuple[Head, dict[str, float]]:
    """Retrain the head of a finished run; return the head and the gold reads. Raises ConfigError for a different artifact."""
    from w2s_mlflow.tracking import results
    from w2s_mlflow.tracking.dry_recorder import DryRecorder

    LOG.info("%s was made without keeping its model: it is fitted once more", found.name)
    with tempfile.TemporaryDirectory(prefix="w2s-") as directory:
        dry = DryRecorder(found.run_id, Path(directory))
        head = make(dry)
        made = results.digests_of(Path(directory))
    assert head is not None
    for path in made:
        if made[path] != found.digests[path]:
            raise ConfigError(
                f"run {found.run_id} ({found.name}) cannot be given its model: fitted again here it has another {path}; "
                "make both anew with --reuse never"
            )
    reads = {name: value for name, value in dry.last.items() if name.startswith("gold/")}
    return head, {name: value + found.metrics.get(name, 0) for name, value in reads.items()}


def _other_head(config: SplitOptions) -> str:
    """Return the head for the run name, such as `classification head`; empty for the task's default head."""
    head = getattr(config, "head", None)
    return f"{head} head" if head not in (None, tasks.find(config.task).head) else ""


def run_name(stage: str, identity: Mapping[str, str], head: str = "") -> str:
    """Return a run's name, such as `student sst2 gpt2->gpt2-large confidence seed 0`."""
    models_ = "->".join(name for name in (identity["weak"], identity["strong"]) if name != NONE)
    method = "" if identity["method"] in (stage, NONE) else identity["method"]
    labels = f"on labels {identity['labels']}" if "labels" in identity else ""
    iteration = f"iteration {identity.get('iteration', '1')}"
    if iteration == "iteration 1" or iteration in method:  # the method of an aligned model names its iteration
        iteration = ""
    seed = "" if identity["seed"] == NONE else f"seed {identity['seed']}"
    return " ".join(word for word in (stage, identity["task"], models_, head, method, labels, iteration, seed) if word)
