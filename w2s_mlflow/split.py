"""Grouped halves: D is cut per seed into `supervision` and `transfer`; `selection` and `test` never change.

Everything hangs on hashes of ids and groups, nothing on row order or file format. Rows of one group stay together, and a
training row whose group also stands in the held-out part is left out.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from w2s_mlflow.config import canonical_json, must
from w2s_mlflow.records import Example, JoinError, Row, Rows

VALIDATION = 0.1
"""The slice of each half that only early stopping sees."""
SELECTION = 0.25
"""The share of the held-out groups that searches may look at; the rest is `test`."""

Examples = tuple[Example, ...]
Groups = list[list[Row]]


@dataclass(frozen=True)
class Split:
    """One seed's cut of a task, without labels: what every stage may see."""

    supervision: Examples
    supervision_validation: Examples
    transfer: Examples
    transfer_validation: Examples
    selection: Examples
    test: Examples
    digest: str
    """sha256 over the sorted (id, segments, candidates, label) of the rows in use."""

    def parts(self) -> dict[str, Examples]:
        """Its six parts by name."""
        return {name: value for name, value in vars(self).items() if name != "digest"}


def cut(task: str, rows: Rows, *, seed: int, train_size: int, test_size: int) -> Split:
    """Cut `rows` for one seed: halves of at most `train_size` / 2 rows each, and at most `test_size` test rows.

    Raises:
        ConfigError: the task has fewer training or held-out rows than asked for, or too few groups to fill every part.
        JoinError: an id stands twice.
    """
    _check_ids(rows)
    heldout = _in_groups(rows.heldout, ("heldout", task))
    selection, test = _share(heldout, SELECTION, "test_size", test_size)
    used = {row.example.group for row in rows.heldout}
    ordered = _in_groups([row for row in rows.train if row.example.group not in used], ("train", task, str(seed)))
    _check_sizes(train_size, sum(map(len, ordered)), test_size, sum(map(len, test)))
    supervision, rest = _take(ordered, train_size // 2)
    transfer, _ = _take(rest, train_size // 2)
    test, _ = _take(test, test_size)
    if not test:
        raise must("test_size", "at least the size of a group of rows", test_size)
    # The validation slice of each half is its last tenth: drawn by the same hash as everything else.
    d1, d1_validation = _share(supervision, 1 - VALIDATION, "train_size", train_size)
    d2, d2_validation = _share(transfer, 1 - VALIDATION, "train_size", train_size)
    in_use = [row for part in (d1, d1_validation, d2, d2_validation, selection, test) for group in part for row in group]
    return Split(
        supervision=_examples(d1),
        supervision_validation=_examples(d1_validation),
        transfer=_examples(d2),
        transfer_validation=_examples(d2_validation),
        selection=_examples(selection),
        test=_examples(test),
        digest=digest(in_use),
    )


def digest(rows: Iterable[Row]) -> str:
    """sha256 over the content of rows, whatever their order."""
    return hashlib.sha256("\n".join(sorted(map(_line, rows))).encode()).hexdigest()


def row_digest(row: Row) -> str:
    """sha256 over the content of one row, cut at 16 digits."""
    return hashlib.sha256(_line(row).encode()).hexdigest()[:16]


def _line(row: Row) -> str:
    return canonical_json([row.example.id, row.example.segments, row.example.candidates, row.label])


def _in_groups(rows: Iterable[Row], key: Sequence[str]) -> Groups:
    """The rows by group, the groups in the order of their hash under `key`, the rows of a group in that of their ids."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.example.id):
        groups[row.example.group].append(row)
    return [groups[group] for group in sorted(groups, key=lambda group: _hash(*key, group))]


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()


def _take(groups: Groups, size: int) -> tuple[Groups, Groups]:
    """The first groups that together hold at most `size` rows, and the rest."""
    held = itertools.accumulate(len(group) for group in groups)
    count = sum(rows <= size for rows in held)
    return groups[:count], groups[count:]


def _share(groups: Groups, share: float, option: str, size: int) -> tuple[Groups, Groups]:
    """Groups of at most `share` of the rows, but one on each side at least. Raises ConfigError for less than two groups."""
    if len(groups) < 2:
        raise must(option, "large enough for two groups of rows in each part", size)
    count = len(_take(groups, round(share * sum(map(len, groups))))[0])
    count = min(max(count, 1), len(groups) - 1)
    return groups[:count], groups[count:]


def _examples(groups: Groups) -> Examples:
    return tuple(row.example for group in groups for row in group)


def _check_ids(rows: Rows) -> None:
    ids = [row.example.id for row in (*rows.train, *rows.heldout)]
    if len(set(ids)) != len(ids):
        raise JoinError(f"{len(ids) - len(set(ids))} of a task's {len(ids)} ids stand twice")


def _check_sizes(train_size: int, train_rows: int, test_size: int, test_rows: int) -> None:
    if train_size < 40:
        raise must("train_size", "at least 40 (two halves, each with a validation slice)", train_size)
    if train_size > train_rows:
        raise must("train_size", f"at most {train_rows}, the rows this task has", train_size)
    if test_size < 1:
        raise must("test_size", "at least 1", test_size)
    if test_size > test_rows:
        raise must("test_size", f"at most {test_rows}, the rows this task has", test_size)
