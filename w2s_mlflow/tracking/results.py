"""Finished runs, found by fingerprint. Each artifact is verified against its recorded digest when it is read."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.local import temporary
from w2s_mlflow.records import Predictions, SoftLabels, read_gold, read_predictions
from w2s_mlflow.tracking import names
from w2s_mlflow.tracking.backend.server import client, experiment, sentence

PAGE = 1000
IDS = 200
"""Maximum number of run ids in one search request."""
FINGERPRINT, ARTIFACTS = "w2s.fingerprint", "w2s.artifacts"
WEAK_LABELS = "labels/weak_labels.parquet"
IMPORTED = "w2s.imported"
"""Tag of a run that was not trained here: the name of the file of published results that it was imported from."""


class CorruptArtifactError(ConfigError):
    """An artifact is missing, or differs from its recorded digest."""


@dataclass(frozen=True)
class Result:
    """A finished run. When planning, a Result with an empty `run_id` is a placeholder for a run that does not exist yet."""

    run_id: str
    name: str
    stage: str
    fingerprint: str
    artifact_uri: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    seconds: float
    reused: bool

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each artifact of the run and of its reports, by artifact path. The function `digest` defines the digest."""
        digests: dict[str, str] = {}
        for tag, value in self.tags.items():
            if tag == ARTIFACTS or tag.startswith(f"{ARTIFACTS}."):
                digests |= json.loads(value)
        return digests

    @property
    def imported(self) -> bool:
        """Whether the run was imported from a file of published results. Such a run has metrics but no predictions."""
        return IMPORTED in self.tags

    def artifact(self, path: str) -> Path:
        """Verify an artifact (a file or a directory) against the recorded digests and return its local path.

        Raises:
            CorruptArtifactError: the artifact is missing, or differs from its recorded digest.
        """
        repository = get_artifact_repository(self.artifact_uri)
        try:
            local_path = _local(repository, self.run_id, path)
            self._check(path, local_path)
        except (MlflowException, OSError) as error:
            raise CorruptArtifactError(f"run {self.run_id} ({self.name}) is missing its artifact {path}") from error
        return local_path

    def check(self) -> None:
        """Verify every artifact. Raises CorruptArtifactError if one is missing or damaged."""
        for path in self.digests:
            self.artifact(path)

    def _check(self, path: str, local_path: Path) -> None:
        local_path.stat()
        for name, expected in self.digests.items():
            file = local_path if name == path else local_path / name.removeprefix(f"{path}/")
            if (name == path or name.startswith(f"{path}/")) and digest_once(file) != expected:
                raise CorruptArtifactError(
                    f"run {self.run_id} ({self.name}) has a damaged artifact {name}: its digest differs from the recorded one"
                )

    def predictions(self, split: str) -> Predictions:
        """Return the run's predictions on a split (`validation`, `selection` or `test`).

        They include the gold labels if the evaluator has stored these.
        """
        predictions = read_predictions(self.artifact(f"predictions/{split}.parquet"))
        gold = f"gold/{split}.parquet"
        return predictions.with_gold(read_gold(self.artifact(gold), predictions.ids)) if gold in self.digests else predictions

    def weak_labels(self) -> SoftLabels:
        """Return the run's weak labels for the transfer split."""
        return read_predictions(self.artifact(WEAK_LABELS))


def digest(file: Path) -> str:
    """Return the first 32 hexadecimal digits of a file's sha256."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:32]


def digest_once(file: Path) -> str:
    """Return the digest of a file, cached in this process until the file's size or timestamps change."""
    seen = file.stat()
    return _digest_once(file, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


@functools.lru_cache(maxsize=100_000)
def _digest_once(file: Path, *state: int) -> str:
    return digest(file)


def digests_of(directory: Path) -> dict[str, str]:
    """Return the digest of every file under a directory, by relative path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): digest(path) for path in files}


def runs_of(fingerprint: str) -> list[Run]:
    """Return all runs with this fingerprint, newest first. They can have any status and may be deleted."""
    clause = f"tags.`{FINGERPRINT}` = '{fingerprint}'"
    runs = client().search_runs([experiment().experiment_id], clause, run_view_type=ViewType.ALL)
    return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id), reverse=True)


def active(runs: Iterable[Run]) -> list[Run]:
    """Return the runs that are not deleted."""
    return [run for run in runs if run.info.lifecycle_stage == LifecycleStage.ACTIVE]


def finished(filter_string: str, experiment_ids: Sequence[str] | None = None) -> list[Result]:
    """Return every finished result that matches an MLflow filter string, oldest first.

    Args:
        experiment_ids: the experiments to search. Default: the current experiment.

    Raises:
        ConfigError: `filter_string` is not a valid MLflow filter string.
    """
    # Only results have a fingerprint; the runs that `mlflow run` creates have none.
    clause = f"attributes.status = 'FINISHED' and tags.`{FINGERPRINT}` LIKE '%'"
    text = f"{clause} and {filter_string}" if filter_string else clause
    try:
        return [result(run, reused=True) for run in pages(text, experiment_ids or [experiment().experiment_id])]
    except MlflowException as error:
        raise must("filter", "a valid MLflow filter string", f"{filter_string!r}: {sentence(error)}") from error


def pages(text: str, experiment_ids: Sequence[str], view: int = ViewType.ACTIVE_ONLY) -> Iterator[Run]:
    """Yield every run that matches a filter string, oldest first. Raises MlflowException if the filter string is invalid."""
    order, token = ["attributes.start_time ASC"], None
    while True:
        page = client().search_runs(list(experiment_ids), text, view, PAGE, order, token)
        yield from page
        token = page.token
        if not token:
            return


def by_id(run_ids: Iterable[str], experiment_ids: Sequence[str] | None = None) -> list[Run]:
    """Return the runs with these ids, including deleted runs. Search only `experiment_ids` (default: all experiments)."""
    if experiment_ids is None:
        experiment_ids = [exp.experiment_id for exp in mlflow.search_experiments(view_type=ViewType.ALL)]
    unique_ids = sorted(set(run_ids))
    batches = [unique_ids[start : start + IDS] for start in range(0, len(unique_ids), IDS)]
    clauses = [f"attributes.run_id IN ({', '.join(map(repr, batch))})" for batch in batches]
    return [run for clause in clauses for run in pages(clause, experiment_ids, ViewType.ALL)]


def undamaged(tag: str, value: str, below: Iterable[Result]) -> Result | None:
    """Return the newest finished run whose tag `tag` has the value `value`.

    Return None if there is no such run, or if this run or one of the runs in `below` has a damaged artifact.
    """
    clause = f"tags.`{tag}` = '{value}' and attributes.status = 'FINISHED'"
    runs = client().search_runs([experiment().experiment_id], clause, max_results=1)
    if not runs:
        return None
    newest = result(runs[0], reused=True)
    try:
        for run in (newest, *below):
            run.check()
    except CorruptArtifactError:
        return None
    return newest


def get(run_id: str) -> Result:
    """Return a run by its id."""
    return result(client().get_run(run_id), reused=False)


def find(run: str, option: str = "RUN") -> Result:
    """Return the run with this id, or the newest run with this name.

    For a run that was created by `mlflow run`, return the run that holds its result.

    Args:
        option: name of the option with which the user named the run, for the error message.

    Raises:
        ConfigError: there is no run with this id, and none with this name in the current experiment.
    """
    try:
        match = get(run)
    except MlflowException:
        name = names.run(run)
        similar = pages(names.like("attributes.run_name", name), [experiment().experiment_id])
        named = [other for other in similar if other.info.run_name == name]
        if not named:
            rule = f"the id or the name of a run of experiment {experiment().name!r}"
            raise must(option, rule, repr(run)) from None
        match = result(named[-1], reused=True)
    target = match.tags.get("w2s.result_run_id")
    return get(target) if target else match


def link(run: Result) -> str:
    """Return a Markdown link to the run, for use in other runs' notes."""
    return f"[{run.name}](#/experiments/{experiment().experiment_id}/runs/{run.run_id})"


def result(run: Run, *, reused: bool) -> Result:
    """Convert an MLflow run to a Result."""
    info, data = run.info, run.data
    lasted = ((info.end_time or info.start_time) - info.start_time) / 1000
    stage, fingerprint = data.tags.get("w2s.stage", ""), data.tags.get(FINGERPRINT, "")
    names = info.run_id, info.run_name, stage, fingerprint, info.artifact_uri
    return Result(*names, data.params, data.metrics, data.tags, data.metrics.get("seconds", lasted), reused)


def forget(run_id: str) -> None:
    """Delete the downloaded artifacts of a run, so that the next read downloads them again; local artifacts are unaffected."""
    shutil.rmtree(Path(_scratch().name) / run_id, ignore_errors=True)


def _local(repository: ArtifactRepository, run_id: str, path: str) -> Path:
    """Return an artifact's local path. A remote artifact is downloaded once per process and deleted when the process exits."""
    if isinstance(repository, LocalArtifactRepository):
        return Path(str(repository.download_artifacts(path)))  # type: ignore[no-untyped-call]
    directory = Path(_scratch().name) / run_id
    directory.mkdir(exist_ok=True)
    if not (directory / path).exists():
        repository.download_artifacts(path, str(directory))  # type: ignore[no-untyped-call]
    return directory / path


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return temporary.directory()
