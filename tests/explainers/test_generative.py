"""Rationales and lines of play: the form that counts, the prompt, the limit, the seed; on real small language models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from tests import trunks
from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.explainers import DebaterModel, DebateSide, _generated, find, principal_variation, rationale
from w2s_mlflow.explainers._generated import TextExplainer
from w2s_mlflow.explainers._token_spans import EncodedQuestions
from w2s_mlflow.modeling import heads
from w2s_mlflow.modeling.heads import Head
from w2s_mlflow.modeling.tokenization import Reader
from w2s_mlflow.records import Example, Explanation
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks import chess


def debater(head: Head, questions: list[Example]) -> DebaterModel:
    nothing = np.empty(0, dtype=np.int64)
    encoded = EncodedQuestions(questions, head.encode(questions), nothing, nothing)
    return DebaterModel(head, encoded, np.zeros(len(questions), dtype=np.int64))


def explainer(name: str, own: DebaterModel, tokens: int, claims: list[str], seed: int, number: int) -> TextExplainer:
    side = DebateSide(
        own,
        claims=claims,
        random=torch.Generator(),
        seed=seed,
        number=number,
        evidence_spans=3,
        max_new_tokens=tokens,
    )
    made: TextExplainer = find(name, "explainer").make(side)
    return made


def bytes_head() -> Head:
    torch.manual_seed(0)
    return heads.build("classification", *trunks.gpt2(), classes=2)


QUESTIONS = [Example(str(number), "g", ("is it so " * (1 + number % 5),)) for number in range(9)]
CLAIMS = ["it is so"] * 9


# --- the forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (" it quacks. And it swi", "Because it quacks."),
        (" it quacks. It swims!\nAnswer: no.", "Because it quacks. It swims!"),
        ("it is 3.5 feet", ""),
        (" it is 3.5 feet. So", "Because it is 3.5 feet."),
        (" it quacks", ""),
        ("\nit quacks.", ""),
        (" . . 1.", ""),
        ("", ""),
        ("   ", ""),
    ],
)
def test_a_rationale_is_whole_sentences_on_one_line(said: str, expected: str) -> None:
    assert rationale.sentences(said, "") == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [("rd4 Kb2 expert Qd4", "Qd4 rd4 Kb2"), ("rd4", "Qd4 rd4"), ("expert rd4", ""), ("- expert", ""), ("rd9", ""), ("", "")],
)
def test_a_line_is_moves_up_to_the_first_word_that_is_none(said: str, expected: str) -> None:
    assert principal_variation.moves(said, "Qd4") == expected


def test_what_keeps_to_no_form_is_sampled_once_more_and_then_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], tuple[int, ...]]] = []
    replies = [["no end", "it is. x"], ["again no end"]]

    def sampler(head: Head, tokens: int, size: int) -> _generated.Sampler:
        def sample(prompts: object, seeds: tuple[int, ...]) -> list[str]:
            asked.append((list(prompts), seeds))  # type: ignore[call-overload]
            return replies[len(asked) - 1]

        return sample

    monkeypatch.setattr(_generated, "sampler", sampler)
    found = explainer("rationale", debater(bytes_head(), QUESTIONS[:2]), 8, CLAIMS[:2], 5, 0)([(), ()])
    assert found == [Explanation(""), Explanation("Because it is.")]
    first = "is it so \nAnswer: it is so\nBecause"
    assert asked == [([first, "is it so " + first], (5, 0, 0)), ([first], (5, 0, 1))]


# --- heard ------------------------------------------------------------------------------------------------------------


def prompts_of(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is asked of the model from here on, call by call; it says one sentence."""
    asked: list[list[str]] = []

    def sampler(head: Head, tokens: int, size: int) -> _generated.Sampler:
        def sample(prompts: Sequence[str], seeds: tuple[int, ...]) -> list[str]:
            asked.extend([list(prompts)] if prompts else [])
            return [" so it is."] * len(prompts)

        return sample

    monkeypatch.setattr(_generated, "sampler", sampler)
    return asked


def test_what_the_other_side_said_last_stands_in_the_next_prompt_and_nothing_else_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = prompts_of(monkeypatch)
    speaker = explainer("rationale", debater(bytes_head(), QUESTIONS[:2]), 40, CLAIMS[:2], 5, 0)
    speaker([(), ()])
    assert speaker.hear(['Because "no".\nAnswer: it is so', ""]) == ["Because 'no'. Answer: it is so", ""]
    speaker([(), ()])
    assert speaker.hear(["", ""]) == ["", ""]
    speaker([(), ()])
    first, second, third = asked
    quoted = "The other side says: \"Because 'no'. Answer: it is so\"\n"
    assert second == ["is it so \n" + quoted + "Answer: it is so\nBecause", first[1]] and third == first


def test_words_are_heard_up_to_the_limit_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts_of(monkeypatch)
    speaker = explainer("rationale", debater(bytes_head(), QUESTIONS[:1]), 12, CLAIMS[:1], 0, 0)
    assert speaker.hear(["Because it quacks."]) == ["Because it"]  # a token is a byte, and a space stands before the first
    assert speaker.hear(["Becauseitquacks."]) == [""]


def test_the_question_keeps_its_place_beside_what_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 70 tokens that a prompt may have 8 are the question's: no prompt is cut where it says whose words are whose."""
    asked, head = prompts_of(monkeypatch), bytes_head()
    head.reader.limit = 90
    speaker = explainer("rationale", debater(head, QUESTIONS[:1]), 20, CLAIMS[:1], 0, 0)
    assert speaker.hear(["c " * 30]) == ["c c c c c c c"]  # 48 stand around it, and one before
    speaker([()])
    assert asked[0][0].endswith('The other side says: "c c c c c c c"\nAnswer: it is so\nBecause')
    assert len(asked[0][0].removeprefix("is it so ")) == 70 - 8
    head.reader.limit = 60
    assert explainer("rationale", debater(head, QUESTIONS[:1]), 20, CLAIMS[:1], 0, 0).hear(["a"]) == [""]


def test_a_line_of_play_hears_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts_of(monkeypatch)
    speaker = explainer("principal_variation", debater(bytes_head(), QUESTIONS[:1]), 4, ["Qd4"], 0, 0)
    assert speaker.hear(["Qd4 rd4"]) == [""]
    speaker([()])
    assert asked[0] == ["is it so  Qd4"]


# --- sampled ----------------------------------------------------------------------------------------------------------


def test_the_same_seed_says_the_same_and_another_round_or_seed_something_else() -> None:
    head = bytes_head()
    sample = _generated.sampler(head, 12, 64)
    prompts = [question.segments[0] for question in QUESTIONS]
    first = sample(prompts, (0, 0))
    assert sample(prompts, (0, 0)) == first and _generated.sampler(head, 12, 64)(prompts, (0, 0)) == first
    assert sample(prompts, (0, 1)) != first and sample(prompts, (1, 0)) != first
    assert all(0 < len(text.encode()) <= 3 * 12 for text in first) and len(set(first)) > 5


def test_sampling_moves_no_other_random_number_and_leaves_the_mode_alone() -> None:
    head = bytes_head().train()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    _generated.sampler(head, 4, 64)(["is it so"], (0, 0))
    assert torch.equal(torch.rand(2), expected) and head.training


def test_at_most_a_micro_batch_of_prompts_is_gone_on_from_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generated = Mock(side_effect=lambda head, data, rows, how, seeds: ["a."] * len(rows))
    monkeypatch.setattr(_generated, "generate", generated)
    own = replace(debater(bytes_head(), QUESTIONS[:3]), micro_batch=2)
    explainer("rationale", own, 4, CLAIMS[:3], 0, 0)([()] * 3)
    assert [len(call.args[2]) for call in generated.call_args_list] == [2, 1]


def test_a_batch_says_what_each_says_alone() -> None:
    """The most probable token each time: with the padding on the right a shorter prompt would go on behind the padding."""
    head = bytes_head()
    prompts = ["is it", "is it so is it so is it so", "a"]
    how = GenerationConfig(do_sample=False, max_new_tokens=6, pad_token_id=head.reader.pad_id)  # type: ignore[no-untyped-call]
    together = head.reader.read([(prompt,) for prompt in prompts], closed=False)
    found = _generated.generate(head, together, np.arange(3), how, (0,))
    for text, prompt in zip(found, prompts, strict=True):
        alone = head.reader.read([(prompt,)], closed=False)
        assert _generated.generate(head, alone, np.arange(1), how, (0,)) == [text]


def test_padding_moves_to_the_left_and_tokens_keep_their_order() -> None:
    data = bytes_head().reader.read([("abc",), ("a",)], closed=False)
    right, left = data.batch(np.arange(2)), _generated.left_padded(data, np.arange(2))
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert left["input_ids"][0].tolist() == right["input_ids"][0].tolist()
    assert left["input_ids"][1, 2] == right["input_ids"][1, 0]


def test_a_long_question_loses_its_beginning_and_the_claim_stays() -> None:
    head = bytes_head()
    long = Example("long", "g", ("a " * 4000,))
    found = explainer("rationale", debater(head, [long]), 20, ["it is so"], 0, 0)([()])
    assert len(found) == 1
    data = Reader(head.tokenizer, head.model, 512 - 20).read(
        [(rationale.prompt(long, "it is so", ""),)], keep_end=True, closed=False
    )
    assert data.lengths_R[0] == 492 and str(head.tokenizer.decode(data.flat)).endswith("Answer: it is so\nBecause")


@pytest.mark.slow
def test_the_shipped_chess_models_expect_a_recapture_where_one_is_legal() -> None:
    """The one reply of the embedded language model is the recapture that the rules of the task say, if there is one."""
    spec = models.find("chess-426k", "model")
    head = heads.build("reward", *models.load(spec, pretrained=True), classes=2)
    rows = chess.load("chess").heldout[:100]
    questions = [row.example for row in rows]
    claims = [question.candidates[row.label] for question, row in zip(questions, rows, strict=True)]
    found = explainer("principal_variation", debater(head, questions), 1, claims, 0, 0)([()] * len(questions))
    lines = [explanation.text for explanation in found]
    shown = [line for line in lines if line]
    # A black piece retakes on the square of the capture.
    assert len(shown) >= 10 and all(re.fullmatch(r"[KQRBNP]([a-h][1-8]) [kqrbnp]\1", line) for line in shown)
    retaken = [can_be_retaken(question, claim) for question, claim in zip(questions, claims, strict=True)]
    assert np.mean([bool(line) == expected for line, expected in zip(lines, retaken, strict=True)]) > 0.8


def can_be_retaken(question: Example, word: str) -> bool:
    board = chess_play.parse(question.segments[0])
    (move,) = (move for move in board.legal_moves if chess_play.move_word(board, move) == word)
    board.push(move)
    return any(reply.to_square == move.to_square for reply in board.legal_moves)


# --- refused ----------------------------------------------------------------------------------------------------------


def test_a_model_that_cannot_generate_is_refused_in_one_sentence() -> None:
    model, tokenizer = trunks.bert()
    head = heads.build("classification", model, tokenizer, classes=2)
    said = "--explainer must be one of gradient, policy, random, because a BertModel cannot generate text, got rationale"
    with pytest.raises(ConfigError, match=said):
        explainer("rationale", debater(head, [Example("a", "g", ("a b",))]), 8, ["a"], 0, 0)


@pytest.mark.parametrize("tokens", [505, 600])
def test_more_tokens_than_a_model_has_room_for_are_refused(tokens: int) -> None:
    with pytest.raises(ConfigError, match=rf"--max-new-tokens must be in \[1, 504\], so that a question fits .*, got {tokens}"):
        explainer("rationale", debater(bytes_head(), QUESTIONS), tokens, CLAIMS, 0, 0)
