"""The reward model: it finds the order that made the verdicts, knows no first place, and is the optimum that it claims."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from w2s_mlflow import judges
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import reward
from w2s_mlflow.judges.reward import Argued
from w2s_mlflow.records import Debate, Example, Explanation, Floats, Side

STRENGTHS = {"queen": 2.0, "rook": 1.0, "bishop": 0.2, "knight": -0.4, "pawn": -2.8}
"""Of each word as evidence; they sum to 0, as only differences are seen."""
QUESTION = Example("q", "q", ("queen rook bishop knight pawn >",))


def side(name: str, text: str, decision: int = 0) -> Side:
    return Side(name, decision, f"class {decision}", Explanation(text))


def debate(first: str, second: str) -> Debate:
    return Debate(QUESTION, side("strong", first), side("weak", second))


PAIRS = [debate(*pair) for pair in itertools.combinations(STRENGTHS, 2)]
EXACT = [STRENGTHS[one.first.explanation.text] - STRENGTHS[one.second.explanation.text] for one in PAIRS]


def strengths(model: reward.Reward) -> dict[str, float]:
    """The scores of the words, their mean taken off."""
    found_N = model.score_N([(QUESTION, side("strong", word)) for word in STRENGTHS])
    return dict(zip(STRENGTHS, (found_N - found_N.mean()).tolist(), strict=True))


def test_exact_log_odds_give_back_the_strengths() -> None:
    found = strengths(reward.fit(PAIRS, EXACT, l2=1e-7))
    assert found == pytest.approx(STRENGTHS, abs=0.02)


def test_drawn_winners_give_back_the_order() -> None:
    """300 games a pair, each won by Bradley and Terry's chance: what the model is for."""
    noise = np.random.default_rng(0)
    games = [(one, exact) for one, exact in zip(PAIRS, EXACT, strict=True) for _ in range(300)]
    won = [20.0 if noise.random() < 1 / (1 + math.exp(-exact)) else -20.0 for _, exact in games]
    found = strengths(reward.fit([one for one, _ in games], won, l2=1e-5))
    assert sorted(found, key=found.__getitem__, reverse=True) == list(STRENGTHS)
    assert found == pytest.approx(STRENGTHS, abs=0.5)


def test_swapped_sides_change_the_sign_exactly() -> None:
    model = reward.fit(PAIRS, EXACT, l2=0.01)
    first, second = (model.judge([one, one.swapped()]) for one in PAIRS[:2])
    for pair in (first, second):
        assert pair[0].log_odds == -(pair[1].log_odds or 0.0) != 0 and judges.bias(*pair) == 0
    assert first[0].order == "strong,weak" and first[1].order == "weak,strong" and first[0].cost == 0


def test_a_judge_that_prefers_the_first_place_teaches_no_preference() -> None:
    """Both orders of each debate, the first always favoured by the same: the features' differences cancel."""
    both = [order for one in PAIRS for order in (one, one.swapped())]
    assert strengths(reward.fit(both, [1.5] * len(both), l2=1e-4)) == pytest.approx(dict.fromkeys(STRENGTHS, 0.0), abs=1e-6)


def test_an_order_shown_the_other_way_round_teaches_the_same() -> None:
    flipped = reward.fit([one.swapped() for one in PAIRS], [-value for value in EXACT], l2=0.01)
    np.testing.assert_allclose(flipped.weights_D, reward.fit(PAIRS, EXACT, l2=0.01).weights_D, atol=1e-6)


def test_it_is_the_least_of_the_equation() -> None:
    """The same problem, written down again and solved by another method, on an embedding of two numbers."""

    def embed(argued: Sequence[Argued]) -> Floats:
        return np.array([[len(own.explanation.text), own.decision] for _, own in argued], dtype=np.float32)

    sides = [("a", 0), ("abc", 1), ("ab", 0), ("abcd", 1)]
    debates = [Debate(QUESTION, side("strong", *one), side("weak", *two)) for one, two in itertools.combinations(sides, 2)]
    log_odds, l2 = [0.5, -1.0, 0.3, 2.0, -0.2, 0.1], 0.05
    first_ND, second_ND = (embed(argued) for argued in reward._sides(debates))
    p_N = 1 / (1 + np.exp(-np.array(log_odds)))

    def loss(weights_D: np.ndarray) -> float:
        margin_N = (first_ND - second_ND) @ weights_D
        return float((np.logaddexp(0, margin_N) - p_N * margin_N).mean() + l2 / 2 * weights_D @ weights_D)

    model = reward.fit(debates, log_odds, l2, embed)
    np.testing.assert_allclose(model.weights_D, minimize(loss, np.zeros(2), tol=1e-12).x, atol=1e-4)


def test_an_unsure_verdict_teaches_less() -> None:
    sure, unsure = (strengths(reward.fit([debate("queen", "pawn")] * 2, [value] * 2, l2=0.01)) for value in (3.0, 0.3))
    assert sure["queen"] > 2 * unsure["queen"] > 0


def test_debates_without_a_verdict_are_left_out() -> None:
    more = [*PAIRS, debate("pawn", "queen"), debate("pawn", "rook")]
    found = reward.fit(more, [*EXACT, None, math.nan], l2=0.01)
    np.testing.assert_array_equal(found.weights_D, reward.fit(PAIRS, EXACT, l2=0.01).weights_D)


def test_the_words_count_with_the_decision_that_they_speak_for() -> None:
    """`rook` speaks for class 1 and against class 0: of the word alone no weight could say so."""
    pairs = [Debate(QUESTION, side("strong", "rook", 1), side("weak", "pawn", 1))]
    pairs += [Debate(QUESTION, side("strong", "rook", 0), side("weak", "pawn", 0))]
    model = reward.fit(pairs * 2, [2.0, -2.0] * 2, l2=1e-3)
    for_one, for_zero = model.judge(pairs)
    assert (for_one.log_odds or 0) > 1 and (for_zero.log_odds or 0) < -1


def test_it_is_kept_as_json_to_the_bit(tmp_path: Path) -> None:
    model = reward.fit(PAIRS, EXACT, l2=0.01)
    model.write(tmp_path / "reward.json")
    assert reward.read(tmp_path / "reward.json").judge(PAIRS) == model.judge(PAIRS)
    assert reward.fit(PAIRS, EXACT, l2=0.01).judge(PAIRS) == model.judge(PAIRS)


def test_the_judge_learns_once_from_the_verdicts_so_far() -> None:
    asked = []

    def so_far() -> tuple[list[Debate], list[float]]:
        asked.append(1)
        return PAIRS, EXACT

    judge = reward.make(reward.Options(l2=1e-6), so_far)
    (verdict,), nothing = judge([debate("queen", "pawn")]), judge([])
    assert verdict.log_odds == pytest.approx(4.8, abs=0.2) and nothing == [] and len(asked) == 1


def test_too_few_verdicts_are_one_sentence() -> None:
    with pytest.raises(ConfigError, match="must be fitted on at least 2 verdicts, but only 1 of 2 debates have one"):
        reward.fit(PAIRS[:2], [1.0, None], l2=0.01)
    with pytest.raises(ConfigError, match=r"l2=... of --judge-options must be above 0, got 0\.0"):
        reward.Options(l2=0.0)
