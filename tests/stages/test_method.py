"""Supervisor, ceiling, student: what is trained, on what, what is stored, and what is reused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow import config as options
from w2s_mlflow.data import loading
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.stages import student, supervisor
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.usefixtures("experiment")


def config(**options: Any) -> student.Config:
    return student.Config(strong="chess-121k", **SMALL | options)


def frame(result: Result, path: str) -> dict[str, Any]:
    """One parquet artifact by id, read without our code."""
    table = pq.read_table(result.artifact(path)).to_pydict()
    return {id_: {name: table[name][row] for name in table} for row, id_ in enumerate(table["id"])}


def gold(result: Result, split: str = "test") -> dict[str, int]:
    """The gold that the evaluator keeps beside the predictions on a split, read without our code."""
    table = pq.read_table(result.artifact(f"gold/{split}.parquet")).to_pydict()
    return dict(zip(table["id"], table["gold"], strict=True))


def inputs(result: Result) -> tuple[dict[str, Any], dict[str, Any]]:
    weak, top = (results.get(result.tags[f"w2s.{role}_run_id"]) for role in ("weak", "ceiling"))
    return frame(weak, "predictions/test.parquet"), frame(top, "predictions/test.parquet")


@pytest.mark.shared
def test_the_numbers_of_a_run_follow_from_its_parquet_files_alone() -> None:
    result = student.run(config(method="confidence"))
    own, (weak, top), truth = frame(result, "predictions/test.parquet"), inputs(result), gold(result)
    assert set(own) == set(weak) == set(top) == set(truth) and len(own) == SMALL["test_size"]
    answer = {id_: [int(np.argmax(t[id_]["probabilities"])) for t in (own, weak, top)] for id_ in own}
    accuracy = [np.mean([answer[id_][k] == truth[id_] for id_ in own]) for k in range(3)]
    expected = {
        "test/accuracy": accuracy[0],
        "test/weak_accuracy": accuracy[1],
        "test/ceiling_accuracy": accuracy[2],
        "test/agreement": np.mean([answer[id_][0] == answer[id_][1] for id_ in own]),
    }
    if accuracy[2] != accuracy[1]:
        expected["test/pgr"] = (accuracy[0] - accuracy[1]) / (accuracy[2] - accuracy[1])
    assert {name: result.metrics[name] for name in expected} == expected


def test_asking_twice_trains_once() -> None:
    first = student.run(config())
    made = len(runs())
    second = student.run(config())
    assert (second.run_id, second.reused, len(runs())) == (first.run_id, True, made)
    assert made == 3  # supervisor, ceiling, student
    assert second.metrics == first.metrics


@pytest.mark.slow
def test_methods_share_the_supervisor_and_the_ceiling() -> None:
    found = [student.run(config(method=method)) for method in ("baseline", "confidence", "zero_shot", "random_weights")]
    for role in ("weak", "ceiling"):
        assert len({result.tags[f"w2s.{role}_run_id"] for result in found}) == 1
    assert len({result.fingerprint for result in found}) == 4
    assert len(runs()) == 6


@pytest.mark.shared
def test_self_training_learns_the_answers_that_the_zero_shot_run_gives_to_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    fit_head = finetune.fit_head

    def spy(*given: Any) -> None:
        seen.append(given[2])
        fit_head(*given)

    monkeypatch.setattr(finetune, "fit_head", spy)
    options = {"early_stopping": "none", "ceiling": "none", "weak": "chess-27k"}
    trained = student.run(config(method="self_training", **options))
    untrained = student.run(config(method="zero_shot", **options))
    assert untrained.reused and trained.tags["w2s.labels_run_id"] == untrained.run_id
    answers, transfer = untrained.weak_labels(), loading.resolve_and_split(config().resolved())[1].transfer
    assert [example.id for example in seen[-1].examples] == [example.id for example in transfer]
    np.testing.assert_array_equal(seen[-1].labels_NC, answers.of([example.id for example in transfer]))
    assert "w2s.gold" not in trained.tags
    reads = [name for name in trained.metrics if name.startswith("gold/transfer")]
    assert reads == ["gold/transfer/report"]  # for `transfer/label_accuracy`, after the training
    assert trained.metrics["test/weak_accuracy"] == untrained.metrics["test/weak_accuracy"]
    assert not np.array_equal(trained.predictions("test").probabilities_NC, untrained.predictions("test").probabilities_NC)


@pytest.mark.shared
def test_another_seed_draws_other_rows_and_the_same_test() -> None:
    first, second = (supervisor.run(supervisor.Config(seed=seed, **SMALL)) for seed in (0, 1))
    labels = [set(result.weak_labels().ids) for result in (first, second)]
    assert labels[0] != labels[1]
    assert set(first.predictions("test").ids) == set(second.predictions("test").ids)


@pytest.mark.shared
def test_the_labels_cover_transfer_and_its_validation_slice_and_nothing_else() -> None:
    options = supervisor.Config(**SMALL).resolved()
    cut = loading.resolve_and_split(options)[1]
    labels = supervisor.run(options).weak_labels()
    assert set(labels.ids) == {example.id for example in cut.transfer + cut.transfer_validation}
    assert labels.probabilities_NC.sum(axis=1) == pytest.approx(np.ones(len(labels.ids)), abs=1e-6)


@pytest.mark.slow
def test_a_result_does_not_depend_on_what_ran_before() -> None:
    alone = student.run(config(seed=5)).predictions("test")
    student.run(config(seed=5, method="confidence"))
    again = student.Config(**vars(config(seed=5)) | {"epochs": 1})
    student.run(again)
    from w2s_mlflow.tracking.backend import server

    for run in runs():
        server.client().delete_run(run.info.run_id)
    repeated = student.run(config(seed=5)).predictions("test")
    assert np.array_equal(alone.probabilities_NC, repeated.probabilities_NC)


def test_a_failed_training_leaves_a_failed_run_and_is_trained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(finetune, "record_heldout", lambda *_: 1 / 0)
        supervisor.run(supervisor.Config(**SMALL))
    assert [run.info.status for run in runs()] == ["FAILED"]
    assert not supervisor.run(supervisor.Config(**SMALL)).reused
    assert sorted(run.info.status for run in runs()) == ["FAILED", "FINISHED"]


@pytest.mark.shared
def test_the_stored_config_makes_the_same_run_again() -> None:
    result = student.run(config(method="confidence"))
    stored = json.loads(result.artifact("config.json").read_text())
    again = options.parse(student.Config, stored)
    assert options.as_dict(again) == stored
    assert student.run(again).run_id == result.run_id


@pytest.mark.shared
def test_a_run_says_what_it_is() -> None:
    result = student.run(config(method="confidence"))
    assert result.name == "student chess chess-60k->chess-121k confidence seed 0"
    identity = {"task": "chess", "weak": "chess-60k", "strong": "chess-121k", "method": "confidence", "seed": "0"}
    assert identity.items() <= dict(result.params).items()
    assert {f"w2s.{name}": value for name, value in identity.items()}.items() <= dict(result.tags).items()
    assert result.params["alpha"] == "0.5" and result.params["warmup"] == "0.2"
    assert result.tags["w2s.pgr_status"] in ("ok", "undetermined")
    run = next(run for run in runs() if run.info.run_id == result.run_id)
    assert "mlflow.note.content" in run.data.tags
    assert run.inputs is not None
    data = run.inputs.dataset_inputs[0].dataset
    assert data.name == "chess" and len(data.digest) == 36


@pytest.mark.shared
def test_a_setting_given_as_primitives_is_the_same_run_as_its_preset() -> None:
    assert student.run(config(loss="confidence")).run_id == student.run(config(method="confidence")).run_id
