"""Select the runs of an analysis: find their dependencies, and apply the rules that exclude runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from w2s_mlflow.analysis import variants
from w2s_mlflow.analysis.scores import Scores
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.pipeline.runs import CHECKPOINTS

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

LINK = re.compile(r"w2s\.(\w+)_run_ids?")
"""Pattern of tags that hold ids of runs that a run was made from or is compared with; the group is their role (`weak`, ...)."""
COMPARED = ("ceiling", "baseline")
"""Roles of runs that a run is compared with but was not made from."""


@dataclass
class AnalysisRuns:
    """Runs of an analysis, ordered from oldest to newest, their scores, and the rules that exclude some of them."""

    runs: Mapping[str, Result]
    scores: Mapping[str, Scores | str]
    left_out: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Rule and reason for which a run is excluded, by the id of the run."""

    def leave_out(self, result: Result, rule: str, reason: str) -> None:
        """Exclude a run. If several rules exclude a run, the first rule and its reason are kept."""
        self.left_out.setdefault(result.run_id, (rule, reason))

    def tested_on(self, run_id: str) -> str:
        """Return the digest of the ids and gold labels of a run's test rows; empty if the run has no scores."""
        scored = self.scores.get(run_id)
        return scored.rows.digest if isinstance(scored, Scores) else ""

    def counted(self) -> list[Result]:
        """Return the runs that are not excluded."""
        return [result for result in self.runs.values() if result.run_id not in self.left_out]

    def rows(self, stage: str, read: Callable[[Result], Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
        """Return the rows that `read` returns for each run of a stage, and exclude runs whose files are damaged or missing."""
        rows: list[dict[str, Any]] = []
        for result in [result for result in self.counted() if result.stage == stage]:
            try:
                rows += list(read(result))
            except ConfigError as error:
                self.leave_out(result, "damaged", str(error))
        return rows

    def made_from(self, result: Result) -> list[Result]:
        """Return the run and all runs that it was made from, directly or through other runs; each is listed once."""
        ancestors, pending = {result.run_id: result}, [result]
        while pending:
            for role, run_id in links(pending.pop()):
                if role not in COMPARED and run_id not in ancestors and run_id in self.runs:
                    ancestors[run_id] = self.runs[run_id]
                    pending.append(self.runs[run_id])
        return list(ancestors.values())


def links(result: Result) -> Iterator[tuple[str, str]]:
    """Yield the role and id of each run that the given run was made from or is compared with."""
    for tag, run_ids in result.tags.items():
        if match := LINK.fullmatch(tag):
            yield from ((match[1], run_id) for run_id in run_ids.split(",") if run_id)


def identified(result: Result) -> dict[str, Any]:
    """Return the columns of a run that `one_per_seed` and `variants.differing_options` need."""
    row: dict[str, Any] = {name: result.params.get(name, NONE) for name in variants.IDENTITY} | {"run_id": result.run_id}
    row |= {name: _size(result, name) for name in ("train_size", "test_size")}
    row["balance"] = result.params.get("balance", "")
    row["checkpoints"] = result.tags.get(CHECKPOINTS, "")
    return row | {"data": result.tags.get("w2s.data", ""), "settings": variants.settings(result)}


def _size(result: Result, name: str) -> int | str:
    """Return the `train_size` or `test_size` of a run; NONE for an imported run."""
    return NONE if result.imported else int(result.params[name])


def one_per_seed(rows: Sequence[dict[str, Any]], pulled: AnalysisRuns) -> list[dict[str, Any]]:
    """Of the runs that differ only in code, version or data, return the newest and exclude the others.

    Also exclude runs whose data differs from that of the newest run of the same split, or whose test rows differ from those of
    the newest run with the same task and test size.

    Args:
        rows: rows with the columns that `identified` returns; a debate run has one row per `judge`.
    """
    data = {_split_key(row): row["data"] for row in rows}
    test = {_test_key(row): digest for row in rows if (digest := pulled.tested_on(row["run_id"]))}
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["data"] != data[_split_key(row)]:
            reason = (
                f"its data has the digest {row['data'][:12]}, but newer runs of this split have {data[_split_key(row)][:12]}"
            )
            pulled.leave_out(pulled.runs[row["run_id"]], "other data", reason)
            continue
        digest = pulled.tested_on(row["run_id"])
        if digest and digest != test[_test_key(row)]:
            reason = f"its test rows have the digest {digest[:12]}, but those of newer runs have {test[_test_key(row)][:12]}"
            pulled.leave_out(pulled.runs[row["run_id"]], "other data", reason)
            continue
        key = (*(row[name] for name in variants.IDENTITY), row["settings"], row.get("judge"))
        if older := newest.pop(key, None):
            reason = f"the newer run {row['run_id']} has the same options and seed"
            pulled.leave_out(pulled.runs[older["run_id"]], "duplicated seed", reason)
        newest[key] = row
    return list(newest.values())


def _split_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key that runs of the same split share."""
    return (*_test_key(row), row["seed"], row["train_size"])


def _test_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key that runs with the same test rows share. It does not depend on the seed."""
    return row["task"], row["test_size"], row["balance"]
