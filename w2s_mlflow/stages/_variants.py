"""In which options runs differ: those that make a method, and those that runs must share to be compared."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_mlflow import config as options
from w2s_mlflow.stages import _methods, student
from w2s_mlflow.stages._options import Training

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

IDENTITY = ("task", "weak", "strong", "method", "seed", "head", "turn")
"""What names a run; only a facilitated weak model has a turn."""
METHOD_OPTIONS = {*_methods.PRIMITIVES, *options.loss_option_types(), "rounds", "lr_decay", "strong_each_round", "calibrate"}
METHOD_OPTIONS |= {"learning_rate", "batch_size"}
"""What makes a method; runs that differ in any other option are not compared."""


def settings(result: Result) -> str:
    """All options of a run but those that name it, as JSON."""
    return json.dumps({key: value for key, value in sorted(result.params.items()) if key not in (*IDENTITY, "rule")})


def of_method(name: str) -> bool:
    """Whether the option makes a method."""
    return name in METHOD_OPTIONS


def of_setting(name: str) -> bool:
    """Whether runs must share the option to be compared."""
    return name not in METHOD_OPTIONS


def differing(
    frame: pd.DataFrame, keys: Sequence[str], told: Callable[[str], bool], plain: Mapping[str, str] | None = None
) -> list[str]:
    """For each row the options in which rows of the same `keys` differ, but those that are as they are by default.

    Args:
        frame: with the columns `keys` and `settings`.
        told: which options are looked at.
        plain: the options where none is given; None: a student's.
    """
    given, plain = frame["settings"].map(json.loads), defaults() if plain is None else plain
    found: dict[Any, list[str]] = {}
    for key, rows in given.groupby([frame[name] for name in keys], sort=False):
        names = sorted({name for row in rows for name in row if told(name)})
        found[key] = [name for name in names if len({row[name] for row in rows if name in row}) > 1]
    places = frame[list(keys)].itertuples(index=False, name=None)
    return [
        " ".join(f"{name}={row[name]}" for name in found[key] if name in row and row[name] != plain.get(name))
        for key, row in zip(places, given, strict=True)
    ]


@functools.cache
def defaults(config: type[Training] = student.Config) -> dict[str, str]:
    """A stage's options where none is given, as its runs log them: resolved, as far as no model has a say."""
    return {name: str(value) for name, value in (options.flat(config()) | _methods.PRIMITIVES).items()}
