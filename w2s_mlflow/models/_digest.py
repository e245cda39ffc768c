"""Digest that identifies a local checkpoint. It is a sha256 over the checkpoint's files.

The sha256 of each file is cached on disk, so that an unchanged file is hashed only once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from w2s_mlflow.local.scratch import cache_path, replacing
from w2s_mlflow.models._checkpoint import TOKENIZERS, Checkpoint

CONFIG_FILES = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    *TOKENIZERS,
)
"""Files besides the weights that affect the model or its tokens. Generation settings and chat templates affect neither."""


def digest(checkpoint: Checkpoint) -> str:
    """Return a sha256 over the names and contents of a local checkpoint's files.

    It does not depend on the directory. For a GGUF file, it does not depend on the file's name either.
    """
    files = [Path(checkpoint.source, checkpoint.gguf)] if checkpoint.gguf else _files(Path(checkpoint.source))
    lines = [f"{'' if checkpoint.gguf else file.name} {_file_digest(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(directory: Path) -> list[Path]:
    return sorted(
        file for file in directory.iterdir() if file.is_file() and (file.name in CONFIG_FILES or file.suffix == ".safetensors")
    )


def _file_digest(file: Path) -> str:
    """Return the sha256 of one file, cached by path, size and modification time."""
    path, stat = str(file.resolve()), file.stat()
    state, cache_file = [path, stat.st_size, stat.st_mtime_ns], _cache_file(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        cached = json.loads(cache_file.read_text(encoding="utf-8"))
        if cached["state"] == state:
            return str(cached["sha256"])
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    with (
        contextlib.suppress(OSError),
        replacing(cache_file) as partial,
    ):  # if the digest cannot be cached, the next call computes it again
        partial.write_text(json.dumps({"state": state, "sha256": sha256}), encoding="utf-8")
    return sha256


def _cache_file(path: str) -> Path:
    """Return the path at which a file's digest is cached. It is in the scratch directory, as are training checkpoints."""
    return cache_path("digests") / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"
