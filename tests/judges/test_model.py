"""The frozen weak model as a judge, worked by hand; D changes its sign with the sides, and a bias for a place cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest

from w2s_mlflow import judges
from w2s_mlflow.data import spans as data_spans
from w2s_mlflow.judges import model
from w2s_mlflow.records import Debate, Example, Explanation, Floats, Side, Verdict

QUESTION = Example("q", "q", ("Ka1 Qb2 >",), ("Qc3", "Kb1"))


def side(name: str, decision: int, *chosen: int) -> Side:
    text = " … ".join(QUESTION.segments[0].split()[piece] for piece in chosen)
    return Side(name, decision, QUESTION.candidates[decision], Explanation(text, chosen))


def answer(questions: Sequence[Example]) -> Floats:
    """Sure of the first move if it sees the queen, less of the second if it sees the king alone, else of neither."""
    seen = {"Qb2 >": [0.9, 0.1], "Ka1 >": [0.3, 0.7], ">": [0.5, 0.5], "Ka1 Qb2 >": [0.8, 0.2]}
    seen["> because"] = [0.6, 0.4]
    return np.log(np.array([seen[" ".join(question.segments)] for question in questions], dtype=np.float32))


JUDGE = model.make(model.Options(), answer)
DEBATES = {
    "own evidence": (Debate(QUESTION, side("strong", 0, 1), side("weak", 1, 0)), math.log(0.9 / 0.7)),
    "the same decision": (Debate(QUESTION, side("strong", 0, 1), side("weak", 0, 0)), math.log(0.9 / 0.3)),
    "two pieces": (Debate(QUESTION, side("strong", 0, 1, 0), side("weak", 1, 0)), math.log(0.8 / 0.7)),
    "a consultant": (Debate(QUESTION, side("strong", 0, 1), side("weak", 1)), math.log(0.9 / 0.1)),
    "nothing": (Debate(QUESTION, side("strong", 0), side("weak", 1)), 0.0),
}


@pytest.mark.parametrize("name", DEBATES)
def test_each_claim_is_held_against_its_own_evidence(name: str) -> None:
    debate, expected = DEBATES[name]
    (verdict,) = JUDGE([debate])
    assert verdict.log_odds == pytest.approx(expected, abs=1e-6)
    assert (verdict.order, verdict.cost) == ("strong,weak", 0) and debate.first.claim in verdict.rationale


@pytest.mark.parametrize("name", DEBATES)
def test_the_debate_changes_its_sign_with_the_sides_and_no_place_is_preferred(name: str) -> None:
    debate, expected = DEBATES[name]
    first, second = JUDGE([debate, debate.swapped()])
    assert judges.preference(first, second) == pytest.approx(expected, abs=1e-6)
    renamed = Debate(QUESTION, replace(debate.second, name="strong"), replace(debate.first, name="weak"))
    assert judges.preference(*JUDGE([renamed, renamed.swapped()])) == pytest.approx(-expected, abs=1e-6)
    assert judges.bias(first, second) == pytest.approx(0, abs=1e-6)


def test_a_bias_for_the_first_place_cancels_in_the_debate_and_is_told() -> None:
    first, second = Verdict(1.5, "", "strong,weak", 0), Verdict(0.5, "", "weak,strong", 0)
    assert (judges.preference(first, second), judges.bias(first, second)) == (0.5, 1.0)
    none = replace(second, log_odds=None)
    assert judges.preference(first, none) is None and judges.bias(none, first) is None


def test_a_rationale_is_read_after_what_is_left_of_the_question() -> None:
    spoken = Side("strong", 0, "Qc3", Explanation("because"))
    (verdict,) = JUDGE([Debate(QUESTION, spoken, side("weak", 1, 0))])
    assert verdict.log_odds == pytest.approx(math.log(0.6 / 0.7), abs=1e-6)


def test_a_question_is_cut_once_and_hidden_once_for_an_explanation(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, spans = Mock(wraps=data_spans.select), Mock(wraps=data_spans._spans)
    monkeypatch.setattr(data_spans, "select", shown)
    monkeypatch.setattr(data_spans, "_spans", spans)
    data_spans.spans_of.cache_clear()
    debate = Debate(QUESTION, side("strong", 0, 1), side("weak", 1, 0))
    JUDGE([debate, debate.swapped()])
    assert (shown.call_count, spans.call_count) == (
        2,
        1,
    )  # two sides' evidence; one segment, as the candidates are single words


def test_no_debates_have_no_verdicts() -> None:
    assert JUDGE([]) == []
