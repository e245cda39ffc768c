"""Algorithm 5, bootstrapping: labels pass from the weak supervisor through models of growing size, round by round.

In each round, every intermediate model is finetuned from its pretrained weights on the labels of the model before it, and then
labels `transfer`. The next round starts from the labels of the best intermediate: the one with the highest agreement with the
original weak labels on the validation split, since ground truth is not available. The strong model is fitted once, on the best
intermediate's labels after the last round; or, following Algorithm 5 to the letter ("train M_S" is inside the loop), in every
round, and the next round starts from its labels.
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
"""Tag with the id of the run whose labels a link, or the final student, was trained on."""
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
    """Return all links in the order of their fits, and the labeller for the final fit of the strong model.

    Args:
        names: the intermediate models, smallest first.
        start: the first labeller, the weak supervisor.
        fit: (model, its position in the chain, labeller) -> the fitted model as the next labeller.
        best: selects the best labeller of a round.
        each_round: the strong model, if it is fitted in every round; its position is the last.
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
    """Attach `figures/chain_<part>.png`, the diagram of the chain with the evaluator's scores, to a student's run."""
    from w2s_mlflow.tracking import followers
    from w2s_mlflow.tracking.recorder import Report

    name = f"chain_{part}"

    def report(found: Result) -> Report:
        from w2s_mlflow.figures import _chain

        drawn = _chain.figure(_nodes(found, links, weak, part), part)

        def stage(directory: Path) -> None:
            file = directory / "figures" / f"{name}.png"
            file.parent.mkdir()
            drawn.savefig(file, dpi=150)

        return Report(stage)

    return followers.attach_once(found, name, report)


def _nodes(found: Result, links: Sequence[Result], weak: Result, part: str) -> list[Node]:
    """Return all fits in order, supervisor first and student last; a round begins where the first model recurs."""
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
    """Return INTERMEDIATES models of the strong model's family between the two sizes, about evenly spaced; fewer if need be.

    Raises:
        ConfigError: there is none.
    """
    low, high = weak.non_embedding, strong.non_embedding
    ladder = [spec for spec in models.every() if spec.family == strong.family and low < spec.non_embedding < high]
    if not ladder:
        raise ConfigError(f"--chain must name the models between {weak.name} and {strong.name}, no ladder has one")
    steps = [math.log(low) + (math.log(high) - math.log(low)) * n / (INTERMEDIATES + 1) for n in range(1, INTERMEDIATES + 1)]
    nearest = {min(ladder, key=lambda spec: abs(math.log(spec.non_embedding) - step)) for step in steps}
    return [spec.name for spec in sorted(nearest, key=lambda spec: spec.non_embedding)]


def names(chain: str) -> list[str]:
    """Return the models of a chain written as "m1,m2". Raises ConfigError for an empty or unknown name."""
    found = [name.strip() for name in chain.split(",")]
    if not all(found):
        raise must("chain", "names of models with commas between them", chain)
    for name in found:
        models.find(name, "chain")
    return found
