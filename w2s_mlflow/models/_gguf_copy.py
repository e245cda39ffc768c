"""Copies of GGUF files in safetensors: a GGUF file is parsed once, and every later process loads its copy, which is faster.

A copy is a directory of the scratch directory, named by the sha256 of the GGUF file. It holds the dequantized weights in
bfloat16, config.json, the tokenizer, and a list of the digests of these files. A copy that does not match its list is
made anew. The model's identity stays that of the GGUF file (models/_digest.py).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from w2s_mlflow.exceptions import ConfigError, first_line
from w2s_mlflow.local.file_facts import sha256
from w2s_mlflow.local.scratch import PARTIAL, cache_path, is_old
from w2s_mlflow.models._checkpoint import Checkpoint

LOG = logging.getLogger("w2s_mlflow")
FOLDER = "gguf"
"""Folder of the scratch directory that holds the copies."""
DIGESTS = "digests.json"
"""Name of the file with the sha256 of each other file of a copy."""


def copy_of(checkpoint: Checkpoint) -> Checkpoint:
    """Return the copy of a GGUF checkpoint. If there is none, or if it is damaged, make it.

    Raises:
        ConfigError: the copy cannot be written.
    """
    assert checkpoint.gguf is not None
    file = Path(checkpoint.source, checkpoint.gguf)
    directory = cache_path(FOLDER) / sha256(file)
    if not _is_whole(directory):
        try:
            _make(file, directory)
        except OSError as error:
            rule = "set W2S_SCRATCH to a directory with more room"
            raise ConfigError(f"the copy of {file} cannot be written to {directory}: {first_line(error)} ({rule})") from error
    os.utime(directory)  # the modification time serves as the time of last use
    return Checkpoint(str(directory), None, None, json.loads((directory / "config.json").read_text(encoding="utf-8")))


def _is_whole(directory: Path) -> bool:
    """Return whether the directory holds the files of its list of digests, unchanged."""
    try:
        digests = json.loads((directory / DIGESTS).read_text(encoding="utf-8"))
        return all(sha256(directory / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):  # a file is missing, or the list cannot be read
        return False


def _make(file: Path, directory: Path) -> None:
    """Convert a GGUF file, and put the copy in the place of whatever the directory holds."""
    _remove_unused(directory.parent)
    started, partial = time.perf_counter(), directory.with_name(f"{directory.name}.{uuid4().hex[:8]}{PARTIAL}")
    try:
        partial.mkdir(parents=True)
        _convert(file, partial)
        digests = {path.name: sha256(path) for path in sorted(partial.iterdir())}
        (partial / DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
        if directory.exists() and not _is_whole(directory):
            shutil.rmtree(directory)
        with contextlib.suppress(FileExistsError):  # another process has made the copy meanwhile
            _rename(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    LOG.info(
        "converted %s to safetensors in %.0f s, once for all runs: %s", file.name, time.perf_counter() - started, directory
    )


def _rename(source: Path, target: Path) -> None:
    """Rename a directory. Raises FileExistsError if the target is a directory that is not empty, on every system."""
    try:
        source.rename(target)
    except OSError:
        if target.exists():
            raise FileExistsError(target) from None
        raise


def _convert(file: Path, directory: Path) -> None:
    """Write the dequantized weights of a GGUF file in bfloat16, its config and its tokenizer to a directory."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    source |= {"local_files_only": True, "trust_remote_code": False}
    # Hide the progress bar of the conversion. Loading fills weights that the file lacks at random: keep the random state.
    with contextlib.redirect_stderr(io.StringIO()), torch.random.fork_rng():
        architecture: Any = AutoModelForCausalLM
        model, report = architecture.from_pretrained(**source, dtype=torch.bfloat16, output_loading_info=True)
    if missing := sorted(report["missing_keys"]):
        raise ConfigError(f"{file} must have all weights of its model, but the weight {missing[0]} is missing")
    # The weights are no longer quantized.
    del model.hf_quantizer, model.config.quantization_config
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(**source).save_pretrained(directory)  # nosec B615


def _remove_unused(folder: Path) -> None:
    """Remove the copies that have not been used for a long time, and directories that were left half-written."""
    for directory in filter(is_old, folder.glob("*")):
        shutil.rmtree(directory, ignore_errors=True)
