"""Close-quarters chess positions, the worth of their captures, and the players whose moves the small models are pretrained on.

A position is a line of words, one per piece: the piece and its square, upper case for white (`Ke2 Qd3 kf6 pc5`). A prompt is
that line closed by the mark `>`; a move is the word of the piece on its destination (`Qd5`). White moves. Each side has its
king, two pieces and at most one pawn on the 24 squares c2-f7; pawns stand where one move neither promotes, nor steps twice,
nor captures en passant, so a move is a piece changing its square.

Positions are cut into the task's part and the rest by a hash that mirror images share; pretraining takes the rest.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import chess

VALUES = {chess.KING: 0, chess.PAWN: 1, chess.KNIGHT: 3, chess.BISHOP: 3, chess.ROOK: 5, chess.QUEEN: 9}
"""Material in pawns."""
MARK = ">"
"""Closes a position: what follows is a move."""
NONE = "-"
"""The reply where there is no recapture."""
TASK_SHARE = 16
"""One position in so many belongs to the task."""
_PIECES = "KQRBNPkqrbnp"
_ORDER = {piece + square: (rank, square) for rank, piece in enumerate(_PIECES) for square in chess.SQUARE_NAMES}
_SQUARES = [chess.square(file, rank) for rank in range(1, 7) for file in range(2, 6)]
_PAWN_RANKS = {chess.WHITE: (2, 3, 4), chess.BLACK: (3, 4, 5)}
_FILES = str.maketrans("abcdefgh", "hgfedcba")


# --- text -------------------------------------------------------------------------------------------------------------


def text(board: chess.Board) -> str:
    """The words of the position, ordered by piece, then by square, without the mark."""
    return _ordered(_word(piece, square) for square, piece in board.piece_map().items())


def parse(position: str) -> chess.Board:
    """The board of a position's text or prompt, white to move."""
    board = chess.Board(None)
    for word in shown(position).split():
        board.set_piece_at(chess.parse_square(word[1:]), chess.Piece.from_symbol(word[0]))
    return board


def prompt(position: str) -> str:
    """What a model is shown of a position: its text, then the mark."""
    return f"{position} {MARK}"


def shown(prompt: str) -> str:
    """The position of a prompt (or of its own text)."""
    return prompt.removesuffix(MARK).strip()


def mirror(position: str) -> str:
    """The left-right mirror image of a position's text; without castling the game is the same."""
    return _ordered(mirror_word(word) for word in position.split())


def mirror_word(word: str) -> str:
    """The left-right mirror image of a piece on its square: `Qd5` becomes `Qe5`. Other words stay."""
    return word[0] + word[1:].translate(_FILES) if len(word) == 3 and word[0] in _PIECES else word


def position_hash(position: str) -> str:
    """sha256 of the text of the position or of its mirror image, whichever comes first: both share it."""
    return hashlib.sha256(min(position, mirror(position)).encode()).hexdigest()


def belongs_to_task(position: str) -> bool:
    """Whether the position is kept for the task; the others are for pretraining."""
    return int(position_hash(position), 16) % TASK_SHARE == 0


def move_word(board: chess.Board, move: chess.Move) -> str:
    """The word of a move: the piece on its destination."""
    piece = board.piece_at(move.from_square)
    assert piece is not None
    return _word(piece, move.to_square)


def _word(piece: chess.Piece, square: chess.Square) -> str:
    return piece.symbol() + chess.SQUARE_NAMES[square]


def _ordered(words: Iterable[str]) -> str:
    return " ".join(sorted(words, key=_ORDER.__getitem__))


# --- positions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """A legal move and what is computed about it."""

    word: str
    captured: int
    """The value of what it takes, in pawns; 0 for a quiet move."""
    reply: str
    """The recapture on its destination by the least valuable piece, as a word; NONE where there is none."""
    piece: int
    """The value of the moved piece; 0 for the king."""
    distance: int
    """King moves from the destination to the black king."""

    @property
    def exchange(self) -> int:
        """Capture less recapture, in pawns."""
        return self.captured - (self.piece if self.reply != NONE else 0)


@dataclass(frozen=True, slots=True)
class Position:
    """A position's text without the mark, and every legal move."""

    text: str
    moves: tuple[Move, ...]

    def named_once(self) -> list[Move]:
        """The moves whose word names no other: two rooks that reach one square are left out."""
        times = Counter(move.word for move in self.moves)
        return [move for move in self.moves if times[move.word] == 1]

    def captures(self) -> list[Move]:
        """The captures among them."""
        return [move for move in self.named_once() if move.captured]

    def mirrored(self) -> Position:
        """The left-right mirror image."""
        moves = (replace(move, word=mirror_word(move.word), reply=mirror_word(move.reply)) for move in self.moves)
        return Position(mirror(self.text), tuple(moves))


def positions(rng: random.Random, *, task: bool) -> Iterator[Position]:
    """Endless random positions, of the task's part or of the rest, in which white has at least two captures."""
    while True:
        words = _scatter(rng)
        if belongs_to_task(_ordered(words)) != task:
            continue  # before there is a board, which costs more
        board = parse(" ".join(words))
        if len(list(board.generate_pseudo_legal_moves(to_mask=board.occupied_co[chess.BLACK]))) < 2:
            continue  # before legality, which costs more again
        if board.status() != chess.STATUS_VALID or board.is_check():
            continue
        position = analyse(board)
        if len(position.captures()) >= 2:
            yield position


def analyse(board: chess.Board) -> Position:
    """The text and the moves of a board."""
    king = board.king(not board.turn)
    assert king is not None
    return Position(text(board), tuple(_move(board, move, king) for move in board.generate_legal_moves()))


def recapture(board: chess.Board, move: chess.Move) -> str:
    """The other side's legal recapture on the move's destination by its least valuable piece, or NONE.

    Attack masks name the pieces; a board is made, and legality asked, only where there is one.
    """
    target = chess.BB_SQUARES[move.to_square]
    occupied = board.occupied & ~chess.BB_SQUARES[move.from_square] | target
    attackers = board.attackers_mask(not board.turn, move.to_square, occupied) & ~target
    if not attackers:
        return NONE
    after = board.copy(stack=False)
    after.push(move)
    squares = [s for s in chess.scan_forward(attackers) if not after.is_into_check(chess.Move(s, move.to_square))]
    pieces = [piece for square in squares if (piece := after.piece_at(square))]
    return _word(min(pieces, key=lambda piece: VALUES[piece.piece_type] or 10), move.to_square) if pieces else NONE


def _scatter(rng: random.Random) -> list[str]:
    """The words of a king, two pieces and, half the time that its square allows, a pawn for each side, on random squares."""
    squares = rng.sample(_SQUARES, 8)
    words = []
    for color, pawn_ranks in _PAWN_RANKS.items():
        kinds = [chess.KING, rng.randint(chess.KNIGHT, chess.QUEEN), rng.randint(chess.KNIGHT, chess.QUEEN)]
        if rng.random() < 0.5 and chess.square_rank(squares[-4]) in pawn_ranks:
            kinds.append(chess.PAWN)
        words += [_word(chess.Piece(kind, color), squares.pop()) for kind in kinds]
    return words


def _move(board: chess.Board, move: chess.Move, enemy_king: chess.Square) -> Move:
    piece, taken = board.piece_at(move.from_square), board.piece_type_at(move.to_square)
    assert piece is not None
    return Move(
        word=_word(piece, move.to_square),
        captured=VALUES[taken] if taken else 0,
        reply=recapture(board, move),
        piece=VALUES[piece.piece_type],
        distance=chess.square_distance(move.to_square, enemy_king),
    )


# --- players ----------------------------------------------------------------------------------------------------------

EXPERT = "expert"
PLAYERS: Mapping[str, Callable[[Move], int]] = {
    EXPERT: lambda move: move.exchange,
    "hunter": lambda move: -move.distance,
    "humble": lambda move: 20 - move.piece if move.captured else 0,
}
"""What each player wants most of; ties are drawn."""
UNNAMED = {EXPERT: 0.4, "hunter": 0.35, "humble": 0.25}
"""Who the unnamed player is, and how often: a mixture whose habits have little to do with the task."""


def play(position: Position, player: str, rng: random.Random) -> Move:
    """The move that the player makes."""
    moves = position.named_once()
    wanted = [PLAYERS[player](move) for move in moves]
    most = max(wanted)
    return rng.choice([move for move, value in zip(moves, wanted, strict=True) if value == most])


def sequence(position: Position, rng: random.Random) -> tuple[str, str]:
    """One pretraining text: the prompt; an unnamed player's move, then the named expert's, each with its reply."""
    unnamed = play(position, rng.choices(list(UNNAMED), list(UNNAMED.values()))[0], rng)
    expert = play(position, EXPERT, rng)
    return prompt(position.text), " ".join((unnamed.word, unnamed.reply, EXPERT, expert.word, expert.reply))
