"""Fingerprint of a result: a digest of its options, data, training inputs, libraries and source code.

Requests with equal fingerprints share one run, which is trained once. Settings that affect only reports, such as tables or the
ceiling with which a student is compared, are not part of the fingerprint.
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
    """Config fields that affect the result. A field that was added later is left out while it has its value of `introduced`."""
    data: str
    inputs: Mapping[str, str]
    """Fingerprint of each result that training uses, by its role in training (such as "supervisor")."""
    libraries: Mapping[str, str]
    source: Mapping[str, str]
    """Digest of each definition that affects the result (source.py), by dotted path. The paths are not part of the digest."""
    weights: str = ""
    """Revision of the pretrained weights that training starts from."""

    def digest(self) -> str:
        """Return the fingerprint: the first 32 hexadecimal digits of the sha256 of the parts' canonical JSON."""
        parts = asdict(self) | {"source": sorted(self.source.values())}
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:LENGTH]


def libraries(*more: str) -> dict[str, str]:
    """Return the versions (major.minor) of LIBRARIES, which affect every result, and of the further libraries `more`."""
    return {name: ".".join(version(name).split(".")[:2]) for name in (*LIBRARIES, *more)}
