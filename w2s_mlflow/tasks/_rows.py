"""Functions that convert source rows to a task's rows: they parse and strip rows, choose by hash and count skipped rows."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from w2s_mlflow.data.texts import is_readable
from w2s_mlflow.records import NO_LABEL, Example, Row, Rows
from w2s_mlflow.tasks._groups import Key, grouped

Source = Mapping[str, Any]
"""One row of a source: a mapping from column to value."""
HELDOUT_SHARE = 5
"""If a source has no held-out part, one in HELDOUT_SHARE groups, chosen by hash, is held out."""
FEWEST_HELDOUT = 800
"""Number of held-out rows up to which rows of the training part join a smaller held-out part."""
LARGEST_MOVE = 4
"""No rows are moved if more than one in LARGEST_MOVE training rows would have to be."""


class SkippedRow(Exception):  # noqa: N818 - the name does not end in Error, because a skipped row is only counted
    """Raised if a source row cannot become an example. The message states the reason. Skipped rows are counted by reason."""


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """A source row that a task's `Reader` has parsed. `assemble` turns it into a `Row`."""

    id: str
    segments: tuple[str, ...]
    label: int
    """Index of the row's class, or NO_LABEL if the row has no label."""
    groups: tuple[Key, ...] = ()
    """Group keys (see tasks/_groups.py): rows that share a key, or whose texts are nearly equal, form one group."""
    candidates: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further values from the source row. They are used only for analysis."""
    compared: tuple[str, ...] | None = None
    """Texts by which rows are compared for near-duplicates and containment. None stands for all segments and candidates. It is
    empty if words do not show what rows have in common, as in chess positions; then only rows with equal texts are joined."""

    def texts(self) -> tuple[str, ...]:
        """Return the segments and the candidates."""
        return self.segments + self.candidates


Reader = Callable[[Source, str], ParsedRow]
"""Function that parses a source row. Its arguments are the row and the row's part, `train` or `heldout`.

The function raises SkippedRow if the row cannot be used. If ids are unique only within a part, it prefixes them with the part.
"""


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
    groups, joined = grouped([(draft.groups, draft.texts(), draft.compared) for draft in drafts])
    rows = [_row(draft, group) for draft, group in zip(drafts, groups, strict=True)]
    if heldout is None:
        is_heldout_N = [draw("heldout", row.example.group, HELDOUT_SHARE) == 0 for row in rows]
    else:
        is_heldout_N = [number >= len(parts["train"]) for number in range(len(rows))]
    train_rows = tuple(row for row, is_heldout in zip(rows, is_heldout_N, strict=True) if not is_heldout)
    heldout_rows = tuple(row for row, is_heldout in zip(rows, is_heldout_N, strict=True) if is_heldout)
    return Rows(train_rows, heldout_rows, dict(skipped), joined)


def _row(draft: ParsedRow, group: str) -> Row:
    example = Example(draft.id, group, draft.segments, draft.candidates)
    return Row(example, draft.label, draft.about, draft.texts() if draft.compared is None else draft.compared)


def without_large_groups(rows: Rows, largest: int) -> Rows:
    """Remove all rows of groups of more than `largest` rows, because such a group would not fit into a test split.

    Groups become this large if many rows are linked by shared texts.
    """
    sizes = Counter(row.example.group for row in (*rows.train, *rows.heldout))
    train, heldout = (tuple(row for row in part if sizes[row.example.group] <= largest) for part in (rows.train, rows.heldout))
    removed = len(rows.train) + len(rows.heldout) - len(train) - len(heldout)
    skipped = {f"is in a group of more than {largest} rows": removed} if removed else {}
    return replace(rows, train=train, heldout=heldout, skipped={**rows.skipped, **skipped})


def with_enough_heldout(rows: Rows, key: str) -> Rows:
    """Move groups of the training part to the held-out part until that has FEWEST_HELDOUT rows.

    The groups are chosen by a hash of `key` and their names, so they are the same for all seeds. Groups in both parts
    stay, because a split excludes their training rows. If too large a fraction of the training part would have to move
    (LARGEST_MOVE), nothing moves.
    """
    missing = FEWEST_HELDOUT - len(rows.heldout)
    if missing <= 0 or LARGEST_MOVE * missing > len(rows.train):
        return rows
    heldout_groups = {row.example.group for row in rows.heldout}
    sizes = Counter(row.example.group for row in rows.train if row.example.group not in heldout_groups)
    moving: set[str] = set()
    for group in sorted(sizes, key=lambda group: hashlib.sha256(f"heldout\x1f{key}\x1f{group}".encode()).digest()):
        if missing <= 0:
            break
        moving.add(group)
        missing -= sizes[group]
    moved = tuple(row for row in rows.train if row.example.group in moving)
    train = tuple(row for row in rows.train if row.example.group not in moving)
    return replace(rows, train=train, heldout=rows.heldout + moved, moved=len(moved))


def _drafts(read: Reader, source: Iterable[Source], part: str, skipped: Counter[str]) -> list[ParsedRow]:
    draft_by_id: dict[str, ParsedRow] = {}
    conflicting = set()
    for row in source:
        try:
            draft = _stripped(read(row, part))
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


def _stripped(draft: ParsedRow) -> ParsedRow:
    """Return the row with its texts stripped of white space at both ends, so that no model reads a trailing space as a token.

    Raises SkippedRow if the row has a text that no tokenizer can read, such as an empty one, or an invalid label.
    """
    if not all(text and is_readable(text) for text in draft.texts()):
        raise SkippedRow("has an empty text")
    if draft.label < NO_LABEL:
        raise SkippedRow("has an invalid label")
    segments, candidates = (tuple(text.strip() for text in texts) for texts in (draft.segments, draft.candidates))
    return replace(draft, segments=segments, candidates=candidates)
