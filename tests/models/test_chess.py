"""The embedded ladder: what is shipped, how it is loaded, and how text becomes tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.models import chess
from w2s_mlflow.models._loading import counted

NAMES = [spec.name for spec in chess.SPECS]
CHECKPOINTS = [(spec.name, number) for spec in chess.SPECS for number in range(spec.checkpoints)]
SMALLEST = chess.SPECS[0]


def test_every_rung_has_a_shape_and_is_named_by_its_size() -> None:
    assert list(chess.SHAPES) == NAMES
    for spec in chess.SPECS:
        model, _ = chess.load(spec, pretrained=False)
        assert counted(model) == spec.size and not spec.large
        assert spec.name == f"chess-{round(spec.parameters / 1000)}k"


@pytest.mark.parametrize(("name", "number"), CHECKPOINTS)
def test_shipped_weights_are_float16_and_loaded_as_float32(name: str, number: int) -> None:
    stored = load_file(chess.WEIGHTS / name / str(number) / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    spec = models.find(name, "weak").for_seed(number)
    model, _ = chess.load(spec, pretrained=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.equal(stored[key].float(), tensor) for key, tensor in model.state_dict().items())
    assert len(chess.revision(spec)) == 64


def test_shipped_weights_are_small() -> None:
    assert sum(file.stat().st_size for file in chess.WEIGHTS.rglob("*") if file.is_file()) < 8_000_000


def test_a_shipped_rung_is_a_hugging_face_directory() -> None:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    found = AutoModelForCausalLM.from_pretrained(chess.WEIGHTS / NAMES[0] / "0", dtype="float32")
    model, _ = chess.load(SMALLEST, pretrained=True)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in found.state_dict().items())


def test_what_is_saved_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    model, _ = chess.load(SMALLEST, pretrained=False)
    chess.save(model, tmp_path / NAMES[0] / "0")
    monkeypatch.setattr(chess, "WEIGHTS", tmp_path)
    again, _ = chess.load(SMALLEST, pretrained=True)
    assert all(torch.equal(tensor.half().float(), again.state_dict()[key]) for key, tensor in model.state_dict().items())
    assert model.dtype == torch.float32  # saving leaves the model as it was


def test_random_weights_come_from_the_seed() -> None:
    def first(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return next(chess.load(SMALLEST, pretrained=False)[0].parameters())

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


def test_one_token_a_word_and_no_pad_in_text() -> None:
    tokenizer = chess.tokenizer()
    words = ["Kc2", "Qd3", "kf7", "pd5", ">"]
    ids = tokenizer(" ".join(words))["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", *words]
    assert tokenizer("Kc2 >", "Qd5")["input_ids"] == tokenizer("Kc2 > Qd5")["input_ids"]
    assert tokenizer.pad_token_id not in tokenizer(" ".join(chess.VOCABULARY[2:]), truncation=False)["input_ids"]
    assert len(set(chess.VOCABULARY)) == len(chess.VOCABULARY) == 5 + 12 * 64


@pytest.mark.parametrize(("name", "number"), CHECKPOINTS)
def test_curves_and_options_stand_beside_the_weights(name: str, number: int) -> None:
    story = json.loads((chess.WEIGHTS / name / str(number) / "pretraining.json").read_text(encoding="utf-8"))
    assert story["options"]["model"] == name and story["options"]["seed"] == number
    assert story["curve"][-1][1] < story["curve"][0][1]


def test_checkpoints_vary_with_the_seed() -> None:
    spec = models.find("chess-60k", "weak")
    assert spec.checkpoints > 1
    revisions = [models.revision(spec.for_seed(seed)) for seed in range(spec.checkpoints + 1)]
    assert len(set(revisions)) == spec.checkpoints and revisions[0] == revisions[-1]
    assert SMALLEST.for_seed(1) == SMALLEST  # it has one checkpoint


def test_a_name_may_pin_a_checkpoint() -> None:
    pinned, spec = models.find("chess-60k@1", "weak"), models.find("chess-60k", "weak")
    assert models.revision(pinned.for_seed(0)) == models.revision(spec.for_seed(1))
    assert pinned.name == "chess-60k@1" and pinned.size == spec.size
    weights = chess.load(pinned, pretrained=True)[0].state_dict()
    assert all(
        torch.equal(weights[key], tensor)
        for key, tensor in chess.load(spec.for_seed(1), pretrained=True)[0].state_dict().items()
    )


@pytest.mark.parametrize("name", ["chess-60k@9", "chess-60k@x", "chess-60k:1", "chess-60k@1:1", "chess-27k@1"])
def test_a_checkpoint_that_is_not_shipped_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"--weak must be chess-\d+k or chess-\d+k@N, where .* is 0.*, got '?{name}"):
        models.find(name, "weak")
