"""Comparison of texts, against slow restatements of the definitions."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_mlflow.data import texts

word = st.sampled_from("abcde")
items = st.lists(st.lists(st.lists(word, min_size=1, max_size=12).map(tuple), min_size=1, max_size=2), max_size=12)
near = st.lists(  # texts that differ in a few places, which random ones hardly do
    st.tuples(st.lists(st.integers(0, 30), max_size=2), st.booleans()).map(
        lambda change: [tuple("x" if n in change[0] else f"w{n % 17}" for n in range(30 - change[1]))]
    ),
    max_size=10,
)


def shingles(item: Sequence[texts.Words]) -> set[texts.Words]:
    return {text[n : n + 3] for text in item for n in range(max(1, len(text) - 2))}


def similar(first: Sequence[texts.Words], second: Sequence[texts.Words]) -> bool:
    one, other = shingles(first), shingles(second)
    return len(one & other) * 10 >= len(one | other) * 8


@settings(deadline=None, max_examples=300)
@given(items | near)
def test_near_duplicates_are_all_pairs_of_the_definition(found: list[list[texts.Words]]) -> None:
    components = list(range(len(found)))
    expected = {(i, j) for j in components for i in range(j) if similar(found[i], found[j])}
    assert sorted(texts.near_duplicates(found, components)) == sorted(expected)


@given(near, st.lists(st.integers(0, 2), min_size=10, max_size=10))
def test_items_of_one_component_are_not_compared(found: list[list[texts.Words]], components: list[int]) -> None:
    every = texts.near_duplicates(found, range(len(found)))
    assert list(texts.near_duplicates(found, components)) == [(i, j) for i, j in every if components[i] != components[j]]


def inside(one: Sequence[texts.Words], other: Sequence[texts.Words]) -> bool:
    if max(map(len, one)) < 4:
        return False
    return all(any(text == whole[n : n + len(text)] for whole in other for n in range(len(whole))) for text in one)


@settings(deadline=None, max_examples=300)
@given(items | near)
def test_containments_are_all_pairs_of_the_definition(found: list[list[texts.Words]]) -> None:
    components = list(range(len(found)))
    expected = {(i, j) for i in components for j in components if i != j and inside(found[i], found[j])}
    assert sorted(texts.containments(found, components)) == sorted(expected)
    assert list(texts.containments(found, [0] * len(found))) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A  good\tFilm .", "a good film"),
        ("\u201cDon\u2019t!\u201d, he said", "dont he said"),
        ("don't", "dont"),
        ("\uff21\uff22\uff23 caf\u00e9", "abc caf\u00e9"),
        ("a <b>bold</b> word<br/> &amp; &lt;i&gt;more&lt;/i&gt;", "a bold word more"),
        ("an_under*score*", "an under score"),
        ("3 < 4, 1,000", "3 4 1 000"),
    ],
)
def test_words_of_a_text(text: str, expected: str) -> None:
    assert texts.words(text) == tuple(expected.split())


GARDEN = "这座花园又明亮又温暖\uff0c邻居们都很喜欢在这里散步。"


def test_characters_of_a_script_without_spaces_are_words() -> None:
    assert texts.words("这 很good, 是Ａ。") == ("这", "很", "good", "是", "a")
    assert texts.words("สวน") == ("ส", "ว", "น") and texts.words("สวยมาก") != texts.words("สวยมุก")
    assert texts.length(texts.words(GARDEN)) == 11.0 and texts.length(("a", "good", "film")) == 3


def test_near_duplicates_and_parts_of_chinese_sentences_are_found() -> None:
    other = "昨天下午我们在河边看到了三只白色的鸟和一条小船。"
    items = [[texts.words(text)] for text in (GARDEN, GARDEN.replace("散步", "散心"), other, GARDEN[11:23], "很好看")]
    assert list(texts.near_duplicates(items, range(5))) == [(0, 1)]
    assert sorted(texts.containments(items, range(5))) == [(3, 0)]


def test_a_text_without_words_is_one_word() -> None:
    assert texts.words("?!") == ("?!",) != texts.words("...")
