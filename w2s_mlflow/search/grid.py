"""Grid sweeps: build the jobs of a grid and run them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from w2s_mlflow import config as options
from w2s_mlflow import records, registry
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import FailedTrainingError, must
from w2s_mlflow.search import sweep_file
from w2s_mlflow.search import workers as search_workers
from w2s_mlflow.search.jobs import Job

if TYPE_CHECKING:
    from tqdm import tqdm

    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")


def settings(name: str) -> Sequence[Mapping[str, Any]]:
    """Return the settings that a grid file lists. Raises ConfigError for a missing or invalid file."""
    grid: Sequence[Mapping[str, Any]] = sweep_file.read(name).SETTINGS
    return grid


def jobs(settings: Sequence[Mapping[str, Any]], seeds: Sequence[int], sizes: Mapping[str, int]) -> list[Job]:
    """Return one job per setting and seed, without duplicates, sorted by seed.

    Args:
        sizes: the options `train_size` and `test_size`, if they were given. They replace those of every setting.

    Raises:
        ConfigError: a setting has an unknown stage or option or an invalid value, or needs more rows than its task has.
    """
    job_by_content: dict[str, Job] = {}
    for seed in seeds:
        for setting in settings:
            candidate = job(dict(setting) | dict(sizes), seed)
            # Split the data now, so that a task with too few rows raises ConfigError before any run starts.
            loading.resolve_and_split(candidate.config.resolved())
            job_by_content.setdefault(records.canonical_json([candidate.stage, options.as_dict(candidate.config)]), candidate)
    return list(job_by_content.values())


def job(setting: dict[str, Any], seed: int) -> Job:
    """Return the job of one setting. Its seed is `seed`, unless the setting contains a seed or the stage has none.

    Raises:
        ConfigError: the stage or an option is unknown, or a value is invalid.
    """
    stage = str(setting.pop("stage", "student"))
    kind = registry.plugin("stages", stage, "stage").Config
    if not hasattr(kind, "resolved"):
        raise must("stage", "a stage that makes a single result, such as student", stage)
    if any(field.name == "seed" for field in fields(kind)):
        setting.setdefault("seed", seed)
    return Job(stage, options.parse(kind, setting))


def run_all(jobs: Sequence[Job], count: int = 1) -> tuple[list[Result], list[FailedTrainingError]]:
    """Run the jobs and show a progress bar. Return the results, in the order of the jobs, and the errors of failed jobs.

    If a training fails, the other jobs still run. Any other error is raised at once and stops them.

    Args:
        count: number of worker processes. If it is 1, the jobs run in this process.
    """
    results: dict[Any, Result] = {}
    failed: list[FailedTrainingError] = []
    with quiet(), search_workers.worker_pool(min(count, len(jobs))) as workers, _bar(len(jobs)) as bar:
        for index, job in enumerate(jobs):
            workers.add(index, job)
        while workers.pending:
            for index, ended in workers.ended(bar.set_description_str):
                if isinstance(ended, FailedTrainingError):
                    failed.append(ended)
                elif isinstance(ended, Exception):
                    raise ended
                else:
                    results[index] = ended
                bar.update()
                reused = sum(result.reused for result in results.values())
                bar.set_postfix_str(f"{reused} reused, {len(failed)} failed", refresh=False)
    return [results[index] for index in sorted(results)], failed


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the information that stages log, so that it does not interrupt the progress bar. Warnings are still shown."""
    level = LOG.level
    LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOG.setLevel(level)


def _bar(total: int) -> tqdm[Any]:
    from tqdm import tqdm

    return tqdm(total=total, unit="run", dynamic_ncols=True)
