"""Map each token of a question to the evidence span that contains it, for every head and tokenizer template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.data import spans
from w2s_mlflow.modeling.heads import Head, LMChoice, Reward
from w2s_mlflow.modeling.tokenization import SEPARATOR, Batch, Encoded, Reader, Template, Texts
from w2s_mlflow.records import Example, Ints

NOWHERE = -1
"""Span index of a token that belongs to no span."""


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions encoded for one model, with the span of each token.

    Attributes:
        piece_T: the span of each token of `Encoded.flat`, or NOWHERE.
        count_N: number of spans of each question, including spans that truncation removes.
    """

    questions: Sequence[Example]
    data: Encoded
    piece_T: Ints
    count_N: Ints

    def batch(self, examples: Ints, device: torch.device) -> tuple[Batch, Tensor]:
        """Return the given questions as tensors, and the span of each of their tokens, (rows, L)."""
        as_tokens = replace(self.data, flat=self.piece_T, pad_id=NOWHERE, types=None, candidates_NC=None)
        batch = {name: tensor.to(device) for name, tensor in self.data.batch(examples).items()}
        return batch, as_tokens.batch(examples)["input_ids"].to(device)


def read(head: Head, questions: Sequence[Example]) -> EncodedQuestions:
    """Encode the questions with `head`, and find the span of each token."""
    data, cuts = head.encode(questions), [spans.spans_of(question) for question in questions]
    piece_T = np.concatenate([*_pieces(head, questions, cuts), np.empty(0, dtype=np.int64)])
    assert len(piece_T) == len(data.flat)
    return EncodedQuestions(questions, data, piece_T, np.array([len(cut) for cut in cuts], dtype=np.int64))


def _pieces(head: Head, questions: Sequence[Example], cuts: Sequence[Sequence[spans.Span]]) -> Iterator[Ints]:
    """Yield the span of each token, row by row."""
    reader = head.reader
    head.reader = OffsetReader(reader)
    try:
        for question, cut in zip(questions, cuts, strict=True):
            places = head.encode([question])
            for row, numbers in enumerate(_texts(head, question)):
                place_L = places.flat[places.offsets_R[row] :][: places.lengths_R[row]]
                yield _piece_of_character(question, numbers, cut)[place_L]
    finally:
        head.reader = reader


def _texts(head: Head, question: Example) -> list[list[int]]:
    """Return the indices of the texts (segments, then candidates) in each token row of a question."""
    segments = list(range(len(question.segments)))
    if isinstance(head, LMChoice):
        return [segments]
    candidates = [len(segments) + number for number in range(len(question.candidates))]
    return [[*segments, candidate] for candidate in candidates] if isinstance(head, Reward) else [segments + candidates]


def _piece_of_character(question: Example, numbers: Sequence[int], cut: Sequence[spans.Span]) -> Ints:
    """Return the span of each character of a row's joined texts; the last entry, and so index -1 (NOWHERE), is NOWHERE."""
    texts = question.segments + question.candidates
    lengths = [len(texts[number]) + len(SEPARATOR) for number in numbers]
    starts = dict(zip(numbers, np.cumsum([0, *lengths]), strict=False))
    found = np.full(sum(lengths), NOWHERE, dtype=np.int64)
    for number, piece in enumerate(cut):
        if piece.text in starts:
            found[starts[piece.text] + piece.start : starts[piece.text] + piece.end] = number
    return found


class OffsetReader(Reader):
    """Reader that returns, for each token, the offset of its last character in the row's joined texts; NOWHERE if special."""

    def __init__(self, reader: Reader) -> None:
        """Copy the settings of `reader`, so that both produce the same token rows."""
        self.__dict__ |= vars(reader)
        self._reader = reader
        self.single, self.pair = _unmarked(reader.single), reader.pair and _unmarked(reader.pair)
        self.typed = False
        self._row = ""

    def continuation(self, word: str) -> list[int]:
        """Return the tokens of `word`, not their offsets."""
        return self._reader.continuation(word)

    def _key(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> str:
        return f"places-{super()._key(rows, keep_end, closed)}"

    def _read(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> dict[str, Ints]:
        found = []
        for row in rows:
            self._row = SEPARATOR.join(row)
            found.append(super()._read([row], keep_end, closed))
        return {name: np.concatenate([part[name] for part in found]) for name in ("flat", "lengths")}

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the offset of each token of one or two texts in the row; the first starts the row and the last ends it."""
        before = self.backend.encode_special_tokens
        self.backend.encode_special_tokens = True  # encode special tokens in texts as plain text, as Reader does
        try:
            encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        finally:
            self.backend.encode_special_tokens = before
        starts = (0, len(self._row) - len(texts[-1]))
        return [
            [start + max(first, last - 1) for first, last in found.offsets]
            for start, found in zip(starts, encoded, strict=False)
        ]


def _unmarked(template: Template) -> Template:
    return replace(template, special_ids=tuple((NOWHERE,) * len(ids) for ids in template.special_ids))
