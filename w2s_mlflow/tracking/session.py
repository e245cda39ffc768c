"""The session: how results are asked for at present, in one object that a block of code may change for what it calls."""

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
    """How results are asked for."""

    plan: Plan | None = None
    """Where results are noted instead of made; None where they are made."""
    reuse_since: int = 0
    """Runs that started before this moment, in milliseconds, are not reused."""
    wait: bool = True
    """Whether a result that another process makes is waited for; else BusyError is raised."""
    progress: Callable[[str], None] = LOG.info
    """Is told what is waited for."""
    parent: str | None = None
    """The id of the run under which new runs are filed; None: the launcher's, if there is one."""


_session: ContextVar[Session] = ContextVar("session", default=Session())  # noqa: B039  # it is frozen


def current() -> Session:
    """The session in force."""
    return _session.get()


@contextlib.contextmanager
def changed(**values: Any) -> Iterator[Session]:
    """Inside, the fields of the session that are named have these values."""
    token = _session.set(replace(current(), **values))
    try:
        yield current()
    finally:
        _session.reset(token)


@contextlib.contextmanager
def planning(known: Mapping[str, Result] | None = None) -> Iterator[Plan]:
    """Inside, stages only note what they would do: nothing is trained or written.

    Args:
        known: finished results by fingerprint, where many are asked for: they are then not looked up one by one.
    """
    from w2s_mlflow.tracking.planning import Plan

    plan = Plan(known=known or {})
    with changed(plan=plan):
        yield plan


def reuse_since(policy: str) -> int:
    """The value of `reuse_since` under `--reuse`: `exact` reuses all finished runs, `never` those that start from now on."""
    return 0 if policy == "exact" else int(time.time() * 1000)
