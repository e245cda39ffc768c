"""Runs of earlier versions under the present names of their options, so that they can be analysed beside newer ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from w2s_mlflow import registry
from w2s_mlflow.config import declarations

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

STAGES = {"link": "student"}
"""Stage tags of runs that are not stage files, mapped to the stage whose options these runs have."""


def present(found: Result) -> Result:
    """Return the run with the parameters that have former names renamed, as the options of its stage declare them."""
    names = _former(STAGES.get(found.stage, found.stage))
    if not names.keys() & found.params.keys():
        return found
    return replace(found, params={names.get(name, name): value for name, value in found.params.items()})


@functools.cache
def _former(stage: str) -> Mapping[str, str]:
    """Present names of the options of a stage by their former ones."""
    if stage not in registry.plugins("stages"):
        return {}
    options = declarations(registry.plugin("stages", stage, "the stage").Config)
    return {
        declared.formerly: name
        for name, (_, declared) in options.items()
        if declared.formerly and declared.formerly not in options
    }
