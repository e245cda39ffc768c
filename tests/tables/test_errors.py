"""Types of errors: each rule by hand, which comes first, and shares that sum to one whatever the answers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow.tables import annotator_agreement, error_examples, errors

NAN = float("nan")


def frame(rows: Sequence[tuple[float, ...]], **more: Any) -> pd.DataFrame:
    """Errors from answers in the order gold, answer, weak, ceiling, on own evidence, on the ceiling's, on random tokens."""
    names = ["gold", "answer", "weak_answer", "ceiling_answer", "on_own_evidence", "on_ceiling_evidence", "on_random"]
    found = pd.DataFrame(rows, columns=names)
    texts = dict.fromkeys(("text", "own_evidence", "ceiling_evidence", "annotation"), "")
    run = {"task": "t", "weak": "w", "strong": "s", "method": "m", "method_options": "", "other_options": ""}
    run |= {"seed": "0", "run_id": "r", "student_run_id": "s", "checkpoints": ""}
    return found.assign(id=[str(n) for n in range(len(found))], **run | texts | more)


RULES = {
    "the supervisor's error, the ceiling right": ((0, 1, 1, 0, 1, 0, 1), "overfitting"),
    "that comes before what evidence says": ((0, 1, 1, 0, 0, 0, 0), "overfitting"),
    "the supervisor right, right on the ceiling's evidence": ((0, 1, 0, 0, 1, 0, 1), "evidence_extraction"),
    "the supervisor alone right": ((0, 1, 0, 1, 0, 0, 1), "evidence_extraction"),
    "nobody right, so that none could be extracted": ((0, 1, 1, 1, 1, 0, 1), "other"),
    "wrong on the ceiling's evidence, its own does not hold": ((0, 1, 0, 0, 0, 1, 1), "quote_selection"),
    "nobody right, its own does not hold": ((0, 1, 1, 1, 0, 1, 1), "quote_selection"),
    "its own holds": ((0, 1, 0, 0, 1, 1, 1), "other"),
    "another wrong answer than the supervisor's": ((0, 1, 2, 0, 1, 1, 1), "other"),
    "no evidence": ((0, 1, 0, 0, NAN, NAN, NAN), "other"),
    "no evidence, the supervisor's error": ((0, 1, 1, 0, NAN, NAN, NAN), "overfitting"),
}


@pytest.mark.parametrize("case", RULES)
def test_each_rule(case: str) -> None:
    row, expected = RULES[case]
    assert errors.types(frame([row])).tolist() == [expected]


ANSWER = st.integers(0, 2)
ROW = st.tuples(*[ANSWER] * 7).filter(lambda row: row[0] != row[1])


@settings(max_examples=30)
@given(st.lists(ROW, min_size=1, max_size=20), st.booleans())
def test_shares_sum_to_one(rows: list[tuple[float, ...]], text: bool) -> None:
    found = frame([row if text else (*row[:4], NAN, NAN, NAN) for row in rows])
    shares = errors.shares(found)
    assert sum(shares[name] for name in errors.TYPES) == pytest.approx(1)
    assert np.isnan(shares["quote_selection_by_chance"]) is not np.bool_(text) and (
        text or shares["quote_selection"] == shares["evidence_extraction"] == 0
    )


def test_by_chance_is_what_random_tokens_give() -> None:
    shares = errors.shares(frame([(0, 1, 0, 0, 1, 0, 0), (0, 1, 0, 0, 1, 0, 1), (0, 1, 1, 1, 1, 1, 0), (0, 1, 1, 0, 1, 1, 0)]))
    assert {name: shares[name] for name in errors.TYPES} == {
        "overfitting": 0.25,
        "evidence_extraction": 0.5,
        "quote_selection": 0,
        "other": 0.25,
    }
    assert (shares["evidence_extraction_by_chance"], shares["quote_selection_by_chance"]) == (0.25, 0.25)


def test_a_row_is_the_mean_over_runs_of_each_run_s_shares() -> None:
    first = frame([(0, 1, 1, 0, 1, 0, 1)] * 3 + [(0, 1, 0, 0, 1, 1, 1)])
    second = frame([(0, 1, 1, 0, 1, 0, 1), (0, 1, 0, 0, 1, 1, 1)], run_id="q", seed="1")
    (row,) = errors.table(pd.concat([first, second])).to_dict("records")
    assert (row["n"], row["errors"], row["overfitting"], row["other"]) == (2, 3, 0.625, 0.375)
    assert row["overfitting_low"] < 0.625 < row["overfitting_high"]


def test_codes_are_compared_with_the_rules() -> None:
    found = frame([RULES[name][0] for name in list(RULES)[:6]])
    found["annotation"] = ["overfitting", "other", "evidence_extraction", "", "other", "quote_selection"]
    (row,) = annotator_agreement.table(found).to_dict("records")
    assert (row["n"], row["agreement"], row["other"]) == (5, 0.8, 0.4)
    # by hand: 4 of 5 agree; by chance (1*2 + 1*1 + 1*1 + 2*1) / 25 = 0.24; (0.8 - 0.24) / 0.76
    assert row["kappa"] == pytest.approx(0.56 / 0.76)
    assert annotator_agreement.table(frame([RULES["no evidence"][0]])).empty


def test_the_sample_to_be_coded_is_the_same_whatever_the_types() -> None:
    many = frame([RULES["its own holds"][0]] * 120)
    found = error_examples.table(many)
    assert len(found) == error_examples.SIZE and found["id"].is_unique
    other = error_examples.table(frame([RULES["no evidence"][0]] * 120).sample(frac=1, random_state=0))
    assert list(found["id"]) == list(other["id"])
