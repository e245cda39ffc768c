"""BERT, uncased: encoders of six sizes (Devlin et al. 2018; the four smallest: Turc et al. 2019, arXiv:1908.08962).

The four smallest are loaded from republished copies, because Google's own mini, small and medium have only pickled weights.
"""

from __future__ import annotations

from w2s_mlflow.models import Size, declared
from w2s_mlflow.models._loading import layers, load, revision, size

__all__ = ["SPECS", "layers", "load", "revision", "size"]

SPECS = (
    declared("bert-tiny", "bert", "gaunernst/bert-tiny-uncased", Size(4_416_698, 413_568), pooling="mean"),
    declared("bert-mini", "bert", "gaunernst/bert-mini-uncased", Size(11_201_594, 3_225_856), pooling="mean"),
    declared("bert-small", "bert", "gaunernst/bert-small-uncased", Size(28_795_194, 12_874_240), pooling="mean"),
    declared("bert-medium", "bert", "gaunernst/bert-medium-uncased", Size(41_404_730, 25_483_776), pooling="mean"),
    declared("bert-base", "bert", "google-bert/bert-base-uncased", Size(109_514_298, 85_648_128), pooling="mean"),
    declared("bert-large", "bert", "google-bert/bert-large-uncased", Size(335_174_458, 303_363_072), pooling="mean"),
)
