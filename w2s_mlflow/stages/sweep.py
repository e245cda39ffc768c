"""Grids and searches: what a file of sweeps/ says is run, shared inputs built once, and what came of it is analysed.

`sweeps/NAME.py` holds either `SETTINGS`, a sequence of dictionaries, `stage` and that stage's options: each setting is run for
every seed (once, where its stage has none); or `space(trial)`, from which Optuna draws the options of `--trials` trials; the
best of them and the default setting are then scored on `test` for every seed. The parent run carries tables, figures and
aggregates over seeds.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

from w2s_mlflow import config as options
from w2s_mlflow.config import must, unknown
from w2s_mlflow.stages import _gold, _search, _study, _sweep_file, analyze
from w2s_mlflow.stages._sweep_file import parse_seeds as parse_seeds

if TYPE_CHECKING:
    from w2s_mlflow.stages._search import Search
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
TRIALS = 20
SEARCH_SEEDS = "1000,1001"
OF_SEARCHES = ("trials", "search_seeds", "objective", "sampler")


@dataclass(frozen=True, kw_only=True)
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
    trials: int | None = None
    """Of a search: how many finished trials its study is brought to; none takes 20."""
    search_seeds: str | None = None
    """Of a search: the seeds that each trial is the mean of, none of them in --seeds; none takes 1000,1001."""
    objective: str | None = None
    """Of a search: agreement with the weak labels, which may tune rates and epochs only; proxy, the accuracy on the settings
    PROXY of its file; oracle, that on the task itself; none takes the file's."""
    sampler: str | None = None
    """Of a search: tpe or random; none takes tpe."""

    def __post_init__(self) -> None:
        seeds, module = parse_seeds(self.seeds), _sweep_file.read(self.sweep)
        if hasattr(module, "SETTINGS"):
            if given := [
                name for name in ("trials", "search_seeds", "objective", "sampler") if getattr(self, name) is not None
            ]:
                raise must(given[0], f"left out for {self.sweep}, which is a grid", getattr(self, given[0]))
            return
        self.search()
        if self.trials is not None and self.trials < 1:
            raise must("trials", "at least 1", self.trials)
        if self.sampler not in (*_study.SAMPLERS, None):
            raise unknown("--sampler", self.sampler, _study.SAMPLERS)
        if shared := sorted(set(seeds) & set(self.trial_seeds())):
            rule = "seeds that are not in --seeds, on which the best setting is held against the default"
            raise must("search_seeds", rule, shared[0])

    def search(self) -> Search | None:
        """The search in the file; None for a grid. Raises ConfigError for one that is incomplete."""
        module = _sweep_file.read(self.sweep)
        if hasattr(module, "SETTINGS"):
            return None
        file = _sweep_file.path(self.sweep)
        return _search.of(file.stem, module, file.read_text(encoding="utf-8"), self.objective)

    def trial_seeds(self) -> list[int]:
        """The seeds that each trial is the mean of."""
        return parse_seeds(self.search_seeds or SEARCH_SEEDS, "search_seeds")

    def sizes(self) -> dict[str, int]:
        """The sizes that are given."""
        return {name: size for name in ("train_size", "test_size") if (size := getattr(self, name)) is not None}


class Job(NamedTuple):
    """One stage to run."""

    stage: str
    config: Any

    def run(self) -> Result:
        """Its result."""
        found: Result = options.plugin("stages", self.stage, "stage").run(self.config)
        return found


def run(config: Config) -> Result:
    """Drain the grid, or search, under a parent run; analyse what it made. Raises ConfigError before the first job starts."""
    search = config.search()
    return _searched(config, search) if search else _drained(config)


def _drained(config: Config) -> Result:
    from w2s_mlflow.tracking import planned, recorder, results

    waiting, name = jobs(config), f"sweep {config.sweep}"
    if plan := planned.current():
        for job in waiting:
            job.run()
        return plan.placeholder(name, "sweep")
    note = f"The grid `{config.sweep}` over seeds {config.seeds}: its runs are below, its tables among the artifacts."
    with recorder.parent(name, "sweep", options.flat(config), note) as recording:
        found = drain(waiting)
        recording.json("runs.json", sorted({result.run_id for result in found}))
        analyze.record(analyze.load(found), recording)
    reused = sum(result.reused for result in found)
    LOG.info("%d results, %d of them reused", len(found), reused)
    return results.get(recording.run_id)


def _searched(config: Config, search: Search) -> Result:
    """Bring the study to its trials; then `test` is read once, for the best setting beside the default."""
    from w2s_mlflow.tracking import planned, recorder, results

    def configs(given: Mapping[str, Any]) -> list[Any]:
        return _search.configs(search, given, config.trial_seeds(), config.sizes())

    for one in configs({}):
        _gold.cut(one.resolved())  # what cannot be cut ends here, before any run starts
    name, trials, seed = f"sweep {config.sweep}", config.trials or TRIALS, config.trial_seeds()[0]
    study_name = _study_name(config, search)
    *waiting, best = _study.rehearsed(search, study_name, trials)
    of_trials = [Job(search.stage, one) for given in waiting for one in configs(given)]  # what cannot be run ends here, too
    if plan := planned.current():
        for job in [*of_trials, *_chosen(config, search, {}), *_chosen(config, search, best)]:
            job.run()
        return plan.placeholder(name, "sweep")
    note = f"The search `{search.name}`, objective `{search.objective}`: its trials and their runs are below."
    with recorder.parent(name, "sweep", options.flat(config) | {"study": study_name}, note) as recording:
        study = _study.opened(search, study_name)
        with _quiet():
            _study.run_trials(study, search, configs, trials, config.sampler or _study.SAMPLERS[0], seed)
        best = _study.best(study)
        command = _search.command(search, best)
        _study.draw(study, search, recording.directory / "search")
        recording.metrics({"search/objective": study.best_value, "search/looks": _study.looks(study, search)})
        recording.params({f"best_{name}": value for name, value in best.items()})
        recording.text("search/best.txt", command + "\n")
        recording.tags["w2s.objective"] = search.objective
        recording.note(f"{note}\n\nThe best setting, by {search.objective}: `{command}`")
        _compare(config, search, best, recording)
    LOG.info("best by %s: %s", search.objective, command)
    return results.get(recording.run_id)


def _study_name(config: Config, search: Search) -> str:
    """A study's name holds all that its values hang on: the space, the objective, the store, and the fingerprints of what a
    trial with the default options is made of, so that other data, code or libraries are another study, too."""
    from w2s_mlflow.tracking import planned, server

    with planned.planning() as plan:
        for one in _search.configs(search, {}, config.trial_seeds(), config.sizes()):
            Job(search.stage, one).run()
    store = {"uri": server.where(), "experiment": server.experiment().experiment_id}
    return search.study(store | {"sampler": config.sampler, "fingerprints": sorted(plan.steps)})


def _chosen(config: Config, search: Search, given: Mapping[str, Any]) -> list[Job]:
    """The jobs of one setting of what is tuned, a seed each."""
    return jobs(config, [{"stage": search.stage, **search.tuned, **given}])


def _compare(config: Config, search: Search, best: Mapping[str, Any], recording: Recorder) -> None:
    """The best setting beside the default over fresh seeds, on `test`, paired by seed."""
    from w2s_mlflow import stats

    pair = _chosen(config, search, {}), _chosen(config, search, best)
    found = drain([*pair[0], *pair[1]])
    default, chosen = ([job.run().metrics["test/accuracy"] for job in side] for side in pair)
    recording.metrics({"test/default_accuracy": sum(default) / len(default), "test/best_accuracy": sum(chosen) / len(chosen)})
    if len(default) > 1:
        test = stats.paired_t_test(default, chosen)
        recording.metrics({"test/difference": test.mean_difference, "test/difference_low": test.low})
        recording.metrics({"test/difference_high": test.high, "test/p": test.p, "test/n": test.n})
    analyze.record(analyze.load(found), recording)


def jobs(config: Config, chosen: Sequence[Mapping[str, Any]] | None = None) -> list[Job]:
    """Every job of the grid, or of the settings `chosen`, seed by seed, each Config checked."""
    found: dict[str, Job] = {}
    for seed in parse_seeds(config.seeds):
        for setting in settings(config.sweep) if chosen is None else chosen:
            job = _job(dict(setting) | config.sizes(), seed)
            _gold.cut(job.config.resolved())  # sizes that a task does not have end here, before any run starts
            found.setdefault(options.canonical_json([job.stage, options.as_dict(job.config)]), job)
    return list(found.values())


def drain(waiting: Sequence[Job]) -> list[Result]:
    """Run the jobs one after the other, with a progress bar that shows the time left.

    A job that needs what another process is making is put off; only when all that are left need such is one waited for.
    """
    from tqdm import tqdm

    from w2s_mlflow.tracking import store

    found: list[Result] = []
    queue, put_off = deque(waiting), 0
    with _quiet(), tqdm(total=len(queue), unit="run", dynamic_ncols=True) as bar:
        while queue:
            job = queue.popleft()
            bar.set_description_str(job.stage)
            all_busy = put_off > len(queue)
            try:
                with store.waiting(bar.set_description_str) if all_busy else store.deferring():
                    found.append(job.run())
            except store.BusyError:
                queue.append(job)
                put_off += 1
                continue
            put_off = 0
            bar.update()
            bar.set_postfix_str(found[-1].name, refresh=False)
    return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The bar speaks for the stages while it moves."""
    level = LOG.level
    LOG.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOG.setLevel(level)


def settings(name: str) -> Sequence[Mapping[str, Any]]:
    """The settings of a grid. Raises ConfigError where the file is none."""
    found: Sequence[Mapping[str, Any]] = _sweep_file.read(name).SETTINGS
    return found


def _job(setting: dict[str, Any], seed: int) -> Job:
    stage = str(setting.pop("stage", "student"))
    kind = options.plugin("stages", stage, "stage").Config
    if any(field.name == "seed" for field in fields(kind)):
        setting.setdefault("seed", seed)
    return Job(stage, options.parse(kind, setting))
