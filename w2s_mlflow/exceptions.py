"""Errors whose messages are shown to the user, and functions that word the messages consistently."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LARGEST = 1e30
"""Exclusive upper bound of learning rates and temperatures."""


class ConfigError(ValueError):
    """Invalid user input; the command line prints the message and exits with status 2."""


class FailedTrainingError(ConfigError):
    """Training with these options failed: it diverged or ran out of memory."""


def must(option: str, rule: str, value: object) -> ConfigError:
    """Return the error for a value that breaks a rule: "--alpha must be in [0, 1], got 2.0"."""
    return ConfigError(f"{flag(option)} must be {rule}, got {value}")


def check_positive(option: str, value: float | None) -> None:
    """Raise ConfigError unless the number is None or in (0, LARGEST), which float32 computations can handle."""
    if value is not None and not 0 < value < LARGEST:
        raise must(option, f"in (0, {LARGEST:g})", value)


def unknown(option: str, value: str, legal: Iterable[str]) -> ConfigError:
    """Return the error for a name that does not exist, with the nearest legal name and the list of legal names."""
    names = sorted(legal)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return ConfigError(f"{option} must be one of {', '.join(names)}, got {value!r}{hint}")


def flag(name: str) -> str:
    """Convert `train_size` to `--train-size`; environment variables and non-identifiers are returned unchanged."""
    return name if name.isupper() or not name.isidentifier() else "--" + name.replace("_", "-")


def first_line(error: Exception) -> str:
    """Return the first non-empty line of an error's message, or the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
