"""Config dataclasses, which declare the options of the commands (`--name value`).

A Config is a frozen, keyword-only dataclass with a help text under each field. The command line, its help, MLproject and the
parameters of MLflow runs are all derived from it.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import typing
from collections.abc import Iterable, Iterator, Mapping
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
    options_of: tuple[str, str] | None = None,
    introduced: Any = dataclasses.MISSING,
    **declaration: Any,
) -> Any:
    """Return a dataclass field that declares an option of a Config.

    If only a few words are legal as the value of the option, annotate the field with a Literal of these words.

    Args:
        result: whether the option affects the result. If False, the option is not part of the fingerprint.
        options_of: for a field that holds the options of a plug-in: the package of the plug-ins, and the field that selects the
            plug-in, such as ("losses", "loss"). On the command line, options of a plug-in are written like any other option.
        introduced: for an option that was added to an existing Config: the value that reproduces the behaviour before the
            option existed. An option with this value is left out of fingerprints, so that older results stay valid.
        declaration: further properties of the option: the bounds `ge`, `gt`, `le`, `lt` (see validation.Bounds), and the fields
            of validation.Declared other than `bounds`.
    """
    bounds = {name: declaration.pop(name) for name in Bounds.__dataclass_fields__ if name in declaration}
    declared = Declared(bounds=Bounds(**bounds), **declaration)
    metadata: dict[str, Any] = {"result": result, "options_of": options_of, "declared": declared}
    if introduced is not dataclasses.MISSING:
        metadata["introduced"] = introduced
    if options_of:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@typing.dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
def checked_dataclass(cls: type[C]) -> type[C]:
    """Return `cls` as a frozen, keyword-only dataclass that validates its values on construction.

    Python and the command line behave alike: `Config(epochs=2.5)` raises the same ConfigError as `--epochs 2.5`, options of a
    plug-in may be keyword arguments (`Config(alpha=0.6)`), and former names are accepted. A class whose options are not
    written as `--name value` sets the class attribute `WRITTEN` to the form in which error messages show an option, with {} in
    place of the option's name.
    """
    frozen = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    assign = frozen.__init__

    @functools.wraps(assign)
    def checked(self: C, **values: Any) -> None:
        assign(self, **_checked(frozen, values))

    frozen.__init__ = checked  # type: ignore[assignment,method-assign]
    return frozen


def parse(cls: type[C], values: Mapping[str, Any]) -> C:
    """Return the Config whose options have the given values.

    Args:
        values: values by option name. Texts, such as those from the command line, are converted to the types of the options.

    Raises:
        ConfigError: an option does not exist, or its value is illegal.
    """
    names = _present_names(
        declarations(typing.cast(Any, cls)), {name.replace("-", "_"): value for name, value in values.items()}
    )
    known = _nested_options(cls) | declarations(typing.cast(Any, cls))
    return cls(**{name: read(value, *known.get(name, (str, Declared()))) for name, value in names.items()})


def _checked(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checked values by field name. Options of a plug-in are put into the field declared with `options_of`."""
    fields, nested = declarations(cls), nested_fields(cls)
    values: dict[str, Any] = {field: {} for field in nested}
    written: str = getattr(cls, "WRITTEN", "{}")
    for name, value in _spread(_present_names(fields, given), nested):
        if name in fields:
            values[name] = check(written.format(name), value, *fields[name])
        elif field := next((field for field, (package, _) in nested.items() if name in plugin_options(package)), None):
            values[field][name] = check(name, value, *_nested_options(cls)[name])
        else:
            legal = [option for option in fields if option not in nested]
            raise unknown("the option", flag(name), map(flag, [*legal, *_nested_options(cls)]))
    return values


def former_names(fields: Mapping[str, tuple[Any, Declared]]) -> dict[str, str]:
    """Return the current names of renamed options by their original names, without original names that are in use again.

    Args:
        fields: the options of a Config (see `declarations`).
    """
    former = {declared.formerly: name for name, (_, declared) in fields.items() if declared.formerly}
    return {name: current for name, current in former.items() if name not in fields}


def _present_names(fields: Mapping[str, tuple[Any, Declared]], values: Mapping[str, Any]) -> dict[str, Any]:
    former = former_names(fields)
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        present = former.get(name, name)
        if present in renamed:
            raise ConfigError(f"{flag(present)} and its former name {flag(name)} must not be given together")
        renamed[present] = value
    return renamed


def _spread(values: Mapping[str, Any], nested: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) pairs. A mapping with the options of a plug-in is yielded as one pair per option."""
    for name, value in values.items():
        if name not in nested:
            yield name, value
        elif isinstance(value, Mapping):
            yield from value.items()
        else:
            raise must(name, "a mapping of option names to values", repr(value))


def nested_fields(cls: Any) -> dict[str, tuple[str, str]]:
    """Return the fields that hold the options of a plug-in, each with the plug-in's package and the field that names it."""
    return {field.name: field.metadata["options_of"] for field in dataclasses.fields(cls) if field.metadata.get("options_of")}


@functools.cache
def declarations(cls: type) -> dict[str, tuple[Any, Declared]]:
    """Return the type and the declaration of each option of a Config, by the name of the option."""
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(typing.cast(Any, cls))
    return {field.name: (hints[field.name], field.metadata.get("declared", Declared())) for field in fields}


def _nested_options(cls: type) -> dict[str, tuple[Any, Declared]]:
    """Return the type and the declaration of each option of all plug-ins that a Config can select, by option name."""
    packages = dict.fromkeys(package for package, _ in nested_fields(cls).values())
    return {name: declared for package in packages for name, declared in plugin_options(package).items()}


@functools.cache
def plugin_options(package: str) -> dict[str, tuple[Any, Declared]]:
    """Return the type and the declaration of each option of all plug-ins of a package, by option name."""
    options: dict[str, tuple[Any, Declared]] = {}
    for name in registry.plugins(package):
        options |= declarations(registry.plugin(package, name, package).Options)
    return options


def plugins_with(package: str, option: str) -> list[str]:
    """Return the names of the plug-ins of a package that have an option of this name."""
    return [
        name for name in registry.plugins(package) if option in declarations(registry.plugin(package, name, package).Options)
    ]


# --- plain values -----------------------------------------------------------------------------------------------------


def as_dict(config: Any) -> dict[str, Any]:
    """Return the options of a Config as a dictionary of plain values. The options of a plug-in form a nested dictionary."""
    return dataclasses.asdict(config)


def selected(config: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return the values of the options in `names`, by option name."""
    values = vars(config)
    return {name: values[name] for name in names}


def inherited(base: Any, config: Any) -> dict[str, Any]:
    """Return the values of those options of `config` that are inherited from the Config class `base`, by option name."""
    return selected(config, (field.name for field in dataclasses.fields(base)))


def flat(config: Any) -> dict[str, Any]:
    """Return the options that affect the result, including those of plug-ins, as one flat mapping of MLflow parameters."""
    values = result_options(config)
    for field in nested_fields(config):
        values |= values.pop(field)
    return values


def identity(config: Any) -> dict[str, Any]:
    """Return the options that enter the fingerprint.

    Renamed options and renamed values appear under their original names, and options whose value equals their `introduced`
    value are left out, so that the fingerprints of older results stay the same.
    """
    values = _identity(config, result_options(config))
    for field, (package, chooser) in nested_fields(config).items():
        if values.get(field):
            plugin = registry.plugin(package, vars(config)[chooser], flag(chooser))
            values[field] = _identity(plugin.Options, dict(values[field]))
    return values


def _identity(owner: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of `identity` that one dataclass contributes, given the values of the options of this dataclass."""
    fields = {field.name: field.metadata for field in dataclasses.fields(owner)}
    changed = {name: value for name, value in values.items() if value != fields[name].get("introduced", dataclasses.MISSING)}
    return dict(_first(name, value, fields[name].get("declared", Declared())) for name, value in changed.items())


def _first(name: str, value: Any, declared: Declared) -> tuple[str, Any]:
    """Return the original name of an option, and the original name of its value."""
    renamed = (former for former, present in declared.former_values.items() if present == value)
    return declared.formerly or name, next(renamed, value)


def result_options(config: Any) -> dict[str, Any]:
    """Return the values of the options that affect the result."""
    neutral = {field.name for field in dataclasses.fields(config) if not field.metadata.get("result", True)}
    return {name: value for name, value in as_dict(config).items() if name not in neutral}


@functools.cache
def sentences(cls: type) -> dict[str, str]:
    """Return the help text of each option: the string under its field in the dataclass or in a base class."""
    texts: dict[str, str] = {}
    for owner in (base for base in reversed(cls.__mro__) if dataclasses.is_dataclass(base)):
        body = ast.parse(inspect.getsource(owner)).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, below in itertools.pairwise(body.body):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(below, ast.Expr):
                texts[line.target.id] = inspect.cleandoc(str(typing.cast(ast.Constant, below.value).value))
    return texts
