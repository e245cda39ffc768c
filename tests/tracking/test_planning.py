"""A plan says what would be done, and does nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow.cli import terminal
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.registry import plugin, plugins
from w2s_mlflow.stages import rule, student, supervisor, sweep
from w2s_mlflow.tracking import claims, heartbeat, planning, session
from w2s_mlflow.tracking.backend import server

pytestmark = pytest.mark.usefixtures("experiment")


def plan_of(stage: str, **options: Any) -> planning.Plan:
    module = plugin("stages", stage, "x")
    with session.planning() as plan:
        module.run(module.Config(**options))
    return plan


def states(plan: planning.Plan) -> dict[str, str]:
    return {step.name: step.state for step in plan.steps.values()}


def test_a_plan_names_each_result_once_and_starts_nothing() -> None:
    plan = plan_of("student", strong="chess-121k", **SMALL)
    assert states(plan) == {
        "supervisor chess chess-60k seed 0": "trained",
        "student chess chess-60k->chess-121k baseline seed 0": "trained",
        "ceiling chess chess-121k seed 0": "trained",
    }
    assert runs() == [] and claims.LOCK not in server.client().get_experiment(server.experiment().experiment_id).tags


def test_a_plan_tells_what_is_there_from_what_is_not_by_the_fingerprints_of_the_runs() -> None:
    before_all = plan_of("student", strong="chess-121k", **SMALL)
    student.run(student.Config(strong="chess-121k", **SMALL))
    assert set(before_all.steps) == {run.data.tags["w2s.fingerprint"] for run in runs()}
    before = len(runs())
    plan = plan_of("student", strong="chess-121k", method="confidence", **SMALL)
    assert sorted(states(plan).values()) == ["reused", "reused", "trained"]
    assert set(states(plan_of("student", strong="chess-121k", **SMALL)).values()) == {"reused"}
    assert len(runs()) == before


def test_a_student_that_is_not_reported_needs_no_ceiling() -> None:
    plan = plan_of("student", strong="chess-121k", report="none", **SMALL)
    assert [name.split()[0] for name in states(plan)] == ["supervisor", "student"]
    assert len(plan_of("student", strong="chess-121k", method="zero_shot", report="none", **SMALL).steps) == 1


def test_the_time_is_that_of_past_runs_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_of("supervisor", **SMALL).unknown() == 1
    found = supervisor.run(supervisor.Config(**SMALL))
    server.client().log_metric(found.run_id, "seconds", 3.0)
    twice = plan_of("supervisor", seed=1, train_size=400, test_size=150)
    assert twice.seconds() == pytest.approx(6.0) and twice.unknown() == 0
    assert plan_of("supervisor", seed=1, epochs=6, **SMALL).seconds() == pytest.approx(9.0)
    assert plan_of("supervisor", weak="chess-43k", **SMALL).unknown() == 1, "another model tells nothing of this one's time"
    assert plan_of("supervisor", **SMALL).seconds() == 0.0, "what is reused takes none"


def test_what_another_process_is_making_is_said() -> None:
    plan = plan_of("supervisor", **SMALL)
    tags = {"w2s.fingerprint": next(iter(plan.steps)), **heartbeat.owner_tags()}
    server.client().create_run(server.experiment().experiment_id, tags=tags)
    assert states(plan_of("supervisor", **SMALL)) == {"supervisor chess chess-60k seed 0": "running"}


ORDINARY = ("supervisor", "ceiling", "student", "facilitate", "debate", "align")


@pytest.fixture
def arguments(tmp_path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    (tmp_path / "grid.py").write_text("SETTINGS = [{'strong': 'chess-121k'}, {'stage': 'rule'}]")
    found: dict[str, dict[str, Any]] = {
        name: dict(SMALL) for name in (*ORDINARY, "generative", "rule", "probe", "errors", "main")
    }
    found |= {"sweep": {"sweep": str(tmp_path / "grid.py"), **SMALL}, "pretrain": {}, "analyze": {}}
    yield found


@pytest.mark.shared  # all find it empty
@pytest.mark.parametrize("stage", sorted({*plugins("stages")} - {"analyze", "main"}))  # main is the grid of sweep
def test_every_stage_can_be_planned(stage: str, arguments: dict[str, dict[str, Any]]) -> None:
    assert plan_of(stage, **arguments[stage]).steps
    assert runs() == []


def test_an_analysis_can_be_planned_once_there_is_a_run() -> None:
    with pytest.raises(ConfigError, match="no finished student"):
        plan_of("analyze")
    rule.run(rule.Config(**SMALL))
    assert len(plan_of("analyze").steps) == 1 and len(runs()) == 1


@pytest.mark.slow
def test_a_grid_is_summed_up_by_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with session.planning() as plan:
        sweep.run(sweep.Config(seeds="0..3", **SMALL))
    terminal.show_plan(plan)
    said = capsys.readouterr().err
    assert f"0 reused, {len(plan.steps)} to be trained" in said and "Nothing was started" in said
    assert " x supervisor" in said and "confidence" not in said
    assert plan.summary()["trained"] == len(plan.steps) == len(plan.summary()["steps"])


def test_what_others_train_is_summed_up_apart_from_what_is_to_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    states_ = [planning.RUNNING] * 40 + [planning.TRAINED, planning.REUSED]
    steps = {str(seed): planning.Step(f"student chess seed {seed}", state, 60.0) for seed, state in enumerate(states_)}
    terminal.show_plan(planning.Plan(steps))
    assert [line.split() for line in capsys.readouterr().err.splitlines()[:2]] == [
        ["being", "trained", "40.0", "min", "40", "x", "student"],
        ["to", "be", "trained", "60.0", "s", "1", "x", "student"],
    ]


@pytest.mark.slow
def test_the_command_prints_the_plan_and_nothing_runs(tmp_path: Path) -> None:
    line = [
        sys.executable,
        "-m",
        "w2s_mlflow",
        "supervisor",
        "--train-size",
        "200",
        "--test-size",
        "150",
        "--plan",
        "true",
        "--json",
    ]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["reused"], found["trained"], found["running"]) == (0, 1, 0)
    assert found["steps"][0]["name"] == "supervisor chess chess-60k seed 0" and found["steps"][0]["seconds"] is None
    assert "to be trained" in done.stderr and runs() == []
