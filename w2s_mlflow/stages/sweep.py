"""Grids and searches: what a file of sweeps/ says is run, shared inputs built once, and what came of it is analysed.

`sweeps/NAME.py` holds either `SETTINGS`, a sequence of dictionaries, `stage` and that stage's options: each setting is run for
every seed (once, where its stage has none); or `space(trial)`, from which Optuna draws the options of `--trials` trials; the
best of them and the default setting are then scored on `test` for every seed. The parent run carries tables, figures and
aggregates over seeds.

`--workers N` are N processes of this machine. The same command on another machine joins in: two processes never make the
same run (tracking/claims.py), and those of one search draw from one study (`--storage`).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from w2s_mlflow import config as options
from w2s_mlflow.analysis import build
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.search import grid, space, storage, sweep_file, trials
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

CONTENTS = "w2s.contents"
"""The tag of a grid's run by which it is found again when nothing is left to be made."""

LOG = logging.getLogger("w2s_mlflow")
SEARCH_SEEDS = "1000,1001"
STORAGE = "W2S_STORAGE"
OF_SEARCHES = ("trials", "timeout", "search_seeds", "objective", "sampler", "pruner", "study", "storage")


@checked_dataclass
class Config:
    """A grid, or a search, and its seeds."""

    sweep: str = "default"
    """A file of sweeps/ by its name, or the path of any such .py file."""
    seeds: str = "0..4"
    """Seeds, as a range `0..4` or a list `0,3,7`; after a search the best setting is compared with the default on these."""
    train_size: int | None = None
    """Rows of the training part for every setting; none takes each task's own."""
    test_size: int | None = None
    """Test rows for every setting; none takes each task's own."""
    workers: int = option(default=1, ge=1, result=False)
    """How many processes of this machine make runs side by side, each with a GPU or a share of the cores of its own."""
    trials: int | None = option(default=None, ge=1)
    """Of a search: how many trials its study is brought to; none takes 20, and of the sampler grid all there are."""
    timeout: float | None = option(default=None, gt=0, unset="none", result=False)
    """Of a search: minutes after which no trial is begun any more; none sets no limit."""
    search_seeds: str | None = None
    """Of a search: the seeds that each trial is the mean of, none of them in --seeds; none takes 1000,1001."""
    objective: Literal["agreement", "proxy", "oracle"] | None = option(default=None)
    """Of a search: agreement with the weak labels, which may tune rates and epochs only; proxy, the accuracy on the settings
    PROXY of its file; oracle, that on the task itself; none takes the file's."""
    sampler: Literal["tpe", "random", "grid"] | None = option(default=None)
    """Of a search: tpe, random, or grid, which tries all there is of a space of steps; none takes tpe."""
    pruner: Literal["median", "hyperband", "wilcoxon"] | None = option(default=None, unset="none")
    """Of a search: what ends a trial after some of its runs: median, hyperband, or wilcoxon over tasks and seeds; none
    prunes nothing."""
    study: str | None = None
    """Of a search: its study by name; none makes one of the file's name and a digest of everything its values depend on."""
    storage: str | None = option(default=None, result=False)
    """Of a search: a database for its study, such as postgresql+psycopg2://user@host/name, for several machines; none takes
    what W2S_STORAGE says, else a file on this machine."""

    def __post_init__(self) -> None:
        seeds, module = parse_seeds(self.seeds), sweep_file.read(self.sweep)
        if hasattr(module, "SETTINGS"):
            if given := [name for name in OF_SEARCHES if getattr(self, name) is not None]:
                raise must(given[0], f"left out for {self.sweep}, which is a grid", getattr(self, given[0]))
            return
        search = self.search()
        assert search is not None
        if self.pruner and len(self.trial_seeds()) * len(search.settings) == 1:
            raise must("pruner", "none where a trial is a single run: nothing is left to be saved", self.pruner)
        if shared := sorted(set(seeds) & set(self.trial_seeds())):
            rule = "seeds that are not in --seeds, on which the best setting is held against the default"
            raise must("search_seeds", rule, shared[0])
        if self.study is not None and not re.fullmatch(r"\w[\w.-]{0,149}", self.study):
            raise must("study", "a name of at most 150 letters, digits, dots and dashes", repr(self.study))
        storage.check(self.wanted().storage)

    def search(self) -> Search | None:
        """The search in the file; None for a grid. Raises ConfigError for one that is incomplete."""
        module = sweep_file.read(self.sweep)
        if hasattr(module, "SETTINGS"):
            return None
        file = sweep_file.path(self.sweep)
        return space.of(file.stem, module, file.read_text(encoding="utf-8"), self.objective)

    def wanted(self) -> StudyTarget:
        """What the study of a search is brought to."""
        return StudyTarget(
            study=self.study,
            storage=self.storage or os.environ.get(STORAGE) or None,
            sampler=self.sampler or search_study.SAMPLERS[0],
            pruner=self.pruner or search_study.PRUNERS[0],
            trials=self.trials or (None if self.sampler == "grid" else search_study.TRIALS),
            seconds=None if self.timeout is None else 60 * self.timeout,
            seed=self.trial_seeds()[0],
        )

    def trial_seeds(self) -> list[int]:
        """The seeds that each trial is the mean of."""
        return parse_seeds(self.search_seeds or SEARCH_SEEDS, "search_seeds")

    def sizes(self) -> dict[str, int]:
        """The sizes that are given."""
        return {name: size for name in ("train_size", "test_size") if (size := getattr(self, name)) is not None}


def run(config: Config) -> Result:
    """Drain the grid, or search, under a parent run; analyse what it made.

    Raises:
        ConfigError: before the first job starts, for what cannot be run; at the end, for runs that came to nothing.
    """
    search = config.search()
    return _searched(config, search) if search else _drained(config)


def _drained(config: Config) -> Result:
    from w2s_mlflow.tracking import recorder, results, session

    waiting, name = jobs(config), f"sweep {config.sweep}"
    if plan := session.current().plan:
        for job in waiting:
            job.run()
        return plan.placeholder(name, "sweep")
    if before := find_completed(waiting):
        LOG.info("%d results, all reused, and their tables", len(waiting))
        return before
    note = f"The grid `{config.sweep}` over seeds {config.seeds}: its runs are below, its tables among the artifacts."
    with recorder.parent(name, "sweep", options.flat(config), note) as recording:
        found, failed = grid.run_all(waiting, config.workers)
        if not found:
            raise failed[0]
        recording.json("runs.json", sorted({result.run_id for result in found}))
        recording.json("failed.json", [str(error) for error in failed])
        build.record(build.load(found), recording)
        if not failed:
            recording.tags[CONTENTS] = contents(found)
    reused = sum(result.reused for result in found)
    LOG.info("%d results, %d of them reused", len(found), reused)
    if failed:
        raise ConfigError(
            f"{len(failed)} of {len(waiting)} runs of {name} came to nothing, the first as {failed[0]}; the tables of the "
            f"others are in run {recording.run_id}"
        )
    return results.get(recording.run_id)


def _searched(config: Config, search: Search) -> Result:
    """Bring the study to its trials; then `test` is read once, for the best setting beside the default."""
    from w2s_mlflow.tracking import recorder, results, session

    def trial(given: Mapping[str, Any]) -> list[Job]:
        return [Job(search.stage, one) for one in space.configs(search, given, config.trial_seeds(), config.sizes())]

    for job in trial({}):
        loading.resolve_and_split(job.config.resolved())  # what cannot be cut ends here, before any run starts
    name, wanted, digest = f"sweep {config.sweep}", config.wanted(), _hangs_on(config, search)
    *waiting, best = search_study.rehearsed(search, wanted, digest)
    of_trials = [job for given in waiting for job in trial(given)]  # what cannot be run ends here, too
    if plan := session.current().plan:
        for job in [*of_trials, *_chosen(config, search, {}), *_chosen(config, search, best)]:
            job.run()
        return plan.placeholder(name, "sweep")
    study = search_study.opened(search, wanted, digest, len(trial({})))
    note = f"The search `{search.name}`, objective `{search.objective}`: its trials and their runs are below."
    with recorder.parent(name, "sweep", options.flat(config) | {"study": study.study_name}, note) as recording:
        recording.tags |= {"w2s.objective": search.objective, "w2s.study": study.study_name}
        with grid.quiet(), search_workers.worker_pool(config.workers) as workers:
            trials.run(study, search, wanted, trial, workers)
        best = search_study.best(study)
        command = space.command(search, best)
        trials.draw(study, search, recording.directory / "search")
        recording.metrics({"search/objective": study.best_value, "search/looks": search_study.looks(study, search)})
        recording.params({f"best_{name}": value for name, value in best.items()})
        recording.text("search/best.txt", command + "\n")
        recording.note(f"{note}\n\nThe best setting, by {search.objective}: `{command}`")
        _compare(config, search, best, recording)
    LOG.info("best by %s: %s", search.objective, command)
    return results.get(recording.run_id)


def _hangs_on(config: Config, search: Search) -> str:
    """The digest of all that a study's values hang on: the space, the objective, the store, and the fingerprints of what a
    trial with the default options is made of, so that other data, code or libraries are another study, too."""
    from w2s_mlflow.tracking import session
    from w2s_mlflow.tracking.backend import server

    with session.planning() as plan:
        for one in space.configs(search, {}, config.trial_seeds(), config.sizes()):
            Job(search.stage, one).run()
    experiment = server.experiment()  # not by its address, which another machine may write in another way
    store = {"experiment": [experiment.experiment_id, experiment.name, experiment.creation_time]}
    how = {"sampler": config.sampler, "pruner": config.pruner}
    return search.digest(store | how | {"fingerprints": sorted(plan.steps)})


def _chosen(config: Config, search: Search, given: Mapping[str, Any]) -> list[Job]:
    """The jobs of one setting of what is tuned, a seed each."""
    return jobs(config, [{"stage": search.stage, **search.tuned, **given}])


def _compare(config: Config, search: Search, best: Mapping[str, Any], recording: Recorder) -> None:
    """The best setting beside the default over fresh seeds, on `test`, paired by seed."""
    from w2s_mlflow import stats

    pair = _chosen(config, search, {}), _chosen(config, search, best)
    found, failed = grid.run_all([*pair[0], *pair[1]], config.workers)
    if failed:
        raise failed[0]
    scores = [result.metrics[f"test/{search.score}"] for result in found]
    default, chosen = scores[: len(pair[0])], scores[len(pair[0]) :]
    sides = {"default": sum(default) / len(default), "best": sum(chosen) / len(chosen)}
    recording.metrics({f"test/{side}_{search.score}": value for side, value in sides.items()})
    if len(default) > 1:
        test = stats.paired_t_test(default, chosen)
        recording.metrics({"test/difference": test.mean_difference, "test/difference_low": test.low})
        recording.metrics({"test/difference_high": test.high, "test/p": test.p, "test/n": test.n})
    build.record(build.load(found), recording)


def jobs(config: Config, chosen: Sequence[Mapping[str, Any]] | None = None) -> list[Job]:
    """Every job of the grid, or of the settings `chosen`, seed by seed, each Config checked."""
    settings = grid.settings(config.sweep) if chosen is None else chosen
    return grid.jobs(settings, parse_seeds(config.seeds), config.sizes())


def _finished() -> dict[str, Result]:
    """Every finished result of the experiment by its fingerprint, of several the newest, in two requests."""
    from w2s_mlflow.tracking import run_cache
    from w2s_mlflow.tracking.backend import server

    return {result.fingerprint: result for result in run_cache.finished(server.experiment().experiment_id)}


def contents(found: Sequence[Result], finished: Mapping[str, Result] | None = None) -> str:
    """What the tables of a grid hang on: the numbers and artifacts of its results, and the code of the tables.

    Args:
        finished: the finished results of the experiment by fingerprint; None asks for them.
    """
    finished = _finished() if finished is None else finished
    return build.parts(analyze.Config(), [finished.get(result.fingerprint, result) for result in found], {}).digest()


def find_completed(waiting: Sequence[Job]) -> Result | None:
    """The run of a grid of which nothing is left to be made, no result and no table; none of it damaged."""
    from w2s_mlflow.tracking import planning, results, session

    if session.current().reuse_since:
        return None
    with session.planning(_finished()) as plan:
        found = [job.run() for job in waiting]
    if plan.count(planning.REUSED) < len(plan.steps):
        return None
    return results.undamaged(CONTENTS, contents(found, plan.known), found)
