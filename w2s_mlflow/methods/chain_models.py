"""Intermediate models of a bootstrapping chain: those named in `--chain`, and those selected by `--chain auto`."""

from __future__ import annotations

import math

from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.models import ModelSpec

AUTO = "auto"
INTERMEDIATES = 2
"""Number of intermediate models for `--chain auto`: two, as in the paper (M_S1 and M_S2)."""


def between(weak: ModelSpec, strong: ModelSpec) -> list[str]:
    """Return up to INTERMEDIATES models of the strong model's family whose log sizes are about evenly spaced between the two.

    Raises:
        ConfigError: no model of the family has a size between those of the two models.
    """
    low, high = weak.non_embedding, strong.non_embedding
    ladder = [spec for spec in models.all_specs() if spec.family == strong.family and low < spec.non_embedding < high]
    if not ladder:
        raise ConfigError(
            f"--chain must name the models, because no known model of the strong model's family has a size "
            f"between those of {weak.name} and {strong.name}"
        )
    steps = [math.log(low) + (math.log(high) - math.log(low)) * n / (INTERMEDIATES + 1) for n in range(1, INTERMEDIATES + 1)]
    nearest = {min(ladder, key=lambda spec: abs(math.log(spec.non_embedding) - step)) for step in steps}
    return [spec.name for spec in sorted(nearest, key=lambda spec: spec.non_embedding)]


def names(chain: str) -> list[str]:
    """Return the model names in a string such as "m1,m2". Raises ConfigError for an empty or unknown name."""
    parts = [name.strip() for name in chain.split(",")]
    if not all(parts):
        raise must("chain", "comma-separated names of models", chain)
    for name in parts:
        models.find(name, "chain")
    return parts
