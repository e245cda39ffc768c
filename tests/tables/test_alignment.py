"""The table and the figure of alignment by hand: gains over the plain student, and steps from the iteration before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from w2s_mlflow import tables
from w2s_mlflow.analysis import debate_frames, variants
from w2s_mlflow.figures import alignment as figure
from w2s_mlflow.tables import alignment


def frame(iterations: Sequence[Sequence[float]], **more: Any) -> pd.DataFrame:
    """For each seed the plain student's accuracy and then each iteration's; D is ten times as much."""
    rows = []
    for seed, (before, *after) in enumerate(iterations):
        for number, accuracy in enumerate(after, start=1):
            row: dict[str, Any] = dict.fromkeys(tables.ALIGNMENTS, "") | {"seed": str(seed), "iteration": number}
            row |= {
                "iterations": len(after),
                "accuracy_before": before,
                "accuracy_after": accuracy,
                "debate_weight": "0.1",
                "judge": "model",
            }
            row |= {"preference_before": 10 * before, "preference_after": 10 * accuracy}
            rows.append(row | dict.fromkeys(("win_rate_before", "win_rate_after", "entropy", "evidence_words"), 0.5) | more)
    return pd.DataFrame(rows)


THREE = [(0.60, 0.64, 0.66), (0.62, 0.63, 0.67), (0.64, 0.71, 0.77)]


def test_each_round_is_a_row_with_its_gain_and_its_step_paired_by_seed() -> None:
    found = alignment.table(frame(THREE))
    assert found["iteration"].tolist() == [1, 2] and found["iterations"].tolist() == [2, 2]
    assert found["n"].tolist() == found["n_step"].tolist() == [3, 3]
    first, second = found.to_dict("records")
    # gains .04, .01, .07: deviation .03, so that half the interval is 4.3027 * .03 / sqrt 3 = .07452
    expected = [0.62, 0.66, 0.04, 0.04 - 0.07452, 0.04 + 0.07452]
    names = ("before", "after", "gain", "gain_low", "gain_high")
    assert [first[f"accuracy_{name}"] for name in names] == pytest.approx(expected, abs=1e-5)
    assert first["accuracy_p"] == pytest.approx(2 * stats.t.sf(0.04 / (0.03 / 3**0.5), 2))
    assert [first[f"accuracy_step{bound}"] for bound in ("", "_low", "_high")] == pytest.approx(expected[2:], abs=1e-5)
    # steps .02, .04, .06: deviation .02; gains .06, .05, .13
    steps = [second[f"accuracy_step{bound}"] for bound in ("", "_low", "_high")]
    assert steps == pytest.approx([0.04, 0.04 - 0.04968, 0.04 + 0.04968], abs=1e-5)
    assert second["accuracy_gain"] == pytest.approx(0.08) and second["preference_step"] == pytest.approx(0.4)


def test_a_seed_without_the_round_before_steps_from_nothing() -> None:
    whole = frame(THREE)
    found = alignment.table(whole[(whole["seed"] != "0") | (whole["iteration"] == 2)])
    assert found["n"].tolist() == [2, 3] and found["n_step"].tolist() == [2, 2]
    assert found["accuracy_step"].tolist() == pytest.approx([0.04, 0.05]) and found["accuracy_gain"][1] == pytest.approx(0.08)
    alone = alignment.table(whole[whole["iteration"] == 2])
    assert alone["n_step"].tolist() == [0] and alone["accuracy_step"].isna().all() and alone["accuracy_gain"].notna().all()


def test_other_weights_are_other_rows_and_step_from_their_own() -> None:
    found = alignment.table(pd.concat([frame(THREE), frame([(0.6, 0.5, 0.4)] * 3, debate_weight="1")]))
    assert sorted(zip(found["debate_weight"], found["iteration"], strict=True)) == [("0.1", 1), ("0.1", 2), ("1", 1), ("1", 2)]
    assert found.set_index(["debate_weight", "iteration"])["accuracy_step"]["1", 2] == pytest.approx(-0.1)


def test_rounds_are_counted_by_options_and_seed_and_the_first_is_one_of_them() -> None:
    def row(seed: int, number: int, debate_weight: str = "0.1") -> dict[str, Any]:
        own = dict.fromkeys(variants.IDENTITY, "-") | {
            "task": "t",
            "seed": str(seed),
            "method": f"{debate_weight} iteration {number}",
        }
        options = {"debate_weight": debate_weight} | ({"iteration": str(number)} if number > 1 else {})  # as runs log it
        return {**own, "iteration": number, "settings": json.dumps(options), "judge": "model"}

    chained = debate_frames._with_iterations([row(0, 1), row(0, 2), row(0, 3), row(1, 1), row(0, 1, debate_weight="1")])
    assert [one["iterations"] for one in chained] == [3, 3, 3, 1, 1]
    found = debate_frames.frame(chained, ["task", "iteration", "iterations", "other_options"], {})
    assert found["iteration"].tolist() == [1, 2, 3, 1, 1] and set(found["other_options"]) == {""}


def test_several_rounds_are_drawn_as_gains_from_the_plain_student_on() -> None:
    left, right = figure.figure(frame(THREE)).axes
    for axes, size in ((left, 10), (right, 1)):
        lines = [np.asarray(line.get_xydata()) for line in axes.lines if line.get_marker() == "o" and line.get_alpha() != 0]
        np.testing.assert_allclose(lines, [[(0, 0), (1, 0.04 * size), (2, 0.08 * size)]], atol=1e-9)
    assert right.get_xlabel() == "iteration (0: the plain student)" and right.get_ylabel() == "gain in test accuracy"


def test_one_round_is_drawn_seed_by_seed_and_options_that_differ_are_named() -> None:
    one = [iterations[:2] for iterations in THREE]
    (_, right) = figure.figure(pd.concat([frame(one, kl="0"), frame(one, kl="0.05")])).axes
    assert [label.get_text() for label in right.get_xticklabels()] == ["λ = 0.1, model, kl 0", "λ = 0.1, model, kl 0.05"]
    assert sum(line.get_color() == "0.7" for line in right.lines) == 6
