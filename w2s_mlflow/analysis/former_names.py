"""Rename the options of runs from earlier versions, so that these can be analysed together with newer runs."""

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
"""Stage tags without a stage file, mapped to the stage whose options their runs have."""


def with_current_names(run: Result) -> Result:
    """Return the run with former parameter names replaced by the current names that its stage declares."""
    names = _former(STAGES.get(run.stage, run.stage))
    if not names.keys() & run.params.keys():
        return run
    return replace(run, params={names.get(name, name): value for name, value in run.params.items()})


@functools.cache
def _former(stage: str) -> Mapping[str, str]:
    """Return the current names of a stage's options by former name."""
    if stage not in registry.plugins("stages"):
        return {}
    options = declarations(registry.plugin("stages", stage, "the stage").Config)
    return {
        declared.formerly: name
        for name, (_, declared) in options.items()
        if declared.formerly and declared.formerly not in options
    }
