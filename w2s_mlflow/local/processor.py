"""What the processor of this machine can compute."""

from __future__ import annotations

FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Names by which torch reports that a CPU has instructions for bfloat16."""


def has_bfloat16() -> bool:
    """Return whether the accelerator or, if there is none, the CPU has instructions for bfloat16."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(flag)) for flag in FLAGS)
