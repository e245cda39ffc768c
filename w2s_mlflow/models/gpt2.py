"""GPT-2: decoders of four sizes (Radford et al. 2019)."""

from __future__ import annotations

from w2s_mlflow.models import Size, declared
from w2s_mlflow.models._loading import layers, load, revision, size

__all__ = ["SPECS", "layers", "load", "revision", "size"]

SPECS = (
    declared("gpt2", "gpt2", "openai-community/gpt2", Size(124_439_808, 85_056_000)),
    declared("gpt2-medium", "gpt2", "openai-community/gpt2-medium", Size(354_823_168, 302_311_424)),
    declared("gpt2-large", "gpt2", "openai-community/gpt2-large", Size(774_030_080, 708_390_400)),
    declared("gpt2-xl", "gpt2", "openai-community/gpt2-xl", Size(1_557_611_200, 1_475_561_600)),
)
