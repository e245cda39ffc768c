"""Puzzles cut from games: positions with exactly one best move, found by exhaustive mate search or a UCI engine."""

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
"""Number of positions per game that are searched for mate: those before each of its last PLIES moves."""
TRIES = 5
"""Maximum number of positions per game that the engine analyses, sampled by a hash of game id and ply."""
OPENING = 10
"""Number of plies at the start of a game that the engine does not analyse, because they are opening theory."""
HASH_MB = 16
ANSWER_S = 60.0
"""Timeout for an engine's answer, in seconds."""

Best = Callable[[chess.Board], chess.Move | None]
"""Function that returns the single best move of a position, or None if there is none or more than one."""
Game = tuple[str, list[chess.Move]]
"""Id and moves of a game."""


def games(rows: Iterable[Source]) -> Iterator[Game | SkippedRow]:
    """Yield the games of Kaggle's Lichess table (columns `id` and `moves`, in SAN). An illegal move yields a SkippedRow."""
    for row in rows:
        board = chess.Board()
        try:
            yield str(row["id"]), [board.push_san(word) for word in (row["moves"] or "").split()]
        except ValueError:
            yield SkippedRow("has an illegal move")


def cut_puzzles(games: Iterable[Game | SkippedRow], best: Best, *, by_engine: bool) -> Iterator[Source | SkippedRow]:
    """Yield one puzzle per game, or a SkippedRow if the game contains no puzzle.

    A puzzle has the columns of Lichess's puzzles, and a column `Game` with the moves that precede the position.

    Args:
        best: function that returns a position's single best move, if any.
        by_engine: whether `best` asks an engine. If so, positions are sampled from the whole game after its opening; otherwise
            the last positions of the game are used.
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

    If there is no such move or more than one, the result is None. The search is exhaustive: it covers every move and reply.
    """
    mating = mating_moves(board)
    moves = mating or [move for move in board.legal_moves if forces_mate(board, move)]
    return moves[0] if len(moves) == 1 else None


def mating_moves(board: chess.Board) -> list[chess.Move]:
    """Return the moves that give checkmate."""
    return [move for move in board.legal_moves if mates(board, move)]


def mates(board: chess.Board, move: chess.Move) -> bool:
    """Return whether a legal move gives checkmate. `gives_check` is tested first, because it is cheaper."""
    return board.gives_check(move) and _after(board, move).is_checkmate()


def forces_mate(board: chess.Board, move: chess.Move) -> bool:
    """Return whether `move` forces mate on the next move: the opponent has a reply, and each reply allows a mating move."""
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

    The function returns None unless the best move is at least `margin` centipawns better than the second best. One thread, a
    fixed number of nodes and an empty hash table for each position make the answers reproducible.

    Raises:
        ConfigError: the program does not start, does not speak UCI, exits, or does not answer.
    """
    # Without this, asyncio would print a traceback in addition to our one-line error.
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
    """Drop pending engine commands on exit; otherwise the engine's thread would never end."""

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
