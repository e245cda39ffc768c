"""Pythia: decoders of ten sizes, all trained on the Pile in the same order (Biderman et al. 2023, arXiv:2304.01373)."""

from __future__ import annotations

from w2s_mlflow.models import Size, declared
from w2s_mlflow.models._loading import layers, load, revision, size

__all__ = ["SPECS", "layers", "load", "revision", "size"]

SPECS = (
    declared("pythia-14m", "pythia", "EleutherAI/pythia-14m", Size(14_067_712, 1_189_888)),
    declared("pythia-31m", "pythia", "EleutherAI/pythia-31m", Size(30_494_720, 4_739_072)),
    declared("pythia-70m", "pythia", "EleutherAI/pythia-70m", Size(70_426_624, 18_915_328)),
    declared("pythia-160m", "pythia", "EleutherAI/pythia-160m", Size(162_322_944, 85_056_000)),
    declared("pythia-410m", "pythia", "EleutherAI/pythia-410m", Size(405_334_016, 302_311_424)),
    declared("pythia-1b", "pythia", "EleutherAI/pythia-1b", Size(1_011_781_632, 805_736_448)),
    declared("pythia-1.4b", "pythia", "EleutherAI/pythia-1.4b", Size(1_414_647_808, 1_208_602_624)),
    declared("pythia-2.8b", "pythia", "EleutherAI/pythia-2.8b", Size(2_775_208_960, 2_517_652_480)),
    declared("pythia-6.9b", "pythia", "EleutherAI/pythia-6.9b", Size(6_857_302_016, 6_444_163_072)),
    declared("pythia-12b", "pythia", "EleutherAI/pythia-12b", Size(11_846_072_320, 11_327_027_200)),
)
