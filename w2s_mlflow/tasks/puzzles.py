"""Puzzles from real chess games. They come from Lichess or a file with Lichess's columns, or are cut from a table of games.

`puzzles` asks whether the shown move is the solution (1) or another legal move (0); a hash of the id decides which is shown.
The other move is as forcing as the solution: it is a check or a capture if and only if the solution is. Otherwise this one
question would answer most puzzles.
`puzzles_best` asks which of the 1,968 UCI moves is the solution. Both show the board; `puzzles_moves` and `puzzles_moves_best`
show the preceding moves instead. Followed by `:PATH`, the same four names read a file with Lichess's columns (PuzzleId, FEN,
Moves, GameUrl). `games:PATH` and its variants read Kaggle's table of games (columns id and moves). They use positions near the
end of a game that have exactly one mating move or, if no move mates, exactly one that forces mate in two. To cut other puzzles
with an engine, run once:

    python -m w2s_mlflow.tasks.puzzles --games games.csv --engine /usr/games/stockfish --out puzzles.csv

Rows of the same game or position form one group. Ratings and themes are kept in a run's rows.parquet. A board is written as a
list of pieces on their squares, because tokenizers split the letters and digits of FEN at arbitrary places.
"""

from __future__ import annotations

import argparse
import csv
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import chess
import numpy as np

from w2s_mlflow.data.tables import Kind, UserTable
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local.scratch import replacing
from w2s_mlflow.records import Rows
from w2s_mlflow.tasks import Task, _files, _hub
from w2s_mlflow.tasks import _puzzle_search as search
from w2s_mlflow.tasks._groups import Key, by_id
from w2s_mlflow.tasks._rows import ParsedRow, SkippedRow, Source, assemble, draw

if TYPE_CHECKING:
    import pyarrow as pa

LIMIT = 50_000
"""Maximum number of puzzles used from a source, since Lichess has millions. Puzzles with the smallest id hashes are kept."""
BEYOND = "is over the row limit"
COLUMNS = ("PuzzleId", "FEN", "Moves", "GameUrl", "Game")
"""Columns of the CSV file that the command `python -m w2s_mlflow.tasks.puzzles` writes."""
NEEDED = COLUMNS[:3]
ABOUT = ("Rating", "Themes")
"""Columns kept for analysis: the difficulty of a puzzle for people, and its tactical motifs."""
PUZZLES: Mapping[str, Kind] = {**dict.fromkeys(COLUMNS, "text"), **dict.fromkeys(ABOUT, "any")}
GAMES: Mapping[str, Kind] = {"id": "text", "moves": "text"}
TABLE = _hub.Table(path="Lichess/chess-puzzles", revision="main", columns=dict.fromkeys(COLUMNS[:4], "text"), optional=ABOUT)
PIECES = "KQRBNP"


def _moves() -> Iterator[str]:
    for start in chess.SQUARES:
        ends = chess.BB_KNIGHT_ATTACKS[start] | chess.BB_RANK_ATTACKS[start][0] | chess.BB_FILE_ATTACKS[start][0]
        ends |= chess.BB_DIAG_ATTACKS[start][0]
        for end in chess.scan_forward(ends):
            yield chess.Move(start, end).uci()
            ranks = (chess.square_rank(start), chess.square_rank(end))
            if ranks in ((6, 7), (1, 0)) and abs(chess.square_file(start) - chess.square_file(end)) <= 1:
                yield from (chess.Move(start, end, promotion=piece).uci() for piece in range(chess.KNIGHT, chess.KING))


UCI_MOVES = tuple(sorted(_moves()))
"""Classes of the `_best` tasks: all queen and knight moves from every square, and the promotions."""
NUMBER = {move: number for number, move in enumerate(UCI_MOVES)}


# --- one puzzle -------------------------------------------------------------------------------------------------------


def read(row: Source, part: str, *, moves: bool, best: bool) -> ParsedRow:
    """Parse one puzzle.

    Args:
        moves: whether to show the moves that led to the position instead of the board.
        best: whether the row asks for the best move, instead of asking whether a given move is the best.
    """
    if not row["PuzzleId"]:
        raise SkippedRow("has no id")
    before, board, solution = _position(row)
    id_ = row["PuzzleId"]
    shown = _preceding_moves(row, before, board.peek()) if moves else text(board)
    groups = by_id(position=f"{board.board_fen()} {board.turn}") + _game(row)
    about = {name: row[name] for name in ABOUT if row.get(name) is not None}
    if best:
        return ParsedRow(id_, (shown,), NUMBER[solution.uci()], groups, about=about, compared=())
    label = draw("candidate", id_, 2)
    others = _as_forcing(board, solution)
    candidate = solution.uci() if label else others[draw("wrong", id_, len(others))]
    return ParsedRow(id_, (shown, candidate), label, groups, about=about, compared=())


def _position(row: Source) -> tuple[chess.Board, chess.Board, chess.Move]:
    """Return the board before the opponent's last move, the puzzle's board (after that move), and the solution.

    Castling is one move, however it is written: Lichess also writes it as in Chess960, as the king's move to its rook (e1h1).

    Raises SkippedRow if the position or a move is illegal, if only one move is legal, or if several moves give mate.
    """
    try:
        before = chess.Board(row["FEN"])
        if not before.is_valid():
            raise ValueError
    except (ValueError, TypeError):
        raise SkippedRow("has an illegal position") from None
    board = before.copy(stack=False)
    try:
        opponent, answer = str(row["Moves"]).split()[:2]
        board.push(_legal(board, opponent))
        solution = _legal(board, answer)
    except ValueError:
        raise SkippedRow("has an illegal move") from None
    if board.legal_moves.count() < 2:
        raise SkippedRow("has only one legal move")
    if search.mates(board, solution) and len(search.mating_moves(board)) > 1:
        raise SkippedRow("has several mating moves")
    return before, board, solution


def _as_forcing(board: chess.Board, solution: chess.Move) -> list[str]:
    """Return the wrong moves that are as forcing as the solution, sorted: those that are checks and captures as it is.

    If there is none, return those that are a check or a capture as it is. Raises SkippedRow if there is none of these either.
    """
    wanted = _forcing(board, solution)
    kinds = {move.uci(): _forcing(board, move) for move in board.legal_moves if move != solution}
    alike = [move for move, kind in kinds.items() if kind == wanted]
    alike = alike or [move for move, kind in kinds.items() if any(kind) == any(wanted)]
    if not alike:
        raise SkippedRow("has no wrong move that is as forcing as the solution")
    return sorted(alike)


def _forcing(board: chess.Board, move: chess.Move) -> tuple[bool, bool]:
    """Return whether a move gives check and whether it is a capture."""
    return board.gives_check(move), board.is_capture(move)


def _legal(board: chess.Board, word: str) -> chess.Move:
    """Return the legal move that a word of UCI stands for. Raises ValueError if there is none."""
    move = board.parse_uci(word)
    if not move:  # the null move 0000
        raise ValueError(word)
    return move


def text(board: chess.Board) -> str:
    """Return a board in words, such as `White: Kg1 Qd3 Pa2. Black: Kg8. White to move.`

    Castling rights and the en passant square are added if the position has them.
    """
    sides = (f"{name}: {' '.join(_pieces(board, color))}." for name, color in (("White", True), ("Black", False)))
    castling = [] if board.castling_xfen() == "-" else [f"Castling: {board.castling_xfen()}."]
    passing = [f"En passant: {chess.square_name(board.ep_square)}."] if board.has_legal_en_passant() and board.ep_square else []
    return " ".join([*sides, *castling, *passing, f"{'White' if board.turn else 'Black'} to move."])


def _pieces(board: chess.Board, color: chess.Color) -> Iterator[str]:
    for symbol in PIECES:
        for square in board.pieces(chess.Piece.from_symbol(symbol).piece_type, color):
            yield symbol + chess.square_name(square)


def _preceding_moves(row: Source, before: chess.Board, last: chess.Move) -> str:
    if row.get("Game"):
        return str(row["Game"])
    return f"{text(before)} Then {last.uci()}."


def _game(row: Source) -> tuple[Key, ...]:
    """Return a tuple that holds the group key of the row's game, or an empty tuple if the row has no URL of a game.

    The key is made from the URL without its ply and its side.
    """
    address = str(row.get("GameUrl") or "").partition("#")[0].removesuffix("/black").removesuffix("/white")
    return by_id(game=address)


# --- sources ----------------------------------------------------------------------------------------------------------


def _load_hub(name: str, reader: Callable[[Source, str], ParsedRow], data_dir: Path | None) -> Rows:
    table = _hub.arrow(TABLE, "train", name, data_dir)
    sample = _sample(table)
    rows = (row for batch in sample.to_batches(max_chunksize=_hub.BATCH) for row in batch.to_pylist())
    return _add_skipped(assemble(reader, rows, None), {BEYOND: table.num_rows - sample.num_rows})


def _sample(table: pa.Table) -> pa.Table:
    """Return at most LIMIT rows: those with the smallest id hashes. Only ids are converted to Python objects."""
    if table.num_rows <= LIMIT:
        return table
    batches = table.select(["PuzzleId"]).to_batches(max_chunksize=_hub.BATCH)
    hashes = np.fromiter((_sampling_key(row) for batch in batches for row in batch.to_pylist()), np.int64, table.num_rows)
    return table.take(np.sort(np.argpartition(hashes, LIMIT)[:LIMIT]))


def _sampling_key(row: Source) -> int:
    return draw("kept", str(row["PuzzleId"]), 2**62)


def _load_puzzles(table: UserTable, reader: Callable[[Source, str], ParsedRow]) -> Rows:
    rows = [row for _, row in table.rows(PUZZLES, NEEDED)]
    sample = rows if len(rows) <= LIMIT else sorted(rows, key=_sampling_key)[:LIMIT]
    return _add_skipped(assemble(reader, sample, None), {BEYOND: len(rows) - len(sample)})


def _load_games(table: UserTable, reader: Callable[[Source, str], ParsedRow]) -> Rows:
    games = search.games(row for _, row in table.rows(GAMES, needed=GAMES))
    puzzles, skipped = _separate_skipped(search.cut_puzzles(games, search.only_mate, by_engine=False))
    return _add_skipped(assemble(reader, puzzles, None), skipped)


def _separate_skipped(rows: Iterable[Source | SkippedRow]) -> tuple[list[Source], Counter[str]]:
    puzzles, skipped = [], Counter[str]()
    for puzzle in rows:
        if isinstance(puzzle, SkippedRow):
            skipped[str(puzzle)] += 1
        else:
            puzzles.append(puzzle)
    return puzzles, skipped


def _add_skipped(rows: Rows, skipped: Mapping[str, int]) -> Rows:
    more = {reason: count for reason, count in skipped.items() if count}
    return replace(rows, skipped=dict(Counter(rows.skipped) + Counter(more)))


# --- tasks ------------------------------------------------------------------------------------------------------------


def _task(name: str, suffix: str, load: Callable[[Path | None], Rows], source: str, key: str = "") -> Task:
    best = suffix.endswith("_best")
    return Task(
        name=name,
        family="puzzles",
        head="classification",
        classes=len(UCI_MOVES) if best else 2,
        load=load,
        train_size=_hub.TRAIN_SIZE,
        test_size=_hub.TEST_SIZE,
        positive="(a class is a move)" if best else "the move is the puzzle's solution",
        source=source,
        license="CC0-1.0" if source == str(TABLE) else "the file's own",
        key=key,
    )


def _reader(suffix: str) -> Callable[[Source, str], ParsedRow]:
    return functools.partial(read, moves="_moves" in suffix, best=suffix.endswith("_best"))


def _hub_task(suffix: str) -> Task:
    name = f"puzzles{suffix}"
    return _task(name, suffix, lambda data_dir: _load_hub(name, _reader(suffix), data_dir), str(TABLE))


def _file_task(kind: str, suffix: str, path: str) -> Task:
    name, load = f"{kind}{suffix}:{path}", {"puzzles": _load_puzzles, "games": _load_games}[kind]
    table = _files.opened(name)
    return _task(name, suffix, lambda data_dir: load(table, _reader(suffix)), table.file.name, table.file.stem)


FORMS = ("", "_moves", "_best", "_moves_best")
TASKS = tuple(_hub_task(suffix) for suffix in FORMS)
FILES = {f"{kind}{suffix}": functools.partial(_file_task, kind, suffix) for kind in ("puzzles", "games") for suffix in FORMS}


# --- cutting puzzles into a file --------------------------------------------------------------------------------------


def write(games: Path, out: Path, engine: Path | None, nodes: int, margin: int) -> Counter[str]:
    """Cut puzzles from a table of games, write them atomically to a CSV file, and count the puzzles and the skipped games.

    Raises:
        ConfigError: the table or the engine is missing or unusable.
    """
    parsed = search.games(row for _, row in UserTable.open("--games", games).rows(GAMES, needed=GAMES))
    if engine is None:
        puzzles, counts = _separate_skipped(search.cut_puzzles(parsed, search.only_mate, by_engine=False))
    else:
        with search.engine(engine, nodes, margin) as best:
            puzzles, counts = _separate_skipped(search.cut_puzzles(parsed, best, by_engine=True))
    with replacing(out) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(puzzles)
    counts["puzzles"] = len(puzzles)
    return counts


def main() -> None:
    """Run the command: write the puzzles and print the counts. On wrong input, exit with status 2 and a one-line message."""
    parser = argparse.ArgumentParser(description="Cut chess puzzles from a table of games.")
    parser.add_argument("--games", type=Path, required=True, help="table with the columns id and moves (in SAN)")
    parser.add_argument("--out", type=Path, required=True, help="CSV file to write")
    parser.add_argument(
        "--engine",
        type=Path,
        help="UCI engine that finds the best moves; without it, only mates in one or two moves are searched for",
    )
    parser.add_argument("--nodes", type=int, default=20_000, help="number of nodes that the engine searches per position")
    parser.add_argument("--margin", type=int, default=200, help="centipawns by which the best move must beat the second best")
    options = parser.parse_args()
    try:
        counts = write(options.games, options.out, options.engine, options.nodes, options.margin)
    except (ConfigError, OSError) as error:
        print(f"w2s_mlflow: {error}", file=sys.stderr)
        sys.exit(2)
    for reason, count in counts.items():
        print(f"{count} {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
