"""Votes of people as verdicts, worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from w2s_mlflow import judges
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import human, reward
from w2s_mlflow.records import Debate, Example, Explanation, Side

QUESTIONS = [Example(f"q{number}", "g", ("queen rook bishop knight pawn >",)) for number in range(4)]


def debate(question: Example, strong: str, weak: str) -> Debate:
    return Debate(question, Side("strong", 0, "a", Explanation(strong)), Side("weak", 0, "a", Explanation(weak)))


DEBATES = [
    debate(question, *pair) for question, pair in zip(QUESTIONS, (("queen", "pawn"),) * 3 + (("rook", "pawn"),), strict=True)
]
VOTES = [("strong", "strong"), ("strong", "tie"), ("weak",), ()]
EXPECTED = [math.log(2.5 / 0.5), math.log(2 / 1), math.log(0.5 / 1.5)]


def judge(**options: float | str) -> judges.Judge:
    return human.make(human.Options(**options), lambda: (DEBATES, VOTES))  # type: ignore[arg-type]


def test_the_mean_vote_becomes_log_odds_and_no_voice_is_certain() -> None:
    found = judge(others="none")([*DEBATES])
    assert [verdict.log_odds for verdict in found[:3]] == pytest.approx(EXPECTED)
    assert found[3].log_odds is None and all(verdict.cost == 0 for verdict in found)


def test_the_other_order_has_the_opposite_sign() -> None:
    for one, expected in zip(DEBATES, EXPECTED, strict=False):
        first, second = judge()([one, one.swapped()])
        assert judges.preference(first, second) == pytest.approx(expected) and judges.bias(first, second) == 0
        assert (first.order, second.order) == ("strong,weak", "weak,strong")


@pytest.mark.parametrize(
    ("votes", "expected"), [(("tie",), 0.0), (("strong", "weak"), 0.0), (("weak",) * 9, math.log(0.5 / 9.5)), ((), 0.0)]
)
def test_ties_and_ballots_that_even_out_decide_nothing(votes: Sequence[str], expected: float) -> None:
    assert human.log_odds(votes, DEBATES[0], prior=0.5) == pytest.approx(expected)


def test_what_nobody_has_judged_is_decided_by_what_was_learned_from_the_votes() -> None:
    model = reward.fit(DEBATES[:3], EXPECTED, l2=0.01)
    other = debate(QUESTIONS[0], "pawn", "queen")  # of a question that was judged, but with other evidence
    found = judge()([DEBATES[3], other])
    assert found == model.judge([DEBATES[3], other])
    assert (found[1].log_odds or 0) < 0  # most votes were for the queen


@pytest.mark.parametrize(("said", "others"), [(VOTES, "reward"), (VOTES, "none"), ([()] * 4, "none")])
def test_people_are_heard_once_whatever_they_say(said: list[tuple[str, ...]], others: Any) -> None:
    heard = []

    def votes() -> tuple[list[Debate], list[tuple[str, ...]]]:
        heard.append(1)
        return DEBATES, said

    asked = human.make(human.Options(others=others), votes)
    assert asked(DEBATES) == asked(DEBATES) and len(heard) == 1


def test_agreement_is_over_pairs_of_votes_on_one_debate() -> None:
    assert human.agreement([("strong", "strong", "weak"), ("tie", "tie"), ("weak",), ()]) == pytest.approx(2 / 4)
    assert human.agreement([("strong",), ()]) is None


def test_nobody_has_voted_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="must be fitted on at least 2 verdicts, but only 0 of 0 debates have one"):
        human.make(human.Options(), lambda: (DEBATES, [()] * 4))(DEBATES)
    (verdict,) = human.make(human.Options(others="none"), lambda: (DEBATES, [()] * 4))(DEBATES[:1])
    assert verdict.log_odds is None


def test_wrong_options_are_one_sentence() -> None:
    for options, expected in (
        ({"prior": 0.0}, "prior=... of --judge-options must be above 0"),
        ({"l2": -1.0}, "l2=... of --judge-options must be above 0"),
        ({"others": "all"}, "others=... of --judge-options must be one of none, reward, got 'all'"),
    ):
        with pytest.raises(ConfigError, match=expected):
            human.Options(**options)
