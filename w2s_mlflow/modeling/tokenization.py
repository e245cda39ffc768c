"""Tokenization: rows of one or two texts, truncated to what a model can read, tokenised once and cached on disk.

The tokenizer's template places the special tokens. Two texts stay a pair if the template separates them (BERT:
`[CLS] A [SEP] B [SEP]`); otherwise they are joined by a newline (GPT-2, Llama). Text that looks like a special token is
treated as text. Shape legend: N examples, R token rows (2N for head `reward`, else N), L tokens.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.local import arrays as local_arrays
from w2s_mlflow.records import Floats, Ints

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Batch = dict[str, Tensor]
Texts = tuple[str, ...]
"""The one or two texts of a token row."""
SEPARATOR = "\n"
"""Separator between joined texts."""
NOT_ASKED = -1
"""Value in `Encoded.asked` for tokens that are not prediction targets."""
UNLIMITED = 10**9
"""Threshold above which a tokenizer's limit means "no limit" (tokenizers without one report 1e30)."""
KEPT = 200_000
"""Number of characters from which token rows are cached on disk; tokenising fewer takes under a second (benchmarks/LOG.md)."""


# --- token rows -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples in ragged form: all token rows concatenated, so that batches are gathered without Python loops."""

    flat: Ints
    """The tokens of all R rows, (sum of lengths,)."""
    offsets_R: Ints
    lengths_R: Ints
    rows_per_example: int
    pad_id: int
    types: Ints | None = None
    """Token type of each token, 1 in the second text of a pair, (sum of lengths,); None for a model without types."""
    candidates_NC: Ints | None = None
    """Head `lm_choice`: token of each candidate answer."""
    scored_from_R: Ints | None = None
    """Next-token prediction: index of the first scored token of each row."""
    asked: Ints | None = None
    """Masked language modelling: original token at each position to predict, else NOT_ASKED, (sum of lengths,)."""
    pooled_RD: Floats | None = None
    """Heads `classification` and `reward`: a frozen backbone's pooled vector of each row."""

    def __len__(self) -> int:
        return len(self.lengths_R) // self.rows_per_example

    def lengths_N(self, examples: Ints | None = None) -> Ints:
        """Return the length of each example's longest token row, (N,), by which batches are sorted; default: all examples."""
        lengths_NK = self.lengths_R.reshape(-1, self.rows_per_example)
        longest_N: Ints = (lengths_NK if examples is None else lengths_NK[examples]).max(axis=1)
        return longest_N

    def tokens(self, examples: Ints) -> int:
        """Return the number of tokens in the given examples."""
        return int(self.lengths_R.reshape(-1, self.rows_per_example)[examples].sum())

    def batch(self, examples: Ints) -> Batch:
        """Return the examples as tensors, right-padded to the longest of them: input_ids_RL, attention_mask_RL and others."""
        k = self.rows_per_example
        rows = (examples[:, None] * k + np.arange(k)).reshape(-1)
        columns = np.arange(int(self.lengths_R[rows].max()))
        mask_RL = columns < self.lengths_R[rows, None]
        where_RL = np.minimum(self.offsets_R[rows, None] + columns, len(self.flat) - 1)
        input_ids_RL = np.where(mask_RL, self.flat[where_RL], self.pad_id)
        batch = {"input_ids": torch.from_numpy(input_ids_RL), "attention_mask": torch.from_numpy(mask_RL.astype(np.int64))}
        if self.types is not None:
            batch["token_type_ids"] = torch.from_numpy(np.where(mask_RL, self.types[where_RL], 0))
        if self.candidates_NC is not None:
            batch["candidates"] = torch.from_numpy(self.candidates_NC[examples])
        if self.scored_from_R is not None:
            batch["scored_from"] = torch.from_numpy(self.scored_from_R[rows])
        if self.asked is not None:
            batch["asked"] = torch.from_numpy(np.where(mask_RL, self.asked[where_RL], NOT_ASKED))
        if self.pooled_RD is not None:
            batch["pooled"] = torch.from_numpy(self.pooled_RD[rows])
        return batch


def packed(data: Encoded, length: int) -> Encoded:
    """Repack the tokens into rows of at most `length`, whose lengths differ by at most one; texts run on across rows."""
    tokens = len(data.flat)
    ends_R = np.linspace(0, tokens, -(-tokens // length) + 1).round().astype(np.int64)
    return Encoded(data.flat, ends_R[:-1], np.diff(ends_R), 1, data.pad_id)


def _flat(rows: Sequence[Sequence[int]]) -> Ints:
    return np.fromiter((token for row in rows for token in row), dtype=np.int64)


def _starts(lengths_R: Ints) -> Ints:
    starts_R: Ints = np.cumsum(lengths_R) - lengths_R
    return starts_R


# --- special tokens and length limits ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """Special tokens that a tokenizer adds before, between and after one or two texts, with their token types."""

    marks: tuple[tuple[int, ...], ...]
    mark_types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]

    def size(self, closed: bool = True) -> int:
        """Return the number of special tokens; a row that is not `closed` has none after its last text."""
        return sum(map(len, self.marks if closed else self.marks[:-1]))

    def row(self, texts: Sequence[Sequence[int]], closed: bool = True) -> list[int]:
        """Return the tokens of the texts with the special tokens around them."""
        return _alternating(self.marks, texts, closed)

    def types(self, texts: Sequence[Sequence[int]], closed: bool = True) -> list[int]:
        """Return the token types of `row(texts)`."""
        of_texts = [[type_] * len(text) for type_, text in zip(self.text_types, texts, strict=True)]
        return _alternating(self.mark_types, of_texts, closed)


def _alternating(marks: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], closed: bool) -> list[int]:
    """Interleave special tokens and texts, starting with special tokens; if `closed`, also end with special tokens."""
    found = list(marks[0])
    for text, mark in zip(texts, (*marks[1:-1], marks[-1] if closed else ()), strict=True):
        found += text
        found += mark
    return found


def _template(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer, texts: int) -> Template:
    """Derive the template by encoding `texts` texts, each a single special token, which every vocabulary contains."""
    marks: list[list[tuple[int, int]]] = [[] for _ in range(texts + 1)]
    types = [0] * texts
    if words := tokenizer.all_special_tokens:
        text = backend.encode(words[0], add_special_tokens=False)
        found = backend.post_process(text, text if texts == 2 else None)
        seen = 0
        for id_, type_, special in zip(found.ids, found.type_ids, found.special_tokens_mask, strict=True):
            if special:
                marks[seen].append((id_, type_))
            else:
                types[seen] = type_
                seen += 1
    ids_, types_ = (tuple(tuple(pair[part] for pair in mark) for mark in marks) for part in (0, 1))
    return Template(ids_, types_, tuple(types))


def limit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int | None:
    """Return the maximum tokens per row, special ones included, or None for no limit.

    It is the lower of the tokenizer's limit and the model's number of positions. RoBERTa and similar models start counting
    positions after the padding index, so fewer are usable.
    """
    found = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or UNLIMITED]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None and "position" in name:
            found.append(module.num_embeddings - module.padding_idx - 1)
    tokens = min(int(tokens) for tokens in found if tokens > 0)
    return tokens if tokens < UNLIMITED else None


def truncate(lengths: Sequence[int], room: int, *, keep_end: bool) -> list[slice]:
    """Return the slice of each text to keep, so that the row fits into `room` tokens.

    With `keep_end` the row is truncated at its beginning: the second of two texts stays complete if it fits. Otherwise texts
    are truncated at their end, the longer one first, so that part of both remains.
    """
    if sum(lengths) <= room:
        return [slice(None)] * len(lengths)
    *first, last = lengths
    if keep_end:
        kept = [max(0, room - last)] * len(first) + [min(last, room)]
        return [slice(length - tokens, length) for length, tokens in zip(lengths, kept, strict=True)]
    kept = [min(length, max(room - last, room - room // 2)) for length in first]
    return [slice(0, tokens) for tokens in (*kept, room - sum(kept))]


# --- tokenising -------------------------------------------------------------------------------------------------------


class Reader:
    """A tokenizer set up for one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int | None = None) -> None:
        """Set up `tokenizer` for `model`.

        Args:
            max_length: maximum tokens per row; None: as many as the model can read.

        Raises:
            ConfigError: `max_length` exceeds what the model can read or leaves room for fewer than two tokens of text, or the
                tokenizer is not a fast one.
        """
        backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(f"the model's tokenizer must be one of the tokenizers library, got {type(tokenizer).__name__}")
        backend.no_truncation()  # ignore the truncation and padding settings of tokenizer.json
        backend.no_padding()
        self.backend = backend
        self.one, pair = (_template(tokenizer, backend, texts) for texts in (1, 2))
        self.two = pair if tokenizer.sep_token_id in pair.marks[1] else None
        types = "token_type_ids" in tokenizer.model_input_names and getattr(model.config, "type_vocab_size", 0) > 1
        self.typed = self.two is not None and types
        ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self.pad_id = next(id_ for id_ in ids if isinstance(id_, int))
        self.limit = self._limit(limit(tokenizer, model), max_length)

    def _limit(self, readable: int | None, max_length: int | None) -> int | None:
        least = (self.two or self.one).size() + 2
        if max_length is not None and not least <= max_length <= (readable or max_length):
            most = f"at least {least}" if readable is None else f"in [{least}, {readable}]"
            raise must("max_length", f"{most}, what this model can read", max_length)
        return max_length or readable

    def read(self, rows: Sequence[Texts], *, rows_per_example: int = 1, keep_end: bool = False, closed: bool = True) -> Encoded:
        """Tokenise rows of one or two texts each.

        Args:
            keep_end: truncate a long row at its beginning, instead of at the end of its longer text.
            closed: whether special tokens follow the last text.

        Raises:
            ConfigError: a row has no tokens.
        """
        make = functools.partial(self._read, rows, keep_end, closed)
        large = sum(len(text) for row in rows for text in row) >= KEPT
        arrays = local_arrays.arrays(self._key(rows, keep_end, closed), make) if large else make()
        lengths_R = arrays["lengths"]
        return Encoded(arrays["flat"], _starts(lengths_R), lengths_R, rows_per_example, self.pad_id, arrays.get("types"))

    def continuation(self, word: str) -> list[int]:
        """Return the tokens of `word` as this tokenizer encodes it after another word and a space."""
        before, both = self._tokens(["a", f"a {word}"])
        return both[len(before) :]

    def _read(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> dict[str, Ints]:
        texts_R = self._pairs(rows) if self.two else self._joined(rows, self._room(self.one, closed))
        if not all(any(map(str.strip, row)) and any(texts) for row, texts in zip(rows, texts_R, strict=True)):
            raise ConfigError(f"a text of {len(rows)} has no tokens: every example must hold at least one word")
        ids: list[list[int]] = []
        types: list[list[int]] = []
        for texts in texts_R:
            template = self.two if self.two and len(texts) == 2 else self.one
            where = truncate([len(text) for text in texts], self._room(template, closed), keep_end=keep_end)
            left = [text[part] for text, part in zip(texts, where, strict=True)]
            left = left if self.two else [list(itertools.chain.from_iterable(left))]
            ids.append(template.row(left, closed))
            types.append(template.types(left, closed) if self.typed else [])
        found = {"flat": _flat(ids), "lengths": np.array([len(row) for row in ids], dtype=np.int64)}
        return found | ({"types": _flat(types)} if self.typed else {})

    def _room(self, template: Template, closed: bool) -> int:
        """Return the number of tokens left for text."""
        return (self.limit or UNLIMITED) - template.size(closed)

    def _pairs(self, rows: Sequence[Texts]) -> list[list[list[int]]]:
        tokens = iter(self._tokens([text for row in rows for text in row]))
        return [[next(tokens) for _ in row] for row in rows]

    def _joined(self, rows: Sequence[Texts], room: int) -> list[list[list[int]]]:
        """Tokenise each row as one joined text; a pair longer than `room` stays two texts, the second led by the separator."""
        found = [[tokens] for tokens in self._tokens([SEPARATOR.join(row) for row in rows])]
        for index, row in enumerate(rows):
            if len(row) == 2 and len(found[index][0]) > room:
                found[index] = self._tokens([row[0], SEPARATOR + row[1]])
        return found

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, without adding special tokens."""
        before = self.backend.encode_special_tokens
        self.backend.encode_special_tokens = True  # treat special tokens in the text as text
        try:
            return [found.ids for found in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            raise ConfigError("a text must be Unicode, got one that holds half a character (a lone surrogate)") from None
        finally:
            self.backend.encode_special_tokens = before

    def _key(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> str:
        """Return the cache key: sha256 of the tokenizer, its library's version, this file, the options and the texts."""
        how = (version("tokenizers"), self.limit, keep_end, closed, self.typed, self.two, self.one)
        content = hashlib.sha256(Path(__file__).read_bytes())
        for part in (repr(how), self.backend.to_str(), json.dumps(rows)):
            content.update(f"{len(part)} {part}".encode())
        return content.hexdigest()
