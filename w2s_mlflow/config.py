"""Config dataclasses and their command-line form, `--key value`.

A Config is a frozen, keyword-only dataclass with a help text under each field. The command line, its help, MLproject and the
run's parameters are all derived from it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from w2s_mlflow import registry
from w2s_mlflow.exceptions import ConfigError, flag, must, unknown
from w2s_mlflow.validation import Bounds, Declared, check, read

C = TypeVar("C")


# --- declared options -------------------------------------------------------------------------------------------------


def option(
    *,
    default: Any = dataclasses.MISSING,
    result: bool = True,
    loss_options: bool = False,
    introduced: Any = dataclasses.MISSING,
    unset: str = "auto",
    lookup: Callable[[str, str], object] | None = None,
    formerly: str = "",
    former_values: Mapping[str, str] = MappingProxyType({}),
    plugins: str = "",
    **bounds: float,
) -> Any:
    """Return a Config field with its declaration. If only certain words are legal, the field's type is a Literal of them.

    Args:
        result: whether the option affects the result; if False, it is not part of the fingerprint.
        loss_options: whether the field holds the loss's options; the command line accepts them like any other option.
        introduced: for an option newer than its Config, the value that reproduces the behaviour before the option existed.
            While the option has this value it adds nothing to a fingerprint, so older results stay valid.
        unset: how None is written: `auto` if a default replaces it, `none` if it switches a feature off.
        lookup: function of (value, option name), called for validation; raises ConfigError for a name that does not exist.
        formerly: first name of a renamed option: still accepted, and kept in fingerprints, so that results stay what they are.
        former_values: present values of renamed values, by former value: a former value is still accepted, and kept in
            fingerprints.
        plugins: folder of the plug-ins that the option names; the help lists them, each with the first line of its docstring.
        bounds: `ge`, `gt`, `le`, `lt` (see validation.Bounds).
    """
    declared = Declared(
        bounds=Bounds(**bounds), unset=unset, lookup=lookup, formerly=formerly, former_values=former_values, plugins=plugins
    )
    metadata: dict[str, Any] = {"result": result, "loss_options": loss_options, "declared": declared}
    if introduced is not dataclasses.MISSING:
        metadata["introduced"] = introduced
    if loss_options:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@typing.dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
def checked_dataclass(cls: type[C]) -> type[C]:
    """Return `cls` as a frozen, keyword-only dataclass that validates its values on construction.

    Python and the command line behave alike: `Config(epochs=2.5)` raises the same ConfigError as `--epochs 2.5`, options of the
    loss may be keyword arguments (`Config(alpha=0.6)`), and former names are accepted. A class whose options are not spelled
    `--name value` sets `WRITTEN`, a format string with {} for the name.
    """
    frozen = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    assign = frozen.__init__

    @functools.wraps(assign)
    def checked(self: C, **values: Any) -> None:
        assign(self, **_checked(frozen, values))

    frozen.__init__ = checked  # type: ignore[assignment,method-assign]
    return frozen


def parse(cls: type[C], values: Mapping[str, Any]) -> C:
    """Return a Config from texts (the command line) or values (a sweep). Raises ConfigError for an illegal name or value."""
    names = _present_names(
        declarations(typing.cast(Any, cls)), {name.replace("-", "_"): value for name, value in values.items()}
    )
    known = loss_options() | declarations(typing.cast(Any, cls))
    return cls(**{name: read(value, *known.get(name, (str, Declared()))) for name, value in names.items()})


def _checked(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked values by field; options of a loss go into the field declared with `loss_options`."""
    fields, nested = declarations(cls), _nested(cls)
    known: dict[str, Any] = {}
    of_loss: dict[str, Any] = {}
    written: str = getattr(cls, "WRITTEN", "{}")
    for name, value in _spread(_present_names(fields, values), nested):
        if name in fields:
            known[name] = check(written.format(name), value, *fields[name])
        elif nested and name in loss_options():
            of_loss[name] = check(name, value, *loss_options()[name])
        else:
            raise unknown("the option", flag(name), map(flag, _legal(fields, nested)))
    return known | ({nested: of_loss} if nested else {})


def _present_names(fields: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    former = {declared.formerly: name for name, (_, declared) in fields.items() if declared.formerly}
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        present = name if name in fields else former.get(name, name)
        if present in renamed:
            raise ConfigError(f"{flag(present)} and its former name {flag(name)} must not be given together")
        renamed[present] = value
    return renamed


def _spread(values: Mapping[str, Any], nested: str | None) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) pairs; options of a loss that were given as one mapping are yielded one by one."""
    for name, value in values.items():
        if name != nested:
            yield name, value
        elif isinstance(value, Mapping):
            yield from value.items()
        else:
            raise must(name, "a mapping of the loss's options", repr(value))


def _legal(fields: Iterable[str], nested: str | None) -> list[str]:
    return [name for name in fields if name != nested] + (list(loss_options()) if nested else [])


def _nested(cls: type) -> str | None:
    fields = dataclasses.fields(typing.cast(Any, cls))
    return next((field.name for field in fields if field.metadata.get("loss_options")), None)


@functools.cache
def declarations(cls: type) -> dict[str, tuple[Any, Declared]]:
    """Return the type and declaration of each option of a Config, by name."""
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(typing.cast(Any, cls))
    return {field.name: (hints[field.name], field.metadata.get("declared", Declared())) for field in fields}


@functools.cache
def loss_options() -> dict[str, tuple[Any, Declared]]:
    """Return the options of all losses, with their types and declarations."""
    options: dict[str, tuple[Any, Declared]] = {}
    for name in registry.plugins("losses"):
        options |= declarations(registry.plugin("losses", name, "--loss").Options)
    return options


def losses_with(name: str) -> list[str]:
    """Return the losses that have an option of this name."""
    return [
        loss for loss in registry.plugins("losses") if name in declarations(registry.plugin("losses", loss, "--loss").Options)
    ]


# --- plain values -----------------------------------------------------------------------------------------------------


def as_dict(config: Any) -> dict[str, Any]:
    """Return the resolved Config as plain values, with the loss's options nested in their own field."""
    return dataclasses.asdict(config)


def flat(config: Any) -> dict[str, Any]:
    """Return the result options as a flat mapping of MLflow parameters, including the loss's options."""
    values = result_options(config)
    for field in dataclasses.fields(config):
        if field.metadata.get("loss_options"):
            values |= values.pop(field.name)
    return values


def identity(config: Any) -> dict[str, Any]:
    """Return the options that enter the fingerprint, by first names and values, without those equal to `introduced`."""
    values = _identity(config, result_options(config))
    for field in dataclasses.fields(config):
        if field.metadata.get("loss_options") and config.loss:
            kind = registry.plugin("losses", config.loss, "--loss").Options
            values[field.name] = _identity(kind, dict(values[field.name]))
    return values


def _identity(owner: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` of the fields of `owner` by first names and values, without those that equal `introduced`."""
    fields = {field.name: field.metadata for field in dataclasses.fields(owner)}
    changed = {name: value for name, value in values.items() if value != fields[name].get("introduced", dataclasses.MISSING)}
    return dict(_first(name, value, fields[name].get("declared", Declared())) for name, value in changed.items())


def _first(name: str, value: Any, declared: Declared) -> tuple[str, Any]:
    """Return the first name of an option, and its value as it was first spelled."""
    renamed = (former for former, present in declared.former_values.items() if present == value)
    return declared.formerly or name, next(renamed, value)


def result_options(config: Any) -> dict[str, Any]:
    """Return the fields that affect the result; they are the run's parameters."""
    neutral = {field.name for field in dataclasses.fields(config) if not field.metadata.get("result", True)}
    return {name: value for name, value in as_dict(config).items() if name not in neutral}


@functools.cache
def sentences(cls: type) -> dict[str, str]:
    """Return the command-line help of each option: the text under its field in the dataclass or a base class."""
    texts: dict[str, str] = {}
    for owner in (base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)):
        body = ast.parse(inspect.getsource(owner)).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in itertools.pairwise(body.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                texts[line.target.id] = inspect.cleandoc(str(typing.cast(ast.Constant, below.value).value))
    return texts
