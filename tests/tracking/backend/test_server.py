"""The server and the experiment in use: what is said where they cannot be used, and what is left untouched then."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import pwd
import shutil
import socket
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from uuid import uuid4

import mlflow
import pytest
import requests
import sqlalchemy
from mlflow.exceptions import MlflowException, RestException

import w2s_mlflow
from tests import servers
from tests.conftest import SMALL, runs
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.stages import supervisor
from w2s_mlflow.tracking.backend import database, preflight, server

Use = Callable[..., None]
NOBODY = "a" * 32
"""A run that is nowhere."""
NEWER, OLDER = "ffffffffffff", "451aebb31d03"
"""A revision of MLflow's tables that is not known, and its first."""
PROCESSES = 8


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Use]:
    """A function that makes a URI, and MLflow's other settings given by name, those in use."""
    monkeypatch.chdir(tmp_path)
    settings = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")

    def change(uri: str, **given: str) -> None:
        for name in settings:
            monkeypatch.delenv(name, raising=False)
        for name, value in {"MLFLOW_TRACKING_URI": uri, **given}.items():
            monkeypatch.setenv(name, value)
        server.forget()

    yield change
    server.forget()


@pytest.fixture
def store(tracking_uri: str, use: Use, tmp_path: Path) -> Path:
    """A copy of MLflow's database, in one file."""
    use(tracking_uri)
    server.client()
    path = tmp_path / "copy.db"
    with contextlib.closing(sqlite3.connect(tracking_uri.removeprefix("sqlite:///"))) as source, opened(path) as copy:
        source.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
    return path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A database, committed and closed at the end."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def refused(find: Callable[[], object] = server.client) -> str:
    """The sentence with which the settings in use are refused."""
    with pytest.raises(ConfigError) as caught:
        find()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every file in a directory with what is in it, and every directory."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


def schema(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """By table or index: the lines that make it, sorted, as MLflow orders its constraints anew each time."""
    found = connection.execute("SELECT name, sql FROM sqlite_master")
    return {name: sorted(line.strip(" ,") for line in str(sql).splitlines()) for name, sql in found}


# --- servers ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def answering(*answers: tuple[int, str, str]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers (status, type, body), the last one for ever; its URI and the paths asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path.partition("?")[0])
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "Retry-After": "100"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://ann:secret@127.0.0.1:{listening.server_port}", asked
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, "text/plain", "oops"), "it answers with status 500 Internal Server Error: see the server's log"),
        ((503, "text/html", "<html>"), "it answers with status 503 Service Unavailable: see the server's log"),
        ((404, "text/html", "<html>"), "it answers with status 404 Not Found: check the address"),
        ((401, "text/plain", ""), "it answers with status 401 Unauthorized: set MLFLOW_TRACKING_USERNAME"),
        ((403, "text/plain", ""), "it answers with status 403 Forbidden: set MLFLOW_TRACKING_USERNAME"),
        ((200, "text/html", "<html>"), "it is not an MLflow server (it answers with text/html): check the address"),
        ((200, "application/json", '{"status": "ok"}'), "it is not an MLflow server (it answers with application/json)"),
        ((200, "application/json", "[]"), "it is not an MLflow server (it answers with application/json)"),
    ],
)
def test_a_server_that_answers_amiss_is_asked_once(use: Use, answer: tuple[int, str, str], said: str) -> None:
    with answering(answer) as (uri, asked):
        use(uri)
        found = refused()
    assert found.startswith(f"the tracking server {uri.replace('secret', '***')} cannot be used: {said}")
    assert asked == ["/api/2.0/mlflow/experiments/search"]


def test_a_good_server_is_asked_once_and_then_with_mlflow_s_own_settings(use: Use) -> None:
    experiment = '{"experiment": {"experiment_id": "0", "name": "Default"}}'
    good, down = (200, "application/json", "{}"), (500, "text/plain", "")
    with answering(good, down, (200, "application/json", experiment)) as (uri, asked):
        use(uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER="false")
        client = server.client()
        assert len(asked) == 1
        assert client.get_experiment("0").name == "Default"
        assert asked[1:] == ["/api/2.0/mlflow/experiments/get"] * 2


def test_a_server_that_wants_to_be_asked_less_often_is_left_to_mlflow_s_own_settings(use: Use) -> None:
    with answering((429, "text/plain", "")) as (uri, _):
        use(uri)
        server.client()


def test_a_server_out_of_reach_is_one_sentence(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use("http://127.0.0.1:9")
    assert (
        "http://127.0.0.1:9 cannot be used: Failed to establish a new connection: [Errno 111] Connection refused" in refused()
    )
    use("http://no.such.host.invalid")
    assert "Failed to resolve 'no.such.host.invalid'" in refused()
    use("http://")
    assert "the URI must name a host" in refused()
    monkeypatch.setattr(preflight, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "Read timed out. (read timeout=0.1) (start the server, or correct MLFLOW_TRACKING_URI)" in refused()


def test_the_password_is_not_in_what_the_network_says(use: Use) -> None:
    use("http://ann:se/cret@127.0.0.1:9")
    assert "http://ann:***@127.0.0.1:9 cannot be used: its user or password contains `/`" in refused()
    assert "cret" not in refused()
    uri = "postgresql://ann:a secret@db.example/w2s"
    use(uri)
    assert server.sentence(ValueError(f"no {uri} here")) == "no postgresql://ann:***@db.example/w2s here"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ann:secret@db.example/w2s", "postgresql://ann:***@db.example/w2s"),
        ("http://ann:secret@db.example:5000/path", "http://ann:***@db.example:5000/path"),
        ("http://ann:s%40c%2Fr@db.example", "http://ann:***@db.example"),
        ("postgresql+psycopg2://ann:s/c@r:e t@db.example:5432/w2s", "postgresql+psycopg2://ann:***@db.example:5432/w2s"),
        (
            "mysql://db.example/w2s?user=ann&password=secret&charset=utf8",
            "mysql://db.example/w2s?user=ann&password=***&charset=utf8",
        ),
        ("http://db.example:5000", "http://db.example:5000"),
        ("sqlite:////data/a:b@c/mlflow.db", "sqlite:////data/a:b@c/mlflow.db"),
    ],
)
def test_a_password_is_never_shown(use: Use, uri: str, shown: str) -> None:
    use(uri)
    assert server.where() == shown


# --- databases -------------------------------------------------------------------------------------------------------


def test_a_new_database_is_mlflow_s_own_with_a_write_ahead_log(use: Use, tmp_path: Path) -> None:
    path = tmp_path / "my place" / "ours.db"  # an empty file, as good as none, and a space in its path
    path.parent.mkdir()
    path.touch()
    use(f"sqlite:///{path}")
    assert server.client().get_experiment("0").artifact_location == f"{tmp_path}/mlruns/0"
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.store.db.utils._initialize_tables(engine)  # type: ignore[no-untyped-call]
    engine.dispose()
    with opened(path) as ours, opened(tmp_path / "mlflow.db") as theirs:
        assert ours.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert schema(ours) == schema(theirs) != {}


@pytest.mark.parametrize("there", [False, True])
def test_a_database_is_filled_wholly_or_not_at_all(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        (tmp_path / "mlflow.db").touch()
    before = contents(tmp_path)
    monkeypatch.setattr(database, "_statements", lambda: ["CREATE TABLE experiments (x)", "CREATE TABLE experiments (x)"])
    use("sqlite:///mlflow.db")
    assert refused().endswith("table experiments already exists")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_file_that_was_taken_away_while_it_was_filled_is_filled_again(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fill = tmp_path / "mlflow.db", database._fill_file

    def stopped(path: Path) -> None:
        monkeypatch.setattr(database, "_fill_file", fill)

    monkeypatch.setattr(database, "_fill_file", stopped)
    use(f"sqlite:///{path}")
    server.client()
    with opened(path) as made:
        assert made.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_damaged_files_are_refused_and_left_alone(use: Use, tmp_path: Path, store: Path) -> None:
    whole = store.read_bytes()
    for name, content in {
        "random": os.urandom(9000),
        "text": b"not a database",
        "start": whole[:50],
        "page": whole[:4096],
        "half": whole[: len(whole) // 2],
        "tail": whole[:-4096],
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        before = contents(tmp_path)
        use(f"sqlite:///{path}")
        assert f"the file {path} is damaged or is not a database" in refused()
        assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("CREATE TABLE users (x)", "it is the database of another program (it has the table users)"),
        (
            "CREATE TABLE users (x); CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('f00')",
            "it is the database of another program (it has the table users)",
        ),
        (
            "CREATE TABLE alembic_version (version_num); INSERT INTO alembic_version VALUES ('f00')",
            "it is the database of another program (it has the table alembic_version)",
        ),
        ("CREATE TABLE experiments (x)", "its tables are incomplete"),
        ("CREATE TABLE alembic_version (version_num)", "its tables are incomplete"),
    ],
)
def test_the_database_of_another_program_gets_no_tables(use: Use, tmp_path: Path, script: str, said: str) -> None:
    path = tmp_path / "theirs.db"
    with opened(path) as theirs:
        theirs.executescript(script)
    before = contents(tmp_path)
    use(f"sqlite:///{path}")
    assert refused().startswith(f"the tracking server sqlite:///{path} cannot be used: {said}")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            f"UPDATE alembic_version SET version_num = '{NEWER}'",
            f"a newer MLflow version than the installed {mlflow.__version__} created its tables (revision {NEWER})",
        ),
        (
            f"UPDATE alembic_version SET version_num = '{OLDER}'",
            f"an older MLflow version created its tables (revision {OLDER}): back up the database and run `mlflow db upgrade",
        ),
        (
            f"UPDATE alembic_version SET version_num = '{OLDER}'; DROP TABLE jobs",
            f"an older MLflow version created its tables (revision {OLDER})",
        ),
        ("DELETE FROM alembic_version", "its tables are incomplete"),
    ],
)
def test_the_database_of_another_mlflow_is_not_changed(use: Use, tmp_path: Path, store: Path, script: str, said: str) -> None:
    with opened(store) as copy:
        copy.executescript(script)
    before = contents(tmp_path)
    use(f"sqlite:///{store}")
    assert said in refused()
    assert contents(tmp_path) == before


def test_a_place_where_nothing_can_be_written_is_one_sentence(use: Use, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    before = contents(tmp_path)
    for path, said in {
        "/proc/mlflow.db": "the directory /proc is not writable (",
        "/sys/mlflow.db": "the directory /sys is not writable (",
        f"{tmp_path}/none/mlflow.db": f"the directory {tmp_path}/none does not exist: create it",
        f"{tmp_path}/file/mlflow.db": f"the directory {tmp_path}/file does not exist: create it",
        f"{tmp_path}": f"{tmp_path} is not a file",
    }.items():
        use(f"sqlite:///{path}")
        assert refused().startswith(f"the tracking server sqlite:///{path} cannot be used: {said}")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("nonsense://here", "the scheme of MLFLOW_TRACKING_URI must be one of databricks,"),
        ("postgres://ann@here/w2s", "got 'postgres' (did you mean postgresql?)"),
        ("mlruns", "MLflow no longer stores runs in a directory: set MLFLOW_TRACKING_URI"),
        ("./mlruns", "MLflow no longer stores runs in a directory: set MLFLOW_TRACKING_URI"),
        ("file:///data/mlruns", "MLflow no longer stores runs in a directory: set MLFLOW_TRACKING_URI"),
        ("sqlite://", "the URI must name a file"),
        ("sqlite:///:memory:", "the URI must name a file"),
        ("sqlite://data/mlflow.db", "the URI must name a file"),
        ("sqlite:mlflow.db", "Could not parse"),
        ("mysql+pymysql://ann:secret@127.0.0.1:9/w2s", "the Python package pymysql is missing: install it with `pip install"),
        ("postgresql+psycopg://127.0.0.1:9/w2s", "the Python package psycopg[binary] is missing: install it with `pip install"),
    ],
)
def test_a_uri_that_leads_nowhere_is_one_sentence(
    use: Use, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, said: str
) -> None:
    for driver in ("pymysql", "psycopg"):
        monkeypatch.setitem(sys.modules, driver, None)  # as if it were not installed
    use(uri)
    assert refused().startswith(f"the tracking server {server.where()} cannot be used: ") and said in refused()
    assert contents(tmp_path) == {}


@pytest.mark.slow
def test_an_unprivileged_user_is_told_what_may_not_be_written(store: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # not below pytest's directories, which root keeps to itself
        directory = Path(name)
        for place, mode in {"closed": 0o555, "open": 0o777}.items():
            (directory / place).mkdir()
            shutil.copy(store, directory / place / "mlflow.db")
            (directory / place / "mlflow.db").chmod(0o444)
            (directory / place).chmod(mode)
        directory.chmod(0o755)
        before = contents(directory)
        said = in_processes(1, ask_as_nobody, f"sqlite:///{store}", directory)[0].splitlines()
        assert contents(directory) == before
        (directory / "closed").chmod(0o777)
    assert [line.partition(" cannot be used: ")[2].rpartition(": ")[0] for line in said] == [
        f"the directory {directory}/closed is not writable (Permission denied)",
        f"the directory {directory}/closed is not writable (Permission denied)",
        f"this user cannot read and write the file {directory}/open/mlflow.db",
        f"the artifacts of new experiments would be stored in {directory}/closed/mlruns, "
        "which is not writable (Permission denied)",
    ]


def ask_as_nobody(good: str, directory: Path) -> str:
    """What is said of databases in a directory that is closed and one that is open, to a user who is not root."""
    os.environ["MLFLOW_TRACKING_URI"] = good
    server.experiment()  # loads all that there is to load, which may lie where only root can read
    os.chdir(directory / "closed")
    if os.getuid() == 0:
        user = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    said = []
    for path in ("closed/mlflow.db", "closed/new.db", "open/mlflow.db", "open/new.db"):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{directory}/{path}"
        server.forget()
        said.append(refused())
    return "\n".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["new", "Default"])
def test_processes_that_start_at_once_on_an_empty_place_all_succeed(tmp_path: Path, name: str) -> None:
    assert len(set(start_at_once(f"sqlite:///{tmp_path}/mlflow.db", name))) == 1
    with opened(tmp_path / "mlflow.db") as made:
        assert made.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert made.execute("SELECT count(*) FROM runs").fetchone() == (PROCESSES,)


@pytest.mark.server
def test_postgresql_is_filled_once_by_all_who_start_and_left_alone_where_it_is_another_s(use: Use) -> None:
    pytest.importorskip("psycopg2")
    with servers.postgresql() as uri:
        assert len(set(start_at_once(uri, "new"))) == 1
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE SCHEMA theirs CREATE TABLE users (x int)"))
        use(f"{uri}?options=-csearch_path%3Dtheirs")
        assert "it is the database of another program (it has the table users)" in refused()
        assert sqlalchemy.inspect(engine).get_table_names("theirs") == ["users"]
        use(uri.replace("/postgres", "/none"))
        assert refused().endswith('FATAL:  database "none" does not exist')


def start_at_once(uri: str, experiment: str) -> list[str]:
    """The experiment's id in each of several processes that find their way at the same time, and make a run there."""
    return in_processes(PROCESSES, start, uri, experiment)


def start(uri: str, experiment: str) -> str:
    """One of the processes."""
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": experiment}
    id_ = server.experiment().experiment_id
    server.client().create_run(id_)
    return id_


def in_processes(number: int, job: Callable[..., str], *arguments: object) -> list[str]:
    """What a job gives in new processes that begin it together; an error is given as its text."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["w2s_mlflow.tracking.backend.database"])
    barrier, answers = context.Barrier(number), context.Queue()
    line = barrier, answers, job, *arguments
    processes = [context.Process(target=answer, args=line, daemon=True) for _ in range(number)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=servers.DEADLINE) for _ in processes]
    for process in processes:
        process.join()
    return found


def answer(barrier: Barrier, answers: Queue[str], job: Callable[..., str], *arguments: object) -> None:
    """Put what the job gives into the queue, when everyone is there."""
    barrier.wait(servers.DEADLINE)
    try:
        answers.put(job(*arguments))
    except BaseException as error:
        answers.put(f"{os.getpid()}: {error!r}")


# --- experiments and runs --------------------------------------------------------------------------------------------


def test_an_experiment_is_marked_as_model_training_of_this_version(experiment: str) -> None:
    marks = {
        "mlflow.experimentKind": "custom_model_development",
        "w2s.schema_version": "1",
        "w2s.version": w2s_mlflow.__version__,
    }
    assert server.experiment().name == experiment
    assert server.experiment().tags == marks
    server.forget()
    assert server.experiment().tags == marks


def test_an_experiment_of_others_is_marked_on_first_use(experiment: str) -> None:
    id_ = server.client().create_experiment(experiment, tags={"theirs": "kept", "w2s.version": "0.0.1"})
    assert server.experiment().experiment_id == id_
    assert server.experiment().tags.items() >= {"theirs": "kept", "w2s.schema_version": "1", "w2s.version": "0.0.1"}.items()


@pytest.mark.parametrize("version", ["2", "1.5", "new"])
def test_an_experiment_of_a_newer_version_is_refused(experiment: str, version: str) -> None:
    tags = {"w2s.schema_version": version, "w2s.version": "9.0"}
    id_ = server.client().create_experiment(experiment, tags=tags)
    found = refused(server.experiment)
    assert f"the experiment {experiment!r} at {server.where()} needs w2s_mlflow 9.0 (schema version {version})" in found
    assert found.endswith("upgrade w2s_mlflow, or name another experiment in MLFLOW_EXPERIMENT_NAME")
    assert server.client().get_experiment(id_).tags == tags


def test_an_experiment_that_another_process_makes_in_the_meantime_is_used(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = server.client()
    ask = client.get_experiment_by_name

    def make_afterwards(name: str) -> None:
        monkeypatch.setattr(client, "get_experiment_by_name", ask)
        client.create_experiment(name, tags={"theirs": "kept"})

    monkeypatch.setattr(client, "get_experiment_by_name", make_afterwards)
    assert server.experiment().tags.items() >= {"theirs": "kept", "w2s.schema_version": "1"}.items()


def test_an_experiment_that_is_unknown_or_deleted_is_refused(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = server.experiment().experiment_id
    server.client().delete_experiment(id_)
    server.forget()
    assert f"was deleted: restore it with `mlflow experiments restore -x {id_}`" in refused(server.experiment)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "987654")
    assert f"the experiment 987654 cannot be used at {server.where()}: No Experiment with id=987654" in refused(
        server.experiment
    )
    assert "MLFLOW_EXPERIMENT_ID; `mlflow experiments search` lists" in refused(server.experiment)


def test_artifacts_that_cannot_be_written_are_one_sentence(
    experiment: str, tmp_path: Path, use: Use, tracking_uri: str
) -> None:
    (tmp_path / "file").touch()
    for place in ("/proc/mlruns", "/sys/mlruns", str(tmp_path / "file" / "mlruns"), (tmp_path / "file").as_uri()):
        name = f"test-{uuid4().hex[:8]}"
        server.client().create_experiment(name, artifact_location=place)
        use(tracking_uri, MLFLOW_EXPERIMENT_NAME=name)
        assert f"stores its artifacts in {place}, which is not writable (" in refused(server.experiment)
    assert contents(tmp_path) == {str(tmp_path / "file"): b""}


def test_a_directory_that_is_checked_or_used_at_a_distance_is_left_as_it_is(
    experiment: str, tmp_path: Path, use: Use, tracking_uri: str
) -> None:
    for place in (str(tmp_path / "new" / "place"), "s3://bucket/place"):
        name = f"test-{uuid4().hex[:8]}"
        server.client().create_experiment(name, artifact_location=place)
        use(tracking_uri, MLFLOW_EXPERIMENT_NAME=name)
        assert server.experiment().artifact_location == place
    assert contents(tmp_path) == {}


def test_no_experiment_is_made_where_its_artifacts_could_not_be_written(
    use: Use, tracking_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"test-{uuid4().hex[:8]}"
    use(tracking_uri)
    server.client()
    monkeypatch.chdir("/proc")
    use(tracking_uri, MLFLOW_EXPERIMENT_NAME=name)
    said = "the artifacts of new experiments would be stored in /proc/mlruns, which is not writable ("
    assert said in refused(server.experiment)
    assert server.client().get_experiment_by_name(name) is None
    use(f"sqlite:///{tmp_path}/new.db")
    assert said in refused()
    assert contents(tmp_path) == {}


def test_the_launcher_s_run_is_adopted_once_as_parent(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = server.client().create_run(server.experiment().experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launch)
    server.forget()
    result = supervisor.run(supervisor.Config(**SMALL))
    server.close_launch(result.run_id)
    assert "MLFLOW_RUN_ID" not in os.environ
    found = {run.info.run_id: run.data.tags for run in runs()}
    assert found[result.run_id]["mlflow.parentRunId"] == launch
    assert (found[launch]["w2s.stage"], found[launch]["w2s.result_run_id"]) == ("launch", result.run_id)


def test_a_launcher_s_run_that_is_elsewhere_asks_for_an_absolute_path(use: Use, store: Path, tmp_path: Path) -> None:
    said = f"it does not have the run {NOBODY}, which MLFLOW_RUN_ID names: the relative path means {tmp_path}/"
    before = contents(tmp_path)
    use("sqlite:///new.db", MLFLOW_RUN_ID=NOBODY, MLFLOW_EXPERIMENT_ID="5")
    assert said in refused(server.experiment)
    assert contents(tmp_path) == before
    use("sqlite:///copy.db", MLFLOW_RUN_ID=NOBODY, MLFLOW_EXPERIMENT_ID="987654")
    for find in (server.experiment, server.launch_run_id):
        assert said in refused(find)
        assert "give an absolute path, MLFLOW_TRACKING_URI=sqlite:////.../copy.db" in refused(find)


def test_a_launcher_s_run_that_is_nowhere_is_one_sentence(use: Use, tracking_uri: str) -> None:
    use(tracking_uri, MLFLOW_RUN_ID=NOBODY)
    assert refused(server.launch_run_id) == (
        f"the tracking server {tracking_uri} cannot be used: it does not have the run {NOBODY}, which MLFLOW_RUN_ID names: "
        "unset MLFLOW_RUN_ID, or set MLFLOW_TRACKING_URI to the server that has the run"
    )


def test_a_launcher_s_run_that_was_deleted_is_one_sentence(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = server.client().create_run(server.experiment().experiment_id).info.run_id
    server.client().delete_run(launch)
    monkeypatch.setenv("MLFLOW_RUN_ID", launch)
    server.forget()
    assert f"the run {launch} in MLFLOW_RUN_ID cannot be used at" in refused(server.launch_run_id)


# --- in the middle of a job ------------------------------------------------------------------------------------------


def raised(job: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:
        job()
    return caught.value


def test_a_full_database_is_one_sentence_and_no_log(use: Use, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    use("sqlite:///mlflow.db")
    client = server.client()
    run_id = client.create_run("0").info.run_id
    # A connection's own limit: MLflow's is the only one in the pool of its engine.
    with client._tracking_client.store.engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    capfd.readouterr()
    error = raised(lambda: [client.set_tag(run_id, f"tag{number}", "x" * 8000) for number in range(9)])
    assert isinstance(error, MlflowException)
    said = "the tracking server sqlite:///mlflow.db failed: database or disk is full; finished results are kept"
    assert str(server.failure(error)).startswith(said)
    assert str(server.failure(error.__cause__ or KeyError())).startswith(said)
    assert capfd.readouterr().err == ""


def test_what_a_server_says_is_one_sentence(use: Use) -> None:
    use("http://ann:secret@here:5000")
    answer = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No run\nwith this id"}
    lost = RestException(answer)  # type: ignore[no-untyped-call]
    found = str(server.failure(lost))
    assert found.startswith("the tracking server http://ann:***@here:5000 failed: RESOURCE_DOES_NOT_EXIST: No run; finished")
    wrapped = MlflowException("API request to http://ann:secret@here:5000/api failed with error code 502")
    assert "API request to http://ann:***@here:5000/api failed with error code 502" in str(server.failure(wrapped))


def test_a_server_that_is_gone_is_one_sentence(use: Use) -> None:
    use("http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    said = "Failed to establish a new connection: [Errno 111] Connection refused; finished results are kept"
    error = raised(lambda: mlflow.MlflowClient().get_run(NOBODY))
    assert str(server.failure(error)).startswith(f"the tracking server http://127.0.0.1:9 failed: {said}")
    direct = raised(lambda: requests.get("http://127.0.0.1:9/artifact", timeout=1))
    assert str(server.failure(direct)).startswith(f"the tracking server http://127.0.0.1:9 failed: {said}")
    other = raised(lambda: requests.get("http://localhost:9/data", timeout=1))
    assert str(server.failure(other)).startswith("the host localhost failed: Failed to establish a new connection")


def test_a_disk_that_cannot_be_written_is_one_sentence_with_the_file() -> None:
    def write(path: str) -> None:
        with open(path, "w", buffering=1) as file:  # noqa: PTH123
            file.write("x\n")

    denied = raised(lambda: write("/sys/w2s"))
    assert str(server.failure(denied)).startswith(f"/sys/w2s cannot be used: {denied.args[1]}; finished results are kept")
    full = str(server.failure(raised(lambda: write("/dev/full"))))
    assert full.startswith(f"a file (temporary files are in {tempfile.gettempdir()}) cannot be used: No space left on device")
    copied = OSError(errno.ENOSPC, "No space left on device", "/from", None, "/to")  # as shutil raises it
    assert str(server.failure(copied)).startswith("/to cannot be used: No space left on device")
    assert "No space left on device" in str(server.failure(RuntimeError("I/O error: No space left on device (os error 28)")))


@pytest.mark.parametrize(
    "error", [KeyError("x"), FileNotFoundError(2, "No such file", "x"), RuntimeError("no such file (os error 2)"), ValueError()]
)
def test_a_mistake_of_the_program_is_no_failure(error: Exception) -> None:
    assert server.failure(error) is None
