"""Tokenise rows of one or two texts, truncate them to the length that a model can read, and cache them on disk.

The tokenizer's template determines the places of special tokens. Two texts stay a pair if the template separates them (BERT:
`[CLS] A [SEP] B [SEP]`); otherwise they are joined by a newline (GPT-2, Llama). Text that looks like a special token is
encoded as ordinary text. Shape legend: N examples, R token rows (R is 2N for the head `reward` and N for all others), L
tokens of a row.
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
from torch import nn

from w2s_mlflow.exceptions import ConfigError, ModelError, must
from w2s_mlflow.local import arrays as local_arrays
from w2s_mlflow.modeling.token_rows import Encoded
from w2s_mlflow.records import Ints

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Texts = tuple[str, ...]
"""The one or two texts of a token row."""
SEPARATOR = "\n"
"""Separator between texts that are joined into one."""
UNLIMITED = 10**9
"""A tokenizer whose length limit is at least this many tokens counts as unlimited. Tokenizers without a limit report 1e30."""
CACHE_MIN_CHARACTERS = 200_000
"""Token rows are cached on disk only if their texts have at least this many characters together, because tokenising less
text takes less than a second (benchmarks/LOG.md)."""


# --- special tokens and length limits ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """Special tokens (ids and types) that a tokenizer adds before, between and after one or two texts."""

    special_ids: tuple[tuple[int, ...], ...]
    special_types: tuple[tuple[int, ...], ...]
    text_types: tuple[int, ...]

    def size(self, closed: bool = True) -> int:
        """Return the number of special tokens in a row. If `closed` is false, there are none after the last text."""
        return sum(map(len, self.special_ids if closed else self.special_ids[:-1]))

    def row(self, texts: Sequence[Sequence[int]], closed: bool = True) -> list[int]:
        """Return the token row made of the given tokenised texts and the special tokens around them."""
        return _alternating(self.special_ids, texts, closed)

    def types(self, texts: Sequence[Sequence[int]], closed: bool = True) -> list[int]:
        """Return the token types of the row that the method `row` returns for the same arguments."""
        of_texts = [[type_] * len(text) for type_, text in zip(self.text_types, texts, strict=True)]
        return _alternating(self.special_types, of_texts, closed)


def _alternating(specials: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], closed: bool) -> list[int]:
    """Interleave special tokens and texts. The row starts with special tokens and, if `closed`, also ends with them."""
    row = list(specials[0])
    for text, special in zip(texts, (*specials[1:-1], specials[-1] if closed else ()), strict=True):
        row += text
        row += special
    return row


def _template(tokenizer: PreTrainedTokenizerBase, backend: Tokenizer, texts: int) -> Template:
    """Return the tokenizer's template for rows with `texts` texts, which must be 1 or 2.

    The template is read from the encoding of a row in which each text is a single special token: such a token is in every
    vocabulary.
    """
    specials: list[list[tuple[int, int]]] = [[] for _ in range(texts + 1)]
    types = [0] * texts
    if words := tokenizer.all_special_tokens:
        text = backend.encode(words[0], add_special_tokens=False)
        encoded = backend.post_process(text, text if texts == 2 else None)
        text_index = 0
        for id_, type_, special in zip(encoded.ids, encoded.type_ids, encoded.special_tokens_mask, strict=True):
            if special:
                specials[text_index].append((id_, type_))
            else:
                types[text_index] = type_
                text_index += 1
    ids_, types_ = (tuple(tuple(pair[part] for pair in tokens) for tokens in specials) for part in (0, 1))
    return Template(ids_, types_, tuple(types))


def limit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int | None:
    """Return the maximum number of tokens per row, including special tokens, or None if there is no limit.

    It is the lower of the tokenizer's limit and the model's number of positions. RoBERTa and similar models start counting
    positions after the padding index, so fewer positions are usable.
    """
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None) or UNLIMITED]
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and module.padding_idx is not None and "position" in name:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    tokens = min(int(tokens) for tokens in limits if tokens > 0)
    return tokens if tokens < UNLIMITED else None


def table_size(model: PreTrainedModel) -> int:
    """Return the number of token ids that the model can read: the rows of its table of token embeddings."""
    weight: Tensor | None = getattr(model.get_input_embeddings(), "weight", None)
    return int(model.config.vocab_size) if weight is None else len(weight)


def truncate(lengths: Sequence[int], room: int, *, keep_end: bool) -> list[slice]:
    """Return one slice per text of a row: the part to keep, so that the row has at most `room` tokens of text.

    If `keep_end` is true, the row is truncated at its beginning, and the second of two texts stays complete if it fits.
    Otherwise texts are truncated at their end, the longer one first, so that part of both remains.
    """
    if sum(lengths) <= room:
        return [slice(None)] * len(lengths)
    *first, last = lengths
    if keep_end:
        lengths_to_keep = [max(0, room - last)] * len(first) + [min(last, room)]
        return [slice(length - tokens, length) for length, tokens in zip(lengths, lengths_to_keep, strict=True)]
    lengths_to_keep = [min(length, max(room - last, room - room // 2)) for length in first]
    return [slice(0, tokens) for tokens in (*lengths_to_keep, room - sum(lengths_to_keep))]


# --- tokenising -------------------------------------------------------------------------------------------------------


class Reader:
    """A tokenizer together with the template, the length limit and the padding token to use for one model."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int | None = None) -> None:
        """Set up `tokenizer` for `model`.

        Args:
            max_length: maximum number of tokens per row; None: as many as the model can read.

        Raises:
            ConfigError: `max_length` exceeds what the model can read or leaves room for fewer than two tokens of text, or the
                tokenizer is not a fast tokenizer of Hugging Face.
        """
        backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ConfigError(f"the model must have a fast tokenizer, got {type(tokenizer).__name__}")
        backend.no_truncation()  # ignore the truncation and padding settings of tokenizer.json
        backend.no_padding()
        self.backend = backend
        self.single, pair = (_template(tokenizer, backend, texts) for texts in (1, 2))
        self.pair = pair if tokenizer.sep_token_id in pair.special_ids[1] else None
        types = "token_type_ids" in tokenizer.model_input_names and getattr(model.config, "type_vocab_size", 0) > 1
        self.typed = self.pair is not None and types
        self.tokens = table_size(model)
        ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        # A pad token may have been added to the tokenizer only. Any token will do, because padding is masked.
        self.pad_id = next(id_ for id_ in ids if isinstance(id_, int) and id_ < self.tokens)
        self.limit = self._limit(limit(tokenizer, model), max_length)

    def _limit(self, readable: int | None, max_length: int | None) -> int | None:
        minimum = (self.pair or self.single).size() + 2
        if max_length is not None and not minimum <= max_length <= (readable or max_length):
            legal = f"at least {minimum}" if readable is None else f"in [{minimum}, {readable}]"
            raise must("max_length", f"{legal} for this model", max_length)
        return max_length or readable

    def read(self, rows: Sequence[Texts], *, rows_per_example: int = 1, keep_end: bool = False, closed: bool = True) -> Encoded:
        """Tokenise rows of one or two texts each.

        Args:
            keep_end: truncate a long row at its beginning, instead of at the end of its longer text.
            closed: whether special tokens follow the last text.

        Raises:
            ConfigError: a row has no tokens or is not valid Unicode.
            ModelError: a token of a row is not in the model's embedding table.
        """
        make = functools.partial(self._read, rows, keep_end, closed)
        large = sum(len(text) for row in rows for text in row) >= CACHE_MIN_CHARACTERS
        arrays = local_arrays.arrays(self._key(rows, keep_end, closed), make) if large else make()
        lengths_R = arrays["lengths"]
        self._check_known(arrays["flat"])
        return Encoded(arrays["flat"], _starts(lengths_R), lengths_R, rows_per_example, self.pad_id, arrays.get("types"))

    def continuation(self, word: str) -> list[int]:
        """Return the tokens of `word` as this tokenizer encodes it after another word and a space."""
        before, both = self._tokens(["a", f"a {word}"])
        self._check_known(np.array(both, dtype=np.int64))
        return both[len(before) :]

    def _check_known(self, ids: Ints) -> None:
        """Raise ModelError if the tokenizer has encoded a text with a token that the model's embedding table lacks."""
        if len(ids) and (largest := int(ids.max())) >= self.tokens:
            raise ModelError(
                f"the model's embedding table has {self.tokens} rows, but its tokenizer encodes a text with the token "
                f"{self.backend.id_to_token(largest)!r}, which has the id {largest}"
            )

    def _read(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> dict[str, Ints]:
        texts_R = self._pairs(rows) if self.pair else self._joined(rows, self._room(self.single, closed))
        if not all(any(map(str.strip, row)) and any(texts) for row, texts in zip(rows, texts_R, strict=True)):
            raise ConfigError(f"every example must have at least one word, but one of the {len(rows)} token rows has none")
        ids: list[list[int]] = []
        types: list[list[int]] = []
        for texts in texts_R:
            template = self.pair if self.pair and len(texts) == 2 else self.single
            slices = truncate([len(text) for text in texts], self._room(template, closed), keep_end=keep_end)
            truncated = [text[part] for text, part in zip(texts, slices, strict=True)]
            truncated = truncated if self.pair else [list(itertools.chain.from_iterable(truncated))]
            ids.append(template.row(truncated, closed))
            types.append(template.types(truncated, closed) if self.typed else [])
        arrays = {"flat": _flat(ids), "lengths": np.array([len(row) for row in ids], dtype=np.int64)}
        return arrays | ({"types": _flat(types)} if self.typed else {})

    def _room(self, template: Template, closed: bool) -> int:
        """Return the number of tokens available for text: the length limit minus the number of special tokens."""
        return (self.limit or UNLIMITED) - template.size(closed)

    def _pairs(self, rows: Sequence[Texts]) -> list[list[list[int]]]:
        tokens = iter(self._tokens([text for row in rows for text in row]))
        return [[next(tokens) for _ in row] for row in rows]

    def _joined(self, rows: Sequence[Texts], room: int) -> list[list[list[int]]]:
        """Tokenise each row as one text. If the row has two texts, join them with the separator.

        If two texts have more than `room` tokens together, they are tokenised separately, so that each can be truncated. In
        that case the second text starts with the separator.
        """
        texts_R = [[tokens] for tokens in self._tokens([SEPARATOR.join(row) for row in rows])]
        for index, row in enumerate(rows):
            if len(row) == 2 and len(texts_R[index][0]) > room:
                texts_R[index] = self._tokens([row[0], SEPARATOR + row[1]])
        return texts_R

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text. No special tokens are added."""
        before = self.backend.encode_special_tokens
        self.backend.encode_special_tokens = True  # encode text that looks like a special token as ordinary text
        try:
            return [encoding.ids for encoding in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        except TypeError:
            raise ConfigError("every text must be valid Unicode, but one contains a lone surrogate") from None
        finally:
            self.backend.encode_special_tokens = before

    def _key(self, rows: Sequence[Texts], keep_end: bool, closed: bool) -> str:
        """Return the key under which the token rows of these texts are cached.

        It is a sha256 of the texts, the options, the tokenizer, the version of the library tokenizers and this source file.
        """
        settings = (version("tokenizers"), self.limit, keep_end, closed, self.typed, self.pair, self.single)
        content = hashlib.sha256(Path(__file__).read_bytes())
        for part in (repr(settings), self.backend.to_str(), json.dumps(rows)):
            content.update(f"{len(part)} {part}".encode())
        return content.hexdigest()


def _flat(rows: Sequence[Sequence[int]]) -> Ints:
    return np.fromiter((token for row in rows for token in row), dtype=np.int64)


def _starts(lengths_R: Ints) -> Ints:
    starts_R: Ints = np.cumsum(lengths_R) - lengths_R
    return starts_R
