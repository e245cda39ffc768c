"""Algorithm 5, bootstrapping: labels go from the weak supervisor through models of growing size, round by round.

In a round each intermediate model learns, from its pretrained weights, the labels of the one before, and labels `transfer`.
The next round starts from the labels of the best of them: the one that agrees most with the original weak labels on the
validation slice, as the truth there is nobody's to know. The strong model is fitted once, on the best one's labels after the
last round; or, to the letter ("train M_S" stands inside the loop), in each round, and the next starts from its labels.
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
"""The tag with the run whose labels a link, or the student at the end, has learned."""
INTERMEDIATES = 2
"""As in the paper: M_S1 and M_S2."""

Labeller = TypeVar("Labeller")


def run_chain(
    names: Sequence[str],
    rounds: int,
    start: Labeller,
    fit: Callable[[str, int, Labeller], Labeller],
    best: Callable[[Sequence[Labeller]], Labeller],
    each_round: str | None = None,
) -> tuple[list[Labeller], Labeller]:
    """Every link in the order in which it is made, and the one whose labels the strong model learns last.

    Args:
        names: the intermediate models, the smallest first.
        start: who labelled first, the weak supervisor.
        fit: (model, its position in the chain, whose labels it learns) -> who labels now.
        best: the best of a round.
        each_round: the strong model, where it is fitted in each round; its position is the last.
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
    """A student's run with its chain as `figures/chain_<part>.png`: who labelled for whom, and what the evaluator says."""
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
    """Every fit in its order, the supervisor first and the student last; a round begins where the first model comes again."""
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
    """INTERMEDIATES models of the strong one's ladder between the two, as evenly as sizes allow; fewer where there are fewer.

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
    """The models of a chain as it is written, "m1,m2". Raises ConfigError for one that is none."""
    found = [name.strip() for name in chain.split(",")]
    if not all(found):
        raise must("chain", "names of models with commas between them", chain)
    for name in found:
        models.find(name, "chain")
    return found
