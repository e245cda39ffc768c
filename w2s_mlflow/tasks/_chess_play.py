"""Chess positions on 24 squares, the material won by each capture, and the texts on which the chess models are pretrained.

The text of a position has one word per piece: the letter of the piece, in upper case for White, and its square (`Ke2 Qd3 kf6
pc5`). A prompt is this text followed by `>`. A move is one word: the letter of the moved piece and its destination (`Qd5`).
White is to move. Each side has its king, two pieces and at most one pawn on the 24 squares from c2 to f7. Pawns stand only
where their next move cannot be a promotion, a double step or an en passant capture. Each move therefore displaces exactly one
piece and captures at most one, which stands on the destination.

A hash assigns each position either to the task or to pretraining. A position and its mirror image have the same hash.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import chess

VALUES = {chess.KING: 0, chess.PAWN: 1, chess.KNIGHT: 3, chess.BISHOP: 3, chess.ROOK: 5, chess.QUEEN: 9}
"""Value of each kind of piece, in pawns."""
MARK = ">"
"""Special token that ends a prompt. A move follows it."""
NONE = "-"
"""Special token that stands in place of the reply to a move if the opponent cannot recapture."""
TASK_SHARE = 16
"""One in TASK_SHARE positions is reserved for the task; the others are used for pretraining."""
_PIECES = "KQRBNPkqrbnp"
_ORDER = {piece + square: (rank, square) for rank, piece in enumerate(_PIECES) for square in chess.SQUARE_NAMES}
_SQUARES = [chess.square(file, rank) for rank in range(1, 7) for file in range(2, 6)]
_PAWN_RANKS = {chess.WHITE: (2, 3, 4), chess.BLACK: (3, 4, 5)}
_FILES = str.maketrans("abcdefgh", "hgfedcba")


# --- text -------------------------------------------------------------------------------------------------------------


def text(board: chess.Board) -> str:
    """Return the text of a position, without MARK: one word per piece, sorted by piece and then by square."""
    return _ordered(_word(piece, square) for square, piece in board.piece_map().items())


def parse(position: str) -> chess.Board:
    """Return the board that a position's text or prompt describes, with White to move."""
    board = chess.Board(None)
    for word in shown(position).split():
        board.set_piece_at(chess.parse_square(word[1:]), chess.Piece.from_symbol(word[0]))
    return board


def prompt(position: str) -> str:
    """Return the prompt of a position: its text, followed by MARK."""
    return f"{position} {MARK}"


def shown(prompt: str) -> str:
    """Return the text of a position, given either its prompt or its text."""
    return prompt.removesuffix(MARK).strip()


def mirror(position: str) -> str:
    """Return the text of a position's left-right mirror image. Both positions play alike, because castling is impossible."""
    return _ordered(mirror_word(word) for word in position.split())


def mirror_word(word: str) -> str:
    """Mirror a word left to right: `Qd5` becomes `Qe5`. A word that is not a piece and its square is returned unchanged."""
    return word[0] + word[1:].translate(_FILES) if len(word) == 3 and word[0] in _PIECES else word


def position_hash(position: str) -> str:
    """Return a SHA-256 hash that is equal for a position and its mirror image: that of the text that sorts first."""
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
    """Value of the captured piece, in pawns; 0 if the move captures nothing."""
    reply: str
    """Word of the opponent's capture of the moved piece, by the least valuable piece that can capture it; NONE if none can."""
    piece: int
    """Value of the moved piece, in pawns; 0 for the king."""
    distance: int
    """Distance from the destination to the black king, in king moves."""

    @property
    def exchange(self) -> int:
        """Material won, in pawns: the value of the captured piece, minus that of the moved piece if it can be recaptured."""
        return self.captured - (self.piece if self.reply != NONE else 0)


@dataclass(frozen=True, slots=True)
class Position:
    """A position: its text, without MARK, and all legal moves."""

    text: str
    moves: tuple[Move, ...]

    def named_once(self) -> list[Move]:
        """Return the moves whose word denotes no other move. A word is ambiguous if, say, two rooks can move to one square."""
        times = Counter(move.word for move in self.moves)
        return [move for move in self.moves if times[move.word] == 1]

    def captures(self) -> list[Move]:
        """Return the captures whose word denotes no other move."""
        return [move for move in self.named_once() if move.captured]

    def mirrored(self) -> Position:
        """Return the left-right mirror image of the position and its moves."""
        moves = (replace(move, word=mirror_word(move.word), reply=mirror_word(move.reply)) for move in self.moves)
        return Position(mirror(self.text), tuple(moves))


def positions(rng: random.Random, *, task: bool) -> Iterator[Position]:
    """Yield endless random positions for the task (`task=True`) or for pretraining. Each allows at least two captures."""
    while True:
        words = _scatter(rng)
        if belongs_to_task(_ordered(words)) != task:
            continue  # this check comes first, because it needs no board and is the cheapest
        board = parse(" ".join(words))
        if len(list(board.generate_pseudo_legal_moves(to_mask=board.occupied_co[chess.BLACK]))) < 2:
            continue  # pseudo-legal captures are counted before legality is checked, because that is cheaper
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
    """Return the word of the opponent's legal recapture by its least valuable piece. The king counts as the most valuable.

    The result is NONE if the opponent cannot recapture. Legality is checked on a copy of the board, which is made only if the
    attack masks show that a piece attacks the destination.
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
    """Place each side's king, two other pieces and possibly a pawn on random squares, and return the word of each piece.

    A pawn is placed with probability 0.5 if the square drawn for it is on a rank allowed for pawns; otherwise it is omitted.
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


# --- pretraining texts ------------------------------------------------------------------------------------------------

MOVES_SHOWN = 3
"""Number of moves in a pretraining text."""


def sequence(position: Position, rng: random.Random) -> tuple[str, str]:
    """Return the prompt and the continuation of a pretraining text.

    The continuation gives MOVES_SHOWN random moves of White in this position, in random order, each followed by the opponent's
    recapture or NONE (see `Move.reply`). They are captures; quiet moves fill in if the position has fewer captures. The text
    shows what each move leads to, but not which move is better.
    """
    captures = position.captures()
    quiet = [move for move in position.named_once() if not move.captured]
    moves = rng.sample(captures, min(len(captures), MOVES_SHOWN))
    moves += rng.sample(quiet, min(len(quiet), MOVES_SHOWN - len(moves)))
    rng.shuffle(moves)
    return prompt(position.text), " ".join(word for move in moves for word in (move.word, move.reply))
