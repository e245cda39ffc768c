"""Storage of studies: a journal file in the scratch directory (one machine) or a database (several machines)."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.display import has_raw_password, masked
from w2s_mlflow.exceptions import must
from w2s_mlflow.local import scratch

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

BEAT, SILENCE = 30, 120
"""BEAT: seconds between two heartbeats of a trial. SILENCE: a trial of another machine counts as dead after this many seconds
without a heartbeat."""


def check(url: str | None) -> None:
    """Raise ConfigError for a storage URL that is not allowed. This does not connect to the database."""
    if url is None:
        return
    import sqlalchemy.exc

    rule = "the URL of a database server, such as postgresql+psycopg2://user@host/name"
    try:
        parts = sqlalchemy.make_url(url)  # SQLAlchemy finds the password wherever it is in the URL
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise must("storage", rule, quoted(url)) from None
    if not parts.drivername.startswith(("postgresql", "mysql")):
        raise must("storage", rule, quoted(url))
    if has_raw_password(url) or parts.password is not None or any("pass" in name.lower() for name in parts.query):
        # The password would be visible in the parameters of the run that `mlflow run` creates, and in the list of processes.
        raise must("storage", "a URL without a password (set PGPASSWORD, or use ~/.pgpass)", quoted(url))


def quoted(url: str) -> str:
    """Return the URL in quotes and with its password masked, for messages."""
    return repr(masked(url))


def open_storage(name: str, url: str | None, on_stale: Callable[[optuna.Study, FrozenTrial], None]) -> BaseStorage:
    """Open the storage at `url`; if `url` is None, open the journal file of the study `name`.

    Args:
        on_stale: callback for trials that Optuna has marked as failed because their heartbeat is stale.

    Raises:
        SQLAlchemyError, ImportError: the database cannot be reached, or its driver is missing.
    """
    from optuna.storages import JournalStorage, RDBStorage

    if url is None:
        from w2s_mlflow.search.journal import Journal

        scratch.make_directory(journal(name).parent)
        return JournalStorage(Journal(journal(name)))
    import sqlalchemy

    from w2s_mlflow.tracking.backend.database import TIMEOUTS, setup_lock

    driver = sqlalchemy.make_url(url).get_driver_name()
    engine_options: dict[str, Any] = {"connect_args": TIMEOUTS.get(driver, {}), "pool_pre_ping": True}
    heartbeat_options: dict[str, Any] = {
        "heartbeat_interval": BEAT,
        "grace_period": SILENCE,
        "heartbeat_stale_trial_callback": on_stale,
    }
    with setup_lock(url):  # Optuna fails if another process creates its tables at the same time
        return RDBStorage(url, engine_options, **heartbeat_options)


def journal(name: str) -> Path:
    """Return the path of a study's journal file on this machine."""
    return scratch.cache_path("studies") / f"{name}.journal"


@contextlib.contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress warnings, such as Optuna's warnings that its heartbeats, pruners and samplers are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def heartbeat(study: optuna.Study, trial_ids: Callable[[], Iterable[int]]) -> Iterator[None]:
    """Send heartbeats for the trials of this process, in a thread, until the block ends. If the storage is a file, send none.

    Args:
        trial_ids: function that returns the storage ids of the trials that are running in this process.
    """
    storage, stop = study._storage, threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            for trial_id in trial_ids():
                with contextlib.suppress(Exception):  # if this heartbeat fails, the next one may succeed
                    storage.record_heartbeat(trial_id)  # type: ignore[attr-defined]

    thread = threading.Thread(target=beat, name="heartbeats of trials", daemon=True)
    if hasattr(storage, "record_heartbeat"):
        thread.start()
    try:
        yield
    finally:
        stop.set()
