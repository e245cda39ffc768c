"""Validation of the value of one option: its type, its legal words, its bounds and, if it is a name, whether it exists."""

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
"""Accepted spellings of the values of a boolean option."""
UNSET = ("", "none", "None")
"""Spellings of None. Every option that may be None accepts them, besides the word in `Declared.unset`."""
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
"""Names of the types of options in error messages."""


MOST = 10**9
"""Upper bound of a whole number whose option declares none. No count, size or length of an experiment comes near it."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of a number: it is at least `ge`, above `gt`, at most `le` and below `lt`. A limit that is None does not apply."""

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
        """Return the bounds in words, such as "at least 1" or "in [0, 1]"."""
        low, high = (
            inclusive if inclusive is not None else exclusive
            for inclusive, exclusive in ((self.ge, self.gt), (self.le, self.lt))
        )
        if high is None:
            return f"at least {low:g}" if self.ge is not None else f"above {low:g}"
        return f"in {'[' if self.ge is not None else '('}{low:.10g}, {high:.10g}{']' if self.le is not None else ')'}"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What `config.option` declares about an option besides its name, type and default."""

    bounds: Bounds = Bounds()
    """Limits of a number."""
    unset: str = "auto"
    """Word for None on the command line: `auto` if None stands for a default, `none` if it switches a feature off."""
    lookup: Callable[[str, str], object] | None = None
    """Function that is called with the value and the name of the option, and raises ConfigError for an unknown value."""
    formerly: str = ""
    """Original name of a renamed option. It is still accepted. Fingerprints contain it, so that older results stay valid."""
    former_values: Mapping[str, str] = field(default_factory=dict)
    """New names of renamed values, by their original names. Original names are still accepted, and fingerprints contain them.
    If a new name is the word `none`, the text `none` means this value rather than None."""
    plugins: str = ""
    """Package of the plug-ins that the option can name. The help lists them, each with the first line of its docstring."""


def choices(kind: Any, declared: Declared) -> tuple[str, ...]:
    """Return the legal words of an option, or () if its value is a number, a boolean or free text."""
    inner, optional = _inner(kind)
    legal = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else ()
    return (*legal, *([declared.unset] if optional else [])) if legal else ()


def _inner(kind: Any) -> tuple[Any, bool]:
    """Split an optional type: return the type without None, and whether None was part of it."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, False
    return next(arm for arm in typing.get_args(kind) if arm is not type(None)), True


def read(value: Any, kind: Any, declared: Declared) -> Any:
    """Convert a text to the option's type. Text that cannot be converted is returned unchanged, and `check` rejects it."""
    inner, optional = _inner(kind)
    if not isinstance(value, str):
        return value
    legal = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else tuple(declared.former_values.values())
    if optional and value in (declared.unset, *UNSET) and value not in legal:
        return None
    if inner is bool:
        return BOOLEANS.get(value.lower(), value)
    if inner in (int, float) and value.isascii():  # Python also converts digits of other scripts
        with contextlib.suppress(ValueError):
            return inner(value)
    return value


def check(name: str, value: Any, kind: Any, declared: Declared) -> Any:
    """Return the value of an option if it is legal. The original name of a renamed value is replaced by the new name.

    Raises:
        ConfigError: the value has the wrong type, is not one of the legal words, is out of bounds, or is an unknown name.
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
    if inner is int and declared.bounds.le is declared.bounds.lt is None and value > MOST:
        raise must(name, f"at most {MOST:,}", value)
    if declared.lookup is not None:
        declared.lookup(value, name)
    return value
