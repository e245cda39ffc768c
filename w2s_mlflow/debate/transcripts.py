"""Read the debates of a finished run, to score them against ground truth or to write them as MLflow traces for reviewers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow.debate.debate_tables import DEBATES, VERDICTS
from w2s_mlflow.debate.play import STRONG, WEAK, Doubles, sigmoid

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result
    from w2s_mlflow.tracking.traces import Transcript

TRACES = "w2s.traces"
"""Tag of a debate run with the number of its debates that have been written as traces."""
TIE = "tie"


def read(run: Result) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a run's tables of debates and verdicts. Raises ConfigError if they are missing."""
    import pandas as pd

    return pd.read_parquet(run.artifact(DEBATES)), pd.read_parquet(run.artifact(VERDICTS))


def preference_N(debates: pd.DataFrame, verdicts: pd.DataFrame, judge: str | None = None) -> Doubles:
    """Return D of each debate according to one judge; NaN unless both orders of the debate have a verdict.

    If `judge` is None, the first judge in `verdicts` is used.
    """
    of_judge = verdicts[verdicts["judge"] == (judge or verdicts["judge"].iloc[0])]
    by_order = of_judge.pivot(index="id", columns="order", values="log_odds").reindex(debates["id"])
    orders = (f"{STRONG},{WEAK}", f"{WEAK},{STRONG}")
    strong_first_N, weak_first_N = (by_order[order].to_numpy(dtype=np.float64) for order in orders)
    preference_N: Doubles = (strong_first_N - weak_first_N) / 2
    return preference_N


def traced(run: Result, limit: int | None) -> Result:
    """Write the first `limit` debates of a run as MLflow traces, and return the run.

    If `limit` is None, all debates are written. Debates that have already been written are skipped.
    """
    from w2s_mlflow.tracking import reports, traces
    from w2s_mlflow.tracking.reports import Report

    def written(run: Result) -> int:
        return int(run.tags.get(TRACES, "0"))

    def is_complete(run: Result) -> bool:
        total = int(run.metrics["debate/questions"])
        return written(run) >= (total if limit is None else min(limit, total))

    def report(run: Result) -> Report:
        debates, verdicts = read(run)
        count = len(debates) if limit is None else min(limit, len(debates))
        traces.write(run.run_id, transcripts(debates[written(run) : count], verdicts))
        return Report(tags={TRACES: str(count)})

    return reports.attach_once(run, "traces", report, is_complete)


def transcripts(debates: pd.DataFrame, verdicts: pd.DataFrame) -> list[Transcript]:
    """Return one transcript per debate: both sides' turns in each round, followed by each judge's verdict on each order."""
    from w2s_mlflow.tracking.traces import Transcript

    preferences, by_id = preference_N(debates, verdicts), dict(list(verdicts.groupby("id", sort=False)))
    written = []
    for preference, debate in zip(preferences, rows(debates), strict=True):
        sides = {side: debate[f"{side}_claim"] for side in (STRONG, WEAK)}
        # The root of the trace contains all evidence, because MLflow's review queues show only the root.
        shown = {side: debate[f"{side}_explanation"] for side in (STRONG, WEAK)}
        given = {"question": "\n".join(debate["segments"]), "claims": sides, "evidence": shown}
        tags, turns = {"w2s.winner": winner(preference)}, [*_turns(debate), *_judged(by_id[debate["id"]])]
        written.append(Transcript(debate["id"], given, _decided(preference, sides), turns, tags))
    return written


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def winner(preference: float) -> str:
    """Return the winner by the sign of D: `strong`, `weak` or `tie`; `none` if D is missing (NaN)."""
    if not math.isfinite(preference):
        return "none"
    return {1.0: STRONG, -1.0: WEAK}.get(float(np.sign(preference)), TIE)


def _decided(preference: float, claims: dict[str, str]) -> dict[str, Any]:
    won = winner(preference)
    decision: dict[str, Any] = {"winner": won, "claim": claims.get(won, "")}
    return decision | ({"D": round(float(preference), 3), "p_strong": round(sigmoid(preference), 3)} if won != "none" else {})


def _turns(debate: dict[str, Any]) -> list[Any]:
    from w2s_mlflow.tracking.traces import Turn

    turns = []
    for number in range(len(debate["strong_said"])):
        for side, other in ((STRONG, WEAK), (WEAK, STRONG)):
            given: dict[str, Any] = {"claim": debate[f"{side}_claim"]}
            if heard := _heard(debate, side, other)[number]:
                given["shown before by the other side"] = heard
            name = f"{side}, round {number + 1}" if len(debate["strong_said"]) > 1 else side
            turns.append(Turn(name, "side", given, {"evidence": debate[f"{side}_said"][number]}))
    return turns


def _heard(debate: dict[str, Any], side: str, other: str) -> Sequence[str]:
    """Return, for each round, the part of the other side's latest text that `side` took into account.

    If the table of debates does not have this column, the whole text is returned.
    """
    heard: Sequence[str] = debate.get(f"{side}_heard", ("", *debate[f"{other}_said"]))
    return heard


def _judged(verdicts: pd.DataFrame) -> list[Any]:
    from w2s_mlflow.tracking.traces import Turn

    turns = []
    for verdict in rows(verdicts):
        outputs: dict[str, Any] = {"log_odds of the first": verdict["log_odds"], "rationale": verdict["rationale"]}
        if not math.isfinite(verdict["log_odds"] if verdict["log_odds"] is not None else math.nan):
            outputs["log_odds of the first"] = None
        outputs |= {"cost": int(verdict["cost"])} if verdict["cost"] else {}
        turns.append(Turn(f"judge {verdict['judge']}", "judge", {"order": verdict["order"]}, outputs))
    return turns
