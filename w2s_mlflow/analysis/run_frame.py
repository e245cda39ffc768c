"""Build the frame `runs`: one row per run of any stage, with its metrics, its reads of ground truth and its cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from w2s_mlflow.analysis import outcomes, variants
from w2s_mlflow.analysis.scores import Scores
from w2s_mlflow.analysis.selection import AnalysisRuns
from w2s_mlflow.analysis.variants import IDENTITY
from w2s_mlflow.metrics import METRICS
from w2s_mlflow.pipeline import scoring
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.pipeline.runs import CHECKPOINTS
from w2s_mlflow.tables import RUNS

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

FORWARD_AND_BACK = 6
"""Number of floating-point operations per parameter and token in a training step (Kaplan et al. 2020, section 2.1)."""


def frame(pulled: AnalysisRuns) -> pd.DataFrame:
    """Return the frame `runs`. Its columns `method_options` and `other_options` list options that differ within a stage."""
    import pandas as pd

    # `runs` has no columns for iteration and repeat; keep them in `settings`, so that they distinguish the runs of one seed.
    columns = [name for name in IDENTITY if name not in ("iteration", "repeat")]
    rows = [_run(result, pulled) | {"settings": variants.settings(result, columns)} for result in pulled.counted()]
    frame = pd.DataFrame(
        rows, columns=[*(name for name in RUNS if name not in ("method_options", "other_options")), "settings"]
    )
    return variants.add_config_diff(frame, of=["stage"])[list(RUNS)]


def _run(result: Result, pulled: AnalysisRuns) -> dict[str, Any]:
    """Return one row of `runs`, for a run of any stage."""
    scores = pulled.scores.get(result.run_id)
    metrics = scores.metrics if isinstance(scores, Scores) else {}
    if result.imported:
        metrics = {"accuracy": result.metrics["test/accuracy"]}
    row: dict[str, Any] = {name: result.params.get(name, NONE) for name in IDENTITY}
    row["checkpoints"] = result.tags.get(CHECKPOINTS, "")
    paper_domain = NONE if result.imported else outcomes.domain(row["task"])
    row |= {"run_id": result.run_id, "name": result.name, "stage": result.stage, "domain": paper_domain}
    row |= {name: metrics.get(name, math.nan) for name in METRICS}
    row |= {"pgr": result.metrics.get("test/pgr", math.nan), "pgr_status": result.tags.get(scoring.PGR_STATUS, "")}
    row |= {
        name: result.tags.get(f"w2s.{name}", "")
        for name in ("ceiling_failed", "label_gap", "vs_human", "gold", "fingerprint", "data")
    }
    row |= {"reads": {name.removeprefix("gold/"): n for name, n in result.metrics.items() if name.startswith("gold/")}}
    return row if result.imported else row | _cost(result) | _total_cost(result, pulled)


def _cost(result: Result) -> dict[str, float]:
    tokens, parameters = result.metrics.get("train/tokens", 0.0), result.metrics.get("model/parameters", 0.0)
    flops = FORWARD_AND_BACK * parameters * tokens
    return {"seconds": result.seconds, "tokens": tokens, "parameters": parameters, "flops": flops}


def _total_cost(result: Result, pulled: AnalysisRuns) -> dict[str, float]:
    """Return the total cost of the run and all runs that it was made from, each counted once."""
    used = [_cost(other) for other in pulled.made_from(result)]
    return {f"total_{name}": sum(other[name] for other in used) for name in ("seconds", "tokens", "flops")}
