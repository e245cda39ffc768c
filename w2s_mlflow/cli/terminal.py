"""Terminal output: results, plans, tables, debates to judge, and differences between runs."""

from __future__ import annotations

import csv
import functools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow.display import printable

if TYPE_CHECKING:
    from rich.text import Text

    from w2s_mlflow.tracking.human_feedback import DebateForReview
    from w2s_mlflow.tracking.planning import Plan
    from w2s_mlflow.tracking.results import Result
    from w2s_mlflow.tracking.why import Explanation

PGR_TABLE = "tables/pgr.csv"
PGR_STATUS, UNDETERMINED = "w2s.pgr_status", "undetermined"
WIDTH = 150
"""Width of the output in columns if standard error is not a terminal, as under `mlflow run`."""
LINES = 40
"""Maximum number of plan steps that are listed one by one; longer plans are summarized by stage."""
HEADLINE = (
    *("accuracy", "weak_accuracy", "strong_accuracy", "ceiling_accuracy", "pgr", "pgr_low", "pgr_high"),
    *("gain", "gain_low", "gain_high"),
    *("default_accuracy", "best_accuracy", "difference", "difference_low", "difference_high", "p"),
)
"""Metrics of a split that are shown if the run logs them. Only searches log the metrics in the last line of this tuple."""
OTHERS = re.compile(
    r"(debate/|align/baseline_|align/aligned_)(win_rate|judge_accuracy)|align/gain(_low|_high)?|probe/.+/(before|after|gain)|errors/\w+"
    r"|validation/(perplexity(_before)?|loss)"
)
"""Pattern of the names of metrics that are shown in addition to HEADLINE. They are logged by stages such as `debate`, `align`,
`probe` and `errors`."""


def show_result(result: Result, seconds: float) -> None:
    """Show the metrics and the run id of a result, and the command that opens the MLflow UI."""
    from w2s_mlflow.tracking.backend import server

    if PGR_TABLE in result.digests:  # the table is missing if no student or rule was scored on `test`
        _show_table(result)
    status, undetermined = result.tags.get(PGR_STATUS, ""), result.tags.get(PGR_STATUS) == UNDETERMINED
    names = [name for split in ("selection", "test") for name in (f"{split}/{name}" for name in HEADLINE)]
    for name in (*names, *filter(OTHERS.fullmatch, sorted(result.metrics))):
        if name in result.metrics and not (undetermined and "/pgr" in name):
            value = result.metrics[name]
            _line(f"{name:24s} {value:.{0 if value > 1 and value.is_integer() else 3}f}")
    if undetermined:
        _line("PGR is undetermined: the ceiling is not significantly more accurate than the supervisor on these test rows")
    elif status.startswith("no "):
        _line(f"there is no PGR: the student has {status}")
    verb = "reused" if result.reused else "done"
    _line(f"{verb} in {seconds:.1f} s: {result.name}, run {result.run_id}")
    _line(f"open the UI:  mlflow ui --backend-store-uri {server.where()}")


def show_plan(plan: Plan) -> None:
    """Show the unfinished runs of a plan, and the totals. More than LINES runs are summarized by stage instead of listed."""
    from w2s_mlflow.tracking import planning

    unfinished = [step for step in plan.steps.values() if step.state != planning.REUSED]
    if len(unfinished) <= LINES:
        for step in unfinished:
            _line(f"{_words(step.state):14s} {_duration(step.seconds):>9s}  {step.name}")
    else:
        groups: dict[tuple[str, str], list[float | None]] = {}
        for step in unfinished:
            groups.setdefault((step.state, step.name.split()[0]), []).append(step.seconds)
        for (state, stage), seconds in groups.items():
            _line(f"{_words(state):14s} {_duration(_sum(seconds)):>9s}  {len(seconds)} x {stage}")
    reused, trained, running = (plan.count(state) for state in (planning.REUSED, planning.TRAINED, planning.RUNNING))
    unknown = f", and {plan.unknown()} without an estimate" if plan.unknown() else ""
    if size := sum(plan.downloads.values()):
        models = " and ".join(name.rstrip("@") for name, count in plan.downloads.items() if count)
        _line(f"{size / 1e6:,.0f} MB of weights to be downloaded: {models}")
    _line(
        f"{reused} reused, {trained} to be trained, {running} being trained by other processes; "
        f"about {_duration(plan.seconds())}{unknown}. Nothing was started."
    )


def show_why(explanation: Explanation) -> None:
    """Show the most similar finished run, and the parts of the fingerprint in which the two runs differ."""
    _line(f"{explanation.name}, run {explanation.run_id}")
    if explanation.nearest_run_id is None:
        _line("there is no other finished run of its stage to compare it with")
        return
    _line(f"differs from the nearest finished run, {explanation.nearest_name}, run {explanation.nearest_run_id}, in")
    for difference in explanation.differences:
        _line(f"  {difference}")


def show_line(text: str) -> None:
    """Show one line."""
    _line(text)


def ask_winner(debate: DebateForReview, *, blind: bool) -> str | None:
    """Show a debate and ask which side argues better. Return `strong`, `weak` or `tie`, or None if the user stops."""
    sides = tuple(dict.fromkeys(turn.side for turn in debate.turns))[:: -1 if debate.swapped() else 1]
    named = dict(zip(sides, "AB", strict=False)) if blind else {side: side for side in sides}
    _line(f"\n{debate.question}\n")
    turns = sorted(enumerate(debate.turns), key=lambda turn: (turn[0] // len(sides), sides.index(turn[1].side)))
    for _, turn in turns:
        _line(f"{named[turn.side]} claims: {turn.claim}\n  shows: {turn.evidence or 'nothing'}")
    answers = {named[side].lower()[0]: side for side in sides} | {"t": "tie"}
    choice = " or ".join(f"{key} ({named.get(side, side)})" for key, side in answers.items())
    while True:
        _line(f"Which side argues better: {choice}? q quits.")
        answer = sys.stdin.readline()
        if not answer or answer.strip().lower() in ("q", "quit"):
            return None
        if answer.strip().lower() in answers:
            return answers[answer.strip().lower()]


def show_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Show a table, given as one mapping from column names to values per row. Missing values are blank."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for column in names:
        table.add_column(_text(column), overflow="fold")
    for row in rows:
        table.add_row(*(_text(_value(row.get(name))) for name in names))
    _console().print(table)


def show_checked(rows: Sequence[Mapping[str, Any]]) -> None:
    """Show a table of the tasks whose data was found, and the names of the other tasks."""
    found = [row for row in rows if row["rows"] is not None]
    show_table([{name: value for name, value in row.items() if name != "warning"} for row in found])
    for row in found:
        if row["warning"]:
            _line(f"warning: {row['task']}: {row['warning']}; they were dropped")
    missing = [row["task"] for row in rows if row["rows"] is None]
    _line(f"{len(rows) - len(missing)} of {len(rows)} tasks found" + (f"; not found: {', '.join(missing)}" if missing else ""))


def _value(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _words(state: str) -> str:
    return {"trained": "to be trained", "running": "being trained"}[state]


def _sum(seconds: Iterable[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if known else None


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _line(text: str) -> None:
    _console().print(_text(text), soft_wrap=True)


def _text(text: str) -> Text:
    """Return what Rich prints as it is. In a plain string, Rich would replace markup such as `[old]` and `:key:`."""
    from rich.text import Text

    return Text(printable(text))


@functools.cache
def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else WIDTH)


def _show_table(result: Result) -> None:
    """Show the main columns of the PGR table, and the names of the run's other tables."""
    with result.artifact(PGR_TABLE).open(newline="", encoding="utf-8") as file:
        show_pgr(list(csv.DictReader(file)))
    others = sorted(Path(path).stem for path in result.digests if path.startswith("tables/") and path.endswith(".md"))
    _line(f"intervals are 95%; the run has the tables: {', '.join(others)}")


def show_pgr(table: Sequence[Mapping[str, str]]) -> None:
    """Show the PGR table. To save width, a value that all rows share is shown in the title instead of in a column."""
    from rich.table import Table

    rows = [_compact(row) for row in table]
    shared = {name: value for name, value in rows[0].items() if name not in NUMBERS and all(row[name] == value for row in rows)}
    title = _text(", ".join(filter(None, shared.values()))) if any(shared.values()) else None
    output = Table(box=None, header_style="bold", pad_edge=False, title=title)
    for column in rows[0]:
        if column not in shared:
            output.add_column(_text(column), no_wrap=column != "method", overflow="fold")
    for row in rows:
        output.add_row(*(_text(value) for name, value in row.items() if name not in shared))
    _console().print(output)


NUMBERS = ("n", "weak", "accuracy", "ceiling", "PGR")
"""Columns of the PGR table that are shown even if all rows have the same value."""


def _compact(row: Mapping[str, str]) -> dict[str, str]:
    pgr = {"": "", UNDETERMINED: UNDETERMINED}.get(row["pgr_status"])
    return {
        "task": row["task"],
        "weak -> strong": "" if row["weak"] == "-" else f"{row['weak']} -> {row['strong']}",
        "head": row["head"],
        "method": " ".join(f"{row['method']} {row['method_options']} {row['other_options']}".split()),
        "n": row["n"],
        "weak": _number(row["weak_accuracy"]),
        "accuracy": _interval(row, "accuracy"),
        "ceiling": _number(row["ceiling_accuracy"]),
        "PGR": _interval(row, "pgr") if pgr is None else pgr,
    }


def _interval(row: Mapping[str, str], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return _number(row[name]) + (f" [{_number(low)}, {_number(high)}]" if low and high else "")


def _number(text: str) -> str:
    return f"{float(text):.3f}" if text else ""
