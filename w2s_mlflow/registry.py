"""Plug-in registry. Every module in a plug-in package, such as losses/, is a plug-in that is named after its file."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import types

from w2s_mlflow.exceptions import unknown


@functools.cache
def plugins(package: str) -> tuple[str, ...]:
    """Return the names of the plug-ins in `w2s_mlflow/<package>`: all modules whose names have no leading underscore."""
    folder = importlib.import_module(f"w2s_mlflow.{package}")
    return tuple(sorted(name for _, name, _ in pkgutil.iter_modules(folder.__path__) if not name.startswith("_")))


def plugin(package: str, name: str, option: str) -> types.ModuleType:
    """Return the plug-in module `w2s_mlflow/<package>/<name>.py`.

    Args:
        option: name of the option that selects the plug-in; the error message contains it.

    Raises:
        ConfigError: there is no such plug-in.
    """
    if name not in plugins(package):
        raise unknown(option, name, plugins(package))
    return importlib.import_module(f"w2s_mlflow.{package}.{name}")


def summaries(package: str) -> dict[str, str]:
    """Return the first line of the docstring of each plug-in of a package, by the name of the plug-in."""
    modules = {name: plugin(package, name, package) for name in plugins(package)}
    return {name: (inspect.getdoc(module) or "").partition("\n")[0] for name, module in modules.items()}
