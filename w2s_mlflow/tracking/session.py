"""The session: settings that apply whenever a result is requested. A `with` block can change them for the calls within it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from w2s_mlflow.tracking.planning import Plan
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")


@dataclass(frozen=True)
class Session:
    """Settings that apply whenever a result is requested."""

    plan: Plan | None = None
    """Plan to which requested results are added instead of being made. If None, the results are made."""
    reuse_since: int = 0
    """Earliest start time of runs that may be reused, in milliseconds since the epoch."""
    wait: bool = True
    """Whether to wait for a result that another process is making. If False, BusyError is raised instead."""
    progress: Callable[[str], None] = LOG.info
    """Callback for progress messages while waiting."""
    before_making: tuple[Callable[[], None], ...] = ()
    """Checks that must pass before a result is made. They are not called for results that are reused."""
    parent: str | None = None
    """Id of the parent run of new runs. If None, the run created by `mlflow run` is the parent, if there is one."""


_session: ContextVar[Session] = ContextVar("session", default=Session())  # noqa: B039  # frozen


def current() -> Session:
    """Return the current session."""
    return _session.get()


@contextlib.contextmanager
def changed(**values: Any) -> Iterator[Session]:
    """Change the given fields of the session within the block."""
    token = _session.set(replace(current(), **values))
    try:
        yield current()
    finally:
        _session.reset(token)


@contextlib.contextmanager
def planning(known: Mapping[str, Result] | None = None) -> Iterator[Plan]:
    """Yield a plan that collects the results requested within the block. Nothing is trained or written.

    Args:
        known: finished results by fingerprint, so that many results need not be looked up one by one.
    """
    from w2s_mlflow.tracking.planning import Plan

    plan = Plan(known=known or {})
    with changed(plan=plan):
        yield plan


def reuse_since(policy: str) -> int:
    """Return the value of `Session.reuse_since` for a value of the option `--reuse`.

    With `exact` all runs may be reused, with `never` only runs that start from now on.
    """
    return 0 if policy == "exact" else int(time.time() * 1000)
