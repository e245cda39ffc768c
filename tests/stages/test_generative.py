"""Generative finetuning (Algorithm 6): what is read, what is never read, and how a student goes on from there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.conftest import SMALL, runs
from w2s_mlflow import models
from w2s_mlflow.data import loading
from w2s_mlflow.data.splits import Split
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.pipeline.context import resolve
from w2s_mlflow.stages import generative, student
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.usefixtures("experiment")


def config(**options: Any) -> student.Config:
    return student.Config(strong="chess-121k", **SMALL | options)


def reader(result: Result) -> Result:
    return results.get(result.tags["w2s.generative_run_id"])


def test_it_reads_both_halves_and_nothing_that_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from w2s_mlflow.modeling import language_modeling

    packed: list[list[tuple[str, ...]]] = []
    pack = language_modeling.Packed.pack

    def seen(self: Any, rows: Any, length: int, random: Any) -> Any:
        packed.append(list(rows))
        return pack(self, rows, length, random)

    monkeypatch.setattr(language_modeling.Packed, "pack", seen)
    config = generative.Config(strong="chess-121k", **SMALL)
    found, cut = generative.run(config), resolve(config).split
    parts = {
        name: [("\n".join(example.segments), response) for example in examples for response in example.candidates]
        for name, examples in cut.parts().items()
    }
    assert packed[0] == parts["supervision"] + parts["transfer"]
    assert packed[1] == parts["supervision_validation"] + parts["transfer_validation"]
    assert not set(packed[0] + packed[1]) & set(parts["selection"] + parts["test"])
    read = {(example.segments, example.candidates) for part in ("supervision", "transfer") for example in cut.parts()[part]}
    assert found.metrics["generative/texts"] == len(read) and found.metrics["generative/heldout_texts"] == 0
    assert not [name for name in found.metrics if name.startswith("gold/")] and "w2s.gold" not in found.tags


def test_held_out_text_that_is_read_is_counted() -> None:
    cut = loading.resolve_and_split(generative.Config(**SMALL).resolved())[1]
    leaky: Split = replace(cut, transfer=cut.transfer + cut.test[:3])
    assert generative._counts(leaky)["generative/heldout_texts"] == 3


def test_what_is_read_becomes_less_surprising() -> None:
    found = generative.run(generative.Config(strong="chess-121k", epochs=3, **SMALL))
    assert found.metrics["validation/perplexity"] < found.metrics["validation/perplexity_before"]


@pytest.mark.slow
def test_a_student_starts_from_the_weights_that_have_read(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, torch.Tensor]] = []
    fit_head = finetune.fit_head

    def seen(head: Any, *arguments: Any) -> None:
        started.append({name: tensor.clone() for name, tensor in head.model.state_dict().items()})
        fit_head(head, *arguments)

    found = student.run(config())  # its supervisor and its ceiling are there now
    monkeypatch.setattr(finetune, "fit_head", seen)
    made = len(runs())
    read = student.run(config(method="generative"))
    assert len(runs()) == made + 2 and len(started) == 1
    weights = safetensors.torch.load_file(reader(read).artifact(generative.WEIGHTS))
    plain = models.load(models.find("chess-121k", "strong"), pretrained=True)[0].state_dict()
    for name, tensor in weights.items():
        torch.testing.assert_close(started[0][name], tensor, rtol=0, atol=0)
    assert any((plain[name] != tensor).any() for name, tensor in weights.items())
    assert read.fingerprint != found.fingerprint
    own, other = (result.predictions("test").probabilities_NC for result in (read, found))
    assert (own != other).any()
    assert np.isfinite(own).all() and read.tags["w2s.ceiling_run_id"] == found.tags["w2s.ceiling_run_id"]


def test_the_papers_rate_and_batch_unless_given() -> None:
    rate = models.find("chess-121k", "strong").learning_rate
    after = config(method="generative").resolved()
    assert (after.learning_rate, after.batch_size, after.generative_epochs) == (rate / 2, 16, 1)
    assert after.resolved() == after
    given = config(generative_epochs=2, learning_rate=1e-3, batch_size=8).resolved()
    assert (given.learning_rate, given.batch_size, given.method) == (1e-3, 8, "generative")
    plain = config().resolved()
    assert (plain.learning_rate, plain.batch_size, plain.generative_epochs) == (rate, 32, 0)


def test_it_composes_with_a_loss() -> None:
    both = config(generative_epochs=1, loss="confidence").resolved()
    assert (both.method, both.loss, both.batch_size) == ("full-without-bootstrap", "confidence", 16)


@pytest.mark.slow
def test_one_that_has_read_is_shared() -> None:
    found = [student.run(config(generative_epochs=1, loss=loss)) for loss in ("cross_entropy", "confidence")]
    assert reader(found[0]).run_id == reader(found[1]).run_id


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generative_epochs": -1}, "--generative-epochs must be at least 0, got -1"),
        ({"generative_epochs": 1, "weights": "random"}, "--generative-epochs must be 0 with --weights random, got 1"),
        ({"generative_epochs": 1, "method": "baseline"}, "--generative-epochs must be 0 under --method baseline"),
        ({"generative_epochs": 0, "method": "generative"}, "--generative-epochs must be 1 under --method generative"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        config(**options)


@pytest.mark.parametrize("options", [{"block": 1}, {"epochs": 0}, {"dtype": "float16"}, {"learning_rate": 0.0}, {"seed": -1}])
def test_a_wrong_option_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"^--{next(iter(options)).replace('_', '-')} must be"):
        generative.Config(**options)
