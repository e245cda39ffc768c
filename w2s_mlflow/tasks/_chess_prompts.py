"""Prompts for pairs of captures: how a chess model that is not trained on the task says which of two captures is better.

A chess model is pretrained on positions that are followed by moves, and each move by the reply: the capture of the moved piece,
or `-` if it cannot be retaken. So the model can be asked whether it foresees a reply to each of the two captures.

PROMPTS use only what the model says. The planner `exchange` is also given the values of the pieces and the rule by which the
task counts material, so it is reported apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import chess

from w2s_mlflow.records import Example
from w2s_mlflow.tasks import _chess_play as chess_play
from w2s_mlflow.tasks._prompts import LIKELIHOOD, Prompt, Query, unchanged

LEAST = 1e-12
"""Smallest probability that is distinguished from 0 in a score."""


def _text(example: Example, move: str) -> str:
    """Return the prompt of the example's position, followed by a move."""
    return f"{chess_play.prompt(chess_play.shown(example.segments[0]))} {move}"


def _not_retaken(example: Example) -> list[Query]:
    """Return one query per capture: is the capture followed by `-`?"""
    return [Query(_text(example, move), chess_play.NONE) for move in example.candidates]


def _not_retaken_mirrored(example: Example) -> list[Query]:
    """Return the queries of `_not_retaken`, and those of the position's mirror image."""
    return [*_not_retaken(example), *_not_retaken(_mirrored(example))]


def _mirrored(example: Example) -> Example:
    position = chess_play.mirror(chess_play.shown(example.segments[0]))
    moves = tuple(map(chess_play.mirror_word, example.candidates))
    return Example(example.id, example.group, (position,), moves)


def _unanswered(example: Example) -> list[Query]:
    """Return one query per capture: is the prompt followed by the capture and then by `-`?"""
    prompt = chess_play.prompt(chess_play.shown(example.segments[0]))
    return [Query(prompt, f"{move} {chess_play.NONE}") for move in example.candidates]


def _odds(example: Example, log_probabilities: Sequence[float]) -> list[float]:
    """Return the log odds that each capture is not retaken.

    Their softmax is the probability of each capture to be the safe one, given that exactly one of the two is not retaken.
    """
    return [_log(math.exp(value)) - _log(1 - math.exp(value)) for value in log_probabilities]


def _mean_odds(example: Example, log_probabilities: Sequence[float]) -> list[float]:
    """Return the mean of `_odds` over a position and its mirror image."""
    first, second, *mirrored = _odds(example, log_probabilities)
    return [(value + other) / 2 for value, other in zip((first, second), mirrored, strict=True)]


def _exchange(example: Example, log_probabilities: Sequence[float]) -> list[float]:
    """Return the log probability that each capture wins more material than the other.

    A capture wins the value taken, less the value of the capturing piece if it is retaken. The two captures are retaken
    independently of each other, with the model's probabilities.
    """
    first, second = (
        _outcomes(example, move, math.exp(value)) for move, value in zip(example.candidates, log_probabilities, strict=True)
    )
    more = [sum(p * q for won, p in one for other, q in two if won > other) for one, two in ((first, second), (second, first))]
    return [_log(probability) for probability in more]


def _outcomes(example: Example, move: str, not_retaken: float) -> list[tuple[int, float]]:
    """Return what a capture wins and with which probability: if it is not retaken, and if it is retaken."""
    board, square = chess_play.parse(example.segments[0]), chess.parse_square(move[1:])
    taken, piece = board.piece_at(square), chess.Piece.from_symbol(move[0])
    worth = chess_play.VALUES[taken.piece_type] if taken else 0
    return [(worth, not_retaken), (worth - chess_play.VALUES[piece.piece_type], 1 - not_retaken)]


def _log(probability: float) -> float:
    return math.log(max(probability, LEAST))


PROMPTS = {
    "reply": Prompt("Which capture does the model expect not to be retaken?", _not_retaken, _odds),
    "choice": LIKELIHOOD,
    "reply_mirrored": Prompt("As `reply`, averaged over the position and its mirror image.", _not_retaken_mirrored, _mean_odds),
    "unanswered": Prompt("How probable is each capture together with no reply?", _unanswered, unchanged),
}
"""Prompts of the chess tasks, by name; the first is the default."""
PLANNERS = {
    "exchange": Prompt("Which capture wins more, by the model's replies and the values of the pieces?", _not_retaken, _exchange)
}
"""Planners of the chess tasks, by name."""
