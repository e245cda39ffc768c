"""The controls of a student's labels: hardened, wrong at random, and the ground truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SMALL
from tests.conftest import runs as all_runs
from w2s_mlflow import stats
from w2s_mlflow.data import loading
from w2s_mlflow.data.splits import Split
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline import finetune, ground_truth, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.records import Ints, SoftLabels
from w2s_mlflow.stages import ceiling, student, supervisor
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.dry_recorder import DryRecorder

pytestmark = pytest.mark.usefixtures("experiment")


def config(**options: Any) -> student.Config:
    return student.Config(strong="chess-121k", **SMALL | options)


def rehearsal(directory: Path) -> DryRecorder:
    return DryRecorder("run", directory)


def weak_and_truth(directory: Path, seed: int = 0) -> tuple[Context[supervisor.Config], SoftLabels, SoftLabels]:
    context = resolve(supervisor.Config(**SMALL, seed=seed))
    weak = runs.weak_labels(supervisor.run(context.options))
    examples = context.split.transfer + context.split.transfer_validation
    return context, weak, ground_truth.oracle_labels(context, examples, rehearsal(directory))


def classes(labels: SoftLabels, ids: tuple[str, ...]) -> Ints:
    found: Ints = labels.of(ids).argmax(axis=1)
    return found


@pytest.mark.shared
def test_random_labels_are_as_often_right_as_the_weak_ones_in_both_parts(tmp_path: Path) -> None:
    context, weak, truth = weak_and_truth(tmp_path)
    kept, cut = rehearsal(tmp_path), context.split
    drawn = ground_truth.random_labels(context, weak, kept)
    for part in (cut.transfer, cut.transfer_validation):
        ids = tuple(example.id for example in part)
        right = [int((classes(labels, ids) == classes(truth, ids)).sum()) for labels in (weak, drawn)]
        assert right[0] == right[1] < len(ids)
    assert set(drawn.probabilities_NC.reshape(-1)) == {0.0, 1.0} and (drawn.probabilities_NC.sum(axis=1) == 1).all()
    rows = len(cut.transfer) + len(cut.transfer_validation)
    assert {name: value for name, value in kept.last.items() if name.startswith("gold/")} == {"gold/transfer/control": rows}


@pytest.mark.shared
def test_random_labels_are_wrong_elsewhere_than_the_weak_ones(tmp_path: Path) -> None:
    context, weak, truth = weak_and_truth(tmp_path)
    ids = tuple(example.id for example in context.split.transfer)
    wrong_weak = classes(weak, ids) != classes(truth, ids)
    wrong_drawn = [
        classes(ground_truth.random_labels(with_seed(context, seed), weak, rehearsal(tmp_path)), ids) != classes(truth, ids)
        for seed in range(40)
    ]
    # By chance alone, a row that the supervisor got wrong is wrong as often as any other.
    share = wrong_weak.mean()
    among = np.mean([wrong[wrong_weak].mean() for wrong in wrong_drawn])
    spread = np.sqrt(share * (1 - share) / (40 * wrong_weak.sum()))
    assert abs(among - share) < 4 * spread
    assert len({wrong.tobytes() for wrong in wrong_drawn}) == 40


def with_seed(context: Context[supervisor.Config], seed: int) -> Context[supervisor.Config]:
    """The same split with the random streams of another seed."""
    return replace(context, options=replace(context.options, seed=seed))


@pytest.mark.shared
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


@pytest.mark.slow
@pytest.mark.shared
def test_each_kind_of_labels_is_another_result_with_the_same_supervisor() -> None:
    found = [student.run(config(method=method)) for method in ("baseline", "hard_labels", "random_labels", "oracle")]
    assert len({result.fingerprint for result in found}) == 4
    assert len({result.predictions("test").probabilities_NC.tobytes() for result in found}) == 4
    assert len({result.tags["w2s.weak_run_id"] for result in found}) == 1
    assert ["w2s.gold" in result.tags for result in found] == [False, False, True, True]
    assert "random errors" in found[2].tags["mlflow.note.content"] and "ground truth" in found[3].tags["mlflow.note.content"]


@pytest.mark.shared
def test_calibrated_labels_are_scaled_by_the_temperature_of_the_supervisors_own_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    fit_head = finetune.fit_head

    def spy(*given: Any) -> None:
        seen.append(given[2])
        fit_head(*given)

    monkeypatch.setattr(finetune, "fit_head", spy)
    found = student.run(config(calibrate=True, ceiling="none"))
    weak = results.get(found.tags["w2s.weak_run_id"])
    slice_ = weak.predictions("validation")
    cut = loading.resolve_and_split(config().resolved())[1]
    assert set(slice_.ids) == {example.id for example in cut.supervision_validation}
    given_ids = [example.id for example in seen[-1].examples]
    temperature = weak.metrics["validation/temperature"]
    odds = [np.log(labels[:, 1] / labels[:, 0]) for labels in (weak.weak_labels().of(given_ids), seen[-1].labels_NC)]
    np.testing.assert_allclose(odds[1], odds[0] / temperature, rtol=1e-3)
    assert temperature != pytest.approx(1, abs=1e-3)
    plain = student.run(config(ceiling="none"))
    assert plain.fingerprint != found.fingerprint and plain.tags["w2s.weak_run_id"] == weak.run_id


@pytest.mark.slow
@pytest.mark.shared
def test_stopping_by_the_truth_is_counted_said_and_another_result() -> None:
    found, plain = (student.run(config(early_stopping=stop, epochs=4)) for stop in ("oracle", "weak"))
    cut = loading.resolve_and_split(config().resolved())[1]
    assert found.metrics["gold/transfer/oracle"] == len(cut.transfer_validation)
    assert found.tags["w2s.gold"] == "transfer" and "w2s.gold" not in plain.tags
    assert "validation/oracle_accuracy" in found.metrics and "validation/agreement" not in found.metrics
    assert "gold/transfer/oracle" not in plain.metrics and "validation/agreement" in plain.metrics


@pytest.mark.slow
@pytest.mark.shared
def test_the_models_of_a_chain_stop_by_weak_labels_even_then() -> None:
    chained = config(early_stopping="oracle", chain="chess-43k", weak="chess-27k", rounds=1, ceiling="none")
    found = student.run(chained)
    link = results.get(found.tags[student.CHAIN])
    assert link.params["early_stopping"] == "weak" and "w2s.gold" not in link.tags and "w2s.gold" in found.tags


@pytest.mark.shared
def test_a_supervisor_says_how_sure_and_how_right_it_is() -> None:
    found = supervisor.run(supervisor.Config(**SMALL))
    for part in ("validation", "test"):
        assert {f"{part}/{name}" for name in ("accuracy", "ece", "brier")} <= set(found.metrics)
    assert found.artifact("figures/confidence_test.png").read_bytes().startswith(b"\x89PNG")
    assert 0.5 <= found.metrics["train/majority"] <= 1 and 0 <= found.metrics["train/accuracy"] <= 1


@pytest.mark.parametrize(
    ("task", "accuracy", "tag"),
    [
        ("sst2", 0.97, "weak"),
        ("sst2", 0.978, "equal"),
        ("sst2", 0.98, "strong"),
        ("mrpc", 0.9, "strong"),
        ("race", 0.99, None),
        ("chess", 0.9, None),
    ],
)
def test_a_model_is_weak_or_strong_against_the_published_human_score_of_the_same_question(
    task: str, accuracy: float, tag: str | None
) -> None:
    config = student.Config(task=task, head="classification")
    nothing = Split((), (), (), (), (), (), "")
    context = Context(config, config.find_task(), nothing, {})
    assert scoring._against_human(context, {"test/accuracy": accuracy}).get("w2s.vs_human") == tag
    assert scoring._against_human(context, {}) == {}


# --- ceilings that do not learn ---------------------------------------------------------------------------------------


@pytest.mark.shared
def test_a_ceiling_that_did_not_learn_is_tagged_there_and_on_its_student() -> None:
    found = student.run(config(learning_rate=1e-3, epochs=1))
    top = results.get(found.tags["w2s.ceiling_run_id"])
    accuracy, majority = (top.metrics[f"train/{name}"] for name in ("accuracy", "majority"))
    assert (top.tags["w2s.ceiling_failed"] == "near chance") is stats.near_chance(accuracy, majority, 90)
    below = found.metrics["test/ceiling_accuracy"] < found.metrics["test/weak_accuracy"]
    assert ("below the floor" in found.tags["w2s.ceiling_failed"]) is below


@pytest.mark.parametrize(
    ("tag", "floor", "top", "said"),
    [
        ("no", 0.6, 0.8, "no"),
        ("no", 0.6, 0.6, "no"),
        ("near chance", 0.6, 0.8, "near chance"),
        ("no", 0.6, 0.59, "below the floor"),
        ("near chance", 0.6, 0.5, "near chance, below the floor"),
    ],
)
def test_the_two_rules(tag: str, floor: float, top: float, said: str) -> None:
    failed = results.Result("r", "n", "ceiling", "", "", {}, {}, {scoring.CEILING_FAILED: tag}, 0.0, False)
    values = {"test/weak_accuracy": floor, "test/ceiling_accuracy": top}
    assert scoring._ceiling_failed(failed, values, "test") == said
    assert scoring._ceiling_failed(failed, {}, "test") == tag


@pytest.mark.shared
def test_a_ceiling_that_never_trained_is_near_chance() -> None:
    """A rate so small that a new linear head stays what it was drawn as."""
    top = ceiling.run(ceiling.Config(strong="chess-121k", head="classification", learning_rate=1e-9, epochs=1, **SMALL))
    assert top.tags["w2s.ceiling_failed"] == "near chance"
    assert top.metrics["train/accuracy"] < 0.65


def test_labels_against_the_method_are_refused() -> None:
    with pytest.raises(ConfigError, match="--labels must be weak under --method confidence"):
        config(method="confidence", labels="oracle").resolved()
    with pytest.raises(ConfigError, match=r"^--labels must be weak with --calibrate, got hard$"):
        config(labels="hard", calibrate=True)
    with pytest.raises(ConfigError, match=r"^--early-stopping must be weak or none with --labels none, got oracle$"):
        config(method="zero_shot", early_stopping="oracle")
    with pytest.raises(
        ConfigError,
        match=r"--labels must be .*consultancy, .*, weak, .*or a parquet file",
    ):
        config(labels="gold")


# --- the ground truth of some rows ------------------------------------------------------------------------------------


@pytest.mark.shared
def test_a_gold_subset_trains_on_its_rows_alone_for_a_quarter_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    fit_head = finetune.fit_head

    def spy(*given: Any) -> None:
        seen.append(given[1:4])
        fit_head(*given)

    monkeypatch.setattr(finetune, "fit_head", spy)
    options = {
        "strong": "chess-43k",
        "method": "gold_subset",
        "early_stopping": "none",
        "ceiling": "none",
    }
    found = [student.run(student.Config(**SMALL | options | {"gold_rows": rows})) for rows in (5, 10)]
    transfer = loading.resolve_and_split(config().resolved())[1].transfer
    chosen = [{example.id for example in training.examples} for _, training, _ in seen]
    assert [len(ids) for ids in chosen] == [5, 10] and chosen[0] < chosen[1] < {example.id for example in transfer}
    assert [run.metrics["gold/transfer/oracle"] for run in found] == [5, 10]
    assert all(validation is None for _, _, validation in seen)
    n = len(transfer)
    assert [context.options.epochs for context, _, _ in seen] == [2 * -(-n // 20), 2 * -(-n // 40)]
    assert [run.params["epochs"] for run in found] == ["2", "2"] and [run.params["gold_rows"] for run in found] == ["5", "10"]


def test_a_gold_subset_has_no_validation_rows_and_no_more_rows_than_there_are() -> None:
    with pytest.raises(ConfigError, match=r"^--early-stopping must be none with --labels gold_subset, .*, got weak$"):
        config(method="gold_subset")
    with pytest.raises(ConfigError, match=r"^--gold-rows must be at most 90, the number of rows of transfer, got 91$"):
        student.run(config(method="gold_subset", early_stopping="none", gold_rows=91))
    assert all_runs() == []
