"""Models: one file per family, which exports `SPECS`, `load`, `revision` and, if the size of a spec may be None, `size`.

A model of a hub family can be given as NAME[@REVISION][:N], which pins its revision and keeps its first N layers. models/hub.py
resolves such names, hub ids and paths.
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
"""Ways for a linear head to pool a row's hidden states: first token, last token or mean over all tokens, without padding."""
ANY = "hub"
"""Family of models that belong to none of the named families."""
MEDIUM, LARGE = 100_000_000, 1_000_000_000
"""Minimum number of non-embedding parameters of a model in the tier `medium` and in the tier `large`."""
RATES = ((30_000_000, 1e-4), (200_000_000, 5e-5), (LARGE, 2e-5))
"""Default learning rates as (upper bound on non-embedding parameters, rate); 1e-4 is the paper's rate for small models."""
LOWEST_RATE = 1e-5


@dataclass(frozen=True)
class Size:
    """Parameter counts of a model."""

    parameters: int
    non_embedding: int
    """Number of parameters outside token and position embeddings and the output head, by which model sizes are compared."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Declaration of one model; most belong to a ladder, a family of models of increasing size."""

    name: str
    """Name shown in runs and the UI; for a hub id or path, the last component (without `.gguf`) with any @REVISION and :N."""
    family: str
    """Name of the plug-in file, `models/<family>.py`, whose source enters the fingerprint."""
    size: Size | None = None
    """Parameter counts; if None, they are counted from the model's config on first use."""
    learning_rate: float
    """Default learning rate for finetuning."""
    tier: str = "small"
    """Size class: `small`, `medium` or `large`."""
    pooling: str = "last"
    """Default pooling of a linear head: `last` token (decoders), `mean` (encoders) or `first` token."""
    source: str = ""
    """Hub id, directory or GGUF file; "" for a shipped model."""
    commit: str = ""
    """Requested revision of the hub id; "" for the newest."""
    layers: int | None = None
    """Number of first layers to keep; None keeps all."""

    @property
    def large(self) -> bool:
        """Whether the tier is large; the default alpha of losses with an auxiliary term is then .75 instead of .5."""
        return self.tier == "large"

    @property
    def parameters(self) -> int:
        """Number of all parameters, including the language-model head."""
        return self._resolved_size.parameters

    @property
    def non_embedding(self) -> int:
        """Number of parameters outside the embeddings and the output head."""
        return self._resolved_size.non_embedding

    @cached_property
    def _resolved_size(self) -> Size:
        if self.size is not None:
            return self.size
        size: Size = _family(self).size(self)
        return size


def declared(name: str, family: str, source: str, size: Size, pooling: str = "last") -> ModelSpec:
    """Return the model spec of a hub model; its tier and learning rate follow from its size."""
    tier, rate = tier_of(size.non_embedding), rate_of(size.non_embedding)
    return ModelSpec(name=name, family=family, source=source, size=size, tier=tier, learning_rate=rate, pooling=pooling)


def tier_of(non_embedding: float) -> str:
    """Return the tier for a number of non-embedding parameters: `small`, `medium` or `large`."""
    return "large" if non_embedding >= LARGE else "medium" if non_embedding >= MEDIUM else "small"


def rate_of(non_embedding: float) -> float:
    """Return the default learning rate for a number of non-embedding parameters."""
    return next((rate for bound, rate in RATES if non_embedding < bound), LOWEST_RATE)


def find(name: str, option: str) -> ModelSpec:
    """Return the model spec called `name`, or the spec of a hub id, a directory or a GGUF file, without reading weights.

    Raises:
        ConfigError: the model does not exist or cannot be used; the message names `option` and the legal values.
    """
    if name in (known := _spec_by_name()):
        return known[name]
    spec: ModelSpec = registry.plugin("models", ANY, option).find(name, option, known)
    return spec


@functools.cache
def _spec_by_name() -> dict[str, ModelSpec]:
    return {spec.name: spec for spec in all_specs()}


def all_specs() -> Iterator[ModelSpec]:
    """Yield all named model specs, family by family."""
    for family in registry.plugins("models"):
        yield from registry.plugin("models", family, "--model").SPECS


def load(spec: ModelSpec, *, pretrained: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model in float32 and its tokenizer; `pretrained=False` draws random weights from the current random state.

    Raises:
        ConfigError: the model's files are missing or unusable.
    """
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] = _family(spec).load(spec, pretrained=pretrained)
    return loaded


def revision(spec: ModelSpec) -> str:
    """Return an identifier of the pretrained weights, for fingerprints. Raises ConfigError as `load` does."""
    return str(_family(spec).revision(spec))


def _family(spec: ModelSpec) -> ModuleType:
    return registry.plugin("models", spec.family, "--model")
