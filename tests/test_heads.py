"""Heads: what is padded does not count, positions come from the mask, candidates are single words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from w2s_mlflow import models, predict, train
from w2s_mlflow.config import ConfigError
from w2s_mlflow.heads import Head, Language, build
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import HEADS

LONG = "Ke1 Qd1 Pa2 kf8 rb7 nc6"
SHORT = "Ke1 kf8"


def example(text: str, *candidates: str) -> Example:
    return Example(text, text, (text,), candidates)


EXAMPLES = [example(text, "Qd5", "Kf1") for text in (LONG, SHORT, "Ke1 Nf3 kf8")]


def head(name: str) -> Head:
    """A head on the smallest rung's weights."""
    train.seed_everything(0)
    return build(name, *models.load(models.find("chess-27k", "weak"), pretrained=True), 2).eval()


@pytest.mark.parametrize("name", HEADS)
def test_a_row_scores_the_same_alone_and_beside_a_longer_one(name: str) -> None:
    one = head(name)
    data = one.encode(EXAMPLES)
    together = predict.probabilities(one, data)
    alone = np.concatenate([predict.probabilities(one, one.encode([example])) for example in EXAMPLES])
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
    one = head("choose")
    data = one.encode(EXAMPLES)
    expected = one(data.batch(np.arange(3))).softmax(dim=-1).detach().numpy()
    assert predict.probabilities(one, data, batch_size=2) == pytest.approx(expected, abs=1e-6)


def test_choose_scores_the_candidates_after_the_last_word() -> None:
    one = head("choose")
    tokens = one.tokenizer(LONG, return_tensors="pt")["input_ids"]
    words = one.tokenizer("Qd5 Kf1", add_special_tokens=False)["input_ids"]
    expected = one.model(input_ids=tokens).logits[0, -1, words]
    found = one(one.encode(EXAMPLES[:1]).batch(np.arange(1)))[0]
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("word", ["Qd5 Kf1", "castles"])
def test_choose_refuses_a_candidate_that_is_not_one_known_word(word: str) -> None:
    with pytest.raises(ConfigError, match="candidates of one token"):
        head("choose").encode([example(SHORT, word, "Kf1")])


def test_compare_swapped_responses_swap_their_scores() -> None:
    one = head("compare")
    swapped = [Example(e.id, e.group, e.segments, e.candidates[::-1]) for e in EXAMPLES]
    assert predict.probabilities(one, one.encode(swapped))[:, ::-1] == pytest.approx(
        predict.probabilities(one, one.encode(EXAMPLES)), abs=1e-6
    )


def test_language_scores_each_next_token_of_the_continuation() -> None:
    one = Language(*models.load(models.find("chess-27k", "weak"), pretrained=True))
    data = one.encode([example(LONG, "Qd5 kf7"), example(SHORT, "Kf1")])
    batch = data.batch(np.arange(2))
    words = one.tokenizer("Qd5 kf7 Kf1", add_special_tokens=False)["input_ids"]
    assert one.targets(batch).tolist() == words
    full = one.model(input_ids=one.tokenizer(f"{LONG} Qd5", return_tensors="pt")["input_ids"]).logits[0]
    assert torch.allclose(one(batch)[:2], full[-2:], atol=1e-5)


def test_an_unknown_head_is_named() -> None:
    with pytest.raises(ConfigError, match="--head must be one of choose, classify, compare, got 'chose'"):
        head("chose")
