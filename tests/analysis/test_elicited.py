"""Label-free answers that are better than the ceiling on `selection`: whose columns they are, and what PGR becomes."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.tables.test_tables import student
from w2s_mlflow import stats
from w2s_mlflow.analysis import elicited
from w2s_mlflow.analysis.selection import AnalysisRuns
from w2s_mlflow.tables import pgr
from w2s_mlflow.tracking.results import Result


def run(run_id: str, selection: float | None, ceiling: str = "") -> Result:
    metrics = {} if selection is None else {"selection/accuracy": selection}
    tags = {"w2s.ceiling_run_id": ceiling} if ceiling else {}
    return Result(run_id, run_id, "student", "", "", {}, metrics, tags, 0.0, False)


def row(method: str, seed: int, prompt: str | None = None, **more: Any) -> dict[str, Any]:
    settings = {} if prompt is None else {"prompt": prompt}
    names = {"task": "t", "strong": "s", "head": "reward", "train_size": 10, "test_size": 4, "balance": "False"}
    found = {"run_id": f"{method}{prompt or ''}{seed}", "method": method, "seed": str(seed), "settings": json.dumps(settings)}
    return names | found | {"correct": np.array([method == "zero_shot"] * 4), "accuracy": 0.5} | more


def frames(ceilings: list[float], **selection: list[float | None]) -> tuple[list[dict[str, Any]], AnalysisRuns]:
    """A baseline, and label-free answers by prompt, with these accuracies on `selection` for each seed."""
    runs = [run(f"ceiling{seed}", value) for seed, value in enumerate(ceilings)]
    rows = [row("baseline", seed) for seed in range(len(ceilings))]
    runs += [run(one["run_id"], None, f"ceiling{seed}") for seed, one in enumerate(rows)]
    for prompt, values in selection.items():
        method = "best_prompt" if prompt == "best" else "planner" if prompt == "exchange" else "zero_shot"
        for seed, value in enumerate(values):
            rows.append(row(method, seed, prompt))
            runs.append(run(rows[-1]["run_id"], value, f"ceiling{seed}"))
    return rows, AnalysisRuns({one.run_id: one for one in runs}, {})


def of_baseline(rows: list[dict[str, Any]], pulled: AnalysisRuns) -> list[Any]:
    found = elicited.with_elicited(rows, pulled)
    return [one["elicited_correct"] for one in found if one["method"] == "baseline"]


def test_better_answers_on_average_over_seeds_are_those_of_every_student_of_the_model() -> None:
    rows, pulled = frames([0.80, 0.80], reply=[0.78, 0.84])
    assert [found.tolist() for found in of_baseline(rows, pulled)] == [[True] * 4, [True] * 4]
    others = [one | {"strong": "other", "run_id": "ceiling0", "method": "baseline"} for one in rows[:1]]
    assert of_baseline([*rows[2:], *others], pulled) == [None]


@pytest.mark.parametrize(
    "selection",
    [{"reply": [0.82, 0.77]}, {"exchange": [0.9, 0.9]}, {"reply": [None, None]}, {}],
    ids=["worse", "a planner", "not scored", "none"],
)
def test_answers_that_are_not_better_or_not_label_free_leave_the_ceiling_alone(selection: dict[str, Any]) -> None:
    rows, pulled = frames([0.80, 0.80], **selection)
    assert of_baseline(rows, pulled) == [None, None]
    assert all(math.isnan(one["elicited_accuracy"]) for one in elicited.with_elicited(rows, pulled))


def test_the_prompt_is_chosen_on_selection_and_not_on_test() -> None:
    rows, pulled = frames([0.80], choice=[0.81], reply=[0.85])
    rows[1] |= {"accuracy": 0.9, "correct": np.array([False] * 4)}  # better on test, which is not looked at
    found = of_baseline(rows, pulled)
    assert found[0].tolist() == [True] * 4


def test_pgr_is_held_against_the_better_of_both_on_test() -> None:
    rows = [student(seed, "baseline", 0.7) for seed in range(5)]
    better, worse = ([student(100 + seed, "top", value) for seed in range(5)] for value in (0.9, 0.7))
    for answers, upper in ((better, better), (worse, rows)):
        group = pd.DataFrame(rows)
        group["elicited_correct"] = [one["correct"] for one in answers]
        group["elicited_accuracy"] = [one["accuracy"] for one in answers]
        found = pgr.table(group).iloc[0]
        name = "correct" if upper is better else "ceiling_correct"
        expected = stats.pgr_interval(
            [one["weak_correct"] for one in rows],
            [one["correct"] for one in rows],
            [one[name] for one in upper],
            rows[0]["groups"],
        )
        assert found["pgr_status"] == "elicited"
        assert [found[column] for column in ("pgr_elicited", "pgr_elicited_low", "pgr_elicited_high")] == list(expected[:3])
        assert found["elicited_accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in answers]))
        assert found["pgr"] == pgr.table(pd.DataFrame(rows)).iloc[0]["pgr"], "the PGR against the ceiling stays beside it"


def test_without_label_free_answers_nothing_changes() -> None:
    found = pgr.table(pd.DataFrame([student(seed, "baseline", 0.7) for seed in range(5)])).iloc[0]
    assert found["pgr_status"] == "ok" and math.isnan(found["pgr_elicited"])
