"""Splits of a task's rows. Each seed draws two halves from the training rows; the held-out parts are the same for all seeds.

The halves are `supervision` and `transfer`; the held-out parts are `selection` and `test`. All splits depend on hashes of ids
and groups, never on row order or file format. Rows of one group stay together, and training rows whose group also occurs in
the held-out rows are excluded.

Containment (data/containment.py) does not join groups, because it would chain most rows of some tasks. Instead, rows are
dropped: rows of the half `transfer` that contain a `supervision` row of the same seed or are contained in one, and, once for
all seeds, held-out rows that contain a training row or are contained in one.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from w2s_mlflow.data import containment
from w2s_mlflow.data.containment import Groups, Partners
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.records import NO_LABEL, Example, JoinError, Row, Rows, canonical_json

VALIDATION = 0.1
"""Fraction of each half that is set aside as its validation slice."""
SELECTION = 0.25
"""Fraction of the held-out rows that form `selection`, on which searches may score trials; the rest form `test`."""

Examples = tuple[Example, ...]


@dataclass(frozen=True)
class Split:
    """A task's split for one seed. It holds no labels, so every stage may read it."""

    supervision: Examples
    supervision_validation: Examples
    transfer: Examples
    transfer_validation: Examples
    selection: Examples
    test: Examples
    digest: str
    """sha256 over the rows of each part (id, group, segments, candidates and label). It does not depend on the rows' order."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that were dropped because of containment, by part."""

    def parts(self) -> dict[str, Examples]:
        """Return the six parts by name."""
        return {name: value for name, value in vars(self).items() if name not in ("digest", "dropped")}


@dataclass(frozen=True)
class Questions:
    """Unlabelled rows to train on, with a validation slice for early stopping. `digest` identifies the rows."""

    train: Examples
    validation: Examples
    digest: str


@dataclass(frozen=True)
class Pool:
    """A task's groups of rows, divided in the same way for every seed into a training part, `selection` and `test`."""

    key: str
    """Key of the task (`Task.key`). Groups are sorted by a hash of this key and the group's name."""
    train: Groups
    selection: Groups
    test: Groups
    classes: int
    partners: Partners = field(default_factory=dict)
    """Training rows that contain a row or are contained in it, by the row's id."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Number of rows of `selection` and `test` that were dropped because of containment."""

    def train_rows(self) -> int:
        """Return the number of rows available for training."""
        return _size(self.train)

    def test_rows(self) -> int:
        """Return the number of rows available for `test`."""
        return _size(self.test)


def pool(key: str, rows: Rows, *, classes: int = 2, balance: bool = False, partners: Partners | None = None) -> Pool:
    """Group a task's rows and divide the held-out groups into `selection` and `test`.

    Training rows whose group also occurs in the held-out rows are excluded. Then held-out rows that contain a remaining
    training row, or are contained in one, are dropped.

    Args:
        balance: whether to give `selection` and `test` equally many rows of each class.
        partners: the result of `containment.partners` for the rows, if it is known.

    Raises:
        ConfigError: there are too few groups to fill every part of a split, or the training or test rows of a two-class task
            have only one class.
        JoinError: an id occurs twice.
    """
    _check_ids(rows)
    heldout = _in_groups(rows.heldout, ("heldout", key))
    used = {row.example.group for row in rows.heldout}
    train = _in_groups([row for row in rows.train if row.example.group not in used], ("train", key))
    for part, groups, fewest in (("training", train, 4), ("held-out", heldout, 2)):
        if len(groups) < fewest:
            groups_text = f"{len(groups)}, with {_size(groups)} rows in total"
            raise ConfigError(
                f"the task {key} must have at least {fewest} groups of rows in its {part} part, but it has {groups_text}"
            )
    partners = containment.partners(rows) if partners is None else partners
    divided = dict(zip(("selection", "test"), _take_fraction(heldout, SELECTION, "test_size", _size(heldout)), strict=True))
    dropped = containment.drop(divided, train, partners, f"the training part of the task {key}")
    selection, test = divided.values()
    if balance:
        selection, test = balanced(selection), balanced(test)
    for part, groups in {"training": train, "test": test}.items():
        if classes == 2 and (label := _only_label(groups)) is not None:
            raise ConfigError(f"the task {key} must have rows of both classes, but every label of its {part} part is {label}")
    return Pool(key, train, selection, test, classes, partners, dropped)


def split_task(pool: Pool, *, seed: int, train_size: int, test_size: int, balance: bool = False) -> Split:
    """Split a task for one seed: halves of at most `train_size` / 2 rows each, and at most `test_size` test rows.

    Args:
        balance: whether to give `supervision` and its validation slice equally many rows of each class. `transfer` is never
            balanced, because that would require its labels.

    Raises:
        ConfigError: the task has fewer rows than requested, a size is too small to fill every part, or `supervision` of a
            two-class task has only one class.
    """
    _check_sizes(train_size, pool.train_rows(), test_size, pool.test_rows())
    supervision, transfer, _ = _halves(pool, seed, train_size)
    test, _ = _take_rows(pool.test, test_size)
    if not test:
        raise must(
            "test_size",
            f"at least {len(pool.test[0])}, the size of the first group of rows (groups are never divided)",
            test_size,
        )
    # The groups of each half are sorted by a hash. The last tenth of the half is its validation slice.
    d1, d1_validation = _take_fraction(supervision, 1 - VALIDATION, "train_size", train_size)
    d2, d2_validation = _take_fraction(transfer, 1 - VALIDATION, "train_size", train_size)
    transfer_parts = {"transfer": d2, "transfer_validation": d2_validation}
    dropped = containment.drop(transfer_parts, supervision, pool.partners, f"supervision (seed {seed})")
    if balance:
        d1, d1_validation = balanced(d1), balanced(d1_validation)
    if pool.classes == 2 and (label := _only_label(d1)) is not None:
        raise must("train_size", f"large enough that supervision has rows of both classes (every label is {label})", train_size)
    parts = {
        "supervision": d1,
        "supervision_validation": d1_validation,
        **transfer_parts,
        "selection": pool.selection,
        "test": test,
    }
    rows = {name: [row for group in groups for row in group] for name, groups in parts.items()}
    digests = canonical_json({name: digest(part_rows) for name, part_rows in rows.items()})
    return Split(
        **{name: tuple(row.example for row in part_rows) for name, part_rows in rows.items()},
        digest=hashlib.sha256(digests.encode()).hexdigest(),
        dropped={**dropped, **pool.dropped},
    )


def unused_questions(pool: Pool, *, seed: int, train_size: int, size: int) -> Questions:
    """Return at most `size` training rows that `split_task` puts in neither half. The last tenth of them is for validation.

    Raises:
        ConfigError: fewer than two groups of rows are left.
    """
    unused, _ = _take_rows(_halves(pool, seed, train_size)[2], size)
    if len(unused) < 2:
        rule = f"small enough to leave rows outside both halves (the task has {pool.train_rows()} training rows)"
        raise must("train_size", rule, train_size)
    shares = _take_fraction(unused, 1 - VALIDATION, "train_size", train_size)
    parts = [[row.example for group in part for row in group] for part in shares]
    digests = canonical_json([digest(Row(example, NO_LABEL) for example in part) for part in parts])
    return Questions(tuple(parts[0]), tuple(parts[1]), hashlib.sha256(digests.encode()).hexdigest())


def _halves(pool: Pool, seed: int, train_size: int) -> tuple[Groups, Groups, Groups]:
    """Return the groups of `supervision` and of `transfer`, validation slices included, and the remaining groups."""
    ordered = _by_hash(pool.train, ("train", pool.key, str(seed)))
    supervision, remaining = _take_rows(ordered, train_size // 2)
    transfer, unused = _take_rows(remaining, train_size // 2)
    return supervision, transfer, unused


def balanced(groups: Groups) -> Groups:
    """Remove rows of the larger classes until every class has as many rows as the smallest, and return the remaining groups.

    Rows are removed one at a time, each from the group that has the most rows of the class left or, on a tie, from the last
    such group. The group's last row of the class is removed; the rows of a group are sorted by id.
    """
    by_class: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, group in enumerate(groups):
        seen: Counter[int] = Counter()
        for row in group:
            by_class[row.label].append((seen[row.label], number))
            seen[row.label] += 1
    fewest = min(map(len, by_class.values()), default=0)
    quotas = {label: Counter(number for _, number in sorted(places)[:fewest]) for label, places in by_class.items()}
    thinned = [
        _first_of_each_class(group, {label: quotas[label][number] for label in quotas}) for number, group in enumerate(groups)
    ]
    return [group for group in thinned if group]


def _first_of_each_class(group: list[Row], room: dict[int, int]) -> list[Row]:
    selected = []
    for row in group:
        if room[row.label] > 0:
            room[row.label] -= 1
            selected.append(row)
    return selected


def digest(rows: Iterable[Row]) -> str:
    """Return the sha256 over the content of rows. It does not depend on the order of the rows."""
    return hashlib.sha256("\n".join(sorted(map(_line, rows))).encode()).hexdigest()


def row_digest(row: Row) -> str:
    """Return the first 16 hex digits of the sha256 over the content of one row."""
    return hashlib.sha256(_line(row).encode()).hexdigest()[:16]


def _line(row: Row) -> str:
    example = row.example
    return canonical_json([example.id, example.group, example.segments, example.candidates, row.label])


def _in_groups(rows: Iterable[Row], key: Sequence[str]) -> Groups:
    """Return the rows in groups. Groups are sorted by a hash of `key` and the group's name, and the rows of a group by id."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.example.id):
        groups[row.example.group].append(row)
    return _by_hash(list(groups.values()), key)


def _by_hash(groups: Groups, key: Sequence[str]) -> Groups:
    return sorted(groups, key=lambda rows: _hash(*key, rows[0].example.group))


def _size(groups: Groups) -> int:
    return sum(map(len, groups))


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()


def _take_rows(groups: Groups, size: int) -> tuple[Groups, Groups]:
    """Return two lists: the first groups, as many as have at most `size` rows in total, and the remaining groups."""
    cumulative = itertools.accumulate(len(group) for group in groups)
    count = sum(rows <= size for rows in cumulative)
    return groups[:count], groups[count:]


def _take_fraction(groups: Groups, share: float, option: str, size: int) -> tuple[Groups, Groups]:
    """Split the groups into two parts of at least one group each; the first has about the fraction `share` of the rows.

    Raises ConfigError if there are fewer than two groups; the message names `option` and its value `size`.
    """
    if len(groups) < 2:
        raise must(option, "large enough that each half has at least two groups of rows", size)
    count = len(_take_rows(groups, round(share * _size(groups)))[0])
    count = min(max(count, 1), len(groups) - 1)
    return groups[:count], groups[count:]


def _check_ids(rows: Rows) -> None:
    ids = [row.example.id for row in (*rows.train, *rows.heldout)]
    if len(set(ids)) != len(ids):
        raise JoinError(f"{len(ids) - len(set(ids))} of a task's {len(ids)} ids are duplicates")


def _only_label(groups: Groups) -> int | None:
    """Return the label that all labelled rows share, or None if there is no such label."""
    labels = {row.label for group in groups for row in group} - {NO_LABEL}
    return labels.pop() if len(labels) == 1 else None


def _check_sizes(train_size: int, train_rows: int, test_size: int, test_rows: int) -> None:
    if train_size < 40:
        raise must("train_size", "at least 40, because each of its two halves needs a validation slice", train_size)
    if train_size > train_rows:
        raise must("train_size", f"at most {train_rows}, the number of training rows of this task", train_size)
    if test_size < 1:
        raise must("test_size", "at least 1", test_size)
    if test_size > test_rows:
        raise must("test_size", f"at most {test_rows}, the number of test rows of this task", test_size)
