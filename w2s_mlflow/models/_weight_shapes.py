"""Comparison of the shapes of stored weights with those that a config declares, before memory is allocated for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.exceptions import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Shape = tuple[int, ...]
WEIGHTS_PER_BYTE = 8
"""Maximum number of weights that a byte of a checkpoint can hold."""


def check(directory: Path, source: str, architecture: Any, config: PreTrainedConfig) -> None:
    """Compare the checkpoint with the model that `architecture` builds from the config, on the meta device.

    Raises:
        ConfigError: a weight has another shape than in the model, or the model has far more weights than the checkpoint.
    """
    import torch

    with torch.device("meta"):
        model = architecture.from_config(config)
    files = sorted(directory.glob("*.safetensors"))
    stored = dict(_stored(files))
    for name, weight in model.state_dict().items():
        found = stored.get(_stored_name(name, model.base_model_prefix, stored))
        if found is not None and found != tuple(weight.shape):
            raise ConfigError(
                f"the weights in {source} do not match its config.json: the weight {name} has the shape {list(found)}, "
                f"but config.json gives {list(weight.shape)}"
            )
    declared, available = model.num_parameters(), sum(file.stat().st_size for file in files)
    if declared > WEIGHTS_PER_BYTE * available:
        raise ConfigError(
            f"the weights in {source} do not match its config.json: it declares {declared:,} weights, but the files have "
            f"{available:,} bytes"
        )


def _stored(files: list[Path]) -> Iterator[tuple[str, Shape]]:
    """Yield the name and the shape of each stored weight. Only the headers of the files are read."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # the file is not a mapping
                yield name, tuple(opened.get_slice(name).get_shape())


def _stored_name(name: str, prefix: str, stored: Mapping[str, Shape]) -> str:
    """Return the name under which a weight is stored: with the backbone's prefix or without it."""
    return next((form for form in (name, f"{prefix}.{name}", name.removeprefix(f"{prefix}.")) if form in stored), name)
