"""Features of a capture on which simple rules are searched (the rules `searched_rule` and `attack_lines`).

CHEAP needs no knowledge of how pieces attack, except for check. LINES counts the black pieces that would attack the destination
if nothing stood between. That is knowledge of the game and no shortcut, so the rules over both lists are reported apart.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import chess

from w2s_mlflow.records import Example
from w2s_mlflow.tasks import _chess_play as chess_play

FAR = 8
"""Distance to a piece that does not exist: one more than the greatest distance on the board."""
NEAR = 2
"""Greatest distance, in king moves, at which a piece counts as near."""
CENTRE = 3.5
"""Middle of the files, which are numbered from 0 to 7."""


def value_taken(example: Example, move: str) -> float:
    """Return the value of the captured piece, in pawns."""
    taken = _board(example).piece_type_at(_destination(move))
    return chess_play.VALUES[taken] if taken else 0


def value_of_piece(example: Example, move: str) -> float:
    """Return the value of the capturing piece, in pawns; 0 for the king."""
    return chess_play.VALUES[chess.Piece.from_symbol(move[0]).piece_type]


def black_king_distance(example: Example, move: str) -> float:
    """Return the distance from the destination to the black king, in king moves."""
    return _king_distance(example, move, chess.BLACK)


def beside_black_king(example: Example, move: str) -> float:
    """Return 1 if the destination is beside the black king, else 0."""
    return float(black_king_distance(example, move) == 1)


def white_king_distance(example: Example, move: str) -> float:
    """Return the distance from the destination to the white king; 0 if the king captures."""
    return 0 if move[0] == "K" else _king_distance(example, move, chess.WHITE)


def nearest_black_piece(example: Example, move: str) -> float:
    """Return the distance from the destination to the nearest black piece besides the king and the captured piece."""
    return min(_distances(example, move), default=FAR)


def near_black_pieces(example: Example, move: str) -> float:
    """Return the number of black pieces, besides the king and the captured piece, that are near the destination."""
    return sum(distance <= NEAR for distance in _distances(example, move))


def file(example: Example, move: str) -> float:
    """Return the file of the destination, from 0 (a) to 7 (h)."""
    return chess.square_file(_destination(move))


def rank(example: Example, move: str) -> float:
    """Return the rank of the destination, from 0 to 7."""
    return chess.square_rank(_destination(move))


def off_centre(example: Example, move: str) -> float:
    """Return how far the file of the destination is from the middle of the board."""
    return abs(chess.square_file(_destination(move)) - CENTRE)


def gives_check(example: Example, move: str) -> float:
    """Return 1 if the capture gives check, else 0."""
    board = _board(example)
    captures = board.generate_legal_moves(to_mask=chess.BB_SQUARES[_destination(move)])
    return float(any(board.gives_check(capture) for capture in captures if chess_play.move_word(board, capture) == move))


def files_and_ranks(example: Example, move: str) -> float:
    """Return the number of black rooks and queens on the file or rank of the destination."""
    return _aligned(example, move, (chess.ROOK, chess.QUEEN), lambda files, ranks: min(files, ranks) == 0)


def diagonals(example: Example, move: str) -> float:
    """Return the number of black bishops and queens on a diagonal of the destination."""
    return _aligned(example, move, (chess.BISHOP, chess.QUEEN), lambda files, ranks: files == ranks)


def knights(example: Example, move: str) -> float:
    """Return the number of black knights that attack the destination."""
    return _aligned(example, move, (chess.KNIGHT,), lambda files, ranks: {files, ranks} == {1, 2})


def pawns(example: Example, move: str) -> float:
    """Return the number of black pawns that attack the destination, from one rank above it."""
    square = _destination(move)
    return sum(
        kind == chess.PAWN
        and abs(chess.square_file(other) - chess.square_file(square)) == 1
        and chess.square_rank(other) - chess.square_rank(square) == 1
        for other, kind in _other_black_pieces(example, move)
    )


CHEAP: dict[str, Callable[[Example, str], float]] = {
    feature.__name__: feature
    for feature in (
        *(value_taken, value_of_piece, black_king_distance, beside_black_king, white_king_distance),
        *(nearest_black_piece, near_black_pieces, file, rank, off_centre, gives_check),
    )
}
LINES: dict[str, Callable[[Example, str], float]] = {
    feature.__name__: feature for feature in (files_and_ranks, diagonals, knights, pawns)
}
FEATURES = {"searched_rule": CHEAP, "attack_lines": CHEAP | LINES}
"""Lists of features, by the name of the rule that is searched over them."""


# --- the board --------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2**14)
def _parsed(position: str) -> chess.Board:
    return chess_play.parse(position)


def _board(example: Example) -> chess.Board:
    return _parsed(chess_play.shown(example.segments[0]))


@functools.lru_cache(maxsize=2**14)
def _black_pieces(position: str) -> tuple[tuple[chess.Square, chess.PieceType], ...]:
    """Return the square and the type of each black piece besides the king."""
    pieces = _parsed(position).piece_map().items()
    return tuple((square, p.piece_type) for square, p in pieces if p.color == chess.BLACK and p.piece_type != chess.KING)


def _destination(move: str) -> chess.Square:
    return chess.parse_square(move[1:])


def _king_distance(example: Example, move: str, colour: chess.Color) -> float:
    king = _board(example).king(colour)
    return FAR if king is None else chess.square_distance(king, _destination(move))


def _other_black_pieces(example: Example, move: str) -> list[tuple[chess.Square, chess.PieceType]]:
    """Return the square and the type of each black piece besides the king and the captured piece."""
    taken = _destination(move)
    return [(square, kind) for square, kind in _black_pieces(chess_play.shown(example.segments[0])) if square != taken]


def _distances(example: Example, move: str) -> list[int]:
    return [chess.square_distance(square, _destination(move)) for square, _ in _other_black_pieces(example, move)]


def _aligned(example: Example, move: str, kinds: tuple[chess.PieceType, ...], attacks: Callable[[int, int], bool]) -> float:
    """Count the black pieces of some kinds whose distances in files and ranks `attacks` accepts."""
    square = _destination(move)
    return sum(
        kind in kinds
        and attacks(
            abs(chess.square_file(other) - chess.square_file(square)), abs(chess.square_rank(other) - chess.square_rank(square))
        )
        for other, kind in _other_black_pieces(example, move)
    )
