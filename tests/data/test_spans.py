"""Pieces of a question: where they stand, what is left of it, and what people read."""

from __future__ import annotations

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
