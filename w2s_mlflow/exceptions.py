"""Errors whose messages are shown to the user, and functions that give the messages a common form."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

LARGEST = 1e30
"""Exclusive upper bound of learning rates and temperatures."""


ALLOCATION = re.compile(r"out of memory|can't allocate memory|Cannot allocate memory|ALLOC_FAILED")
"""Words of torch for memory that a CPU or a GPU lacks. Torch has a class of errors for GPUs only."""


class ConfigError(ValueError):
    """Invalid user input. The command line prints the message and exits with status 2."""


class FailedTrainingError(ConfigError):
    """Training with these options failed: it diverged, ran out of memory, or the model cannot be used."""


class ModelError(FailedTrainingError):
    """A model cannot be read, or does not fit its tokenizer, its head or the options of the training."""


class DivergedError(FailedTrainingError):
    """A loss or a probability is not finite because training diverged."""


def memory_error(error: BaseException, task: str) -> FailedTrainingError | None:
    """Return the error for a computation that ran out of memory, on a CPU or a GPU; None if `error` has another cause.

    Args:
        task: what ran out of memory, such as "student".
    """
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and ALLOCATION.search(str(error))):
        return None
    advice = "lower --micro-batch or --max-length, set --gradient-checkpointing true, or choose a smaller model"
    return FailedTrainingError(f"{task} ran out of memory: {advice} ({first_line(error)[:200]})")


def must(option: str, rule: str, value: object) -> ConfigError:
    """Return the error for a value that breaks a rule, such as "--alpha must be in [0, 1], got 2.0"."""
    return ConfigError(f"{flag(option)} must be {rule}, got {value}")


def check_positive(option: str, value: float | None) -> None:
    """Raise ConfigError unless the value is None or in (0, LARGEST), the range that computations in float32 can handle."""
    if value is not None and not 0 < value < LARGEST:
        raise must(option, f"in (0, {LARGEST:g})", value)


def unknown(option: str, value: str, legal: Iterable[str]) -> ConfigError:
    """Return the error for an unknown name. Its message lists the legal names and suggests the most similar one."""
    names = sorted(legal)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return ConfigError(f"{option} must be one of {', '.join(names)}, got {value!r}{hint}")


def flag(name: str) -> str:
    """Convert `train_size` to `--train-size`. Names of environment variables and other texts are returned unchanged."""
    return name if name.isupper() or not name.isidentifier() else "--" + name.replace("_", "-")


def first_line(error: BaseException) -> str:
    """Return the first non-empty line of an error's message or, if it has none, the name of the error's class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
