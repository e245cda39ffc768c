"""A grid is drained once, its tables are recomputed from predictions, and a wrong number is refused."""

from __future__ import annotations

import csv
import inspect
from pathlib import Path

import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow.analysis import build
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.stages import analyze, sweep
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.backend import server

GRID = """
SETTINGS = [
    {"stage": "rule", "rule": "random"},
    {"strong": "chess-121k", "method": "baseline"},
    {"strong": "chess-121k", "method": "confidence", "alpha": 0.6},
]
"""


@pytest.fixture
def grid(tmp_path: Path, experiment: str) -> sweep.Config:
    """A small grid in a file of its own."""
    path = tmp_path / "grid.py"
    path.write_text(GRID)
    return sweep.Config(sweep=str(path), seeds="0..1", **SMALL)


@pytest.fixture(autouse=True)
def few_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of an analysis is the drawing of its figures: only tests that look at them wait for it."""
    if "figure" not in inspect.getsource(request.function):
        monkeypatch.setattr(build, "_figures", lambda *_: [])


def rows(result: results.Result, name: str) -> list[dict[str, str]]:
    with result.artifact(f"tables/{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.shared
def test_a_grid_builds_shared_inputs_once_and_carries_the_aggregates(grid: sweep.Config) -> None:
    parent = sweep.run(grid)
    stages = sorted(run.data.tags["w2s.stage"] for run in runs())
    assert stages == ["ceiling"] * 2 + ["rule"] + ["student"] * 4 + ["supervisor"] * 2 + ["sweep"]
    children = [run for run in runs() if run.data.tags.get("mlflow.parentRunId") == parent.run_id]
    assert len(children) == 9
    table = {row["method"]: row for row in rows(parent, "pgr")}
    assert set(table) == {"rule:random", "baseline", "confidence"}
    assert [table[name]["n"] for name in table] == ["1", "2", "2"]
    label = "chess chess-60k chess-121k reward confidence"
    assert parent.metrics[f"{label}/accuracy"] == pytest.approx(float(table["confidence"]["accuracy"]))


@pytest.mark.shared
def test_the_second_time_nothing_is_made_until_something_is_damaged(grid: sweep.Config) -> None:
    first, made = sweep.run(grid), len(runs())
    second = sweep.run(grid)
    assert (second.run_id, second.reused, len(runs())) == (first.run_id, True, made)
    victim = next(run for run in runs() if run.data.tags["w2s.stage"] == "student")
    results.get(victim.info.run_id).artifact("predictions/test.parquet").write_bytes(b"torn")
    third = sweep.run(grid)
    assert third.run_id != first.run_id and len(runs()) == made + 2  # the student and the parent
    assert rows(first, "pgr") == rows(third, "pgr") and rows(first, "paired_tests") == rows(third, "paired_tests")


@pytest.mark.slow
def test_a_training_that_comes_to_nothing_does_not_stop_the_others(tmp_path: Path, experiment: str) -> None:
    (tmp_path / "grid.py").write_text(GRID.replace('"alpha": 0.6', '"learning_rate": 1e29'))
    said = r"2 of 5 runs of sweep grid.py failed \(first error: the loss of step \d of \d is not finite.*are in run"
    with pytest.raises(ConfigError, match=said):
        sweep.run(sweep.Config(sweep="grid.py", seeds="0..1", **SMALL))
    parent = results.result(next(run for run in runs() if run.data.tags["w2s.stage"] == "sweep"), reused=False)
    assert {row["method"] for row in rows(parent, "pgr")} == {"rule:random", "baseline"}
    assert "not finite" in parent.artifact("failed.json").read_text()
    diverged = [row["exclusion_rule"] for row in rows(parent, "excluded_runs")]
    assert diverged == ["diverged"] * 2  # counted by the parent, and by an analysis of the experiment
    assert [row["exclusion_rule"] for row in rows(analyze.run(analyze.Config()), "excluded_runs")] == diverged


CLAIM = """
CLAIM = {"task": "chess", "weak": "chess-60k", "strong": ["chess-121k"], "above": ["supervisor", "label_free"]}
"""


@pytest.mark.slow
def test_a_claim_is_stored_before_the_runs_and_analysed_with_them(grid: sweep.Config) -> None:
    path = Path(grid.sweep)
    plain = sweep.run(grid)
    path.write_text(GRID + CLAIM)
    parent = sweep.run(grid)
    assert parent.run_id != plain.run_id and sweep.run(grid).run_id == parent.run_id
    declared = [row for row in rows(parent, "claim") if row["claim"] == parent.name]
    assert [row["reference"] for row in declared] == ["supervisor", "label_free"]
    assert declared[1]["verdict"] == "not tested"  # the rule `random` is no label-free answer
    assert [row for row in rows(analyze.run(analyze.Config()), "claim") if row["claim"] == parent.name] == declared
    students = [run for run in runs() if run.data.tags["w2s.stage"] == "student"]
    assert {run.data.tags["w2s.collapsed"] for run in students} <= {"no", "one class"}


@pytest.mark.parametrize("claim", ["CLAIM = []", 'CLAIM = {"task": "chess"}', CLAIM.replace('["chess-121k"]', "[]")])
def test_a_claim_of_another_form_is_refused(grid: sweep.Config, claim: str) -> None:
    Path(grid.sweep).write_text(GRID + claim)
    with pytest.raises(ConfigError, match=r"grid.py: CLAIM must be a dictionary with the texts task and weak"):
        sweep.Config(sweep=grid.sweep)


@pytest.mark.slow
def test_analyze_says_of_the_experiment_what_the_grid_said(grid: sweep.Config) -> None:
    parent = sweep.run(grid)
    found = analyze.run(analyze.Config())
    by_method = {row["method"]: row for row in rows(found, "pgr")}
    assert by_method == {row["method"]: row for row in rows(parent, "pgr")}
    only = analyze.run(analyze.Config(filter="tags.`w2s.method` = 'baseline'"))
    assert [row["method"] for row in rows(only, "pgr")] == ["baseline"]


@pytest.mark.slow
def test_a_number_that_the_predictions_do_not_give_is_left_out_and_named(grid: sweep.Config) -> None:
    sweep.run(grid)
    victim = next(run for run in runs() if run.data.tags["w2s.stage"] == "student")
    server.client().log_metric(victim.info.run_id, "test/accuracy", 0.99)
    found = analyze.run(analyze.Config())
    (row,) = rows(found, "excluded_runs")
    assert (row["exclusion_rule"], row["run_id"]) == ("contradicted", victim.info.run_id)
    assert "reports test/accuracy = 0.99, but its stored predictions give" in row["reason"]
    assert victim.info.run_id[:8] in found.artifact("report.html").read_text()
    n = {row["method"]: row["n"] for row in rows(found, "pgr")}
    assert n[victim.data.params["method"]] == "1" and sum(map(int, n.values())) == 4


@pytest.mark.slow
def test_settings_of_one_label_are_told_apart(grid: sweep.Config, tmp_path: Path) -> None:
    path = tmp_path / "alphas.py"
    path.write_text("SETTINGS = [{'strong': 'chess-121k', 'loss': 'confidence', 'alpha': a} for a in (0.2, 0.8)]")
    parent = sweep.run(sweep.Config(sweep=str(path), seeds="0", **SMALL))
    assert sorted(row["method_options"] for row in rows(parent, "pgr")) == ["alpha=0.2", "alpha=0.8"]
    assert parent.artifact("figures/pgr_by_size.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SETTINGS = []", "must define either SETTINGS"),
        ("SETTINGS = [", "cannot be loaded: SyntaxError"),
        ("import nothing_of_the_kind", "cannot be loaded: ModuleNotFoundError"),
        ("SETTINGS = [{'stage': 'studnet'}]", "stage must be one of .* got 'studnet'"),
        ("SETTINGS = [{'method': 'confidence', 'alpha': 3.0}]", r"--alpha must be in \[0, 1\], got 3.0"),
        ("SETTINGS = [{'metod': 'confidence'}]", "the option must be one of .*did you mean --method"),
    ],
)
def test_a_wrong_grid_starts_nothing(text: str, message: str, tmp_path: Path, experiment: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        sweep.run(sweep.Config(sweep=str(path)))
    assert runs() == []
