"""Disk cache of vectors, one per row, that take long to compute. A row is found again by the digest of its content.

The rows of one key lie in a directory. Each call that computes rows adds one file to it, so that processes that compute other
rows at the same time do not overwrite each other's. A damaged file is not read, and its rows are computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow.local import arrays
from w2s_mlflow.local.scratch import cache_path

FOLDER = "rows"
Matrix = NDArray[np.float32]


def rows(key: str, digests: Sequence[str], make: Callable[[list[int]], Matrix]) -> Matrix:
    """Return one vector per digest, (N, D). Vectors that are not cached under `key` are computed and cached.

    Args:
        key: identifies everything besides the rows on which the vectors depend.
        digests: sha256 of the content of each row, in hexadecimal digits.
        make: function that computes the vectors of the rows with the given indices. It is called at most once.
    """
    found = _read(key)
    missing = list({digest: index for index, digest in enumerate(digests) if digest not in found}.values())
    if missing:
        made = np.asarray(make(missing), dtype=np.float32)
        names = [digests[index] for index in missing]
        found |= dict(zip(names, made, strict=True))
        with contextlib.suppress(OSError):  # if the file cannot be written, the rows are computed again next time
            _write(key, names, made)
    return np.stack([found[digest] for digest in digests])


def _read(key: str) -> dict[str, Matrix]:
    found: dict[str, Matrix] = {}
    for file in sorted((cache_path(FOLDER) / key).glob("*.safetensors")):
        if (values := arrays.read(file)) is None:
            continue
        names = [bytes(digest).hex() for digest in values["digests"].astype(np.uint8)]
        found |= dict(zip(names, values["vectors"], strict=True))
    return found


def _write(key: str, names: Sequence[str], vectors: Matrix) -> None:
    digests = np.array([list(bytes.fromhex(name)) for name in names], dtype=np.int64)
    file = hashlib.sha256("".join(names).encode()).hexdigest()[:32]
    arrays.write(cache_path(FOLDER) / key / f"{file}.safetensors", {"digests": digests, "vectors": vectors})
