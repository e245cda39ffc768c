"""Fingerprint of a result: its options, data, training inputs, libraries and source, part by part.

Two runs with equal parts are the same result, so the second one is never trained. Reports (tables, the ceiling that a student
is compared with) are not part of the fingerprint.
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
"""Installed version of a library, cached because reading package metadata is slow."""
LENGTH = 32


@dataclass(frozen=True)
class FingerprintParts:
    """The parts of a fingerprint, stored with the run as `fingerprint.json`."""

    stage: str
    version: int
    """The stage's VERSION, raised by hand when an edit of the stage's file changes its results."""
    options: Mapping[str, Any]
    """The Config fields that change the result and differ from the value they had when they were introduced."""
    data: str
    inputs: Mapping[str, str]
    """Fingerprint of each training input, by role."""
    libraries: Mapping[str, str]
    source: Mapping[str, str]
    """Digest of each definition that makes the result (source.py), by its path; the path itself is not fingerprinted."""
    weights: str = ""
    """Revision of the pretrained weights that training starts from."""

    def digest(self) -> str:
        """Return the fingerprint: sha256 over the canonical JSON of all parts, cut at 32 hexadecimal digits."""
        parts = asdict(self) | {"source": sorted(self.source.values())}
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:LENGTH]


def libraries(*more: str) -> dict[str, str]:
    """Return the major.minor version of each library that affects results: LIBRARIES and, for this result, `more`."""
    return {name: ".".join(version(name).split(".")[:2]) for name in (*LIBRARIES, *more)}
