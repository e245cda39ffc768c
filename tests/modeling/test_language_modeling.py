"""Language modelling: rows that are packed, tokens that are hidden, and what is scored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import BertForMaskedLM

from tests.losses.test_losses import slow_machine
from tests.trunks import bert, gpt2, ragged
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import language_modeling
from w2s_mlflow.modeling.token_rows import NO_TARGET, packed
from w2s_mlflow.training import loop

TEXTS = [("a b c a b d a b c",), ("d",), ("a b", "c d h"), ("e f g",)] * 8


def made(kind: str) -> Any:
    """A language model of each kind; `trunk` is an encoder that has lost its output words, as a sentence encoder has."""
    torch.manual_seed(0)
    if kind == "gpt2":
        return language_modeling.head_for(*gpt2())
    trunk, tokenizer = bert()
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    trunk.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return language_modeling.head_for(trunk if kind == "trunk" else BertForMaskedLM(trunk.config), tokenizer)  # type: ignore[arg-type]


@slow_machine
@given(st.lists(st.integers(1, 12), min_size=1, max_size=30), st.integers(2, 16))
def test_packing_keeps_every_token_in_order_in_rows_of_one_length(lengths: list[int], length: int) -> None:
    tokens = iter(range(sum(lengths)))
    data = ragged([[next(tokens) for _ in range(size)] for size in lengths])
    found = packed(data, length)
    rows = [found.flat[start : start + size] for start, size in zip(found.offsets_R, found.lengths_R, strict=True)]
    assert np.concatenate(rows).tolist() == list(range(sum(lengths)))
    sizes = set(found.lengths_R.tolist())
    assert max(sizes) <= length and max(sizes) - min(sizes) <= 1 and len(rows) == math.ceil(sum(lengths) / length)


def test_a_causal_model_predicts_every_next_token_of_a_packed_row() -> None:
    head = made("gpt2")
    assert isinstance(head, language_modeling.Packed)
    data = head.pack(TEXTS, 7, np.random.default_rng(0))
    batch = data.batch(np.arange(len(data)))
    targets = head.targets(batch)
    assert len(targets) == len(data.flat) - len(data)  # all but the first of each row
    rows = [data.flat[start + 1 : start + size] for start, size in zip(data.offsets_R, data.lengths_R, strict=True)]
    assert targets.tolist() == np.concatenate(rows).tolist()
    logits = head.eval()(batch)
    ids = torch.from_numpy(data.flat[: data.lengths_R[0]])[None]
    expected = head.model(input_ids=ids).logits[0, :-1]
    torch.testing.assert_close(logits[: len(expected)], expected)


def masked(length: int = 40, seed: int = 0) -> tuple[language_modeling.Masked, Any]:
    head = made("bert")
    assert isinstance(head, language_modeling.Masked)
    return head, head.pack(TEXTS * 20, length, np.random.default_rng(seed))


def test_hidden_tokens_are_a_seventh_and_never_the_tokenizers_own() -> None:
    head, data = masked()
    plain = packed(head.reader.read(TEXTS * 20), 40).flat
    asked = data.targets != NO_TARGET
    assert (data.targets[asked] == plain[asked]).all() and (data.flat[~asked] == plain[~asked]).all()
    words = ~np.isin(plain, head.tokenizer.all_special_ids)
    assert not asked[~words].any() and asked[words].mean() == pytest.approx(language_modeling.HIDDEN, abs=0.03)
    seen = data.flat[asked]
    assert (seen == head.tokenizer.mask_token_id).mean() == pytest.approx(language_modeling.MASKED, abs=0.06)
    assert (seen == plain[asked]).mean() == pytest.approx(
        1 - language_modeling.MASKED - language_modeling.REPLACED / 2, abs=0.06
    )
    each = [asked[start : start + size].sum() for start, size in zip(data.offsets_R, data.lengths_R, strict=True)]
    assert min(each) >= 1


def test_what_is_hidden_hangs_on_the_seed_alone() -> None:
    one, same, other = (masked(seed=seed)[1].targets for seed in (0, 0, 1))
    assert (one == same).all() and (one != other).any()


def test_a_masked_model_is_scored_where_it_is_asked() -> None:
    head, data = masked()
    batch = data.batch(np.arange(8))
    logits, targets = head.eval()(batch), head.targets(batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    every = head.model(**inputs).logits
    torch.testing.assert_close(logits, every[batch["targets"] != NO_TARGET])
    assert len(targets) == int((batch["targets"] != NO_TARGET).sum())


def test_a_trunk_without_output_words_answers_with_its_embeddings() -> None:
    head = made("trunk")
    data = head.pack(TEXTS, 20, np.random.default_rng(0))
    batch = data.batch(np.arange(len(data)))
    hidden = head.eval().hidden_RLD(batch)[batch["targets"] != NO_TARGET]
    torch.testing.assert_close(head(batch), hidden @ head.model.get_input_embeddings().weight.T)
    before = language_modeling.mean_loss(head, data)
    loop.fit(head, data, None, language_modeling.loss, loop.Options(epochs=20, batch_size=4, learning_rate=1e-2, seed=0))
    assert language_modeling.mean_loss(head, data) < before - 0.3


@pytest.mark.parametrize("kind", ["gpt2", "bert", "trunk"])
def test_mean_loss_is_that_of_all_tokens_whatever_the_batch(kind: str) -> None:
    head = made(kind)
    data = head.pack(TEXTS, 9, np.random.default_rng(0))
    batch = data.batch(np.arange(len(data)))
    head.train()
    found = [language_modeling.mean_loss(head, data, size) for size in (1, 3, 256)]
    assert head.training
    expected = cross_entropy(head.eval()(batch), head.targets(batch)).item()
    assert found == pytest.approx([expected] * 3, rel=1e-5)


def test_the_length_of_a_row_is_what_the_model_can_read() -> None:
    head = made("gpt2")
    limit = head.reader.limit
    assert limit is not None
    assert language_modeling.block_length(head, None, 10**6) == limit and language_modeling.block_length(head, None, 5) == 5
    assert language_modeling.block_length(head, 6, 5) == 6
    with pytest.raises(ConfigError, match=rf"^--block must be in \[2, {limit}\] for this model, got {limit + 1}$"):
        language_modeling.block_length(head, limit + 1, 5)
