"""What made a result: its options, data, training inputs, libraries and source, part by part.

Two runs with equal parts are the same result, so that the second is never trained. What only reports (tables, a ceiling
beside a student) is no part of it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from w2s_mlflow.config import canonical_json

PACKAGE = Path(__file__).parent.parent
LIBRARIES = ("torch", "transformers")
version = functools.cache(metadata.version)
"""The version of a library, whose metadata is long read."""
LENGTH = 32


@dataclass(frozen=True)
class Parts:
    """The parts of a fingerprint, kept beside the run as `fingerprint.json`."""

    stage: str
    version: int
    """The stage's VERSION, raised by hand when its file changes what comes out."""
    options: Mapping[str, Any]
    """The Config fields that change the result."""
    data: str
    inputs: Mapping[str, str]
    """The fingerprints of the training inputs by role."""
    libraries: Mapping[str, str]
    source: Mapping[str, str]
    """sha256 of each module that makes the result."""
    weights: str = ""
    """The revision of the pretrained weights it starts from."""

    def digest(self) -> str:
        """The fingerprint: sha256 over the canonical JSON of all parts, cut at 32 hexadecimal digits."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()[:LENGTH]


def libraries(*more: str) -> dict[str, str]:
    """major.minor of the libraries that move numbers, and of `more` that this result is made with."""
    return {name: ".".join(version(name).split(".")[:2]) for name in (*LIBRARIES, *more)}


def source(roots: Iterable[str]) -> dict[str, str]:
    """sha256 by module of `roots` (such as "train", "losses.confidence") and of all they import from this package."""
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module], imported = _module(module)
            waiting += imported
    return found


@functools.cache
def _module(name: str) -> tuple[str, tuple[str, ...]]:
    """The digest of one module's source, and the modules of this package that it imports."""
    text = _file(name).read_bytes()
    imported = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "w2s_mlflow":
            parent = ".".join((node.module or "").split(".")[1:])
            submodules = [f"{parent}.{alias.name}".strip(".") for alias in node.names]
            imported += [child if _exists(child) else parent for child in submodules]
    return hashlib.sha256(text).hexdigest(), tuple(name for name in imported if name)


def _exists(name: str) -> bool:
    return _file(name).exists()


def _file(name: str) -> Path:
    path = PACKAGE.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
