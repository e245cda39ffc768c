"""Import published results: create one run for each row of a CSV file. The column `role` determines the run's stage.

An imported run has an accuracy but no predictions. It has the tag `w2s.imported` and the head `imported`, and no stage reuses
it. A row that was imported before is recognised by its values, and no second run is made of it. docs/how-to/import.md
describes the columns.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_mlflow import stats
from w2s_mlflow.analysis import published_file
from w2s_mlflow.analysis.published_file import STUDENT, PublishedRun
from w2s_mlflow.pipeline import runs, scoring
from w2s_mlflow.tables import IMPORTED

if TYPE_CHECKING:
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 1


@dataclass(frozen=True)
class Imported:
    """The runs of an imported file.

    Attributes:
        new: number of runs that this import made.
        found: number of rows whose runs an earlier import made.
        without_supervisor, without_ceiling: number of students for which the file has no supervisor or no ceiling.
    """

    run_ids: Sequence[str]
    new: int
    found: int
    without_supervisor: int
    without_ceiling: int

    def describe(self, file: str) -> str:
        """Return the counts as one sentence."""
        sentence = f"imported {self.new} run(s) from {file}; {self.found} run(s) were imported before"
        for name, count in (("supervisor", self.without_supervisor), ("ceiling", self.without_ceiling)):
            if count:
                sentence += f"; {count} student(s) have no {name} of their task, model and seed in the file, and no PGR"
        return sentence


def import_file(path: str) -> Imported:
    """Create one run for each row of a file. The whole file is checked before the first run is created.

    Raises:
        ConfigError: the file is not a CSV file with the needed columns, or a row is invalid.
    """
    file = Path(path).expanduser()
    references: dict[tuple[object, ...], Result] = {}
    made: list[Result] = []
    counts = Counter[str]()
    # Students come last, because they link to the runs of their supervisors and ceilings.
    for row in sorted(published_file.read(file), key=lambda row: row.role == STUDENT):
        links = {role: references[key] for role, key in row.reference_keys().items() if key in references}
        made.append(_produce(row, file, links))
        if row.role != STUDENT:
            references[row.key()] = made[-1]
        counts.update(role for role in row.reference_keys() if role not in links)
    found = sum(run.reused for run in made)
    return Imported([run.run_id for run in made], len(made) - found, found, counts["weak"], counts["ceiling"])


def _produce(row: PublishedRun, file: Path, links: Mapping[str, Result]) -> Result:
    """Return the run of a row: the existing run if the row was imported before, otherwise a new one.

    Args:
        links: runs of a student's supervisor and ceiling, by role; empty for other rows.
    """
    from w2s_mlflow.tracking import fingerprint, results, store

    values = {name: value for name, value in dataclasses.asdict(row).items() if name != "line"}
    inputs = {role: run.fingerprint for role, run in links.items()}
    parts = fingerprint.FingerprintParts(row.role, VERSION, values, "", inputs, libraries={}, source={})
    tags = {results.IMPORTED: file.name} | {f"w2s.{role}_run_id": run.run_id for role, run in links.items()}
    metrics = _metrics(row, links)
    if row.role == STUDENT:
        tags[scoring.PGR_STATUS] = _status(metrics)
    repeat = f" repeat {row.repeat}" if row.repeat > 1 else ""
    name = f"{IMPORTED} {runs.run_name(row.role, row.identity())}{repeat}"
    note = f"Imported from line {row.line} of `{file.name}`. It has no predictions."

    def make(recorder: Recorder) -> None:
        recorder.metrics(metrics)

    return store.produce(store.RunRequest(name, parts, row, row.identity(), tags, note), make)


def _metrics(row: PublishedRun, links: Mapping[str, Result]) -> dict[str, float]:
    """Return the metrics of a run. Those of a student include its supervisor's accuracy, its ceiling's accuracy and its PGR."""
    values: dict[str, float | None] = {"accuracy": row.accuracy, "correct": row.correct, "rows": row.rows}
    values |= {f"{role}_accuracy": run.metrics["test/accuracy"] for role, run in links.items()}
    if len(links) == 2 and values["weak_accuracy"] != values["ceiling_accuracy"]:
        weak, ceiling = (links[role].metrics["test/accuracy"] for role in ("weak", "ceiling"))
        values["pgr"] = stats.pgr(weak, row.accuracy, ceiling)
    return {f"test/{name}": value for name, value in values.items() if value is not None}


def _status(metrics: Mapping[str, float]) -> str:
    """Return the PGR status of a student. It is never `ok`, because the gap has no interval without test rows."""
    missing = [role for role in ("weak", "ceiling") if f"test/{role}_accuracy" not in metrics]
    return f"no {missing[0]}" if missing else stats.UNDETERMINED
