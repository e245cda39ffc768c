"""Functions that convert source rows to a task's rows: they parse rows, form groups, choose by hash and count skipped rows."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from w2s_mlflow.records import NO_LABEL, Example, Row, Rows

Source = Mapping[str, Any]
"""One row of a source: a mapping from column to value."""
HELDOUT_SHARE = 5
"""If a source has no held-out part, one in HELDOUT_SHARE groups, chosen by hash, is held out."""


class SkippedRow(Exception):  # noqa: N818 - the name does not end in Error, because a skipped row is only counted
    """Raised if a source row cannot become an example. The message states the reason. Skipped rows are counted by reason."""


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A source row that a task's `Reader` has parsed. `assemble` turns it into a `Row`."""

    id: str
    segments: tuple[str, ...]
    label: int
    """Index of the row's class, or NO_LABEL if the row has no label."""
    groups: tuple[str, ...] = ()
    """Group keys (see `same`): rows that share a key or have equal texts form one group."""
    candidates: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further values from the source row. They are used only for analysis."""


Reader = Callable[[Source, str], ParsedRow]
"""Function that parses a source row. Its arguments are the row and the row's part, `train` or `heldout`.

The function raises SkippedRow if the row cannot be used. If ids are unique only within a part, it prefixes them with the part.
"""


def same(kind: str, *texts: object) -> str:
    """Return a group key for texts of one kind, as in `same("premise", row["premise"])`.

    Texts whose normalised forms are equal have the same key.
    """
    return digest(kind, *(normalised(str(text)) for text in texts))


def normalised(text: str) -> str:
    """Return the text with case folded, white space collapsed and Unicode normalised (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(*texts: str) -> str:
    """Return the first 16 hex digits of the sha256 of one or more texts. They serve as the id of a row that has none."""
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:16]


def of_class(classes: Mapping[Any, int], label: object) -> int:
    """Return the class index to which `classes` maps a source's label. Raises SkippedRow if the label is not in `classes`."""
    if label not in classes:
        raise SkippedRow("has an invalid label")
    return classes[label]


def draw(purpose: str, id_: str, count: int) -> int:
    """Return a pseudo-random integer in [0, count) that depends only on the purpose and the id."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\x1f{id_}".encode()).digest()[:8]) % count


def ordered(id_: str, *pair: str) -> tuple[str, ...]:
    """Return two texts in a pseudo-random order. It depends only on the id and the texts, not on which text is given first."""
    return tuple(sorted(pair, reverse=draw("order", id_, 2) == 1))


def assemble(read: Reader, train: Iterable[Source], heldout: Iterable[Source] | None) -> Rows:
    """Parse source rows and return the task's rows, with counts of the skipped rows by reason.

    If several rows of a part have the same id, one is kept if all have the same label and texts; otherwise none is kept.

    Args:
        read: function that parses a source row.
        train: the source's training part.
        heldout: the source's labelled held-out part. If it is None, one in HELDOUT_SHARE groups of `train`, chosen by
            hash, is held out.
    """
    skipped: Counter[str] = Counter()
    parts = {"train": _drafts(read, train, "train", skipped)}
    if heldout is not None:
        parts["heldout"] = _drafts(read, heldout, "heldout", skipped)
    drafts = [draft for part in parts.values() for draft in part]
    rows = [
        Row(Example(draft.id, group, draft.segments, draft.candidates), draft.label, draft.about)
        for draft, group in zip(drafts, groups_of(drafts), strict=True)
    ]
    if heldout is None:
        is_heldout_N = [draw("heldout", row.example.group, HELDOUT_SHARE) == 0 for row in rows]
    else:
        is_heldout_N = [number >= len(parts["train"]) for number in range(len(rows))]
    train_rows = tuple(row for row, is_heldout in zip(rows, is_heldout_N, strict=True) if not is_heldout)
    heldout_rows = tuple(row for row, is_heldout in zip(rows, is_heldout_N, strict=True) if is_heldout)
    return Rows(train_rows, heldout_rows, dict(skipped))


def without_large_groups(rows: Rows, largest: int) -> Rows:
    """Remove all rows of groups of more than `largest` rows, because such a group would not fit into a test split.

    Groups become this large if many rows are linked by shared texts.
    """
    sizes = Counter(row.example.group for row in (*rows.train, *rows.heldout))
    train, heldout = (tuple(row for row in part if sizes[row.example.group] <= largest) for part in (rows.train, rows.heldout))
    removed = len(rows.train) + len(rows.heldout) - len(train) - len(heldout)
    skipped = {f"is in a group of more than {largest} rows": removed} if removed else {}
    return Rows(train, heldout, {**rows.skipped, **skipped})


def _drafts(read: Reader, source: Iterable[Source], part: str, skipped: Counter[str]) -> list[ParsedRow]:
    draft_by_id: dict[str, ParsedRow] = {}
    conflicting = set()
    for row in source:
        try:
            draft = read(row, part)
            _check(draft)
        except SkippedRow as reason:
            skipped[str(reason)] += 1
            continue
        earlier = draft_by_id.setdefault(draft.id, draft)
        if earlier is not draft:
            skipped["is a duplicate"] += 1
            if _comparison_key(earlier) != _comparison_key(draft):
                conflicting.add(draft.id)
    skipped["has conflicting duplicates"] += len(conflicting)
    skipped += Counter()  # adding an empty Counter removes reasons whose count is zero
    return [draft for id_, draft in draft_by_id.items() if id_ not in conflicting]


def _comparison_key(draft: ParsedRow) -> tuple[object, ...]:
    """Return the label and the texts of a row. Rows with the same id must agree in both.

    The label alone would not reveal every conflict. In multiple choice, the label depends only on the id, so two rows that
    disagree about the right option have the same label and differ only in their texts.
    """
    return draft.label, draft.segments, draft.candidates


def _check(draft: ParsedRow) -> None:
    if not all(text and text.strip() for text in draft.segments + draft.candidates):
        raise SkippedRow("has an empty text")
    if draft.label < NO_LABEL:
        raise SkippedRow("has an invalid label")


def groups_of(drafts: Sequence[ParsedRow]) -> list[str]:
    """Return the name of each parsed row's group. Rows linked by shared keys or equal texts, even indirectly, form one group.

    The name of a group is the smallest of its keys.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names_of = [(*draft.groups, same("text", *draft.segments, *draft.candidates)) for draft in drafts]
    numbers: dict[str, int] = {}
    for names in names_of:
        for name in names:
            numbers.setdefault(name, len(numbers))
    rows = np.repeat(np.arange(len(drafts)), [len(names) for names in names_of])
    columns = np.array([numbers[name] for names in names_of for name in names], dtype=np.int64)
    size = len(drafts) + len(numbers)
    links = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, len(drafts) + columns)), shape=(size, size))
    component = connected_components(links, directed=False)[1].tolist()
    smallest: dict[int, str] = {}
    for name, number in numbers.items():
        of = component[len(drafts) + number]
        smallest[of] = min(name, smallest.get(of, name))
    return [smallest[component[row]] for row in range(len(drafts))]
