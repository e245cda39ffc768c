"""Algorithm 5, bootstrapping: labels pass from the weak supervisor through models of growing size, round by round.

In each round, every intermediate model is finetuned from its pretrained weights on the labels of the previous model, and then
labels `transfer`. The next round starts from the labels of the best intermediate model: the one that agrees most with the
original weak labels on the validation split, since ground truth is not available. The strong model is trained once, after the
last round, on the labels of the best intermediate model. With `--strong-each-round` it is trained in every round, as Algorithm
5 is written ("train M_S" is inside the loop), and the next round starts from its labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from w2s_mlflow import models
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.models import ModelSpec

if TYPE_CHECKING:
    from w2s_mlflow.figures._chain import Node
    from w2s_mlflow.tracking.results import Result

AUTO = "auto"
LABELLER = "w2s.labels_run_id"
"""Tag of a student or chain model with the id of the run whose labels it was trained on."""
INTERMEDIATES = 2
"""Number of intermediate models, as in the paper: M_S1 and M_S2."""

Labeller = TypeVar("Labeller")


def run_chain(
    names: Sequence[str],
    rounds: int,
    start: Labeller,
    fit: Callable[[str, int, Labeller], Labeller],
    best: Callable[[Sequence[Labeller]], Labeller],
    each_round: str | None = None,
) -> tuple[list[Labeller], Labeller]:
    """Return the chain models in training order, and the model whose labels the strong model is finally trained on.

    Args:
        names: names of the intermediate models, smallest first.
        start: the weak supervisor, whose labels start the chain.
        fit: (model name, its position in the chain, the model that makes its labels) -> the trained model.
        best: selects the best model of a round.
        each_round: name of the strong model, if it is trained in every round, at the last position.
    """
    links: list[Labeller] = []
    for round_ in range(rounds):
        made, before = [], start
        for position, name in enumerate(names):
            before = fit(name, position, before)
            made.append(before)
        links += made
        start = best(made)
        if each_round is not None and round_ < rounds - 1:
            start = fit(each_round, len(names), start)
            links.append(start)
    return links, start


def draw(found: Result, links: Sequence[Result], weak: Result, part: str) -> Result:
    """Attach `figures/chain_<part>.png`, a diagram of the chain with its scores on a split, to a student's run."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    name = f"chain_{part}"

    def report(found: Result) -> Report:
        from w2s_mlflow.figures import _chain

        drawn = _chain.figure(_nodes(found, links, weak, part), part)

        def stage(directory: Path) -> None:
            file = directory / "figures" / f"{name}.png"
            file.parent.mkdir()
            drawn.savefig(file, dpi=150)

        return Report(stage)

    return reports.attach_once(found, name, report)


def _nodes(found: Result, links: Sequence[Result], weak: Result, part: str) -> list[Node]:
    """Return a node per model in training order, supervisor first, student last; a round begins at the first chain model."""
    from w2s_mlflow.figures._chain import Node

    fits = [*links, found]
    models_ = [*dict.fromkeys(fit.params["strong"] for fit in links if fit.params["strong"] != found.params["strong"])]
    columns = {name: column for column, name in enumerate([*models_, found.params["strong"]], start=1)}
    numbers = {fit.run_id: number for number, fit in enumerate([weak, *fits])}
    nodes, round_ = [Node(weak.params["weak"], 0, 0, None, None, weak.metrics.get(f"{part}/accuracy"))], -1
    for fit in fits:
        column = columns[fit.params["strong"]]
        round_ += column == 1
        values = [fit.metrics.get(f"{part}/{name}") for name in ("agreement", "accuracy")]
        nodes.append(Node(fit.params["strong"], column, round_, numbers[fit.tags[LABELLER]], *values))
    return nodes


def between(weak: ModelSpec, strong: ModelSpec) -> list[str]:
    """Return up to INTERMEDIATES models of the strong family, between the two sizes and about evenly spaced on a log scale.

    Raises:
        ConfigError: the family has no such model.
    """
    low, high = weak.non_embedding, strong.non_embedding
    ladder = [spec for spec in models.all_specs() if spec.family == strong.family and low < spec.non_embedding < high]
    if not ladder:
        raise ConfigError(f"--chain must name the models between {weak.name} and {strong.name}, no ladder has one")
    steps = [math.log(low) + (math.log(high) - math.log(low)) * n / (INTERMEDIATES + 1) for n in range(1, INTERMEDIATES + 1)]
    nearest = {min(ladder, key=lambda spec: abs(math.log(spec.non_embedding) - step)) for step in steps}
    return [spec.name for spec in sorted(nearest, key=lambda spec: spec.non_embedding)]


def names(chain: str) -> list[str]:
    """Return the model names in a string such as "m1,m2". Raises ConfigError for an empty or unknown name."""
    found = [name.strip() for name in chain.split(",")]
    if not all(found):
        raise must("chain", "names of models with commas between them", chain)
    for name in found:
        models.find(name, "chain")
    return found
