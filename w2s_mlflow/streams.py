"""The streams of random numbers: every use of chance has its own, by a name that stands here.

A stream is numpy's `SeedSequence` over the name, a run's seed and, where a use draws more than once, further integers: a
process, a step, a side. Two uses that share a stream are not independent: labels made wrong by the numbers that also order
the batches once came with all wrong rows in the same batches.

A test holds that each name is used in one place, and that no generator in the package is seeded by anything else. A name is
part of what is drawn: to change it, or the encoding, changes all results that hang on it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stream:
    """One use of randomness."""

    name: str


# --- training ---------------------------------------------------------------------------------------------------------

WEIGHTS = Stream("training/weights")
"""New weights: of a head, of low-rank adapters, of a model that is not pretrained."""
BATCH_ORDER = Stream("training/batch-order")
DROPOUT = Stream("training/dropout")
"""More: the process, the step."""
UNREAD_WEIGHTS = Stream("models/unread-weights")
"""Weights that a checkpoint lacks and nobody reads."""
MASKED_TOKENS = Stream("generative/masked-tokens")
MASKED_VALIDATION_TOKENS = Stream("generative/masked-validation-tokens")

# --- controls ---------------------------------------------------------------------------------------------------------

RANDOM_LABELS = Stream("student/random-labels")
RANDOM_EVIDENCE = Stream("errors/random-evidence")
SHUFFLED_LABELS = Stream("probe/shuffled-labels")

# --- debate and alignment ---------------------------------------------------------------------------------------------

DEBATE_EVIDENCE = Stream("debate/evidence")
"""More: the side."""
DEBATE_WORDS = Stream("debate/words")
"""More: the side, the round of sampling, the batch's start."""
POLICY_WEIGHTS = Stream("align/policy-weights")
POLICY_DRAWS = Stream("align/policy-draws")
"""More: the step, the part of the batch."""
OPPONENT_EVIDENCE = Stream("align/opponent-evidence")
COMPARED_EVIDENCE = Stream("align/compared-evidence")
"""More: the side."""

# --- chess, searches --------------------------------------------------------------------------------------------------

TASK_POSITIONS = Stream("chess/task-positions")
"""More: the task's place among those that are drawn."""
PRETRAINING_PLAY = Stream("chess/pretraining-play")
"""More: the chunk."""
TRIALS = Stream("sweep/trials")
"""More: how many trials count before this one."""


def generator(seed: int, stream: Stream, *more: int) -> np.random.Generator:
    """A numpy generator at the stream's beginning."""
    return np.random.default_rng(_sequence(seed, stream, more))


def integer(seed: int, stream: Stream, *more: int) -> int:
    """A number in [0, 2^32) for what takes no generator and is seeded by an integer: so wide is the least of their seeds."""
    return int(_sequence(seed, stream, more).generate_state(1)[0])


def torch_generator(seed: int, stream: Stream, *more: int) -> torch.Generator:
    """A torch generator, on the CPU, at the stream's beginning."""
    import torch

    return torch.Generator().manual_seed(integer(seed, stream, *more))


def _sequence(seed: int, stream: Stream, more: tuple[int, ...]) -> np.random.SeedSequence:
    # SeedSequence takes [1] and [1, 0] for the same, and [2**32] and [0, 1]: what it is given is the digest of a text, eight
    # words whatever was asked for.
    text = json.dumps([stream.name, int(seed), *map(int, more)])
    return np.random.SeedSequence(np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4").tolist())
