"""Models given as SOURCE[@REVISION][:N]. SOURCE is a hub id, a directory, a GGUF file or a named model of a hub family.

`@REVISION` pins a hub model. `:N` keeps the first N layers, so that one download gives models of several sizes. The tier and
the default learning rate follow from an estimate of the number of non-embedding parameters: 12 N D^2 for N layers of width D.
A shipped model may be given as NAME@N, which pins its checkpoint N.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from w2s_mlflow.exceptions import flag, must, unknown
from w2s_mlflow.models import ANY, ModelSpec, rate_of, tier_of
from w2s_mlflow.models._checkpoint import inspect
from w2s_mlflow.models._loading import bytes_to_download, layers, load, revision, size

__all__ = ["SPECS", "bytes_to_download", "find", "layers", "load", "revision", "size"]

SPECS: tuple[ModelSpec, ...] = ()
FORMS = ("OWNER/NAME", "DIRECTORY", "FILE.gguf")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def find(value: str, option: str, known: Mapping[str, ModelSpec]) -> ModelSpec:
    """Return the model spec of SOURCE[@REVISION][:N].

    Args:
        known: the named model specs, by name. SOURCE can be one of these names. @REVISION and :N are for hub models only.

    Raises:
        ConfigError: the model does not exist, has fewer layers than requested, or cannot be used.
    """
    source, commit, layers = _split(value, option)
    base = known.get(source)
    if base is not None and not base.source:
        return _pinned(base, commit, layers, option, value)
    path_or_id = base.source if base else _resolve_source(source, option, value, known)
    checkpoint = inspect(path_or_id, commit, option, value)
    if layers is not None and not 1 <= layers <= checkpoint.layers:
        raise must(option, f"SOURCE:N with N from 1 to {checkpoint.layers}, the number of layers of this model", value)
    name = f"{source if base else _short_name(path_or_id)}{f'@{commit}' if commit else ''}{f':{layers}' if layers else ''}"
    non_embedding = checkpoint.non_embedding(layers)
    return ModelSpec(
        name=name,
        family=base.family if base else ANY,
        learning_rate=rate_of(non_embedding),
        tier=tier_of(non_embedding),
        pooling=base.pooling if base else "mean" if checkpoint.is_encoder() else "last",
        source=path_or_id,
        commit=commit,
        layers=layers,
        size=base.size if base and layers is None else None,
    )


def _pinned(shipped: ModelSpec, number: str, layers: int | None, option: str, value: str) -> ModelSpec:
    """Return the spec of a shipped model whose name pins one checkpoint, written NAME@N."""
    legal = [str(checkpoint) for checkpoint in range(shipped.checkpoints)]
    if layers is not None or number not in legal:
        raise must(
            option, f"{shipped.name} or {shipped.name}@N, where the number N of a checkpoint is {' or '.join(legal)}", value
        )
    return replace(shipped, name=value, checkpoint=int(number), checkpoints=1)


def _split(value: str, option: str) -> tuple[str, str, int | None]:
    """Split SOURCE[@REVISION][:N] into source, revision and number of layers. A path that exists is not split."""
    if Path(value).expanduser().exists():
        return value, "", None
    rest, colon, layers = value.rpartition(":")
    if not colon or "/" in layers:
        rest, layers = value, ""
    elif not re.fullmatch(r"-?\d+", layers):
        raise must(option, "SOURCE:N with a whole number N of layers", value)
    source, _, commit = rest.partition("@") if not Path(rest).expanduser().exists() else (rest, "", "")
    return source, commit, int(layers) if layers else None


def _resolve_source(source: str, option: str, value: str, known: Mapping[str, ModelSpec]) -> str:
    """Return `source` as an absolute path or, if it is a hub id, unchanged.

    It is a path if it exists, starts with `/`, `.` or `~`, or ends in `.gguf`.
    """
    path = Path(source).expanduser()
    if path.exists() or source.startswith(("/", ".", "~")) or path.suffix == ".gguf":
        return str(path.resolve())
    if HUB_ID.fullmatch(source):
        return source
    if "/" in source:
        raise must(option, "an existing path", value)
    raise unknown(flag(option), value, (*known, *FORMS))


def _short_name(source: str) -> str:
    path = Path(source)
    return path.stem if path.suffix == ".gguf" else path.name
