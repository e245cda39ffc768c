"""Names that MLflow takes, of any text."""

from __future__ import annotations

import fnmatch
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_length_limit, _validate_metric_name

from w2s_mlflow.display import CONTROL
from w2s_mlflow.tracking import names

TEXTS = st.text(st.one_of(st.sampled_from("ab./:-_ ()[]%'\"\\\n\0"), st.characters()), max_size=40)
ODD = (
    "",
    ".",
    "..",
    "/",
    "//",
    "a//b",
    "/a",
    "../a",
    "a/..",
    "a/",
    "x" * 300,
    "file:/data//reviews (1).csv",
    "data[old].csv",
    "\udc80",
)


def check(name: str) -> None:
    _validate_metric_name(name)  # type: ignore[no-untyped-call]
    _validate_length_limit("metric", 250, name)  # type: ignore[no-untyped-call]


@given(TEXTS, TEXTS)
@settings(max_examples=150, deadline=None)
def test_mlflow_takes_every_metric_name_and_none_is_made_twice(first: str, second: str) -> None:
    both = [names.metric("probe", text, "before") for text in (first, second)]
    for name in (*both, names.metric(first)):
        check(name)
    assert (both[0] == both[1]) == (first == second)


@pytest.mark.parametrize("text", ODD)
def test_mlflow_takes_odd_texts(text: str) -> None:
    check(names.metric(text))
    check(names.metric("probe", text, "before_by_layer"))
    assert len(names.run(text)) <= 250 and not CONTROL.search(names.run(text))


def test_a_legal_name_stays_as_it_is() -> None:
    assert names.metric("test/pgr_low") == "test/pgr_low"
    assert names.metric("probe", "file:/data/x.csv", "gain") == "probe/file:/data/x.csv/gain"
    assert re.fullmatch(r"probe/file:/data/a _1_\.csv-[0-9a-f]{8}/gain", names.metric("probe", "file:/data/a (1).csv", "gain"))
    assert names.run("supervisor file:/bob's.csv bert seed 0") == "supervisor file:/bob's.csv bert seed 0"


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_a_filter_finds_every_name(text: str) -> None:
    clause = names.like("attributes.run_name", names.run(text))
    attribute, _, pattern = clause.partition(" LIKE ")
    assert attribute == "attributes.run_name" and pattern[0] == pattern[-1] == "'" and "'" not in pattern[1:-1]
    assert fnmatch.fnmatchcase(names.run(text), pattern[1:-1].replace("_", "?"))


def test_names_in_a_list_may_contain_commas() -> None:
    existing = ["a", "a, b", "c", "a, b,c"]
    assert names.split("a, b,c", existing) == ["a, b,c"]
    assert names.split("c,a, b", existing) == ["c", "a, b"]
    assert names.split(" a ,d,,", existing) == ["a", "d"]
