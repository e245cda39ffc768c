"""Map each token of a question to the evidence span that contains the token, for every head and tokenizer template."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from w2s_mlflow.data import spans
from w2s_mlflow.modeling.heads import Head, LMChoice, Reward
from w2s_mlflow.modeling.token_rows import Batch, Encoded
from w2s_mlflow.modeling.tokenization import SEPARATOR, Reader, Template, Texts
from w2s_mlflow.records import Example, Ints

NOWHERE = -1
"""Span index of a token that belongs to no span."""


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions encoded for one model, with the span of each token.

    Attributes:
        span_T: index of the span that contains each token of `Encoded.flat`, or NOWHERE.
        count_N: number of spans of each question, including spans that truncation removes.
    """

    questions: Sequence[Example]
    data: Encoded
    span_T: Ints
    count_N: Ints

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (N, P): the number of questions, and the largest number of spans in any of them (at least 1)."""
        return len(self.questions), int(self.count_N.max(initial=1))

    def example_T(self) -> Ints:
        """Return the index of the question that each token of `Encoded.flat` belongs to, (T,)."""
        rows = self.data.rows_per_example
        return np.repeat(np.arange(len(self.data.lengths_R)) // rows, self.data.lengths_R)

    def batch(self, examples: Ints, device: torch.device) -> tuple[Batch, Tensor]:
        """Return a batch of the questions with the indices `examples`, and the span of each token in the batch, (R, L)."""
        as_tokens = replace(self.data, flat=self.span_T, pad_id=NOWHERE, types=None, candidates_NC=None)
        batch = {name: tensor.to(device) for name, tensor in self.data.batch(examples).items()}
        return batch, as_tokens.batch(examples)["input_ids"].to(device)


def read(head: Head, questions: Sequence[Example]) -> EncodedQuestions:
    """Encode the questions with `head`, and find the span of each token."""
    data, all_spans = head.encode(questions), [spans.spans_of(question) for question in questions]
    span_T = np.concatenate([*_span_rows(head, questions, all_spans), np.empty(0, dtype=np.int64)])
    assert len(span_T) == len(data.flat)
    return EncodedQuestions(questions, data, span_T, np.array([len(own_spans) for own_spans in all_spans], dtype=np.int64))


def _span_rows(head: Head, questions: Sequence[Example], all_spans: Sequence[Sequence[spans.Span]]) -> Iterator[Ints]:
    """Yield the span of each token, one array per token row of the questions."""
    reader = head.reader
    head.reader = OffsetReader(reader)
    try:
        for question, own_spans in zip(questions, all_spans, strict=True):
            offsets = head.encode([question])
            for row, numbers in enumerate(_texts(head, question)):
                offset_L = offsets.flat[offsets.offsets_R[row] :][: offsets.lengths_R[row]]
                yield _span_of_character(question, numbers, own_spans)[offset_L]
    finally:
        head.reader = reader


def _texts(head: Head, question: Example) -> list[list[int]]:
    """Return which texts each token row of a question contains, as indices into its segments followed by its candidates."""
    segments = list(range(len(question.segments)))
    if isinstance(head, LMChoice):
        return [segments]
    candidates = [len(segments) + number for number in range(len(question.candidates))]
    return [[*segments, candidate] for candidate in candidates] if isinstance(head, Reward) else [segments + candidates]


def _span_of_character(question: Example, numbers: Sequence[int], own_spans: Sequence[spans.Span]) -> Ints:
    """Return the span of each character of a row's joined texts. The extra last entry, for the offset -1, is NOWHERE."""
    texts = question.segments + question.candidates
    lengths = [len(texts[number]) + len(SEPARATOR) for number in numbers]
    starts = dict(zip(numbers, np.cumsum([0, *lengths]), strict=False))
    span_of_character = np.full(sum(lengths), NOWHERE, dtype=np.int64)
    for number, span in enumerate(own_spans):
        if span.text in starts:
            span_of_character[starts[span.text] + span.start : starts[span.text] + span.end] = number
    return span_of_character


class OffsetReader(Reader):
    """Reader that encodes each token as the offset of its last character in the row's joined texts.

    Special tokens are encoded as NOWHERE.
    """

    def __init__(self, reader: Reader) -> None:
        """Copy the settings of `reader`, so that both produce the same token rows."""
        self.__dict__ |= vars(reader)
        self._reader = reader
        self.tokens = sys.maxsize  # offsets are not looked up in the embedding table
        self.single, self.pair = _unmarked(reader.single), reader.pair and _unmarked(reader.pair)
        self.typed = False
        self._row = ""

    def continuation(self, word: str) -> list[int]:
        """Return the tokens of `word`, not their offsets."""
        return self._reader.continuation(word)

    def _key(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> str:
        return f"offsets-{super()._key(rows, keep_end, closed)}"

    def _read(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> dict[str, Ints]:
        encoded = []
        for row in rows:
            self._row = SEPARATOR.join(row)
            encoded.append(super()._read([row], keep_end, closed))
        return {name: np.concatenate([part[name] for part in encoded]) for name in ("flat", "lengths")}

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the offset in the row of each token of one or two texts. The first text starts the row; the last ends it."""
        before = self.backend.encode_special_tokens
        self.backend.encode_special_tokens = True  # like Reader, treat special tokens that occur in a text as plain text
        try:
            encoded = self.backend.encode_batch(list(texts), add_special_tokens=False)
        finally:
            self.backend.encode_special_tokens = before
        starts = (0, len(self._row) - len(texts[-1]))
        return [
            [start + max(first, last - 1) for first, last in text.offsets] for start, text in zip(starts, encoded, strict=False)
        ]


def _unmarked(template: Template) -> Template:
    return replace(template, special_ids=tuple((NOWHERE,) * len(ids) for ids in template.special_ids))
