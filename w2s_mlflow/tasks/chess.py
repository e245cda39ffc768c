"""Chess tasks. `chess` asks which of two captures wins more material; `chess_preference` presents them as two responses.

The material won is the value of the captured piece, minus the value of the capturing piece if it can be recaptured; later
moves do not count. In `chess`, one of the two captures is the position's unique best move. SHARES keeps the accuracy of
rules based on piece values near chance: it fixes how often the better capture takes a more, equally or less valuable piece
than the other capture, and how often it is made with a more, equally or less valuable piece. The squares of the kings are not
balanced, so the rule `gain_beside_king` is right in four of five rows.

The rows are shipped beside this file. They were generated in version 0.1 by

    python -m w2s_mlflow.tasks.chess --seed 20261130

Since then, the way in which random numbers are derived from the seed has changed, so this command now generates other rows of
the same kind.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import random
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import permutations
from pathlib import Path

import chess

from w2s_mlflow import streams
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import Row, Rows, Task
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks._chess_play import Move, Position

POSITIONS = Path(__file__).with_name("chess_positions.parquet")
TRAIN, HELDOUT = 8_000, 3_200
"""Approximate numbers of training and held-out rows per task in the shipped file; a hash decides which rows are held out."""

MORE = CHEAPER = 1
EQUAL = 0
LESS = DEARER = -1
SHARES = {
    (MORE, DEARER): 0.35,
    (MORE, EQUAL): 0.15,
    (LESS, EQUAL): 0.15,
    (EQUAL, EQUAL): 0.15,
    (LESS, CHEAPER): 0.10,
    (EQUAL, CHEAPER): 0.05,
    (EQUAL, DEARER): 0.05,
}
"""Shares of the rows, by how the better capture compares with the worse one.

The first part of a key compares the values of the captured pieces, the second part those of the capturing pieces. For example,
the key (MORE, DEARER) means that the better capture takes a more valuable piece and is made with a more valuable piece.
"""

GeneratedRow = tuple[str, str, str, str]
"""A generated row: its task, position, better capture and worse capture."""
Pair = tuple[Move, Move]
"""A pair of captures, the better one first."""


# --- loading ----------------------------------------------------------------------------------------------------------


def load(task: str, data_dir: Path | None = None) -> Rows:
    """Return the shipped rows of one task. The argument `data_dir` is ignored."""
    import pyarrow.parquet as pq

    columns = pq.read_table(POSITIONS, filters=[("task", "==", task)]).to_pydict()
    names = ("group", "position", "better", "worse")
    rows = [_row(task, *values) for values in zip(*(columns[name] for name in names), strict=True)]
    is_heldout_N = columns["heldout"]
    train = tuple(row for row, is_heldout in zip(rows, is_heldout_N, strict=True) if not is_heldout)
    heldout = tuple(row for row, is_heldout in zip(rows, is_heldout_N, strict=True) if is_heldout)
    return Rows(train, heldout)


def shipped() -> list[str]:
    """Return the texts of the positions in all shipped rows."""
    import pyarrow.parquet as pq

    positions: list[str] = pq.read_table(POSITIONS, columns=["position"])["position"].to_pylist()
    return positions


def _row(task: str, group: str, position: str, better: str, worse: str) -> Row:
    """Build one row. The order in which the two captures are shown depends only on a hash of the row's id."""
    id_ = f"{task}-{group}"
    label = _bit("order", id_)
    candidates = (better, worse) if label == 0 else (worse, better)
    return Row(Example(id_, group, (chess_play.prompt(position),), candidates), label)


def _bit(purpose: str, id_: str) -> int:
    return hashlib.sha256(f"{purpose}\x1f{id_}".encode()).digest()[0] % 2


# --- simple rules -----------------------------------------------------------------------------------------------------


def most_valuable_capture(example: Example) -> int:
    """Choose the capture of the most valuable piece; on a tie, the first capture."""
    return _larger(_taken(example, word) for word in example.candidates)


def least_valuable_piece(example: Example) -> int:
    """Choose the capture made by the least valuable piece, counting the king as 0; on a tie, the first capture."""
    return _larger(-_value(word) for word in example.candidates)


def most_gained(example: Example) -> int:
    """Choose the capture that wins more material if every capturing piece is recaptured; on a tie, the first capture."""
    return _larger(_taken(example, word) - _value(word) for word in example.candidates)


def gain_beside_king(example: Example) -> int:
    """Choose as `most_gained` does, but assume that a capturing piece is recaptured only if it lands beside the black king."""
    board = chess_play.parse(example.segments[0])
    king = board.king(chess.BLACK)
    assert king is not None

    def gain(word: str) -> int:
        retaken = chess.square_distance(king, chess.parse_square(word[1:])) == 1
        return _taken(example, word) - (_value(word) if retaken else 0)

    return _larger(map(gain, example.candidates))


def first_check(example: Example) -> int:
    """Choose the first capture that gives check; if neither does, the first capture."""
    board = chess_play.parse(example.segments[0])
    checks = {chess_play.move_word(board, move) for move in board.legal_moves if board.gives_check(move)}
    return _larger(word in checks for word in example.candidates)


def at_random(example: Example) -> int:
    """Choose a capture pseudo-randomly, by a hash of the example's id."""
    return _bit("random", example.id)


def _larger(values: Iterable[float]) -> int:
    first, second = values
    return int(second > first)


def _taken(example: Example, word: str) -> int:
    standing = {other[1:]: other for other in example.segments[0].split()}
    return _value(standing[word[1:]])


def _value(word: str) -> int:
    return chess_play.VALUES[chess.Piece.from_symbol(word[0]).piece_type]


RULES = {
    "most_valuable_capture": most_valuable_capture,
    "least_valuable_piece": least_valuable_piece,
    "most_gained": most_gained,
    "gain_beside_king": gain_beside_king,
    "first_check": first_check,
    "random": at_random,
}


def _task(name: str, head: str) -> Task:
    return Task(
        name=name,
        family="chess",
        head=head,
        classes=2,
        load=functools.partial(load, name),
        rules=RULES,
        positive="the second capture wins more",
        train_size=3_000,
        test_size=2_400,
        source="generated by python -m w2s_mlflow.tasks.chess",
        license="Apache-2.0",
    )


TASKS = (_task("chess", "lm_choice"), _task("chess_preference", "reward"))


# --- making the shipped file ------------------------------------------------------------------------------------------


def best_and_others(position: Position) -> list[Pair]:
    """Return all pairs of the position's unique best move and a worse capture (task `chess`).

    The list is empty unless the position has a unique best move that is a capture with a unique word.
    """
    exchanges = sorted(move.exchange for move in position.moves)
    pairs = better_and_worse(position) if exchanges[-1] > exchanges[-2] else []
    return [pair for pair in pairs if pair[0].exchange == exchanges[-1]]


def better_and_worse(position: Position) -> list[Pair]:
    """Return all pairs of captures that win unequal material, the better one first (task `chess_preference`)."""
    return [pair for pair in permutations(position.captures(), 2) if pair[0].exchange > pair[1].exchange]


PAIRS = {"chess": best_and_others, "chess_preference": better_and_worse}


def draw(task: str, count: int, seed: int) -> list[GeneratedRow]:
    """Generate `count` rows of a task in the proportions of SHARES. No two rows show the same position or its mirror image."""
    rng = random.Random(streams.integer(seed, streams.TASK_POSITIONS, list(PAIRS).index(task)))
    room = {cell: round(share * count) for cell, share in SHARES.items()}
    rows: dict[str, GeneratedRow] = {}
    for position in chess_play.positions(rng, task=True):
        key = chess_play.position_hash(position.text)
        pairs = [pair for pair in PAIRS[task](position) if room.get(_cell(pair), 0) > 0]
        if not pairs or key in rows:
            continue
        # Choose a pair for the entry of SHARES that lacks the most rows, so that entries with few suitable pairs are filled.
        better, worse = pair = max(rng.sample(pairs, len(pairs)), key=lambda pair: room[_cell(pair)])
        room[_cell(pair)] -= 1
        rows[key] = (task, position.text, better.word, worse.word)
        if not any(room.values()):
            break
    return list(rows.values())


def _cell(pair: Pair) -> tuple[int, int]:
    better, worse = pair
    return _sign(better.captured - worse.captured), _sign(worse.piece - better.piece)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def overlap(task_texts: Iterable[str], pretraining_texts: Iterable[str]) -> int:
    """Count the pretraining texts (positions or prompts) that show a position of the task or its mirror image."""
    task_hashes = {chess_play.position_hash(chess_play.shown(text)) for text in task_texts}
    return sum(chess_play.position_hash(chess_play.shown(text)) in task_hashes for text in pretraining_texts)


def write(rows: Iterable[GeneratedRow], path: Path) -> None:
    """Write the rows, in sorted order, to a parquet file. A hash of the position decides whether a row is held out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = sorted((task, chess_play.position_hash(position)[:16], position, *pair) for task, position, *pair in rows)
    names = ("task", "group", "position", "better", "worse")
    columns: dict[str, list[str] | list[bool]] = {name: [row[column] for row in records] for column, name in enumerate(names)}
    columns["heldout"] = [_is_held_out(row[1]) for row in records]
    pq.write_table(pa.table(columns), path, compression="zstd", compression_level=19)


def _is_held_out(group: str) -> bool:
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32 < HELDOUT / (TRAIN + HELDOUT)


def main() -> None:
    """Generate the rows of both tasks, one process per task, and write the shipped file."""
    parser = argparse.ArgumentParser(description="Generate the positions of the tasks chess and chess_preference.")
    parser.add_argument("--seed", type=int, required=True, help="seed of the random positions")
    parser.add_argument("--out", type=Path, default=POSITIONS, help="parquet file to write")
    options = parser.parse_args()
    with ProcessPoolExecutor(len(PAIRS)) as workers:
        parts = list(workers.map(draw, PAIRS, [TRAIN + HELDOUT] * len(PAIRS), [options.seed] * len(PAIRS)))
    write((row for part in parts for row in part), options.out)


if __name__ == "__main__":
    main()
