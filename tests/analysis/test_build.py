"""What an analysis counts and what it leaves out, and that it reads nothing twice."""

from __future__ import annotations

import csv
import inspect
import json
import re
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests import servers
from tests.conftest import SMALL, purge, runs
from w2s_mlflow.analysis import build, leaderboard, outcomes, report, scores
from w2s_mlflow.config import parse
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline import scoring
from w2s_mlflow.stages import analyze, rule, student
from w2s_mlflow.tables import Frames, calibration, compute, pgr
from w2s_mlflow.tracking import results, run_cache
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.usefixtures("experiment")


@pytest.fixture(autouse=True)
def few_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of an analysis is the drawing of its figures: only tests that look at them wait for it."""
    if "figure" not in inspect.getsource(request.function):
        monkeypatch.setattr(build, "_figures", lambda *_: [])


def made(**options: Any) -> Result:
    return student.run(
        parse(student.Config, {"strong": "chess-43k", "weak": "chess-27k", "ceiling": "none", "epochs": 1} | SMALL | options)
    )


def frames() -> Frames:
    return build.load(build.pull(analyze.Config()))


def left_out() -> dict[str, tuple[str, str]]:
    """(rule, reason) by run id."""
    return {row["run_id"]: (row["exclusion_rule"], row["reason"]) for row in frames().left_out.to_dict("records")}


def table(found: Result, name: str) -> list[dict[str, str]]:
    with found.artifact(f"tables/{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- what is left out -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_to_analyse_is_one_sentence_and_no_run() -> None:
    with pytest.raises(ConfigError, match=r"^there is no finished student to analyse"):
        analyze.run(analyze.Config())
    assert runs() == []


@pytest.mark.slow
def test_a_damaged_file_is_named_and_the_others_count() -> None:
    found = [made(seed=seed) for seed in (0, 1)]
    path = found[0].artifact("predictions/test.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    rule_, reason = left_out()[found[0].run_id]
    assert rule_ == "damaged" and "damaged artifact predictions/test.parquet" in reason
    assert list(frames().outcomes["run_id"]) == [found[1].run_id]
    page = analyze.run(analyze.Config()).artifact("report.html").read_text()
    assert "Excluded (damaged): 1 run(s)" in page and found[0].run_id[:8] in page


@pytest.mark.slow
def test_a_lost_file_is_named() -> None:
    found = made()
    found.artifact("predictions/test.parquet").unlink()
    said = f"run {found.run_id} ({found.name}) is missing its artifact predictions/test.parquet"
    assert left_out()[found.run_id] == ("damaged", said)


def test_everything_left_out_is_a_report_of_that() -> None:
    found = made()
    found.artifact("predictions/test.parquet").unlink()
    analysis = analyze.run(analyze.Config())
    assert "0 students and 0 rules" in analysis.artifact("report.html").read_text()
    assert [row["exclusion_rule"] for row in table(analysis, "excluded_runs")] == ["damaged"]


@pytest.mark.slow
def test_a_student_that_was_not_reported_is_named() -> None:
    found, other = made(report="none"), made(seed=1)
    assert left_out() == {found.run_id: ("not reported", "it has no test report (--eval-split none or selection)")}
    assert list(frames().outcomes["run_id"]) == [other.run_id]


@pytest.mark.slow
def test_of_runs_that_differ_in_their_code_alone_the_newest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made()
    monkeypatch.setattr(student, "VERSION", student.VERSION + 1)
    second = made()
    assert second.run_id != first.run_id
    assert left_out()[first.run_id] == ("duplicated seed", f"the newer run {second.run_id} has the same options and seed")
    assert list(frames().outcomes["run_id"]) == [second.run_id]


@pytest.mark.slow
def test_older_data_of_the_same_cut_is_not_mixed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    first = made()
    server.client().set_tag(first.run_id, "w2s.data", "f" * 32)
    server.client().set_terminated(first.run_id, "FINISHED")
    second = made(method="confidence")
    rule_, reason = left_out()[first.run_id]
    assert rule_ == "other data" and "ffffffffffff" in reason
    assert list(frames().outcomes["run_id"]) == [second.run_id]


@pytest.mark.slow
def test_without_a_ceiling_there_is_accuracy_and_no_pgr_and_the_report_says_so() -> None:
    made()
    found = analyze.run(analyze.Config())
    (row,) = table(found, "pgr")
    assert float(row["accuracy"]) > 0 and row["pgr"] == row["pgr_status"] == ""
    page = found.artifact("report.html").read_text()
    assert "1 student(s) have no ceiling scored on the same test rows, and therefore no PGR." in page and "one seed" in page


@pytest.mark.slow
def test_a_failed_ceiling_is_counted_and_said() -> None:
    found = made(seed=3, ceiling="gold")
    server.client().set_tag(found.run_id, scoring.CEILING_FAILED, scoring.NEAR_CHANCE)
    server.client().set_terminated(found.run_id, "FINISHED")
    analysis = analyze.run(analyze.Config())
    assert table(analysis, "pgr")[0]["failed_ceilings"] == "1"
    assert "The ceiling of 1 of 1 students did not learn" in analysis.artifact("report.html").read_text()


# --- what is compared -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_methods_are_told_from_the_settings_they_ran_in() -> None:
    options: list[dict[str, Any]] = [{}, {"method": "confidence"}, {"epochs": 2}, {"method": "confidence", "epochs": 2}]
    for seed in (0, 1):
        for option in [*options, {"loss": "confidence", "alpha": 0.2}]:
            made(seed=seed, **option)
    found = frames().outcomes
    assert set(zip(found["method"], found["method_options"], found["other_options"], strict=True)) == {
        ("baseline", "", ""),
        ("confidence", "", ""),
        ("baseline", "", "epochs=1"),
        ("confidence", "alpha=0.2", "epochs=1"),
        ("confidence", "", "epochs=1"),
    }
    tests = table(analyze.run(analyze.Config()), "paired_tests")
    pairs = {(row["baseline"], row["method"], row["other_options"]) for row in tests if row["baseline"] != "supervisor"}
    assert pairs == {
        ("baseline", "confidence", ""),
        ("baseline", "confidence alpha=0.2", "epochs=1"),
        ("baseline", "confidence", "epochs=1"),
    }


@pytest.mark.slow
def test_one_run_with_another_rate_leaves_the_others_what_they_are() -> None:
    for seed in (0, 1):
        made(seed=seed)
    made(learning_rate=1e-3)
    found = frames().outcomes
    assert sorted(found["method_options"]) == ["", "", "learning_rate=0.001"]


OPTIONS: tuple[dict[str, Any], ...] = ({}, {"calibrate": True}, {"epochs": 2}, {"balance": True})


@pytest.mark.slow
def test_runs_of_other_options_are_not_other_seeds() -> None:
    for seed in (0, 1):
        for option in OPTIONS:
            made(seed=seed, **option)
    found = frames()
    assert not len(found.left_out)
    for table_ in (calibration.table(found.runs), compute.table(found.runs), pgr.table(found.outcomes)):
        assert set(table_["n"]) == {2}, table_


@pytest.mark.slow
def test_the_command_of_a_report_makes_the_same_run() -> None:
    found = made(loss="confidence", epochs=1, seed=1)
    page = analyze.run(analyze.Config()).artifact("report.html").read_text()
    line = next(line for line in page.splitlines() if "w2s_mlflow student" in line)
    words = line.replace("&#39;", "'").split("#")[0].split()
    options = dict(zip((word.lstrip("-").replace("-", "_") for word in words[4::2]), words[5::2], strict=True))
    assert student.run(parse(student.Config, options)).run_id == found.run_id


@pytest.mark.slow
def test_cost_counts_every_ancestor_once() -> None:
    found = made(strong="chess-121k", chain="chess-43k,chess-60k", rounds=1)
    row = frames().runs.set_index("run_id").loc[found.run_id]
    links = [results.get(run_id) for run_id in found.tags[student.CHAIN].split(",")]
    parents = [*links, results.get(links[0].tags["w2s.labels_run_id"])]
    tokens = [run.metrics["train/tokens"] for run in (found, *parents)]
    assert (row["tokens"], row["total_tokens"]) == (tokens[0], sum(tokens))
    assert row["flops"] == 6 * found.metrics["model/parameters"] * tokens[0]


# --- nothing twice ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_runs_are_analysed_once_and_a_new_one_is_seen() -> None:
    made()
    first = analyze.run(analyze.Config())
    again = analyze.run(analyze.Config())
    assert again.reused and again.run_id == first.run_id
    made(seed=1)
    later = analyze.run(analyze.Config())
    assert later.run_id != first.run_id and table(later, "pgr")[0]["n"] == "2"


@pytest.mark.slow
def test_what_is_known_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        made(seed=seed)
    experiment_id = server.experiment().experiment_id
    before = {run.run_id: run for run in run_cache.finished(experiment_id)}
    monkeypatch.setattr(run_cache, "MARGIN", 0)
    asked: list[str] = []
    pages = results.pages

    def spy(text: str, *given: Any, **named: Any) -> Any:
        found = list(pages(text, *given, **named))
        asked.extend(run.info.run_id for run in found)
        return found

    monkeypatch.setattr(results, "pages", spy)
    again = {run.run_id: run for run in run_cache.finished(experiment_id)}
    assert again == before and asked == []
    once = frames()
    monkeypatch.setattr(scores, "_compute", lambda *_: pytest.fail("predictions were read again"))
    pd.testing.assert_frame_equal(frames().outcomes, once.outcomes)


def test_labels_from_a_file_that_equal_the_ground_truth_are_flagged() -> None:
    students = pd.DataFrame({"tuned_on_gold": [""] * 4, "file_accuracy": [1.0, 0.99, float("nan"), 1.0]})
    (caveat,) = report._gold_caveats(students)
    assert caveat.startswith("The labels from a file of 2 student(s) equal the ground truth of transfer")
    assert list(report._gold_caveats(students[1:3])) == []


def test_outcomes_hold_the_stored_probabilities_of_student_supervisor_and_ceiling() -> None:
    found = made(ceiling="gold")
    ids = sorted(found.predictions("test").ids)
    for _ in ("from the files", "from the cache"):
        (row,) = frames().outcomes.to_dict("records")
        runs = (found, *(results.get(found.tags[f"w2s.{role}_run_id"]) for role in ("weak", "ceiling")))
        for prefix, run in zip(("", "weak_", "ceiling_"), runs, strict=True):
            probabilities_NC = row[f"{prefix}probabilities"]
            assert probabilities_NC.dtype == np.float32
            np.testing.assert_array_equal(probabilities_NC, run.predictions("test").of(ids))
            np.testing.assert_array_equal(row[f"{prefix}answer"], probabilities_NC.argmax(axis=1))


@pytest.mark.slow
def test_a_report_added_later_and_a_deleted_run_are_seen() -> None:
    quiet, other = made(report="none"), made(seed=1)
    assert list(frames().outcomes["run_id"]) == [other.run_id]
    made()  # the same student, now with its report
    assert set(frames().outcomes["run_id"]) == {quiet.run_id, other.run_id}
    server.client().delete_run(other.run_id)
    assert list(frames().outcomes["run_id"]) == [quiet.run_id]


@pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning")
def test_a_filter_finds_all_that_its_runs_hang_on_but_what_was_deleted_for_good(
    tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = made()
    supervisor = found.tags["w2s.weak_run_id"]
    monkeypatch.setattr(server.client(), "get_run", lambda run_id: pytest.fail("asked for one by one"))
    filtered = analyze.Config(filter="tags.`w2s.stage` = 'student'")
    assert [run.run_id for run in build.pull(filtered)] == [found.run_id, supervisor]
    purge(supervisor, tracking_uri)
    (row,) = build.load(build.pull(filtered)).outcomes.to_dict("records")
    assert row["run_id"] == found.run_id and row["weak_correct"] is None


def test_a_damaged_index_is_made_again() -> None:
    found = made()
    file = run_cache._file(server.experiment().experiment_id)
    frames()
    file.write_bytes(b"no parquet")
    assert list(frames().outcomes["run_id"]) == [found.run_id]


@pytest.mark.slow
def test_another_experiment_is_analysed_by_its_name(monkeypatch: pytest.MonkeyPatch, experiment: str) -> None:
    found = made()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"{experiment}-analysis")
    server.forget()
    rows = build.load(build.pull(analyze.Config(experiments=experiment))).outcomes
    assert list(rows["run_id"]) == [found.run_id]
    with pytest.raises(ConfigError, match=r"^--experiments must be one of .* got 'nowhere'"):
        build.pull(analyze.Config(experiments="nowhere"))


# --- the terminal's own -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_leaderboard_has_seeds_together_and_the_best_first() -> None:
    for seed in (0, 1):
        made(seed=seed)
    rule.run(rule.Config(**SMALL))
    rows = leaderboard.board()
    assert {row["method"]: row["n"] for row in rows} == {"baseline": 2, "rule:random": 1}
    assert [row["accuracy"] for row in rows] == sorted((row["accuracy"] for row in rows), reverse=True)
    json.dumps(rows, allow_nan=False)


def test_two_runs_are_compared_row_by_row() -> None:
    first, second = made(), made(loss="product")
    found = leaderboard.compare(first.run_id, second.name)
    tables = [run.predictions("test") for run in (first, second)]
    right = [table.aligned(sorted(table.ids)).correct_N() for table in tables]
    assert found.difference == pytest.approx(right[1].mean() - right[0].mean())
    assert (found.only_first, found.only_second) == ((right[0] > right[1]).sum(), (right[1] > right[0]).sum())
    assert found.low <= found.difference <= found.high and found.rows == SMALL["test_size"]
    same = leaderboard.compare(first.run_id, first.run_id)
    assert (same.difference, same.agreement, same.p_mcnemar) == (0, 1, 1)


@pytest.mark.slow
def test_runs_on_other_rows_are_not_compared() -> None:
    first, second = made(), made(test_size=100)
    with pytest.raises(
        ConfigError, match=r"^the two runs were scored on different test rows \(.*: 150, .*: 100\) and cannot be compared$"
    ):
        leaderboard.compare(first.run_id, second.run_id)
    quiet = made(report="none", seed=5)
    with pytest.raises(ConfigError, match="it has no test report"):
        leaderboard.compare(first.run_id, quiet.run_id)


# --- the files --------------------------------------------------------------------------------------------------------


def test_a_report_needs_no_network_and_every_table_has_three_forms() -> None:
    made()
    found = analyze.run(analyze.Config())
    page = found.artifact("report.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"']https?:", page) and "@import" not in page
    names = {Path(path) for path in found.digests if path.startswith("tables/")}
    assert {path.suffix for path in names} == {".csv", ".md", ".tex"} and len(names) % 3 == 0
    assert "\\begin{tabular}" in found.artifact("tables/pgr.tex").read_text()
    figures = {Path(path).suffix for path in found.digests if path.startswith("figures/")}
    assert figures == {".png", ".svg", ".html"}
    assert mlflow.get_run(found.run_id).data.metrics["chess chess-27k chess-43k reward baseline/accuracy"] > 0


def test_a_text_of_several_lines_stays_in_its_cell() -> None:
    lines = report.markdown(pd.DataFrame({"text": ["one | two\nthree"], "n": [1]})).splitlines()
    assert lines[2:] == [r"| one \| two three | 1 |"]


def test_domains_are_the_papers() -> None:
    domains = {"chess": "chess", "chess_preference": "reward modelling", "hh_rlhf": "reward modelling", "sst2": "NLP"}
    assert {task: outcomes.domain(task) for task in domains} == domains
    assert outcomes.domain("file:/nowhere/at/all.csv") == "NLP"


@pytest.mark.server
def test_a_tracking_server_gives_the_tables_that_a_database_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(ceiling="gold")
    local = analyze.run(analyze.Config()).artifact("tables/pgr.csv").read_bytes()
    with servers.mlflow_server(tmp_path) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        server.forget()
        made(ceiling="gold")
        found = analyze.run(analyze.Config())
        assert found.artifact("tables/pgr.csv").read_bytes() == local
        assert analyze.run(analyze.Config()).run_id == found.run_id
    server.forget()


def test_an_edit_of_any_file_of_the_analysis_makes_it_again() -> None:
    covered = {path.rpartition(".")[0] for path in build.parts(analyze.Config(), [], {}).source}
    files = {f"analysis.{file.stem}" for file in Path(build.__file__).parent.glob("*.py") if file.stem != "__init__"}
    assert files <= covered
