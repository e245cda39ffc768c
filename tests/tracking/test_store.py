"""One result, one run: reused, waited for, taken over, continued, or made; a damaged one is never used."""

from __future__ import annotations

import _thread
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.conftest import runs
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch
from w2s_mlflow.local.process import start_time
from w2s_mlflow.stages import supervisor
from w2s_mlflow.tracking import claims, delivery, heartbeat, lifecycle, orphans, results, session, spool, store
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.fingerprint import FingerprintParts
from w2s_mlflow.tracking.heartbeat import SupersededError
from w2s_mlflow.tracking.lifecycle import recording
from w2s_mlflow.tracking.recorder import Recorder
from w2s_mlflow.tracking.results import ARTIFACTS, FINGERPRINT

pytestmark = pytest.mark.usefixtures("experiment")

IDENTITY = {"task": "none", "weak": "-", "strong": "-", "method": "test", "seed": "0"}
DEAD = "gone-0123:1:0.00"
"""A worker of another machine."""


def request(seed: int = 0) -> store.RunRequest:
    """A result that needs no model."""
    parts = FingerprintParts("test", 1, {"seed": seed}, "", {}, {}, {})
    return store.RunRequest(f"test {seed}", parts, supervisor.Config(seed=seed), IDENTITY, {}, "a note")


def text(words: str = "whole") -> Callable[[Recorder], None]:
    """What makes a result of one small file."""
    return lambda recorder: recorder.text("words.txt", words)


def left(status: str, tags: Mapping[str, str], attempt: int = 0) -> str:
    """A run of the result that some process has left behind; its id."""
    assert isinstance(claims.claim(request().parts.digest(), attempt), claims.Claim)
    run = server.client().create_run(
        server.experiment().experiment_id,
        tags={FINGERPRINT: request().parts.digest(), "w2s.stage": "test", store.ATTEMPT: str(attempt), **tags},
        run_name="left",
    )
    if status != "RUNNING":
        server.client().set_terminated(run.info.run_id, status)
    return str(run.info.run_id)


def gone() -> str:
    """A process of this machine that has ended."""
    return f"{heartbeat.me().machine}:{os.getpid()}:1.00"


def beat(seconds_ago: float = 0.0) -> str:
    return str(time.time() - seconds_ago)


def status_of(run_id: str) -> str:
    return str(server.client().get_run(run_id).info.status)


def test_the_second_asks_and_does_not_make() -> None:
    first = store.produce(request(), text())
    second = store.produce(request(), lambda recorder: pytest.fail("made twice"))
    assert (first.run_id, first.reused, second.run_id, second.reused) == (second.run_id, False, first.run_id, True)
    assert second.artifact("words.txt").read_text() == "whole"


def test_another_fingerprint_is_another_result() -> None:
    assert store.produce(request(0), text()).run_id != store.produce(request(1), text()).run_id


def test_an_error_fails_the_run_and_the_next_makes_it() -> None:
    with pytest.raises(ZeroDivisionError):
        store.produce(request(), lambda recorder: [][1 // 0])
    assert [run.info.status for run in runs()] == ["FAILED"]
    assert not store.produce(request(), text()).reused
    assert sorted(run.info.status for run in runs()) == ["FAILED", "FINISHED"]


# --- claims -----------------------------------------------------------------------------------------------------------


def claim(attempt: int) -> claims.Claim:
    found = claims.claim("f", attempt)
    assert isinstance(found, claims.Claim)
    return found


def test_a_claim_is_given_once_and_sealed_once() -> None:
    first = claim(0)
    other = claims.claim("f", 0)
    assert isinstance(other, str) and other.startswith(str(heartbeat.me())) and claims.is_over(other)
    assert not claims.is_over(f"{DEAD} 0") and not claims.is_over("")
    assert first.seal("r")
    assert first.seal("r"), "the same words again are no error: an answer may have been lost on the way"
    assert not first.seal("other")
    sealed = claims.claim("f", 1)
    assert sealed == "sealed r" and claims.is_over(sealed)
    assert claim(2)


def test_who_was_replaced_cannot_seal() -> None:
    first, second = claim(0), claim(1)
    assert not first.seal("r") and second.seal("s")


@pytest.mark.parametrize("forever", [False, True])
def test_what_was_deleted_is_made_again_at_once(forever: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    first = store.produce(request(), text())
    if forever:  # as `mlflow gc` does
        monkeypatch.setattr(store, "runs_of", lambda fingerprint: [])
        monkeypatch.setattr(heartbeat.Worker, "gone", lambda self: True)
    else:
        server.client().delete_run(first.run_id)
    monkeypatch.setattr(store, "PATIENCE", math.inf)
    with session.changed(wait=False):
        second = store.produce(request(), text())
    assert not second.reused and second.run_id != first.run_id


def test_the_lock_run_is_one_and_out_of_sight() -> None:
    lock = claims.lock_run_id()
    assert lock not in {run.info.run_id for run in runs()}
    claims._lock_run_id.cache_clear()
    assert claims.lock_run_id() == lock
    server.client().delete_experiment_tag(server.experiment().experiment_id, claims.LOCK)
    claims._lock_run_id.cache_clear()
    assert claims.lock_run_id() == lock, "who comes too late for the election takes the one that was elected"


def test_a_deleted_lock_run_is_one_sentence() -> None:
    server.client().delete_run(claims.lock_run_id())
    with pytest.raises(ConfigError, match=r"holds the claims of .* was deleted: restore it with `mlflow runs restore"):
        store.produce(request(), text())
    server.client().restore_run(claims.lock_run_id())


def test_what_a_sleeper_made_does_not_count() -> None:
    """Another process takes the place of this one while it makes the result, and is first."""
    others = []

    def make(recorder: Recorder) -> None:
        recorder.text("words.txt", "late")
        assert isinstance(claims.claim(request().parts.digest(), 1), claims.Claim)
        others.append(finished_by_other(attempt=1))

    found = store.produce(request(), make)
    assert (found.run_id, found.reused) == (others[0], True)
    assert sorted(run.info.status for run in runs()) == ["FINISHED", "KILLED"]


def finished_by_other(attempt: int) -> str:
    run = server.client().create_run(
        server.experiment().experiment_id, tags={FINGERPRINT: request().parts.digest(), store.ATTEMPT: str(attempt)}
    )
    server.client().set_terminated(run.info.run_id)
    return str(run.info.run_id)


# --- owners -----------------------------------------------------------------------------------------------------------


def test_a_living_owner_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    other = left("RUNNING", {heartbeat.WORKER: DEAD, heartbeat.HEARTBEAT: beat()})
    said: list[str] = []

    def sleep(seconds: float) -> None:
        if len(said) == 1:
            server.client().set_terminated(other)

    monkeypatch.setattr("w2s_mlflow.tracking.store.time.sleep", sleep)
    with session.changed(progress=said.append):
        found = store.produce(request(), lambda recorder: pytest.fail("made twice"))
    assert found.run_id == other and found.reused
    assert said == ["waiting for left, which process 1 on gone is making (0 s)"]


def test_who_does_not_wait_is_told_that_it_is_busy() -> None:
    left("RUNNING", {heartbeat.WORKER: str(heartbeat.me()), heartbeat.HEARTBEAT: beat()})
    with (
        session.changed(wait=False),
        pytest.raises(store.BusyError, match=f"which process {os.getpid()} on {socket.gethostname()} is making"),
    ):
        store.produce(request(), text())


@pytest.mark.parametrize(
    "tags",
    [
        {heartbeat.WORKER: "HERE", heartbeat.HEARTBEAT: beat()},
        {},
    ],
    ids=["process gone", "no owner"],
)
def test_a_dead_owner_is_replaced_at_once(tags: dict[str, str]) -> None:
    names = {"HERE": gone()}
    other = left("RUNNING", {key: names.get(value, value) for key, value in tags.items()})
    orphans._cleanup.cache_clear()
    orphans.cleanup_once()
    found = store.produce(request(), text())
    assert found.run_id != other and not found.reused
    assert status_of(other) == "KILLED"


@pytest.mark.parametrize("owner", [DEAD, str(heartbeat.me())], ids=["elsewhere", "here"])
def test_a_heart_is_watched_on_our_own_clock(owner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's may be wrong, and a machine may have slept: only a heartbeat that does not change over our time is silent."""
    other = left("RUNNING", {heartbeat.WORKER: owner, heartbeat.HEARTBEAT: beat(200)})
    monkeypatch.setattr(heartbeat, "STALE", 0.3)
    monkeypatch.setattr(store, "POLL", 0.05)
    looks: list[str] = []
    with session.changed(progress=looks.append):
        found = store.produce(request(), text())
    assert looks and found.run_id != other and status_of(other) == "KILLED"


def test_a_heart_that_beats_is_never_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STALE", 0.2)
    other, watch = left("RUNNING", {heartbeat.WORKER: DEAD, heartbeat.HEARTBEAT: beat(300)}), heartbeat.Watch()
    for second in range(4):
        server.client().set_tag(other, heartbeat.HEARTBEAT, beat(300 - second))
        assert not watch.dead(server.client().get_run(other))
        time.sleep(0.1)
    time.sleep(0.25)
    assert watch.dead(server.client().get_run(other))


def test_a_clock_of_another_machine_is_never_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is hours behind is no dead owner; a heartbeat that this machine has not seen change is."""
    other = left("RUNNING", {heartbeat.WORKER: DEAD, heartbeat.HEARTBEAT: beat(7200)})
    orphans.kill_orphans()
    assert status_of(other) == "RUNNING"
    monkeypatch.setattr(heartbeat, "STALE", 0.0)
    server.client().set_tag(other, heartbeat.HEARTBEAT, beat(7190))
    monkeypatch.setattr(heartbeat, "STALE", 1000.0)
    orphans.kill_orphans()
    assert status_of(other) == "RUNNING"
    monkeypatch.setattr(heartbeat, "STALE", 0.0)
    orphans.kill_orphans()  # as a later process would: what was seen is on disk
    assert status_of(other) == "KILLED"


def test_an_owner_whose_run_was_taken_over_stops_and_writes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.02)
    made: list[str] = []

    def make(recorder: Recorder) -> None:
        made.append(recorder.run_id)
        if len(made) > 1:
            return
        recorder.metrics({"train/loss": 1.0}, 1)
        recorder.flush()
        assert recorder.writer is not None and recorder.writer.wait(60)
        server.client().set_tag(recorder.run_id, heartbeat.WORKER, "")  # as one that takes over does
        server.client().set_terminated(recorder.run_id, "KILLED")
        for step in range(2, 1000):
            recorder.metrics({"train/loss": 0.5}, step)
            time.sleep(0.02)
        pytest.fail("it trained on")

    found = store.produce(request(), make)
    assert len(made) == 2 and found.run_id == made[1] and status_of(made[0]) == "KILLED"
    taken = server.client().get_run(made[0]).data
    assert taken.metrics == {"train/loss": 1.0} and taken.tags[heartbeat.WORKER] == ""


def test_a_process_that_was_stopped_asks_before_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its heartbeat may not have looked yet when it wakes up."""
    monkeypatch.setattr(heartbeat, "BEAT", 1000.0)

    def make(recorder: Recorder) -> None:
        server.client().set_tag(recorder.run_id, heartbeat.WORKER, DEAD)
        recorder.metrics({"train/loss": 1.0}, 1)
        assert recorder.ownership is not None
        recorder.ownership.confirmed -= 2000
        recorder.flush()

    with pytest.raises(SupersededError), recording(request().header(0)) as recorder:
        make(recorder)
    run = server.client().get_run(recorder.run_id)
    assert not run.data.metrics and run.data.tags[heartbeat.WORKER] == DEAD


def test_a_run_in_the_making_has_an_owner_and_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.05)
    seen: list[dict[str, str]] = []

    def make(recorder: Recorder) -> None:
        for _ in range(2):
            seen.append(dict(server.client().get_run(recorder.run_id).data.tags))
            time.sleep(0.4)

    store.produce(request(), make)
    owner = heartbeat.Worker.parse(seen[0][heartbeat.WORKER])
    assert owner is not None and owner.pid == os.getpid() and not owner.gone()
    assert float(seen[1][heartbeat.HEARTBEAT]) > float(seen[0][heartbeat.HEARTBEAT])


def test_a_process_id_that_was_given_again_is_another_process() -> None:
    me = heartbeat.me()
    assert heartbeat.Worker(me.machine, me.pid, "1.00").gone() and not me.gone()
    unused = max(psutil.pids()) + 100_000
    assert heartbeat.Worker(me.machine, unused, me.born).gone()
    assert not heartbeat.Worker("elsewhere", unused, me.born).gone(), "a process of another machine cannot be looked up"
    assert heartbeat.Worker.parse(str(me)) == me and heartbeat.Worker.parse("") is None


def test_a_process_that_ended_and_was_not_waited_for_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = heartbeat.Worker(heartbeat.me().machine, process.pid, start_time(process.pid))
    assert not other.gone()
    process.kill()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert other.gone()
    process.communicate()
    assert other.gone()


def test_an_owner_that_died_before_it_had_a_run_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.2)
    monkeypatch.setattr(store, "POLL", 0.05)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(heartbeat, "me", lambda: heartbeat.Worker.parse(DEAD))
        for attempt in (0, 1):
            assert isinstance(claims.claim(request().parts.digest(), attempt), claims.Claim)
    with session.changed(wait=False), pytest.raises(store.BusyError, match="has just claimed"):
        store.produce(request(), text())
    assert not store.produce(request(), text()).reused


def test_a_claim_of_our_own_that_came_to_nothing_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    claims.lock_run_id()
    with monkeypatch.context() as failing, pytest.raises(ConnectionError):
        failing.setattr("w2s_mlflow.tracking.creation.create_run", _no_connection)
        store.produce(request(), text())
    with session.changed(wait=False):
        assert not store.produce(request(), text()).reused


def _no_connection(*_: object) -> str:
    raise ConnectionError


def test_a_dead_owner_s_run_that_was_whole_is_finished_in_its_place() -> None:
    """Killed between its last artifact and its last status."""
    other = left("RUNNING", {heartbeat.WORKER: gone(), heartbeat.HEARTBEAT: beat(), ARTIFACTS: "{}"})
    found = store.produce(request(), lambda recorder: pytest.fail("what was finished is lost"))
    assert found.run_id == other and status_of(other) == "FINISHED"


def test_orphans_are_closed_by_the_next_start(tmp_path: Path) -> None:
    dead = left("RUNNING", {heartbeat.WORKER: gone(), heartbeat.HEARTBEAT: beat()})
    alive = left("RUNNING", {heartbeat.WORKER: DEAD, heartbeat.HEARTBEAT: beat()}, attempt=1)
    foreign = server.client().create_run(server.experiment().experiment_id).info.run_id
    tmp_path.joinpath("MLproject").write_text("name: another\n")
    client, experiment = server.client(), server.experiment().experiment_id
    long_ago = int((time.time() - 2 * orphans.LAUNCH) * 1000)
    launched = {"mlflow.project.entryPoint": "student"}
    launch = client.create_run(experiment, start_time=long_ago, tags=launched).info.run_id
    building = client.create_run(experiment, tags=launched).info.run_id
    elsewhere = {"mlflow.project.entryPoint": "student", "mlflow.source.name": str(tmp_path)}
    others = client.create_run(experiment, start_time=long_ago, tags=elsewhere).info.run_id
    orphans._cleanup.cache_clear()
    orphans.cleanup_once()
    assert [status_of(run) for run in (dead, launch)] == ["KILLED", "KILLED"]
    assert [status_of(run) for run in (alive, foreign, building, others)] == ["RUNNING"] * 4


# --- policies ---------------------------------------------------------------------------------------------------------


def test_reuse_never_makes_it_again_but_once() -> None:
    first = store.produce(request(), text())
    time.sleep(0.002)
    with session.changed(reuse_since=session.reuse_since("never")):
        second, third = store.produce(request(), text()), store.produce(request(), text())
    assert first.run_id != second.run_id == third.run_id and third.reused
    assert store.produce(request(), text()).run_id == second.run_id, "the newest is the one that is found"


# --- what is left ----------------------------------------------------------------------------------------------------


def test_every_file_of_a_directory_is_checked() -> None:
    def make(recorder: Recorder) -> None:
        recorder.text("model/a.txt", "a")
        recorder.text("model/b/c.txt", "c")
        recorder.text("models.txt", "another")

    found = store.produce(request(), make)
    assert (found.artifact("model") / "b" / "c.txt").read_text() == "c"
    (found.artifact("model") / "b" / "c.txt").write_text("d")
    assert found.artifact("models.txt").read_text() == "another" and found.artifact("model/a.txt").read_text() == "a"
    with pytest.raises(results.CorruptArtifactError, match=r"model/b/c\.txt"):
        found.artifact("model")


def test_what_has_not_changed_is_read_once_and_damage_seen_of_the_same_size(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = results.digest

    def spy(file: Path) -> str:
        read.append(file.name)
        return digest(file)

    monkeypatch.setattr(results, "digest", spy)
    found = store.produce(request(), text("whole"))
    read.clear()
    for _ in range(2):
        assert store.produce(request(), text()).reused
    assert sorted(read) == sorted({Path(path).name for path in found.digests}) != []
    found.artifact("words.txt").write_text("while")
    assert not store.produce(request(), text()).reused


def test_a_checkpoint_that_nobody_goes_on_from_is_removed_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "scratch"))
    old, new, foreign = scratch.cache_path("0" * 32), scratch.cache_path("f" * 32), tmp_path / "scratch" / "data set"
    for directory in (old, new, foreign):
        directory.mkdir(parents=True)
        (directory / "state.json").write_text("{}")
    partials = [scratch.cache_path("digests") / f"{name}{scratch.PARTIAL}" for name in ("old", "new")]
    partials[0].parent.mkdir()
    for file in partials:
        file.touch()
    long_ago = time.time() - scratch.OLD - 60
    for path in (old, foreign, partials[0]):
        os.utime(path, (long_ago, long_ago))
    orphans._cleanup.cache_clear()
    orphans.cleanup_once()
    assert (old.exists(), new.exists(), foreign.exists()) == (False, True, True)
    assert [file.exists() for file in partials] == [False, True]


def test_an_owner_that_has_woken_up_is_waited_for_though_its_run_was_ended() -> None:
    left("KILLED", {heartbeat.WORKER: str(heartbeat.me()), heartbeat.HEARTBEAT: beat()})
    with session.changed(wait=False), pytest.raises(store.BusyError):
        store.produce(request(), text())


def test_ctrl_c_while_a_complete_run_is_sent_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server has not stored half a second later is sent by whoever needs the result next."""
    released, send_artifacts = threading.Event(), delivery.SENDERS["artifacts"]

    def interrupted(sent: Any, record: Any) -> None:
        _thread.interrupt_main()
        released.wait(60)
        send_artifacts(sent, record)

    server.experiment()
    monkeypatch.setattr(lifecycle, "STOP_WAIT", 0.05)
    with monkeypatch.context() as hanging, pytest.raises(KeyboardInterrupt):
        hanging.setitem(delivery.SENDERS, "artifacts", interrupted)
        store.produce(request(), text())
    [stopped] = runs()
    assert stopped.info.status == "RUNNING" and spool.path_of(stopped.info.run_id).exists()
    released.set()
    found = store.produce(request(), lambda recorder: pytest.fail("what was complete is lost"))
    assert (found.run_id, status_of(found.run_id)) == (stopped.info.run_id, "FINISHED")
    assert found.artifact("words.txt").read_text() == "whole" and not spool.path_of(found.run_id).exists()


@pytest.mark.parametrize("count", [0, 979, 980, 999, 1000, 2500])
def test_the_digests_come_after_every_metric(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes 1,000 metrics and tags in one request, here `seconds`, 19 tags and the digests beside the losses."""
    sent: list[str] = []
    log_batch: Any = SqlAlchemyStore.log_batch

    def logged(kept: Any, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
        sent.extend([*("metric" for _ in metrics), *(tag.key for tag in tags)])
        log_batch(kept, run_id, metrics, params, tags)

    def make(recorder: Recorder) -> None:
        recorder._holds_metrics = True  # as between two checkpoints
        for step in range(count):
            recorder.metrics({"loss": step}, step)
        recorder.tags |= {f"tag{number}": "x" for number in range(19)}

    monkeypatch.setattr(SqlAlchemyStore, "log_batch", logged)
    found = store.produce(request(), make)
    assert sent[-1] == ARTIFACTS and sent.count("metric") == count + 1
    assert len(server.client().get_metric_history(found.run_id, "loss")) == count
