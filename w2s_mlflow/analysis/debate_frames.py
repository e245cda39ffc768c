"""Build the frames `debates` and `alignments`; only entropy and evidence_words are not recomputed from stored data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow.analysis import selection, variants
from w2s_mlflow.analysis.scores import Scores
from w2s_mlflow.analysis.selection import AnalysisRuns
from w2s_mlflow.debate import debate_tables, measures, play, transcripts
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.records import read_gold
from w2s_mlflow.tables import ALIGNMENTS, DEBATES

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

SAID = ("task", "weak", "strong", "seed", "split", "protocol", "explainer", "evidence_spans", "turns")
ALIGNED = ("task", "weak", "strong", "seed", "debate_weight", "kl", "opponent", "evidence_spans", "judge")
ITERATION = ("iteration", "method")
"""Options that differ between the iterations of one alignment; the first does not log `iteration`."""
PLAIN = {"student_method": "baseline"}
"""Default of `student_method`, the method of the student that debates."""
GOLD = ("judge_accuracy", "always_strong_accuracy", "judge_ece", "label_accuracy", "weak_accuracy", "strong_accuracy")


def frames(pulled: AnalysisRuns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames of debates and of aligned models, without excluded runs."""
    debated = pulled.rows("debate", lambda result: debates(result, pulled.runs))
    aligned = pulled.rows("align", lambda result: [alignment(result, pulled.scores)])
    debated, aligned = (selection.one_per_seed(rows, pulled) for rows in (debated, aligned))
    plain = [variants.defaults(stage) for stage in ("debate", "align")]
    return frame(debated, DEBATES, plain[0] | PLAIN), frame(_chained(aligned), ALIGNMENTS, plain[1])


def _chained(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add `iterations` to the rows of aligned models: the number of iterations with the same options and seed."""
    last: dict[tuple[Any, ...], int] = {}
    chains = [_chain(row) for row in found]
    for row, chain in zip(found, chains, strict=True):
        last[chain] = max(row["iteration"], last.get(chain, 0))
    return [row | {"iterations": last[chain]} for row, chain in zip(found, chains, strict=True)]


def _chain(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key that all iterations of one alignment share."""
    settings = json.loads(row["settings"])
    own = {name: row[name] for name in variants.IDENTITY} | settings
    return tuple(sorted((name, value) for name, value in own.items() if name not in ITERATION))


def frame(found: list[dict[str, Any]], columns: Sequence[str], plain: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows as a frame; `other_options` lists non-default options without a column that differ within a task.

    Args:
        plain: default options.
    """
    import pandas as pd

    rows = pd.DataFrame(found, columns=[*(name for name in columns if name != "other_options"), "settings"])
    other = {*SAID, *ALIGNED, *ITERATION}
    others = variants.differing_options(rows, ["task"], lambda name: name not in other, [plain] * len(rows))
    return rows.assign(other_options=others)[list(columns)]


def debates(result: Result, runs: Mapping[str, Result]) -> Iterator[dict[str, Any]]:
    """Yield one row per judge of a debate run (columns: tables/__init__.py). Raises ConfigError for missing tables.

    Args:
        runs: all runs by id, including the debate's student unless it was permanently deleted. A debate run logs its protocol
            as `method`, so the student's method is read from the student's run.
    """
    held, verdicts = transcripts.read(result)
    student = runs.get(result.tags["w2s.student_run_id"])
    student_method = {"student_method": student.params["method"] if student else NONE}
    own = selection.identified(replace(result, params={**student_method, **result.params}))
    apart_N = (held["strong_decision"] != held["weak_decision"]).to_numpy()
    for judge in dict.fromkeys(verdicts["judge"]):
        preference_N = transcripts.preference_N(held, verdicts, judge)
        row = own | {name: result.params[name] for name in SAID} | {"judge": judge}
        row |= {"questions": len(held), "no_verdict": int(np.isnan(preference_N).sum()), "disagreements": apart_N.mean()}
        row |= {"win_rate": _won(preference_N), "win_rate_on_disagreements": _won(preference_N[apart_N])}
        said = verdicts[verdicts["judge"] == judge]
        row |= {"cost": int(said["cost"].sum()), "position_bias": float(said["log_odds"].mean())}
        yield row | dict.fromkeys(GOLD, math.nan) | _against_gold(result, held, preference_N)


def _won(preference_N: play.Doubles) -> float:
    """Return the share of debates with a verdict that the strong side won, or NaN if there are none."""
    known = preference_N[np.isfinite(preference_N)]
    return float(measures.won_N(known).mean()) if len(known) else math.nan


def _against_gold(result: Result, held: pd.DataFrame, preference_N: play.Doubles) -> dict[str, float]:
    part = f"gold/{result.params['split']}.parquet"
    if part not in result.digests:
        return {}
    found = measures.against_gold(held, preference_N, read_gold(result.artifact(part), list(held["id"])))
    return {name: found[name] for name in GOLD if name in found}


def alignment(result: Result, scores: Mapping[str, Scores | str]) -> dict[str, Any]:
    """Return an aligned model's row: accuracy and mean preference before and after. Raises ConfigError for missing tables."""
    import pandas as pd

    row = selection.identified(result) | {name: result.params[name] for name in ALIGNED}
    row["iteration"] = int(result.params.get("iteration", 1))
    for when, run_id in (("before", result.tags["w2s.baseline_run_id"]), ("after", result.run_id)):
        own = scores.get(run_id)
        row[f"accuracy_{when}"] = own.metrics["accuracy"] if isinstance(own, Scores) else math.nan
        held, verdicts = (
            pd.read_parquet(result.artifact(f"{when}/{name}")) for name in (debate_tables.DEBATES, debate_tables.VERDICTS)
        )
        preference_N = transcripts.preference_N(held, verdicts)
        row |= {f"preference_{when}": float(np.nanmean(preference_N)), f"win_rate_{when}": _won(preference_N)}
    return row | {name: result.metrics.get(f"align/{name}", math.nan) for name in ("entropy", "evidence_words")}
