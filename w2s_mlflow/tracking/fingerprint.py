"""Fingerprint of a result: a digest of its options, data, training inputs, libraries and source code.

Requests with equal fingerprints share one run, which is trained once. What is only reported, such as tables or the ceiling that
a student is compared with, is not part of the fingerprint.
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
    """The stage's constant VERSION, which is incremented by hand when an edit of the stage's file changes results."""
    options: Mapping[str, Any]
    """Config fields that affect the result. A field is left out while it has the default with which it was introduced."""
    data: str
    inputs: Mapping[str, str]
    """Fingerprint of each result that training uses, by its role in training (such as "supervisor")."""
    libraries: Mapping[str, str]
    source: Mapping[str, str]
    """Digest of each definition that affects the result (source.py), by dotted path. The path is not fingerprinted."""
    weights: str = ""
    """Revision of the pretrained weights that training starts from."""

    def digest(self) -> str:
        """Return the fingerprint: the first 32 hexadecimal digits of the sha256 of the parts' canonical JSON."""
        parts = asdict(self) | {"source": sorted(self.source.values())}
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:LENGTH]


def libraries(*more: str) -> dict[str, str]:
    """Return the versions (major.minor) of LIBRARIES and of `more`, the other libraries that affect this result."""
    return {name: ".".join(version(name).split(".")[:2]) for name in (*LIBRARIES, *more)}
