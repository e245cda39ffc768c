"""Config dataclasses <-> `--key value`.

A Config is a frozen, keyword-only dataclass with a sentence under each field; the command line, its help, MLproject and the
run's parameters are all read off it.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from w2s_mlflow import registry
from w2s_mlflow.exceptions import ConfigError, flag, must, unknown

C = TypeVar("C")
BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
"""How a switch is written."""


# --- declared options -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a number must be: at least `ge`, above `gt`, at most `le`, below `lt`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def hold(self, value: float) -> bool:
        """Whether `value` lies within."""
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def rule(self) -> str:
        """The bounds in words: "at least 1", "in [0, 1]"."""
        low, high = (one if one is not None else other for one, other in ((self.ge, self.gt), (self.le, self.lt)))
        if high is None:
            return f"at least {low:g}" if self.ge is not None else f"above {low:g}"
        return f"in {'[' if self.ge is not None else '('}{low:.10g}, {high:.10g}{']' if self.le is not None else ')'}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declared:
    """What is declared of an option beside its name, type and default; see `option`."""

    bounds: Bounds = Bounds()
    unset: str = "auto"
    lookup: Callable[[str, str], object] | None = None
    formerly: str = ""
    former_values: Mapping[str, Any] = dataclasses.field(default_factory=dict)


UNSET = ("", "none", "None")
"""How None is written for every option that has it, beside the word of its own."""


def option(
    *,
    default: Any = dataclasses.MISSING,
    result: bool = True,
    loss_options: bool = False,
    introduced: Any = dataclasses.MISSING,
    unset: str = "auto",
    lookup: Callable[[str, str], object] | None = None,
    formerly: str = "",
    former_values: Mapping[str, Any] | None = None,
    **bounds: float,
) -> Any:
    """A field of a Config, with all that is declared of it. Legal words stand in its type, a Literal.

    Args:
        result: False keeps it out of the fingerprint.
        loss_options: it takes the options of the loss, which are written like any other.
        introduced: for an option that is newer than its Config, the value that acts as the code did before it: while it has
            this value it adds nothing to a fingerprint, so that older results stay what they are.
        unset: how None is written: `auto` where a default takes its place, `none` where it switches something off.
        lookup: (value, name of the option) -> anything; raises ConfigError for a name that does not exist.
        formerly: the option's name in earlier versions, still understood.
        former_values: words of earlier versions, still understood, and what they are now.
        bounds: `ge`, `gt`, `le`, `lt` (see Bounds).
    """
    declared = Declared(
        bounds=Bounds(**bounds), unset=unset, lookup=lookup, formerly=formerly, former_values=former_values or {}
    )
    marks: dict[str, Any] = {"result": result, "loss_options": loss_options, "declared": declared}
    if introduced is not dataclasses.MISSING:
        marks["introduced"] = introduced
    if loss_options:
        return dataclasses.field(default_factory=dict, metadata=marks)
    return dataclasses.field(default=default, metadata=marks)


@typing.dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
def checked_dataclass(cls: type[C]) -> type[C]:
    """A frozen, keyword-only dataclass whose values are held against their declarations before anything else sees them.

    From Python as from the command line: `Config(epochs=2.5)` raises the ConfigError of `--epochs 2.5`, an option of the loss
    may stand beside the others (`Config(alpha=0.6)`), and former names are understood. A class whose options are not written
    `--name value` says how in `WRITTEN`, with {} for the name.
    """
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    assign = made.__init__

    @functools.wraps(assign)
    def checked(self: C, **given: Any) -> None:
        assign(self, **_checked(made, given))

    made.__init__ = checked  # type: ignore[assignment,method-assign]
    return made


def parse(cls: type[C], values: Mapping[str, Any]) -> C:
    """A Config from texts (the command line) or values (a sweep). Raises ConfigError for what is not legal."""
    names = _present_names(
        declarations(typing.cast(Any, cls)), {name.replace("-", "_"): value for name, value in values.items()}
    )
    return cls(**{name: _read(cls, name, value) for name, value in names.items()})


def _checked(cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values by field; what is no field but an option of some loss goes to the field marked `loss_options`."""
    fields, nested = declarations(cls), _nested(cls)
    known: dict[str, Any] = {}
    of_loss: dict[str, Any] = {}
    written: str = getattr(cls, "WRITTEN", "{}")
    for name, value in _spread(_present_names(fields, given), nested):
        if name in fields:
            known[name] = check(written.format(name), value, *fields[name])
        elif nested and name in loss_options():
            of_loss[name] = check(name, value, *loss_options()[name])
        else:
            raise unknown("the option", flag(name), map(flag, _legal(fields, nested)))
    return known | ({nested: of_loss} if nested else {})


def _present_names(fields: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    former = {declared.formerly: name for name, (_, declared) in fields.items() if declared.formerly}
    found: dict[str, Any] = {}
    for name, value in given.items():
        present = name if name in fields else former.get(name, name)
        if present in found:
            raise ConfigError(f"{flag(present)} must be given once, got its former name {flag(name)}, too")
        found[present] = value
    return found


def _spread(values: Mapping[str, Any], nested: str | None) -> Iterator[tuple[str, Any]]:
    """Names and values one by one, those of a loss also where they were given together as a mapping."""
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
    """The type and the declaration of each option of a Config by name."""
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(typing.cast(Any, cls))
    return {field.name: (hints[field.name], field.metadata.get("declared", Declared())) for field in fields}


@functools.cache
def loss_options() -> dict[str, tuple[Any, Declared]]:
    """Every option that some loss has, with its type and declaration."""
    found: dict[str, tuple[Any, Declared]] = {}
    for name in registry.plugins("losses"):
        found |= declarations(registry.plugin("losses", name, "--loss").Options)
    return found


def losses_with(name: str) -> list[str]:
    """The losses that have an option of this name."""
    return [
        loss for loss in registry.plugins("losses") if name in declarations(registry.plugin("losses", loss, "--loss").Options)
    ]


# --- one value --------------------------------------------------------------------------------------------------------

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def choices(kind: Any, declared: Declared) -> tuple[str, ...]:
    """The words that an option may be; none where it is a number, or any text."""
    inner, optional = _inner(kind)
    legal = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else ()
    return (*legal, *([declared.unset] if optional else [])) if legal else ()


def _inner(kind: Any) -> tuple[Any, bool]:
    """A type without None, and whether it has None."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind, False
    return next(arm for arm in typing.get_args(kind) if arm is not type(None)), True


def _read(cls: type, name: str, value: Any) -> Any:
    """A value as it is written on the command line, in its own type; what cannot be read is left for `check` to refuse."""
    kind, declared = declarations(cls).get(name) or loss_options().get(name) or (str, Declared())
    inner, optional = _inner(kind)
    if not isinstance(value, str):
        return value
    legal = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else ()
    if optional and value in (declared.unset, *UNSET) and value not in legal and value not in declared.former_values:
        return None
    if inner is bool:
        return BOOLEANS.get(value.lower(), value)
    if inner in (int, float):
        with contextlib.suppress(ValueError):
            return inner(value)
    return value


def check(name: str, value: Any, kind: Any, declared: Declared) -> Any:
    """The value, if it is legal: of its type, one of its words, within its bounds, and a name that exists.

    Raises:
        ConfigError: it is not; names the option, the rule and the value.
    """
    inner, optional = _inner(kind)
    value = declared.former_values.get(value, value) if isinstance(value, str) else value
    if value is None and optional:
        return None
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


# --- as values --------------------------------------------------------------------------------------------------------


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
            kind = registry.plugin("losses", config.loss, "--loss").Options
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
