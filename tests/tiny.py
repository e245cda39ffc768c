"""Tiny random models of every family that transformers has, made by shrinking the sizes in their configs."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from tests import trunks

WORDS = len(trunks.WORDS)
SIZES: tuple[tuple[str, int], ...] = (
    *(("vocab", WORDS), ("pad_token", 0), ("bos_token", 1), ("eos_token", 2), ("decoder_start", 1)),
    *(("per_tok", 1), ("moe_k", 1), ("topk", 1), ("top_k", 1), ("n_group", 1), ("experts", 2)),
    *(("rotary_dim", 4), ("head_dim", 8), ("head_size", 8), ("rank", 8), ("heads", 2), ("n_head", 2), ("groups", 1)),
    *(("layers", 2), ("n_layer", 2), ("blocks", 2), ("intermediate", 32), ("ffn", 32), ("inner", 32), ("d_ff", 32)),
    *(("mlp_dim", 32), ("position", 64), ("n_ctx", 64), ("seq_len", 64), ("hidden_size", 16), ("d_model", 16)),
    *(("n_embd", 16), ("embed", 16), ("dim", 16), ("width", 16), ("channels", 16), ("d_state", 8), ("state_size", 8)),
)
"""Largest sizes, by a part of a field's name. The first part that a name contains counts."""
MADE_WITH: dict[str, dict[str, Any]] = {
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "prophetnet": {"num_encoder_layers": 2, "num_decoder_layers": 2},
    "zamba": {"num_hidden_layers": 3},
    "nemotron": {"num_key_value_heads": 2},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "ministral": {"head_dim": 8},
}
"""Settings with which a config of a family must be made."""
OWN: dict[str, dict[str, Any]] = {
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "lm_head_multiplier": 0.25},
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 8},
    "granitemoehybrid": {"mamba_n_heads": 4, "mamba_d_head": 8, "logits_scaling": 8.0},
    "deepseek_v2": {"num_experts_per_tok": 1},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.0625},
    "gemma2": {"final_logit_softcapping": 5.0},
    "mamba2": {"num_heads": 4, "head_dim": 8},
    "xmod": {"default_language": "en_XX"},
    "codegen": {"n_head": 4, "rotary_dim": 4},
}
"""Settings of a family that fit the tiny sizes, or that make its own forward differ from the output layer alone."""
SPREAD = 0.5
"""Standard deviation of random weights. With that of new models, logits would be so alike that no scale of them mattered."""


def config(kind: str, **values: Any) -> PreTrainedConfig:
    """Return a config of a family with tiny sizes. Decoders that can be encoders are decoders."""
    given = MADE_WITH.get(kind, {"num_hidden_layers": 2})
    found: PreTrainedConfig = transformers.CONFIG_MAPPING[kind](**given)
    _shrink(found)
    for name, value in {"is_decoder": True, "initializer_range": SPREAD, "init_std": SPREAD}.items():
        if hasattr(found, name):
            setattr(found, name, value)
    for name, value in (OWN.get(kind, {}) | values).items():
        setattr(found, name, value)
    return found


def _shrink(config: PreTrainedConfig) -> None:
    """Lower all sizes of a config, and of the configs in it, to those of SIZES."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _shrink(value)
        elif type(value) is int and not name.startswith("_"):
            size = next((size for part, size in SIZES if part in name), value)
            setattr(config, name, size if "token" in name or "vocab" in name else min(size, value))


def causal(kind: str, **values: Any) -> PreTrainedModel:
    """Return a causal language model of a family with random weights. Raises ValueError if it cannot be made small."""
    architecture: Any = transformers.AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.device("meta"):  # no memory for a model that is not small after all
            parameters = architecture.from_config(config(kind, **values)).num_parameters()
        if parameters > 2_000_000:
            raise ValueError(f"it still has {parameters:,} parameters")
        torch.manual_seed(0)
        found: PreTrainedModel = architecture.from_config(config(kind, **values), dtype=torch.float32).eval()
    return found
