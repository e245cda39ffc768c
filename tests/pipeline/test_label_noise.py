"""Noise that matches weak labels in accuracy and softness: what it keeps of them, and that its errors are elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import SMALL
from w2s_mlflow import metrics
from w2s_mlflow.pipeline import label_noise, runs
from w2s_mlflow.pipeline.context import resolve
from w2s_mlflow.records import Floats, Ints
from w2s_mlflow.stages import student, supervisor


def weak_and_gold(seed: int, rows: int, classes: int) -> tuple[Floats, Ints, np.random.Generator]:
    """Weak labels that are right more often where they are confident, their gold classes, and a generator."""
    random = np.random.default_rng(seed)
    weak_NC = random.dirichlet(np.full(classes, 0.7), size=rows).astype(np.float32)
    gold_N = np.array([random.choice(classes, p=row / row.sum()) for row in weak_NC.astype(np.float64)], dtype=np.int64)
    return weak_NC, gold_N, random


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 60), classes=st.integers(2, 5))
def test_each_row_keeps_its_probabilities_and_each_decile_its_ranks_of_gold(seed: int, rows: int, classes: int) -> None:
    weak_NC, gold_N, random = weak_and_gold(seed, rows, classes)
    noise_NC = label_noise.matched(weak_NC, gold_N, random)
    np.testing.assert_array_equal(np.sort(noise_NC, axis=1), np.sort(weak_NC, axis=1))
    for decile in np.array_split(np.argsort(weak_NC.max(axis=1), kind="stable"), 10):
        ranks = [
            sorted((labels_NC[decile] > labels_NC[decile, gold_N[decile]][:, None]).sum(axis=1))
            for labels_NC in (weak_NC, noise_NC)
        ]
        assert ranks[0] == ranks[1]


def test_with_two_classes_the_confidence_goes_to_gold_where_the_permuted_label_is_right() -> None:
    """Three rows of one confidence, one of them wrong: the noise has one wrong row of the three, whichever it is."""
    weak_NC = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], dtype=np.float32).repeat(10, axis=0)
    gold_N = np.array([0, 1, 1], dtype=np.int64).repeat(10)
    # All rows are equally confident, so the deciles are runs of three rows in their order.
    weak_NC = weak_NC.reshape(3, 10, 2).swapaxes(0, 1).reshape(30, 2)
    gold_N = gold_N.reshape(3, 10).swapaxes(0, 1).reshape(30)
    noise_NC = label_noise.matched(weak_NC, gold_N, np.random.default_rng(0))
    right_N = noise_NC.argmax(axis=1) == gold_N
    assert right_N.reshape(10, 3).sum(axis=1).tolist() == [2] * 10
    assert len(set(map(tuple, right_N.reshape(10, 3).tolist()))) > 1
    assert set(noise_NC.max(axis=1)) == {np.float32(0.9)}


def test_the_wrong_class_is_not_the_one_that_misled_the_weak_model() -> None:
    """A weak model that always errs towards the next class; the noise errs towards both others alike."""
    gold_N = np.arange(3000, dtype=np.int64) % 3
    weak_NC = np.eye(3, dtype=np.float32)[(gold_N + (np.arange(3000) % 2)) % 3] * 0.8 + np.float32(0.2 / 3)
    noise_NC = label_noise.matched(weak_NC, gold_N, np.random.default_rng(0))
    shift_N = (noise_NC.argmax(axis=1) - gold_N) % 3
    counts = np.bincount(shift_N, minlength=3)
    assert counts[0] == 1500 and abs(counts[1] - 750) < 4 * np.sqrt(1500 / 4)


def test_the_noise_is_as_well_calibrated_as_the_weak_labels_but_wrong_elsewhere() -> None:
    weak_NC, gold_N, random = weak_and_gold(3, 4000, 2)
    noise_NC = label_noise.matched(weak_NC, gold_N, random)
    before, after = (metrics.report(labels_NC, gold_N) for labels_NC in (weak_NC, noise_NC))
    assert after["accuracy"] == before["accuracy"]
    assert after["brier"] == pytest.approx(before["brier"], abs=0.01) and after["ece"] == pytest.approx(before["ece"], abs=0.02)
    wrong_N = [labels_NC.argmax(axis=1) != gold_N for labels_NC in (weak_NC, noise_NC)]
    alike_N = np.argsort(weak_NC.max(axis=1), kind="stable")[:400]  # within a decile, errors have nothing in common
    both = (wrong_N[0][alike_N] & wrong_N[1][alike_N]).mean()
    share = wrong_N[0][alike_N].mean()
    assert abs(both - share**2) < 4 * share * (1 - share) / np.sqrt(400)


@pytest.mark.usefixtures("experiment")
def test_the_student_of_matched_noise_is_a_control_that_keeps_its_supervisor() -> None:
    options = {"strong": "chess-43k", "weak": "chess-27k", "ceiling": "none", "eval_split": "none", **SMALL}
    plain, noisy = (student.run(student.Config(method=method, **options)) for method in ("baseline", "matched_noise"))
    assert noisy.tags["w2s.weak_run_id"] == plain.tags["w2s.weak_run_id"] and noisy.tags["w2s.gold"] == "transfer"
    context = resolve(supervisor.Config(weak="chess-27k", **SMALL))
    assert noisy.metrics["gold/transfer/control"] == len(context.split.transfer) + len(context.split.transfer_validation)
    assert "w2s.gold" not in plain.tags and runs.GOLD == "w2s.gold"
