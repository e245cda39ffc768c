"""In chess, the moves that a causal language model expects to follow; default: --max-new-tokens 1.

The prompt consists of the position and the chosen move. Only the moves at the start of the generated text are kept.
The other side's text is ignored.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from w2s_mlflow.explainers import TEXT, DebateSide, Explainer

if TYPE_CHECKING:
    from w2s_mlflow.records import Example

EVIDENCE = TEXT
OPTIONS = ("max_new_tokens",)
TOKENS = 1
_MOVE = re.compile(r"[KQRBNPkqrbnp][a-h][1-8]")


def applies_to(family: str, head: str) -> bool:
    """Return whether the answers in tasks of this family and default head are chess moves."""
    return family == "chess"


def make(side: DebateSide) -> Explainer:
    """Return the explainer of one side.

    Raises:
        ConfigError: the model cannot generate text, or the number of tokens leaves no room for a question.
    """
    from w2s_mlflow.explainers import _generated

    return _generated.TextExplainer("principal_variation", side, side.max_new_tokens or TOKENS, prompt, moves)


def prompt(question: Example, claim: str, heard: str) -> str:
    """Return the prompt: the position and the chosen move."""
    from w2s_mlflow.modeling.tokenization import SEPARATOR

    return f"{SEPARATOR.join(question.segments)} {claim}"


def moves(text: str, claim: str) -> str:
    """Return the claimed move, followed by the generated moves; "" if no move was generated."""
    reply = list(itertools.takewhile(_MOVE.fullmatch, text.split()))
    return " ".join((claim, *reply)) if reply else ""
