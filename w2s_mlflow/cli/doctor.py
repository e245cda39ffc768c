"""Checks of this machine and of the tracking server for the command `doctor`.

As for any command, the database and the experiment are created if they do not exist. Nothing else is changed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from w2s_mlflow import __version__, models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import disk, scratch

OK, WARNING, ERROR = "ok", "warning", "error"
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


@dataclass(frozen=True)
class Check:
    """One line of the report: what was checked, the state (OK, WARNING or ERROR), what was found, and what to do about it."""

    check: str
    state: str
    found: str
    advice: str = ""


def all_checks(*, data: bool) -> Iterator[Check]:
    """Check everything, the machine first.

    Args:
        data: whether to load the data of each task, which takes minutes.
    """
    for check in (_versions, _threads, _scratch, _temporary, _models):
        yield check()
    yield _tasks() if data else Check("tasks", OK, "not checked", "python -m w2s_mlflow doctor --data")
    yield from _store()


def _store() -> Iterator[Check]:
    from w2s_mlflow.tracking import diagnosis

    for name, step in diagnosis.STEPS.items():
        try:
            finding = step()
        except ConfigError as error:
            yield Check(name, ERROR, str(error), "the other checks of the store need this one" if name == "store" else "")
            if name == "store":
                return
        else:
            yield Check(name, WARNING if finding.advice else OK, finding.found, finding.advice)


def _versions() -> Check:
    """Compare the installed packages with constraints.txt, which a checkout has and an installed package does not."""
    if not CONSTRAINTS.is_file():
        return Check("versions", OK, f"w2s_mlflow {__version__}; there is no constraints.txt to compare with")
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text(encoding="utf-8").split() if "==" in line)
    differ = []
    for name, pinned in pins.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed = importlib.metadata.version(name).partition("+")[0]
            if installed != pinned:
                differ.append(f"{name} {installed} (pinned: {pinned})")
    if not differ:
        return Check("versions", OK, "the installed packages are those of constraints.txt")
    more = f" and {len(differ) - 5} more" if len(differ) > 5 else ""
    return Check("versions", WARNING, ", ".join(differ[:5]) + more, "pip install -e . -c constraints.txt")


def _threads() -> Check:
    asked, cpus = os.environ.get("OMP_NUM_THREADS", ""), _cpus()
    found = f"{cpus:g} CPUs for this process, OMP_NUM_THREADS is {asked or 'not set'}"
    # Torch starts as many threads as the machine has cores, even if a container may use fewer of them.
    started = int(asked) if asked.isdigit() else os.cpu_count() or 1
    if started > max(1.0, cpus):
        return Check(
            "threads", WARNING, f"{found}: torch starts {started} threads", f"export OMP_NUM_THREADS={max(1, int(cpus))}"
        )
    return Check("threads", OK, found)


def _cpus() -> float:
    """Return the number of CPUs that this process may use, limited by its affinity and its control group."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # `max 100000` means that there is no limit
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, int(quota) / int(period))
    return count


def _scratch() -> Check:
    try:
        directory = scratch.cache_path("")
    except ConfigError as error:  # it belongs to another user
        return Check("scratch directory", ERROR, str(error), "set W2S_SCRATCH to another directory")
    return _directory("scratch directory", directory, "set W2S_SCRATCH to another directory")


def _temporary() -> Check:
    return _directory("temporary files", Path(tempfile.gettempdir()), "set TMPDIR to another directory")


def _directory(name: str, directory: Path, advice: str) -> Check:
    try:
        free = disk.free(directory)
    except OSError as error:
        return Check(name, ERROR, f"{directory} cannot be written: {error.strerror}", advice)
    found = f"{directory}, {free / 1e9:.1f} GB free"
    return Check(name, OK, found) if free >= disk.FREE else Check(name, WARNING, found, f"free some space, or {advice}")


def _models() -> Check:
    """Count the models whose configuration is on this machine. Nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    specs = list(models.all_specs())
    missing = [spec.name for spec in specs if spec.source and not isinstance(_cached(try_to_load_from_cache, spec.source), str)]
    found = f"{len(specs) - len(missing)} of {len(specs)} named models are on this machine"
    if missing:
        found += f"; from the hub when needed: {', '.join(missing)}"
    return Check("models", OK, found)


def _cached(look_up: Callable[[str, str], object], source: str) -> object:
    path = Path(source)
    return str(path) if path.exists() else look_up(source, "config.json")


def _tasks() -> Check:
    from w2s_mlflow.cli import catalog

    try:
        rows = list(catalog.check_tasks(None))
    except ConfigError as error:
        return Check("tasks", ERROR, str(error), "replace the damaged file")
    missing = [str(row["task"]) for row in rows if row["rows"] is None]
    found = f"the data of {len(rows) - len(missing)} of {len(rows)} tasks is found"
    if missing:
        return Check(
            "tasks", WARNING, f"{found}; not of {', '.join(missing)}", "set W2S_DATA_DIR to a mirror (docs/reference/tasks.md)"
        )
    return Check("tasks", OK, found)
