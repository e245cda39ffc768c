"""Pieces of a question: where they stand, what is left of it, and what people read."""

from __future__ import annotations

import unicodedata

import pytest

from w2s_mlflow.data import spans
from w2s_mlflow.data.spans import NOTHING, SHORT, SPAN, Span
from w2s_mlflow.records import Example

POSITION = Example("a", "a", ("Kd7 Qe7 kd2 >",), ("Kc6", "Qe3"))


def test_each_piece_of_a_position_is_one_and_the_mark_and_the_moves_stay() -> None:
    assert spans.spans_of(POSITION) == (Span(0, 0, 3), Span(0, 4, 7), Span(0, 8, 11))
    assert spans.select(POSITION, {1}) == Example("a", "a", ("Qe7 >",), ("Kc6", "Qe3"))
    assert spans.select(POSITION, ()).segments == (">",)
    assert spans.select(POSITION, range(3)) == POSITION


def test_all_pieces_give_the_question_back_and_it_is_cut_alike() -> None:
    question = Example("b", "b", ("The cat sat . It slept !", "Who  slept ?"), ("the cat itself", "it"))
    every = spans.spans_of(question)
    assert spans.select(question, range(len(every))) == question
    assert [question.segments[0][span.start : span.end] for span in every[:5]] == ["The", "cat", "sat", "It", "slept"]
    assert {span.text for span in every} == {0, 1, 2}


def test_a_text_of_which_nothing_is_left_can_still_be_read() -> None:
    question = Example("c", "c", ("one two", "three"), ("long answer", "no"))
    assert spans.select(question, ()) == Example("c", "c", (NOTHING, NOTHING), (NOTHING, "no"))
    assert spans.select(question, {3}) == Example("c", "c", (NOTHING, NOTHING), ("long", "no"))


def test_people_read_pieces_in_the_order_of_the_text_with_gaps() -> None:
    question = Example("d", "d", ("one two three four", "five"))
    assert spans.quoted(question, (3, 0, 1)) == "one two … four"
    assert spans.quoted(question, (4, 2)) == "three\nfive"
    assert spans.quoted(question, ()) == ""
    assert spans.count_words(spans.quoted(question, (3, 0, 1))) == 3


def test_a_long_text_is_cut_into_runs_of_its_sentences() -> None:
    sentence = " ".join(f"w{n}" for n in range(17)) + "."
    question = Example("e", "e", (" ".join([sentence] * 3),))
    found = [question.segments[0][span.start : span.end].split() for span in spans.spans_of(question)]
    assert sum(map(len, found)) == 51 > SHORT
    assert [len(run) for run in found] == [5, 6, 6] * 3 and max(map(len, found)) <= SPAN
    assert [run[-1] for run in found[2::3]] == ["w16."] * 3


# --- scripts without spaces -------------------------------------------------------------------------------------------

UNSPACED = {
    "Chinese": "\u5b83|\u5f88|\u597d\uff0c|\u300c\u771f|\u7684\u300d\u3002",
    "Japanese": "\u5ead|\u306f|PC2|\u53f0|\u3067",
    "Thai": "\u0e19\u0e49\u0e33|\u0e41\u0e25\u0e30|\u0e1b|\u0e25\u0e32",  # marks, and vowels before and after the consonant
    "Khmer": "\u1781\u17d2\u1798\u17c2|\u179a",  # a consonant below the one before it
    "English beside it": "U.S.| (a| test)| \u5728|U.S.|\u5de5",
}
"""Texts with a bar between their words."""


@pytest.mark.parametrize("name", UNSPACED)
def test_a_character_of_a_script_without_spaces_is_a_word(name: str) -> None:
    text, words = UNSPACED[name].replace("|", ""), UNSPACED[name].replace(" ", "").split("|")
    question = Example("f", "f", (text,))
    every = spans.spans_of(question)
    assert [text[span.start : span.end] for span in every] == words
    assert not any(unicodedata.category(word[0]).startswith("M") for word in words)
    assert spans.select(question, range(len(every))) == question
    assert spans.quoted(question, range(len(every))) == text
    assert spans.count_words(text) == len(words)


def test_a_long_text_without_spaces_is_cut_into_runs_of_its_sentences() -> None:
    sentence = "\u82b1" * 17 + "\u3002"
    question = Example("g", "g", (sentence * 3,))
    found = [question.segments[0][span.start : span.end] for span in spans.spans_of(question)]
    assert "".join(found) == sentence * 3 and [len(run) for run in found] == [5, 6, 7] * 3
    assert spans.quoted(question, (0, 1, 3)) == f"{found[0]}{found[1]}{spans.GAP}{found[3]}"
    assert spans.select(question, (1,)).segments == (found[1],)


def test_a_short_answer_in_a_script_without_spaces_is_one_word() -> None:
    question = Example("h", "h", ("a",), ("\u6b63\u786e", "\u5b83\u4e0d\u6b63\u786e\u3002"))
    assert [span.text for span in spans.spans_of(question)] == [0]
    assert [span.text for span in spans.spans_of(Example("i", "i", ("a",), ("\u82b1" * 5, "two words")))] == [0, *[1] * 5, 2, 2]
