"""Inspection of a checkpoint (a directory, a GGUF file or a hub repository, online or cached) without reading its weights.

Common model types are checked without importing torch or transformers, because `look` runs whenever options are parsed.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_mlflow.exceptions import ConfigError, first_line, must
from w2s_mlflow.local import hub

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""Tokenizer files; a checkpoint must have at least one."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
ENCODERS = frozenset({"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"})
ENCODERS |= {"roberta", "xlm-roberta"}
"""Model types that are encoders, unless saved as a causal language model; `is_encoder` decides for other types."""


@dataclass(frozen=True)
class Checkpoint:
    """Description of a checkpoint that passed the checks of `look`."""

    source: str
    """Hub id or directory."""
    commit: str | None
    """Commit of the hub id; None for a directory."""
    gguf: str | None
    """Name of the GGUF file in the directory; None for a Hugging Face directory."""
    config: Mapping[str, Any]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return next((int(self.config[name]) for name in LAYERS if name in self.config), 0)

    def non_embedding(self, layers: int | None) -> int:
        """Estimate the non-embedding parameters as 12 L D^2 (L layers, width D); in GPT-2, this omits biases and norms."""
        width = next((int(self.config[name]) for name in WIDTH if name in self.config), 0)
        return 12 * (layers or self.layers) * width**2

    @property
    def architecture(self) -> str:
        """Name of the transformers class of the saved model; "" if config.json does not name it."""
        return str((self.config.get("architectures") or [""])[0])

    def is_encoder(self) -> bool:
        """Return whether the model is a bidirectional encoder."""
        name, kind = self.architecture, self.config.get("model_type")
        if name.endswith(("ForCausalLM", "LMHeadModel")):
            return False
        if name.endswith("ForMaskedLM") or kind in ENCODERS:
            return True
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def look(source: str, commit: str, option: str, value: str) -> Checkpoint:
    """Return the checkpoint at a path or hub id, after checking that it can be used.

    Args:
        source: an absolute path, or else a hub id.
        commit: the requested revision; "" for the newest.
        option: the option named in error messages.
        value: the option's value as the user gave it, for error messages.

    Raises:
        ConfigError: the checkpoint does not exist or cannot be used.
    """
    path = Path(source)
    if not path.is_absolute():
        return _of_hub(source, commit, option, value)
    if commit:
        raise must(option, "a path without @REVISION, which only a hub id has", value)
    if path.is_file():
        return _of_gguf(path, option, value)
    if not path.is_dir():
        raise must(option, "a path that exists", value)
    files = tuple(file.name for file in path.iterdir())
    _check_files(files, option, value)
    return Checkpoint(source, None, None, _checked(_read(path / "config.json", option, value), option, value))


def _of_hub(source: str, commit: str, option: str, value: str) -> Checkpoint:
    try:
        sha, files, folder = _repository(source, commit)
    except LookupError as error:
        raise ConfigError(f"{must(option, 'a model that is there', value)}, found nowhere ({error})") from None
    _check_files(files, option, value)
    return Checkpoint(source, sha, None, _checked(_read(folder / "config.json", option, value), option, value))


@functools.cache
def _repository(source: str, commit: str) -> tuple[str, tuple[str, ...], Path]:
    """Return a repository's commit, file names and config.json directory. Raises LookupError listing the places tried."""
    hub.detect_offline()
    import huggingface_hub
    from huggingface_hub import constants

    tried = [f"no directory {source}"]
    if not constants.HF_HUB_OFFLINE:
        try:
            found = huggingface_hub.model_info(source, revision=commit or None, timeout=10)
            config = huggingface_hub.hf_hub_download(source, "config.json", revision=found.sha)
            return str(found.sha), tuple(file.rfilename for file in found.siblings or ()), Path(config).parent
        except Exception as error:  # a dozen exception types: absent, gated, no such revision, no answer
            tried.append(f"the hub: {first_line(error)}")
    else:
        tried.append("the hub does not answer or is switched off")
    try:
        folder = Path(huggingface_hub.snapshot_download(source, revision=commit or None, local_files_only=True))
    except Exception:
        tried.append(f"not in the cache {constants.HF_HUB_CACHE}")
        raise LookupError("; ".join(tried)) from None
    return folder.name, tuple(file.name for file in folder.iterdir()), folder


def _check_files(files: tuple[str, ...], option: str, value: str) -> None:
    if "config.json" not in files:
        raise must(option, "a checkpoint with config.json", value)
    if "adapter_config.json" in files:
        raise must(option, "a whole model", f"{value}, which holds an adapter")
    if not set(WEIGHTS) & set(files):
        pickled = sorted(name for name in files if name.endswith(PICKLED))
        why = f"{value}, which has its weights only in pickle form ({pickled[0]})" if pickled else f"{value}, which has none"
        raise must(option, "a checkpoint with weights in safetensors", why)
    if not set(TOKENIZERS) & set(files):
        raise must(option, "a checkpoint with a tokenizer", f"{value}, a checkpoint without a tokenizer")


def _read(file: Path, option: str, value: str) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise must(option, "a checkpoint whose config.json can be read", value)
    return found


def _checked(config: Mapping[str, Any], option: str, value: str) -> Mapping[str, Any]:
    """Return the config unchanged. Raises ConfigError if the model needs custom code or its type is not supported."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or not _is_known(kind):
        what = "needs code of its own, which is never run" if "auto_map" in config else "names a type it does not have"
        raise must(option, "a model of a type that transformers has", f"{value}, whose config.json {what} ({kind})")
    if config.get("is_encoder_decoder"):
        raise must(option, "a decoder or an encoder", f"{value}, which is both ({kind})")
    if not any(name in config for name in LAYERS) or not any(name in config for name in WIDTH):
        raise must(option, "a model of text, with layers and a width in its config.json", f"{value} ({kind})")
    return config


def _is_known(kind: str) -> bool:
    """Return whether transformers has a model type; look for its directory before the slow import of CONFIG_MAPPING."""
    package = importlib.util.find_spec("transformers")
    assert package is not None and package.origin is not None
    if kind.isidentifier() and Path(package.origin).parent.joinpath("models", kind).is_dir():
        return True
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING


def _of_gguf(path: Path, option: str, value: str) -> Checkpoint:
    if path.suffix != ".gguf":
        raise must(option, "a directory or a GGUF file", value)
    if importlib.util.find_spec("gguf") is None:
        raise must(option, 'a directory, unless the extra is there that reads GGUF (pip install -e ".[gguf]")', value)
    try:
        seen = path.stat()
        config = _gguf_config(path, seen.st_size, seen.st_mtime_ns)
    except Exception:  # a malformed file can make the reader raise anything
        raise must(option, "a GGUF file that can be read", value) from None
    if "tokens" not in config:
        raise must(option, "a checkpoint with a tokenizer", f"{value}, a checkpoint without a tokenizer")
    return Checkpoint(str(path.parent), None, path.name, config)


@functools.cache
def _gguf_config(path: Path, size: int, changed: int) -> dict[str, Any]:
    """Return a GGUF file's metadata as config.json fields. Cached by size and mtime, as reading takes about a second."""
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    kind = str(fields["general.architecture"].contents())
    config: dict[str, Any] = {"model_type": kind, "architectures": ["ForCausalLM"]}
    config["num_hidden_layers"] = int(fields[f"{kind}.block_count"].contents())
    config["hidden_size"] = int(fields[f"{kind}.embedding_length"].contents())
    return config | ({"tokens": True} if "tokenizer.ggml.tokens" in fields else {})
