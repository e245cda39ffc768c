"""Names and texts in the form that MLflow takes, made of any text that a user gives: paths, names of models, options.

MLflow restricts the characters of metric names, and databases restrict lengths. A legal name stays as it is. An illegal one is
changed, and a digest is appended, so that two different names never become the same.
"""

from __future__ import annotations

import functools
import hashlib
import posixpath
import re
from collections.abc import Iterable

from w2s_mlflow.display import printable, redacted

METRIC, PART = 250, 180
"""Maximum lengths of a metric name, and of one part of a metric name that has several parts."""
RUN, DATASET = 250, 500
"""Maximum lengths of the names of runs and data sets."""
DIGITS = 8
"""Number of hexadecimal digits of the digest that is appended to a changed name."""
_ILLEGAL = re.compile(r"[^\w./:\- ]")


@functools.lru_cache(maxsize=100_000)
def metric(*parts: str) -> str:
    """Return the metric name that consists of the parts, separated by slashes. The parts may be any text."""
    return "/".join(_legal(part, METRIC if len(parts) == 1 else PART) for part in parts)


def run(text: str) -> str:
    """Return the name of a run: a text without control characters and credentials, of at most RUN characters."""
    return _cut(plain(text).replace("\n", " "), RUN)


def dataset(text: str) -> str:
    """Return the name of a data set: a text without control characters and credentials, of at most DATASET characters."""
    return _cut(plain(text), DATASET)


def plain(text: object) -> str:
    """Return the text of a tag or parameter, without control characters, which databases refuse, and without credentials."""
    return printable(redacted(str(text)))


def like(attribute: str, value: str) -> str:
    """Return a clause of an MLflow filter string that holds for runs with this value, and possibly for some others.

    MLflow cannot quote every text. Each special character is therefore replaced by a wildcard, and the caller must compare the
    values of the runs that are found.
    """
    return f"{attribute} LIKE '{re.sub(r'[^A-Za-z0-9 ./:>-]', '_', value)}'"


def split(text: str, existing: Iterable[str]) -> list[str]:
    """Split a comma-separated list of names, of which some may contain commas.

    Returns:
        The names in their order. Adjacent items that together are an existing name are one name, the longest first.
    """
    items, known, names = text.split(","), set(existing), []
    while items:
        ends = range(len(items), 0, -1)
        end = next((end for end in ends if ",".join(items[:end]).strip() in known), 1)
        names.append(",".join(items[:end]).strip())
        items = items[end:]
    return [name for name in names if name]


def _legal(text: str, limit: int) -> str:
    if text and len(text) <= limit and not _ILLEGAL.search(text) and posixpath.normpath(text) == text and _inside(text):
        return text
    segments = [segment for segment in _ILLEGAL.sub("_", plain(text)).split("/") if segment not in ("", ".", "..")]
    return f"{'/'.join(segments)[: limit - DIGITS - 1].rstrip('/') or '_'}-{_digest(text)}"


def _inside(path: str) -> bool:
    return path not in (".", "..") and not path.startswith(("/", "../"))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - DIGITS - 1]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]
