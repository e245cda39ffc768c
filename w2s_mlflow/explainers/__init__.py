"""Why a model decides as it does (E in Definition 4): one way to explain per file.

An explainer is made for one side, and called once a round: `(taken) -> explanations`, one for each question in its order, where
`taken` has for each question the pieces that either side has shown before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from w2s_mlflow.records import Explanation

Explainer = Callable[[Sequence[Collection[int]]], list[Explanation]]
