"""Reasons written by a causal language model, which continues the claim and "Because"; default: --max-new-tokens 40.

The prompt consists of the question, the claim and "Because". Of the generated text, the complete sentences on the first line
are kept. From the second round on, the prompt also quotes the other side's latest text, on one line before the claim.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from w2s_mlflow.explainers import TEXT, DebateSide, Explainer

if TYPE_CHECKING:
    from w2s_mlflow.records import Example

EVIDENCE = TEXT
OPTIONS = ("max_new_tokens",)
TOKENS = 40
BECAUSE = "Because"
OTHER = "The other side says:"
_SENTENCES = re.compile(r".*[^\W\d_].*?[.!?](?=\s|$)")


def make(side: DebateSide) -> Explainer:
    """Return the explainer of one side.

    Raises:
        ConfigError: the model cannot generate text, or the number of tokens leaves no room for a question.
    """
    from w2s_mlflow.explainers import _generated
    from w2s_mlflow.modeling.tokenization import SEPARATOR

    tokens = side.max_new_tokens or TOKENS
    room = _generated.room(side.debater.head, tokens)

    def fits(heard: str, claim: str) -> bool:
        """Return whether the other side's text has at most `tokens` tokens and leaves room for LEAST tokens of the question."""
        encode = side.debater.head.reader.continuation
        if len(encode(heard)) > tokens:
            return False
        return room is None or len(encode(SEPARATOR.join(_end(claim, heard)))) + _generated.LEAST <= room

    def fitting(text: str, claim: str) -> str:
        """Return the other side's text on one line, with single quotes only, and cut after the last word that fits."""
        words = text.replace('"', "'").split()
        while words and not fits(" ".join(words), claim):
            words.pop()
        return " ".join(words)

    return _generated.TextExplainer("rationale", side, tokens, prompt, sentences, fitting)


def prompt(question: Example, claim: str, heard: str) -> str:
    """Return the prompt: the question, the other side's text, the claim and "Because"."""
    from w2s_mlflow.modeling.tokenization import SEPARATOR

    return SEPARATOR.join((*question.segments, *question.candidates, *_end(claim, heard)))


def _end(claim: str, heard: str) -> tuple[str, ...]:
    """Return the last lines of a prompt: the other side's text, if any, in quotes; the claim; and "Because"."""
    return (*([f'{OTHER} "{heard}"'] if heard else []), f"Answer: {claim}", BECAUSE)


def sentences(text: str, claim: str) -> str:
    """Return "Because" and the complete sentences on the text's first line; "" if no sentence contains a letter."""
    line = text.lstrip(" ").splitlines()[0] if text.strip(" ") else ""
    match = _SENTENCES.match(line.strip())
    return f"{BECAUSE} {match[0]}" if match else ""
