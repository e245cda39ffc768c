"""Generate the rows of the chess tasks: pairs of captures in which cheap features do not tell the better capture.

The cheap features of a capture are the value that it takes, the value of the capturing piece, and whether it lands beside the
black king. The two captures of a pair, in either order, make a stratum. In each stratum whose two captures differ in these
features, each of them is the better capture in exactly half of the rows. So no rule that reads only these features is right
in more than half of them.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, permutations
from pathlib import Path
from typing import NamedTuple

from w2s_mlflow import streams
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks._chess_play import Move, Position

POSITIONS = 60_000
"""Number of random positions from which the rows of one task are drawn. About one in five becomes a row."""
CHUNK = 2_500
"""Number of positions in a chunk, which one process generates from a separate random stream."""
HELDOUT_SHARE = 2 / 7
"""Share of the rows that are held out. A hash of the position decides which."""

Features = tuple[int, int, bool]
"""Cheap features of a capture: the value taken, the value of the capturing piece, and whether it lands beside the king."""
Pair = tuple[Move, Move]
"""Two captures of a position, the better one first."""
Stratum = tuple[Features, Features]


class GeneratedRow(NamedTuple):
    """A generated row."""

    task: str
    position: str
    """Text of the position, without the mark that ends a prompt."""
    better: str
    worse: str


# --- pairs ------------------------------------------------------------------------------------------------------------


def better_and_worse(position: Position) -> list[Pair]:
    """Return all pairs of captures that win unequal material, the better one first (task `chess`)."""
    return [pair for pair in permutations(position.captures(), 2) if pair[0].exchange > pair[1].exchange]


def best_and_others(position: Position) -> list[Pair]:
    """Return all pairs of the position's unique best move and a worse capture (task `chess_preference`).

    The list is empty unless the position has a unique best move that is a capture with a unique word.
    """
    exchanges = sorted(move.exchange for move in position.moves)
    pairs = better_and_worse(position) if exchanges[-1] > exchanges[-2] else []
    return [pair for pair in pairs if pair[0].exchange == exchanges[-1]]


PAIRS: Mapping[str, Callable[[Position], list[Pair]]] = {"chess": better_and_worse, "chess_preference": best_and_others}
"""Functions that return the pairs of a position from which a row may be made, by task."""


def features(move: Move) -> Features:
    """Return the cheap features of a capture."""
    return move.captured, move.piece, move.distance <= 1


# --- balancing --------------------------------------------------------------------------------------------------------


def balanced(rows: Iterable[tuple[GeneratedRow, Features, Features]], rng: random.Random) -> list[GeneratedRow]:
    """Choose rows such that every stratum is balanced and no position is shown twice.

    Args:
        rows: the possible rows, each with the features of its better and its worse capture.
    """
    strata: defaultdict[Stratum, tuple[list[GeneratedRow], list[GeneratedRow]]] = defaultdict(lambda: ([], []))
    for row, better, worse in rows:
        key = (min(better, worse), max(better, worse))
        strata[key][better > worse].append(row)
    used: set[str] = set()
    chosen: list[GeneratedRow] = []
    # Rows of rare strata are chosen first, because a position that several strata could use is worth most there.
    for low, high in sorted(strata, key=lambda key: (min(map(len, strata[key])), key)):
        first, second = (rng.sample(side, len(side)) for side in strata[low, high])
        chosen += _unused(first, used) if low == high else _matched(first, second, used)
    return chosen


def _unused(rows: Iterable[GeneratedRow], used: set[str]) -> Iterator[GeneratedRow]:
    """Yield the rows whose position is not in `used` yet, and add their positions to it."""
    for row in rows:
        key = chess_play.position_hash(row.position)
        if key not in used:
            used.add(key)
            yield row


def _matched(first: Sequence[GeneratedRow], second: Sequence[GeneratedRow], used: set[str]) -> Iterator[GeneratedRow]:
    """Yield as many rows of `first` as of `second`, each with an unused position."""
    for pair in zip(_unused(first, used), _unused(second, used), strict=False):
        yield from pair


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw(task: str, seed: int, positions: int = POSITIONS, workers: int = 1) -> list[GeneratedRow]:
    """Return the balanced rows of a task that random positions give. The result does not depend on the number of workers."""
    counts = [min(CHUNK, positions - start) for start in range(0, positions, CHUNK)]
    with ProcessPoolExecutor(workers) as pool:
        chunks = pool.map(_draw_chunk, [task] * len(counts), counts, [seed] * len(counts), range(len(counts)))
        rows = [row for chunk in chunks for row in chunk]
    return balanced(rows, random.Random(streams.integer(seed, streams.TASK_ROWS, list(PAIRS).index(task))))


def _draw_chunk(task: str, count: int, seed: int, chunk: int) -> list[tuple[GeneratedRow, Features, Features]]:
    rng = random.Random(streams.integer(seed, streams.TASK_POSITIONS, list(PAIRS).index(task), chunk))
    return [
        (GeneratedRow(task, position.text, better.word, worse.word), features(better), features(worse))
        for position in islice(chess_play.positions(rng, task=True), count)
        for better, worse in PAIRS[task](position)
    ]


def write(rows: Iterable[GeneratedRow], path: Path) -> None:
    """Write the rows, in sorted order, to a parquet file. A hash of the position decides whether a row is held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = sorted((row.task, chess_play.position_hash(row.position)[:16], *row[1:]) for row in rows)
    names = ("task", "group", "position", "better", "worse")
    columns: dict[str, list[str] | list[bool]] = {name: [row[column] for row in records] for column, name in enumerate(names)}
    columns["heldout"] = [_is_held_out(row[1]) for row in records]
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)


def _is_held_out(group: str) -> bool:
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32 < HELDOUT_SHARE
