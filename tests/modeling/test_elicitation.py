"""Log probabilities of continuations against a plain forward pass, and the scores that chess prompts make of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.losses.test_losses import slow_machine
from tests.trunks import bert, gpt2
from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import elicitation, inference
from w2s_mlflow.modeling.elicitation import Continuations
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import Prompt, Query
from w2s_mlflow.tasks import _chess_prompts as chess_prompts

POSITION = "Ke2 Qd3 kf6 pc5 nd6"
EXAMPLE = Example("e", "g", (f"{POSITION} >",), ("Qc5", "Qd6"))


@pytest.fixture(scope="module")
def chess() -> Continuations:
    return Continuations(*models.load(models.find("chess-27k", "strong"), pretrained=True))


def asked(head: Continuations, queries: list[Query]) -> list[float]:
    found: list[float] = inference.outputs(head.eval(), head.encode_queries(queries)).reshape(-1).tolist()
    return found


def expected(head: Continuations, text: str, continuation: str) -> float:
    """One forward pass over one row, token by token."""
    ids = head.tokenizer(f"{text} {continuation}")["input_ids"]
    new = len(head.tokenizer(f"a {continuation}", add_special_tokens=False)["input_ids"]) - 1
    logits = head.model(input_ids=torch.tensor([ids])).logits[0].detach().log_softmax(dim=-1)
    return sum(float(logits[row - 1, ids[row]]) for row in range(len(ids) - new, len(ids)))


def test_the_log_probability_is_that_of_a_plain_forward_pass(chess: Continuations) -> None:
    queries = [
        Query(f"{POSITION} >", "Qd6"),
        Query(f"{POSITION} > Qd6", "-"),
        Query(f"{POSITION} >", "Qc5 -"),
        Query("Ke2", "kf6"),
    ]
    assert asked(chess, queries) == pytest.approx(
        [expected(chess, query.text, query.continuation) for query in queries], abs=1e-4
    )


def test_a_continuation_of_bytes_follows_after_a_space() -> None:
    torch.manual_seed(0)
    head = Continuations(*gpt2())
    assert head._continuation("a") == [256] and len(head._continuation("cab")) == 4  # a merge, and a space before the letters
    queries = [Query("a b", "a"), Query("b", "cab"), Query("a a b a", "b a")]
    assert asked(head, queries) == pytest.approx(
        [expected(head, query.text, query.continuation) for query in queries], abs=1e-4
    )


def test_a_long_text_loses_its_beginning_and_a_long_continuation_its_end() -> None:
    head = Continuations(*gpt2(limit=8))
    data = head.encode_queries([Query("c" * 20 + " a b", "a"), Query("b", " ".join("ab" * 10))])
    assert data.scored_from_R is not None
    assert data.lengths_R.max() <= 8 and (data.lengths_R - data.scored_from_R).tolist() == [1, 4]
    assert data.flat[:5].tolist()[-3:] == [256, 257, 256]


def test_a_model_that_predicts_no_next_word_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"^--strong must be a causal language model to answer prompts, got a BertModel$"):
        Continuations(*bert())


def test_an_unknown_word_is_refused(chess: Continuations) -> None:
    with pytest.raises(ConfigError, match="words that the model knows, got 'perhaps'"):
        chess.encode_queries([Query(POSITION, "perhaps")])


@slow_machine
@given(st.lists(st.tuples(st.floats(-50, 0), st.floats(-50, 0)), min_size=1, max_size=5))
def test_probabilities_are_the_softmax_of_the_scores(scores: list[tuple[float, float]]) -> None:
    given_scores = iter(scores)
    prompt = Prompt("", lambda example: [Query("a", "b")], lambda example, _: next(given_scores))
    head = Continuations(*gpt2())
    found_NC = elicitation.probabilities(head, prompt, [EXAMPLE] * len(scores))
    expected_NC = [[1 / (1 + math.exp(b - a)), 1 / (1 + math.exp(a - b))] for a, b in scores]
    np.testing.assert_allclose(found_NC, expected_NC, atol=1e-6)


# --- chess ------------------------------------------------------------------------------------------------------------


def softmax(scores: list[float]) -> float:
    """The probability of the first class."""
    return 1 / (1 + math.exp(scores[1] - scores[0]))


def test_a_reply_is_asked_for_after_each_capture() -> None:
    prompt = chess_prompts.PROMPTS["reply"]
    assert prompt.queries(EXAMPLE) == [Query(f"{POSITION} > Qc5", "-"), Query(f"{POSITION} > Qd6", "-")]
    # Not retaken with .9 and .6: exactly the first with .9 * .4, exactly the second with .1 * .6.
    assert softmax(list(prompt.scores(EXAMPLE, [math.log(0.9), math.log(0.6)]))) == pytest.approx(0.36 / 0.42)


def test_the_mirrored_prompt_asks_for_both_boards_and_averages_the_log_odds() -> None:
    prompt = chess_prompts.PROMPTS["reply_mirrored"]
    mirrored = prompt.queries(EXAMPLE)[2:]
    assert mirrored == [Query("Kd2 Qe3 kc6 ne6 pf5 > Qf5", "-"), Query("Kd2 Qe3 kc6 ne6 pf5 > Qe6", "-")]
    scores = prompt.scores(EXAMPLE, [math.log(value) for value in (0.5, 0.5, 0.9, 0.1)])
    assert scores == pytest.approx([math.log(9) / 2, -math.log(9) / 2])


def test_an_unanswered_capture_is_the_capture_and_a_dash() -> None:
    prompt = chess_prompts.PROMPTS["unanswered"]
    assert prompt.queries(EXAMPLE) == [Query(f"{POSITION} >", "Qc5 -"), Query(f"{POSITION} >", "Qd6 -")]
    assert list(prompt.scores(EXAMPLE, [-1.0, -2.0])) == [-1.0, -2.0]


def test_the_planner_plays_out_both_exchanges() -> None:
    """The queen takes a pawn (1, or 1 - 9) or a knight (3, or 3 - 9)."""
    planner = chess_prompts.PLANNERS["exchange"]
    # Not retaken with .8 and .5: the pawn wins more only if the queen on the knight's square is lost and the other is not.
    scores = list(planner.scores(EXAMPLE, [math.log(0.8), math.log(0.5)]))
    assert scores == pytest.approx([math.log(0.8 * 0.5), math.log(0.5 + 0.5 * 0.2)])


def test_every_prompt_gives_a_probability_to_each_class(chess: Continuations) -> None:
    for prompt in (*chess_prompts.PROMPTS.values(), *chess_prompts.PLANNERS.values()):
        found = elicitation.probabilities(chess, prompt, [EXAMPLE, EXAMPLE])
        assert found.shape == (2, 2) and found.sum(axis=1) == pytest.approx(1) and (found[0] == found[1]).all()
