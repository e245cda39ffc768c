"""Inspection of checkpoints without reading their weights.

A checkpoint is a directory, a GGUF file or a repository of the hub, online or cached. `inspect` runs whenever options are
parsed, so it checks common model types without the slow import of torch or transformers.
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
from w2s_mlflow.local import file_facts, hub
from w2s_mlflow.models import _gguf_header

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
"""Names of tokenizer files. A checkpoint must have at least one of them."""
SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
"""Tokenizer files that only the package sentencepiece reads."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
MOST_LAYERS = 10_000
"""Maximum number of layers. Building a model takes time for each layer that its config declares, whatever its weights hold."""
ENCODERS = frozenset({"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet"})
ENCODERS |= {"roberta", "xlm-roberta"}
"""Model types that are encoders, unless the model was saved as a causal language model. `is_encoder` looks up other types in
transformers."""


@dataclass(frozen=True)
class Checkpoint:
    """Description of a checkpoint that passed the checks of `inspect`."""

    source: str
    """Hub id, or the directory that holds the checkpoint."""
    commit: str | None
    """Commit of the hub repository; None for a directory."""
    gguf: str | None
    """Name of the GGUF file in the directory; None if the checkpoint is not a GGUF file."""
    config: Mapping[str, Any]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return _size(self.config, LAYERS)

    def non_embedding(self, layers: int | None) -> int:
        """Return an estimate of the number of non-embedding parameters: 12 L D^2 for L layers of width D.

        For GPT-2, the estimate is exact except that it omits biases and layer norms.
        """
        return 12 * (layers or self.layers) * _size(self.config, WIDTH) ** 2

    @property
    def architecture(self) -> str:
        """Name of the transformers class of the saved model; "" if config.json does not name it."""
        names = self.config.get("architectures")
        return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""

    def is_encoder(self) -> bool:
        """Return whether the model is a bidirectional encoder."""
        name, kind = self.architecture, self.config.get("model_type")
        if name.endswith(("ForCausalLM", "LMHeadModel")):
            return False
        if name.endswith("ForMaskedLM") or kind in ENCODERS:
            return True
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

        return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def inspect(source: str, commit: str, option: str, value: str) -> Checkpoint:
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
        return _inspect_hub(source, commit, option, value)
    if commit:
        raise must(option, "a path without @REVISION, because only hub ids have revisions", value)
    if path.is_file():
        return _inspect_gguf(path, option, value)
    if not path.is_dir():
        raise must(option, "an existing path", value)
    files = tuple(file.name for file in path.iterdir())
    entries = [path / name for name in files]
    if special := [entry.name for entry in entries if entry.exists() and not (entry.is_file() or entry.is_dir())]:
        raise must(option, "a directory of regular files", f"{value}, in which {special[0]} is a pipe or a device")
    _check_files(files, option, value)
    config = _checked(_read(path / "config.json", option, value), option, value)
    _check_index(path, files, option, value)
    return Checkpoint(source, None, None, config)


def _check_index(directory: Path, files: tuple[str, ...], option: str, value: str) -> None:
    """Raise ConfigError unless an index of weights names only files of its own directory, by their plain names."""
    if WEIGHTS[0] in files or not (directory / WEIGHTS[1]).exists():
        return
    shards = _read(directory / WEIGHTS[1], option, value).get("weight_map")
    if not isinstance(shards, dict):
        raise must(option, f"a checkpoint whose {WEIGHTS[1]} has a weight_map", value)
    for name in sorted(map(str, shards.values())):
        if name not in files:
            raise must(
                option, f"a checkpoint whose {WEIGHTS[1]} names files in its directory", f"{value}, which names {name!r}"
            )


def _inspect_hub(source: str, commit: str, option: str, value: str) -> Checkpoint:
    try:
        sha, files, folder = _repository(source, commit)
    except LookupError as error:
        raise ConfigError(f"{must(option, 'an existing model', value)} ({error})") from None
    _check_files(files, option, value)
    return Checkpoint(source, sha, None, _checked(_read(folder / "config.json", option, value), option, value))


@functools.cache
def _repository(source: str, commit: str) -> tuple[str, tuple[str, ...], Path]:
    """Return a repository's commit, the names of its files, and the local directory that holds its config.json.

    Raises:
        LookupError: the repository cannot be found. The message lists the places that were tried.
    """
    hub.detect_offline()
    import huggingface_hub
    from huggingface_hub import constants

    tried = [f"no directory {source}"]
    if not constants.HF_HUB_OFFLINE:
        try:
            info = huggingface_hub.model_info(source, revision=commit or None, timeout=10)
            config = huggingface_hub.hf_hub_download(source, "config.json", revision=info.sha)
            return str(info.sha), tuple(file.rfilename for file in info.siblings or ()), Path(config).parent
        except Exception as error:
            # The hub's client raises many exception types, for instance for a missing or gated model or a timeout.
            tried.append(f"the hub: {first_line(error)}")
    else:
        tried.append("the hub does not respond or is disabled")
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
        raise must(option, "a complete model, not an adapter", value)
    if not set(WEIGHTS) & set(files):
        pickled = sorted(name for name in files if name.endswith(PICKLED))
        problem = f"{value}, which has only pickled weights ({pickled[0]})" if pickled else f"{value}, which has no weights"
        raise must(option, "a checkpoint with weights in safetensors", problem)
    if not set(TOKENIZERS) & set(files):
        raise must(option, "a checkpoint with a tokenizer", f"{value}, which has no tokenizer")
    if set(TOKENIZERS) & set(files) <= set(SENTENCEPIECE) and importlib.util.find_spec("sentencepiece") is None:
        name = next(name for name in SENTENCEPIECE if name in files)
        raise must(
            option,
            "a checkpoint with tokenizer.json, because the package sentencepiece is not installed "
            '(pip install -e ".[sentencepiece]")',
            f"{value}, which has only {name}",
        )


def _read(file: Path, option: str, value: str) -> Mapping[str, Any]:
    """Read a JSON object. Only regular files are opened, because opening a pipe would wait for ever."""
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise must(option, f"a checkpoint with a readable {file.name}", value)
    return content


def _checked(config: Mapping[str, Any], option: str, value: str) -> Mapping[str, Any]:
    """Return the config unchanged. Raises ConfigError if models with such a config are not supported."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or not _is_known(kind):
        problem = "needs custom code, which is never run" if "auto_map" in config else "is of an unknown type"
        raise must(option, "a model of a type that transformers supports", f"{value}, which {problem} ({kind})")
    if config.get("is_encoder_decoder"):
        raise must(option, "a decoder or an encoder", f"{value}, which is an encoder-decoder ({kind})")
    _refuse_foreign_code(config, option, value)
    config = _with_sizes(config)
    if not (_size(config, LAYERS) and _size(config, WIDTH)):
        raise must(option, "a text model whose config.json gives the number of layers and the hidden size", f"{value} ({kind})")
    if _size(config, LAYERS) > MOST_LAYERS:
        raise must(option, f"a model of at most {MOST_LAYERS:,} layers", f"{value}, whose config.json declares more")
    return config


def _refuse_foreign_code(config: Mapping[str, Any], option: str, value: str) -> None:
    """Raise ConfigError if the config asks for a quantizer, or for kernels that are downloaded from a repository."""
    if (quantizer := config.get("quantization_config")) is not None:
        method = quantizer.get("quant_method", "unknown") if isinstance(quantizer, dict) else quantizer
        raise must(option, "a model that is not quantized", f"{value}, whose config.json names the quantizer {method!r}")
    for name, setting in config.items():
        if name.endswith(("attn_implementation", "experts_implementation")) and "/" in str(setting):
            raise must(option, "a model without remote kernels", f"{value}, whose config.json names {name} {setting!r}")
        if "kernel_config" in name or name == "use_kernels":
            raise must(option, "a model without remote kernels", f"{value}, whose config.json has the field {name}")


def _size(config: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Return the first of the named fields that is a positive whole number, or 0."""
    sizes = (config.get(name) for name in names)
    return next((size for size in sizes if type(size) is int and size > 0), 0)


def _with_sizes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the config with the number of layers and the width. If they have unusual names, transformers reads them.

    Its config classes know former names of fields (`n_embed` of BLOOM) and those of one type (`emb_dim` of XLM).
    """
    if _size(config, LAYERS) and _size(config, WIDTH):
        return config
    from transformers import CONFIG_MAPPING

    try:
        read = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
        return {**config, LAYERS[0]: read.num_hidden_layers, WIDTH[0]: read.hidden_size}
    except Exception:  # config classes check their fields with exceptions of many types
        return config


def _is_known(kind: str) -> bool:
    """Return whether transformers supports a model type.

    It does if it has a directory with the name of the type. Otherwise CONFIG_MAPPING, which is slow to import, is searched.
    """
    package = importlib.util.find_spec("transformers")
    assert package is not None and package.origin is not None
    if kind.isidentifier() and Path(package.origin).parent.joinpath("models", kind).is_dir():
        return True
    from transformers import CONFIG_MAPPING

    return kind in CONFIG_MAPPING


def _inspect_gguf(path: Path, option: str, value: str) -> Checkpoint:
    if path.suffix != ".gguf":
        raise must(option, "a directory or a GGUF file", value)
    if importlib.util.find_spec("gguf") is None:
        raise must(
            option, 'a directory, because the package that reads GGUF is not installed (pip install -e ".[gguf]")', value
        )
    _gguf_header.check(path, option, value)
    try:
        stat = path.stat()
        config = _gguf_config(path, stat.st_size, stat.st_mtime_ns)
    except Exception:  # on a malformed file, the reader can raise any exception type
        raise must(option, "a readable GGUF file", value) from None
    part, parts = config["part"]
    if parts > 1:
        rule = "a GGUF file that holds the whole model (gguf-split --merge joins the parts of a model)"
        raise must(option, rule, f"{value}, which is part {part} of {parts}")
    if "tokens" not in config:
        raise must(option, "a checkpoint with a tokenizer", f"{value}, which has no tokenizer")
    return Checkpoint(str(path.parent), None, path.name, config)


@functools.cache
def _gguf_config(path: Path, size: int, changed: int) -> dict[str, Any]:
    """Return a GGUF file's metadata under the field names of config.json.

    The result is cached on disk by path, size and modification time, because reading takes about a second.
    """
    config: dict[str, Any] = file_facts.fact("gguf_metadata", path, _gguf_metadata)
    return config


def _gguf_metadata(path: Path) -> dict[str, Any]:
    """Read a GGUF file's metadata. `part` holds the number of the file among the model's files, from 1, and their count.

    Of a model in several files, only the first file has all the metadata, so only `part` is returned.
    """
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    part, parts = (int(fields[name].contents()) if name in fields else 0 for name in ("split.no", "split.count"))
    if parts > 1:
        return {"part": [part + 1, parts]}
    kind = str(fields["general.architecture"].contents())
    config: dict[str, Any] = {"model_type": kind, "architectures": ["ForCausalLM"], "part": [1, 1]}
    config["num_hidden_layers"] = int(fields[f"{kind}.block_count"].contents())
    config["hidden_size"] = int(fields[f"{kind}.embedding_length"].contents())
    return config | ({"tokens": True} if "tokenizer.ggml.tokens" in fields else {})
