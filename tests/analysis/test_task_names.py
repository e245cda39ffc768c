"""Spellings of one user's file are one task in tables and figures; files of the same name with other rows are not."""

from __future__ import annotations

import json

import pytest

from w2s_mlflow.analysis import task_names
from w2s_mlflow.tracking.results import Result


def run(task: str, heldout: str = "", stage: str = "student", **params: str) -> Result:
    tags = {"w2s.heldout": heldout} if heldout else {}
    return Result("id", "name", stage, "", "", {"task": task, **params}, {}, tags, 0.0, reused=False)


def named(*runs: Result) -> list[str]:
    return [result.params["task"] for result in task_names.with_one_name(runs)]


def test_spellings_with_equal_rows_have_the_name_of_the_last() -> None:
    spelled = ["file:/data/x.csv", "file:x.csv", "file:../data/x.parquet", "file:/data/x.csv"]
    assert named(*(run(task, "1") for task in spelled)) == [spelled[-1]] * 4
    assert named(*(run(task, "1") for task in spelled[:3])) == [spelled[2]] * 3


@pytest.mark.parametrize(
    "other", [run("file:b/x.csv", "2"), run("file:y.csv", "1"), run("preferences:x.csv", "1"), run("file:b/x.csv")]
)
def test_other_rows_stems_or_prefixes_are_other_tasks(other: Result) -> None:
    assert named(run("file:x.csv", "1"), other) == ["file:x.csv", other.params["task"]]


def test_runs_without_the_tag_are_joined_by_their_path() -> None:
    assert named(run("file:/a//x.csv"), run("file:/a/b/../x.csv"), run("file:/c/x.csv")) == ["file:/a/b/../x.csv"] * 2 + [
        "file:/c/x.csv"
    ]
    # a run with the tag joins the runs with the same path and those with the same rows
    assert named(run("file:/a//x.csv"), run("file:x.csv", "1"), run("file:/a/x.csv", "1")) == ["file:/a/x.csv"] * 3


def test_tasks_that_are_no_files_keep_their_names() -> None:
    assert named(run("chess", "1"), run("sst2"), run("unknown:x.csv", "1")) == ["chess", "sst2", "unknown:x.csv"]


def test_a_declared_claim_is_about_the_same_task() -> None:
    claim = json.dumps([{"task": "file:x.csv", "weak": "w"}, {"task": "chess", "weak": "w"}])
    sweep = run("-", stage="sweep", claim=claim)
    _, _, found = task_names.with_one_name([run("file:x.csv", "1"), run("file:/x.csv", "1"), sweep])
    assert [row["task"] for row in json.loads(found.params["claim"])] == ["file:/x.csv", "chess"]
