"""Run a grid or a search, and analyse the results. An input that several runs need is made only once.

`sweeps/NAME.py` defines either a grid or a search. A grid is a list `SETTINGS` of dictionaries, each with a `stage` and its
options; each setting is run for every seed (once, if its stage has no seed). A search has a function `space(trial)`, with which
Optuna samples the options of `--trials` trials; then the best setting and the default are scored on `test` for every seed. The
parent run contains the tables, figures and aggregates over seeds.

`--workers N` uses N processes on this machine. To share the work with another machine, run the same command there: no two
processes make the same run (tracking/claims.py), and all processes of a search use the same study (`--storage`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from w2s_mlflow import config as options
from w2s_mlflow.analysis import build, collapse, declared_claims
from w2s_mlflow.config import checked_dataclass, option, selected
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.pipeline.runs import TUNED_ON_GOLD
from w2s_mlflow.search import grid, samplers, space, storage, sweep_file, trials
from w2s_mlflow.search import study as search_study
from w2s_mlflow.search import workers as search_workers
from w2s_mlflow.search.jobs import Job
from w2s_mlflow.search.study import StudyTarget
from w2s_mlflow.search.sweep_file import parse_seeds as parse_seeds
from w2s_mlflow.stages import analyze

if TYPE_CHECKING:
    from w2s_mlflow.search.space import Search
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

GRID_DIGEST = "w2s.grid_digest"
"""Tag of a grid's parent run: the digest of the grid's contents. This tag is used to find a completed grid."""

LOG = logging.getLogger("w2s_mlflow")
SEARCH_SEEDS = "1000,1001"
STORAGE = "W2S_STORAGE"
OF_SEARCHES = ("trials", "timeout", "search_seeds", "objective", "sampler", "pruner", "study", "storage")


@checked_dataclass
class Config:
    """Options of a grid or a search."""

    sweep: str = "default"
    """Grid or search to run: the name of a shipped sweep, or the path of a .py file, which is run as code."""
    seeds: str = "0..4"
    """Seeds, as a range `0..4` or a list `0,3,7`. A search uses these seeds to compare its best setting with the default."""
    train_size: int | None = None
    """Number of training rows in every setting. Default: the number in the setting, else that of the task."""
    test_size: int | None = None
    """Maximum number of test rows in every setting. Default: the number in the setting, else that of the task."""
    workers: int = option(default=1, ge=1, result=False)
    """Number of parallel processes on this machine, each with its own GPU or share of the CPU cores."""
    trials: int | None = option(default=None, ge=1)
    """Search only: number of trials of the study. Default: 20, or the whole space with --sampler grid."""
    timeout: float | None = option(default=None, gt=0, unset="none", result=False)
    """Search only: minutes after which no new trial starts. `none`: no limit."""
    search_seeds: str | None = None
    """Search only: seeds over which the score of each trial is averaged. None may be in --seeds. Default: 1000,1001."""
    objective: Literal["agreement", "proxy", "oracle"] | None = option(default=None)
    """Search only: score of a trial. `agreement`: agreement with the weak labels (only for tuning learning rates and
    epochs); `proxy`: the metric that the search file names in METRIC, on `selection`, for the proxy settings listed in PROXY;
    `oracle`: the same metric on `selection` of the task itself, which needs its ground truth. Default: OBJECTIVE in the
    search file, else `proxy`."""
    sampler: Literal["tpe", "random", "grid"] | None = option(default=None)
    """Search only: Optuna sampler: `tpe`, `random` or `grid` (every combination of a discrete space). Default: `tpe`."""
    pruner: Literal["median", "hyperband", "wilcoxon"] | None = option(default=None, unset="none")
    """Search only: Optuna pruner, which may stop a trial before all of its runs are made: `median`, `hyperband` or `wilcoxon`
    (a paired test over settings and seeds). `none`: no pruning."""
    study: str | None = None
    """Search only: name of the study. Default: the file's name and a digest of everything that the scores of trials depend
    on."""
    storage: str | None = option(default=None, result=False)
    """Search only: database for the study, such as postgresql+psycopg2://user@host/name, to share it between machines. Default:
    the environment variable W2S_STORAGE, else a file on this machine."""

    def __post_init__(self) -> None:
        seeds, module = parse_seeds(self.seeds), sweep_file.read(self.sweep)
        if hasattr(module, "SETTINGS"):
            sweep_file.claim(self.sweep)
            for name, value in selected(self, OF_SEARCHES).items():
                if value is not None:
                    raise must(name, f"left out for {self.sweep}, which is a grid", value)
            return
        search = self.search()
        assert search is not None
        if self.pruner and len(self.trial_seeds()) * len(search.settings) == 1:
            raise must("pruner", "none, because each trial is a single run and pruning would save nothing", self.pruner)
        if shared := sorted(set(seeds) & set(self.trial_seeds())):
            rule = "seeds that are not in --seeds, because those compare the best setting with the default"
            raise must("search_seeds", rule, shared[0])
        if self.study is not None and not re.fullmatch(r"\w[\w.-]{0,149}", self.study):
            raise must("study", "a name of at most 150 letters, digits, underscores, dots and dashes", repr(self.study))
        storage.check(self.study_target().storage)

    def search(self) -> Search | None:
        """Return the search that the file defines, or None for a grid. Raises ConfigError if the search is incomplete."""
        module = sweep_file.read(self.sweep)
        if hasattr(module, "SETTINGS"):
            return None
        file = sweep_file.path(self.sweep)
        return space.load_search(file.stem, module, file.read_text(encoding="utf-8"), self.objective)

    def study_target(self) -> StudyTarget:
        """Return the settings of the study: name, storage, sampler, pruner, limits and seed."""
        return StudyTarget(
            study=self.study,
            storage=self.storage or os.environ.get(STORAGE) or None,
            sampler=self.sampler or samplers.SAMPLERS[0],
            pruner=self.pruner or samplers.PRUNERS[0],
            trials=self.trials or (None if self.sampler == "grid" else search_study.TRIALS),
            seconds=None if self.timeout is None else 60 * self.timeout,
            seed=self.trial_seeds()[0],
        )

    def trial_seeds(self) -> list[int]:
        """Return the seeds over which the score of each trial is averaged."""
        return parse_seeds(self.search_seeds or SEARCH_SEEDS, "search_seeds")

    def sizes(self) -> dict[str, int]:
        """Return those of the options `train_size` and `test_size` that were given, by name."""
        sizes = selected(self, ("train_size", "test_size"))
        return {name: size for name, size in sizes.items() if size is not None}


def run(config: Config) -> Result:
    """Run the grid or search under a parent run, and analyse the results.

    Raises:
        ConfigError: an option is invalid (raised before the first job starts); the space or a trial of a search is invalid
            (raised as soon as this is found); or runs have failed (raised at the end).
    """
    search = config.search()
    return _run_search(config, search) if search else _run_grid(config)


def _run_grid(config: Config) -> Result:
    from w2s_mlflow.tracking import lifecycle, results, session

    grid_jobs, name, claim = jobs(config), f"sweep {config.sweep}", sweep_file.claim(config.sweep)
    if plan := session.current().plan:
        for job in grid_jobs:
            job.run()
        return plan.placeholder(name, "sweep")
    declared = [_declaration(name, claim)] if claim else []
    if completed := find_completed(grid_jobs, declared):
        LOG.info("%d results, all of them reused, with their tables", len(grid_jobs))
        return completed
    note = f"The grid `{config.sweep}` over seeds {config.seeds}. New runs are its child runs; its tables are artifacts."
    # The claim is a parameter, because parameters are stored when the run begins.
    params = options.flat(config) | ({declared_claims.PARAM: claim} if claim else {})
    with lifecycle.parent(name, "sweep", params, note) as recording:
        runs, failed = grid.run_all(grid_jobs, config.workers)
        if not runs:
            raise failed[0]
        recording.json("runs.json", sorted({run.run_id for run in runs}))
        recording.json("failed.json", [str(error) for error in failed])
        diverged = _diverged(recording.run_id) if failed else []
        build.record(build.load([*runs, *declared, *diverged]), recording)
        if not failed:
            recording.tags[GRID_DIGEST] = contents([*runs, *declared])
    LOG.info("%d results, %d of them reused", len(runs), sum(run.reused for run in runs))
    if failed:
        raise ConfigError(
            f"{len(failed)} of {len(grid_jobs)} runs of {name} failed (first error: {failed[0]}); the tables of the others are "
            f"in run {recording.run_id}"
        )
    return results.get(recording.run_id)


def _declaration(name: str, claim: str) -> Result:
    """Return a placeholder for the parent run of a grid with a claim, from which the analysis reads the claim."""
    from w2s_mlflow.tracking.results import Result

    params = {declared_claims.PARAM: claim}
    return Result("", name, declared_claims.STAGE, "", "", params, {}, {}, seconds=0, reused=False)


def _diverged(parent_id: str) -> list[Result]:
    """Return the children of a run that failed because their loss was not finite."""
    from w2s_mlflow.tracking.backend import server

    return collapse.diverged(f"tags.`mlflow.parentRunId` = '{parent_id}'", [server.experiment().experiment_id])


def _run_search(config: Config, search: Search) -> Result:
    """Run the remaining trials of the study. Then compare the best setting with the default on `test`."""
    from w2s_mlflow.tracking import lifecycle, results, session

    def trial_jobs(params: Mapping[str, Any]) -> list[Job]:
        return [Job(search.stage, run) for run in space.configs(search, params, config.trial_seeds(), config.sizes())]

    for job in trial_jobs({}):
        # Raise ConfigError before any run starts if the data of a job cannot be split.
        loading.resolve_and_split(job.config.resolved())
    name, target, digest = f"sweep {config.sweep}", config.study_target(), _study_digest(config, search)
    *params_of_trials, best = search_study.placeholder_params(search, target, digest)
    planned = [
        job
        for params in params_of_trials
        for job in trial_jobs(params)
        # Making the jobs checks their options, and raises ConfigError before any run starts.
    ]
    if plan := session.current().plan:
        for job in [*planned, *_jobs_with(config, search, {}), *_jobs_with(config, search, best)]:
            job.run()
        return plan.placeholder(name, "sweep")
    study = search_study.open_study(search, target, digest, len(trial_jobs({})))
    note = f"The search `{search.name}` with the objective `{search.objective}`. Trials and new runs are its child runs."
    with lifecycle.parent(name, "sweep", options.flat(config) | {"study": study.study_name}, note) as recording:
        recording.tags |= {"w2s.objective": search.objective, "w2s.study": study.study_name}
        with grid.quiet(), search_workers.worker_pool(config.workers) as workers:
            trials.run(study, search, target, trial_jobs, workers)
        best = search_study.best(study)
        command = space.command(search, best)
        trials.plot(study, search, recording.directory / "search")
        recording.metrics({"search/objective": study.best_value, "search/looks": search_study.gold_reads(study, search)})
        recording.params({f"best_{name}": value for name, value in best.items()})
        recording.text("search/best.txt", command + "\n")
        recording.note(f"{note}\n\nThe best setting, by {search.objective}: `{command}`")
        _compare(config, search, best, recording)
    LOG.info("best by %s: %s", search.objective, command)
    return results.get(recording.run_id)


def _study_digest(config: Config, search: Search) -> str:
    """Return the digest of everything that the scores of a study depend on.

    The digest covers the space, the objective, the sampler and pruner, the MLflow experiment, and the fingerprints of the runs
    with default options. A change of data, code or libraries thus starts a new study.
    """
    from w2s_mlflow.tracking import session
    from w2s_mlflow.tracking.backend import server

    with session.planning() as plan:
        for run in space.configs(search, {}, config.trial_seeds(), config.sizes()):
            Job(search.stage, run).run()
    # Identify the experiment by its id, because the store's URI may differ between machines.
    experiment = server.experiment()
    store = {"experiment": [experiment.experiment_id, experiment.name, experiment.creation_time]}
    optuna_options = selected(config, ("sampler", "pruner"))
    return search.digest(store | optuna_options | {"fingerprints": sorted(plan.steps)})


def _jobs_with(config: Config, search: Search, params: Mapping[str, Any]) -> list[Job]:
    """Return one job per seed for the setting that is tuned, with the options `params`."""
    return jobs(config, [{"stage": search.stage, **search.tuned, **params}])


def _compare(config: Config, search: Search, best: Mapping[str, Any], recording: Recorder) -> None:
    """Compare the best setting with the default on `test`, paired by seed. No trial has used the seeds of this comparison."""
    from w2s_mlflow import stats

    default_jobs, best_jobs = _jobs_with(config, search, {}), _jobs_with(config, search, best)
    runs, failed = grid.run_all([*default_jobs, *best_jobs], config.workers)
    if failed:
        raise failed[0]
    if search.objective == "oracle":
        runs[len(default_jobs) :] = [_tagged_as_tuned(run, recording.tags["w2s.study"]) for run in runs[len(default_jobs) :]]
    scores = [run.metrics[f"test/{search.score}"] for run in runs]
    default, tuned = scores[: len(default_jobs)], scores[len(default_jobs) :]
    means = {"default": sum(default) / len(default), "best": sum(tuned) / len(tuned)}
    recording.metrics({f"test/{side}_{search.score}": mean for side, mean in means.items()})
    if len(default) > 1:
        test = stats.paired_t_test(default, tuned)
        recording.metrics({"test/difference": test.mean_difference, "test/difference_low": test.low})
        recording.metrics({"test/difference_high": test.high, "test/p": test.p, "test/n": test.n})
    build.record(build.load(runs), recording)


def _tagged_as_tuned(run: Result, study: str) -> Result:
    """Tag a run whose options a search chose by ground truth, so that an analysis says so."""
    from w2s_mlflow.tracking import reports

    return reports.attach_once(run, "tuned", lambda _: reports.Report(tags={TUNED_ON_GOLD: study}))


def jobs(config: Config, settings: Sequence[Mapping[str, Any]] | None = None) -> list[Job]:
    """Return all jobs of the grid, or of `settings` if given, ordered by seed. Raises ConfigError for an invalid job."""
    settings = grid.settings(config.sweep) if settings is None else settings
    return grid.jobs(settings, parse_seeds(config.seeds), config.sizes())


def _finished() -> dict[str, Result]:
    """Return the experiment's newest finished result for each fingerprint. Only two requests are sent to the MLflow server."""
    from w2s_mlflow.tracking import run_cache
    from w2s_mlflow.tracking.backend import server

    return {result.fingerprint: result for result in run_cache.finished(server.experiment().experiment_id)}


def contents(runs: Sequence[Result], finished: Mapping[str, Result] | None = None) -> str:
    """Return the digest of what a grid's tables depend on: the metrics and artifacts of its runs, and the tables' code.

    Args:
        finished: the experiment's finished results by fingerprint. If `finished` is None, they are looked up.
    """
    finished = _finished() if finished is None else finished
    return build.parts(analyze.Config(), [finished.get(run.fingerprint, run) for run in runs], {}).digest()


def find_completed(grid_jobs: Sequence[Job], declared: Sequence[Result] = ()) -> Result | None:
    """Return the finished parent run of this grid, or None if a result or table is missing or damaged.

    Args:
        declared: placeholder for the grid's claim, if it declares one.
    """
    from w2s_mlflow.tracking import planning, results, session

    if session.current().reuse_since:
        return None
    with session.planning(_finished()) as plan:
        runs = [job.run() for job in grid_jobs]
    if plan.count(planning.REUSED) < len(plan.steps):
        return None
    return results.undamaged(GRID_DIGEST, contents([*runs, *declared], plan.known), runs)
