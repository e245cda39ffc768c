"""Who learns: one model family per file, each exporting `RUNGS` and `load`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from w2s_mlflow import config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One model of a ladder of growing size."""

    name: str
    family: str
    """The plug-in file, `models/<family>.py`: the model's root in a fingerprint."""
    parameters: int
    learning_rate: float
    """The rate it is finetuned at unless the user says otherwise."""
    large: bool = False
    """The paper's tier: a large student takes alpha = .75 in the confidence loss, another .5."""


def find(name: str, option: str) -> Rung:
    """The rung called `name`. Raises ConfigError that names `option`, with the nearest name and the list."""
    known = {rung.name: rung for family in config.plugins("models") for rung in _rungs(family)}
    if name not in known:
        raise config.unknown(config.flag(option), name, known)
    return known[name]


def load(rung: Rung, *, pretrained: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 and its tokenizer; `pretrained=False` gives weights from the current random state."""
    found: tuple[PreTrainedModel, PreTrainedTokenizerBase]
    found = config.plugin("models", rung.family, "--model").load(rung.name, pretrained=pretrained)
    return found


def _rungs(family: str) -> tuple[Rung, ...]:
    rungs: tuple[Rung, ...] = config.plugin("models", family, "--model").RUNGS
    return rungs


def revision(rung: Rung) -> str:
    """What identifies the pretrained weights of a rung, for fingerprints."""
    return str(config.plugin("models", rung.family, "--model").revision(rung.name))
