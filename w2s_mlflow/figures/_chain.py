"""Diagram of a bootstrapping chain: the models of each round, and which labels each was trained on (Algorithm 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, ORANGE = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Node:
    """One trained model of a chain.

    Attributes:
        column: column of the diagram: 0 for the weak supervisor, then the models in chain order, the strong model last.
        learned: index of the node whose labels the model was trained on; None for the supervisor.
        agreement: agreement with the supervisor on the reported split; None for the supervisor.
        accuracy: accuracy on the same split; None without ground truth.
    """

    name: str
    column: int
    round: int
    learned: int | None
    agreement: float | None
    accuracy: float | None


def figure(nodes: Sequence[Node], part: str) -> Figure:
    """Draw models as boxes, and an arrow from each model to those trained on its labels.

    Thick arrows lead to the next round or to the strong model.
    """
    columns, rounds = (max(getattr(node, name) for node in nodes) + 1 for name in ("column", "round"))
    fig = Figure(figsize=(1.9 * columns, 0.5 + 1.15 * rounds), layout="constrained")
    axes = fig.subplots()
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rounds - 0.5, -0.5)
    axes.set_axis_off()
    for node in nodes:
        if node.learned is not None:
            _arrow(axes, nodes[node.learned], node, onward=node.round > nodes[node.learned].round or node.column == columns - 1)
        _box(axes, node)
    for row in range(rounds):
        axes.text(-0.48, row - 0.42, f"round {row + 1}", fontsize=7, color="0.4")
    fig.suptitle(f"Bootstrapping chain: agreement with the supervisor and accuracy on {part}", fontsize=8)
    return fig


def _box(axes: Axes, node: Node) -> None:
    lines = [node.name]
    lines += [f"agrees {node.agreement:.3f}"] if node.agreement is not None else []
    lines += [f"accuracy {node.accuracy:.3f}"] if node.accuracy is not None else []
    style = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": ORANGE if node.learned is None else BLUE}
    axes.text(node.column, node.round, "\n".join(lines), ha="center", va="center", fontsize=7, bbox=style)


def _arrow(axes: Axes, start: Node, end: Node, onward: bool) -> None:
    """Draw an arrow from one model to another. It is curved if a third model lies between them."""
    skips = end.column > start.column + 1 and end.round == start.round
    style: dict[str, object] = {"arrowstyle": "-|>", "color": "0.35", "linewidth": 1.8 if onward else 0.9}
    gap = 18 if end.column == start.column else 33
    if skips:
        style["connectionstyle"] = "arc3,rad=-0.3"
    style |= {"shrinkA": gap, "shrinkB": gap}
    axes.annotate("", (end.column, end.round), (start.column, start.round), arrowprops=style)
