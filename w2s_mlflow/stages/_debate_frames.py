"""Runs of the stages debate and align -> the frames of their tables, every number recomputed from what is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow.config import ConfigError
from w2s_mlflow.records import read_gold
from w2s_mlflow.stages import _debates, _transcripts
from w2s_mlflow.stages._scores import Scores
from w2s_mlflow.tables import ALIGNMENTS, DEBATES

if TYPE_CHECKING:
    import pandas as pd

    from w2s_mlflow.tracking.results import Result

UNSAID = ("seed", "method", "traces", "head", "round")
"""Options that are no setting: the seed, what is result-neutral, and what other columns say."""
SAID = ("task", "weak", "strong", "seed", "split", "form", "explainer", "pieces", "rounds")
ALIGNED = ("task", "weak", "strong", "seed", "lam", "kl", "opponent", "pieces", "judge")
ROUND = ("round", "method")
"""The options in which the rounds of one alignment differ; the first has none named `round`."""
GOLD = ("judge_accuracy", "strong_right", "judge_ece", "label_accuracy", "weak_accuracy", "strong_accuracy")


def frames(
    found: Iterable[Result], scores: Mapping[str, Scores | str], leave_out: Callable[[Result, str, str], None]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The frames of debates and of aligned models among these runs.

    Args:
        leave_out: called with a run whose tables are lost, the rule that leaves it out, and the reason.
    """
    rows: dict[str, list[dict[str, Any]]] = {"debate": [], "align": []}
    for result in found:
        try:
            if result.stage in rows:
                rows[result.stage] += [alignment(result, scores)] if result.stage == "align" else debates(result)
        except ConfigError as error:
            leave_out(result, "damaged", str(error))
    return frame(rows["debate"], DEBATES), frame(_chained(rows["align"]), ALIGNMENTS)


def _chained(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of aligned models with `rounds`, how many rounds there are of a model's options and seed."""
    last: dict[tuple[Any, ...], int] = {}
    chains = [tuple(sorted((name, value) for name, value in row["options"].items() if name not in ROUND)) for row in found]
    for row, chain in zip(found, chains, strict=True):
        last[chain] = max(row["round"], last.get(chain, 0))
    return [row | {"rounds": last[chain]} for row, chain in zip(found, chains, strict=True)]


def frame(found: list[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """The rows as a frame; `setting` is what of their other options differs between rows of one task."""
    import pandas as pd

    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in found:  # of runs that differ in nothing but their code the newest
        kept[tuple(sorted(row["options"].items())), row["judge"]] = row
    every = list(kept.values())
    for row in every:
        alike = [other["options"] for other in every if other["task"] == row["task"]]
        own = {name: value for name, value in row["options"].items() if name not in (*SAID, *ALIGNED, *UNSAID)}
        told = [f"{name}={value}" for name, value in own.items() if any(other.get(name) != value for other in alike)]
        row["setting"] = " ".join(sorted(told))
    return pd.DataFrame(every, columns=list(columns))


def debates(result: Result) -> Iterator[dict[str, Any]]:
    """One row for each judge of a run of debates, as tables/__init__.py describes it. Raises ConfigError for lost tables."""
    held, verdicts = _transcripts.read(result)
    apart_N = (held["strong_decision"] != held["weak_decision"]).to_numpy()
    for judge in dict.fromkeys(verdicts["judge"]):
        preference_N = _transcripts.preference_N(held, verdicts, judge)
        row: dict[str, Any] = {name: result.params[name] for name in SAID} | {"run_id": result.run_id, "judge": judge}
        row["options"] = dict(result.params)
        row |= {"questions": len(held), "no_verdict": int(np.isnan(preference_N).sum()), "disagreements": apart_N.mean()}
        row |= {"win_rate": _won(preference_N), "apart_win_rate": _won(preference_N[apart_N])}
        own = verdicts[verdicts["judge"] == judge]
        row |= {"cost": int(own["cost"].sum()), "position_bias": float(own["log_odds"].mean())}
        yield row | dict.fromkeys(GOLD, math.nan) | _against_gold(result, held, preference_N)


def _won(preference_N: _debates.Doubles) -> float:
    """The strong side's share of the debates with a verdict; not a number without one."""
    known = preference_N[np.isfinite(preference_N)]
    return float(_debates.won_N(known).mean()) if len(known) else math.nan


def _against_gold(result: Result, held: pd.DataFrame, preference_N: _debates.Doubles) -> dict[str, float]:
    part = f"gold/{result.params['split']}.parquet"
    if part not in result.digests:
        return {}
    ids = list(held["id"])
    gold_N, label_N = read_gold(result.artifact(part), ids), result.weak_labels().of(ids).argmax(axis=1)
    found = _debates.against_gold(held, preference_N, label_N, gold_N)
    return {name: found[name] for name in GOLD if name in found}


def alignment(result: Result, scores: Mapping[str, Scores | str]) -> dict[str, Any]:
    """The row of an aligned model: accuracy and mean D of the plain student, and of it. Raises ConfigError for lost tables."""
    import pandas as pd

    row: dict[str, Any] = {name: result.params[name] for name in ALIGNED} | {"run_id": result.run_id}
    row |= {"options": dict(result.params), "round": int(result.params.get("round", 1))}
    for when, run_id in (("before", result.tags["w2s.before_run_id"]), ("after", result.run_id)):
        own = scores.get(run_id)
        row[f"accuracy_{when}"] = own.metrics["accuracy"] if isinstance(own, Scores) else math.nan
        held, verdicts = (pd.read_parquet(result.artifact(f"{when}/{name}")) for name in (_debates.DEBATES, _debates.VERDICTS))
        preference_N = _transcripts.preference_N(held, verdicts)
        row |= {f"preference_{when}": float(np.nanmean(preference_N)), f"win_rate_{when}": _won(preference_N)}
    return row | {name: result.metrics.get(f"align/{name}", math.nan) for name in ("entropy", "words")}
