"""Checks of the files that a user names, which may be anything: a directory, a pipe, a name that is not valid Unicode."""

from __future__ import annotations

import reprlib
import stat
from pathlib import Path

from w2s_mlflow.exceptions import ConfigError

KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
"""Kinds of files that are not read. Reading a pipe or a device may wait forever."""
SHOWN = 60
"""Maximum number of characters of a value that an error message shows."""


def regular_file(option: str, path: str | Path, rule: str = "an existing file") -> Path:
    """Return the path of a user's file, with `~` replaced by the home directory.

    Args:
        option: the option that names the file, for error messages.
        rule: what the file must be, for error messages.

    Raises:
        ConfigError: the name is not valid Unicode, or there is no regular file of this name that can be looked at.
    """
    if not is_unicode(str(path)):
        raise ConfigError(f"{printable(option)} must be {rule} with a name in UTF-8, got {printable(str(path))}")
    try:
        file = Path(path).expanduser()
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise ConfigError(f"{option} must be {rule}, got {path}") from None
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: the home directory of `~name` is unknown
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"{printable(option)} must be {rule}, got {printable(str(path))}: {reason}") from error
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in KINDS if is_kind(mode)), "not a regular file")
        raise ConfigError(f"{option} must be {rule}, got {path}, which is {kind}")
    return file


def is_unicode(text: str) -> bool:
    """Return whether a text can be written in UTF-8, that is, whether it contains no surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """Return a text with escapes such as `\\x1b` in place of control characters and of characters that are not Unicode."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def described(value: object) -> str:
    """Return a value as an error message shows it. Lists, objects and texts of over SHOWN characters are shortened."""
    if value is None:
        return "no value"
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = SHOWN
    short.maxlevel = 2
    kind = "the list " if isinstance(value, list) else "the object " if isinstance(value, dict) else ""
    return kind + short.repr(value)
