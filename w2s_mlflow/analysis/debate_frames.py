"""Build the frames `debates` and `alignments` from stored tables. Only entropy and evidence_words are logged metrics."""

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

DEBATE_PARAMS = ("task", "weak", "strong", "seed", "split", "protocol", "explainer", "evidence_spans", "turns")
ALIGNMENT_PARAMS = ("task", "weak", "strong", "seed", "debate_weight", "kl", "opponent", "evidence_spans", "judge")
ITERATION = ("iteration", "method")
"""Options that differ between the iterations of one alignment; the first iteration does not log `iteration`."""
DEFAULT_METHOD = {"student_method": "baseline"}
"""Default of `student_method`, the method that trained the debating student."""
GOLD = ("judge_accuracy", "always_strong_accuracy", "judge_ece", "label_accuracy", "weak_accuracy", "strong_accuracy")


def frames(pulled: AnalysisRuns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the frames of debates and of aligned models, without excluded runs."""
    debated = pulled.rows("debate", lambda result: debates(result, pulled.runs))
    aligned = pulled.rows("align", lambda result: [alignment(result, pulled.scores)])
    debated, aligned = (selection.one_per_seed(rows, pulled) for rows in (debated, aligned))
    plain = [variants.defaults(stage) for stage in ("debate", "align")]
    return frame(debated, DEBATES, plain[0] | DEFAULT_METHOD), frame(_with_iterations(aligned), ALIGNMENTS, plain[1])


def _with_iterations(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the column `iterations` to the rows of aligned models: the number of iterations with the same options and seed."""
    last: dict[tuple[Any, ...], int] = {}
    chains = [_alignment_key(row) for row in rows]
    for row, chain in zip(rows, chains, strict=True):
        last[chain] = max(row["iteration"], last.get(chain, 0))
    return [row | {"iterations": last[chain]} for row, chain in zip(rows, chains, strict=True)]


def _alignment_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key that all iterations of one alignment share."""
    settings = json.loads(row["settings"])
    options = {name: row[name] for name in variants.IDENTITY} | settings
    return tuple(sorted((name, value) for name, value in options.items() if name not in ITERATION))


def frame(records: list[dict[str, Any]], columns: Sequence[str], plain: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows as a frame.

    Its column `other_options` lists options that have no other column and differ between the rows of a task, unless they have
    their default value.

    Args:
        plain: default value of each option.
    """
    import pandas as pd

    rows = pd.DataFrame(records, columns=[*(name for name in columns if name != "other_options"), "settings"])
    other = {*DEBATE_PARAMS, *ALIGNMENT_PARAMS, *ITERATION}
    others = variants.differing_options(rows, ["task"], lambda name: name not in other, [plain] * len(rows))
    return rows.assign(other_options=others)[list(columns)]


def debates(result: Result, runs: Mapping[str, Result]) -> Iterator[dict[str, Any]]:
    """Yield one row per judge of a debate run. The columns are described in tables/__init__.py.

    Args:
        runs: all runs by id, including the debate's student unless it was permanently deleted. A debate run logs its protocol
            as `method`, so the student's method is read from the student's run.

    Raises:
        ConfigError: a table of the debate run is missing.
    """
    debate_table, verdicts = transcripts.read(result)
    student = runs.get(result.tags["w2s.student_run_id"])
    student_method = {"student_method": student.params["method"] if student else NONE}
    identity = selection.identified(replace(result, params={**student_method, **result.params}))
    apart_N = (debate_table["strong_decision"] != debate_table["weak_decision"]).to_numpy()
    for judge in dict.fromkeys(verdicts["judge"]):
        preference_N = transcripts.preference_N(debate_table, verdicts, judge)
        row = identity | {name: result.params[name] for name in DEBATE_PARAMS} | {"judge": judge}
        row |= {
            "questions": len(debate_table),
            "no_verdict": int(np.isnan(preference_N).sum()),
            "disagreements": apart_N.mean(),
        }
        row |= {"win_rate": _win_rate(preference_N), "win_rate_on_disagreements": _win_rate(preference_N[apart_N])}
        judge_verdicts = verdicts[verdicts["judge"] == judge]
        row |= {"cost": int(judge_verdicts["cost"].sum()), "position_bias": float(judge_verdicts["log_odds"].mean())}
        yield row | dict.fromkeys(GOLD, math.nan) | _against_gold(result, debate_table, preference_N)


def _win_rate(preference_N: play.Doubles) -> float:
    """Return the strong side's share of wins among the debates that have a verdict; NaN if no debate has one."""
    known = preference_N[np.isfinite(preference_N)]
    return float(measures.won_N(known).mean()) if len(known) else math.nan


def _against_gold(result: Result, debate_table: pd.DataFrame, preference_N: play.Doubles) -> dict[str, float]:
    part = f"gold/{result.params['split']}.parquet"
    if part not in result.digests:
        return {}
    measured = measures.against_gold(debate_table, preference_N, read_gold(result.artifact(part), list(debate_table["id"])))
    return {name: measured[name] for name in GOLD if name in measured}


def alignment(result: Result, scores: Mapping[str, Scores | str]) -> dict[str, Any]:
    """Return the row of an aligned model, with metrics before and after alignment.

    Raises:
        ConfigError: a table of the run is missing.
    """
    import pandas as pd

    row = selection.identified(result) | {name: result.params[name] for name in ALIGNMENT_PARAMS}
    row["iteration"] = int(result.params.get("iteration", 1))
    for when, run_id in (("before", result.tags["w2s.baseline_run_id"]), ("after", result.run_id)):
        scored = scores.get(run_id)
        row[f"accuracy_{when}"] = scored.metrics["accuracy"] if isinstance(scored, Scores) else math.nan
        debate_table, verdicts = (
            pd.read_parquet(result.artifact(f"{when}/{name}")) for name in (debate_tables.DEBATES, debate_tables.VERDICTS)
        )
        preference_N = transcripts.preference_N(debate_table, verdicts)
        row |= {f"preference_{when}": float(np.nanmean(preference_N)), f"win_rate_{when}": _win_rate(preference_N)}
    return row | {name: result.metrics.get(f"align/{name}", math.nan) for name in ("entropy", "evidence_words")}
