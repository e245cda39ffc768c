"""Probes: what is read, which layer is chosen, what a gain is, and that activations are computed once."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import trunks
from tests.conftest import SMALL, runs
from w2s_mlflow.analysis import stage_tables
from w2s_mlflow.data import gold, loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import heads, inference
from w2s_mlflow.records import Example
from w2s_mlflow.stages import analyze, probe
from w2s_mlflow.tracking import fingerprint, results
from w2s_mlflow.tracking.results import Result
from w2s_mlflow.training import loop

pytestmark = pytest.mark.usefixtures("experiment")

EXAMPLES = [Example(str(n), str(n), (" ".join("abcd"[: 1 + n % 4]),)) for n in range(7)]


def config(**options: Any) -> probe.Config:
    given: dict[str, Any] = {"strong": "chess-121k", "weak": "chess-27k", "probe_size": 90}
    return probe.Config(**given | SMALL | options)


def rows(found: Result) -> list[dict[str, str]]:
    with found.artifact(stage_tables.PROBES).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_all_layers_of_a_batch_are_those_of_each_text_alone(kind: str, pooling: str) -> None:
    loop.seed_everything(0)
    model, tokenizer = getattr(trunks, kind)()
    head = heads.Classification(model, tokenizer, 2, pooling)
    found = inference.layers(head, heads.encode_texts(head.reader, EXAMPLES), pooling, micro_batch=3)
    assert found.shape[0] == 7 and found.shape[1] == head.model.config.num_hidden_layers + 1
    for row, example in enumerate(EXAMPLES):
        batch = head.encode([example]).batch(np.arange(1))
        inputs = {name: batch[name] for name in heads.INPUTS if name in batch}
        with torch.inference_mode():
            every = head.eval().model.base_model(**inputs, output_hidden_states=True)
        place = {"first": 0, "last": -1}.get(pooling)
        for layer, hidden in enumerate(every.hidden_states):
            expected = hidden[0].mean(dim=0) if place is None else hidden[0, place]
            np.testing.assert_allclose(found[row, layer], expected.numpy(), atol=1e-5)


def test_of_a_comparison_it_is_the_difference_of_its_responses() -> None:
    loop.seed_everything(0)
    head = heads.Reward(*trunks.llama())
    pair, swapped = Example("1", "1", ("a b",), ("c", "d")), Example("2", "2", ("a b",), ("d", "c"))
    found = inference.layers(head, heads.encode_responses(head.reader, [pair, swapped]), "last")
    np.testing.assert_allclose(found[0], -found[1], atol=1e-6)
    assert np.abs(found[0]).max() > 0


def test_the_layer_is_chosen_without_the_test_rows() -> None:
    given = ((0, 1.0, 0.6), (1, 0.0, 0.9), (2, 1.0, 0.9))
    assert probe.best([probe.Probe(layer, np.full(4, test), chosen, 0.5) for layer, test, chosen in given]).layer == 1


def test_its_numbers_follow_from_its_table_and_reads_are_counted() -> None:
    found = probe.run(config())
    table = rows(found)
    chosen = {row["model"]: row for row in table if row["chosen"] == "True"}
    assert {name: found.metrics[f"probe/chess/{name}"] for name in chosen} == {
        name: pytest.approx(float(row["accuracy"])) for name, row in chosen.items()
    }
    gain = float(chosen["after"]["accuracy"]) - float(chosen["before"]["accuracy"])
    assert found.metrics["probe/chess/gain"] == pytest.approx(gain)
    assert found.metrics["probe/chess/gain_low"] <= gain <= found.metrics["probe/chess/gain_high"]
    cut = loading.resolve_and_split(config().resolved())[1]
    assert found.metrics["gold/supervision/probe"] == min(90, len(cut.supervision)) + len(cut.supervision_validation)
    assert found.metrics["gold/test/probe"] == 90 == float(table[0]["rows"])
    assert "gold/transfer/probe" not in found.metrics
    assert results.get(found.tags["w2s.student_run_id"]).stage == "student"


@pytest.fixture
def layers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, str]]:
    """(micro-batch, type) of each pass through a model from here on."""
    seen: list[tuple[int | None, str]] = []
    own = inference.layers

    def spy(head: heads.Head, data: heads.Encoded, pooling: str, micro_batch: int | None, dtype: str) -> Any:
        seen.append((micro_batch, dtype))
        return own(head, data, pooling, micro_batch, dtype)

    monkeypatch.setattr(inference, "layers", spy)
    return seen


def test_a_model_is_built_only_for_activations_that_are_not_kept_and_is_placed(
    monkeypatch: pytest.MonkeyPatch, layers: list[tuple[int | None, str]]
) -> None:
    asked, placed = config(seed=5, micro_batch=32), list[heads.Head]()
    first = probe.run(replace(asked, probe_size=20))  # with the student
    layers.clear()
    monkeypatch.setattr(loop, "to_device", placed.append)
    second = probe.run(asked)
    assert second.tags["w2s.student_run_id"] == first.tags["w2s.student_run_id"]
    assert layers == [(32, "float32")] * 2 and len(placed) == 2
    monkeypatch.setattr(probe, "VERSION", 0)
    assert probe.run(asked).run_id != second.run_id
    assert len(layers) == len(placed) == 2
    monkeypatch.setattr(fingerprint, "libraries", lambda *more: {"torch": "0.0"})
    probe.run(asked)
    assert len(layers) == 4  # the pretrained model's, too


@pytest.mark.slow
def test_another_task_can_be_the_concept_and_nothing_is_computed_twice(layers: list[tuple[int | None, str]]) -> None:
    first = probe.run(config(concepts="chess,chess_preference"))
    assert {row["concept"] for row in rows(first)} == {"chess", "chess_preference"}
    assert probe.run(config(concepts="chess,chess_preference")).run_id == first.run_id
    layers.clear()
    probe.run(config(concepts="chess"))  # a result of its own, from the activations that are kept
    assert len(layers) == 0
    probe.run(config(concepts="chess", loss="confidence"))
    assert len(layers) == 1  # the new student's; the pretrained model's are kept


@pytest.mark.slow
def test_an_analysis_shows_probes() -> None:
    for seed in (0, 1):
        probe.run(config(seed=seed))
    found = analyze.run(analyze.Config())
    with found.artifact("tables/probes.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["concept"], row["n"], row["strong"]) == ("chess", "2", "chess-121k")
    assert "figures/saliency.png" in found.digests
    assert "more salient" in found.artifact("tables/claims.csv").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"concepts": "chess,ches"}, "--concepts must be one of .*did you mean chess"),
        ({"probe_size": 3}, "--probe-size must be at least 20, got 3"),
    ],
)
def test_wrong_input_is_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        config(**options)


def test_a_concept_of_one_class_is_refused_before_a_student_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "rare.csv"
    file.write_text("text,label\n" + "".join(f"text {number},{int(number % 30 == 0)}\n" for number in range(600)))
    asked = config(concepts=f"file:{file}", probe_size=20, seed=2)
    assert len(set(gold.concept(asked, f"file:{file}", 600).fit_N)) == 2, "only the first rows have one class"
    with pytest.raises(ConfigError, match=r"^--concepts must be tasks with two or more classes .* 20 rows of file:.* one"):
        probe.run(asked)
    assert runs() == []
