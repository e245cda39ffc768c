"""Functions that compare texts by their words: normalised words, word n-grams, near-duplicates and containment.

All comparisons are exact. Candidates are found through rare n-grams and then verified, so no pair is missed or invented, and no
random numbers are used.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from w2s_mlflow.records import Ints

SIMILAR = (4, 5)
"""Jaccard similarity of near-duplicates, as a fraction: two texts are near-duplicates if theirs is at least 4/5."""
SHINGLE = 3
"""Number of words of the n-grams whose Jaccard similarity is computed."""
RUN = 4
"""Minimum number of words of a contained text. Shorter texts, such as "a good film", occur in unrelated rows."""

Words = tuple[str, ...]
Texts = Sequence[Words]
"""The texts of one row, or the single text of one field."""

UNSPACED = re.compile(
    # Thai, Lao, Tibetan, Burmese, Khmer, Tai scripts, Balinese, Javanese
    "[\u0e01-\u0e5b\u0e81-\u0edf\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9fe"
    "\uaa60-\uaa7f"
    # Han, kana, Bopomofo, Yi
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3041-\u30fa\u30fc-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua000-\ua48c\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
"""A character of a script that is written without spaces between words."""
HALF = 0.5
"""Length of a character of UNSPACED, in words: it takes about two of them to say what a word of English says."""

_MARKUP = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
_APOSTROPHES = re.compile("['`\u2018\u2019\u02bc]")
_WORD = re.compile(r"[^\W_]+")
_WORD_OR_CHARACTER = re.compile(rf"{UNSPACED.pattern}|(?:(?!{UNSPACED.pattern})[^\W_])+")


@functools.lru_cache(maxsize=4096)  # rows about one passage follow each other
def words(text: str) -> Words:
    """Return the words of a text, without the differences that do not matter for the comparison of texts.

    Case, white space, punctuation, quotation marks, the width of characters (Unicode NFKC) and markup (tags and entities of
    HTML) are removed. A text without letters and digits is returned as one word. In scripts that are written without spaces
    (Chinese, Japanese, Thai, ...), each character is a word, because no space shows where words end.
    """
    plain = unicodedata.normalize("NFKC", _MARKUP.sub(" ", html.unescape(text))).casefold()
    units = _WORD_OR_CHARACTER if UNSPACED.search(plain) else _WORD  # the latter is faster
    return tuple(units.findall(_APOSTROPHES.sub("", plain))) or ("".join(text.split()),)


def length(text: Words) -> float:
    """Return the number of words of a text, in which a character of UNSPACED counts HALF."""
    return sum(HALF if UNSPACED.fullmatch(word) else 1 for word in text)


def is_readable(text: str) -> bool:
    """Return whether a text has a character that a tokenizer can read.

    Tokenizers such as BERT's remove white space, control and zero-width characters, the replacement character U+FFFD and,
    if they strip accents, marks that combine with the character before. A text of these alone has no tokens.
    """
    return any(
        unicodedata.category(character)[0] in "LNPS" or unicodedata.category(character) == "Mc"
        for character in text
        if character != "\ufffd"
    )


# --- near-duplicates --------------------------------------------------------------------------------------------------


def near_duplicates(items: Sequence[Texts], components: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of items whose word 3-grams have a Jaccard similarity of at least SIMILAR, as pairs of indices.

    The n-grams of an item are those of all its texts together, so the order of the texts does not matter. Items of the same
    component are known to belong together and are not compared.

    The join uses prefix filtering (Chaudhuri et al. 2006, Bayardo et al. 2007): if the n-grams of each item are sorted by
    frequency, two similar items share an n-gram among the rarest fifth of each.
    """
    grams = _distinct(_grams(items, SHINGLE))
    candidates = set(_candidates(_prefixes(grams), np.bincount(grams.items, minlength=len(items)).tolist(), components))
    sets: dict[int, frozenset[int]] = {}
    starts = np.searchsorted(grams.items, np.arange(len(items) + 1))
    for item in {item for pair in candidates for item in pair}:
        sets[item] = frozenset(grams.grams[starts[item] : starts[item + 1]].tolist())
    for first, second in sorted(candidates):
        common = len(sets[first] & sets[second])
        if SIMILAR[1] * common >= SIMILAR[0] * (len(sets[first]) + len(sets[second]) - common):
            yield first, second


class Grams(NamedTuple):
    """N-grams of items: entry n says that the item `items[n]` has the n-gram `grams[n]`, a number."""

    items: Ints
    grams: Ints


def _grams(items: Sequence[Texts], size: int) -> Grams:
    """Return the n-grams of `size` words of all texts. A shorter text is one n-gram."""
    texts = [(item, text) for item, texts in enumerate(items) for text in texts]
    numbers: dict[str, int] = {}
    lengths = np.array([max(len(text), size) for _, text in texts], dtype=np.int64)
    padded = np.zeros(int(lengths.sum()), dtype=np.int64)  # 0 fills short texts up
    starts = np.cumsum(lengths) - lengths
    for start, (_, text) in zip(starts.tolist(), texts, strict=True):
        padded[start : start + len(text)] = [numbers.setdefault(word, len(numbers) + 1) for word in text]
    counts = lengths - size + 1
    firsts = np.repeat(starts, counts) + _counters(counts)
    grams = np.unique(padded[firsts], return_inverse=True)[1] if len(firsts) else firsts
    for offset in range(1, size):
        grams = np.unique(grams * (len(numbers) + 1) + padded[firsts + offset], return_inverse=True)[1]
    return Grams(np.repeat(np.array([item for item, _ in texts], dtype=np.int64), counts), grams)


def _counters(counts: Ints) -> Ints:
    """Return 0, 1, ..., count - 1 for each of the counts, joined to one array."""
    counters: Ints = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return counters


def _distinct(grams: Grams) -> Grams:
    """Return each n-gram of an item once. The n-grams are sorted by item."""
    size = int(grams.grams.max(initial=0)) + 1
    pairs = np.sort(grams.items * size + grams.grams)  # np.unique would hash them, which takes many times as long
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    return Grams(pairs // size, pairs % size)


def _prefixes(grams: Grams) -> Grams:
    """Return the rarest n-grams of each item, as many as are needed to share one with every similar item.

    N-grams that only one item has are left out. The result is sorted by n-gram.
    """
    frequency = np.bincount(grams.grams)
    order = np.lexsort((grams.grams, frequency[grams.grams], grams.items))
    items, numbers = grams.items[order], grams.grams[order]
    sizes = np.bincount(items)
    lengths = sizes - (SIMILAR[0] * sizes + SIMILAR[1] - 1) // SIMILAR[1] + 1
    kept = (_counters(sizes[sizes > 0]) < lengths[items]) & (frequency[numbers] > 1)
    order = np.argsort(numbers[kept], kind="stable")
    return Grams(items[kept][order], numbers[kept][order])


def _candidates(prefixes: Grams, sizes: Sequence[int], components: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of items of different components that share an n-gram and whose sizes do not rule out similarity."""
    for items in _runs(prefixes):
        by_component: dict[int, list[int]] = {}
        for item in items:
            for component, others in by_component.items():
                if component == components[item]:
                    continue
                for other in others:
                    small, large = sorted((sizes[item], sizes[other]))
                    if SIMILAR[1] * small >= SIMILAR[0] * large:
                        yield other, item
            by_component.setdefault(components[item], []).append(item)


def _runs(grams: Grams) -> Iterator[list[int]]:
    """Yield the items of each n-gram that several items have. The n-grams must be sorted."""
    starts = np.flatnonzero(np.diff(grams.grams, prepend=-1, append=-1))
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if end - start > 1:
            yield grams.items[start:end].tolist()


# --- containment ------------------------------------------------------------------------------------------------------


def containments(items: Sequence[Texts], components: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the pairs (contained item, containing item) of different components, as pairs of indices.

    An item is contained in another if each of its texts is a run of words of a text of the other item, and at least one of its
    texts has RUN words or more (`length`).
    """
    grams = _grams([[text for text in texts if length(text) >= RUN] for texts in items], RUN)
    order = np.argsort(grams.grams, kind="stable")
    holders, starts = grams.items[order], np.searchsorted(grams.grams[order], np.arange(grams.grams.max(initial=-1) + 2))
    joined = [tuple(f" {' '.join(text)} " for text in texts) for texts in items]
    for item, anchor in _anchors(grams):
        for other in dict.fromkeys(holders[starts[anchor] : starts[anchor + 1]].tolist()):
            if components[other] != components[item] and _is_inside(joined[item], joined[other]):
                yield item, other


def _anchors(grams: Grams) -> Iterator[tuple[int, int]]:
    """Yield the rarest n-gram of each item. An item that contains this one has the n-gram, too."""
    order = np.lexsort((np.bincount(grams.grams)[grams.grams], grams.items)) if len(grams.items) else np.arange(0)
    items, firsts = np.unique(grams.items[order], return_index=True)
    yield from zip(items.tolist(), grams.grams[order][firsts].tolist(), strict=True)


def _is_inside(texts: Iterable[str], others: Sequence[str]) -> bool:
    return all(any(text in other for other in others) for text in texts)
