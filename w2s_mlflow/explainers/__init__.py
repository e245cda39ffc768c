"""Explainers, which explain the decisions of a model (E in Definition 4). Each file is one explainer.

The first line of a file's docstring is its help text for `--explainer`. Every file declares:

| name | meaning |
|---|---|
| `EVIDENCE` | `spans` if the explanations are spans of the question, `text` if they are other text |
| `OPTIONS` | options of the stage `debate` that the explainer reads, such as `evidence_spans` |
| `make(side)` | function that returns the `Explainer` of one side of the debates, a `DebateSide` |

and, where it applies:

| name | meaning |
|---|---|
| `applies_to(family, head)` | whether the explainer applies to tasks of this family and default head (default: to all tasks) |
| `WITHOUT_POLICY` | name of the explainer that replaces this one on a side without a trained policy |
| `load_policy(path, head)` | function that loads the policy that `align` trained; required with `WITHOUT_POLICY` |

An explainer that declares `WITHOUT_POLICY` needs a strong side with a trained policy: a model trained by the stage `align`.
An explainer that samples takes its random numbers from `side.random`, or from streams keyed by `side.seed` and further
integers. The command line imports every file to print its help; to keep this fast, import torch only inside functions.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from w2s_mlflow import exceptions, registry
from w2s_mlflow.records import Explanation, Ints

if TYPE_CHECKING:
    from torch import Generator

    from w2s_mlflow.explainers._policy import Policy
    from w2s_mlflow.explainers._token_spans import EncodedQuestions
    from w2s_mlflow.modeling.heads import Head

SPANS, TEXT = "spans", "text"
"""Legal values of an explainer's constant EVIDENCE."""
FOLDER = "explainers"

Explainer = Callable[[Sequence[Collection[int]]], list[Explanation]]
"""Function that is called once per round and returns one explanation per question, in order.

Its argument holds, for each question, the spans that either side has already shown. An explainer of text may have a method
`hear(texts) -> list[str]`. Before each round except the first, it is called with the other side's latest text on each question,
and returns the parts that the explainer takes into account. An explainer of text without this method ignores the other side.
"""


@dataclass(frozen=True)
class DebaterModel:
    """Model of one side of a debate: a trained head, its decisions on the questions, and its policy if it has one.

    Attributes:
        micro_batch: maximum number of questions per forward pass, if all are as long as the longest one. If it is None, only
            the limit on tokens applies (token_batches.BUDGET).
    """

    head: Head
    encoded: EncodedQuestions
    decisions_N: Ints
    policy: Policy | None = None
    micro_batch: int | None = None


@dataclass(frozen=True)
class DebateSide:
    """One side of the debates: everything that an explainer may use.

    Attributes:
        debater: the side's model, with the questions and its decisions.
        claims: the side's decision on each question, in words.
        random: random generator of this side, from which an explainer may sample in every round.
        seed: random seed of the run, for explainers with several random streams, such as one per batch.
        number: index of the side (0: strong, 1: weak). Together with the seed, it is part of the key of such streams.
        evidence_spans: number of spans to show per round.
        max_new_tokens: maximum number of tokens to generate per round. If it is None, the explainer's default is used.
    """

    debater: DebaterModel
    claims: Sequence[str]
    random: Generator
    seed: int
    number: int
    evidence_spans: int
    max_new_tokens: int | None = None


def find(name: str, option: str) -> types.ModuleType:
    """Return the module of the explainer called `name`. If there is none, raise a ConfigError that names `option`."""
    return registry.plugin(FOLDER, name, exceptions.flag(option))


def every() -> dict[str, types.ModuleType]:
    """Return the modules of all explainers, by name."""
    return {name: registry.plugin(FOLDER, name, FOLDER) for name in registry.plugins(FOLDER)}


def without_policy(name: str) -> str:
    """Return the explainer that replaces `name` on a side without a trained policy, or `name` if none is declared."""
    return str(getattr(find(name, "explainer"), "WITHOUT_POLICY", name))


def needs_policy(name: str) -> bool:
    """Return whether an explainer needs a policy trained by the stage `align`."""
    return without_policy(name) != name


def applies_to(name: str, family: str, head: str) -> bool:
    """Return whether an explainer can explain answers to tasks of this family with this default head."""
    check = getattr(find(name, "explainer"), "applies_to", None)
    return check is None or bool(check(family, head))


def unread_options(name: str) -> list[str]:
    """Return the options of the stage `debate` that other explainers read and the explainer called `name` does not."""
    return sorted({option for plugin in every().values() for option in plugin.OPTIONS} - set(find(name, "explainer").OPTIONS))


def roots(*names: str) -> list[str]:
    """Return the modules whose source enters the fingerprint of debates with these explainers."""
    return sorted({f"{FOLDER}.{one}" for name in names for one in (name, without_policy(name))})
