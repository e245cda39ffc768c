"""Who learns: one model family per file, each exporting `SPECS`, `load`, `revision` and, of what has no size here, `size`.

A named model of a hub family may be cut or pinned, NAME[@REVISION][:N]; any other model is found by models/hub.py.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING

from w2s_mlflow import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POOLINGS = ("first", "last", "mean")
"""What a linear head reads of a row: its first token, its last real one, or the mean over the real ones."""
ANY = "hub"
"""The family of every model that stands on no ladder."""
MEDIUM, LARGE = 100_000_000, 1_000_000_000
"""Non-embedding parameters from which a model is of the tier medium, and large."""
RATES = ((30_000_000, 1e-4), (200_000_000, 5e-5), (LARGE, 2e-5))
"""Below so many non-embedding parameters, so high a default rate: the paper's 1e-4 where a model is small, else less."""
LOWEST_RATE = 1e-5


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    parameters: int
    non_embedding: int
    """Those outside token and position embeddings and the output words, what ladders are compared by."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One model, mostly of a ladder of growing size."""

    name: str
    """How runs and the UI call it; of a path, its last component."""
    family: str
    """The plug-in file, `models/<family>.py`: the model's root in a fingerprint."""
    size: Size | None = None
    """None: counted from the model's config when it is asked for."""
    learning_rate: float
    """The rate it is finetuned at unless the user says otherwise."""
    tier: str = "small"
    """small, medium or large."""
    pooling: str = "last"
    """How a linear head reads it: the last token of a decoder, the mean of an encoder, or the first token."""
    source: str = ""
    """A hub id, a directory or a GGUF file; "" for a model that is shipped."""
    commit: str = ""
    """The revision of the hub id that was asked for; "" for its newest."""
    layers: int | None = None
    """Only so many of its first layers; None for all."""

    @property
    def large(self) -> bool:
        """The paper's tier: a large student takes alpha = .75 in the confidence loss, another .5."""
        return self.tier == "large"

    @property
    def parameters(self) -> int:
        """All parameters, the language-model head among them."""
        return self._counted.parameters

    @property
    def non_embedding(self) -> int:
        """The parameters without embeddings and output words."""
        return self._counted.non_embedding

    @cached_property
    def _counted(self) -> Size:
        if self.size is not None:
            return self.size
        found: Size = _family(self).size(self)
        return found


def declared(name: str, family: str, source: str, size: Size, pooling: str = "last") -> ModelSpec:
    """A model on the hub, its tier and rate by the rules above."""
    tier, rate = tier_of(size.non_embedding), rate_of(size.non_embedding)
    return ModelSpec(name=name, family=family, source=source, size=size, tier=tier, learning_rate=rate, pooling=pooling)


def tier_of(non_embedding: float) -> str:
    """small, medium from MEDIUM, large from LARGE non-embedding parameters."""
    return "large" if non_embedding >= LARGE else "medium" if non_embedding >= MEDIUM else "small"


def rate_of(non_embedding: float) -> float:
    """The default learning rate by size."""
    return next((rate for bound, rate in RATES if non_embedding < bound), LOWEST_RATE)


def find(name: str, option: str) -> ModelSpec:
    """The model called `name`, or that of a hub id, a directory or a GGUF file. No weight is read.

    Raises:
        ConfigError: there is none, or it is one that cannot be used; it names `option` and says what is legal.
    """
    if name in (known := _named()):
        return known[name]
    found: ModelSpec = registry.plugin("models", ANY, option).find(name, option, known)
    return found


@functools.cache
def _named() -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in every()}


def every() -> Iterator[ModelSpec]:
    """All models that have a name, family by family."""
    for family in registry.plugins("models"):
        yield from registry.plugin("models", family, "--model").SPECS


def load(spec: ModelSpec, *, pretrained: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 and its tokenizer; `pretrained=False` gives weights from the current random state.

    Raises:
        ConfigError: its files are not there, or are not those of a model that can be used.
    """
    found: tuple[PreTrainedModel, PreTrainedTokenizerBase] = _family(spec).load(spec, pretrained=pretrained)
    return found


def revision(spec: ModelSpec) -> str:
    """What identifies the pretrained weights of a model, for fingerprints. Raises ConfigError as `load`."""
    return str(_family(spec).revision(spec))


def _family(spec: ModelSpec) -> ModuleType:
    return registry.plugin("models", spec.family, "--model")
