"""What a run logs goes through a spool: in order, once each, without waiting; what a server does not take stays on disk."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

from tests.conftest import runs
from tests.tracking.test_store import request, status_of, text
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch
from w2s_mlflow.tracking import delivery, lifecycle, recovery, spool, store
from w2s_mlflow.tracking.backend import outages, server
from w2s_mlflow.tracking.recorder import Recorder
from w2s_mlflow.tracking.writer import Writer

HEADER = spool.Header("a" * 32, "test", "sqlite:///mlflow.db", "0", "machine:1:1")
AWAY = MlflowException("the server is away", error_code=TEMPORARILY_UNAVAILABLE)


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A scratch directory without the spools of other tests, and no long pauses."""
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    monkeypatch.setattr(outages, "FIRST", 0.01)
    yield


# --- the spool on disk ------------------------------------------------------------------------------------------------


def test_a_spool_keeps_its_records_in_order_for_the_next_process() -> None:
    first = spool.create(HEADER)
    for number in range(12):
        first.add({"kind": "batch", "number": number})
    assert spool.take(first.directory) is None and spool.is_used(first.directory), "its owner lives"
    first.remove_first()
    first.release()
    taken = spool.take(first.directory)
    assert taken is not None and taken.header == HEADER
    assert [record["number"] for record in taken.records()] == list(range(1, 12))
    taken.add({"kind": "end", "status": "FINISHED"})
    assert [record["kind"] for record in taken.records()][-1] == "end" and delivery.is_complete(taken.records())
    taken.remove()
    assert spool.take(first.directory) is None and not first.directory.exists()


@pytest.mark.parametrize("name", ["header", "00000001"])
def test_one_flipped_byte_in_a_file_of_a_spool_is_found(name: str) -> None:
    written = spool.create(HEADER)
    written.add({"kind": "end", "status": "FINISHED"})
    written.release()
    file = written.directory / name
    content = bytearray(file.read_bytes())
    content[-4] ^= 1
    file.write_bytes(bytes(content))
    found = recovery.recover(written.directory, 1)
    assert found.outcome == "damaged" and str(file) in found.reason
    assert file.exists(), "what cannot be sent is not removed"


# --- the writer -------------------------------------------------------------------------------------------------------


def test_a_record_is_sent_until_it_is_stored_and_before_the_next() -> None:
    sent: list[int] = []
    tries: list[int] = []

    def deliver(record: Any) -> None:
        tries.append(record["number"])
        if len(tries) % 3:
            raise AWAY
        sent.append(record["number"])

    writer = Writer(spool.create(HEADER), deliver)
    for number in range(4):
        writer.put({"number": number})
    assert writer.wait(60)
    writer.close()
    assert sent == [0, 1, 2, 3] and tries == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert spool.paths() == []


def test_a_server_that_hangs_holds_up_nobody() -> None:
    released = threading.Event()
    writer = Writer(spool.create(HEADER), lambda record: [released.wait(60), None][1])
    began = time.monotonic()
    for number in range(100):
        writer.put({"number": number})
    assert not writer.wait(0.01)
    writer.close()
    assert time.monotonic() - began < 30, "half of the time for which the server hangs"
    taken = spool.take(writer.spool.directory)
    assert taken is not None and taken.pending() == 100
    released.set()
    writer.thread.join()
    assert taken.pending() == 100, "who has given up the spool does not touch it"
    taken.remove()


def test_what_the_server_refuses_ends_the_writer_and_the_next_record_says_so() -> None:
    def deliver(record: Any) -> None:
        raise MlflowException.invalid_parameter_value("no such run")

    writer = Writer(spool.create(HEADER), deliver)
    writer.put({})
    with pytest.raises(MlflowException, match="no such run"):
        writer.wait(60)
    with pytest.raises(MlflowException, match="no such run"):
        writer.put({})
    writer.close(discard=True)
    assert spool.paths() == []


# --- runs -------------------------------------------------------------------------------------------------------------


def many(recorder: Recorder) -> None:
    """A training that logs before and after a checkpoint."""
    recorder.dataset("data", "d", "nowhere", {"train": 3})
    for step in (1, 2):
        recorder.metrics({"loss": step / 2}, step)
        recorder.flush()
    recorder.text("words.txt", "whole")
    recorder.tags["w2s.late"] = "yes"


@pytest.fixture
def away(experiment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A server that answers questions but stores nothing of a run, until this is undone."""
    server.experiment()

    def refuse(*_: Any) -> None:
        raise AWAY

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_SERVER_WAIT", "0.3")
        for kind in delivery.SENDERS:
            patch.setitem(delivery.SENDERS, kind, refuse)
        yield patch


def check_whole(run_id: str) -> None:
    run = server.client().get_run(run_id)
    assert (run.info.status, run.data.tags["w2s.late"], run.data.params["task"]) == ("FINISHED", "yes", "none")
    history = server.client().get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 1.0)]
    assert run.inputs is not None and run.inputs.dataset_inputs[0].dataset.name == "data"
    assert spool.paths() == []


def test_a_result_that_the_server_did_not_take_is_whole_on_disk_and_brought_in_later(away: pytest.MonkeyPatch) -> None:
    with pytest.raises(lifecycle.PendingUploadError, match=r"is complete in .*the server is away.*w2s_mlflow upload"):
        store.produce(request(), many)
    [run] = runs()
    assert run.info.status == "RUNNING" and spool.count(spool.path_of(run.info.run_id)) > 0
    [waiting] = recovery.deliver_all(0.3)
    assert (waiting.outcome, waiting.reason) == ("waiting", "the server is away")
    away.undo()
    [found] = recovery.deliver_all(60)
    assert (found.outcome, found.finished) == ("delivered", True)
    check_whole(run.info.run_id)
    assert store.produce(request(), text()).run_id == run.info.run_id
    assert list(recovery.deliver_all(1)) == []


def test_whoever_needs_the_result_next_brings_it_in(away: pytest.MonkeyPatch) -> None:
    with pytest.raises(lifecycle.PendingUploadError):
        store.produce(request(), many)
    away.undo()
    found = store.produce(request(), lambda recorder: pytest.fail("what was complete is lost"))
    check_whole(found.run_id)


def test_a_result_that_another_machine_has_made_meanwhile_is_not_doubled(
    away: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(lifecycle.PendingUploadError):
        store.produce(request(), many)
    [late] = runs()
    away.undo()
    server.client().set_tag(late.info.run_id, "w2s.worker", "")
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("W2S_SCRATCH", str(tmp_path / "other"))
        other = store.produce(request(), text())
    assert other.run_id != late.info.run_id
    [found] = recovery.deliver_all(60)
    assert (found.outcome, found.reason) == ("superseded", "another process has made this result in the meantime")
    assert status_of(late.info.run_id) == "KILLED" and spool.paths() == []
    assert store.produce(request(), text()).run_id == other.run_id


def test_a_damaged_artifact_of_a_spool_is_made_again(away: pytest.MonkeyPatch) -> None:
    with pytest.raises(lifecycle.PendingUploadError):
        store.produce(request(), many)
    [run] = runs()
    (spool.path_of(run.info.run_id) / "artifacts" / "words.txt").write_text("torn")
    away.undo()
    assert "are damaged" in next(iter(recovery.deliver_all(60))).reason
    server.client().set_tag(run.info.run_id, "w2s.worker", "")
    found = store.produce(request(), many)
    assert found.run_id != run.info.run_id and found.artifact("words.txt").read_text() == "whole"


@pytest.mark.parametrize("value", ["soon", "-1", "inf", "nan"])
def test_the_longest_wait_is_a_number(experiment: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_SERVER_WAIT", value)
    with pytest.raises(ConfigError, match=f"W2S_SERVER_WAIT must be a number of seconds, 0 or more, got {value}"):
        store.produce(request(), text())
    monkeypatch.delenv("W2S_SERVER_WAIT")
    assert runs() == []


def test_no_password_is_in_a_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@here:5000")
    created = spool.create(spool.Header("b" * 32, "test", delivery.store_name(), "0", "machine:1:1"))
    assert "secret" not in "".join(file.read_text() for file in created.directory.glob("h*"))
    created.remove()


def test_records_survive_json() -> None:
    record = delivery.batch([Metric("loss", float("inf"), 5, 2)], {"p": "1"}, {"t": "2"})
    assert json.loads(json.dumps(record)) == record
    assert scratch.cache_path("spool-x") == spool.path_of("x")


@pytest.mark.slow
def test_a_locked_database_is_reported_in_a_plain_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself waits for 20 s before it says so."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/locked.db")
    monkeypatch.setenv("W2S_SERVER_WAIT", "25")
    server.forget()
    server.experiment()

    def lock(recorder: Recorder) -> None:
        locking.execute("BEGIN EXCLUSIVE")

    with contextlib.closing(sqlite3.connect(tmp_path / "locked.db", isolation_level=None)) as locking:
        with pytest.raises(lifecycle.PendingUploadError, match=r"has not stored it within 25 s \(database is locked\)"):
            store.produce(request(), lock)
        monkeypatch.setenv("W2S_SERVER_WAIT", "0")
        with pytest.raises(MlflowException) as error:
            store.produce(request(), text())
    assert server.sentence(error.value) == "database is locked"
    server.forget()
