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
from w2s_mlflow.models import chess
from w2s_mlflow.models._loading import counted

NAMES = [spec.name for spec in chess.SPECS]
SMALLEST = chess.SPECS[0]


def test_every_rung_has_a_shape_and_is_named_by_its_size() -> None:
    assert list(chess.SHAPES) == NAMES
    for spec in chess.SPECS:
        model, _ = chess.load(spec, pretrained=False)
        assert counted(model) == spec.size and not spec.large
        assert spec.name == f"chess-{round(spec.parameters / 1000)}k"


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_are_float16_and_loaded_as_float32(name: str) -> None:
    stored = load_file(chess.WEIGHTS / name / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    spec = models.find(name, "weak")
    model, _ = chess.load(spec, pretrained=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(torch.equal(stored[key].float(), tensor) for key, tensor in model.state_dict().items())
    assert len(chess.revision(spec)) == 64


def test_shipped_weights_are_small() -> None:
    assert sum(file.stat().st_size for file in chess.WEIGHTS.rglob("*") if file.is_file()) < 8_000_000


def test_a_shipped_rung_is_a_hugging_face_directory() -> None:
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    found = AutoModelForCausalLM.from_pretrained(chess.WEIGHTS / NAMES[0], dtype="float32")
    model, _ = chess.load(SMALLEST, pretrained=True)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in found.state_dict().items())


def test_what_is_saved_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    model, _ = chess.load(SMALLEST, pretrained=False)
    chess.save(model, tmp_path / NAMES[0])
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
    assert len(set(chess.VOCABULARY)) == len(chess.VOCABULARY) == 6 + 12 * 64


def test_curves_and_commands_stand_beside_the_weights() -> None:
    for name in NAMES:
        story = json.loads((chess.WEIGHTS / name / "pretraining.json").read_text(encoding="utf-8"))
        assert story["options"]["rung"] == name
        assert story["curve"][-1][1] < story["curve"][0][1]
