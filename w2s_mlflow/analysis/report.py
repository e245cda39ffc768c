"""Build report.html, a self-contained page with setup, PGR table, caveats, figures, other tables and commands."""

from __future__ import annotations

import json
import math
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from w2s_mlflow import __version__, exceptions
from w2s_mlflow.analysis import variants
from w2s_mlflow.pipeline.options import NONE
from w2s_mlflow.tables import IMPORTED, LABEL, PAIR, Frames

if TYPE_CHECKING:
    import pandas as pd
    from markupsafe import Markup

ROWS = 200
"""Maximum number of rows of a table that the page shows; the table's CSV file has all rows."""
SETUP = ["task", "domain", "weak", "strong", "head", "other_options", "train_size", "test_size", "seeds", "parameters"]
LATER = ("setup", "claim", "pgr", "claims", "power", "runs", "error_examples")
"""Tables omitted from the section of further tables, because they have a section of their own or are too long."""
FINGERPRINT = 12
"""Number of fingerprint digits that the page shows."""


def html(frames: Frames, tables: Mapping[str, tuple[pd.DataFrame, str]], figures: Iterable[Mapping[str, str]]) -> str:
    """Return the HTML page.

    Args:
        tables: table and caption, by the table's name.
        figures: name, SVG and caption of each figure.
    """
    from jinja2 import Environment
    from markupsafe import Markup

    from w2s_mlflow.figures import _interactive
    from w2s_mlflow.tables import power  # it imports pandas and scipy

    page = Environment(autoescape=True).from_string(files("w2s_mlflow.analysis").joinpath("report.html").read_text("utf-8"))
    stages = frames.runs["stage"].value_counts()
    counts = {name: int(stages.get(name.rstrip("s"), 0)) for name in ("supervisors", "ceilings", "students", "rules")}
    return page.render(
        counts={
            **counts,
            "runs": len(frames.runs),
            "imported": int((frames.runs["head"] == IMPORTED).sum()),
            "tasks": frames.outcomes["task"].nunique(),
        },
        version=__version__,
        when=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        setup=Markup(element(setup(frames.outcomes))),  # nosec B704
        caveats=list(caveats(frames, tables["pgr"][0])),
        plans=list(power.sentences(tables["power"][0])),
        tables={name: Markup(element(table)) for name, (table, _) in tables.items()},  # nosec B704
        captions={name: _caption_html(caption) for name, (_, caption) in tables.items()},
        others=[name for name, (table, _) in tables.items() if name not in LATER and len(table)],
        figures=[{**figure, "svg": Markup(figure["svg"])} for figure in figures],  # nosec B704
        commands=list(commands(frames)),
        script=Markup(_interactive.SCRIPT),  # nosec B704
    )


def _caption_html(caption: str) -> Markup:
    """Convert a caption to HTML. Text in backticks becomes code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", str(escape(caption))))  # nosec B704


def setup(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return the table of experiments: one row per task, pair of models, head, setting and sizes."""
    students = outcomes[outcomes["strong"] != NONE]
    grouped = students.groupby(PAIR, sort=False, as_index=False)
    return grouped.agg(domain=("domain", "first"), seeds=("seed", "nunique"), parameters=("parameters", "first"))[SETUP]


def caveats(frames: Frames, pgr: pd.DataFrame) -> Iterator[str]:
    """Yield the caveats of the results, one message each."""
    for rule, rows in frames.left_out.groupby("exclusion_rule", sort=False):
        examples = "; ".join(f"{row['name']} ({row['run_id'][:8]}): {row['reason']}" for row in rows.head(3).to_dict("records"))
        yield f"Excluded ({rule}): {len(rows)} run(s). {examples}{'; ...' if len(rows) > 3 else ''}"
    students = frames.outcomes[frames.outcomes["strong"] != NONE]
    yield from _import_caveats(frames)
    yield from _gold_caveats(students)
    if failed := int(students["ceiling_failed"].sum()):
        yield f"The ceiling of {failed} of {len(students)} students did not learn (w2s.ceiling_failed); they are included."
    yield from _unreliable(pgr)
    undetermined = pgr[pgr["pgr_status"] == "undetermined"]
    if len(undetermined):
        pairs = undetermined.drop_duplicates(["task", "weak", "strong"])
        names = ", ".join(f"{row['task']} {row['weak']}->{row['strong']}" for row in pairs.head(5).to_dict("records"))
        reason = "the ceiling was not shown to be more accurate than the supervisor"
        yield f"PGR is undetermined in {len(undetermined)} row(s), because {reason}: {names}."
    for role, model in (("weak", "supervisor"), ("ceiling", "ceiling")):
        if missing := int(students[f"{role}_accuracy"].isna().sum()):
            yield f"{missing} student(s) have no {model} scored on the same test rows, and therefore no PGR."
    gaps = frames.runs[frames.runs["label_gap"] != ""]
    for task, rows in gaps.groupby("task", sort=False):
        yield (
            f"{task}: the weak labels of {len(rows)} student(s) are not as accurate on transfer, where they are learned, as on "
            f"test, where the PGR's floor is measured (difference {rows['label_gap'].iloc[0]} in {rows['name'].iloc[0]})."
        )
    if single := _single_seeds(students[students["head"] != IMPORTED]):
        yield f"{single} setting(s) ran with one seed: their intervals are over test groups only, not over seeds."
    if not_finite := int(students["accuracy"].isna().sum()):
        yield f"{not_finite} student(s) have no finite accuracy."


def _unreliable(pgr: pd.DataFrame) -> Iterator[str]:
    """Yield the caveat about rows whose intervals are not to be relied on."""
    rows = pgr[pgr["reliable"] == "no"]
    if rows.empty:
        return
    names = ", ".join(
        f"{row['task']} {row['weak']}->{row['strong']} {row['method']} ({row['collapsed']} collapsed student(s), "
        f"{row['failed_ceilings']} failed ceiling(s))"
        for row in rows.head(5).to_dict("records")
    )
    yield (
        f"The intervals of {len(rows)} row(s) are not to be relied on, because a student collapsed or a ceiling failed: such "
        f"trainings are included, and means depend on how many there happen to be: {names}{', ...' if len(rows) > 5 else ''}."
    )


def _import_caveats(frames: Frames) -> Iterator[str]:
    """Yield the caveats about imported runs."""
    runs, students = (frame[frame["head"] == IMPORTED] for frame in (frames.runs, frames.outcomes))
    if runs.empty:
        return
    yield (
        f"{len(runs)} run(s) were imported from published results (head {IMPORTED}): they have no predictions, so their "
        "accuracies could not be checked, and their intervals are over seeds alone. No row or test mixes them with own runs."
    )
    if repeats := int((runs["stage"] == "student").sum()) - len(students):
        yield f"{repeats} imported student(s) repeat the seed of another: the accuracies of one seed were averaged."
    if single := _single_seeds(students):
        yield f"{single} imported setting(s) have one seed and therefore no interval."


def _gold_caveats(students: pd.DataFrame) -> Iterator[str]:
    """Yield the caveats about ground truth that entered a student by another way than its kind of labels."""
    tuned = students[students["tuned_on_gold"] != ""]
    if len(tuned):
        studies = ", ".join(tuned["tuned_on_gold"].unique())
        yield f"The options of {len(tuned)} student(s) were chosen by ground truth of selection, in the search(es) {studies}."
    if exact := int((students["file_accuracy"] == 1).sum()):
        yield f"The labels from a file of {exact} student(s) equal the ground truth of transfer; these are no weak labels."


def _single_seeds(students: pd.DataFrame) -> int:
    """Return the number of settings with a single seed."""
    return int((students.groupby(LABEL)["seed"].nunique() == 1).sum())


def commands(frames: Frames) -> Iterator[str]:
    """Yield the command that reproduces each group of students or rules, with its seeds and the fingerprint of one run.

    Imported runs have no such command.
    """
    outcomes = frames.outcomes[frames.outcomes["head"] != IMPORTED]
    fingerprints = frames.runs.set_index("run_id")["fingerprint"]
    for key, rows in outcomes.groupby(LABEL, sort=False):
        label = dict(zip(LABEL, key, strict=True))
        seeds = sorted(rows["seed"], key=lambda seed: (len(seed), seed))
        comment = f"  # seeds {','.join(seeds)}, {fingerprints[rows['run_id'].iloc[0]][:FINGERPRINT]}"
        if label["strong"] == NONE:
            rule = str(label["method"]).removeprefix("rule:")
            yield f"python -m w2s_mlflow rule --task {shlex.quote(str(label['task']))} --rule {rule}{comment}"
            continue
        logged = {name: str(label[name]) for name in ("task", "weak", "strong", "head")} | json.loads(rows["settings"].iloc[0])
        defaults = variants.defaults()
        options = {name: value for name, value in logged.items() if defaults.get(name) != value}
        flags = " ".join(f"{exceptions.flag(name)} {shlex.quote(value)}" for name, value in options.items())
        yield f"python -m w2s_mlflow student {flags} --seed {seeds[0]}{comment}"


def element(table: pd.DataFrame) -> str:
    """Return the table in HTML. A column with the same text in all rows is replaced by a note above the table."""
    from markupsafe import escape

    if table.empty:
        return ""
    text_columns = [name for name in table.columns if table[name].map(lambda value: isinstance(value, str)).all()]
    shared = {name: table[name].iloc[0] for name in text_columns if len(table) > 1 and table[name].nunique() == 1}
    shared_text = ", ".join(f"{name} {value}" for name, value in shared.items() if value not in ("", NONE))
    table = table.drop(columns=list(shared))
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = ("".join(_cell(name, value) for name, value in row.items()) for row in table.head(ROWS).to_dict("records"))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    more = f"<p>{len(table) - ROWS} more rows are in the CSV file.</p>" if len(table) > ROWS else ""
    note = f"<p>All rows: {escape(shared_text)}.</p>" if shared_text else ""
    return f"{note}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(name: object, value: Any) -> str:
    from markupsafe import escape

    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f'<td class="number">{cell(str(name), value)}</td>' if number else f"<td>{escape(cell(str(name), value))}</td>"


def markdown(table: pd.DataFrame) -> str:
    """Return the table in Markdown, with values formatted by `cell`."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    for row in table.to_dict("records"):
        cells = (cell(str(name), value).replace("|", r"\|").replace("\n", " ") for name, value in row.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def latex(table: pd.DataFrame) -> str:
    """Return the table as a LaTeX tabular with booktabs rules and values formatted by `cell`."""
    cells = table.astype(object).apply(lambda column: [cell(str(column.name), value) for value in column])
    return str(cells.to_latex(index=False, escape=True))


def cell(column: str, value: Any) -> str:
    """Format a value for display: p-values with two digits, other floats with three decimals, undefined values as a dash."""
    if value is None:
        return NONE
    if isinstance(value, float):
        if math.isnan(value):
            return NONE
        if column.startswith("p_") or column == "p":
            return f"{value:.2g}"
        if abs(value) >= 1e9:
            return f"{value:.2e}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
    return str(value)
