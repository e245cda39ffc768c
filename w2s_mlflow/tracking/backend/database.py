"""Checks of the database behind a tracking URI, made before MLflow uses it.

MLflow creates missing tables in any database, even if the database belongs to another program or to an older MLflow version. It
creates the tables one after another, without a lock against other processes. This module therefore lets tables be created only
in empty databases, and only by one process at a time.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.store.db.base_sql_model import Base
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.dbmodels import initial_models
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from w2s_mlflow.display import masked
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking.backend.preflight import TIMEOUT, check_new_artifacts, lost_run, unwritable

PATIENCE = 20
"""Seconds to wait while another process has the database locked. MLflow uses the same timeout."""
ANOTHER = "name another database in MLFLOW_TRACKING_URI"
PACKAGES = {"MySQLdb": "mysqlclient", "psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""Names of the PyPI packages of database drivers, by module name. Drivers whose two names are equal are not listed."""
TIMEOUTS = {
    "psycopg": {"connect_timeout": TIMEOUT},
    "psycopg2": {"connect_timeout": TIMEOUT},
    "mysqldb": {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT},
    "pymysql": {"connect_timeout": TIMEOUT, "read_timeout": TIMEOUT},
}
"""Connection arguments, by driver, that limit how many seconds a database server may take to answer."""
LOCKS = {"postgresql": "SELECT pg_advisory_xact_lock(8239471)", "mysql": "SELECT GET_LOCK('w2s_mlflow', 2)"}
"""SQL statement, by dialect, that locks a database while tables are created. The lock is released when the connection ends. The
statement for MySQL waits for at most 2 seconds, which is less than the read timeout in TIMEOUTS. It returns 0 if another
process still has the lock."""

VERSIONS = "SELECT version_num FROM alembic_version"

State = Literal["ready", "empty", "incomplete"]


def prepare(uri: str) -> None:
    """Check that `uri` is a database of the installed MLflow version. If the database is empty, create MLflow's tables.

    Raises:
        ConfigError: the database is damaged, unreachable, or belongs to another program or MLflow version. Nothing is
            written to such a database.
    """
    url = sqlalchemy.make_url(uri)
    if url.get_backend_name() == "sqlite":
        _prepare_file(uri, url)
    else:
        _prepare_server(uri, url)


def _prepare_file(uri: str, url: sqlalchemy.URL) -> None:
    if url.host or url.database in (None, "", ":memory:"):
        raise ConfigError("the URI must name a file, such as sqlite:////data/mlflow.db")
    path = Path(str(url.database))
    _check_place(path)
    # The loop repeats if another process created the file, failed to fill it, and therefore removed it.
    while (state := _state_of_file(path)) == "empty":
        _check_filling(uri)
        _fill_file(path)
    _check_complete(state)


def _check_place(path: Path) -> None:
    folder = path.resolve().parent  # SQLite creates its journal next to the file itself, not next to a symbolic link
    if not folder.is_dir():
        raise ConfigError(f"the directory {folder} does not exist: create it, or {ANOTHER}")
    if reason := unwritable(folder):
        raise ConfigError(f"the directory {folder} is not writable ({reason}): {ANOTHER}")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a file: {ANOTHER}")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise ConfigError(f"this user cannot read and write the file {path}: change its permissions, or {ANOTHER}")


def _state_of_file(path: Path) -> State:
    if not path.exists():
        return "empty"
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE)) as database:
            state = _state(_tables(database), lambda: [row[0] for row in database.execute(VERSIONS)])
            if state == "ready":
                _write_ahead(database)
            return state
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise ConfigError(
                f"the file {path} is damaged or is not a database ({error}): restore a backup, or {ANOTHER}"
            ) from error
        raise


def _tables(database: sqlite3.Connection) -> set[str]:
    rows = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'")
    return {row[0] for row in rows}


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch the database to write-ahead logging (a permanent setting), so that readers do not block the writer."""
    if database.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        # The switch fails while other processes use the database. The next process that opens it tries again.
        with contextlib.suppress(sqlite3.OperationalError):
            database.execute("PRAGMA journal_mode=WAL")


def _fill_file(path: Path) -> None:
    """Create MLflow's tables in an empty database atomically, under an exclusive lock."""
    new, statements = not path.exists(), _statements()
    with contextlib.closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        try:
            if not _tables(database):
                for statement in statements:
                    database.execute(statement)
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            if new and path.stat().st_size == 0:
                path.unlink()
            raise


def _statements() -> list[str]:
    """Return the SQL statements that create MLflow's tables, dumped from a new database in memory."""
    store = SqlAlchemyStore("sqlite://", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
    with contextlib.closing(store.engine.raw_connection()) as connection:
        database = connection.driver_connection
        assert isinstance(database, sqlite3.Connection)
        statements = [line for line in database.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;")]
    # MLflow caches the engine of the store. If it were not disposed of, the next in-memory database would not be empty.
    store.engine.dispose()
    return statements


@contextlib.contextmanager
def setup_lock(url: str) -> Iterator[None]:
    """Lock the database at `url` while the block runs, so that only one process at a time creates tables in it.

    Raises:
        SQLAlchemyError, ImportError: the database cannot be reached, or its driver is missing.
    """
    with _engine(sqlalchemy.make_url(url)).connect() as connection:
        _lock(connection)
        yield


def _engine(url: sqlalchemy.URL) -> sqlalchemy.Engine:
    timeouts = TIMEOUTS.get(url.get_driver_name(), {})
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=timeouts)


def _lock(connection: sqlalchemy.Connection) -> None:
    if lock := LOCKS.get(connection.dialect.name):
        while connection.execute(sqlalchemy.text(lock)).scalar() == 0:  # MySQL returns 0 if another process has the lock
            pass


def _prepare_server(uri: str, url: sqlalchemy.URL) -> None:
    try:
        engine = _engine(url)
    except ImportError as error:
        package = PACKAGES.get(str(error.name), error.name)
        raise ConfigError(f"the Python package {package} is missing: install it with `pip install '{package}'`") from error
    with engine.connect() as connection:
        if _state_of_server(connection) == "ready":
            return
        # Another process may create the tables before this one gets the lock. The current transaction would not see these
        # tables, so it is ended here.
        connection.rollback()
        _lock(connection)
        state = _state_of_server(connection)
        if state == "empty":
            _check_filling(uri)
            mlflow.MlflowClient(uri)
        else:
            _check_complete(state)


def _state_of_server(connection: sqlalchemy.Connection) -> State:
    tables = set(sqlalchemy.inspect(connection).get_table_names())
    return _state(tables, lambda: list(connection.execute(sqlalchemy.text(VERSIONS)).scalars()))


def _state(tables: set[str], versions: Callable[[], list[str]]) -> State:
    """Return the state of a database. Raises ConfigError if MLflow cannot use the database.

    Args:
        tables: names of the database's tables.
        versions: function that reads the schema revisions from the table alembic_version; called only if this table exists.
    """
    revisions = set(versions()) if "alembic_version" in tables else set()
    others = tables - {"alembic_version"}
    known, newest = _revisions()
    if revisions == {newest}:
        return "ready"
    if not tables:
        return "empty"
    if revisions and revisions <= known:
        upgrade = f"mlflow db upgrade {masked(mlflow.get_tracking_uri())}"
        raise ConfigError(
            f"an older MLflow version created its tables (revision {', '.join(revisions)}): "
            f"back up the database and run `{upgrade}`, or {ANOTHER}"
        )
    if revisions and others >= set(initial_models.Base.metadata.tables):
        raise ConfigError(
            f"a newer MLflow version than the installed {mlflow.__version__} created its tables "
            f"(revision {', '.join(revisions)}): run `pip install --upgrade mlflow`, or {ANOTHER}"
        )
    if not revisions and others <= set(Base.metadata.tables):
        return "incomplete"
    raise ConfigError(
        f"it is the database of another program (it has the table {min(others, default='alembic_version')}): {ANOTHER}"
    )


@functools.cache
def _revisions() -> tuple[set[str], str | None]:
    """Return the set of all schema revisions that the installed MLflow knows, and the newest of them."""
    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return {script.revision for script in scripts.walk_revisions()}, scripts.get_current_head()


def _check_filling(uri: str) -> None:
    """Check that MLflow's tables may be created in the empty database at `uri`.

    Raises:
        ConfigError: MLFLOW_RUN_ID names a run, although an empty database has no runs; or artifacts could not be written.
    """
    if run_id := os.environ.get("MLFLOW_RUN_ID"):
        raise lost_run(uri, run_id)
    check_new_artifacts()


def _check_complete(state: State) -> None:
    if state == "incomplete":
        raise ConfigError(
            f"its tables are incomplete: if another process is creating them, try again; if that process was stopped, {ANOTHER}"
        )
