"""What made a result: its options, data, training inputs, libraries and source, part by part.

Two runs with equal parts are the same result, so that the second is never trained. What only reports (tables, a ceiling
beside a student) is no part of it.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from w2s_mlflow.records import canonical_json

LIBRARIES = ("torch", "transformers")
version = functools.cache(metadata.version)
"""The version of a library, whose metadata is long read."""
LENGTH = 32


@dataclass(frozen=True)
class FingerprintParts:
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
    """The digest of each definition that makes the result (source.py). Where it stands is no part of the fingerprint."""
    weights: str = ""
    """The revision of the pretrained weights it starts from."""

    def digest(self) -> str:
        """The fingerprint: sha256 over the canonical JSON of all parts, cut at 32 hexadecimal digits."""
        parts = asdict(self) | {"source": sorted(self.source.values())}
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:LENGTH]


def libraries(*more: str) -> dict[str, str]:
    """major.minor of the libraries that move numbers, and of `more` that this result is made with."""
    return {name: ".".join(version(name).split(".")[:2]) for name in (*LIBRARIES, *more)}
