"""Imitation cost: which students are compared, and the cost with its sign, by hand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from w2s_mlflow.stats import two_way_test
from w2s_mlflow.tables import imitation


def run(method: str, seed: int, accuracy: float, **settings: Any) -> dict[str, Any]:
    names = {
        "task": "t",
        "weak": "w",
        "strong": "s",
        "head": "reward",
        "method": method,
        "method_options": "",
        "other_options": "",
    }
    default = {"labels": "weak", "weights": "pretrained", "loss": "cross_entropy", "learning_rate": "0.001", "batch_size": "32"}
    own = {"seed": str(seed), "accuracy": accuracy, "settings": json.dumps(default | settings), "run_id": f"{method}{seed}"}
    return names | own | {"train_size": 10, "test_size": 20, "checkpoints": "", "correct": None, "groups": None}


PLAIN = [run("baseline", seed, accuracy) for seed, accuracy in enumerate((0.70, 0.72, 0.74))]
NOISE = [run("matched_noise", seed, accuracy, labels="matched_noise") for seed, accuracy in enumerate((0.73, 0.74, 0.78))]
LOSS = {"loss": "confidence", "alpha": "0.5"}
CONFIDENT = [run("confidence", seed, accuracy, **LOSS) for seed, accuracy in enumerate((0.74, 0.73, 0.79))]
OWN_NOISE = [
    run("matched_noise+loss:confidence", seed, accuracy, labels="matched_noise", **LOSS)
    for seed, accuracy in enumerate((0.75, 0.75, 0.80))
]


def rows(*groups: list[dict[str, Any]]) -> list[Any]:
    return imitation.table(pd.DataFrame([row for group in groups for row in group])).to_dict("records")


def test_the_cost_is_noise_minus_labels_paired_by_seed() -> None:
    (row,) = rows(PLAIN, list(reversed(NOISE)))
    expected = stats.ttest_1samp([0.03, 0.02, 0.04], 0)
    assert (row["method"], row["noise"], row["n"]) == ("baseline", "matched_noise", 3)
    assert (row["cost"], row["cost_p"]) == pytest.approx((0.03, expected.pvalue))
    interval = expected.confidence_interval()
    assert (row["cost_low"], row["cost_high"]) == pytest.approx((interval.low, interval.high))
    assert (row["accuracy"], row["noise_accuracy"]) == pytest.approx((0.72, 0.75))
    assert pd.isna(row["change"])


def test_a_method_is_held_against_plain_noise_and_noise_of_its_own_and_lowers_the_plain_cost_or_not() -> None:
    by_noise = {row["noise"]: row for row in rows(PLAIN, NOISE, CONFIDENT, OWN_NOISE) if row["method"] == "confidence"}
    assert set(by_noise) == {"matched_noise", "matched_noise+loss:confidence"}
    plain, own = by_noise["matched_noise"], by_noise["matched_noise+loss:confidence"]
    # Costs by seed: -.01, .01, -.01 against plain noise; .01, .02, .01 against its own; .03, .02, .04 of the plain student.
    assert (plain["cost"], own["cost"]) == pytest.approx((-0.01 / 3, 0.04 / 3))
    assert (plain["change"], own["change"]) == pytest.approx((-0.1 / 3, -0.05 / 3))
    assert own["change_p"] == pytest.approx(stats.ttest_1samp([-0.02, 0.0, -0.03], 0).pvalue)


def test_other_rates_initial_weights_seeds_or_labels_are_not_compared() -> None:
    other_rate = [row | {"settings": row["settings"].replace("0.001", "0.0003")} for row in NOISE]
    assert rows(PLAIN, other_rate) == []
    assert rows([run("random_weights", seed, 0.7, weights="random") for seed in range(3)], NOISE) == []
    assert rows(PLAIN, [run("self_training", 0, 0.7, labels="zero_shot")]) == []
    (row,) = rows(PLAIN[:2], NOISE[1:])
    assert row["n"] == 1 and row["cost"] == pytest.approx(0.02) and pd.isna(row["cost_low"])
    assert rows(PLAIN[:1], NOISE[1:]) == []


def test_known_answers_are_compared_over_seeds_and_test_groups() -> None:
    rng = np.random.default_rng(0)

    def answered(rows: list[dict[str, Any]], share: float) -> list[dict[str, Any]]:
        right = [(rng.random(50) < share).astype(float) for _ in rows]
        return [
            row | {"correct": own, "accuracy": own.mean(), "groups": tuple(range(50))}
            for row, own in zip(rows, right, strict=True)
        ]

    plain, noise, loss = answered(PLAIN, 0.6), answered(NOISE, 0.7), answered(CONFIDENT, 0.65)
    by_method = {row["method"]: row for row in rows(plain, noise, loss)}
    right = {name: [row["correct"] for row in group] for name, group in (("plain", plain), ("noise", noise), ("loss", loss))}
    cost = two_way_test(right["plain"], right["noise"], range(50))
    assert by_method["baseline"]["cost_p"] == pytest.approx(cost.p)
    assert by_method["baseline"]["cost_p"] != pytest.approx(by_method["baseline"]["cost_p_seeds"])
    change = two_way_test(right["loss"], right["plain"], range(50))
    # The cost of the loss minus that of the plain student: the noise cancels.
    assert (by_method["confidence"]["change"], by_method["confidence"]["change_p"]) == pytest.approx(
        (change.mean_difference, change.p)
    )
