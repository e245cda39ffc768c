"""The errors that a user sees as one sentence, and their one wording."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

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
        raise must(option, f"in (0, {LARGEST:g})", value)


def unknown(option: str, value: str, legal: Iterable[str]) -> ConfigError:
    """The one wording for a name that does not exist: the nearest one, and the list."""
    names = sorted(legal)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return ConfigError(f"{option} must be one of {', '.join(names)}, got {value!r}{hint}")


def flag(name: str) -> str:
    """`train_size` -> `--train-size`; an environment variable, and what is written in another way, stays as it is."""
    return name if name.isupper() or not name.isidentifier() else "--" + name.replace("_", "-")
