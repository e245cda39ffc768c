"""Validation of one option's value against its declaration: type, legal words, bounds, existing name."""

from __future__ import annotations

import contextlib
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from w2s_mlflow.exceptions import flag, must, unknown

BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
"""Accepted spellings of a boolean option."""
UNSET = ("", "none", "None")
"""Spellings of None that every optional option accepts in addition to its `unset` word."""
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of a number: at least `ge`, above `gt`, at most `le`, below `lt`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: float) -> bool:
        """Return whether `value` lies within the bounds."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def rule(self) -> str:
        """Return the bounds in words: "at least 1", "in [0, 1]"."""
        low, high = (
            inclusive if inclusive is not None else exclusive
            for inclusive, exclusive in ((self.ge, self.gt), (self.le, self.lt))
        )
        if high is None:
            return f"at least {low:g}" if self.ge is not None else f"above {low:g}"
        return f"in {'[' if self.ge is not None else '('}{low:.10g}, {high:.10g}{']' if self.le is not None else ')'}"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """Declaration of an option beyond its name, type and default (`config.option`)."""

    bounds: Bounds = Bounds()
    """Limits of a number."""
    unset: str = "auto"
    """How None is written: `auto` if a default replaces it, `none` if it switches a feature off."""
    lookup: Callable[[str, str], object] | None = None
    """Function of (value, option name) that raises ConfigError for a name that does not exist."""
    formerly: str = ""
    """First name of a renamed option: still accepted, and kept in fingerprints, so that results stay what they are."""
    former_values: Mapping[str, str] = field(default_factory=dict)
    """Present values of renamed values, by former value: still accepted, and kept in fingerprints. A present value `none` is
    never read as None."""
    plugins: str = ""
    """Folder of the plug-ins that the option names; the help lists them, each with the first line of its docstring."""


def choices(kind: Any, declared: Declared) -> tuple[str, ...]:
    """Return the legal words of an option; empty if it is a number or free text."""
    inner, optional = _inner(kind)
    legal = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else ()
    return (*legal, *([declared.unset] if optional else [])) if legal else ()


def _inner(kind: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether None was part of it."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, False
    return next(arm for arm in typing.get_args(kind) if arm is not type(None)), True


def read(value: Any, kind: Any, declared: Declared) -> Any:
    """Convert a command-line text to the option's type; unreadable text is returned unchanged, for `check` to reject."""
    inner, optional = _inner(kind)
    if not isinstance(value, str):
        return value
    legal = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else tuple(declared.former_values.values())
    if optional and value in (declared.unset, *UNSET) and value not in legal:
        return None
    if inner is bool:
        return BOOLEANS.get(value.lower(), value)
    if inner in (int, float):
        with contextlib.suppress(ValueError):
            return inner(value)
    return value


def check(name: str, value: Any, kind: Any, declared: Declared) -> Any:
    """Return the value if it is legal: of the right type, one of the legal words, within the bounds, an existing name.

    A former value is replaced by the present one.

    Raises:
        ConfigError: the value is illegal; the message names the option, the rule and the value.
    """
    inner, optional = _inner(kind)
    if value is None and optional:
        return None
    if isinstance(value, str):
        value = declared.former_values.get(value, value)
    if legal := choices(kind, declared):
        if value not in legal:
            raise unknown(flag(name), value, legal)
        return value
    value = float(value) if inner is float and type(value) is int else value
    if inner in WORDS and type(value) is not inner:
        raise must(name, WORDS[inner], repr(value))
    if isinstance(value, float) and not math.isfinite(value):
        raise must(name, "finite", value)
    if inner in (int, float) and not declared.bounds.hold(value):
        raise must(name, declared.bounds.rule(), value)
    if declared.lookup is not None:
        declared.lookup(value, name)
    return value
