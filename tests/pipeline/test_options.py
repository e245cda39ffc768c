"""The options of a large model on a small machine: what is refused, what three stages share, and what is another result."""

from __future__ import annotations

import importlib.util
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SMALL, runs
from tests.models.test_hub import made, write
from w2s_mlflow import models
from w2s_mlflow.config import parse
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import inference
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.pipeline import runs as pipeline_runs
from w2s_mlflow.pipeline.context import resolve
from w2s_mlflow.stages import align, ceiling, facilitate, student, supervisor
from w2s_mlflow.tracking import fingerprint, results
from w2s_mlflow.tracking.results import Result
from w2s_mlflow.training import loop

TINY: dict[str, Any] = SMALL | {"weak": "chess-27k", "strong": "chess-27k", "epochs": 1, "head": "classification"}
LINEAR = "which has no linear layer of its own"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"micro_batch": "0"}, "--micro-batch must be at least 1, got 0"),
        ({"micro_batch": "few"}, "--micro-batch must be a whole number, got 'few'"),
        ({"lora": "0"}, "--lora must be at least 1, got 0"),
        ({"max_length": "0"}, "--max-length must be at least 1, got 0"),
        ({"dtype": "bfloat"}, "--dtype must be one of auto, bfloat16, float32, got 'bfloat' (did you mean bfloat16?)"),
        ({"freeze": "trunc"}, "--freeze must be one of backbone, none, got 'trunc'"),
        ({"pooling": "max"}, "--pooling must be one of auto, first, last, mean, got 'max'"),
        ({"freeze": "backbone", "head": "lm_choice"}, f"--freeze must be none for the head lm_choice, {LINEAR}, got backbone"),
        ({"pooling": "mean", "head": "lm_choice"}, f"--pooling must be none for the head lm_choice, {LINEAR}, got mean"),
        ({"freeze": "backbone", "head": "classification", "lora": "4"}, "--lora must be none with --freeze backbone, got 4"),
    ],
)
def test_wrong_values_are_one_sentence(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(student.Config, given)
    assert str(caught.value).startswith(sentence)


def test_without_its_extra_adapters_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(ConfigError, match=r'--lora must be none unless the package peft .*pip install -e ".\[lora\]"\), got 4'):
        student.Config(lora=4)
    assert student.Config(lora=None).lora is None


def test_what_a_model_cannot_read_is_refused() -> None:
    context = resolve(supervisor.Config(weak="chess-27k", max_length=33, **SMALL))
    with pytest.raises(ConfigError, match=r"--max-length must be in \[3, 32\] for this model, got 33"):
        finetune.build_head(context)


def test_a_linear_head_pools_as_its_family_does_and_another_not_at_all() -> None:
    assert supervisor.Config(head="classification").resolved().pooling == "last"
    assert supervisor.Config(head="classification", pooling="mean").resolved().pooling == "mean"
    assert supervisor.Config(head="lm_choice").resolved().pooling is None


def test_a_few_new_weights_take_larger_steps_unless_the_rate_is_given() -> None:
    def rate(**given: Any) -> float | None:
        return supervisor.Config(head="classification", **given).resolved().learning_rate

    own = models.find("chess-60k", "weak").learning_rate
    assert [rate(), rate(lora=4), rate(freeze="backbone")] == [own, 10 * own, 0.001]
    assert rate(lora=4, learning_rate=1e-3) == rate(freeze="backbone", learning_rate=1e-3) == 1e-3


def parts_of(**given: Any) -> str:
    context = resolve(supervisor.Config(head="classification", **SMALL | given))
    return pipeline_runs.parts("supervisor", 1, context, {}, []).digest()


def test_what_changes_a_result_is_another_result() -> None:
    changes: list[dict[str, Any]] = [
        {"micro_batch": 4},
        {"dtype": "bfloat16"},
        {"lora": 2},
        {"lora": 3},
        {"freeze": "backbone"},
    ]
    changes += [{"pooling": "mean"}, {"max_length": 12}]
    assert len({parts_of(), *(parts_of(**change) for change in changes)}) == 1 + len(changes)
    assert parts_of(gradient_checkpointing=True) == parts_of() == parts_of(pooling="last")


def test_adapters_are_those_of_a_version_of_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, adapted = parts_of(), parts_of(lora=2)
    monkeypatch.setattr(f"{fingerprint.__name__}.version", lambda name: "9.9.1" if name == "peft" else version(name))
    assert parts_of() == plain and parts_of(lora=2) != adapted


# --- supervisor, ceiling and student ----------------------------------------------------------------------------------


def said(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.artifact("config.json").read_text(encoding="utf-8"))
    return found


def beside(result: Result) -> dict[str, Result]:
    return {role: results.get(result.tags[f"w2s.{role}_run_id"]) for role in ("weak", "ceiling")}


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize("learned", [{"lora": 2}, {"freeze": "backbone"}])
def test_all_three_are_trained_and_computed_alike(learned: dict[str, Any]) -> None:
    shared = {**learned, "micro_batch": 16, "dtype": "bfloat16", "max_length": 20}
    result = student.run(student.Config(**TINY | shared, gradient_checkpointing="lora" in learned, pooling="mean"))
    weak, top = beside(result).values()
    for found in (result, weak, top):
        assert shared.items() <= said(found).items()
        assert said(found)["gradient_checkpointing"] is ("lora" in learned)
    assert [said(found)["pooling"] for found in (result, weak, top)] == ["mean", "last", "mean"]
    assert len(runs()) == 3 and np.isfinite(result.metrics["test/accuracy"])


@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize(
    "given", [{"lora": 2}, {"freeze": "backbone"}, pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow)]
)
def test_a_kept_model_is_plain_and_answers_as_its_stored_predictions(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = supervisor.Config(weak="chess-27k", head="classification", keep_model="always", dtype="float32", **SMALL, **given)
    result = supervisor.run(config)
    threads: list[int] = []
    monkeypatch.setattr(loop, "use_threads", threads.append)
    head, _ = finetune.load_kept_model(result), finetune.load_kept_model(result, 7)
    assert threads == [head.model.num_parameters(), 7]
    cut = loading.resolve_and_split(config.resolved())[1]
    stored = result.predictions("test").aligned([example.id for example in cut.test])
    # A frozen backbone's standardisation is folded into the linear layer, which rounds differently.
    tolerance = 1e-5 if "freeze" in given else 0.0
    answers_NC = inference.probabilities(head, head.encode(cut.test))
    np.testing.assert_allclose(answers_NC, stored.probabilities_NC, rtol=0, atol=tolerance)
    assert result.metrics["model/parameters"] == models.find("chess-27k", "weak").parameters


@pytest.mark.usefixtures("experiment")
def test_a_batch_in_parts_changes_next_to_nothing() -> None:
    whole, parts = (supervisor.run(supervisor.Config(weak="chess-27k", **SMALL, micro_batch=size)) for size in (None, 8))
    assert whole.run_id != parts.run_id
    one, other = whole.predictions("test"), parts.predictions("test")
    np.testing.assert_allclose(other.aligned(one.ids).probabilities_NC, one.probabilities_NC, atol=1e-4)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("experiment")
def test_a_moved_checkpoint_is_the_same_result(tmp_path: Path) -> None:
    place = write(made("llama"), tmp_path / "here" / "mini")
    given = TINY | {"weak": f"{place}:1", "strong": str(place), "ceiling": "none"}
    first = student.run(student.Config(**given))
    moved = place.rename(tmp_path / "mini")
    again = student.run(student.Config(**given | {"weak": f"{moved}:1", "strong": str(moved)}))
    assert again.run_id == first.run_id and len(runs()) == 2
    assert first.name == "student chess mini:1->mini classification head baseline seed 0"
    named = {"weak": "mini:1", "strong": "mini"}
    assert named.items() <= dict(first.params).items()
    assert {f"w2s.{role}": name for role, name in named.items()}.items() <= dict(first.tags).items()
    assert said(first)["strong"] == str(place)


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_another_model_of_the_same_name_is_another_result(tmp_path: Path) -> None:
    one, other = (write(made(kind), tmp_path / kind / "mini") for kind in ("llama", "neox"))
    given = TINY | {"ceiling": "none"}
    del given["weak"], given["strong"]
    first = student.run(student.Config(weak=str(one), strong="chess-27k", **given))
    second = student.run(student.Config(weak=str(other), strong="chess-27k", **given))
    assert first.name == second.name and first.run_id != second.run_id
    contexts = [resolve(ceiling.Config(strong=str(model), **SMALL)) for model in (one, other)]
    assert len({pipeline_runs.parts("ceiling", 1, context, {}, []).digest() for context in contexts}) == 2


@pytest.mark.parametrize("kind", [align.Config, facilitate.Config])
def test_stages_that_train_a_whole_model_do_not_freeze_it(kind: Any) -> None:
    with pytest.raises(ConfigError, match=r"^--freeze must be none, because .*, got backbone$"):
        kind(freeze="backbone", head="classification")
