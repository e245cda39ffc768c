"""Functions that divide a question's text into spans, which are the units of evidence, and reduce a question to chosen spans.

In a short text each word is a span; in a longer text a span is a run of at most SPAN words of one sentence. A run without
letters or digits (such as a lone dash, or the mark `>` that ends a chess prompt) is not a span and is always kept. A one-word
candidate answer is always kept too, because the debaters' claims are about it.

In scripts that are written without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, ...), each character
counts as a word, with the marks and the punctuation that belong to it.

In a chess position each word is a chess piece on its square, so evidence is a subset of the pieces. The subset looks like a
position with fewer pieces: a judge that sees only the evidence does not know which other pieces can recapture. A debater can
therefore hide a defending piece, and the other debater can reveal it.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from w2s_mlflow.data.texts import UNSPACED
from w2s_mlflow.records import Example

SHORT = 40
"""Maximum number of words of a text in which each word is a span."""
SPAN = 8
"""Maximum number of words of a span in a longer text."""
GAP = " … "
"""Separator between spans that are not adjacent in the text."""
NOTHING = "…"
"""Replacement for a text without any chosen words, because a model cannot read an empty text."""
WORD = 4
"""A candidate answer in a script without spaces counts as one word if it has at most this many characters."""
_ENDS = re.compile(
    r"[.!?;:][\"')\]]*$"
    r"|[\u3002\uff01\uff1f\uff1b\uff1a\uff0e\uff61][\"')\]\u2019\u201d\u300b\u300d\u300f\u3011\uff09]*$"
)
_JOINED_TO_NEXT = "\u0e40\u0e41\u0e42\u0e43\u0e44\u0ec0\u0ec1\u0ec2\u0ec3\u0ec4\u1039\u17d2\u1a60"
"""Vowels of Thai and Lao that are written before their consonant, and signs that stack the next consonant."""
_JOINED_TO_PREVIOUS = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3"
"""Vowels of Thai and Lao that Unicode does not classify as marks."""


class Span(NamedTuple):
    """Position of a span: the index of its text, counting segments and then candidates, and its start and end in characters."""

    text: int
    start: int
    end: int


@functools.lru_cache(maxsize=1024)  # the spans are cached, because a debate requests them repeatedly
def spans_of(example: Example) -> tuple[Span, ...]:
    """Return the spans of a question: first those of its segments, then those of its candidates."""
    all_spans = [Span(number, *span) for number, text in enumerate(example.segments) for span in _spans(text)]
    for number, text in enumerate(example.candidates, len(example.segments)):
        if not _is_word(text):
            all_spans += [Span(number, *span) for span in _spans(text)]
    return tuple(all_spans)


def select(example: Example, chosen: Collection[int]) -> Example:
    """Return the question without the spans that are not chosen. Text outside spans is kept.

    `chosen` holds indices into the result of `spans_of`. No mark shows where spans were removed. A text that has no words left
    becomes NOTHING.
    """
    spans = spans_of(example)
    hidden = [span for number, span in enumerate(spans) if number not in chosen]
    texts = [
        _without(text, [span for span in hidden if span.text == number])
        for number, text in enumerate(example.segments + example.candidates)
    ]
    segments = len(example.segments)
    return replace(example, segments=tuple(texts[:segments]), candidates=tuple(texts[segments:]))


def quoted(example: Example, chosen: Collection[int]) -> str:
    """Return the chosen spans as readable text: one line per text, with GAP between spans that are not adjacent.

    Adjacent spans are separated by a space if they are in the text.
    """
    spans, texts = spans_of(example), example.segments + example.candidates
    lines: dict[int, list[str]] = {}
    previous = -1
    for number in sorted(chosen):
        span = spans[number]
        line = lines.setdefault(span.text, [])
        if line:
            adjacent = number == previous + 1
            line.append(GAP if not adjacent else "" if span.start == spans[previous].end else " ")
        line.append(texts[span.text][span.start : span.end])
        previous = number
    return "\n".join("".join(line) for line in lines.values())


def count_words(text: str) -> int:
    """Return the number of words in an evidence text, not counting gap marks."""
    return sum(text[start:end] != NOTHING for start, end in _words(text))


def _is_word(text: str) -> bool:
    """Return whether a candidate answer is one word, so that it has no spans."""
    words = list(_words(text))
    return len(words) <= 1 or (len(words) <= WORD and len(text.split()) == 1)


def _without(text: str, hidden: Sequence[Span]) -> str:
    characters = list(text)
    for span in hidden:
        characters[span.start : span.end] = [""] * (span.end - span.start)
    return " ".join("".join(characters).split()) or NOTHING if hidden else text


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each span of a text, counted in characters."""
    word_spans = list(_words(text))
    for run in _runs(text, word_spans) if len(word_spans) > SHORT else ([word] for word in word_spans):
        start, end = run[0][0], run[-1][1]
        if any(character.isalnum() for character in text[start:end]):
            yield start, end


def _words(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each word of a text; in a script without spaces, of each character."""
    for match in re.finditer(r"\S+", text):
        start, end = match.span()
        if UNSPACED.search(text, start, end):
            starts = [start, *_boundaries(text, start, end), end]
            yield from itertools.pairwise(starts)
        else:
            yield start, end


def _boundaries(text: str, start: int, end: int) -> Iterator[int]:
    """Yield the places between `start` and `end` at which a character of a script without spaces, or a word beside it, begins.

    An opening bracket belongs to the character after it; other punctuation and marks belong to the character before.
    """
    unspaced = bool(UNSPACED.match(text, start))  # whether the current word is a character of such a script
    for place in range(start + 1, end):
        before, here = text[place - 1], text[place]
        opening, opened = (unicodedata.category(one) in ("Ps", "Pi") for one in (here, before))
        begins = opening or (here.isalnum() and (unspaced or bool(UNSPACED.match(here))) and here not in _JOINED_TO_PREVIOUS)
        if begins and not opened and before not in _JOINED_TO_NEXT:
            yield place
        if begins:
            unspaced = bool(UNSPACED.match(here))


def _runs(text: str, word_spans: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Divide each sentence into runs of at most SPAN words whose lengths differ by at most one word, and yield the runs."""
    sentence: list[tuple[int, int]] = []
    for start, end in word_spans:
        sentence.append((start, end))
        if _ENDS.search(text[start:end]):
            yield from _equal(sentence)
            sentence = []
    yield from _equal(sentence)


def _equal(sentence: Sequence[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    count = -(-len(sentence) // SPAN)
    for number in range(count):
        yield list(sentence[number * len(sentence) // count : (number + 1) * len(sentence) // count])
