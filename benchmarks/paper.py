"""The paper's tables and figures beside our results, as Markdown.

    python benchmarks/paper.py [URI] [--experiments "a, b"] [--write docs/reference/paper.md]

Every number of ours comes from the analysis of the finished runs of a tracking store, so it is recomputed from stored
predictions. Without URI every comparison is "not measured". `--write` replaces the part of a page between the two marker
comments; otherwise the Markdown is printed. benchmarks/paper.toml holds what the paper states.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from w2s_mlflow import registry, stats, tasks
from w2s_mlflow.analysis import build, frames
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.tables import IMPORTED, Frames
from w2s_mlflow.tables.ablation import PAPER as TABLE_2

STATED = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
BEGIN, END = "<!-- results: begin (benchmarks/paper.py writes this part) -->", "<!-- results: end -->"
NOT_MEASURED, NOT_STATED = "not measured", "not stated"
TABLES = ("pgr", "paired_tests", "agreement", "probes", "errors", "claims")
SIZES = ["task", "weak", "head", "other_options"]
"""Columns whose values are equal in the students of different sizes that are compared."""

Tables = Mapping[str, pd.DataFrame]
Row = tuple[str, ...]


def tables(data: Frames) -> dict[str, pd.DataFrame]:
    """Return the tables of the analysis that the comparisons need, and the frame `outcomes`.

    They are without imported runs and without students of their supervisor's size, which have no gap to recover.
    """
    outcomes = data.outcomes[(data.outcomes["head"] != IMPORTED) & (data.outcomes["weak"] != data.outcomes["strong"])]
    own = dataclasses.replace(data, outcomes=outcomes)
    plugins = {name: registry.plugin("tables", name, "table") for name in TABLES}
    found = {name: plugin.table(*(getattr(own, frame) for frame in plugin.FRAMES)) for name, plugin in plugins.items()}
    return found | {"outcomes": outcomes}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as mappings from column to value."""
    return [{str(column): value for column, value in row.items()} for row in frame.to_dict("records")]


# --- cells ------------------------------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """Return a number with a fixed count of decimals; empty if it is not finite."""
    return f"{value:.{digits}f}" if math.isfinite(value) else ""


def estimate(row: Mapping[str, Any], name: str, digits: int = 3) -> str:
    """Return an estimate with its 95% interval, which is left out if it is not finite."""
    low, high = (row[f"{name}_{bound}"] for bound in ("low", "high"))
    interval = f" [{number(low, digits)}, {number(high, digits)}]" if math.isfinite(low) and math.isfinite(high) else ""
    return number(row[name], digits) + interval


def recovered(row: Mapping[str, Any]) -> str:
    """Return the PGR of a row of the table `pgr` with its interval, and its status unless that is `ok`."""
    status = row["pgr_status"]
    if not isinstance(status, str):
        return "no ceiling"
    if not math.isfinite(row["pgr_low"]):
        return status
    return estimate(row, "pgr", 2) + ("" if status == stats.OK else f" ({status})")


def where(row: Mapping[str, Any]) -> str:
    """Return the task, the models, the options that differ, and the number of seeds of a row."""
    models = " → ".join(str(row[name]) for name in ("weak", "strong") if row.get(name, NONE) != NONE)
    words = (row["task"], models, row.get("head", ""), row.get("method_options", ""), row.get("other_options", ""))
    return ", ".join(str(word) for word in words if word) + f", n = {row['n']}"


def stated(value: float) -> str:
    """Return a number of the paper."""
    return f"{value:.2f}" if math.isfinite(value) else NOT_STATED


# --- the comparisons, one function per item of the paper --------------------------------------------------------------


def table_1(found: Tables) -> Iterator[Row]:
    """Yield the tasks of Table 1, each with our binary question and the plain student's PGR."""
    plain = _plain(found)
    for name, (shown, kind) in STATED["nlp_tasks"].items():
        question = f"`{name}`: {tasks.find(name).positive}"
        rows = records(plain[plain["task"] == name])
        yield from ((shown, kind, question, recovered(row), where(row)) for row in rows)
        if not rows:
            yield shown, kind, question, NOT_MEASURED, ""


def table_2(found: Tables) -> Iterator[Row]:
    """Yield the ablation: all enhancements together, and without each one."""
    pgr = found["pgr"]
    for method, (accuracy, share) in TABLE_2.items():
        rows = records(pgr[pgr["method"] == method])
        paper = (f"`{method}`", stated(accuracy), stated(share))
        yield from ((*paper, estimate(row, "accuracy"), recovered(row), where(row)) for row in rows)
        if not rows:
            yield *paper, NOT_MEASURED, NOT_MEASURED, ""


def table_3(found: Tables) -> Iterator[Row]:
    """Yield the paired tests of each enhancement against the baseline, in accuracy and in PGR."""
    tests = found["paired_tests"]
    tests = tests[(tests["baseline"] == "baseline") & (tests["unit"] == "seed")]
    for method, p_values in STATED["table_3"].items():
        paper = (f"`{method}`", *(f"{p:g}" for p in p_values))
        own = tests[tests["method"].str.split().str[0] == method] if len(tests) else tests
        for _, pair in own.groupby([*SIZES, "strong", "method"], sort=False):
            both = {row["metric"]: row for row in records(pair)}
            label = where(both["accuracy"] | {"method_options": both["accuracy"]["method"].partition(" ")[2]})
            yield *paper, *(_difference(both.get(metric)) for metric in ("accuracy", "pgr")), label
        if own.empty:
            yield *paper, NOT_MEASURED, NOT_MEASURED, ""


def _difference(test: Mapping[str, Any] | None) -> str:
    """Return the difference of a paired test with its interval and p."""
    if test is None:
        return "undetermined"
    interval = f" [{test['low']:+.3f}, {test['high']:+.3f}]" if math.isfinite(test["low"]) else ""
    return f"{test['mean_difference']:+.3f}{interval}" + (f", p = {test['p']:.2g}" if math.isfinite(test["p"]) else "")


def figure_1(found: Tables) -> Iterator[Row]:
    """Yield the plain student's PGR at each size, by domain."""
    yield from _by_domain(found, "figure_1", lambda row: (recovered(row),))


def figure_2(found: Tables) -> Iterator[Row]:
    """Yield the accuracies of supervisor, plain student and ceiling at each size, by domain."""

    def cells(row: Mapping[str, Any]) -> Row:
        return number(row["weak_accuracy"]), estimate(row, "accuracy"), number(row["ceiling_accuracy"])

    yield from _by_domain(found, "figure_2", cells)


def _by_domain(found: Tables, figure: str, cells: Any) -> Iterator[Row]:
    plain = _plain(found)
    for domain, statements in STATED["domains"].items():
        rows = records(plain[plain["domain"] == domain])
        yield from ((domain, statements[figure], *cells(row), where(row)) for row in rows)
        if not rows:
            width = 1 if figure == "figure_1" else 3
            yield domain, statements[figure], *[NOT_MEASURED] * width, ""


def _plain(found: Tables) -> pd.DataFrame:
    """Return the rows of the table `pgr` for plain students that have a supervisor, by size, with domain and size."""
    outcomes, pgr = found["outcomes"], found["pgr"]
    domains, sizes = (
        outcomes.drop_duplicates(key).set_index(key)[value] for key, value in (("task", "domain"), ("strong", "parameters"))
    )
    rows = pgr.assign(domain=pgr["task"].map(domains), size=pgr["strong"].map(sizes))
    rows = rows[(rows["method"] == "baseline") & (rows["method_options"] == "") & rows["weak_accuracy"].notna()]
    return rows.sort_values(["task", "weak", "head", "size"], kind="stable")


def figure_3(found: Tables) -> Iterator[Row]:
    """Yield the agreement with the supervisor of each method's smallest and largest student."""
    agreement = found["agreement"]
    for method, paper in STATED["figure_3"].items():
        own = agreement[(agreement["method"] == method) & (agreement["method_options"] == "")]
        for _, rows in own.groupby(SIZES, sort=False):
            yield f"`{method}`", paper, *_ends(records(rows.sort_values("parameters")))
        if own.empty:
            yield f"`{method}`", paper, NOT_MEASURED, ""


def _ends(rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return the agreements at the smallest and the largest size, and the models."""
    ends = rows if len(rows) == 1 else (rows[0], rows[-1])
    models = " and ".join(str(row["strong"]) for row in ends)
    cells = " → ".join(estimate(row, "agreement", 2) for row in ends)
    return cells + (" (one size)" if len(rows) == 1 else ""), where({**ends[-1], "strong": models})


def figure_4(found: Tables) -> Iterator[Row]:
    """Yield the accuracy of linear probes before and after training on weak labels."""
    probes = found["probes"]
    rows = records(probes[probes["method"].isin(STATED["figure_3"]) & (probes["method_options"] == "")])
    for row in rows:
        change = f"{number(row['before'])} → {number(row['after'])}"
        yield row["concept"], f"`{row['method']}`", "higher after", change, estimate(row, "gain"), where(row)
    if not rows:
        yield "", "", "higher after", NOT_MEASURED, NOT_MEASURED, ""


def figure_5(found: Tables) -> Iterator[Row]:
    """Yield the shares of the types of errors."""
    rows = records(found["errors"])
    names = ("quote_selection", "evidence_extraction", "overfitting", "other")
    yield "the paper", "quote selection and evidence extraction together 0.70", "", "0.20", NOT_STATED, ""
    for row in rows:
        yield f"`{row['method']}`", *(estimate(row, name, 2) for name in names), where(row)
    if not rows:
        yield "ours", *[NOT_MEASURED] * len(names), ""


def text(found: Tables) -> Iterator[Row]:
    """Yield the statements of the paper's text that the table `claims` tests."""
    for row in records(found["claims"]):
        bounds = {f"estimate_{bound}": row[bound] for bound in ("low", "high")}
        label = where({**row, "method_options": row["quantity"]})
        yield row["claim"], row["expected"], estimate({**row, **bounds}, "estimate"), row["verdict"], label
    if found["claims"].empty:
        yield "", "", NOT_MEASURED, "", ""


# --- the page ---------------------------------------------------------------------------------------------------------

COMPARISONS = {
    "Table 1": table_1,
    "Table 2": table_2,
    "Table 3": table_3,
    "Figure 1": figure_1,
    "Figure 2": figure_2,
    "Figure 3": figure_3,
    "Figure 4": figure_4,
    "Figure 5": figure_5,
    "Statements of the text": text,
}


def markdown(data: Frames) -> str:
    """Return all comparisons in Markdown."""
    found = tables(data)
    excluded = f", without {len(data.left_out)} others that the analysis excludes" if len(data.left_out) else ""
    runs = f"Made from {len(data.runs)} finished runs{excluded}."
    sections = [_section(item, list(COMPARISONS[item["name"]](found))) for item in STATED["items"]]
    return "\n\n".join([runs if len(data.runs) else "No store has been read yet.", *sections]) + "\n"


def _section(item: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Return one item of the paper: what the paper states, the comparison, and the commands that make our numbers."""
    lines = [item["columns"], ["---"] * len(item["columns"]), *rows]
    body = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    commands = [f"    {command}" for command in item["commands"]]
    return "\n".join([f"### {item['name']}: {item['title']}", "", item["stated"].strip(), "", *body, "", *commands])


def replaced(page: str, part: str) -> str:
    """Return the page with `part` between its two markers. Raises SystemExit if it does not have both markers once."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise SystemExit(f"--write must be a page that has the lines {BEGIN} and {END} once")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n\n{part}\n{END}{after}"


def load(uri: str | None, experiments: str) -> Frames:
    """Return the frames of a store's finished runs; empty frames without a store."""
    if uri is None:
        return frames.frames([])
    os.environ["MLFLOW_TRACKING_URI"] = uri
    return build.load(build.pull(build.Config(experiments=experiments)))


def main() -> None:
    """Print the comparisons, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uri", nargs="?", help="tracking store, such as sqlite:////path/to/mlflow.db")
    parser.add_argument("--experiments", default="", help="names of experiments; default: the current one")
    parser.add_argument("--write", type=Path, help="page to write into")
    options = parser.parse_args()
    part = markdown(load(options.uri, options.experiments))
    if options.write is None:
        print(part)
    else:
        options.write.write_text(replaced(options.write.read_text(), part))


if __name__ == "__main__":
    main()
