"""Random streams: each use of randomness has its own stream, identified by a name declared here.

A stream is a numpy `SeedSequence` made from the stream's name, a run's seed and, for some streams, further integers such as
the rank or the training step. Two uses that share a stream are not independent. For example, random label errors once shared
the stream of the batch order, so that all wrong labels were in the same batches.

A test checks that each name is used in one place only, and that no generator in the package is seeded in any other way. A
change of a name, or of how it is encoded, changes every result that depends on the stream.
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
    """A stream of random numbers for one use, identified by a name."""

    name: str


# --- training ---------------------------------------------------------------------------------------------------------

WEIGHTS = Stream("training/weights")
"""Initial weights of a head, of low-rank adapters, or of a model that is not pretrained."""
BATCH_ORDER = Stream("training/batch-order")
"""Order of the training rows in each epoch."""
DROPOUT = Stream("training/dropout")
"""Dropout masks. Besides the seed, the stream takes two integers: the rank of the process and the training step."""
PENALTY_FOLDS = Stream("training/penalty-folds")
"""Folds of the cross-validation that chooses the L2 penalty of a linear head on a frozen backbone."""
UNREAD_WEIGHTS = Stream("models/unread-weights")
"""Initial values of parameters that a checkpoint does not contain and that are never used."""
MASKED_TOKENS = Stream("generative/masked-tokens")
"""Masked tokens of the training text in masked language modelling."""
MASKED_VALIDATION_TOKENS = Stream("generative/masked-validation-tokens")
"""Masked tokens of the validation text in masked language modelling."""

# --- controls ---------------------------------------------------------------------------------------------------------

RANDOM_LABELS = Stream("student/random-labels")
"""Choice of the rows that get a wrong label in the control `--labels random`, and of their wrong labels."""
MATCHED_NOISE = Stream("student/matched-noise")
"""Order in which the control `--labels matched_noise` permutes the ranks of the gold classes, and the places of the other
probabilities."""
GOLD_SUBSET = Stream("student/gold-subset")
"""Order in which rows of `transfer` are taken by the control `--labels gold_subset`."""
RULE_FOLDS = Stream("rule/folds")
"""Folds of the cross-validation that chooses a searched rule."""
RULE_TREES = Stream("rule/trees")
"""Random state of the boosted trees among the searched rules."""
RANDOM_EVIDENCE = Stream("errors/random-evidence")
"""Random scores of tokens. The stage `errors` uses them as a control for the evidence."""
PROBE_FOLDS = Stream("probe/folds")
"""Folds of the cross-validation that chooses the L2 penalty of a probe."""
SHUFFLED_LABELS = Stream("probe/shuffled-labels")
"""Order of the shuffled labels on which control probes are fitted."""

# --- debate and alignment ---------------------------------------------------------------------------------------------

DEBATE_EVIDENCE = Stream("debate/evidence")
"""Spans that a side shows in a debate. Besides the seed, the stream takes the number of the side."""
DEBATE_WORDS = Stream("debate/words")
"""Tokens of generated rationales. Besides the seed, the stream takes three integers: the number of the side, the number of
the sampling attempt, and the number of prompts in earlier batches."""
POLICY_WEIGHTS = Stream("align/policy-weights")
"""Initial weights of the policy network, which chooses the strong side's evidence."""
POLICY_DRAWS = Stream("align/policy-draws")
"""Spans that the policy samples in training. Besides the seed, the stream takes the training step and the micro-batch."""
OPPONENT_EVIDENCE = Stream("align/opponent-evidence")
"""Spans that the weak side shows while the policy is trained."""
COMPARED_EVIDENCE = Stream("align/compared-evidence")
"""Spans that a side shows in the debates that compare the student before and after alignment. Besides the seed, the stream
takes the number of the side."""

# --- chess, searches --------------------------------------------------------------------------------------------------

TASK_POSITIONS = Stream("chess/task-positions")
"""Positions of the chess tasks. Besides the seed, the stream takes the index of the task in `tasks._chess_rows.PAIRS` and the
number of the chunk of positions."""
TASK_ROWS = Stream("chess/task-rows")
"""Choice of the rows of the chess tasks. Besides the seed, the stream takes the index of the task in the same mapping."""
PRETRAINING_TEXTS = Stream("chess/pretraining-texts")
"""Texts on which chess models are pretrained. Besides the seed, the stream takes the number of the chunk of positions."""
TRIALS = Stream("sweep/trials")
"""Options that a sampler proposes for a trial. Besides the seed, the stream takes the number of trials counted before it."""


def generator(seed: int, stream: Stream, *more: int) -> np.random.Generator:
    """Return a new numpy generator for the stream. `more` are the integers that the stream takes besides the seed."""
    return np.random.default_rng(_sequence(seed, stream, more))


def integer(seed: int, stream: Stream, *more: int) -> int:
    """Return a seed in [0, 2^32), for libraries that only accept an integer seed. All of them accept 32-bit seeds."""
    return int(_sequence(seed, stream, more).generate_state(1)[0])


def torch_generator(seed: int, stream: Stream, *more: int) -> torch.Generator:
    """Return a new torch generator for the stream, on the CPU."""
    import torch

    return torch.Generator().manual_seed(integer(seed, stream, *more))


def _sequence(seed: int, stream: Stream, more: tuple[int, ...]) -> np.random.SeedSequence:
    # SeedSequence does not distinguish [1] from [1, 0], or [2**32] from [0, 1]. So seed it with a digest, which always has
    # eight 32-bit words.
    text = json.dumps([stream.name, int(seed), *map(int, more)])
    return np.random.SeedSequence(np.frombuffer(hashlib.sha256(text.encode()).digest(), dtype="<u4").tolist())
