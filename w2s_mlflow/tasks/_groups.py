"""Groups of rows, which no split divides. Each task declares its grouping fields by the keys that its reader gives a row.

Rows form one group if they share a key, or if their texts are nearly equal (data/texts.py), directly or through other rows. A
key of `by_text` also joins rows whose values of this field are nearly equal; a key of `by_value` joins only equal values.

An empty value is no key. Neither is a value that many rows share by chance, such as SWAG's opening "He": one in more than
COMMON of the rows, unless it has LONG words or more. A long text, such as a passage, is the same in many rows because they are
about it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from w2s_mlflow.data import texts
from w2s_mlflow.records import Ints

COMMON = 0.01
"""Maximum share of the rows that have a value for this value to be a key."""
FEW = 10
"""A value that at most FEW rows have is always a key, because in a small table such a value may exceed COMMON."""
LONG = 20
"""Minimum number of words of a value that is a key whatever the number of its rows."""
ROW = "text"
"""Grouping field that all tasks have: the texts of the row, in any order."""
NEAR = "near-duplicates"
"""Name under which joins of nearly equal texts are counted."""

DraftTexts = tuple[Sequence["Key"], Sequence[str], Sequence[str] | None]
"""What the groups depend on: the keys of a row, its texts, and the texts by which it is compared (`ParsedRow.compared`)."""


@dataclass(frozen=True, slots=True)
class Key:
    """Value of a grouping field: rows with keys of the same name form one group.

    Attributes:
        kind: name of the field.
        texts: the value if it is text, for the comparison with other values of the same kind; otherwise empty.
        given: whether rows that share the key belong together however many they are.
    """

    name: str
    kind: str
    texts: tuple[str, ...] = ()
    given: bool = False


def by_text(**fields: str | None) -> tuple[Key, ...]:
    """Return the keys of fields that hold text, without those that are empty."""
    return tuple(_text_key(kind, (text,)) for kind, text in fields.items() if text and text.strip())


def by_value(**fields: object) -> tuple[Key, ...]:
    """Return the keys of fields of which only equal values join rows, such as a word or an id, without empty values."""
    values = {kind: "" if value is None else str(value) for kind, value in fields.items()}
    return tuple(Key(digest(kind, normalised(value)), kind) for kind, value in values.items() if value.strip())


def by_id(**fields: object) -> tuple[Key, ...]:
    """Return the keys of fields that say what a row is about, such as a game. They are keys however many rows have them."""
    return tuple(replace(key, given=True) for key in by_value(**fields))


def by_group(value: object) -> tuple[Key, ...]:
    """Return the key of a group that a user's file names. Its rows are never separated, however many they are."""
    return () if value is None or not str(value).strip() else (Key(str(value), "group", given=True),)


def _text_key(kind: str, values: tuple[str, ...], *, given: bool = False) -> Key:
    return Key(digest(kind, *sorted(normalised(value) for value in values)), kind, values, given)


def _row_key(row: DraftTexts) -> Key:
    _, all_texts, compared = row
    if compared is not None and not compared:
        return Key(digest(ROW, *map(normalised, all_texts)), ROW, given=True)
    return _text_key(ROW, tuple(compared or all_texts), given=True)


def normalised(text: str) -> str:
    """Return the text with case folded, white space collapsed and Unicode normalised (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(*values: str) -> str:
    """Return the first 16 hex digits of the sha256 of one or more texts. They serve as the id of a row that has none."""
    return hashlib.sha256("\x1f".join(values).encode()).hexdigest()[:16]


def grouped(rows: Sequence[DraftTexts]) -> tuple[list[str], dict[str, int]]:
    """Return the name of each row's group, and the counts of joins (`Rows.joined`).

    The name of a group is the smallest of the names of its keys.
    """
    keys_of = [[*row[0], _row_key(row)] for row in rows]
    counts = Counter(name for keys in keys_of for name in {key.name for key in keys})
    keys_of = [[key for key in keys if _is_key(key, counts[key.name], len(rows))] for keys in keys_of]
    keys = {key.name: key for keys in keys_of for key in keys}
    numbers = {name: number for number, name in enumerate(keys)}
    links = [(row, len(rows) + numbers[key.name]) for row, keys in enumerate(keys_of) for key in keys]
    components = _components(links, len(rows) + len(keys))
    similar = _similar_keys(list(keys.values()), components[len(rows) :].tolist())
    near = [(len(rows) + first, len(rows) + second) for first, second in similar]
    final = _components(links + near, len(rows) + len(keys)).tolist()
    smallest: dict[int, str] = {}
    for name, number in numbers.items():
        of = final[len(rows) + number]
        smallest[of] = min(name, smallest.get(of, name))
    joined = Counter(key.kind for keys in keys_of for key in keys if counts[key.name] > 1)
    joined[NEAR] = len(set(components.tolist())) - len(set(final))
    return [smallest[final[row]] for row in range(len(rows))], {kind: count for kind, count in joined.items() if count}


def _is_key(key: Key, count: int, rows: int) -> bool:
    if key.given or count <= max(FEW, COMMON * rows):
        return True
    return any(texts.length(texts.words(text)) >= LONG for text in key.texts)


def _similar_keys(keys: Sequence[Key], components: Sequence[int]) -> list[tuple[int, int]]:
    """Return the pairs of keys of the same field whose texts are nearly equal, as pairs of indices."""
    pairs = []
    for kind in dict.fromkeys(key.kind for key in keys if key.texts):
        of_kind = [number for number, key in enumerate(keys) if key.kind == kind and key.texts]
        items = [[texts.words(text) for text in keys[number].texts] for number in of_kind]
        found = texts.near_duplicates(items, [components[number] for number in of_kind])
        pairs += [(of_kind[first], of_kind[second]) for first, second in found]
    return pairs


def _components(links: Sequence[tuple[int, int]], size: int) -> Ints:
    """Return the number of the connected component of each of `size` nodes."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = np.array(links, dtype=np.int64).reshape(-1, 2)
    matrix = coo_matrix((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(size, size))
    numbers: Ints = connected_components(matrix, directed=False)[1].astype(np.int64)
    return numbers
