"""Random streams: each use of randomness has its own stream, identified by a name declared here.

A stream is a numpy `SeedSequence` of the name, a run's seed and, where needed, further integers such as the rank, the step or
the side. Two uses that share a stream are not independent: random label errors once shared the stream of the batch order, so
all wrong rows fell into the same batches.

A test checks that each name is used in one place only, and that no generator in the package is seeded in any other way.
Changing a name or the encoding changes every result that depends on it.
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
"""Initial weights of a head, of low-rank adapters, or of a model that is not pretrained."""
BATCH_ORDER = Stream("training/batch-order")
DROPOUT = Stream("training/dropout")
"""Further integers: rank, step."""
UNREAD_WEIGHTS = Stream("models/unread-weights")
"""Initial weights of parameters that are missing from a checkpoint and never used."""
MASKED_TOKENS = Stream("generative/masked-tokens")
MASKED_VALIDATION_TOKENS = Stream("generative/masked-validation-tokens")

# --- controls ---------------------------------------------------------------------------------------------------------

RANDOM_LABELS = Stream("student/random-labels")
RANDOM_EVIDENCE = Stream("errors/random-evidence")
SHUFFLED_LABELS = Stream("probe/shuffled-labels")

# --- debate and alignment ---------------------------------------------------------------------------------------------

DEBATE_EVIDENCE = Stream("debate/evidence")
"""Further integer: the side."""
DEBATE_WORDS = Stream("debate/words")
"""Further integers: the side, the sampling round and the start index of the batch."""
POLICY_WEIGHTS = Stream("align/policy-weights")
POLICY_DRAWS = Stream("align/policy-draws")
"""Further integers: the step, the micro-batch."""
OPPONENT_EVIDENCE = Stream("align/opponent-evidence")
COMPARED_EVIDENCE = Stream("align/compared-evidence")
"""Further integer: the side."""

# --- chess, searches --------------------------------------------------------------------------------------------------

TASK_POSITIONS = Stream("chess/task-positions")
"""Further integer: the index of the task in `tasks.chess.PAIRS`."""
PRETRAINING_PLAY = Stream("chess/pretraining-play")
"""Further integer: the chunk."""
TRIALS = Stream("sweep/trials")
"""Further integer: the number of trials counted before this one."""


def generator(seed: int, stream: Stream, *more: int) -> np.random.Generator:
    """Return a new numpy generator for the stream; `more` are its further integers."""
    return np.random.default_rng(_sequence(seed, stream, more))


def integer(seed: int, stream: Stream, *more: int) -> int:
    """Return a seed in [0, 2^32) for libraries that accept an integer only; 32 bits is the narrowest range among them."""
    return int(_sequence(seed, stream, more).generate_state(1)[0])


def torch_generator(seed: int, stream: Stream, *more: int) -> torch.Generator:
    """Return a new torch generator, on the CPU, for the stream."""
    import torch

    return torch.Generator().manual_seed(integer(seed, stream, *more))


def _sequence(seed: int, stream: Stream, more: tuple[int, ...]) -> np.random.SeedSequence:
    # SeedSequence does not distinguish [1] from [1, 0], or [2**32] from [0, 1]. So seed it with a digest, which always has
    # eight words.
    text = json.dumps([stream.name, int(seed), *map(int, more)])
    return np.random.SeedSequence(np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4").tolist())
