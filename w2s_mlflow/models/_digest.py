"""Identity of a checkpoint on disk: sha256 of the model's files, cached on disk so that each file is hashed only once."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from w2s_mlflow.local.scratch import cache_path, replacing
from w2s_mlflow.models._checkpoint import TOKENIZERS, Checkpoint

BESIDE = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", *TOKENIZERS)
"""Files other than weights that affect the model or its tokens, unlike generation settings and chat templates."""


def digest(checkpoint: Checkpoint) -> str:
    """Return the sha256 of the contents and (except for GGUF) names of a local checkpoint's files, wherever they are."""
    files = [Path(checkpoint.source, checkpoint.gguf)] if checkpoint.gguf else _files(Path(checkpoint.source))
    lines = [f"{'' if checkpoint.gguf else file.name} {_of_file(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(directory: Path) -> list[Path]:
    return sorted(
        file for file in directory.iterdir() if file.is_file() and (file.name in BESIDE or file.suffix == ".safetensors")
    )


def _of_file(file: Path) -> str:
    """Return the sha256 of one file, cached by path, size and modification time."""
    path, seen = str(file.resolve()), file.stat()
    state, kept = [path, seen.st_size, seen.st_mtime_ns], _kept(path)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        held = json.loads(kept.read_text(encoding="utf-8"))
        if held["state"] == state:
            return str(held["sha256"])
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    with contextlib.suppress(OSError), replacing(kept) as partial:  # if the cache cannot be written, the next call hashes again
        partial.write_text(json.dumps({"state": state, "sha256": found}), encoding="utf-8")
    return found


def _kept(path: str) -> Path:
    """Return the path of a file's cached digest, in the scratch directory that also holds training checkpoints."""
    return cache_path("digests") / f"{hashlib.sha256(path.encode()).hexdigest()[:32]}.json"
