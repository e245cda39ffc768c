"""Where a study lies: a file in the scratch directory for the processes of one machine, or a database for those of several."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.exceptions import must
from w2s_mlflow.local import scratch

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

BEAT, SILENCE = 30, 120
"""Seconds between two of Optuna's heartbeats, and without one after which a trial of another machine is taken for dead."""


def check(url: str | None) -> None:
    """Raise ConfigError for a storage that no study should lie in. It is not asked whether it is there."""
    if url is None:
        return
    import sqlalchemy.exc

    rule = "the URL of a database server, such as postgresql+psycopg2://user@host/name"
    try:
        parts = sqlalchemy.make_url(url)  # what it takes for the password is the password
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise must("storage", rule, shown(url)) from None
    if not parts.drivername.startswith(("postgresql", "mysql")):
        raise must("storage", rule, shown(url))
    if parts.password is not None or any("pass" in name.lower() for name in parts.query):
        # It would stand in the run that `mlflow run` makes, and in the list of processes.
        raise must("storage", "without its password: set PGPASSWORD, or use ~/.pgpass", shown(url))


def shown(url: str) -> str:
    """A URL for people, without its password."""
    from w2s_mlflow.tracking.backend.error_messages import masked

    return repr(masked(url))


def opened(name: str, url: str | None, again: Callable[[optuna.Study, FrozenTrial], None]) -> BaseStorage:
    """The storage that `url` names; without one, the journal of the study of this name.

    Args:
        again: called with a trial of another machine whose heart is silent, once it is called failed.

    Raises:
        SQLAlchemyError, ImportError: the database cannot be reached, or its driver is missing.
    """
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if url is None:
        journal(name).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(journal(name))))
    import sqlalchemy.exc

    from w2s_mlflow.tracking.backend.database import TIMEOUTS

    driver = sqlalchemy.make_url(url).get_driver_name()
    how: dict[str, Any] = {"connect_args": TIMEOUTS.get(driver, {}), "pool_pre_ping": True}
    beats: dict[str, Any] = {"heartbeat_interval": BEAT, "grace_period": SILENCE, "heartbeat_stale_trial_callback": again}
    try:
        return RDBStorage(url, how, **beats)
    except (sqlalchemy.exc.ProgrammingError, sqlalchemy.exc.IntegrityError):  # another process has just made the tables
        return RDBStorage(url, how, **beats)


def journal(name: str) -> Path:
    """The file of a study on this machine alone."""
    return scratch.cache_path("studies") / f"{name}.log"


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Inside, Optuna does not warn that what is used of it, heartbeats, pruner or sampler, is new."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def heartbeat(study: optuna.Study, trial_ids: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Inside, a thread tells a database that these trials of this process live."""
    storage, stop = study._storage, threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            for trial_id in trial_ids():
                with contextlib.suppress(Exception):  # a database that does not answer is asked again next time
                    storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]

    thread = threading.Thread(target=beat, name="heartbeats of trials", daemon=True)
    if hasattr(storage, "record_heartbeat"):
        thread.start()
    try:
        yield
    finally:
        stop.set()
