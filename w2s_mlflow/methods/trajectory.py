"""Table and figure of the accuracies of the weak and strong models in each iteration of a facilitation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from w2s_mlflow.pipeline.runs import GOLD

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result


class Iteration(NamedTuple):
    """Runs of one iteration: the strong model, which is the teacher, and the weak model that it teaches."""

    strong: Result
    weak: Result


def attach(weak: Result, iterations: Sequence[Iteration], part: str) -> Result:
    """Attach `tables/trajectory_<part>.csv` and `figures/trajectory_<part>.png` to the run of the last weak model.

    Args:
        weak: the run of the supervisor, M_W.
    """
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    last, name = iterations[-1].weak, f"trajectory_{part}"

    def stage(directory: Path) -> None:
        import pandas as pd

        from w2s_mlflow.figures import _trajectory, save

        table, image = directory / "tables" / f"{name}.csv", directory / "figures" / f"{name}.png"
        table.parent.mkdir()
        frame = pd.DataFrame(rows(weak, iterations, part))
        frame.to_csv(table, index=False)
        ceiling = iterations[0].strong.metrics.get(f"{part}/ceiling_accuracy", math.nan)
        save(lambda: _trajectory.figure(frame, last.params["task"], part, ceiling), image)

    return reports.attach_once(last, name, lambda _: Report(stage))


def rows(weak: Result, iterations: Sequence[Iteration], part: str) -> list[dict[str, Any]]:
    """Return one row per model in the order of training: M_W, then M_S and M'_W of each iteration.

    `agreement` is the agreement with the supervisor; `gain` is the accuracy minus the supervisor's accuracy.
    """
    table = [_row(weak, 0, "weak", part, weak, "")]
    for number, (strong, taught) in enumerate(iterations, start=1):
        table += [_row(strong, number, "strong", part, weak, "agreement")]
        table += [_row(taught, number, "weak", part, weak, "weak_agreement")]
    return table


def _row(run: Result, iteration: int, model: str, part: str, weak: Result, agreement: str) -> dict[str, Any]:
    accuracy, floor = (result.metrics.get(f"{part}/accuracy", math.nan) for result in (run, weak))
    row: dict[str, Any] = {"iteration": iteration, "model": model, "name": run.params[model], "accuracy": accuracy}
    row |= {"agreement": run.metrics.get(f"{part}/{agreement}", math.nan), "gain": accuracy - floor}
    return row | {"gold": run.tags.get(GOLD, ""), "run_id": run.run_id}
