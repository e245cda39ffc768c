"""Normalize command-line arguments, including those of `mlflow run`, and derive Typer parameters from a Config."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn

import typer

from w2s_mlflow import config as options
from w2s_mlflow import exceptions, registry
from w2s_mlflow.cli import commands
from w2s_mlflow.exceptions import ConfigError, unknown
from w2s_mlflow.validation import BOOLEANS, Declared, choices

SWITCHES = {
    "json": commands.JSON,
    "plan": "Print what would be reused and trained, and the estimated time; start nothing.",
}


# --- normalizing arguments -----------------------------------------------------------------------------------------------


def normalized(arguments: Iterable[str]) -> list[str]:
    """Return the arguments in the form that the commands expect.

    `mlflow run` writes undeclared options with underscores and gives every option a value, even switches such as `--plan`.
    """
    return _switched([_dashed(argument) for argument in arguments])


def _dashed(argument: str) -> str:
    """Write `--train_size` as `--train-size`: `mlflow run -P train_size=...` passes undeclared options with underscores."""
    name, equals, value = argument.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else argument


def _switched(arguments: list[str]) -> list[str]:
    """Write `--plan true` as `--plan`, and drop `--plan false`."""
    result: list[str] = []
    for argument in arguments:
        if result and result[-1].removeprefix("--") in SWITCHES and argument.lower() in BOOLEANS:
            if not BOOLEANS[argument.lower()]:
                result.pop()
        else:
            result.append(argument)
    return result


def with_current_names(arguments: list[str], kind: type) -> list[str]:
    """Replace the former names of a Config's options by the current names."""
    names = options.former_names(options.declarations(kind))
    former = {exceptions.flag(name): exceptions.flag(current) for name, current in names.items()}
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        result.append(former.get(name, name) + equals + value)
    return result


def with_boolean_values(arguments: list[str], kind: type) -> list[str]:
    """Add the value `true` to boolean options of a Config that were given without a value, such as `--calibrate`."""
    either = {exceptions.flag(name) for name, type_ in typing.get_type_hints(kind).items() if type_ is bool}
    result: list[str] = []
    for argument, after in itertools.zip_longest(arguments, arguments[1:], fillvalue="--"):
        result += [argument, "true"] if argument in either and after.startswith("--") else [argument]
    return result


# --- Typer parameters ----------------------------------------------------------------------------------------------------


def specified(values: Mapping[str, str | None]) -> dict[str, str]:
    """Return the options that were given on the command line."""
    return {name: value for name, value in values.items() if value is not None}


def with_signature(command: Any, cls: type, more: Iterable[inspect.Parameter]) -> Any:
    """Return `command` with the signature that Typer reads: one option per field of a Config, and the parameters in `more`."""
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    command.__signature__ = inspect.Signature([context, *_parameters(cls), *more])
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in command.__signature__.parameters.values()}
    return command


def _parameters(cls: type) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each option of a Config.

    A field that holds the options of a plug-in is replaced by the options of all plug-ins that can be selected.
    """
    sentences, declarations = options.sentences(cls), options.declarations(cls)
    for field in dataclasses.fields(cls):
        kind, declared = declarations[field.name]
        if options_of := field.metadata.get("options_of"):
            yield from _plugin_parameters(*options_of)
        else:
            text = f"{sentences[field.name]} {_plugins(declared)}"
            yield _parameter(field.name, _shown(field.default, declared), text, _metavar(kind, declared))


def _plugin_parameters(package: str, chooser: str) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each option of the plug-ins of a package.

    If several plug-ins have an option of the same name, it is one parameter. Its help shows each distinct text and default
    once, after the names of the plug-ins to which they apply: "(confidence, entropy; default auto) Weight of ...".
    """
    plugins_by_help: dict[str, dict[tuple[str, str], list[str]]] = {}
    for name in registry.plugins(package):
        kind = registry.plugin(package, name, exceptions.flag(chooser)).Options
        for field in dataclasses.fields(kind):
            default = _shown(field.default, options.declarations(kind)[field.name][1])
            help_ = options.sentences(kind)[field.name], default
            plugins_by_help.setdefault(field.name, {}).setdefault(help_, []).append(name)
    for name, helps in plugins_by_help.items():
        text = " ".join(f"({', '.join(names)}; default {default}) {help_}" for (help_, default), names in helps.items())
        metavar = _metavar(*options.plugin_options(package)[name])
        yield _parameter(name, f"depends on {exceptions.flag(chooser)}", text, metavar)


def _plugins(declared: Declared) -> str:
    """Return a help text that lists the plug-ins that an option can name, with a summary of each."""
    summaries = registry.summaries(declared.plugins) if declared.plugins else {}
    return " ".join(f"`{name}`: {summary}" for name, summary in summaries.items())


def _shown(default: Any, declared: Declared) -> str:
    return declared.unset if default is None else str(default).lower() or "empty"


def _metavar(kind: Any, declared: Declared) -> str:
    """Return the placeholder for the value in the help: the legal words, or the type of the value."""
    if legal := choices(kind, declared):
        return f"[{'|'.join(legal)}]"
    arms = typing.get_args(kind) or (kind,)
    return {int: "INTEGER", float: "NUMBER", bool: "[true|false]"}.get(arms[0], "TEXT")


def _parameter(name: str, default: str, help_: str, metavar: str) -> inspect.Parameter:
    # Typer passes on all option values as text. config.parse converts and checks them, as it does for sweeps.
    text = f"{' '.join(help_.split())} [default: {default}]"
    option = typer.Option(None, exceptions.flag(name), help=text, metavar=metavar, show_default=False)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=str | None, default=option)


def switch(name: str) -> inspect.Parameter:
    """Return the Typer parameter of a switch, such as `--json`."""
    option = typer.Option(False, exceptions.flag(name), help=SWITCHES[name])
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=bool, default=option)


def reject(argument: str, legal: Iterable[str]) -> NoReturn:
    """Raise ConfigError for an argument that is not a legal option. The message lists the legal options."""
    if argument.startswith("-"):
        raise unknown("the option", argument.split("=")[0], map(exceptions.flag, legal))
    raise ConfigError(f"options must have the form --name value, got {argument!r} without a name")
