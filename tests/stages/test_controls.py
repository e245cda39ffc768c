"""The controls of a student's labels: hardened, wrong at random, and the ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SMALL
from w2s_mlflow.config import ConfigError
from w2s_mlflow.records import Ints, SoftLabels
from w2s_mlflow.split import Split
from w2s_mlflow.stages import _finetune, _gold, student, supervisor
from w2s_mlflow.tracking import recorder, results

pytestmark = pytest.mark.usefixtures("experiment")


def config(**options: Any) -> student.Config:
    return student.Config(strong="chess-121k", **SMALL | options)


def rehearsal(directory: Path) -> recorder.Rehearsal:
    return recorder.Rehearsal("run", directory)


def weak_and_truth(directory: Path, seed: int = 0) -> tuple[supervisor.Config, Split, SoftLabels, SoftLabels]:
    given, cut = _gold.cut(supervisor.Config(**SMALL, seed=seed).resolved())
    weak = _finetune.weak_labels(supervisor.run(given))
    return given, cut, weak, _gold.oracle_labels(given, cut, rehearsal(directory))


def classes(labels: SoftLabels, ids: tuple[str, ...]) -> Ints:
    found: Ints = labels.of(ids).argmax(axis=1)
    return found


def test_random_labels_are_as_often_right_as_the_weak_ones_in_both_parts(tmp_path: Path) -> None:
    given, cut, weak, truth = weak_and_truth(tmp_path)
    kept = rehearsal(tmp_path)
    drawn = _gold.random_labels(given, cut, weak, kept)
    for part in (cut.transfer, cut.transfer_validation):
        ids = tuple(example.id for example in part)
        right = [int((classes(labels, ids) == classes(truth, ids)).sum()) for labels in (weak, drawn)]
        assert right[0] == right[1] < len(ids)
    assert set(drawn.probabilities_NC.reshape(-1)) == {0.0, 1.0} and (drawn.probabilities_NC.sum(axis=1) == 1).all()
    rows = len(cut.transfer) + len(cut.transfer_validation)
    assert {name: value for name, value in kept.last.items() if name.startswith("gold/")} == {"gold/transfer/control": rows}


def test_random_labels_are_wrong_elsewhere_than_the_weak_ones(tmp_path: Path) -> None:
    given, cut, weak, truth = weak_and_truth(tmp_path)
    ids = tuple(example.id for example in cut.transfer)
    wrong_weak = classes(weak, ids) != classes(truth, ids)
    wrong_drawn = [
        classes(_gold.random_labels(student_of(given, seed), cut, weak, rehearsal(tmp_path)), ids) != classes(truth, ids)
        for seed in range(40)
    ]
    # By chance alone, a row that the supervisor got wrong is wrong as often as any other.
    share = wrong_weak.mean()
    among = np.mean([wrong[wrong_weak].mean() for wrong in wrong_drawn])
    spread = np.sqrt(share * (1 - share) / (40 * wrong_weak.sum()))
    assert abs(among - share) < 4 * spread
    assert len({wrong.tobytes() for wrong in wrong_drawn}) == 40


def student_of(given: supervisor.Config, seed: int) -> supervisor.Config:
    return supervisor.Config(**SMALL, seed=seed).resolved()


def test_a_student_of_the_ground_truth_is_its_ceiling_to_the_bit() -> None:
    found = student.run(config(method="oracle"))
    top = results.get(found.tags["w2s.ceiling_run_id"])
    own, best = (result.predictions("test") for result in (found, top))
    np.testing.assert_array_equal(own.probabilities_NC, best.aligned(own.ids).probabilities_NC)
    assert found.tags["w2s.gold"] == "transfer" and found.metrics["gold/transfer/oracle"] > 0
    if "test/pgr" in found.metrics:
        assert found.metrics["test/pgr"] == 1.0


def test_hard_labels_are_the_most_probable_classes() -> None:
    soft = SoftLabels(("a", "b", "c"), ("", "", ""), np.array([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], dtype=np.float32))
    assert soft.hardened().probabilities_NC.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert soft.hardened().ids == soft.ids


def test_each_kind_of_labels_is_another_result_with_the_same_supervisor() -> None:
    found = [student.run(config(method=method)) for method in ("baseline", "hard_labels", "random_labels", "oracle")]
    assert len({result.fingerprint for result in found}) == 4
    assert len({result.predictions("test").probabilities_NC.tobytes() for result in found}) == 4
    assert len({result.tags["w2s.weak_run_id"] for result in found}) == 1
    assert ["w2s.gold" in result.tags for result in found] == [False, False, True, True]
    assert "noise" in found[2].tags["mlflow.note.content"] and "ground truth" in found[3].tags["mlflow.note.content"]


def test_labels_against_the_method_are_refused() -> None:
    with pytest.raises(ConfigError, match="--labels must be weak under --method confidence"):
        config(method="confidence", labels="oracle").resolved()
    with pytest.raises(ConfigError, match="--labels must be weak, hard, random, oracle, nothing, or a parquet file"):
        config(labels="gold")
