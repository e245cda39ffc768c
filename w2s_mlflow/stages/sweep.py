"""Grids: a list of settings, drained one after the other, their shared inputs built once.

`sweeps/NAME.py` holds `SETTINGS`, a sequence of dictionaries: `stage` and that stage's options. Each setting is run for every
seed (once, where its stage has none). The parent run carries tables, figures and aggregates over seeds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from w2s_mlflow import config as options
from w2s_mlflow.config import ConfigError, must, unknown
from w2s_mlflow.stages import _gold, analyze

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
FOLDER = Path(__file__).parents[2] / "sweeps"


@dataclass(frozen=True, kw_only=True)
class Config:
    """A grid and its seeds."""

    sweep: str = "default"
    """A file of sweeps/ by its name, or the path of any such .py file."""
    seeds: str = "0..4"
    """Seeds, as a range `0..4` or a list `0,3,7`."""
    train_size: int | None = None
    """Rows of the training part for every setting; none takes each task's own."""
    test_size: int | None = None
    """Test rows for every setting; none takes each task's own."""

    def __post_init__(self) -> None:
        parse_seeds(self.seeds)
        settings(self.sweep)


class Job(NamedTuple):
    """One stage to run."""

    stage: str
    config: Any

    def run(self) -> Result:
        """Its result."""
        found: Result = options.plugin("stages", self.stage, "stage").run(self.config)
        return found


def run(config: Config) -> Result:
    """Drain the grid under a parent run, then analyse what it made. Raises ConfigError before the first job starts."""
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


def jobs(config: Config) -> list[Job]:
    """Every job of the grid, seed by seed, each Config checked."""
    sizes = {name: size for name in ("train_size", "test_size") if (size := getattr(config, name)) is not None}
    found: dict[str, Job] = {}
    for seed in parse_seeds(config.seeds):
        for setting in settings(config.sweep):
            job = _job(dict(setting) | sizes, seed)
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
    """The settings in `sweeps/NAME.py` or in the file NAME. Raises ConfigError where there is none."""
    path = _path(name)
    spec = importlib.util.spec_from_file_location("sweep_settings", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file is the user's: whatever is wrong with it is one sentence
        raise ConfigError(f"--sweep {name}: {path.name} cannot be read: {type(error).__name__}: {error}") from error
    if not getattr(module, "SETTINGS", None):
        raise ConfigError(f"--sweep {name}: {path.name} must define SETTINGS, a list of dictionaries")
    found: Sequence[Mapping[str, Any]] = module.SETTINGS
    return found


def parse_seeds(text: str) -> list[int]:
    """`0..4` or `0,3,7` as numbers. Raises ConfigError for anything else."""
    try:
        first, dots, last = text.partition("..")
        found = list(range(int(first), int(last) + 1)) if dots else [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 0 or len(set(found)) != len(found):
        raise must("seeds", "a range such as 0..4 or a list such as 0,3,7 of different whole numbers", repr(text))
    return found


def _path(name: str) -> Path:
    if name.endswith(".py"):
        if Path(name).is_file():
            return Path(name)
        raise ConfigError(f"--sweep must be the path of a file that exists, got {name!r}")
    known = {path.stem: path for folder in (FOLDER, Path("sweeps")) for path in sorted(folder.glob("*.py"))}
    if name not in known:
        raise unknown("--sweep", name, known)
    return known[name]


def _job(setting: dict[str, Any], seed: int) -> Job:
    stage = str(setting.pop("stage", "student"))
    kind = options.plugin("stages", stage, "stage").Config
    if any(field.name == "seed" for field in fields(kind)):
        setting.setdefault("seed", seed)
    return Job(stage, options.parse(kind, setting))
