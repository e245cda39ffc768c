"""The tables `claim` and `power`: their families, verdicts and seeds to plan, against the functions of stats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.tables.test_tables import SEEDS, imported, rule, student
from w2s_mlflow import stats
from w2s_mlflow.tables import CLAIMS, claim, power

NOTHING_DECLARED = pd.DataFrame(columns=list(CLAIMS))


def runs(**methods: float) -> list[dict[str, Any]]:
    return [student(seed, method, accuracy) for method, accuracy in methods.items() for seed in range(SEEDS)]


def declared(*references: str, strong: tuple[str, ...] = ("s",)) -> pd.DataFrame:
    rows = [("sweep grid", "t", "w", name, "baseline", reference) for name in strong for reference in references]
    return pd.DataFrame(rows, columns=list(CLAIMS))


def named(name: str, accuracy: float) -> dict[str, Any]:
    """A rule of this name, right in about this share of the rows."""
    correct = (np.random.default_rng(len(name)).random(400) < accuracy).astype(float)
    return rule() | {"method": f"rule:{name}", "correct": correct, "accuracy": correct.mean()}


def test_an_undeclared_claim_is_the_three_tests_of_a_pair() -> None:
    frame = pd.DataFrame([*runs(baseline=0.75, self_training=0.65, zero_shot=0.6, confidence=0.9), named("most_gained", 0.62)])
    found = claim.table(frame, NOTHING_DECLARED)
    assert found["reference"].tolist() == ["supervisor", "self_training", "label_free"]
    assert found["p_holm"].to_numpy() == pytest.approx(stats.holm(found["p"].to_numpy()))
    assert set(found["verdict"]) == {claim.HOLDS} and set(found["claim"]) == {claim.UNDECLARED}
    own = frame[frame["method"] == "baseline"]
    expected = stats.two_way_test(list(own["weak_correct"]), list(own["correct"]), own["groups"].iloc[0])
    assert tuple(found.iloc[0][["difference", "low", "high", "p"]]) == pytest.approx((*expected[2:5], expected.p))
    assert found.iloc[0]["p_seeds"] == pytest.approx(stats.paired_t_test(own["weak_accuracy"], own["accuracy"]).p)


@pytest.mark.parametrize(("rule_accuracy", "best"), [(0.7, "rule:most_gained"), (0.4, "zero_shot")])
def test_the_best_label_free_answer_is_chosen_among_rules_and_untrained_models(rule_accuracy: float, best: str) -> None:
    others = [named("most_gained", rule_accuracy), named("other", 0.99)]  # only rules that LABEL_FREE_METHODS names
    frame = pd.DataFrame([*runs(baseline=0.8, zero_shot=0.6), *others])
    row = claim.table(frame, NOTHING_DECLARED).set_index("reference").loc["label_free"]
    assert row["answer"] == best
    reference = frame.loc[frame["method"] == best, "accuracy"].mean()
    assert row["difference"] == pytest.approx(row["accuracy"] - reference) and row["n"] == SEEDS


def test_tests_without_runs_are_named_and_count_as_failed() -> None:
    found = claim.table(pd.DataFrame(runs(baseline=0.62)), NOTHING_DECLARED).set_index("reference")
    assert found["verdict"].tolist()[1:] == [claim.NOT_TESTED] * 2
    row = found.loc["supervisor"]
    assert row["p_holm"] == pytest.approx(min(1, 3 * row["p"])) and row["p_holm"] > 0.05
    assert row["verdict"] == claim.DOES_NOT_HOLD


def test_a_difference_below_zero_does_not_hold_however_sure_it_is() -> None:
    row = claim.table(pd.DataFrame(runs(baseline=0.4)), NOTHING_DECLARED).iloc[0]
    assert row["p_holm"] < 0.001 and row["verdict"] == claim.DOES_NOT_HOLD


def test_a_declared_claim_is_one_family_over_its_strong_models() -> None:
    two = [row | {"strong": strong} for strong in ("s", "s2") for row in runs(baseline=0.66)]
    other = [row | {"strong": "s3"} for row in runs(baseline=0.7)]
    frame = pd.DataFrame([*two, *other])
    found = claim.table(frame, declared("supervisor", "random_labels", strong=("s", "s2")))
    own = found[found["claim"] == "sweep grid"]
    assert own["strong"].tolist() == ["s", "s", "s2", "s2"] and len(found) == 4 + 3
    tested = own[own["reference"] == "supervisor"]
    assert tested["p_holm"].to_numpy() == pytest.approx(stats.holm(tested["p"].to_numpy(), tests=4))
    alone = claim.table(frame[frame["strong"] != "s3"], declared("supervisor", "random_labels", strong=("s", "s2")))
    pd.testing.assert_frame_equal(own.reset_index(drop=True), alone, check_dtype=False)


def test_a_declared_claim_of_which_nothing_ran_is_not_tested() -> None:
    found = claim.table(pd.DataFrame(runs(baseline=0.7)), declared("supervisor", strong=("large",)))
    row = found[found["claim"] == "sweep grid"].iloc[0]
    assert (row["strong"], row["verdict"]) == ("large", claim.NOT_TESTED)


def test_collapsed_students_are_counted_and_same_size_and_imported_runs_make_no_claim() -> None:
    frame = pd.DataFrame(runs(baseline=0.7))
    frame["collapsed"] = frame["seed"] == "1"
    assert set(claim.table(frame, NOTHING_DECLARED)["collapsed"]) == {1}
    assert claim.table(frame.assign(strong="w"), NOTHING_DECLARED).empty
    assert claim.table(imported(frame), NOTHING_DECLARED).empty


def test_planned_seeds_follow_from_the_spread_of_the_finished_ones() -> None:
    frame = pd.DataFrame(runs(baseline=0.7, confidence=0.75))
    found = power.table(frame).set_index(["metric", "baseline", "wanted"])
    own, base = (frame[frame["method"] == name]["accuracy"].to_numpy() for name in ("confidence", "baseline"))
    sd = float(np.std(own - base, ddof=1))
    for wanted in power.WANTED["accuracy"]:
        row = found.xs(("accuracy", "baseline", wanted))
        assert row["sd"] == pytest.approx(sd)
        assert row["seeds_only"] == stats.seeds_needed(wanted, stats.Variances(sd**2)) <= row["seeds"]
    assert {name for name, _, _ in found.index} == {"accuracy", "pgr"}
    assert ("accuracy", "supervisor", 0.01) in found.index and found["power"].between(0, 1).all()


def test_the_report_says_how_many_seeds_to_plan() -> None:
    table = pd.DataFrame([dict.fromkeys(power.COLUMNS, "x") | {"wanted": 0.01, "seeds": 12.0}])
    table = pd.concat([table, table.assign(wanted=0.02, seeds=math.inf)])
    (sentence,) = power.sentences(table)
    assert "0.01 needs 12 seeds, 0.02 needs more test rows" in sentence


def test_seeds_without_spread_plan_nothing() -> None:
    same = student(0, "baseline", 0.7)
    assert power.table(pd.DataFrame([same | {"seed": str(seed)} for seed in range(3)])).empty
