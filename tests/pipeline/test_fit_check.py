"""A model that does not fit is found before anything is trained: it trains, is mended, or is refused in one sentence."""

from __future__ import annotations

import csv
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from tests import trunks
from tests.conftest import runs
from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError, ModelError
from w2s_mlflow.local import hub
from w2s_mlflow.modeling import heads
from w2s_mlflow.pipeline import context, fit_check
from w2s_mlflow.records import Example
from w2s_mlflow.stages import student, supervisor, sweep

WORDS = len(trunks.WORDS)
BERT: dict[str, Any] = {**trunks.SIZES, "vocab_size": WORDS, "max_position_embeddings": 64}
TWO = BERT | {"num_hidden_layers": 2}
OPT: dict[str, Any] = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 24}
T5: dict[str, Any] = {"vocab_size": WORDS, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
MAMBA: dict[str, Any] = {"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**BERT)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=WORDS, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    ),
    "electra": lambda: transformers.ElectraForMaskedLM(transformers.ElectraConfig(embedding_size=8, **BERT)),
    "electra of one width": lambda: transformers.ElectraModel(transformers.ElectraConfig(embedding_size=16, **BERT)),
    "albert": lambda: transformers.AlbertForMaskedLM(transformers.AlbertConfig(embedding_size=8, **BERT)),
    "bloom": lambda: transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=WORDS, hidden_size=16, n_layer=1, n_head=2)
    ),
    "xlm": lambda: transformers.XLMWithLMHeadModel(
        transformers.XLMConfig(vocab_size=WORDS, emb_dim=16, n_layers=1, n_heads=2, max_position_embeddings=64)
    ),
    "wide outside": lambda: transformers.OPTForCausalLM(transformers.OPTConfig(word_embed_proj_dim=24, **OPT)),
    "narrow outside": lambda: transformers.OPTForCausalLM(transformers.OPTConfig(word_embed_proj_dim=8, **OPT)),
    "longformer": lambda: transformers.LongformerModel(transformers.LongformerConfig(attention_window=[4, 4], **TWO)),
    "mamba": lambda: transformers.MambaForCausalLM(transformers.MambaConfig(**MAMBA)),
    "t5 encoder": lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)),
    "ctrl": lambda: transformers.CTRLLMHeadModel(
        transformers.CTRLConfig(vocab_size=WORDS, n_embd=16, dff=24, n_layer=1, n_head=2, n_positions=64)
    ),
    "xlnet": lambda: transformers.XLNetLMHeadModel(
        transformers.XLNetConfig(vocab_size=WORDS, d_model=16, d_inner=24, n_layer=1, n_head=2)
    ),
}
"""Small models of random weights, by what is unusual about them."""
FITTING = ["bert", "gpt2", "electra", "electra of one width", "albert", "bloom", "xlm", "narrow outside", "wide outside"]
FITTING += ["mamba", "longformer", "ctrl", "xlnet"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns the directory of a model, which is written when it is first asked for."""
    shelf = tmp_path_factory.mktemp("shelf")

    def directory(kind: str) -> Path:
        if not (shelf / kind).exists():
            write(MODELS[kind](), shelf / kind)
        return shelf / kind

    return directory


def write(model: PreTrainedModel, directory: Path, *added: str) -> Path:
    """Save a model with BERT's tokenizer, to which the words `added` are added."""
    tokenizer: Any = trunks.bert()[1]
    tokenizer.add_tokens(list(added))
    with hub.quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directory


def change(directory: Path, file: str, **values: object) -> None:
    content = json.loads((directory / file).read_text()) | values
    (directory / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A task of 80 texts, whose label is whether `a` stands before `b`."""
    file = tmp_path_factory.mktemp("task") / "letters.csv"
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        for number in range(80):
            letters = list(np.random.default_rng(number).permutation(list("abcdefgh")))
            writer.writerow([" ".join(letters), int(letters.index("a") < letters.index("b"))])
    return f"file:{file}"


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """No model counts as checked because an earlier test has checked it."""
    fit_check._passed.clear()
    yield
    fit_check._passed.clear()


def check(table: str, model: Path | str, **options: Any) -> None:
    fit_check.check_models(context.resolve(supervisor.Config(task=table, weak=str(model), train_size=40, **options)))


def refusal(table: str, model: Path | str, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(table, model, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- models that fit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FITTING)
def test_an_unusual_model_passes_and_learns(kind: str, table: str, shelf: Callable[[str], Path]) -> None:
    """After the check, the loss has a gradient in the backbone: the head has the width of the hidden states."""
    check(table, shelf(kind))
    examples = context.resolve(supervisor.Config(task=table, weak=str(shelf(kind)), train_size=40)).split.supervision[:4]
    torch.manual_seed(0)
    head = heads.build("classification", *models.load(models.find(str(shelf(kind)), "weak"), pretrained=True), 2).eval()
    batch, labels = head.encode(examples).batch(np.arange(4)), torch.tensor([0, 1, 0, 1])
    loss = torch.nn.functional.cross_entropy(head(batch), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [weight.grad.abs().max().item() for weight in head.model.parameters() if weight.grad is not None]
    assert loss.isfinite() and max(gradients) > 0


def test_former_names_of_the_width_are_read(table: str, shelf: Callable[[str], Path], tmp_path: Path) -> None:
    """`n_embed`, which the config class of BLOOM knows."""
    directory = write(MODELS["bloom"](), tmp_path / "bloom")
    change(directory, "config.json", hidden_size=None, n_embed=16)
    check(table, directory)
    assert models.find(str(directory), "weak").non_embedding > 0


def test_a_cut_shortens_every_list_with_an_entry_per_layer(table: str, shelf: Callable[[str], Path]) -> None:
    check(table, f"{shelf('longformer')}:1")
    model, _ = models.load(models.find(f"{shelf('longformer')}:1", "weak"), pretrained=True)
    assert (model.config.num_hidden_layers, model.config.attention_window) == (1, [4])


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_pad_token_outside_the_table_is_mended_by_the_mask(kind: str, table: str, tmp_path: Path) -> None:
    directory = write(MODELS[kind](), tmp_path / kind, "[ANOTHER PAD]")
    change(directory, "tokenizer_config.json", pad_token="[ANOTHER PAD]")
    check(table, directory)
    spec = models.find(str(directory), "weak")
    model, tokenizer = models.load(spec, pretrained=True)
    assert tokenizer.pad_token_id == WORDS
    head = heads.build("classification", model, tokenizer, 2).eval()
    examples = context.resolve(supervisor.Config(task=table, weak=str(directory), train_size=40)).split.supervision[:3]
    shorter = [examples[0], Example("a b", "a b", ("a b",), ())]
    with torch.inference_mode():
        together = head(head.encode(shorter).batch(np.arange(2)))
        alone = head(head.encode(shorter[1:]).batch(np.arange(1)))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


# --- models that do not fit -------------------------------------------------------------------------------------------


def test_a_word_outside_the_table_is_named_with_the_size_of_the_table(table: str, tmp_path: Path) -> None:
    directory = write(MODELS["bert"](), tmp_path / "bert", "h g")
    sentence = refusal(table, directory)
    assert sentence.startswith(
        f"the model's embedding table has {WORDS} rows, but its tokenizer encodes a text with the token "
    )
    assert "'h g', which has the id" in sentence


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "mamba with adapters": ("mamba", {"lora": 2}, "--lora cannot be used with MambaModel"),
    "no recomputing of activations": (
        "xlm",
        {"gradient_checkpointing": True},
        "--gradient-checkpointing must be used only with a",
    ),
    "an encoder of a pair": ("t5 encoder", {}, "t5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_used_is_refused_in_one_sentence(name: str, table: str, shelf: Callable[[str], Path]) -> None:
    kind, options, said = REFUSED[name]
    assert said in refusal(table, shelf(kind), **options)


def test_an_error_of_a_foreign_model_is_one_sentence_with_its_name(
    table: str, shelf: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **named: object) -> None:
        raise KeyError("what\nnobody expected")

    monkeypatch.setattr(heads.Classification, "forward", fails)
    assert refusal(table, shelf("bert")).startswith("the model bert cannot be used, because it fails on the longest example: ")


@settings(max_examples=5, deadline=None)
@given(rows=st.integers(3, WORDS + 2), width=st.sampled_from([8, 16]), inner=st.sampled_from([8, 16]))
def test_a_model_fits_if_and_only_if_its_table_has_every_token(
    rows: int, width: int, inner: int, tmp_path_factory: pytest.TempPathFactory, table: str
) -> None:
    """Whatever its widths are. The texts have the tokens 1 ([CLS]) to 11 (`h`)."""
    config = BERT | {"vocab_size": rows, "hidden_size": width, "embedding_size": inner}
    directory = write(transformers.ElectraModel(transformers.ElectraConfig(**config)), tmp_path_factory.mktemp("electra"))
    if rows > trunks.WORDS["h"]:
        check(table, directory)
    else:
        assert f"embedding table has {rows} rows" in refusal(table, directory)


# --- before anything is trained ---------------------------------------------------------------------------------------


def test_a_student_that_does_not_fit_is_refused_before_its_supervisor_is_trained(
    experiment: str, table: str, shelf: Callable[[str], Path]
) -> None:
    config = student.Config(task=table, weak=str(shelf("bert")), strong=str(shelf("mamba")), train_size=40, lora=2)
    with pytest.raises(ModelError, match="--lora cannot be used with MambaModel"):
        student.run(config)
    assert [run for run in runs() if run.info.status == "FINISHED"] == []


@pytest.mark.slow
def test_in_a_grid_a_model_that_does_not_fit_costs_its_own_runs_only(
    experiment: str, table: str, shelf: Callable[[str], Path], tmp_path: Path
) -> None:
    bad = write(transformers.BertModel(transformers.BertConfig(**BERT | {"vocab_size": 9})), tmp_path / "bad")
    settings = [
        {"task": table, "weak": str(shelf("bert")), "strong": str(strong), "epochs": 1} for strong in (bad, shelf("gpt2"))
    ]
    (tmp_path / "grid.py").write_text(f"SETTINGS = {settings!r}\n")
    with pytest.raises(ConfigError) as caught:
        sweep.run(sweep.Config(sweep=str(tmp_path / "grid.py"), seeds="0,1", train_size=40))
    said = str(caught.value)
    assert said.startswith(
        f"2 of 4 runs of sweep {tmp_path / 'grid.py'} failed (first error: the model's embedding table has 9 "
    )
    finished = [run for run in runs() if run.info.status == "FINISHED"]
    stages = Counter(run.data.tags["w2s.stage"] for run in finished)
    assert stages == {"student": 2, "supervisor": 2, "ceiling": 2, "sweep": 1}
    assert not any("bad" in run.data.tags["mlflow.runName"] for run in finished)
