"""Functions that cut puzzles from chess games. A puzzle is a position with exactly one best move.

The move is found by an exhaustive search for mate or by a UCI engine.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import chess
import chess.engine

from w2s_mlflow.exceptions import ConfigError, first_line
from w2s_mlflow.tasks._rows import SkippedRow, Source, draw

PLIES = 4
"""Number of positions per game that are searched for mate. They are those before each of the game's last PLIES moves."""
TRIES = 5
"""Maximum number of positions per game that the engine analyses. They are sampled by a hash of game id and ply."""
OPENING = 10
"""Number of plies at the start of a game that the engine does not analyse, because they are known from opening theory."""
HASH_MB = 16
ANSWER_S = 60.0
"""Timeout for an engine's answer, in seconds."""

Best = Callable[[chess.Board], chess.Move | None]
"""Function that returns the best move of a position, or None unless exactly one move is best."""
Game = tuple[str, list[chess.Move]]
"""Id and moves of a game."""


def games(rows: Iterable[Source]) -> Iterator[Game | SkippedRow]:
    """Yield the games of Kaggle's table of Lichess games. For a game with an illegal move, yield a SkippedRow instead.

    The table has the columns `id` and `moves`, in SAN. A game without an id or without moves has no puzzle.
    """
    for row in rows:
        board = chess.Board()
        try:
            yield row["id"] or "", [board.push_san(word) for word in (row["moves"] or "").split()]
        except ValueError:
            yield SkippedRow("has an illegal move")


def cut_puzzles(games: Iterable[Game | SkippedRow], best: Best, *, by_engine: bool) -> Iterator[Source | SkippedRow]:
    """Yield one puzzle per game, or a SkippedRow if the game contains no puzzle.

    A puzzle has the columns of Lichess's puzzles, and the additional column `Game` with the moves that precede the position.

    Args:
        best: function that returns the best move of a position, or None unless exactly one move is best.
        by_engine: whether `best` uses an engine. If so, positions are sampled from the whole game after its opening; otherwise
            only the last positions of the game are examined.
    """
    for game in games:
        if isinstance(game, SkippedRow):
            yield game
        else:
            yield _puzzle(*game, best, _sampled_plies(*game) if by_engine else _last_plies(*game))


def _last_plies(id_: str, moves: list[chess.Move]) -> list[int]:
    return list(range(max(1, len(moves) - PLIES), len(moves)))


def _sampled_plies(id_: str, moves: list[chess.Move]) -> list[int]:
    return sorted(range(OPENING, len(moves)), key=lambda ply: draw("ply", f"{id_}-{ply}", 2**62))[:TRIES]


def _puzzle(id_: str, moves: list[chess.Move], best: Best, plies: Iterable[int]) -> Source | SkippedRow:
    for ply in plies:
        before, game = chess.Board(), []
        for move in moves[: ply - 1]:
            game.append(before.san_and_push(move))
        board = before.copy(stack=False)
        game.append(board.san_and_push(moves[ply - 1]))
        if solution := best(board):
            return {
                "PuzzleId": f"{id_}-{ply}",
                "FEN": before.fen(),
                "Moves": f"{moves[ply - 1].uci()} {solution.uci()}",
                "GameUrl": f"https://lichess.org/{id_}#{ply}",
                "Game": " ".join(game),
            }
    return SkippedRow("has no position with exactly one best move")


# --- exact search -----------------------------------------------------------------------------------------------------


def only_mate(board: chess.Board) -> chess.Move | None:
    """Return the only mating move or, if no move mates, the only move that forces mate in two.

    Return None if there is no such move or more than one. The search is exhaustive: it covers every move and every reply.
    """
    mating = mating_moves(board)
    moves = mating or [move for move in board.legal_moves if forces_mate(board, move)]
    return moves[0] if len(moves) == 1 else None


def mating_moves(board: chess.Board) -> list[chess.Move]:
    """Return the moves that give checkmate."""
    return [move for move in board.legal_moves if mates(board, move)]


def mates(board: chess.Board, move: chess.Move) -> bool:
    """Return whether a legal move gives checkmate. The move is first tested with `gives_check`, because this is cheaper."""
    return board.gives_check(move) and _after(board, move).is_checkmate()


def forces_mate(board: chess.Board, move: chess.Move) -> bool:
    """Return whether `move` forces mate in two: the opponent has a reply, and each reply allows a mating move."""
    after = _after(board, move)
    replies = list(after.legal_moves)
    return bool(replies) and all(mating_moves(_after(after, reply)) for reply in replies)


def _after(board: chess.Board, move: chess.Move) -> chess.Board:
    after = board.copy(stack=False)
    after.push(move)
    return after


# --- an engine --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def engine(path: Path, nodes: int, margin: int) -> Iterator[Best]:
    """Start a UCI engine and yield a function that returns the best move of a position, or None.

    The function returns None unless the best move is at least `margin` centipawns better than the second best. Its answers are
    reproducible, because the engine uses one thread, a fixed number of nodes and an empty hash table for each position.

    Raises:
        ConfigError: the program does not start, is not a UCI engine, exits early, or does not answer in time.
    """
    # Silence asyncio, which would otherwise print a traceback in addition to our one-line error.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        with (
            chess.engine.SimpleEngine.popen_uci(str(path), timeout=ANSWER_S) as process,
            _drop_pending_commands(process),
        ):
            process.configure(
                {name: value for name, value in {"Threads": 1, "Hash": HASH_MB}.items() if name in process.options}
            )
            yield lambda board: _best(process, board, nodes, margin)
    except (OSError, TimeoutError, chess.engine.EngineError) as error:
        reason = first_line(error) if str(error).strip() else "it does not answer"
        raise ConfigError(f"--engine must be a UCI engine, got {path}: {reason}") from error


@contextlib.contextmanager
def _drop_pending_commands(process: chess.engine.SimpleEngine) -> Iterator[None]:
    """Drop the engine's pending commands on exit, because they would keep the engine's thread alive forever."""

    def drop() -> None:
        process.protocol.command = process.protocol.next_command = None

    try:
        yield
    finally:
        process.protocol.loop.call_soon_threadsafe(drop)


def _best(process: chess.engine.SimpleEngine, board: chess.Board, nodes: int, margin: int) -> chess.Move | None:
    if board.legal_moves.count() < 2:
        return None
    lines = process.analyse(board, chess.engine.Limit(nodes=nodes, time=ANSWER_S), multipv=2, game=object())
    scores = [line["score"].relative.score(mate_score=100_000) for line in lines if "score" in line and line.get("pv")]
    if len(scores) < 2 or scores[0] is None or scores[1] is None or scores[0] - scores[1] < margin:
        return None
    return lines[0]["pv"][0]
