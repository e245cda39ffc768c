"""Published results as runs: what becomes of a row, what is refused, and that own runs stay apart. All numbers are invented."""

from __future__ import annotations

import csv
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from scipy import stats as scipy_stats

from tests.conftest import SMALL, runs
from w2s_mlflow.analysis import build, imported, leaderboard, published_file
from w2s_mlflow.cli import app
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.stages import analyze, student
from w2s_mlflow.tables import Frames, pgr
from w2s_mlflow.tables import paired_tests as tests_
from w2s_mlflow.tracking import results, why
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

GAINS = (0.10, 0.10, 0.16)
"""Student minus supervisor, by seed: the mean is .12, the standard error .02."""
HEADER = "task,role,method,seed,accuracy\n"
TABLE = "task,role,method,seed,weak_model,strong_model,test_accuracy,correct,rows,epochs\n" + "".join(
    f"sums,supervisor,,{seed},small,large,0.5,50,100,3\n"
    f"sums,student,plain,{seed},small,large,{0.5 + gain:.2f},,,3\n"
    f"sums,ceiling,,{seed},small,large,0.7,,,\n"
    for seed, gain in enumerate(GAINS)
)


def written(directory: Path, text: str) -> str:
    path = directory / "published.csv"
    path.write_text(text)
    return str(path)


def frames() -> Frames:
    return build.load(build.pull(analyze.Config()))


def all_runs() -> list[Result]:
    return build.pull(analyze.Config())


# --- what becomes of a row --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(shared: str, tmp_path_factory: pytest.TempPathFactory) -> imported.Imported:
    """The table as runs of the file's experiment."""
    return imported.import_file(written(tmp_path_factory.mktemp("published"), TABLE))


def test_pgr_and_its_interval_are_those_worked_by_hand(first: imported.Imported) -> None:
    (row,) = leaderboard.board()
    assert (row["task"], row["weak"], row["strong"], row["head"]) == ("sums", "small", "large", "imported")
    assert (row["method"], row["n"], row["pgr_status"]) == ("plain", 3, "ok")
    half = scipy_stats.t.ppf(0.975, df=2) * 0.02 / 0.2  # the gap is .2 with every seed
    assert row["pgr"] == pytest.approx(0.12 / 0.2)
    assert (row["pgr_low"], row["pgr_high"]) == pytest.approx((0.6 - half, 0.6 + half))


def test_a_student_is_linked_to_supervisor_and_ceiling_of_its_seed(first: imported.Imported) -> None:
    by_id = {run.run_id: run for run in all_runs()}
    assert set(first.run_ids) == set(by_id) and first.new == 9
    for run in (run for run in by_id.values() if run.stage == "student"):
        weak, ceiling = (by_id[run.tags[f"w2s.{role}_run_id"]] for role in ("weak", "ceiling"))
        assert (weak.stage, ceiling.stage) == ("supervisor", "ceiling")
        assert weak.params["seed"] == ceiling.params["seed"] == run.params["seed"]
        assert run.metrics["test/pgr"] == pytest.approx((run.metrics["test/accuracy"] - 0.5) / 0.2)
    for run in by_id.values():
        assert run.tags[results.IMPORTED] == "published.csv"
        assert run.metrics.get("test/rows") == (100 if run.stage == "supervisor" else None)


def test_the_same_rows_make_no_second_run_under_another_name_of_the_file(first: imported.Imported, tmp_path: Path) -> None:
    again = tmp_path / "copy.csv"
    again.write_text(TABLE)
    second = imported.import_file(str(again))
    assert (second.new, second.found) == (0, 9) and set(second.run_ids) == set(first.run_ids)
    assert len(all_runs()) == 9


def test_the_analysis_has_them_in_its_tables_and_the_report_says_imported(first: imported.Imported) -> None:
    found = analyze.run(analyze.Config())
    with found.artifact("tables/runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and {row["head"] for row in rows} == {"imported"} and {row["seconds"] for row in rows} == {""}
    with found.artifact("tables/pgr.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["task"], row["method"], row["low"], row["high"]) == ("sums", "plain", row["pgr_low"], row["pgr_high"])
    assert float(row["low"]) < float(row["pgr"]) < float(row["high"])
    page = found.artifact("report.html").read_text()
    assert "9 run(s) were imported from published results" in page and "The accuracies of 9 imported runs are those" in page
    assert "no supervisor" not in page and "python -m w2s_mlflow student" not in page
    assert not {path for path in found.digests if "compute" in path or "calibration" in path or "by_size" in path}


def test_what_needs_rows_or_code_says_that_the_run_was_imported(first: imported.Imported) -> None:
    one, two = first.run_ids[:2]
    with pytest.raises(ConfigError, match="it was imported without predictions"):
        leaderboard.compare(one, two)
    with pytest.raises(ConfigError, match=r"was imported: its code and options are unknown"):
        why.explain(one)


# --- several imports --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("experiment")
def test_repeats_of_a_seed_are_averaged(tmp_path: Path) -> None:
    more = "sums,student,plain,1,small,large,0.68,,,\n"  # beside .60: mean .64, a gain of .14
    outcome = imported.import_file(written(tmp_path, TABLE + more))
    assert outcome.new == 10
    found = frames()
    (row,) = pgr.table(found.outcomes).to_dict("records")
    assert row["n"] == 3 and row["pgr"] == pytest.approx((0.10 + 0.14 + 0.16) / 3 / 0.2)
    assert len(found.runs) == 10 and found.left_out.empty
    assert sorted(found.runs["other_options"].unique()) == ["", "repeat=1", "repeat=2"]


@pytest.mark.usefixtures("experiment")
def test_a_corrected_row_replaces_the_older_one_and_what_was_compared_with_it(tmp_path: Path) -> None:
    imported.import_file(written(tmp_path, TABLE))
    corrected = TABLE.replace("sums,ceiling,,0,small,large,0.7", "sums,ceiling,,0,small,large,0.8")
    assert imported.import_file(written(tmp_path, corrected)).new == 2
    found = frames()
    assert set(found.left_out["exclusion_rule"]) == {"duplicated seed"} and len(found.left_out) == 2
    assert pgr.table(found.outcomes)["pgr"].tolist() == [pytest.approx(0.36 / (0.3 + 0.2 + 0.2))]


@pytest.mark.usefixtures("experiment")
def test_an_interrupted_import_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    produce, calls = imported._produce, []

    def interrupted(*args: Any) -> Result:
        calls.append(args)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return produce(*args)

    monkeypatch.setattr(imported, "_produce", interrupted)
    with pytest.raises(KeyboardInterrupt):
        imported.import_file(written(tmp_path, TABLE))
    monkeypatch.setattr(imported, "_produce", produce)
    outcome = imported.import_file(written(tmp_path, TABLE))
    assert (outcome.new, outcome.found) == (5, 4)


@pytest.mark.usefixtures("experiment")
def test_a_student_without_a_ceiling_has_accuracy_and_no_pgr(tmp_path: Path) -> None:
    text = HEADER + "sums,weak,,0,0.5\nsums,student,plain,0,0.6\nsums,student,plain,1,0.7\n"
    outcome = imported.import_file(written(tmp_path, text))
    assert (outcome.new, outcome.without_supervisor, outcome.without_ceiling) == (3, 1, 2)
    (row,) = leaderboard.board()
    assert row["accuracy"] == pytest.approx(0.65) and row["pgr"] is None and row["n"] == 2
    assert {run.tags["w2s.pgr_status"] for run in all_runs() if run.stage == "student"} == {"no weak", "no ceiling"}


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_own_runs_stay_what_they_are_beside_imported_ones_of_the_same_names(tmp_path: Path) -> None:
    for seed in (0, 1):
        student.run(student.Config(weak="chess-27k", strong="chess-27k", method="baseline", seed=seed, epochs=1, **SMALL))
    before, tests_before = leaderboard.board(), tests_.table(frames().outcomes)
    text = TABLE
    for invented, name in {"sums": "chess", "plain": "baseline", "small": "chess-27k", "large": "chess-27k"}.items():
        text = text.replace(invented, name)
    imported.import_file(written(tmp_path, text))
    after, tests_after = leaderboard.board(), tests_.table(frames().outcomes)
    assert [row for row in after if row["head"] != "imported"] == before
    assert [row["n"] for row in after if row["head"] == "imported"] == [3]
    own = tests_after[tests_after["head"] != "imported"].reset_index(drop=True)
    assert own.equals(tests_before), "Holm's correction counts own tests alone"


# --- what is refused --------------------------------------------------------------------------------------------------

BROKEN = {
    "sums,teacher,,0,0.5": r"role in line 2 of .* must be one of ceiling, student, supervisor, weak, got 'teacher'",
    "sums,student,,0,0.5": r"method in line 2 of .* must be nonempty text other than '-', got ''",
    ",student,m,0,0.5": r"task in line 2 of .* must be nonempty text other than '-', got ''",
    "sums,student,m,1.0,0.5": r"seed in line 2 of .* must be a whole number of at least 0, got '1.0'",
    "sums,student,m,-1,0.5": r"seed in line 2 of .* must be a whole number of at least 0, got '-1'",
    "sums,student,m,0,73": r"accuracy in line 2 of .* must be a number in \[0, 1\], got '73'",
    "sums,student,m,0,nan": r"accuracy in line 2 of .* must be a number in \[0, 1\], got 'nan'",
    "sums,student,m,0,": r"accuracy in line 2 of .* must be a number in \[0, 1\], got ''",
    "sums,student,m,0": r"line 2 of .* must be a row with 5 values, one per column, got 4",
    "sums,student,m,0,0.5,7": r"line 2 of .* must be a row with 5 values, one per column, got 6",
    'sums,student,"m,0,0.5': r"line 2 of .* must be valid CSV, got text with an error \(unexpected end of data\)",
    "sums,student,m,0,0.5\n\nsums,ceiling,,0,x": r"accuracy in line 4 of .* must be a number in \[0, 1\], got 'x'",
    "sums,weak,,0,0.5\nsums,supervisor,,0,0.6": r"accuracy in line 3 of .* must be 0.5 as in line 2, because both are the",
    "": r"FILE must be a CSV file with at least one row below its header, got .*published.csv",
}
"""Rows below HEADER and what the refusal says."""
WRONG_FILES = {
    "": r"FILE must be a CSV file with the columns task, role, method, seed, accuracy, got .* without task, role,",
    "task,role,seed,accuracy\n": r"FILE must be .*, got .*published.csv without method",
    "task,role,method,seed,accuracy,test_accuracy\n": r"FILE must be .* one column for accuracy, got .* with accuracy and test",
    f"weak,{HEADER},sums,student,m,0,0.5\n": r"weak in line 2 of .* must be nonempty text other than '-', got ''",
    f"rows,{HEADER}0,sums,student,m,0,0.5\n": r"rows in line 2 of .* must be a whole number of at least 1, got '0'",
    f"correct,rows,{HEADER}7,5,sums,student,m,0,0.5\n": r"correct in line 2 of .* must be at most the number of rows, 5, got",
    f"correct,rows,{HEADER}3,5,sums,student,m,0,0.5\n": r"accuracy in line 2 of .* must be correct / rows = 0.6000, got '0.5'",
}


@pytest.mark.parametrize("text", [*(HEADER + rows for rows in BROKEN), *WRONG_FILES])
def test_a_broken_file_is_refused_with_line_column_value_and_rule(text: str, tmp_path: Path) -> None:
    message = WRONG_FILES[text] if text in WRONG_FILES else BROKEN[text.removeprefix(HEADER)]
    with pytest.raises(ConfigError, match=f"^{message}"):
        published_file.read(Path(written(tmp_path, text)))


def test_counts_may_be_missing_and_a_rounded_accuracy_is_not_contradicted(tmp_path: Path) -> None:
    text = f"correct,rows,{HEADER},,sums,student,m,0,0.5\n2,3,sums,student,m,1,0.67\n4,,sums,student,m,2,0.9\n"
    rows = published_file.read(Path(written(tmp_path, text)))
    assert [(row.correct, row.rows) for row in rows] == [(None, None), (2, 3), (4, None)]


def test_a_supervisor_that_is_listed_for_each_strong_model_is_one_run(tmp_path: Path) -> None:
    text = f"weak,strong,{HEADER}w,s1,sums,supervisor,,0,0.5\nw,s2,sums,supervisor,,0,0.5\n"
    assert len(published_file.read(Path(written(tmp_path, text)))) == 1


@pytest.mark.usefixtures("experiment")
def test_the_command_imports_nothing_of_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, TABLE + "sums,ceiling,,9,small,large,1.7,,,\n")
    for name, said in ((path, "test_accuracy in line 11 of"), (str(tmp_path / "none.csv"), "FILE must be an existing file")):
        monkeypatch.setattr(sys, "argv", ["w2s_mlflow", "import", name])
        with pytest.raises(SystemExit) as stop:
            app.main()
        printed = capsys.readouterr()
        assert stop.value.code == 2 and printed.err.count("\n") == 1 and said in printed.err
    assert runs() == []


@pytest.mark.usefixtures("experiment")
def test_the_command_says_what_it_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, HEADER + "sums,student,plain,0,0.6\n")
    monkeypatch.setattr(sys, "argv", ["w2s_mlflow", "import", path])
    app.main()
    printed = capsys.readouterr().err
    assert "imported 1 run(s) from" in printed and "1 student(s) have no ceiling" in printed
    assert [run.info.experiment_id for run in runs()] == [server.experiment().experiment_id]


# --- real results -----------------------------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.usefixtures("experiment")
def test_the_published_study_has_the_pgr_that_its_seeds_give(published: Path) -> None:
    assert imported.import_file(str(published)).new == 155
    found = {row["method"]: row for row in leaderboard.board() if row["task"] == "chat"}
    expected = {
        "baseline": (0.18, 0.08, 0.29),
        "confident_labels_only": (0.21, 0.10, 0.33),
        "critic": (-0.07, -0.20, 0.06),
    }
    for method, values in expected.items():
        assert tuple(round(found[method][name], 2) for name in ("pgr", "pgr_low", "pgr_high")) == values
    assert found["unsupervised_zero_shot"]["n"] == 1 and math.isfinite(found["unsupervised_zero_shot"]["pgr"])


@pytest.fixture
def published() -> Path:
    """The results of others beside the mirror of public data sets."""
    if "W2S_DATA_DIR" not in os.environ:
        pytest.skip("needs W2S_DATA_DIR, a mirror of public data sets")
    path = Path(os.environ["W2S_DATA_DIR"]) / "published" / "aar_results.csv"
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path
