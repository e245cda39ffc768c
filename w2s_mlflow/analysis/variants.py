"""Find options that differ between runs: options that define a method, and options that must be equal in compared runs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_mlflow import config as options
from w2s_mlflow import models, registry
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.methods import presets
from w2s_mlflow.pipeline.options import NONE, rule_name

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

IDENTITY = ("task", "weak", "strong", "method", "seed", "head", "iteration", "repeat")
"""Parameters that identify a run; only facilitated and aligned models have `iteration`, and only imported runs `repeat`."""
METHOD_OPTIONS = {*presets.PRIMITIVES, *options.plugin_options("losses"), *options.plugin_options("methods.labels")}
METHOD_OPTIONS |= {"chain_rounds", "lr_decay", "strong_each_round", "calibrate", "learning_rate", "batch_size"}
METHOD_OPTIONS |= {"layer", "l2"}
"""Options that define a method. Runs are compared only if all their other options are equal."""


def settings(result: Result, columns: Sequence[str] = IDENTITY) -> str:
    """Return a run's options as JSON, without those that have columns of their own."""
    return json.dumps({key: value for key, value in sorted(result.params.items()) if key not in (*columns, "rule")})


def of_method(name: str) -> bool:
    """Return whether the option defines a method."""
    return name in METHOD_OPTIONS


def of_setting(name: str) -> bool:
    """Return whether runs must have the same value of the option to be compared."""
    return name not in METHOD_OPTIONS


def add_config_diff(frame: pd.DataFrame, of: Sequence[str] = (), stage: str = "student") -> pd.DataFrame:
    """Add the columns `method_options` and `other_options`, which list options that differ between runs.

    `method_options` lists those that define a method, and `other_options` all others. Default values are not listed.

    Args:
        frame: has the columns task, weak, strong, head, method, settings and those named in `of`.
        of: further columns, such as `stage`. Only runs with the same values in these columns are compared.
        stage: stage of the runs, unless `of` includes the column `stage`.
    """
    label = ["task", "weak", "strong", "head", "method"]
    columns = [*of, *label]
    labels = (dict(zip(columns, row, strict=True)) for row in frame[columns].itertuples(index=False, name=None))
    default_rows = [defaults(**({"stage": stage} | row)) for row in labels]
    variants = differing_options(frame, [*of, *label], of_method, default_rows)
    others = differing_options(frame, [*of, "task", "head"], of_setting, default_rows)
    return frame.assign(method_options=variants, other_options=others)


def differing_options(
    frame: pd.DataFrame, keys: Sequence[str], selects: Callable[[str], bool], default_rows: Sequence[Mapping[str, str]]
) -> list[str]:
    """Return, for each row, its non-default options that vary among the rows with the same values of `keys`.

    Args:
        frame: has the columns named in `keys`, and the column `settings`.
        selects: returns whether the option with a given name is considered.
        default_rows: default values of the options, for each row.
    """
    parsed = frame["settings"].map(json.loads)
    varying: dict[Any, list[str]] = {}
    for key, rows in parsed.groupby([frame[name] for name in keys], sort=False):
        names = sorted({name for row in rows for name in row if selects(name)})
        varying[key] = [name for name in names if len({row[name] for row in rows if name in row}) > 1]
    groups = frame[list(keys)].itertuples(index=False, name=None)
    return [
        " ".join(f"{name}={row[name]}" for name in varying[key] if name in row and row[name] != default.get(name))
        for key, row, default in zip(groups, parsed, default_rows, strict=True)
    ]


@functools.cache
def defaults(stage: str = "student", **named: str) -> dict[str, str]:
    """Return the default options of a stage, as its runs log them (the stage `link` has the options of a student).

    Args:
        named: models, head and method of a run; defaults that depend on them are resolved if the models are installed.
            A method that is not a preset has the defaults of a plain student.
    """
    kind = registry.plugin("stages", "student" if stage == "link" else stage, "stage").Config
    fields = {field.name for field in dataclasses.fields(kind)}
    values = {name: value for name, value in named.items() if name in fields and value != NONE}
    model_names, declared = (
        {values[role] for role in ("weak", "strong") if role in values and rule_name(values[role]) is None},
        {spec.name for spec in models.all_specs()},
    )
    if model_names <= declared and hasattr(kind, "resolved"):
        for kwargs in (values, {name: value for name, value in values.items() if name != "method"}):
            with contextlib.suppress(ConfigError):
                return _logged(kind(**kwargs).resolved())
    return _logged(kind()) | {name: str(value) for name, value in presets.PRIMITIVES.items()}


def _logged(config: Any) -> dict[str, str]:
    return {name: str(value) for name, value in options.flat(config).items()}
