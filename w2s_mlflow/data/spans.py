"""Pieces of a question's text, what evidence is made of: where they stand, and the question with some of them alone.

A piece of a short text is a word, of a longer one a run of at most SPAN words of one sentence. What has neither letter nor
digit (a chess prompt's closing mark, a lone dash) is no piece and always stays, and so does a candidate answer of one word: it
is what the claims are about.

In a chess position a word is a piece on its square, so evidence is some of the pieces. What is left is not the game: it is
another, emptier position, and whoever is shown it alone does not know what else may take back. A debater can so hide a
defender, and its opponent can show it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from w2s_mlflow.records import Example

SHORT = 40
"""Words of a text up to which each is a piece of its own."""
SPAN = 8
"""Words that a piece of a longer text has, at most."""
GAP = " … "
"""Between pieces that do not stand side by side in the text."""
NOTHING = "…"
"""In the place of a text of which nothing is left: a model cannot read nothing."""
_ENDS = re.compile(r"[.!?;:][\"')\]]*$")


class Piece(NamedTuple):
    """Where a piece stands: in which of the example's texts (segments, then candidates), from which character to which."""

    text: int
    start: int
    end: int


@functools.lru_cache(maxsize=1024)  # a debate asks for the same question's again and again
def spans_of(example: Example) -> tuple[Piece, ...]:
    """The pieces of a question, in the order of its texts."""
    found = [Piece(number, *span) for number, text in enumerate(example.segments) for span in _spans(text)]
    for number, text in enumerate(example.candidates, len(example.segments)):
        spans = list(_spans(text))
        found += [Piece(number, *span) for span in spans if len(spans) > 1]
    return tuple(found)


def shown(example: Example, chosen: Collection[int]) -> Example:
    """The question of which only the chosen pieces, by their numbers in `spans_of`, are left, and what is no piece.

    What is left closes up. Of a text whose pieces are all hidden NOTHING is left, or what in it is no piece.
    """
    every = spans_of(example)
    hidden = [piece for number, piece in enumerate(every) if number not in chosen]
    texts = [
        _without(text, [piece for piece in hidden if piece.text == number])
        for number, text in enumerate(example.segments + example.candidates)
    ]
    segments = len(example.segments)
    return replace(example, segments=tuple(texts[:segments]), candidates=tuple(texts[segments:]))


def quoted(example: Example, chosen: Collection[int]) -> str:
    """The chosen pieces as people read them: in the text's order, a gap where something is left out, a line for each text."""
    every, texts = spans_of(example), example.segments + example.candidates
    lines: dict[int, list[str]] = {}
    last = -1
    for number in sorted(chosen):
        piece = every[number]
        line = lines.setdefault(piece.text, [])
        if line:
            line.append(" " if number == last + 1 else GAP)
        line.append(texts[piece.text][piece.start : piece.end])
        last = number
    return "\n".join("".join(line) for line in lines.values())


def words(text: str) -> int:
    """How long a piece of evidence is, gaps not counted."""
    return sum(word != NOTHING for word in text.split())


def _without(text: str, hidden: Sequence[Piece]) -> str:
    kept = list(text)
    for piece in hidden:
        kept[piece.start : piece.end] = [""] * (piece.end - piece.start)
    return " ".join("".join(kept).split()) or NOTHING if hidden else text


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each piece of one text."""
    found = [word.span() for word in re.finditer(r"\S+", text)]
    for run in _runs(text, found) if len(found) > SHORT else ([word] for word in found):
        start, end = run[0][0], run[-1][1]
        if any(character.isalnum() for character in text[start:end]):
            yield start, end


def _runs(text: str, found: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """The words of each sentence in runs of equal length, to one, of at most SPAN."""
    sentence: list[tuple[int, int]] = []
    for start, end in found:
        sentence.append((start, end))
        if _ENDS.search(text[start:end]):
            yield from _equal(sentence)
            sentence = []
    yield from _equal(sentence)


def _equal(sentence: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    count = -(-len(sentence) // SPAN)
    for number in range(count):
        yield list(sentence[number * len(sentence) // count : (number + 1) * len(sentence) // count])
