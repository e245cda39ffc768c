"""From drafts to rows: ids, groups, draws by hash, and what is left out."""

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
"""One row of a source, by column."""
HELDOUT_SHARE = 5
"""Of a source with one part, one group in so many is held out, by the hash of its name."""


class SkippedRow(Exception):  # noqa: N818 - it is no error: the row is counted and the next one read
    """A row of a source that cannot be an example; its message is the reason, a few words, the same for all of its kind."""


@dataclass(frozen=True, slots=True)
class ParsedRow:
    """An example to be: what a task's reader makes of one row of its source."""

    id: str
    segments: tuple[str, ...]
    label: int
    """An index into the classes, or NO_LABEL."""
    groups: tuple[str, ...] = ()
    """What keeps rows together, as `same(...)` makes them: rows with one in common are one group. Equal texts always are."""
    candidates: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else the source says of it, for an analysis."""


Reader = Callable[[Source, str], ParsedRow]
"""(row, part) -> ParsedRow. The part ("train", "heldout") starts the id where keys restart in each. Raises SkippedRow."""


def same(kind: str, *texts: object) -> str:
    """The name of what rows have in common, such as `same("premise", row["premise"])`: equal for equal normalised texts."""
    return digest(kind, *(normalised(str(text)) for text in texts))


def normalised(text: str) -> str:
    """Without differences in case, in white space, and in how Unicode writes a letter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def digest(*texts: str) -> str:
    """sha256 of texts, cut at 16 digits: an id for rows whose source has no key."""
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:16]


def of_class(classes: Mapping[Any, int], label: object) -> int:
    """The class that a source's label stands for. Raises SkippedRow where it stands for none."""
    if label not in classes:
        raise SkippedRow("has no legal label")
    return classes[label]


def draw(purpose: str, id_: str, count: int) -> int:
    """A number in [0, count) that hangs on the id alone; another purpose, another draw."""
    return int.from_bytes(hashlib.sha256(f"{purpose}\x1f{id_}".encode()).digest()[:8]) % count


def ordered(id_: str, *pair: str) -> tuple[str, ...]:
    """Two texts that are compared, in an order that hangs on themselves and the id: it does not tell which is the better."""
    return tuple(sorted(pair, reverse=draw("order", id_, 2) == 1))


def assemble(read: Reader, train: Iterable[Source], heldout: Iterable[Source] | None) -> Rows:
    """The rows of a task. What a reader leaves out is counted; so is what stands twice, and what has two labels.

    An id that stands twice in a part is one row if its label is the same; with two labels it is left out.

    Args:
        read: makes a draft of each source row.
        heldout: the source's labelled held-out part; None cuts one of its groups in HELDOUT_SHARE from `train` by hash.
    """
    left_out: Counter[str] = Counter()
    parts = {"train": _drafts(read, train, "train", left_out)}
    if heldout is not None:
        parts["heldout"] = _drafts(read, heldout, "heldout", left_out)
    drafts = [draft for part in parts.values() for draft in part]
    rows = [
        Row(Example(draft.id, group, draft.segments, draft.candidates), draft.label, draft.about)
        for draft, group in zip(drafts, groups_of(drafts), strict=True)
    ]
    if heldout is None:
        held_out = [draw("heldout", row.example.group, HELDOUT_SHARE) == 0 for row in rows]
    else:
        held_out = [number >= len(parts["train"]) for number in range(len(rows))]
    train_rows, heldout_rows = (
        tuple(row for row, held in zip(rows, held_out, strict=True) if held is part) for part in (False, True)
    )
    return Rows(train_rows, heldout_rows, dict(left_out))


def without_large_groups(rows: Rows, largest: int) -> Rows:
    """Without the groups of more than `largest` rows, which no test part could hold: chains of pairs can grow that long."""
    sizes = Counter(row.example.group for row in (*rows.train, *rows.heldout))
    train, heldout = (tuple(row for row in part if sizes[row.example.group] <= largest) for part in (rows.train, rows.heldout))
    fewer = len(rows.train) + len(rows.heldout) - len(train) - len(heldout)
    counted = {f"is one of more than {largest} rows of a group": fewer} if fewer else {}
    return Rows(train, heldout, {**rows.left_out, **counted})


def _drafts(read: Reader, source: Iterable[Source], part: str, left_out: Counter[str]) -> list[ParsedRow]:
    found: dict[str, ParsedRow] = {}
    two_labels = set()
    for row in source:
        try:
            draft = read(row, part)
            _check(draft)
        except SkippedRow as reason:
            left_out[str(reason)] += 1
            continue
        earlier = found.setdefault(draft.id, draft)
        if earlier is not draft:
            left_out["stands twice"] += 1
            if _comparison_key(earlier) != _comparison_key(draft):
                two_labels.add(draft.id)
    left_out["has two labels"] += len(two_labels)
    left_out += Counter()  # drops what is zero
    return [draft for id_, draft in found.items() if id_ not in two_labels]


def _comparison_key(draft: ParsedRow) -> tuple[object, ...]:
    """What two drafts of one id must agree in; where an order or an option is drawn, the texts tell what the label is of."""
    return draft.label, draft.segments, draft.candidates


def _check(draft: ParsedRow) -> None:
    if not all(text and text.strip() for text in draft.segments + draft.candidates):
        raise SkippedRow("has an empty text")
    if draft.label < NO_LABEL:
        raise SkippedRow("has no legal label")


def groups_of(drafts: Sequence[ParsedRow]) -> list[str]:
    """The group of each draft: those that share a name or a text, directly or through others, have one, the smallest name."""
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
