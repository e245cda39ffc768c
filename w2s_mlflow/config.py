"""Config dataclasses <-> `--key value`; ConfigError; canonical JSON; the file name as the registry of plug-ins.

A Config is a frozen, keyword-only dataclass with a sentence under each field; the command line, its help, MLproject and the
run's parameters are all read off it.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import importlib
import inspect
import itertools
import json
import math
import pkgutil
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

C = TypeVar("C")
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
"""How a switch is written."""
LARGEST = 1e30
"""What a rate or a temperature must be below."""


class ConfigError(ValueError):
    """The user asked for something that cannot be: printed as one sentence, exit status 2."""


class FailedTrainingError(ConfigError):
    """A training that comes to no result with these options: it diverged, or does not fit the memory."""


def must(option: str, rule: str, value: object) -> ConfigError:
    """The one wording for a value that breaks a rule: "--alpha must be in [0, 1], got 2.0"."""
    return ConfigError(f"{flag(option)} must be {rule}, got {value}")


def check_positive(option: str, value: float | None) -> None:
    """Raise ConfigError for a number, if one is given, that is not positive or too large to compute with in 32 bits."""
    if value is not None and not 0 < value < LARGEST:
        raise must(option, f"a positive number below {LARGEST:g}", value)


def unknown(option: str, value: str, legal: Iterable[str]) -> ConfigError:
    """The one wording for a name that does not exist: the nearest one, and the list."""
    names = sorted(legal)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return ConfigError(f"{option} must be one of {', '.join(names)}, got {value!r}{hint}")


def flag(name: str) -> str:
    """`train_size` -> `--train-size`; the name of an environment variable stays."""
    return name if name.isupper() else "--" + name.replace("_", "-")


# --- plug-ins: the file name is the registry -------------------------------------------------------------------------


@functools.cache
def plugins(package: str) -> tuple[str, ...]:
    """The names of the plug-in files in `w2s_mlflow/<package>`; files with a leading underscore are their private rooms."""
    folder = importlib.import_module(f"w2s_mlflow.{package}")
    return tuple(sorted(name for _, name, _ in pkgutil.iter_modules(folder.__path__) if not name.startswith("_")))


def plugin(package: str, name: str, option: str) -> types.ModuleType:
    """The plug-in `w2s_mlflow/<package>/<name>.py`. Raises ConfigError that names `option` where there is none."""
    if name not in plugins(package):
        raise unknown(option, name, plugins(package))
    return importlib.import_module(f"w2s_mlflow.{package}.{name}")


# --- Config <-> strings -----------------------------------------------------------------------------------------------


def option(default: Any, *, result: bool = True, loss_options: bool = False, introduced: Any = dataclasses.MISSING) -> Any:
    """A Config field with marks.

    Args:
        result: False keeps it out of the fingerprint.
        loss_options: it takes the loss's own options.
        introduced: for an option that is newer than its Config, the value that acts as the code did before it: while it has
            this value it adds nothing to a fingerprint, so that older results stay what they are.
    """
    marks = {"result": result, "loss_options": loss_options}
    if introduced is not dataclasses.MISSING:
        marks["introduced"] = introduced
    if loss_options:
        return dataclasses.field(default_factory=dict, metadata=marks)
    return dataclasses.field(default=default, metadata=marks)


def parse(cls: type[C], values: Mapping[str, Any]) -> C:
    """A Config from strings (the command line) or values (a sweep): unknown names, wrong types and rules are ConfigErrors.

    A key that is no field but an option of some loss goes to the field marked `loss_options`.
    """
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    nested = next((name for name, field in fields.items() if field.metadata.get("loss_options")), None)
    hints = typing.get_type_hints(cls)
    known: dict[str, Any] = {}
    of_loss: dict[str, Any] = {}
    for name, value in _spread(values, nested):
        if name in fields:
            known[name] = convert(name, value, hints[name])
        elif nested and name in loss_option_types():
            of_loss[name] = convert(name, value, loss_option_types()[name])
        else:
            raise unknown("the option", flag(name), map(flag, _legal(fields, nested)))
    return cls(**known, **({nested: of_loss} if nested else {}))


def _spread(values: Mapping[str, Any], nested: str | None) -> Iterator[tuple[str, Any]]:
    """Names and values one by one, those of a loss also where they were given together as a mapping."""
    for key, value in values.items():
        name = key.replace("-", "_")
        if name != nested:
            yield name, value
        elif isinstance(value, Mapping):
            yield from value.items()
        else:
            raise must(name, "a mapping of the loss's options", repr(value))


def _legal(fields: Iterable[str], nested: str | None) -> list[str]:
    return [name for name in fields if name != nested] + (list(loss_option_types()) if nested else [])


def convert(name: str, value: Any, kind: Any) -> Any:
    """One value to the type of its field; strings are read as the command line writes them."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None or value in ("", "none", "None"):
            return None
        kind = next(arm for arm in typing.get_args(kind) if arm is not type(None))
    if not isinstance(value, str) or kind is str:
        return _checked(name, value, kind)
    if kind is bool:
        if value.lower() not in BOOLEANS:
            raise must(name, "true or false", repr(value))
        return BOOLEANS[value.lower()]
    try:
        return _checked(name, kind(value), kind)
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise must(name, {int: "a whole number", float: "a number"}.get(kind, kind.__name__), repr(value)) from None


def _checked(name: str, value: Any, kind: Any) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise must(name, f"of type {kind.__name__}", repr(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise must(name, "finite", value)
    return value


@functools.cache
def loss_option_types() -> dict[str, Any]:
    """Every option that some loss has, with its type."""
    found: dict[str, Any] = {}
    for name in plugins("losses"):
        found |= typing.get_type_hints(plugin("losses", name, "--loss").Options)
    return found


def losses_with(name: str) -> list[str]:
    """The losses that have an option of this name."""
    return [loss for loss in plugins("losses") if name in typing.get_type_hints(plugin("losses", loss, "--loss").Options)]


def as_dict(config: Any) -> dict[str, Any]:
    """The resolved Config as plain values, the loss's options in their own field."""
    return dataclasses.asdict(config)


def flat(config: Any) -> dict[str, Any]:
    """What changes the result, as MLflow parameters: one level, the loss's options under their own names."""
    values = result_options(config)
    for field in dataclasses.fields(config):
        if field.metadata.get("loss_options"):
            values |= values.pop(field.name)
    return values


def identity(config: Any) -> dict[str, Any]:
    """The part of a Config that enters a fingerprint: the fields that change the result, without newer ones as introduced."""
    found = _without_introduced(config, result_options(config))
    for field in dataclasses.fields(config):
        if field.metadata.get("loss_options") and config.loss:
            kind = plugin("losses", config.loss, "--loss").Options
            found[field.name] = _without_introduced(kind, dict(found[field.name]))
    return found


def _without_introduced(owner: Any, values: dict[str, Any]) -> dict[str, Any]:
    """`values` of the fields of a dataclass without those that are what they were when they were introduced."""
    introduced = {
        field.name: field.metadata["introduced"] for field in dataclasses.fields(owner) if "introduced" in field.metadata
    }
    return {name: value for name, value in values.items() if name not in introduced or value != introduced[name]}


def result_options(config: Any) -> dict[str, Any]:
    """The fields that change the result, which are the run's parameters."""
    neutral = {field.name for field in dataclasses.fields(config) if not field.metadata.get("result", True)}
    return {name: value for name, value in as_dict(config).items() if name not in neutral}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@functools.cache
def sentences(cls: type) -> dict[str, str]:
    """The sentence under each field of a dataclass and of those it extends, its documentation on the command line."""
    found: dict[str, str] = {}
    for owner in (one for one in reversed(cls.__mro__) if dataclasses.is_dataclass(one)):
        body = ast.parse(inspect.getsource(owner)).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in itertools.pairwise(body.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                found[line.target.id] = inspect.cleandoc(str(typing.cast(ast.Constant, below.value).value))
    return found
