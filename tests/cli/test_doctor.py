"""The command `doctor`: each fault is found, and the advice says what to do."""

from __future__ import annotations

import contextlib
import email.utils
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.tracking.test_store import left
from w2s_mlflow.cli import commands, doctor
from w2s_mlflow.cli.doctor import ERROR, OK, WARNING, Check
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import disk
from w2s_mlflow.tracking import claims, delivery, diagnosis, heartbeat, spool
from w2s_mlflow.tracking.backend import database, preflight, server

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _own_scratch(experiment: str, tmp_path: Path, monkeypatch: Patch) -> Iterator[None]:
    """A scratch directory and a database of the test's own."""
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    yield


def check(name: str) -> Check:
    return next(found for found in doctor.all_checks(data=False) if found.check == name)


def test_a_sound_machine_has_nothing_to_mend(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(disk, "FREE", 0)
    monkeypatch.setattr(doctor, "CONSTRAINTS", tmp_path / "none")
    found = list(doctor.all_checks(data=False))
    assert {one.state for one in found} == {OK}, found
    assert [one.check for one in found] == [
        *("versions", "threads", "scratch directory", "temporary files", "models", "tasks"),
        *diagnosis.STEPS,
    ]
    assert "journal mode wal" in check("store").found


def versions(patch: Patch, directory: Path) -> None:
    (directory / "pins").write_text("numpy==0.1\nabsent-package==1\n")
    patch.setattr(doctor, "CONSTRAINTS", directory / "pins")


def full_disk(patch: Patch, directory: Path) -> None:
    patch.setattr(disk, "FREE", float("inf"))


def rollback_journal(patch: Patch, directory: Path) -> None:
    uri = f"sqlite:///{directory}/own.db"
    patch.setenv("MLFLOW_TRACKING_URI", uri)
    server.forget()
    database.prepare(uri)
    with contextlib.closing(sqlite3.connect(directory / "own.db")) as opened:
        opened.execute("PRAGMA journal_mode=DELETE")
    patch.setattr(database, "_write_ahead", lambda _: None)  # as while another process uses the database


def away(patch: Patch, directory: Path) -> None:
    patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    server.forget()


def fast_clock(patch: Patch, directory: Path) -> None:
    answer = requests.Response()
    answer.headers["Date"] = email.utils.formatdate(time.time() - 7200)
    patch.setattr(preflight, "ask", lambda uri: answer)
    patch.setattr(preflight, "scheme", lambda uri: "http")
    patch.setattr(diagnosis, "STEPS", {"clock": diagnosis.STEPS["clock"]})


def dead_process(patch: Patch, directory: Path) -> None:
    owner = heartbeat.me()
    left("RUNNING", {heartbeat.WORKER: f"{owner.machine}:{owner.pid}:0"})


def deleted_claims(patch: Patch, directory: Path) -> None:
    server.client().delete_run(claims.lock_run_id())
    server.experiment.cache_clear()


def waiting_spool(patch: Patch, directory: Path) -> None:
    spool.create(spool.Header("a" * 32, "a run", delivery.store_name(), "0", "machine:1:1")).release()


def damaged_spool(patch: Patch, directory: Path) -> None:
    waiting_spool(patch, directory)
    (spool.path_of("a" * 32) / spool.HEADER).write_text("torn")


FAULTS: dict[str, tuple[str, Callable[[Patch, Path], None], str, str, str]] = {
    "another version of a package": ("versions", versions, WARNING, "(pinned: 0.1)", "pip install -e . -c constraints.txt"),
    "more threads than processors": (
        "threads",
        lambda patch, _: patch.setenv("OMP_NUM_THREADS", "4096"),
        WARNING,
        "torch starts 4096 threads",
        "export OMP_NUM_THREADS=",
    ),
    "a scratch directory that cannot be written": (
        "scratch directory",
        lambda patch, _: patch.setenv("W2S_SCRATCH", "/proc/none"),
        ERROR,
        "cannot be written",
        "set W2S_SCRATCH to another directory",
    ),
    "a full disk": ("scratch directory", full_disk, WARNING, "GB free", "free some space"),
    "a full disk of temporary files": ("temporary files", full_disk, WARNING, "GB free", "set TMPDIR to another directory"),
    "a full disk of artifacts": ("artifacts", full_disk, WARNING, "GB free", "free some space"),
    "a database without a write-ahead log": (
        "store",
        rollback_journal,
        WARNING,
        "journal mode delete",
        "switches the mode to wal",
    ),
    "a server that is away": ("store", away, ERROR, "Connection refused", "start the server"),
    "a clock that is two hours ahead": (
        "clock",
        fast_clock,
        WARNING,
        "s ahead of the server",
        "set the clock",
    ),
    "a process that was killed": ("runs", dead_process, WARNING, "1 have lost their process", "marks them as KILLED"),
    "deleted claims": ("runs", deleted_claims, WARNING, "which holds the claims, was deleted", "mlflow runs restore --run-id"),
    "a run that was not sent": ("spools", waiting_spool, WARNING, "wait to be sent: 1 for sqlite:", "w2s_mlflow upload"),
    "a damaged spool": ("spools", damaged_spool, WARNING, "is damaged", "w2s_mlflow upload"),
}
"""Faults by what they are: the check that finds it, how to make it, and the state, the finding and the advice."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_the_advice_says_what_to_do(fault: str, monkeypatch: Patch, tmp_path: Path) -> None:
    name, make, state, words, advice = FAULTS[fault]
    make(monkeypatch, tmp_path)
    found = check(name)
    assert (found.state, words in found.found, advice in f"{found.advice} {found.found}") == (state, True, True), found
    server.forget()


def test_a_server_that_is_away_ends_the_checks_of_the_store(monkeypatch: Patch, tmp_path: Path) -> None:
    away(monkeypatch, tmp_path)
    assert [one.check for one in doctor.all_checks(data=False)][-1] == "store"
    with pytest.raises(ConfigError, match=r"^1 of 7 checks found an error$"):
        commands.doctor(data=False, json=True)()
    server.forget()


def test_the_table_of_faults_is_what_the_tests_try() -> None:
    from tests import fault_table

    root = Path(__file__).parents[2]
    assert (root / "docs" / "reference" / "faults.md").read_text() == fault_table.table()
    for row in fault_table.ROWS:
        assert f"def {row.test}(" in (root / row.file).read_text(), row
