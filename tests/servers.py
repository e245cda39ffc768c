"""Real tracking servers on this machine, for tests marked `server`: started empty, ended with all their processes."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 120
"""Seconds that a server may take to start or to stop."""


@contextlib.contextmanager
def mlflow_server(directory: Path, artifacts: str | None = None, auth: dict[str, str] | None = None) -> Iterator[str]:
    """`mlflow server` with an SQLite database in `directory`; its URI.

    Args:
        artifacts: where clients keep artifacts themselves, such as s3://bucket; None: through the server, in `directory`.
        auth: variables of MLflow's app `basic-auth`; None: no users.
    """
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    line = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    line += ["--backend-store-uri", f"sqlite:///{directory}/mlflow.db"]
    proxied = ["--artifacts-destination", str(directory / "artifacts")]
    line += ["--no-serve-artifacts", "--default-artifact-root", artifacts] if artifacts else proxied
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    line += ["--app-name", "basic-auth"] if auth else []
    environment |= auth or {}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # its job runners are processes that no experiment needs
    log = directory / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(line, cwd=directory, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until_healthy(f"{uri}/health", process, log)
        yield uri
    finally:
        end(process)


@contextlib.contextmanager
def transformers_serve(model: Path, directory: Path) -> Iterator[str]:
    """`transformers serve` with one model from a directory, on the CPU, without a network; its URI."""
    port = free_port()
    start = "from transformers.cli.transformers import main; main()"
    line = [sys.executable, "-c", start, "serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = directory / "serve.log"
    with log.open("wb") as out:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen(line, cwd=directory, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """An empty PostgreSQL database in a directory of its own, on a port of the loopback interface; its SQLAlchemy URI."""
    programs, port = postgresql_programs(), free_port()
    # Not below pytest's directories: those of root may not be entered by the user that the database must run as.
    with tempfile.TemporaryDirectory(prefix="w2s-postgresql-") as name:
        directory = Path(name)
        run = functools.partial(run_logged, directory=directory, user=unprivileged(directory))
        data, options = ["--pgdata", str(directory / "data")], f"-h 127.0.0.1 -p {port} -k '' -c fsync=off"
        control = [str(programs / "pg_ctl"), *data, "--wait", "--timeout", str(DEADLINE)]
        run([str(programs / "initdb"), *data, "--username", "w2s", "--auth", "trust", "--no-sync"])
        run([*control, "--options", options, "start"])
        try:
            yield f"postgresql+psycopg2://w2s@127.0.0.1:{port}/postgres"
        finally:
            run([*control, "--mode", "fast", "stop"])


def run_logged(line: list[str], directory: Path, user: dict[str, Any]) -> None:
    """Run a program in `directory`. Raises RuntimeError with all that was said there when it fails."""
    log = directory / "server.log"
    with log.open("ab") as out:  # a file, not a pipe: the server it starts keeps this open
        failed = subprocess.run(line, cwd=directory, stdout=out, stderr=out, **user).returncode
    if failed:
        raise RuntimeError(f"{line[0]} failed:\n{log.read_text(errors='replace')}")


def postgresql_programs() -> Path:
    """The directory of the newest `initdb` and `pg_ctl` installed; skips the test where there are none."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    for directory in [Path(on_path).parent] if on_path else packaged:
        if (directory / "initdb").exists() and (directory / "pg_ctl").exists():
            return directory
    pytest.skip("PostgreSQL is not installed: no initdb and pg_ctl on PATH or in /usr/lib/postgresql")


def unprivileged(directory: Path) -> dict[str, Any]:
    """How subprocess runs a database, which root may not: as the user `postgres`, to whom `directory` is given."""
    if os.getuid() != 0:
        return {}
    shutil.chown(directory, "postgres")
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for an answer from `url`. Raises RuntimeError with the server's log when it ends before, or takes too long."""
    deadline = time.monotonic() + DEADLINE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"no answer from {url}:\n{log.read_text(errors='replace')}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group of its own, and the whole group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(DEADLINE)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
