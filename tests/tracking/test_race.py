"""Processes that want the same result at the same moment, on each kind of store: one makes it, the others get that one."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from tests.conftest import SMALL
from tests.servers import DEADLINE
from tests.tracking.backend.test_backends import BACKENDS
from w2s_mlflow import registry
from w2s_mlflow.local.process import start_time
from w2s_mlflow.tracking import heartbeat

PROCESSES = 5
PAUSE = 5
"""The training step in which a process waits for the test."""
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.tracking.test_race", "w2s_mlflow.training.loop", "w2s_mlflow.tracking.backend.database"])


@dataclass(frozen=True)
class Place:
    """Where the processes of one test meet: a new tracking store, its default experiment, one scratch directory."""

    uri: str
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """That of a process in this place."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        return kept | {"MLFLOW_TRACKING_URI": self.uri, "W2S_SCRATCH": str(self.directory / "scratch")}

    def runs(self) -> list[Run]:
        """Every result's run, whatever its status, the newest first."""
        return list(mlflow.MlflowClient(self.uri).search_runs(["0"], "tags.`w2s.fingerprint` LIKE '%'"))

    def checkpoints(self) -> list[Path]:
        """What is left in the scratch directory."""
        return list((self.directory / "scratch").glob("**/*.safetensors"))


@dataclass(frozen=True)
class Outcome:
    """What a process was given, and what it had said till then."""

    run_id: str
    reused: bool
    said: list[str]


@dataclass(frozen=True)
class Racer:
    """A process that asks for a result."""

    process: BaseProcess
    pipe: Connection

    def said(self) -> Any:
        """The next thing it has to say: a word where it pauses, or its outcome."""
        assert self.pipe.poll(DEADLINE), f"no word from process {self.process.pid}"
        return self.pipe.recv()

    def outcome(self) -> Outcome:
        found = self.said()
        assert isinstance(found, Outcome), found
        return found

    def go_on(self) -> None:
        self.pipe.send("go on")

    def signal(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)


Patch = Callable[[Connection], None]
"""Done in a process before it asks for anything."""


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.slow if name == "sqlite" else pytest.mark.server) for name in BACKENDS]
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of store in turn, new and empty."""
    with BACKENDS[request.param](tmp_path) as uri:
        yield Place(uri, tmp_path)


# --- in the processes -------------------------------------------------------------------------------------------------


def start(place: Place, stage: str, *patches: Patch, **options: Any) -> Racer:
    """A process that asks for the result of a stage."""
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=ask, args=(place, stage, patches, options, there), daemon=True)
    process.start()
    there.close()
    return Racer(process, here)


def ask(place: Place, stage: str, patches: tuple[Patch, ...], options: dict[str, Any], pipe: Connection) -> None:
    os.environ.clear()
    os.environ.update(place.environment)
    os.chdir(place.directory)
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("w2s_mlflow").addHandler(handler)
    logging.getLogger("w2s_mlflow").setLevel(logging.INFO)
    try:
        for patch in patches:
            patch(pipe)
        plugin = registry.plugin("stages", stage, "stage")
        result = plugin.run(plugin.Config(**SMALL, **options))
        pipe.send(Outcome(result.run_id, result.reused, said))
    except BaseException:
        pipe.send(traceback.format_exc())


def at(owner: Any, name: str, then: Callable[[], object], when: Callable[..., bool] = lambda *_, **__: True) -> None:
    """Do something after the first call of a function that `when` is true of, before it gives back what it has found."""
    call, calls = getattr(owner, name), iter([then])

    def patched(*arguments: Any, **named: Any) -> Any:
        found = call(*arguments, **named)
        if when(*arguments, **named):
            next(calls, lambda: None)()
        return found

    setattr(owner, name, patched)


def ahead(owner: Any, name: str, then: Callable[[], object]) -> None:
    """Do something before the first call of a function."""
    call, calls = getattr(owner, name), iter([then])

    def patched(*arguments: Any, **named: Any) -> Any:
        next(calls, lambda: None)()
        return call(*arguments, **named)

    setattr(owner, name, patched)


def wait_for_test(pipe: Connection, word: str) -> None:
    """Say a word, and wait until the test lets this process go on."""
    pipe.send(word)
    pipe.recv()


def meet(barrier: Barrier, pipe: Connection) -> None:
    """All meet wherever a race begins: at the first look at the store, at a result that is missing, in the election of the
    lock run and once it is known, and where all have found a result that is not scored."""
    from w2s_mlflow.pipeline import scoring
    from w2s_mlflow.tracking import claims, store
    from w2s_mlflow.tracking.backend import server

    together = partial(barrier.wait, DEADLINE)
    for owner, name in (
        (server, "_find_experiment"),
        (store, "runs_of"),
        (claims, "_lock_experiment_id"),
        (claims, "_elect"),
        (scoring, "_is_scored"),
    ):
        at(owner, name, together)
    together()


def twice(pipe: Connection) -> None:
    """Ask again at once, while others may still be writing."""
    from w2s_mlflow.stages import supervisor

    run = supervisor.run
    supervisor.run = lambda config: (run(config), run(config))[0]


def pause_in_training(pipe: Connection) -> None:
    """Wait for the test in a step; the heart goes on beating."""
    from w2s_mlflow.training import state

    at(state.TrainingState, "count", partial(wait_for_test, pipe, "training"), lambda training, _: training.fit.steps == PAUSE)


def impatient(pipe: Connection) -> None:
    """Take every owner that lives for dead."""
    heartbeat.STALE = -1.0


# --- the tests --------------------------------------------------------------------------------------------------------


def once(runs: list[Run], count: int) -> None:
    """So many results, each of one run and finished."""
    assert [run.info.status for run in runs] == ["FINISHED"] * count
    assert len({run.data.tags["w2s.fingerprint"] for run in runs}) == count


def finished(place: Place) -> Run:
    """The one finished run of the only result; the others are KILLED."""
    statuses = Counter(run.info.status for run in place.runs())
    assert statuses["FINISHED"] == 1 and set(statuses) <= {"FINISHED", "KILLED"}, statuses
    assert len({run.data.tags["w2s.fingerprint"] for run in place.runs()}) == 1
    assert place.checkpoints() == []
    return next(run for run in place.runs() if run.info.status == "FINISHED")


def steps(place: Place, run: Run) -> list[int]:
    """The steps whose loss a run has, as often as it has them."""
    return [metric.step for metric in mlflow.MlflowClient(place.uri).get_metric_history(run.info.run_id, "train/loss")]


def test_of_five_processes_one_trains_and_four_get_that_run(place: Place) -> None:
    prepare = partial(meet, CONTEXT.Barrier(PROCESSES))
    racers = [start(place, "supervisor", prepare, twice) for _ in range(PROCESSES)]
    answers = [racer.said() for racer in racers]
    assert all(isinstance(answer, Outcome) for answer in answers), next(a for a in answers if not isinstance(a, Outcome))
    once(place.runs(), 1)
    assert {answer.run_id for answer in answers} == {place.runs()[0].info.run_id}
    assert sum(not answer.reused for answer in answers) == 1


def test_two_processes_that_want_one_student_share_its_supervisor_and_its_ceiling(place: Place) -> None:
    prepare = partial(meet, CONTEXT.Barrier(2))
    racers = [start(place, "student", prepare, weak="chess-27k", strong="chess-43k") for _ in range(2)]
    first, second = (racer.outcome() for racer in racers)
    assert first.run_id == second.run_id
    once(place.runs(), 3)


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 2])
def test_the_work_of_a_killed_process_is_taken_over_by_one_of_those_that_wait(every: int, here: Place) -> None:
    owner = start(here, "supervisor", pause_in_training, checkpoint_every=every)
    assert owner.said() == "training"
    others = [start(here, "supervisor", say_waiting, checkpoint_every=every) for _ in range(2)]
    for other in others:
        assert f"which process {owner.process.pid} on " in other.said()
    owner.signal(signal.SIGKILL)
    outcomes = [other.outcome() for other in others]
    assert sorted(outcome.reused for outcome in outcomes) == [False, True]
    assert {outcome.run_id for outcome in outcomes} == {finished(here).info.run_id}
    assert len(here.runs()) == (1 if every else 2)
    assert steps(here, finished(here)) == [1, 2, 3, 4, 5, 6]


def say_waiting(pipe: Connection) -> None:
    """Tell the test what is waited for, as the log has it."""
    from w2s_mlflow.tracking import session

    now, told = session.current(), iter([pipe.send])

    def tell(text: str) -> None:
        now.progress(text)
        next(told, lambda _: None)(text)

    session._session.set(replace(now, progress=tell))  # to the end of this process


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settled", "every"), [(False, 0), (True, 2)], ids=["by one that waited", "by one that comes later, from a checkpoint"]
)
def test_an_owner_that_was_asleep_gets_the_run_of_the_one_that_took_its_place(settled: bool, every: int, here: Place) -> None:
    sleeper = start(here, "supervisor", pause_in_training, checkpoint_every=every)
    assert sleeper.said() == "training"
    sleeper.signal(signal.SIGSTOP)
    other = start(here, "supervisor", *([impatient] if settled else [impatient_later]), checkpoint_every=every).outcome()
    sleeper.signal(signal.SIGCONT)
    sleeper.go_on()
    woken = sleeper.outcome()
    assert (other.reused, woken.reused) == (False, True)
    assert woken.run_id == other.run_id == finished(here).info.run_id
    assert sorted(run.info.status for run in here.runs()) == ["FINISHED", "KILLED"]
    assert all(steps(here, run) == [1, 2, 3, 4, 5, 6] for run in here.runs() if run.info.status == "FINISHED")


def impatient_later(pipe: Connection) -> None:
    """Wait for an owner that lives, once; then take it for dead."""
    from w2s_mlflow.tracking import store

    at(store._RunSearch, "_wait", partial(impatient, pipe))


@pytest.mark.slow
def test_an_owner_that_wakes_up_as_another_takes_its_place_has_made_the_result(here: Place) -> None:
    """It seals between the other's look at its run and the other's claim."""
    sleeper = start(here, "supervisor", pause_in_training)
    assert sleeper.said() == "training"
    other = start(here, "supervisor", impatient, pause_before_claim)
    assert other.said() == "claiming"
    sleeper.go_on()
    first = sleeper.outcome()
    other.go_on()
    assert other.outcome().run_id == first.run_id == finished(here).info.run_id
    once(here.runs(), 1)


def pause_before_claim(pipe: Connection) -> None:
    """Wait for the test between the look at the store and the claim."""
    from w2s_mlflow.tracking import claims

    ahead(claims, "claim", partial(wait_for_test, pipe, "claiming"))


@pytest.mark.slow
def test_a_process_that_reads_a_large_checkpoint_is_not_taken_for_dead(here: Place) -> None:
    owner = start(here, "supervisor", pause_in_training, checkpoint_every=2)
    assert owner.said() == "training"
    owner.signal(signal.SIGKILL)
    owner.process.join()
    reader = start(here, "supervisor", pause_in_reading, checkpoint_every=2)
    assert reader.said() == "reading"
    other = start(here, "supervisor", hasty, checkpoint_every=2)
    overtaken = other.pipe.poll(5)  # had it not waited, it would have finished within these seconds
    reader.go_on()
    assert not overtaken, other.said()
    first, second = reader.outcome(), other.outcome()
    assert (first.reused, second.reused) == (False, True)
    once(here.runs(), 1)
    assert steps(here, finished(here)) == [1, 2, 3, 4, 5, 6]


def pause_in_reading(pipe: Connection) -> None:
    """Wait for the test when a checkpoint is read."""
    from w2s_mlflow.training import checkpoint

    ahead(checkpoint, "_file_digest", partial(wait_for_test, pipe, "reading"))


def hasty(pipe: Connection) -> None:
    """Take a claim without a run for a dead process's very soon."""
    from w2s_mlflow.tracking import store

    store.PATIENCE = 0.2


@pytest.mark.slow
def test_a_result_that_is_being_scored_a_second_time_is_not_damaged(here: Place) -> None:
    late = start(here, "supervisor", pause_before_scoring, pause_in_copy)
    assert late.said() == "scoring"
    first = start(here, "supervisor").outcome()
    late.go_on()
    paused = late.said()
    again = start(here, "supervisor").outcome()
    if paused == "copying":
        late.go_on()
        paused = late.said()
    assert isinstance(paused, Outcome), paused
    assert {first.run_id, again.run_id, paused.run_id} == {finished(here).info.run_id}
    once(here.runs(), 1)


def pause_before_scoring(pipe: Connection) -> None:
    """Wait for the test where a result was found not to be scored."""
    from w2s_mlflow.pipeline import scoring

    at(scoring, "_is_scored", partial(wait_for_test, pipe, "scoring"))


def pause_in_copy(pipe: Connection) -> None:
    """Wait for the test in the middle of writing the gold of a report, when the file that was there is already emptied."""
    copy = shutil.copy2

    def patched(source: str, target: str) -> object:
        if "/gold/" in target:
            Path(target).write_bytes(b"")
            wait_for_test(pipe, "copying")
        return copy(source, target)

    setattr(shutil, "copy2", patched)  # noqa: B010


def test_a_killed_process_that_nobody_has_waited_for_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        living = heartbeat.Worker(heartbeat.me().machine, process.pid, start_time(process.pid))
        assert not living.gone()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert living.gone()


@pytest.mark.slow
def test_two_terminals_share_a_grid(here: Place) -> None:
    settings = [{"weak": "chess-27k", "strong": "chess-43k", "method": method} for method in ("baseline", "confidence")]
    (here.directory / "grid.py").write_text(f"SETTINGS = {[*settings, {'stage': 'rule'}]}\n")
    line = [sys.executable, "-m", "w2s_mlflow", "sweep", "--sweep", "grid.py", "--seeds", "0,1"]
    line += ["--train-size", "200", "--test-size", "150"]
    logs = [here.directory / "first.log", here.directory / "second.log"]
    with logs[0].open("wb") as first, logs[1].open("wb") as second:
        processes = [subprocess.Popen(line, cwd=here.directory, env=here.environment, stderr=log) for log in (first, second)]
        statuses = [process.wait(DEADLINE) for process in processes]
    assert statuses == [0, 0], "\n".join(log.read_text()[-2000:] for log in logs)
    once(here.runs(), len(here.runs()))
    sweeps = mlflow.MlflowClient(here.uri).search_runs(["0"], "tags.`w2s.stage` = 'sweep'")
    assert [run.info.status for run in sweeps] == ["FINISHED"] * 2
    first_found, second_found = (json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/runs.json")) for run in sweeps)
    assert first_found == second_found and len(first_found) == 2 * 2 + 1


@pytest.mark.slow
def test_a_sweep_says_whom_it_waits_for(here: Place) -> None:
    owner = start(here, "supervisor", pause_in_training)
    assert owner.said() == "training"
    (here.directory / "grid.py").write_text('SETTINGS = [{"stage": "supervisor"}]\n')
    line = [sys.executable, "-m", "w2s_mlflow", "sweep", "--sweep", "grid.py", "--seeds", "0"]
    line += [f"--{name.replace('_', '-')}={size}" for name, size in SMALL.items()]
    with subprocess.Popen(line, cwd=here.directory, env=here.environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = b""
        while f"which process {owner.process.pid} on ".encode() not in said:
            read = os.read(process.stderr.fileno(), 2**16)
            assert read, said.decode()
            said += read
        owner.go_on()
        process.communicate(timeout=DEADLINE)
    assert owner.outcome().run_id == finished(here).info.run_id
