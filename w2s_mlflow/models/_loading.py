"""Functions that load models and tokenizers through transformers: in float32, from safetensors, without custom code.

A GGUF file is converted to safetensors once, and then its copy is loaded (models/_gguf_copy.py).
Loading pretrained weights leaves the random state unchanged.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow import streams
from w2s_mlflow.exceptions import ConfigError, first_line
from w2s_mlflow.local import hub
from w2s_mlflow.models import ANY, ModelSpec, Size, _gguf_copy, _weight_shapes
from w2s_mlflow.models._checkpoint import Checkpoint, inspect
from w2s_mlflow.models._digest import digest

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

OPTION = "--weak or --strong"
"""Name of the option in error messages. It covers both options, because it is unknown here which of them gave the model."""
NOT_PER_LAYER = ("architectures", "mrope_section", "eos_token_id", "mlp_only_layers")
"""Lists in config.json whose length has nothing to do with the number of layers."""
NEEDED = ("model*.safetensors", "model.safetensors.index.json", "*.json", "*.txt", "*.model")
"""Name patterns of the files to download from a hub repository."""


def load(spec: ModelSpec, *, pretrained: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in float32 and its tokenizer. If `pretrained` is False, draw random weights from torch's random state.

    Raises:
        ConfigError: the weights are missing or do not match config.json.
    """
    import torch

    with hub.quiet():
        checkpoint = _loadable(spec)
        config = _config(checkpoint, spec.layers)
        if pretrained:
            # If the checkpoint lacks the pooler, its weights are random. They are never used, but they are seeded nonetheless.
            with torch.random.fork_rng():
                torch.manual_seed(streams.integer(0, streams.UNREAD_WEIGHTS))
                model = _pretrained(spec, checkpoint, config)
        else:
            with _one_line_errors("config.json", checkpoint.source):
                model = _classes(checkpoint, config)[0].from_config(config, dtype=torch.float32)
        model.config.use_cache = False
        return model, _tokenizer(checkpoint)


def revision(spec: ModelSpec) -> str:
    """Return the commit of a hub model or the digest of a local model, followed by `:N` if only the first N layers are kept.

    Raises ConfigError if the model cannot be found.
    """
    checkpoint = _inspect(spec)
    suffix = "" if spec.layers is None else f":{spec.layers}"
    return (checkpoint.commit or digest(checkpoint)) + suffix


def layers(spec: ModelSpec) -> int:
    """Return the number of layers that the model keeps."""
    return spec.layers or _inspect(spec).layers


@functools.cache
def size(spec: ModelSpec) -> Size:
    """Return the model's parameter counts, computed on the meta device without allocating the parameters."""
    import torch

    with hub.quiet():
        checkpoint = _loadable(spec)
    with hub.quiet(), torch.device("meta"):
        config = _config(checkpoint, spec.layers)
        with _one_line_errors("config.json", checkpoint.source):
            return counted(_classes(checkpoint, config)[0].from_config(config))


def counted(model: PreTrainedModel) -> Size:
    """Return the number of all parameters and the number of those outside the embedding tables and the output head."""
    from torch import nn

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    output: nn.Module | None = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    words = {id(parameter) for module in (*tables, *([output] if output else [])) for parameter in module.parameters()}
    counts = [(parameter.numel(), id(parameter) not in words) for parameter in model.parameters()]
    return Size(sum(count for count, _ in counts), sum(count for count, other in counts if other))


def _inspect(spec: ModelSpec) -> Checkpoint:
    return inspect(spec.source, spec.commit, OPTION, spec.source if spec.family == ANY else spec.name)


def _loadable(spec: ModelSpec) -> Checkpoint:
    """Return the model's checkpoint or, if that is a GGUF file, its copy in safetensors."""
    checkpoint = _inspect(spec)
    if checkpoint.gguf is None:
        return checkpoint
    with _one_line_errors("weights", spec.source):
        return _gguf_copy.copy_of(checkpoint)


def _arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the arguments common to all from_pretrained calls. They allow only local files and no custom code."""
    return {
        "pretrained_model_name_or_path": _directory(checkpoint),
        "local_files_only": True,
        "trust_remote_code": False,
    }


def _directory(checkpoint: Checkpoint) -> str:
    return checkpoint.source if checkpoint.commit is None else _download(checkpoint.source, checkpoint.commit)


@functools.cache
def _download(source: str, commit: str) -> str:
    """Download the missing files of a commit, and return the commit's directory in the hub's cache."""
    import huggingface_hub

    hub.detect_offline()
    try:
        return str(huggingface_hub.snapshot_download(source, revision=commit, allow_patterns=list(NEEDED)))
    except Exception as error:
        # The hub's client raises many exception types, for instance for a gated model, a timeout or a full disk.
        raise ConfigError(f"{source} cannot be downloaded from the hub: {first_line(error)}") from error


@contextlib.contextmanager
def _one_line_errors(name: str, source: str) -> Iterator[None]:
    """Turn any exception that transformers or tokenizers raise on malformed files into a one-line ConfigError."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        # transformers raises OSError, ValueError, RuntimeError or KeyError; tokenizers raises a plain Exception.
        raise ConfigError(f"the {name} in {source} cannot be read: {first_line(error)}") from error


def _config(checkpoint: Checkpoint, layers: int | None) -> PreTrainedConfig:
    from transformers import AutoConfig

    overrides: dict[str, Any] = {}
    if layers is not None:
        overrides = {"num_hidden_layers": layers} | _first_entries(checkpoint, layers)
    with _one_line_errors("config.json", checkpoint.source):
        config: PreTrainedConfig = AutoConfig.from_pretrained(**_arguments(checkpoint), **overrides)  # nosec B615
    return config


def _first_entries(checkpoint: Checkpoint, layers: int) -> dict[str, list[Any]]:
    """Return the lists in config.json with one entry per layer, such as `layer_types`, cut to the first layers."""
    return {
        name: setting[:layers]
        for name, setting in checkpoint.config.items()
        if isinstance(setting, list) and len(setting) == checkpoint.layers and name not in NOT_PER_LAYER
    }


def _classes(checkpoint: Checkpoint, config: PreTrainedConfig) -> tuple[Any, ...]:
    """Return the auto classes of transformers to try, in order.

    If the weights may include a language-model head, the first class has such a head. The last class is AutoModel, which has no
    head.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    name, encoder = checkpoint.architecture, checkpoint.is_encoder()
    is_backbone = name.endswith("Model") and not name.endswith("LMHeadModel")
    # A decoder's head that is tied to the embeddings has no weights of its own, so it can be loaded from a backbone.
    if is_backbone and (encoder or not config.tie_word_embeddings):
        return (AutoModel,)
    return AutoModelForMaskedLM if encoder else AutoModelForCausalLM, AutoModel


def _pretrained(spec: ModelSpec, checkpoint: Checkpoint, config: PreTrainedConfig) -> PreTrainedModel:
    """Load the model with its language-model head if the weights include one; otherwise load only the backbone."""
    missing: list[str] = []
    for architecture in _classes(checkpoint, config):
        model, missing = _read(architecture, spec, checkpoint, config)
        if all("pooler" in name for name in missing):
            return model
    raise ConfigError(f"the weights in {spec.source} do not match its config.json: the weight {missing[0]} is missing")


def _read(
    architecture: Any, spec: ModelSpec, checkpoint: Checkpoint, config: PreTrainedConfig
) -> tuple[PreTrainedModel, list[str]]:
    """Load the model, and return it with the names of the weights that the checkpoint lacks."""
    import torch

    options = {"config": config, "dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    with _one_line_errors("weights", spec.source):
        _weight_shapes.check(Path(_directory(checkpoint)), spec.source, architecture, config)
        model, report = architecture.from_pretrained(**_arguments(checkpoint), **options)
    missing: Iterable[str] = report["missing_keys"]
    return model, sorted(missing)


def _tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerBase:
    """Load the tokenizer. If it has no pad token, use the end-of-text token, which is safe because padding is masked."""
    from transformers import AutoTokenizer

    with _one_line_errors("tokenizer", checkpoint.source):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**_arguments(checkpoint))  # nosec B615
    if tokenizer.pad_token is None and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
