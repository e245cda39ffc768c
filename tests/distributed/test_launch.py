"""Two processes of one launch make what one makes alone, once; they end together, and by one sentence."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import psutil
import pytest
from mlflow.entities import Run
from torch._C._distributed_c10d import HashStore, Store

from tests.conftest import SMALL, runs
from tests.servers import DEADLINE
from w2s_mlflow import exceptions
from w2s_mlflow.cli import app
from w2s_mlflow.distributed import launch, process_group
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch
from w2s_mlflow.stages import student, sweep
from w2s_mlflow.tracking import followers, lifecycle, recorder, reports, results
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.fingerprint import FingerprintParts
from w2s_mlflow.tracking.results import Result
from w2s_mlflow.training import checkpoint

ROOT = Path(__file__).parents[2]
FSDP = {"ACCELERATE_USE_FSDP": "true"}
OPTIONS: dict[str, Any] = SMALL | {
    "weak": "chess-27k",
    "strong": "chess-121k",
    "epochs": 24,
    "early_stopping": "none",
    "checkpoint_every": 4,
}
STUDENT = ["student", "--json", *(word for name, value in OPTIONS.items() for word in (exceptions.flag(name), str(value)))]
SHARDS = ("--use_fsdp", "--fsdp_version", "2")
PARTS = FingerprintParts("test", 1, {"size": 3}, "data", {}, {}, {})


def launched(line: list[str], directory: Path, kind: Sequence[str] = ("--multi_gpu",)) -> subprocess.Popen[str]:
    """The command line in two processes on the CPU, in the store of this test and an experiment of its own."""
    own = {"MLFLOW_EXPERIMENT_NAME": directory.name, "W2S_SCRATCH": str(directory / "scratch"), "ACCELERATE_USE_CPU": "1"}
    launcher = ["accelerate.commands.launch", *kind, "--num_processes", "2", "--main_process_port", "0"]
    line = [sys.executable, "-m", *launcher, "-m", "w2s_mlflow", *line]
    own["PYTHONPATH"] = str(ROOT)
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=directory, env=os.environ | own, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What was printed for programs and for people, once the launcher and all that it started have ended."""
    with process:
        try:
            return process.communicate(timeout=DEADLINE)
        finally:
            process.kill()


def runs_in(experiment: str) -> list[Run]:
    found = mlflow.MlflowClient().get_experiment_by_name(experiment)
    return list(mlflow.MlflowClient().search_runs([found.experiment_id])) if found else []


def stopped(process: subprocess.Popen[str], directory: Path) -> str:
    """What was printed by a launch whose launcher got SIGTERM once there was a checkpoint."""
    while process.poll() is None and not list((directory / "scratch").glob(f"*/*/{checkpoint.STATE}")):
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    _, printed = ended(process)
    assert len(workers) == 2 and not any(worker.is_running() for worker in workers)
    return printed


def check_same(alone: Result, pair: Result) -> None:
    """The same numbers, as far as sums in another order are the same."""
    assert alone.fingerprint == pair.fingerprint and alone.metrics.keys() == pair.metrics.keys()
    for name in alone.metrics.keys() - {"seconds"}:
        assert pair.metrics[name] == pytest.approx(alone.metrics[name], rel=1e-3, abs=1e-3), name
    for split in ("validation", "selection", "test"):
        one, other = alone.predictions(split), pair.predictions(split)
        assert one.ids == other.ids and np.allclose(one.probabilities_NC, other.probabilities_NC, atol=1e-3)


@pytest.mark.slow
def test_two_processes_stopped_and_started_again_make_what_one_makes(experiment: str, tmp_path: Path) -> None:
    alone = student.run(student.Config(**OPTIONS))
    printed = stopped(launched(STUDENT, tmp_path), tmp_path)
    assert printed.count("w2s_mlflow: ") == printed.count("w2s_mlflow: stopped; finished results are kept") == 1
    [killed] = [run for run in runs_in(tmp_path.name) if run.info.status != "FINISHED"]
    assert killed.info.status == "KILLED"

    shown, printed = ended(launched(STUDENT, tmp_path))
    assert printed.count("resumed from a checkpoint") == 1 and printed.count("trained student") == 1
    made = {run.data.tags["w2s.stage"]: run for run in runs_in(tmp_path.name)}
    assert sorted(made) == ["ceiling", "student", "supervisor"] and len(runs_in(tmp_path.name)) == 3
    assert {(run.info.status, run.data.tags["w2s.processes"]) for run in made.values()} == {("FINISHED", "2")}
    assert killed.info.run_id in {run.info.run_id for run in made.values()}
    history = mlflow.MlflowClient().get_metric_history(killed.info.run_id, "train/loss")
    assert sorted(metric.step for metric in history) == list(range(1, len(history) + 1))
    pair = results.get(json.loads(shown)["run_id"])
    assert pair.run_id == made["student"].info.run_id
    check_same(alone, pair)

    shown, printed = ended(launched(STUDENT, tmp_path))
    again = json.loads(shown)
    assert again["reused"] and again["run_id"] == pair.run_id and "trained" not in printed
    assert len(runs_in(tmp_path.name)) == 3


@pytest.mark.slow
def test_two_processes_with_shards_make_what_one_makes(experiment: str, tmp_path: Path) -> None:
    """With early stopping, so that the head is whole between epochs, in parts, and stopped once."""
    own: dict[str, Any] = SMALL | {"weak": "chess-27k", "strong": "chess-60k"}
    own |= {"loss": "confidence", "micro_batch": 5, "checkpoint_every": 1}
    line = ["student", "--json", *(word for name, value in own.items() for word in (exceptions.flag(name), str(value)))]
    alone = student.run(student.Config(**own))
    stopped(launched(line, tmp_path, SHARDS), tmp_path)
    shown, printed = ended(launched(line, tmp_path, SHARDS))
    assert printed.count("resumed from a checkpoint") == 1 and printed.count("trained student") == 1
    pair = results.get(json.loads(shown)["run_id"])
    assert pair.tags["w2s.processes"] == "2"
    check_same(alone, pair)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["student", "--epochs", "0"], "--epochs must be at least 1, got 0"),
        (
            ["student", "--train-size", "100000000"],
            "--train-size must be at most 8623, the number of training rows of this task, got 100000000",
        ),
    ],
)
def test_what_is_refused_is_said_once(line: list[str], sentence: str, experiment: str, tmp_path: Path) -> None:
    process = launched(line, tmp_path)
    shown, printed = ended(process)
    assert process.returncode and shown == ""
    assert printed.count("w2s_mlflow: ") == printed.count(f"w2s_mlflow: {sentence}") == 1
    assert "exitcode  : 2" in printed and printed.count("Traceback") == 1  # the launcher's own
    assert runs_in(tmp_path.name) == []


# --- without a launch -------------------------------------------------------------------------------------------------


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as the second of two."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)


def hear(monkeypatch: pytest.MonkeyPatch, *said: Any) -> None:
    """Let the leader say these values, one after the other."""
    words = iter(said)
    monkeypatch.setattr(launch, "broadcast_from_leader", lambda value: next(words))


def said(run_id: str, *, finished: bool, parts: FingerprintParts = PARTS, reused: bool = False) -> dict[str, Any]:
    return {"parts": followers._as_json(parts), "run_id": run_id, "finished": finished, "reused": reused}


def test_alone_everything_is_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    launch.check()
    launch.join()
    launch.leave()
    assert launch.size() == 1 and launch.is_leader() and launch.claims_error_message(2)
    assert launch.broadcast_from_leader({"x": 1}) == {"x": 1} and process_group.joined() is process_group.ALONE
    with pytest.raises(KeyError), launch.peer_failure_guard():
        raise KeyError


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"WORLD_SIZE": "two"}, r"^WORLD_SIZE must be a positive whole number, got two$"),
        (
            {"WORLD_SIZE": "2", "RANK": "0"},
            r"^WORLD_SIZE must be 1 if the environment lacks MASTER_ADDR and MASTER_PORT, which .* set, got 2",
        ),
        (FSDP | {"FSDP_VERSION": "1"}, r"^FSDP_VERSION must be 2 \(use --fsdp_version 2\), got 1$"),
        (
            FSDP | {"FSDP_OFFLOAD_PARAMS": "true"},
            r"^FSDP_OFFLOAD_PARAMS must be false \(offloading shards to the CPU is not supported\), got true$",
        ),
        (FSDP | {"FSDP_ACTIVATION_CHECKPOINTING": "true"}, r"_CHECKPOINTING must be false \(.* use --gradient-ch"),
        (
            FSDP | {"FSDP_RESHARD_AFTER_FORWARD": "false"},
            r"^FSDP_RESHARD_AFTER_FORWARD must be true \(blocks are always resharded after their forward pass\), got false$",
        ),
        ({"ACCELERATE_USE_DEEPSPEED": "True"}, r"^ACCELERATE_USE_DEEPSPEED must be false \(to shard .* --use_fsdp --fsdp_v"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, r"^ACCELERATE_MIXED_PRECISION must be no \(.* use --dtype\), got bf16$"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, r"_STEPS must be 1 \(.* use --micro-batch\), got 4$"),
    ],
)
def test_launches_of_another_kind_are_refused(
    setting: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence):
        launch.check()
    monkeypatch.setattr(sys, "argv", ["w2s_mlflow", "student", "--plan"])
    with pytest.raises(SystemExit) as exit_:
        app.main()
    assert exit_.value.code == 2 and capsys.readouterr().err.startswith("w2s_mlflow: ")


@pytest.mark.parametrize(("use", "size", "shards"), [("true", "2", True), ("true", "1", False), ("false", "2", False)])
def test_shards_are_for_several_processes_that_ask(
    use: str, size: str, shards: bool, second: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": size, "ACCELERATE_USE_FSDP": use, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}.items():
        monkeypatch.setenv(name, value)
    launch.check()
    assert launch.shards() == shards
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == ("false" if use == "true" else "true")  # all read the weights


@pytest.mark.parametrize("name", ["sweep", "main", "analyze", "runs", "rows"])
def test_what_one_process_makes_is_refused_to_several(
    name: str, second: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(sys, "argv", ["w2s_mlflow", name])
    with pytest.raises(SystemExit) as exit_:
        app.main()
    sentence = f"WORLD_SIZE must be 1 for {name} (only ceiling, generative, student, supervisor can run in several processes)"
    assert exit_.value.code == 2 and capsys.readouterr().err == f"w2s_mlflow: {sentence}, got 2\n"


@pytest.mark.slow
def test_a_grid_is_made_by_one_process(experiment: str, second: None) -> None:
    with pytest.raises(ConfigError, match=r"^WORLD_SIZE must be 1 for sweep, got 2$"):
        sweep.run(sweep.Config())


def test_who_follows_reads_what_the_leader_has_made(experiment: str, monkeypatch: pytest.MonkeyPatch, second: None) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with lifecycle.plain("x", "test", {}, "") as recording:
        recording.text("words.txt", "whole")
    monkeypatch.setenv("WORLD_SIZE", "2")
    made: list[recorder.Recorder] = []
    # The leader's first attempt does not count, as another has taken its place: it says so by beginning once more.
    hear(monkeypatch, said("a", finished=False), said("b", finished=False), said(recording.run_id, finished=True, reused=True))

    def make(own: recorder.Recorder) -> None:
        own.metrics({"x": 1})
        own.text("mine.txt", "x")
        made.append(own)

    found = followers.follow(PARTS, make)
    assert found.run_id == recording.run_id and found.reused and found.artifact("words.txt").read_text() == "whole"
    assert [own.run_id for own in made] == ["a", "b"] and not any(own.directory.exists() for own in made)
    kept = made[0].checkpoint(4)
    assert kept is not None and kept.directory == scratch.cache_path("a")
    assert len(runs()) == 1 and "x" not in found.metrics


def test_who_would_make_another_result_says_so(monkeypatch: pytest.MonkeyPatch, second: None) -> None:
    hear(monkeypatch, said("a", finished=False, parts=replace(PARTS, data="edited", version=2)))
    with pytest.raises(
        ConfigError, match=r"^process 1 requests a different result than process 0 \(different: version, data\):"
    ):
        followers.follow(PARTS, lambda own: pytest.fail("made"))


def test_a_step_of_one_process_is_read_by_the_others(experiment: str, monkeypatch: pytest.MonkeyPatch, second: None) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with lifecycle.plain("x", "test", {}, "") as recording:
        pass
    found = results.get(recording.run_id)
    server.client().set_tag(found.run_id, "w2s.report", "there")
    monkeypatch.setenv("WORLD_SIZE", "2")
    hear(monkeypatch, True, False)
    assert followers.leader_only(found, lambda: pytest.fail("taken twice")).tags["w2s.report"] == "there"
    assert not followers.leader_decides(lambda: pytest.fail("asked twice"))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, second: None) -> Store:
    """A store in the place of the launcher's; a test takes the place of each process in turn."""
    found = HashStore()
    monkeypatch.setattr(launch, "_store", lambda: found)
    monkeypatch.setattr(launch, "_has_joined", lambda: True)
    return found


def test_what_the_leader_says_is_heard_in_its_order(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    values = [{"x": [1, None]}, True, "word"]
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(launch, "_turns", itertools.count())
        own = values if rank == "0" else [None, None, None]
        assert [launch.broadcast_from_leader(value) for value in own] == values


@pytest.mark.parametrize(("status", "raised"), [(2, launch.PeerExitedError), (launch.STOPPED, KeyboardInterrupt)])
def test_the_first_to_end_is_heard_by_who_waits_and_by_who_breaks(
    status: int, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    assert launch.claims_error_message(status) and launch.claims_error_message(status)
    monkeypatch.setenv("RANK", "0")
    assert not launch.claims_error_message(2)
    with pytest.raises(raised), launch.peer_failure_guard():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(raised), launch.peer_failure_guard():
        raise KeyboardInterrupt
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(raised):
        launch.broadcast_from_leader(None)


def test_a_process_that_is_gone_without_a_word_is_missed(store: Store) -> None:
    with (
        pytest.raises(ConfigError, match=r"^one of the 2 processes ended without reporting an error"),
        launch.peer_failure_guard(),
    ):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match=r"^a fault of ours$"), launch.peer_failure_guard():
        raise RuntimeError("a fault of ours")


def test_before_they_have_met_the_leader_speaks_and_the_others_wait_for_their_end(
    monkeypatch: pytest.MonkeyPatch, second: None
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    assert not launch.claims_error_message(2)
    monkeypatch.setattr(launch, "PATIENCE", 0.0)
    assert launch.claims_error_message(2)
    monkeypatch.setenv("RANK", "0")
    assert launch.claims_error_message(2)


def test_before_they_have_met_the_leader_alone_says_that_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_has_joined", lambda: False)
    monkeypatch.setattr(launch, "_outlasts_launcher", lambda: True)
    for rank, told in (("0", (True, True)), ("1", (False, True))):
        for name, value in {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank}.items():
            monkeypatch.setenv(name, value)
        assert (launch.claims_error_message(launch.STOPPED), launch.claims_error_message(2)) == told


def test_only_the_leader_decides_whether_a_report_is_missing(
    experiment: str, monkeypatch: pytest.MonkeyPatch, second: None
) -> None:
    """A follower that read the run after the report was added must not leave the leader waiting."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    with lifecycle.plain("x", "test", {}, "") as recording:
        pass
    found = reports.attach(results.get(recording.run_id), "scores", reports.Report(tags={"w2s.report": "there"}))
    monkeypatch.setenv("WORLD_SIZE", "2")
    hear(monkeypatch, False, True)  # the leader found no report, and has added it
    again = reports.attach_once(found, "scores", lambda run: pytest.fail("built by a follower"))
    assert again.tags["w2s.report"] == "there"
    with pytest.raises(StopIteration):  # both of the leader's messages were taken
        launch.broadcast_from_leader(None)
