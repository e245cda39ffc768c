"""Any model: what a name may be, what is refused before anything is loaded, and what the weights become."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as of_words
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import file_facts, hub
from w2s_mlflow.modeling import heads, inference, saved_heads
from w2s_mlflow.models import _checkpoint, _digest, _gguf_copy, _loading
from w2s_mlflow.models._loading import counted
from w2s_mlflow.records import Example

WORDS = ["[UNK]", "[END]", *["the", "film", "was", "good", "bad", "long", "dull", "and", "not"]]
SHAPE: dict[str, Any] = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE: dict[str, Any] = {**SHAPE, "intermediate_size": 24, "max_position_embeddings": 32}
LLAMA: dict[str, Any] = {**WIDE, "num_key_value_heads": 1, "head_dim": 8}
KINDS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: BertForMaskedLM(BertConfig(**WIDE)),
    "bert_trunk": lambda: BertModel(BertConfig(**WIDE)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=32)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**LLAMA)),
    "llama_trunk": lambda: LlamaModel(LlamaConfig(**LLAMA)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**WIDE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**LLAMA, tie_word_embeddings=True)),
}
TEXTS = ("the film was good", "dull", "the film was not long and not bad")
EXAMPLES = [Example(text, text, (text,), ()) for text in TEXTS]


def made(kind: str) -> PreTrainedModel:
    """The model that lies on the shelf, as exact as float16."""
    torch.manual_seed(0)
    model: Any = KINDS[kind]()
    found: PreTrainedModel = model.to(torch.float16)
    return found


def write(model: PreTrainedModel, directory: Path) -> Path:
    """A checkpoint as Hugging Face lays it out, in float16, with a tokenizer that has no pad token."""
    words = Tokenizer(of_words.WordLevel({word: id_ for id_, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with hub.quiet():
        model.save_pretrained(directory)
        PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
            tokenizer_object=words, unk_token="[UNK]", eos_token="[END]"
        ).save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each kind."""
    shelf = tmp_path_factory.mktemp("shelf")
    for kind in KINDS:
        write(made(kind), shelf / kind)
    return shelf


@pytest.fixture
def copied(shelf: Path, tmp_path: Path) -> Path:
    """A checkpoint to damage."""
    return Path(shutil.copytree(shelf / "llama", tmp_path / "llama"))


def find(value: object) -> models.ModelSpec:
    return models.find(str(value), "weak")


def refused(value: object) -> str:
    """The sentence that a model is refused with."""
    with pytest.raises(ConfigError) as caught:
        find(value)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.startswith("--weak must be ")
    return sentence


def change(directory: Path, **values: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def answers(spec: models.ModelSpec) -> np.ndarray[Any, Any]:
    model, tokenizer = models.load(spec, pretrained=True)
    torch.manual_seed(1)
    head = heads.build("classification", model, tokenizer, 2).eval()
    return inference.probabilities(head, head.encode(EXAMPLES))


# --- directories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_directory_is_loaded_as_it_was_saved(kind: str, shelf: Path) -> None:
    spec, expected = find(shelf / kind), made(kind).state_dict()
    before = torch.get_rng_state()
    model, tokenizer = models.load(spec, pretrained=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert type(model) is type(made(kind)) and spec.size is None
    assert model.state_dict().keys() == expected.keys()
    assert all(
        tensor.dtype == torch.float32 and torch.equal(tensor, expected[name].float())
        for name, tensor in model.named_parameters()
    )
    assert (spec.name, spec.family, spec.layers) == (kind, "hub", None)
    assert spec.pooling == ("mean" if kind.startswith("bert") else "last")
    assert models.Size(spec.parameters, spec.non_embedding) == counted(model)
    assert tokenizer.pad_token == "[END]" and not model.config.use_cache


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_keeps_the_first_layers(kind: str, shelf: Path) -> None:
    whole, cut = find(shelf / kind), find(f"{shelf / kind}:1")
    assert (cut.name, cut.layers) == (f"{kind}:1", 1)
    model, full = (models.load(spec, pretrained=True)[0] for spec in (cut, whole))
    kept = model.state_dict()
    assert all(torch.equal(full.state_dict()[name], tensor) for name, tensor in kept.items())
    assert model.config.num_hidden_layers == 1 and len(kept) < len(full.state_dict())
    assert cut.parameters == sum(parameter.numel() for parameter in model.parameters()) < whole.parameters
    assert models.revision(cut) == f"{models.revision(whole)}:1"
    assert not np.array_equal(answers(cut), answers(whole))


def test_the_first_layer_alone_gives_the_hidden_states_after_it(shelf: Path) -> None:
    tokens = torch.tensor([[2, 3, 4, 5]])
    cut, whole = (models.load(find(f"{shelf / 'bert'}{end}"), pretrained=True)[0].train(False) for end in (":1", ""))
    expected = whole.base_model(tokens, output_hidden_states=True).hidden_states[1]
    assert torch.equal(cut.base_model(tokens).last_hidden_state, expected)


@pytest.mark.parametrize("kind", ["bert_trunk:1", "gpt2:1", "qwen3"])
def test_a_fitted_head_comes_back_from_disk(kind: str, shelf: Path, tmp_path: Path) -> None:
    head = heads.build("classification", *models.load(find(shelf / kind), pretrained=True), 2).eval()
    saved_heads.save(head, tmp_path / "head")
    other = saved_heads.load(tmp_path / "head")
    expected = inference.probabilities(head, head.encode(EXAMPLES))
    np.testing.assert_array_equal(inference.probabilities(other, other.encode(EXAMPLES)), expected)


def test_weights_in_several_files_are_one_model(shelf: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(shelf / "llama", tmp_path / "llama"))
    (directory / "model.safetensors").unlink()
    with hub.quiet():
        made("llama").save_pretrained(directory, max_shard_size="4KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    np.testing.assert_array_equal(answers(find(directory)), answers(find(shelf / "llama")))
    before = models.revision(find(directory))
    shards[1].write_bytes(shards[1].read_bytes() + b" ")
    assert len(shards) > 1 and models.revision(find(directory)) != before
    shards[1].unlink()
    assert refused(directory).endswith(f"names files in its directory, got {directory}, which names {shards[1].name!r}")


def test_random_weights_come_from_the_seed_and_not_from_the_checkpoint(shelf: Path) -> None:
    def first(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        model, _ = models.load(find(shelf / "gpt2"), pretrained=False)
        assert model.dtype == torch.float32
        return next(model.parameters())

    stored = next(models.load(find(shelf / "gpt2"), pretrained=True)[0].parameters())
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2)) and not torch.equal(first(1), stored)


def test_a_pooler_that_is_not_there_is_the_same_for_all(shelf: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(shelf / "bert_trunk", tmp_path / "bert"))
    weights = load_file(directory / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if "pooler" not in name}, directory / "model.safetensors")
    one, two = (models.load(find(directory), pretrained=True)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_weight_that_is_missing_is_named(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copied / "model.safetensors")
    with pytest.raises(ConfigError, match=r"do not match its config.json: .*layers\.1\.mlp\.up_proj\.weight is missing"):
        models.load(find(copied), pretrained=True)


def test_weights_of_another_shape_and_broken_weights_are_one_sentence(copied: Path) -> None:
    change(copied, intermediate_size=32)
    said = r"do not match its config\.json: the weight .* has the shape \[24, 16\], but config\.json gives \[32, 16\]$"
    with pytest.raises(ConfigError, match=said) as caught:
        models.load(find(copied), pretrained=True)
    assert "\n" not in str(caught.value)
    (copied / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=f"the weights in {copied} cannot be read: "):
        models.load(find(copied), pretrained=True)


def test_a_broken_tokenizer_is_one_sentence(copied: Path) -> None:
    (copied / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=f"the tokenizer in {copied} cannot be read: ") as caught:
        models.load(find(copied), pretrained=True)
    assert "\n" not in str(caught.value)


def test_loading_is_quiet(shelf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    models.load(find(f"{shelf / 'llama'}:1"), pretrained=True)
    assert capfd.readouterr() == ("", "")
    assert logging.is_progress_bar_enabled()


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_name_that_is_near_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = refused("gpt2-lrge")
    assert sentence.endswith("got 'gpt2-lrge' (did you mean gpt2-large?)")
    assert "bert-tiny" in sentence and "OWNER/NAME" in sentence


@pytest.mark.parametrize("path", ["/no/such/place", "./nowhere", "~/nowhere", "a/b/c", "weights.gguf"])
def test_a_path_that_does_not_exist(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(path) == f"--weak must be an existing path, got {path}"


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        (["config.json"], "--weak must be a checkpoint with config.json, got {}"),
        (["model.safetensors"], "--weak must be a checkpoint with weights in safetensors, got {}, which has no weights"),
        (["tokenizer.json"], "--weak must be a checkpoint with a tokenizer, got {}, which has no tokenizer"),
    ],
)
def test_a_directory_that_lacks_a_file(gone: list[str], sentence: str, copied: Path) -> None:
    for name in gone:
        (copied / name).unlink()
    assert refused(copied) == sentence.format(copied)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"])
def test_pickled_weights_are_refused_before_they_are_opened(name: str, copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / name)
    assert refused(copied) == (
        f"--weak must be a checkpoint with weights in safetensors, got {copied}, which has only pickled weights ({name})"
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model_type": "mine", "auto_map": {}}, "needs custom code, which is never run (mine)"),
        ({"model_type": "mine"}, "is of an unknown type (mine)"),
        ({"model_type": "../llama"}, "is of an unknown type (../llama)"),
        ({"model_type": None}, "is of an unknown type (None)"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "which is an encoder-decoder (t5)"),
    ],
)
def test_a_model_of_another_kind(values: dict[str, object], sentence: str, copied: Path) -> None:
    change(copied, **values)
    assert refused(copied).endswith(sentence)


def test_a_config_that_is_no_config(copied: Path) -> None:
    for content in ("{", "[]"):
        (copied / "config.json").write_text(content)
        assert refused(copied) == f"--weak must be a checkpoint with a readable config.json, got {copied}"


def test_an_adapter_is_no_model(copied: Path) -> None:
    (copied / "adapter_config.json").write_text("{}")
    assert refused(copied) == f"--weak must be a complete model, not an adapter, got {copied}"


@pytest.mark.parametrize("cut", [0, -1, 3])
def test_a_cut_that_the_model_does_not_have(cut: int, shelf: Path) -> None:
    value = f"{shelf / 'gpt2'}:{cut}"
    assert refused(value) == f"--weak must be SOURCE:N with N from 1 to 2, the number of layers of this model, got {value}"


def test_what_cannot_be_cut_or_pinned(shelf: Path) -> None:
    assert refused("chess-27k:1").startswith("--weak must be chess-27k or chess-27k@N, where the number N of a checkpoint is")
    assert refused("chess-27k:1").endswith(", got chess-27k:1")
    assert refused(f"{shelf / 'gpt2'}:x").startswith("--weak must be SOURCE:N with a whole number N of layers")
    assert refused(f"{shelf / 'gpt2'}@main").startswith("--weak must be a path without @REVISION")
    (shelf / "gpt2:x").symlink_to(shelf / "gpt2")
    assert find(shelf / "gpt2:x").name == "gpt2"  # an existing path is not split


def test_no_pickle_is_read_even_where_it_lies_beside(copied: Path) -> None:
    (copied / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    models.load(find(copied), pretrained=True)


# --- GGUF -------------------------------------------------------------------------------------------------------------


def test_without_its_extra_a_gguf_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gguf" else found(name))
    assert 'pip install -e ".[gguf]"' in refused(tmp_path / "weights.gguf")


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    for name, sentence in {"weights.gguf": "a readable GGUF file", "weights.bin": "a directory or a GGUF file"}.items():
        (tmp_path / name).write_bytes(b"none of that")
        assert refused(tmp_path / name) == f"--weak must be {sentence}, got {tmp_path / name}"


SETTINGS: dict[str, Any] = {
    **{"block_count": 2, "embedding_length": 16, "feed_forward_length": 24, "context_length": 32},
    **{"head_count": 2, "head_count_kv": 2, "layer_norm_rms_eps": 1e-5, "tokenizer_model": "gpt2"},
    **{"token_list": ["a", "b", "Ġ", "Ġb", "<e>"], "token_types": [1, 1, 1, 1, 3], "token_merges": ["Ġ b"]},
    **{"bos_token_id": 4, "eos_token_id": 4},
}
BLOCK: dict[str, tuple[int, ...]] = {
    **{f"attn_{name}": (16, 16) for name in ("q", "k", "v", "output")},
    **{"ffn_gate": (24, 16), "ffn_up": (24, 16), "ffn_down": (16, 24), "attn_norm": (16,), "ffn_norm": (16,)},
}


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers of ones, with five words."""
    gguf = pytest.importorskip("gguf")
    path = tmp_path_factory.mktemp("gguf") / "small.q.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in SETTINGS.items():
        getattr(writer, f"add_{name}")(value)
    for name, shape in {f"blk.{layer}.{name}": shape for layer in range(2) for name, shape in BLOCK.items()}.items():
        writer.add_tensor(f"{name}.weight", np.ones(shape, np.float32))
    writer.add_tensor("token_embd.weight", np.arange(80, dtype=np.float32).reshape(5, 16))
    writer.add_tensor("output_norm.weight", np.ones(16, np.float32))
    for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, step)()
    return path


def test_a_gguf_file_is_a_model_that_can_be_cut_and_saved(
    gguf_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = find(f"{gguf_file}:1")
    assert (spec.name, spec.pooling, spec.tier) == ("small.q:1", "last", "small")
    assert refused(f"{gguf_file}:3").startswith(
        "--weak must be SOURCE:N with N from 1 to 2, the number of layers of this model"
    )
    head = heads.build("classification", *models.load(spec, pretrained=True), 2).eval()
    assert isinstance(head.model, LlamaForCausalLM) and head.model.config.num_hidden_layers == 1
    saved_heads.save(head, tmp_path)
    assert load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"].flatten().tolist() == list(range(80))
    loaded, asked = saved_heads.load(tmp_path), [Example("b", "b", ("b b",), ())]
    np.testing.assert_array_equal(
        inference.probabilities(loaded, loaded.encode(asked)), inference.probabilities(head, head.encode(asked))
    )
    assert capfd.readouterr() == ("", "")
    assert models.revision(spec) == models.revision(find(gguf_file)) + ":1"


def test_a_gguf_file_is_parsed_once_and_a_damaged_copy_is_made_anew(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    parsed, convert = [], _gguf_copy._convert

    def counted(*paths: Path) -> None:
        parsed.append(paths)
        convert(*paths)

    monkeypatch.setattr(_gguf_copy, "_convert", counted)
    spec = find(gguf_file)
    state, before = torch.get_rng_state(), weights(spec)
    assert torch.equal(torch.get_rng_state(), state) and models.revision(spec) == _digest.digest(_loading._inspect(spec))
    assert weights(spec) == before and len(parsed) == 1
    (copy,) = (path for path in (tmp_path / "w2s_mlflow" / "gguf").iterdir())
    assert load_file(copy / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    for name in ("model.safetensors", "config.json", "digests.json"):
        (copy / name).write_bytes((copy / name).read_bytes()[:-1])
        assert weights(spec) == before
    (copy / "tokenizer.json").unlink()
    assert weights(spec) == before and len(parsed) == 5
    assert [path.name for path in copy.parent.iterdir()] == [copy.name], "nothing half-written is left"


def weights(spec: models.ModelSpec) -> dict[str, list[float]]:
    model, _ = models.load(spec, pretrained=True)
    return {name: value.flatten().tolist() for name, value in model.state_dict().items()}


def test_where_no_copy_can_be_written_one_sentence_says_so(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "w2s_mlflow").write_text("a file in the way")
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"the copy of .* cannot be written to .* \(set W2S_SCRATCH to a directory"):
        models.load(find(gguf_file), pretrained=True)


def test_a_part_of_a_gguf_model_is_refused_as_a_part(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    for number in range(2):
        path = tmp_path / f"small-{number}.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        for step in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
            getattr(writer, step)()
        said = refused(path)
        assert said.startswith("--weak must be a GGUF file that holds the whole model (gguf-split --merge joins the parts")
        assert said.endswith(f", got {path}, which is part {number + 1} of 2")


# --- revisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_revision_changes_with_a_byte_of_what_makes_the_model(name: str, copied: Path) -> None:
    before = models.revision(find(copied))
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[:-1] + b" " + content[-1:])
    assert models.revision(find(copied)) != before
    (copied / name).write_bytes(content)
    assert models.revision(find(copied)) == before


def test_a_revision_does_not_hang_on_the_place_or_on_what_lies_beside(copied: Path) -> None:
    before = models.revision(find(copied))
    (copied / "README.md").write_text("beside")
    moved = copied.rename(copied.parent / "elsewhere")
    assert models.revision(find(moved)) == before


def test_large_files_are_read_once_for_all_processes(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = models.revision(find(copied))
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert models.revision(find(copied)) == before
    os.utime(copied / "model.safetensors", ns=(1, 1))
    with pytest.raises(TypeError):
        models.revision(find(copied))


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"state": 3, "sha256": "x"}'])
def test_a_kept_digest_that_is_damaged_is_made_again(content: str, copied: Path) -> None:
    before = models.revision(find(copied))
    file_facts._cache_file("digests", str((copied / "model.safetensors").resolve())).write_text(content)
    assert models.revision(find(copied)) == before


def test_without_a_place_to_keep_digests_they_are_made_each_time(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "file"))
    assert models.revision(find(copied)) == models.revision(find(copied))


# --- the hub ----------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def cache(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one repository, owner/gpt2, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    _checkpoint._repository.cache_clear()
    _loading._download.cache_clear()
    repository = tmp_path / "cache" / "models--owner--gpt2"
    shutil.copytree(shelf / "gpt2", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_a_hub_id_is_loaded_from_the_cache(cache: Path) -> None:
    spec = find("owner/gpt2:1")
    assert (spec.name, spec.source, spec.layers) == ("gpt2:1", "owner/gpt2", 1)
    assert models.revision(spec) == f"{COMMIT}:1"
    model, _ = models.load(spec, pretrained=True)
    assert isinstance(model, GPT2LMHeadModel) and model.config.num_hidden_layers == 1
    pinned = find(f"owner/gpt2@{COMMIT}")
    assert (pinned.name, pinned.commit, models.revision(pinned)) == (f"gpt2@{COMMIT}", COMMIT, COMMIT)


def test_a_hub_id_that_cannot_be_had_says_what_was_tried(cache: Path) -> None:
    sentence = refused("owner/other")
    assert sentence.startswith("--weak must be an existing model, got owner/other (no directory owner/other; ")
    assert sentence.endswith(f"; not in the cache {constants.HF_HUB_CACHE})")
    assert "must be an existing model" in refused("owner/gpt2@v2")
    with pytest.raises(ConfigError, match=r"--weak or --strong must be an existing model, got gpt2 \(no directory openai-"):
        models.revision(models.find("gpt2", "weak"))


def test_pickled_weights_on_the_hub_are_refused(cache: Path) -> None:
    snapshot = cache / "snapshots" / COMMIT
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    assert refused("owner/gpt2").endswith("got owner/gpt2, which has only pickled weights (pytorch_model.bin)")


def test_the_hub_is_asked_for_the_commit_and_only_for_what_is_needed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def info(source: str, revision: str | None, timeout: float) -> Any:
        asked["revision"] = revision
        files = [huggingface_hub.hf_api.RepoSibling(rfilename=file.name) for file in snapshot.iterdir()]
        return type("Info", (), {"sha": COMMIT, "siblings": files})

    snapshot = cache / "snapshots" / COMMIT
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "detect_offline", lambda: None)
    monkeypatch.setattr(huggingface_hub, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda source, name, revision: str(snapshot / name))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda source, **given: asked.update(given) or str(snapshot))
    spec = find("owner/gpt2@v1")
    assert models.revision(spec) == COMMIT and models.load(spec, pretrained=True)
    assert asked["revision"] == COMMIT and not [name for name in asked["allow_patterns"] if "bin" in name]


# --- the ladders ------------------------------------------------------------------------------------------------------


def test_a_ladders_rung_may_be_cut(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.rename(cache.with_name("models--openai-community--gpt2"))
    spec = models.find("gpt2:1", "weak")
    assert (spec.name, spec.family, spec.source, spec.pooling) == ("gpt2:1", "gpt2", "openai-community/gpt2", "last")
    assert spec.parameters == sum(tensor.numel() for tensor in models.load(spec, pretrained=True)[0].parameters())


QWEN3: dict[str, Any] = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8}
PUBLISHED: dict[str, PreTrainedConfig] = {
    "bert-tiny": BertConfig(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512),
    "bert-medium": BertConfig(hidden_size=512, num_hidden_layers=8, num_attention_heads=8, intermediate_size=2048),
    "bert-base": BertConfig(),
    "gpt2": GPT2Config(),
    "gpt2-xl": GPT2Config(n_embd=1600, n_layer=48, n_head=25),
    "pythia-14m": GPTNeoXConfig(
        vocab_size=50304, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, intermediate_size=512
    ),
    "pythia-12b": GPTNeoXConfig(
        vocab_size=50688, hidden_size=5120, num_hidden_layers=36, num_attention_heads=40, intermediate_size=20480
    ),
    "qwen3-0.6b": Qwen3Config(
        **QWEN3,
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        intermediate_size=3072,
        tie_word_embeddings=True,
    ),
    "qwen3-14b": Qwen3Config(**QWEN3, hidden_size=5120, num_hidden_layers=40, num_attention_heads=40, intermediate_size=17408),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_those_of_the_published_configs(name: str) -> None:
    spec = models.find(name, "weak")
    head: Any = AutoModelForMaskedLM if name.startswith("bert") else AutoModelForCausalLM
    with torch.device("meta"), hub.quiet():
        assert counted(head.from_config(PUBLISHED[name])) == spec.size


def test_tiers_and_rates_follow_from_the_size() -> None:
    tiers = {name: models.find(name, "weak").tier for name in ("bert-base", "gpt2-medium", "gpt2-large", "gpt2-xl")}
    assert tiers == {"bert-base": "small", "gpt2-medium": "medium", "gpt2-large": "medium", "gpt2-xl": "large"}
    assert [spec.large for spec in map(find, ("gpt2-large", "gpt2-xl"))] == [False, True]
    rates = [spec.learning_rate for spec in models.all_specs() if spec.family == "pythia"]
    assert rates == sorted(rates, reverse=True) and (rates[0], rates[-1]) == (1e-4, 1e-5)


def test_the_table_in_the_documentation_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "models.md").read_text(encoding="utf-8")
    written = [line.strip("| \n").split(" | ") for line in text.splitlines() if line.count("|") == 8][2:]
    assert written == [
        [
            spec.name,
            spec.source,
            f"{spec.parameters:,}",
            f"{spec.non_embedding:,}",
            spec.tier,
            f"{spec.learning_rate:g}",
            spec.pooling,
        ]
        for spec in models.all_specs()
        if spec.source
    ]


def test_the_rule_for_other_models_gives_the_ladders_tiers() -> None:
    """12 L D^2 for GPT-2 and Pythia, by the sizes that were published."""
    for name, (layers, width) in {"gpt2": (12, 768), "gpt2-large": (36, 1280), "gpt2-xl": (48, 1600)}.items():
        config = {"model_type": "gpt2", "n_layer": layers, "n_embd": width}
        about = _checkpoint.Checkpoint("", None, None, config).non_embedding(None)
        spec = models.find(name, "weak")
        assert about == pytest.approx(spec.non_embedding, rel=0.01)
        assert (models.tier_of(about), models.rate_of(about)) == (spec.tier, spec.learning_rate)


def test_finding_a_model_loads_nothing_heavy(shelf: Path) -> None:
    code = f"""
import sys
from w2s_mlflow import models
assert models.find({str(shelf / "bert_trunk:1")!r}, "weak").layers == 1 and len(list(models.all_specs())) > 20
models.revision(models.find({str(shelf / "llama")!r}, "weak"))
print([name for name in ("torch", "transformers", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
