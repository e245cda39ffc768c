"""Records that stages exchange: examples, soft labels, predictions, debates, and gold labels, which only evaluators read.

Tables are joined by id, never by row order. A join that would lose or duplicate a row raises an error.
Shape legend: N rows, C classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Example:
    """One question without its gold label, which student code must not see.

    Attributes:
        group: rows of the same group (the same premise, passage, position, ...) are never in different parts of a split.
        segments: the text of the question. It has several parts if models encode it as a pair, such as premise and hypothesis.
        candidates: the answers to choose from. For the head `lm_choice`, each answer is one word. For the head `reward`, the
            answers are response A and response B.
    """

    id: str
    group: str
    segments: tuple[str, ...]
    candidates: tuple[str, ...] = ()


GIVEN = "labels/given.parquet"
"""Artifact path of the labels that a student was trained on, if they were supplied in a file (`--labels FILE`)."""
NO_LABEL = -1
"""Label of a row without ground truth."""


@dataclass(frozen=True, slots=True)
class Row:
    """An example and its gold label, which is a class index or NO_LABEL."""

    example: Example
    label: int
    about: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Metadata from the source, such as a puzzle's rating. No model sees this metadata, and no digest includes it."""
    compared: tuple[str, ...] = ()
    """Texts by which rows of different parts are compared for containment (data/containment.py); empty: not compared."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A task's rows: the training part, and the held-out part, which is split into `selection` and `test`."""

    train: tuple[Row, ...]
    heldout: tuple[Row, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of source rows that were skipped, by reason (an illegal move, a text with two labels, ...)."""
    joined: Mapping[str, int] = field(default_factory=dict)
    """Number of rows that share a value with another row, by grouping field, and, under `near-duplicates`, the number of groups
    that were joined to another because of nearly equal texts."""
    moved: int = 0
    """Number of rows that were moved from the source's training part to the held-out part, because that was small."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A side's explanation of its decision, shown to the judge (a model or a person).

    Attributes:
        text: the quoted evidence, or the rationale.
        pieces: indices of the quoted spans of the question, in the order in which they were sampled; empty for a rationale.
    """

    text: str
    pieces: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a debate.

    Attributes:
        name: `strong` or `weak`.
        decision: index of the class that the side argues for.
        claim: the decision in words.
        explanation: what the side shows to convince the judge.
    """

    name: str
    decision: int
    claim: str
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Debate:
    """One question and the two sides that debate it, in the order in which a judge sees them. It has no ground truth."""

    question: Example
    first: Side
    second: Side

    def swapped(self) -> Debate:
        """Return the same debate with the sides in the other order."""
        return Debate(self.question, self.second, self.first)

    def order(self) -> str:
        """Return the names of the sides in the order in which a judge sees them: `strong,weak` or `weak,strong`."""
        return f"{self.first.name},{self.second.name}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's verdict on one debate in one order.

    Attributes:
        log_odds: log-odds that the side shown first wins; None if the judge gave no verdict.
        rationale: the judge's reasons for the verdict, in words.
        order: the order of the sides, as returned by `Debate.order`.
        cost: number of billed tokens; 0 for a judge that is free of charge.
    """

    log_odds: float | None
    rationale: str
    order: str
    cost: int


class JoinError(ValueError):
    """Tables cannot be joined by id: an id is duplicated, missing or unexpected."""


class NoLabelError(ValueError):
    """Ground truth is needed for rows that have none."""


def positions(ids: Sequence[str], requested: Sequence[str]) -> Ints:
    """Return the index in `ids` of each id in `requested`, in the order of `requested`.

    Raises:
        JoinError: an id occurs twice in `ids`, or an id in `requested` is missing from `ids`.
    """
    index = {id_: row for row, id_ in enumerate(ids)}
    if len(index) != len(ids):
        twice = next(id_ for id_, count in Counter(ids).items() if count > 1)
        raise JoinError(f"id {twice!r} occurs twice in a table of {len(ids)} rows")
    missing = [id_ for id_ in requested if id_ not in index]
    if missing:
        raise JoinError(f"{len(missing)} of {len(requested)} ids are missing from a table, such as {missing[0]!r}")
    return np.fromiter((index[id_] for id_ in requested), dtype=np.int64, count=len(requested))


@dataclass(frozen=True)
class SoftLabels:
    """Class probabilities of examples, such as a supervisor's weak labels for `transfer`. `probabilities_NC` is float32."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    probabilities_NC: Floats

    def __post_init__(self) -> None:
        rows = len(self.ids)
        assert self.probabilities_NC.ndim == 2 and len(self.probabilities_NC) == rows == len(self.groups)

    def of(self, ids: Sequence[str]) -> Floats:
        """Return the probabilities of `ids`, in this order, as an array (len(ids), C). Raises JoinError if an id is missing."""
        return self.probabilities_NC[positions(self.ids, ids)]

    def hardened(self) -> SoftLabels:
        """Return hard labels: probability 1 for the most probable class of each row. A tie goes to the lowest class index."""
        return replace(
            self,
            probabilities_NC=np.eye(self.probabilities_NC.shape[1], dtype=np.float32)[self.probabilities_NC.argmax(axis=1)],
        )

    def at_temperature(self, temperature: float) -> SoftLabels:
        """Return the labels softmax(log p / temperature).

        A temperature above 1 makes the labels softer; a temperature below 1 makes them sharper. A probability of 0 stays 0.
        """
        with np.errstate(divide="ignore"):
            scaled_NC = np.log(self.probabilities_NC, dtype=np.float64) / temperature
        scaled_NC = np.exp(scaled_NC - scaled_NC.max(axis=1, keepdims=True))
        tempered_NC = (scaled_NC / scaled_NC.sum(axis=1, keepdims=True)).astype(np.float32)
        return replace(self, probabilities_NC=tempered_NC)

    def write(self, path: Path) -> None:
        """Write a parquet file with the columns id, group and probabilities (list<float32>[C]), without gold labels."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        classes = self.probabilities_NC.shape[1]
        flat = pa.array(np.ascontiguousarray(self.probabilities_NC, dtype=np.float32).reshape(-1))
        columns = {"id": pa.array(self.ids), "group": pa.array(self.groups)}
        columns["probabilities"] = pa.FixedSizeListArray.from_arrays(flat, classes)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)


@dataclass(frozen=True)
class Predictions(SoftLabels):
    """A model's probabilities on one split. `gold_N` (int64) is None until the evaluator has added the gold labels.

    The answer to a row is the class with the highest probability; a tie goes to the lowest class index, here and in metrics.py.
    """

    gold_N: Ints | None = None

    def aligned(self, ids: Sequence[str]) -> Predictions:
        """Return the predictions with their rows in the order of `ids`.

        Raises:
            JoinError: the predictions are not for exactly these ids.
        """
        rows = positions(self.ids, ids)
        if not len(set(ids)) == len(ids) == len(self.ids):
            raise JoinError(f"joining {len(ids)} ids to a table of {len(self.ids)} rows would lose or duplicate rows")
        gold_N = None if self.gold_N is None else self.gold_N[rows]
        groups = tuple(self.groups[row] for row in rows)
        return Predictions(tuple(ids), groups, self.probabilities_NC[rows], gold_N)

    def correct_N(self) -> NDArray[np.float64]:
        """Return an array (N,): 1.0 for each row whose most probable class is the gold label, and 0.0 for the other rows."""
        assert self.gold_N is not None, "these predictions have not been scored"
        return np.asarray(self.probabilities_NC.argmax(axis=1) == self.gold_N, dtype=np.float64)

    def with_gold(self, gold_N: Ints) -> Predictions:
        """Return the predictions with these gold labels, which must be in the same order as the rows."""
        return replace(self, gold_N=gold_N)


def read_predictions(path: Path) -> Predictions:
    """Return the predictions, without gold labels, from a file written by `SoftLabels.write`."""
    import pyarrow.parquet as pq

    table = pq.read_table(path).combine_chunks()
    probabilities = table.column("probabilities").combine_chunks()
    classes = probabilities.type.list_size
    flat = probabilities.flatten().to_numpy()
    ids, groups = (tuple(table.column(name).to_pylist()) for name in ("id", "group"))
    return Predictions(ids, groups, flat.reshape(-1, classes))


def write_gold(path: Path, ids: Sequence[str], gold_N: Ints) -> None:
    """Write the gold labels of one split to a parquet file with the columns id and gold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": pa.array(ids), "gold": pa.array(gold_N)}), path)


def read_gold(path: Path, ids: Sequence[str]) -> Ints:
    """Return the gold labels of `ids` from a file written by `write_gold`, as an int64 array (N,) in the order of `ids`.

    Raises:
        JoinError: the file has no label for one of the ids.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    gold_N: Ints = table.column("gold").to_numpy()[positions(table.column("id").to_pylist(), ids)]
    return gold_N


class Gold:
    """Gold labels by id. Only evaluators have access to them. Each row that is read is counted by split and reason.

    The reasons are `supervision` (training a supervisor), `ceiling`, `report`, `probe`, `control`, `oracle`, `debate`,
    `errors`, `prompt` (choosing a prompt) and `rule` (searching a rule).
    """

    def __init__(self, labels: Mapping[str, int]) -> None:
        self._labels = labels
        self.reads: Counter[tuple[str, str]] = Counter()

    def read(self, examples: Iterable[Example], *, split: str, reason: str) -> Ints:
        """Return the labels of `examples` as an int64 array (N,), and record that N rows of `split` were read for `reason`.

        Raises:
            NoLabelError: an example has no label.
        """
        labels_N = np.array([self._labels[example.id] for example in examples], dtype=np.int64)
        if missing := int((labels_N == NO_LABEL).sum()):
            raise NoLabelError(f"{missing} of {len(labels_N)} rows of {split} have no label, but {reason} needs labels")
        self.reads[split, reason] += len(labels_N)
        return labels_N

    def known(self, examples: Iterable[Example]) -> bool:
        """Return whether at least one of `examples` has a gold label. The labels are not counted as read."""
        return any(self._labels[example.id] != NO_LABEL for example in examples)

    def ledger(self) -> dict[str, int]:
        """Return the number of rows read so far, in a dictionary whose keys have the form "split/reason"."""
        return {f"{split}/{reason}": count for (split, reason), count in sorted(self.reads.items())}


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and without spaces, so that equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
