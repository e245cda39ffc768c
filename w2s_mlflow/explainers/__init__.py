"""Explanations of a model's decisions (E in Definition 4): one kind of explanation per file.

An explainer is built for one side and called once per round as `explainer(taken)`; it returns one explanation per question, in
order. `taken` holds, for each question, the spans that either side has already shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from w2s_mlflow.records import Explanation

Explainer = Callable[[Sequence[Collection[int]]], list[Explanation]]
