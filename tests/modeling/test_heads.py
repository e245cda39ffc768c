"""Heads: what is padded does not count, positions come from the mask, candidates are single words, disk changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging

from tests import trunks
from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import heads, inference, saved_heads
from w2s_mlflow.modeling.heads import Classification, Head, build
from w2s_mlflow.modeling.language_modeling import Language
from w2s_mlflow.models import chess
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import FORMER_HEADS, HEADS
from w2s_mlflow.training import loop

LONG = "Ke1 Qd1 Pa2 kf8 rb7 nc6"
SHORT = "Ke1 kf8"


def example(text: str, *candidates: str) -> Example:
    return Example(text, text, (text,), candidates)


EXAMPLES = [example(text, "Qd5", "Kf1") for text in (LONG, SHORT, "Ke1 Nf3 kf8")]


def head(name: str) -> Head:
    """A head on the smallest model's weights."""
    loop.seed_everything(0)
    return build(name, *models.load(models.find("chess-27k", "weak"), pretrained=True), 2).eval()


@pytest.mark.parametrize("name", HEADS)
def test_a_row_scores_the_same_alone_and_beside_a_longer_one(name: str) -> None:
    one = head(name)
    data = one.encode(EXAMPLES)
    together = inference.probabilities(one, data)
    alone = np.concatenate([inference.probabilities(one, one.encode([example])) for example in EXAMPLES])
    assert together.shape == (3, 2) and together == pytest.approx(alone, abs=1e-6)
    assert together.sum(axis=1) == pytest.approx(np.ones(3))


@pytest.mark.parametrize("name", HEADS)
def test_what_stands_under_the_mask_is_never_read(name: str) -> None:
    one = head(name)
    batch = one.encode(EXAMPLES).batch(np.arange(3))
    expected = one(batch)
    batch["input_ids"][batch["attention_mask"] == 0] = 7
    assert torch.equal(one(batch), expected)


@pytest.mark.parametrize("name", HEADS)
def test_no_encoded_text_holds_the_pad_token(name: str) -> None:
    data = head(name).encode(EXAMPLES)
    assert data.pad_id not in data.flat


def test_predictions_come_back_in_the_order_asked_for() -> None:
    one = head("lm_choice")
    data = one.encode(EXAMPLES)
    expected = one(data.batch(np.arange(3))).softmax(dim=-1).detach().numpy()
    assert inference.probabilities(one, data, micro_batch=2) == pytest.approx(expected, abs=1e-6)


def test_choose_scores_the_candidates_after_the_last_word() -> None:
    one = head("lm_choice")
    tokens = one.tokenizer(LONG, return_tensors="pt")["input_ids"]
    words = one.tokenizer("Qd5 Kf1", add_special_tokens=False)["input_ids"]
    expected = one.model(input_ids=tokens).logits[0, -1, words]
    found = one(one.encode(EXAMPLES[:1]).batch(np.arange(1)))[0]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("word", ["Qd5 Kf1", "castles"])
def test_choose_refuses_a_candidate_that_is_not_one_known_word(word: str) -> None:
    with pytest.raises(ConfigError, match="candidates that are single tokens"):
        head("lm_choice").encode([example(SHORT, word, "Kf1")])


def test_compare_swapped_responses_swap_their_scores() -> None:
    one = head("reward")
    swapped = [Example(e.id, e.group, e.segments, e.candidates[::-1]) for e in EXAMPLES]
    assert inference.probabilities(one, one.encode(swapped))[:, ::-1] == pytest.approx(
        inference.probabilities(one, one.encode(EXAMPLES)), abs=1e-6
    )


def test_language_scores_each_next_token_of_the_continuation() -> None:
    one = Language(*models.load(models.find("chess-27k", "weak"), pretrained=True))
    data = one.encode([example(LONG, "Qd5 kf7"), example(SHORT, "Kf1")])
    batch = data.batch(np.arange(2))
    words = one.tokenizer("Qd5 kf7 Kf1", add_special_tokens=False)["input_ids"]
    assert one.targets(batch).tolist() == words
    full = one.model(input_ids=one.tokenizer(f"{LONG} Qd5", return_tensors="pt")["input_ids"]).logits[0]
    assert torch.allclose(one(batch)[:2], full[-2:], atol=1e-5)


def hidden_of(one: Head, text: str) -> torch.Tensor:
    """The trunk's last hidden states of one text, without padding, (L, D)."""
    batch = one.encode([example(text)]).batch(np.arange(1))
    found: torch.Tensor = one.model.base_model(**batch).last_hidden_state[0]
    return found


@pytest.mark.parametrize("pooling", heads.POOLINGS)
@pytest.mark.parametrize("make", [trunks.bert, trunks.gpt2])
def test_what_is_pooled_is_of_real_tokens_only(pooling: str, make: trunks.Maker) -> None:
    one = build("classification", *make(), 2, pooling).eval()
    assert isinstance(one, Classification)
    texts = ["a b c d", "a", "b a"]
    found = one.pooled_RD(one.encode([example(text) for text in texts]).batch(np.arange(3)))
    rules: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "first": lambda h: h[0],
        "last": lambda h: h[-1],
        "mean": lambda h: h.mean(dim=0),
    }
    expected = torch.stack([rules[pooling](hidden_of(one, text)) for text in texts])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_last_token_of_id_zero_is_the_last_token() -> None:
    """GPT-2's "!" is 0, as is the padding of many others."""
    one = build("classification", *trunks.gpt2(), 2).eval()
    assert isinstance(one, Classification)
    data = one.encode([example("a b!"), example("a b a b a b")])
    assert data.flat[2] == 0 and data.lengths_R.tolist() == [3, 6]
    found = one.pooled_RD(data.batch(np.arange(2)))[0]
    torch.testing.assert_close(found, hidden_of(one, "a b!")[-1])
    assert not torch.allclose(found, hidden_of(one, "a b!")[-2])


def trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """A language model without its output words."""
    trunk = model.base_model
    assert isinstance(trunk, PreTrainedModel)
    return trunk


POOLED: dict[str, tuple[Callable[[], PreTrainedModel], str]] = {
    "bert": (lambda: trunks.bert()[0], "mean"),
    "roberta": (lambda: RobertaModel(RobertaConfig.from_dict({**trunks.SIZES, "vocab_size": 20})), "mean"),
    "gpt2": (lambda: trunks.gpt2()[0], "last"),
    "gpt2 trunk": (lambda: trunk_of(trunks.gpt2()[0]), "last"),
    "llama trunk": (lambda: trunk_of(trunks.llama()[0]), "last"),
    "neox": (lambda: GPTNeoXForCausalLM(GPTNeoXConfig.from_dict({**trunks.SIZES, "vocab_size": 20})), "last"),
    "qwen3": (
        lambda: Qwen3ForCausalLM(
            Qwen3Config.from_dict({**trunks.SIZES, "vocab_size": 20, "head_dim": 8, "num_key_value_heads": 1})
        ),
        "last",
    ),
}


@pytest.mark.parametrize("name", POOLED)
def test_a_trunk_of_any_kind_answers_and_learns(name: str) -> None:
    """In float32, under autocast, and with gradient checkpointing; its pooling follows its attention."""
    make, pooling = POOLED[name]
    one = build("classification", make(), trunks.bert()[1], 3)
    assert isinstance(one, Classification) and one.pooling == pooling
    batch = one.encode([example("a b", "c"), example("d")]).batch(np.arange(2))
    plain = one.eval()(batch)
    assert plain.shape == (2, 3) and plain.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = one(batch)
    assert mixed.dtype == torch.float32 and torch.allclose(mixed, plain, atol=0.1) and not torch.equal(mixed, plain)
    plain.sum().backward()
    expected = [parameter.grad.clone() for parameter in one.parameters() if parameter.grad is not None]
    one.zero_grad()
    one.model.activation_checkpointing_enable()
    one.model.train()
    for module in one.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    one(batch).sum().backward()
    found = [parameter.grad for parameter in one.parameters() if parameter.grad is not None]
    assert len(found) == len(expected) > 5
    for one_, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one_, other, atol=1e-5, rtol=1e-4)


def test_the_second_text_of_a_pair_is_told_from_the_first() -> None:
    one = build("classification", *trunks.bert(), 2).eval()
    batch = one.encode([example("a b", "c d")]).batch(np.arange(1))
    typed = one(batch)
    del batch["token_type_ids"]
    assert not torch.allclose(one(batch), typed)


def test_choose_refuses_a_model_that_reads_both_ways() -> None:
    with pytest.raises(ConfigError, match="--head lm_choice needs a causal language model, got BertModel"):
        build("lm_choice", *trunks.bert(), 2)


def test_an_unknown_pooling_is_named() -> None:
    with pytest.raises(ConfigError, match=r"--pooling must be one of first, last, mean, got 'men' \(did you mean mean\?\)"):
        build("classification", *trunks.bert(), 2, "men")


def test_pooling_and_limit_come_back_from_disk(tmp_path: Path) -> None:
    one = build("classification", *trunks.bert(), 2, "first", 7).eval()
    saved_heads.save(one, tmp_path)
    other = saved_heads.load(tmp_path)
    assert isinstance(other, Classification) and (other.pooling, other.reader.limit) == ("first", 7)
    asked = [example("a b c d e", "f g h a b"), example("c")]
    np.testing.assert_array_equal(
        inference.probabilities(other, other.encode(asked)), inference.probabilities(one, one.encode(asked))
    )
    assert other.encode(asked).lengths_R.tolist() == [7, 3]


def test_an_unknown_head_is_named() -> None:
    with pytest.raises(ConfigError, match="--head must be one of classification, lm_choice, reward, got 'chose'"):
        head("chose")


# --- on disk ----------------------------------------------------------------------------------------------------------


def finetuned(name: str) -> Head:
    """A head whose weights are no longer those of the pretrained model, nor exact in half the precision."""
    return moved(head(name))


def moved(one: Head) -> Head:
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return one


def encoder() -> PreTrainedModel:
    """A bidirectional trunk without output words."""
    words, context = len(chess.VOCABULARY), chess.CONTEXT
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertModel(BertConfig.from_dict({"vocab_size": words, "max_position_embeddings": context, **sizes}))


def tied() -> PreTrainedModel:
    """A language model whose output words are its input words."""
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=len(chess.VOCABULARY), n_positions=chess.CONTEXT, n_embd=16, n_layer=1, n_head=2)
    )


MAKERS: dict[str, Callable[[], Head]] = {
    "lm_choice": lambda: finetuned("lm_choice"),
    "classification": lambda: finetuned("classification"),
    "reward": lambda: finetuned("reward"),
    "encoder": lambda: moved(build("classification", encoder(), chess.tokenizer(), 3)),
    "tied": lambda: moved(build("lm_choice", tied(), chess.tokenizer(), 2)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_head_read_from_disk_answers_with_the_same_bits(name: str, tmp_path: Path) -> None:
    one = MAKERS[name]()
    saved_heads.save(one, tmp_path)
    other = saved_heads.load(tmp_path)
    expected = inference.probabilities(one, one.encode(EXAMPLES))
    np.testing.assert_array_equal(inference.probabilities(other, other.encode(EXAMPLES)), expected)
    assert (type(other), heads.classes_of(other), type(other.model)) == (type(one), heads.classes_of(one), type(one.model))
    assert {parameter.dtype for parameter in other.parameters()} == {torch.float32}
    assert not any(module.training for module in other.modules())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lm_choice", ["lm_choice", None, None, 32]),
        ("classification", ["classification", 2, "last", 32]),
        ("reward", ["reward", 2, "last", 32]),
    ],
)
def test_a_saved_head_is_a_hugging_face_directory_and_what_the_head_adds(
    name: str, content: list[object], tmp_path: Path
) -> None:
    one = finetuned(name)
    saved_heads.save(one, tmp_path)
    assert list(json.loads((tmp_path / "head.json").read_text()).values()) == content
    own = {"head.safetensors"} if name != "lm_choice" else set()
    theirs = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in tmp_path.iterdir()} == {"head.json"} | own | theirs
    model = type(one.model).from_pretrained(tmp_path)
    assert all(torch.equal(one.model.state_dict()[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize(("former", "present"), FORMER_HEADS.items())
def test_a_head_saved_by_version_0_1_is_read(former: str, present: str, tmp_path: Path) -> None:
    saved_heads.save(one := finetuned(present), tmp_path)
    content = json.loads((tmp_path / "head.json").read_text())
    (tmp_path / "head.json").write_text(json.dumps(content | {"head": former}))
    assert type(saved_heads.load(tmp_path)) is type(one)


def test_a_loaded_head_no_longer_hangs_on_its_files(tmp_path: Path) -> None:
    one = finetuned("classification")
    saved_heads.save(one, tmp_path)
    other = saved_heads.load(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        with file.open("r+b") as opened:
            opened.write(bytes(file.stat().st_size))
    assert all(torch.equal(one.state_dict()[key], tensor) for key, tensor in other.state_dict().items())


def test_saving_and_loading_print_nothing_and_draw_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = finetuned("classification")
    logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    before = torch.get_rng_state()
    saved_heads.save(one, tmp_path)
    saved_heads.load(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), before)
    assert logging.is_progress_bar_enabled()


def test_weights_that_are_not_all_there_are_refused(tmp_path: Path) -> None:
    saved_heads.save(finetuned("lm_choice"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({key: tensor for key, tensor in weights.items() if key != "model.norm.weight"}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"do not match LlamaForCausalLM: model\.norm\.weight is missing"):
        saved_heads.load(tmp_path)


@pytest.mark.parametrize("name", ["Llama9ForCausalLM", "AutoTokenizer", None])
def test_an_architecture_that_transformers_does_not_have_is_refused(name: str | None, tmp_path: Path) -> None:
    saved_heads.save(finetuned("lm_choice"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": name and [name]}))
    with pytest.raises(ConfigError, match=f"must name a transformers model class as its architecture, got '{name or ''}'"):
        saved_heads.load(tmp_path)
