"""Check of a GGUF file's header, before the package gguf reads it.

The package believes the counts that a file declares, and reads without end where they exceed the file. Format: header and
metadata as in https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, little-endian, versions 2 and 3.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from w2s_mlflow.exceptions import must

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Sizes in bytes of the values of each type of fixed size."""
STRING, ARRAY = 8, 9
SMALLEST_TENSOR = 32
"""Minimum number of bytes of a tensor's description: name, dimensions, type and offset."""


class _InvalidError(Exception):
    """The header is not one of a GGUF file, or declares more than the file holds."""


def check(path: Path, option: str, value: str) -> None:
    """Raise ConfigError if the file is no GGUF file, or declares more entries than it can hold."""
    try:
        with path.open("rb") as file:
            _walk(file, path.stat().st_size)
    except (OSError, _InvalidError):
        raise must(option, "a readable GGUF file", value) from None


def _walk(file: BinaryIO, size: int) -> None:
    """Pass over all metadata. Raises _InvalidError where they do not fit the size of the file."""
    magic, version, tensors, entries = struct.unpack("<4sIQQ", _read(file, 24, size))
    if magic != b"GGUF" or version not in (2, 3) or tensors * SMALLEST_TENSOR > size:
        raise _InvalidError
    for _ in range(entries):  # each entry reads at least 12 bytes, so this ends at the end of the file
        _pass(file, _number(file, "<Q", size), size)
        _skip(file, _number(file, "<I", size), size)


def _skip(file: BinaryIO, kind: int, size: int) -> None:
    if kind == STRING:
        _pass(file, _number(file, "<Q", size), size)
    elif kind == ARRAY:
        kind, count = _number(file, "<I", size), _number(file, "<Q", size)
        if kind in SIZES:
            _pass(file, SIZES[kind] * count, size)
        elif kind == STRING:
            for _ in range(count):  # each string reads at least 8 bytes
                _skip(file, STRING, size)
        else:
            raise _InvalidError
    elif kind in SIZES:
        _pass(file, SIZES[kind], size)
    else:
        raise _InvalidError


def _number(file: BinaryIO, form: str, size: int) -> int:
    number: int = struct.unpack(form, _read(file, struct.calcsize(form), size))[0]
    return number


def _read(file: BinaryIO, count: int, size: int) -> bytes:
    if count > size - file.tell():
        raise _InvalidError
    return file.read(count)


def _pass(file: BinaryIO, count: int, size: int) -> None:
    if count > size - file.tell():
        raise _InvalidError
    file.seek(count, 1)
