"""Where results are kept: runs of one MLflow experiment, found by fingerprint, written in batches."""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, Metric, Param, Run, RunTag
from mlflow.entities import InputTag as DatasetTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NOTE

from w2s_mlflow import __version__
from w2s_mlflow.config import ConfigError, as_dict, canonical_json, flat, must
from w2s_mlflow.records import Predictions, SoftLabels, read_predictions
from w2s_mlflow.tracking.fingerprint import Parts
from w2s_mlflow.tracking.server import client, experiment, launch_run_id, sentence

PARAM_LIMIT = 6000
PAGE = 1000
BATCH = 1000
"""Metrics in one request, the most that MLflow takes."""
DIGEST_LIMIT = 36
"""MLflow cuts the digest of a data set here."""
WEAK_LABELS = "labels/weak_labels.parquet"

_parent: ContextVar[str | None] = ContextVar("parent", default=None)


@dataclass(frozen=True)
class Result:
    """A finished run, reused or new."""

    run_id: str
    name: str
    stage: str
    fingerprint: str
    artifact_uri: str
    params: Mapping[str, str]
    metrics: dict[str, float]
    tags: Mapping[str, str]
    seconds: float
    reused: bool

    def artifact(self, path: str) -> Path:
        """A local path of one artifact. Raises ConfigError when it is not there."""
        repository = get_artifact_repository(self.artifact_uri)
        # A local artifact is read where it lies; anything else is fetched once into a directory that ends with the process.
        local = isinstance(repository, LocalArtifactRepository)
        try:
            found = Path(_fetch(repository, path, None if local else _downloads(self.run_id)))
            found.stat()
        except (MlflowException, OSError) as error:
            raise ConfigError(f"run {self.run_id} ({self.name}) has lost its artifact {path}: {sentence(error)}") from error
        return found

    def predictions(self, split: str) -> Predictions:
        """The stored predictions on `validation`, `selection` or `test`."""
        return read_predictions(self.artifact(f"predictions/{split}.parquet"))

    def weak_labels(self) -> SoftLabels:
        """The labels a supervisor gave `transfer`."""
        return read_predictions(self.artifact(WEAK_LABELS))


@dataclass
class Recorder:
    """A run being made: metrics are buffered, artifacts staged in a directory; both are sent in few requests."""

    run_id: str
    directory: Path
    _metrics: list[Metric] = field(default_factory=list)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Buffer metrics of one step; a full buffer is sent."""
        now = int(time.time() * 1000)
        self._metrics += [Metric(name, float(value), now, step) for name, value in values.items()]
        if len(self._metrics) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Send what is buffered."""
        for start in range(0, len(self._metrics), BATCH):
            client().log_batch(self.run_id, metrics=self._metrics[start : start + BATCH])
        self._metrics = []

    def predictions(self, split: str, predictions: Predictions) -> None:
        """Stage the predictions on a split."""
        predictions.write(self.directory / "predictions" / f"{split}.parquet")

    def weak_labels(self, labels: SoftLabels) -> None:
        """Stage a supervisor's labels of `transfer`."""
        labels.write(self.directory / WEAK_LABELS)

    def json(self, path: str, value: Any) -> None:
        """Stage a small JSON artifact."""
        self.text(path, canonical_json(value) + "\n")

    def text(self, path: str, text: str) -> None:
        """Stage a text artifact."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def dataset(self, name: str, digest: str, source: str, rows: Mapping[str, int]) -> None:
        """Link the data the run used, by its digest, with the number of rows in each part."""
        data = Dataset(name, digest[:DIGEST_LIMIT], "w2s_mlflow", canonical_json({"uri": source}), profile=canonical_json(rows))
        client().log_inputs(self.run_id, [DatasetInput(data, [DatasetTag("mlflow.data.context", "training")])])


def find(fingerprint: str) -> Result | None:
    """The newest finished run with this fingerprint, or None."""
    found = client().search_runs(
        [experiment().experiment_id],
        f"tags.`w2s.fingerprint` = '{fingerprint}' and attributes.status = 'FINISHED'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    return _result(found[0], reused=True) if found else None


def finished(filter_string: str = "") -> list[Result]:
    """Every finished result of the experiment (launcher's runs have no fingerprint), all pages, the oldest first.

    Raises:
        ConfigError: `filter_string` is none of MLflow's.
    """
    clause = "attributes.status = 'FINISHED' and tags.`w2s.fingerprint` LIKE '%'"
    text = f"{clause} and {filter_string}" if filter_string else clause
    experiments, order = [experiment().experiment_id], ["attributes.start_time ASC"]
    found, token = [], None
    while True:
        try:
            page = client().search_runs(experiments, text, max_results=PAGE, order_by=order, page_token=token)
        except MlflowException as error:
            raise must("filter", "one of MLflow's filter strings", f"{filter_string!r}: {sentence(error)}") from error
        found += [_result(run, reused=True) for run in page]
        token = page.token
        if not token:
            return found


@contextlib.contextmanager
def recording(
    name: str, parts: Parts, config: Any, identity: Mapping[str, str], tags: Mapping[str, str], note: str
) -> Iterator[Recorder]:
    """A run for one result, which its fingerprint then finds.

    Args:
        config: the resolved Config, kept as `config.json` and, flat, as parameters.
        identity: task, weak, strong, method and seed as the UI groups by them: parameters and `w2s.` tags.
        tags: more tags, such as the run ids of the inputs.
    """
    marks = {"w2s.stage": parts.stage, "w2s.fingerprint": parts.digest()}
    marks |= {f"w2s.{key}": value for key, value in identity.items()} | dict(tags)
    with _running(name, marks, flat(config) | dict(identity), note) as recorder:
        recorder.json("config.json", as_dict(config))
        recorder.json("fingerprint.json", asdict(parts))
        yield recorder


@contextlib.contextmanager
def parent(name: str, stage: str, params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """A run under which the results made inside are filed: a grid or a search. It has no fingerprint and is never reused."""
    with _running(name, {"w2s.stage": stage}, params, note) as recorder:
        outer = _parent.set(recorder.run_id)
        try:
            yield recorder
        finally:
            _parent.reset(outer)


def get(run_id: str) -> Result:
    """A run by its id."""
    return _result(client().get_run(run_id), reused=False)


def log(run_id: str, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
    """Add a report to a run: metrics and tags, in one request."""
    now = int(time.time() * 1000)
    client().log_batch(
        run_id,
        metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )


def link(result: Result) -> str:
    """A Markdown link to the run, for the notes of others."""
    return f"[{result.name}](#/experiments/{experiment().experiment_id}/runs/{result.run_id})"


def _fetch(repository: ArtifactRepository, path: str, directory: str | None) -> str:
    return str(repository.download_artifacts(path, directory))  # type: ignore[no-untyped-call]


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="w2s-artifacts-", ignore_cleanup_errors=True)


def _downloads(run_id: str) -> str:
    directory = Path(_scratch().name) / run_id
    directory.mkdir(exist_ok=True)
    return str(directory)


@functools.cache
def _origin() -> dict[str, str]:
    """Who runs what, from which commit: the tags that MLflow's fluent API would set."""
    return dict(resolve_tags())


def _create(name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
    above = _parent.get() or launch_run_id()
    family = {MLFLOW_PARENT_RUN_ID: above} if above else {}
    run = client().create_run(experiment().experiment_id, tags=_origin() | dict(tags) | family, run_name=name)
    logged = [Param(key, str(value)[:PARAM_LIMIT]) for key, value in params.items()]
    client().log_batch(run.info.run_id, params=logged)
    return str(run.info.run_id)


@contextlib.contextmanager
def _running(name: str, tags: Mapping[str, str], params: Mapping[str, Any], note: str) -> Iterator[Recorder]:
    """A run that is finished only when its last artifact is written; an error ends it as FAILED, Ctrl-C as KILLED."""
    run_id = _create(name, {"w2s.version": __version__, MLFLOW_RUN_NOTE: note, **tags}, params)
    with tempfile.TemporaryDirectory(prefix="w2s-") as directory:
        recorder = Recorder(run_id, Path(directory))
        try:
            yield recorder
            recorder.flush()
            client().log_artifacts(run_id, directory)
        except BaseException as error:
            with contextlib.suppress(Exception):
                recorder.flush()
            client().set_terminated(run_id, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
    client().set_terminated(run_id, "FINISHED")


def _result(run: Run, *, reused: bool) -> Result:
    info, data = run.info, run.data
    seconds = ((info.end_time or info.start_time) - info.start_time) / 1000
    stage, fingerprint = data.tags.get("w2s.stage", ""), data.tags.get("w2s.fingerprint", "")
    metrics = dict(data.metrics)
    names = info.run_id, info.run_name, stage, fingerprint, info.artifact_uri
    return Result(*names, data.params, metrics, data.tags, seconds, reused)
