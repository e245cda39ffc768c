"""Digest that identifies a local checkpoint. It is a sha256 over the checkpoint's files.

The sha256 of each file is cached on disk, so that an unchanged file is hashed only once.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from w2s_mlflow.local.file_facts import sha256
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
    lines = [f"{'' if checkpoint.gguf else file.name} {sha256(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _files(directory: Path) -> list[Path]:
    return sorted(
        file for file in directory.iterdir() if file.is_file() and (file.name in CONFIG_FILES or file.suffix == ".safetensors")
    )
