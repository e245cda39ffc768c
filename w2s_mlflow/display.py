"""Text that people and programs read: control characters are escaped, credentials are masked, and JSON has a stream of its own.

All text that is printed, logged or stored passes through this module. The text may contain names that a user chose, answers of
servers and lines of libraries.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO
from urllib.parse import unquote

MASK = "***"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters except tab and newline, characters that reverse the direction of text, and halves of characters."""
SECRET_VARIABLE = re.compile(r"(PASSWORD|PASSWD|SECRET|TOKEN|_KEY)$")
"""Names of environment variables that hold a secret."""
SHORTEST, SHORTEST_IN_URI = 8, 6
"""Minimum lengths of a secret that is masked wherever it stands: in a variable of its own, and as the password of a URI.

Shorter texts may be parts of ordinary words. Within a URI, a password of any length is masked."""
_URI = re.compile(r"(?<![\w+.-])([A-Za-z][\w+.-]*://)(\S+)")
_QUERY = re.compile(r"([?&]\w*(?:pass|secret|token|key)\w*=)[^&\s]*", re.IGNORECASE)


def printable(text: str) -> str:
    """Return a text with each character of CONTROL written as its escape, such as `\\x1b`."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def masked(uri: str) -> str:
    """Return a URI without its passwords, even if a password contains special characters that are not percent-encoded.

    A user name without a password may be a token if the URI is one of HTTP, and is then masked, too.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _QUERY.sub(rf"\1{MASK}", uri)
    if user_info := _user_info(rest):
        user, colon, _ = user_info.partition(":")
        shown = f"{user}:{MASK}@" if colon else f"{MASK if scheme in ('http', 'https') else user}@"
        rest = shown + rest[len(user_info) + 1 :]
    return _QUERY.sub(rf"\1{MASK}", f"{scheme}{separator}{rest}")


def has_raw_password(uri: str) -> bool:
    """Return whether the user or password of a URI contains `/`, `?`, `#` or `@`, so that libraries misread the URI."""
    rest = uri.partition("://")[2]
    before, _, query = rest.partition("?")
    head = _head(before)
    if "@" not in head and re.fullmatch("[^:]*(:[0-9]+)?", head):  # a host and a port: the `@` stands in the path
        return False
    return bool(re.search(r"[/?#@]", _user_info(before if "@" in before and re.match(r"\w+=", query) else rest)))


def _head(rest: str) -> str:
    """Return the part of a URI before its path, query and fragment."""
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _user_info(rest: str) -> str:
    """Return the user and password in `user:password@host/path`; "" if there are none.

    A password that is not percent-encoded may contain `/` and `@`, and begin with digits like a port. So if the part before the
    first `/` has an `@` or a colon, everything up to the last `@` counts as the user and password.
    """
    head = _head(rest)
    return rest.rpartition("@")[0] if "@" in head or ":" in head else ""


def redacted(text: str) -> str:
    """Return a text without credentials: those of URIs in it, and the secrets that the environment holds."""
    for secret in _secrets(tuple(os.environ.items())):
        text = text.replace(secret, MASK)
    return _URI.sub(lambda match: masked(match[0]), text) if "://" in text else text


@functools.lru_cache(maxsize=4)
def _secrets(environment: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Return the secrets in environment variables, longest first: URIs with passwords, passwords of URIs, keys and tokens."""
    secrets: set[str] = set()
    for name, value in environment:
        if SECRET_VARIABLE.search(name) and len(value.strip()) >= SHORTEST:
            secrets.add(value.strip())
        password = _user_info(value.partition("://")[2]).partition(":")[2]
        secrets |= {text for text in (password, unquote(password)) if len(text) >= SHORTEST_IN_URI}
    return tuple(sorted(secrets, key=len, reverse=True))


class RedactedStream:
    """A text stream that masks credentials in what is written to it, and is otherwise the stream that it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text without its credentials."""
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts without their credentials."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class PrintableFormatter(logging.Formatter):
    """Log formatter that escapes control characters."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the text of a record."""
        return printable(super().format(record))


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Mask credentials in standard error, and keep standard output free for `print_json`.

    Everything else that is written to standard output goes to standard error, also the lines of libraries and of programs that
    this process starts. After an exception, standard error stays masked, because Python prints the traceback later.
    """
    error, output = sys.stderr, sys.stdout
    guarded: Any = RedactedStream(error)
    sys.stderr = guarded
    with _reserved_output(output) as reserved:
        _OUTPUT.append(reserved)
        sys.stdout = guarded
        try:
            yield
        except SystemExit:
            sys.stderr = error
            raise
        finally:
            sys.stdout = output
            _OUTPUT.pop()
    sys.stderr = error


_OUTPUT: list[TextIO] = []
"""The reserved standard output, while `guarded_streams` is active."""


@contextlib.contextmanager
def _reserved_output(output: TextIO) -> Iterator[TextIO]:
    """Yield a stream to standard output, whose file descriptor is connected to standard error in the meantime.

    If `output` is not the process's own standard output (a test has replaced it), it is yielded as it is.
    """
    try:
        own = output.fileno() == 1 and sys.stderr.fileno() == 2
    except (OSError, ValueError, AttributeError):
        own = False
    if not own:
        yield output
        return
    output.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as reserved:
            yield reserved
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def print_json(value: Any) -> None:
    """Print one JSON value on standard output. Numbers that are not finite, which JSON cannot hold, become null."""
    stream = _OUTPUT[-1] if _OUTPUT else sys.stdout
    print(redacted(json.dumps(_finite(value), allow_nan=False)), file=stream, flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value
