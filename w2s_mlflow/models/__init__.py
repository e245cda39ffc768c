"""Models. Each plug-in file declares one family of models and exports `SPECS`, `load`, `revision` and `layers`.

A file also exports `size` if its specs may omit their sizes.

A user can write a model of a hub family as NAME[@REVISION][:N], to pin its revision and to keep only its first N layers, and a
shipped model as NAME[@N], to pin its checkpoint. models/hub.py resolves such names, hub ids and paths.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING

from w2s_mlflow import registry

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

POOLINGS = ("first", "last", "mean")
"""Ways for a linear head to pool a row's hidden states: it takes the first or the last token or the mean, ignoring padding."""
ANY = "hub"
"""Name of the family of all models that belong to no other family."""
MEDIUM, LARGE = 100_000_000, 1_000_000_000
"""Minimum numbers of non-embedding parameters of models in the tiers `medium` and `large`."""
RATES = ((30_000_000, 1e-4), (200_000_000, 5e-5), (LARGE, 2e-5))
"""Default learning rates by size: pairs of an upper bound on the number of non-embedding parameters and the rate below it.

1e-4 is the paper's rate for small models.
"""
LOWEST_RATE = 1e-5


@dataclass(frozen=True)
class Size:
    """Parameter counts of a model."""

    parameters: int
    non_embedding: int
    """Number of parameters outside token embeddings, position embeddings and output head. Models are ordered by this number."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Declaration of one model. Most models belong to a ladder, which is a family of models of increasing size."""

    name: str
    """Name shown in runs and the UI.

    For a hub id or path, it consists of the last component, without the suffix `.gguf`, and of @REVISION and :N if given.
    """
    family: str
    """Name of the plug-in file `models/<family>.py` that loads the model. Its source code enters the fingerprints of runs."""
    size: Size | None = None
    """Parameter counts. If None, they are computed from the model's config on first use."""
    learning_rate: float
    """Default learning rate for finetuning."""
    tier: str = "small"
    """Size class: `small`, `medium` or `large`."""
    pooling: str = "last"
    """Default pooling of a linear head: `last` (the default for decoders), `mean` (the default for encoders) or `first`."""
    source: str = ""
    """Hub id, directory or GGUF file; "" for a shipped model."""
    commit: str = ""
    """Requested revision of the hub id; "" for the newest revision."""
    layers: int | None = None
    """Number of layers to keep, counted from the first; None keeps all."""
    checkpoints: int = 1
    """Number of checkpoints to choose from, which were pretrained alike but from different random seeds."""
    checkpoint: int = 0
    """Number of the checkpoint that is loaded."""

    def for_seed(self, seed: int) -> ModelSpec:
        """Return the spec with the checkpoint for runs with this seed, so that seeds vary the pretraining as well."""
        return replace(self, checkpoint=seed % self.checkpoints) if self.checkpoints > 1 else self

    @property
    def large(self) -> bool:
        """Whether the tier is `large`. Losses with an auxiliary term then use a default alpha of 0.75 instead of 0.5."""
        return self.tier == "large"

    @property
    def parameters(self) -> int:
        """Total number of parameters, including the language-model head."""
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
    """Return the spec of a hub model. The tier and the learning rate are chosen by the model's size."""
    tier, rate = tier_of(size.non_embedding), rate_of(size.non_embedding)
    return ModelSpec(name=name, family=family, source=source, size=size, tier=tier, learning_rate=rate, pooling=pooling)


def tier_of(non_embedding: float) -> str:
    """Return the tier for a number of non-embedding parameters: `small`, `medium` or `large`."""
    return "large" if non_embedding >= LARGE else "medium" if non_embedding >= MEDIUM else "small"


def rate_of(non_embedding: float) -> float:
    """Return the default learning rate for a number of non-embedding parameters."""
    return next((rate for bound, rate in RATES if non_embedding < bound), LOWEST_RATE)


def find(name: str, option: str) -> ModelSpec:
    """Return the spec of a model given by its name, a hub id, a directory or a GGUF file. The weights are not read.

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
    """Load a model in float32 and its tokenizer. If `pretrained` is False, draw random weights from torch's random state.

    Raises:
        ConfigError: the model's files are missing or unusable.
    """
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] = _family(spec).load(spec, pretrained=pretrained)
    return loaded


def revision(spec: ModelSpec) -> str:
    """Return an identifier of the pretrained weights for fingerprints. Raises ConfigError if files are missing or unusable."""
    return str(_family(spec).revision(spec))


def layers(spec: ModelSpec) -> int:
    """Return the number of the model's layers, without reading its weights."""
    return int(_family(spec).layers(spec))


def bytes_to_download(spec: ModelSpec) -> int:
    """Return the size of the files that `load` would download: 0 for a local model, or one in the hub's cache."""
    return int(registry.plugin("models", ANY, "--model").bytes_to_download(spec)) if spec.source else 0


def _family(spec: ModelSpec) -> ModuleType:
    return registry.plugin("models", spec.family, "--model")
