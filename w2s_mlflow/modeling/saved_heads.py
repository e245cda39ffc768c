"""Save and load heads. A saved head is a Hugging Face model directory with additional files.

The additional files hold the head's settings and the weights of its linear layer, if it has one.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import safetensors.torch
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import hub
from w2s_mlflow.modeling import frozen_heads
from w2s_mlflow.modeling.frozen_heads import FrozenClassification, FrozenReward
from w2s_mlflow.modeling.heads import Classification, Head, LMChoice, Reward, build, classes_of
from w2s_mlflow.tasks import FORMER_HEADS

NAMES: dict[type[Head], str] = {LMChoice: "lm_choice", Classification: "classification", Reward: "reward"}
NAMES |= {FrozenClassification: "classification", FrozenReward: "reward"}
HEAD = "head.json"
LINEAR = "head.safetensors"


def save(head: Head, directory: Path) -> None:
    """Save a head to a directory: the Hugging Face model and tokenizer, `head.json`, and `head.safetensors` for a linear layer.

    Weights are stored as safetensors in float32, the precision of all heads.
    """
    with hub.quiet():
        head.model.save_pretrained(directory)
    head.tokenizer.save_pretrained(directory)
    pooling = head.pooling if isinstance(head, Classification) else None
    content = {"head": NAMES[type(head)], "classes": classes_of(head), "pooling": pooling, "max_length": head.reader.limit}
    if isinstance(head, FrozenClassification | FrozenReward):
        content |= {"layer": head.layer, "task": head.task}
    (directory / HEAD).write_text(json.dumps(content) + "\n", encoding="utf-8")
    if isinstance(head, Classification):
        safetensors.torch.save_file(head.linear.state_dict(), directory / LINEAR)


def load(directory: Path) -> Head:
    """Load a head written by `save`, in float32, on the CPU and in evaluation mode. No random numbers are drawn.

    Raises:
        ConfigError: config.json names no transformers model class, or the weights do not match that class.
    """
    content = json.loads((directory / HEAD).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)  # nosec B615
    model = _load_model(directory)
    with torch.device("meta"):  # do not initialise the linear layer, because its weights are loaded below
        name = FORMER_HEADS.get(content["head"], content["head"])
        settings = (name, model, tokenizer, content["classes"], content["pooling"], content["max_length"])
        head = frozen_heads.build(*settings, content["layer"], content["task"]) if "layer" in content else build(*settings)
    if isinstance(head, Classification):
        weights = safetensors.torch.load((directory / LINEAR).read_bytes())
        head.linear.load_state_dict(weights, assign=True)
    return head.eval()


def _load_model(directory: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)  # nosec B615
    name = next(iter(config.architectures or ()), "")
    architecture = getattr(transformers, name, None)
    if not (isinstance(architecture, type) and issubclass(architecture, PreTrainedModel)):
        raise ConfigError(f"{directory / 'config.json'} must name a transformers model class as its architecture, got {name!r}")
    with hub.quiet():
        loaded: tuple[PreTrainedModel, dict[str, Collection[object]]] = architecture.from_pretrained(  # type: ignore[assignment]
            directory,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            disable_mmap=True,  # weights mapped into memory would change if the file changed
            output_loading_info=True,
        )
    model, report = loaded
    if mismatched := sorted(str(key) for keys in report.values() for key in keys):
        raise ConfigError(f"the weights in {directory} do not match {name}: {mismatched[0]} is missing or unexpected")
    return model
