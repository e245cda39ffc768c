"""Chess positions on 24 squares, the material that captures win, and simulated players for the models' pretraining texts.

The text of a position has one word per piece: the letter of the piece, in upper case for White, and its square (`Ke2 Qd3 kf6
pc5`). A prompt is this text followed by `>`. A move is one word: the letter of the moved piece and its destination (`Qd5`).
White is to move. Each side has its king, two pieces and at most one pawn on the 24 squares c2-f7. Pawns stand only where their
next move cannot be a promotion, a double step or an en passant capture, so every move changes the square of one piece.

A hash assigns each position either to the task or to pretraining. A position and its mirror image have the same hash.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import chess

VALUES = {chess.KING: 0, chess.PAWN: 1, chess.KNIGHT: 3, chess.BISHOP: 3, chess.ROOK: 5, chess.QUEEN: 9}
"""Value of each kind of piece, in pawns."""
MARK = ">"
"""Special token that ends a prompt; a move follows."""
NONE = "-"
"""Special token that stands in place of the reply to a move if the opponent cannot recapture."""
TASK_SHARE = 16
"""One position in this many is reserved for the task; the others are for pretraining."""
_PIECES = "KQRBNPkqrbnp"
_ORDER = {piece + square: (rank, square) for rank, piece in enumerate(_PIECES) for square in chess.SQUARE_NAMES}
_SQUARES = [chess.square(file, rank) for rank in range(1, 7) for file in range(2, 6)]
_PAWN_RANKS = {chess.WHITE: (2, 3, 4), chess.BLACK: (3, 4, 5)}
_FILES = str.maketrans("abcdefgh", "hgfedcba")


# --- text -------------------------------------------------------------------------------------------------------------


def text(board: chess.Board) -> str:
    """Return the text of a position: its words, sorted by piece and then by square. MARK is not part of it."""
    return _ordered(_word(piece, square) for square, piece in board.piece_map().items())


def parse(position: str) -> chess.Board:
    """Return the board described by a position's text or prompt, with White to move."""
    board = chess.Board(None)
    for word in shown(position).split():
        board.set_piece_at(chess.parse_square(word[1:]), chess.Piece.from_symbol(word[0]))
    return board


def prompt(position: str) -> str:
    """Return the prompt of a position: its text, then MARK."""
    return f"{position} {MARK}"


def shown(prompt: str) -> str:
    """Return the text of a position. The argument is either the position's prompt or its text."""
    return prompt.removesuffix(MARK).strip()


def mirror(position: str) -> str:
    """Return the left-right mirror image of a position's text. Because castling is impossible, it is equivalent for play."""
    return _ordered(mirror_word(word) for word in position.split())


def mirror_word(word: str) -> str:
    """Return the left-right mirror image of a piece on its square: `Qd5` becomes `Qe5`. Other words are unchanged."""
    return word[0] + word[1:].translate(_FILES) if len(word) == 3 and word[0] in _PIECES else word


def position_hash(position: str) -> str:
    """Return a sha256 that is the same for a position and its mirror image: that of whichever of the two texts sorts first."""
    return hashlib.sha256(min(position, mirror(position)).encode()).hexdigest()


def belongs_to_task(position: str) -> bool:
    """Return True if the position is reserved for the task, False if it is for pretraining."""
    return int(position_hash(position), 16) % TASK_SHARE == 0


def move_word(board: chess.Board, move: chess.Move) -> str:
    """Return the word of a move: the letter of the moved piece and its destination."""
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
    """A legal move, with properties computed from the board."""

    word: str
    captured: int
    """Value of the captured piece, in pawns; 0 for a quiet move."""
    reply: str
    """Word of the opponent's recapture on the destination with its least valuable piece; NONE if it cannot recapture."""
    piece: int
    """Value of the moved piece; 0 for the king."""
    distance: int
    """Number of king moves from the destination to the black king."""

    @property
    def exchange(self) -> int:
        """Material won, in pawns: the value captured, minus the value of the moved piece if it can be recaptured."""
        return self.captured - (self.piece if self.reply != NONE else 0)


@dataclass(frozen=True, slots=True)
class Position:
    """Text of a position, without MARK, and all its legal moves."""

    text: str
    moves: tuple[Move, ...]

    def named_once(self) -> list[Move]:
        """Return the moves whose word is unique. For example, the moves of two rooks to the same square share a word."""
        times = Counter(move.word for move in self.moves)
        return [move for move in self.moves if times[move.word] == 1]

    def captures(self) -> list[Move]:
        """Return the captures among the moves whose word is unique."""
        return [move for move in self.named_once() if move.captured]

    def mirrored(self) -> Position:
        """Return the left-right mirror image of the position and its moves."""
        moves = (replace(move, word=mirror_word(move.word), reply=mirror_word(move.reply)) for move in self.moves)
        return Position(mirror(self.text), tuple(moves))


def positions(rng: random.Random, *, task: bool) -> Iterator[Position]:
    """Yield random positions, without end, for the task (`task=True`) or for pretraining. Each allows at least two captures."""
    while True:
        words = _scatter(rng)
        if belongs_to_task(_ordered(words)) != task:
            continue  # this is the cheapest check, because it needs no board
        board = parse(" ".join(words))
        if len(list(board.generate_pseudo_legal_moves(to_mask=board.occupied_co[chess.BLACK]))) < 2:
            continue  # counting pseudo-legal captures is cheaper than checking legality, so it comes first
        if board.status() != chess.STATUS_VALID or board.is_check():
            continue
        position = analyse(board)
        if len(position.captures()) >= 2:
            yield position


def analyse(board: chess.Board) -> Position:
    """Return the position on a board: its text and its legal moves."""
    king = board.king(not board.turn)
    assert king is not None
    return Position(text(board), tuple(_move(board, move, king) for move in board.generate_legal_moves()))


def recapture(board: chess.Board, move: chess.Move) -> str:
    """Return the word of the opponent's legal recapture with its least valuable piece (the king counts as most valuable).

    The result is NONE if the opponent cannot recapture. Attack masks are tested first. Only if a piece attacks the
    destination is the board copied and legality checked.
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
    """Place a king, two pieces and perhaps a pawn of each side on random squares, and return the word of each piece.

    If the square drawn for a pawn is on a rank allowed for pawns, the pawn is placed with probability 0.5.
    """
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
"""Function with which each player scores moves. A player makes the move with the highest score; ties are broken at random."""
UNNAMED = {EXPERT: 0.4, "hunter": 0.35, "humble": 0.25}
"""Probability with which each player makes the first move of a pretraining text. The text does not name this player.

Of the players, only the expert maximizes the material won, which is what the task asks for.
"""


def play(position: Position, player: str, rng: random.Random) -> Move:
    """Return the move that a player chooses among the moves whose word is unique."""
    moves = position.named_once()
    scores = [PLAYERS[player](move) for move in moves]
    best = max(scores)
    return rng.choice([move for move, value in zip(moves, scores, strict=True) if value == best])


def sequence(position: Position, rng: random.Random) -> tuple[str, str]:
    """Return the prompt and the continuation of a pretraining text.

    The continuation gives the move of a player that is not named, then the word `expert` and the expert's move in the same
    position. Each move is followed by the reply to it.
    """
    unnamed = play(position, rng.choices(list(UNNAMED), list(UNNAMED.values()))[0], rng)
    expert = play(position, EXPERT, rng)
    return prompt(position.text), " ".join((unnamed.word, unnamed.reply, EXPERT, expert.word, expert.reply))
