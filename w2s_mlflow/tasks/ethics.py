"""Three parts of ETHICS: justice, deontology, utilitarianism (Hendrycks et al. 2021, arXiv:2008.02275).

The tables have no ids, so the id of a row is a hash of its texts. Justice rows with the same claim (the words before the last
"because") or the same reason (the words after it) form one group. In the other parts, rows that share a scenario form one
group.
"""

from __future__ import annotations

from w2s_mlflow.tasks import Task
from w2s_mlflow.tasks._groups import Key, by_text, by_value, digest, normalised
from w2s_mlflow.tasks._hub import CONVERTED, Table, TaskSource, task
from w2s_mlflow.tasks._rows import ParsedRow, Reader, SkippedRow, Source, of_class, ordered

CLASSES = {0: 0, 1: 1}
WHICH = "Which of the two is more pleasant?"
OPENING = 6
"""Justice rows without a reason form one group if their first OPENING words are equal."""


def _justice(row: Source, part: str) -> ParsedRow:
    text = row["scenario"]
    return ParsedRow(f"{part}-{digest(text)}", (text,), of_class(CLASSES, row["label"]), _set(text))


def _set(text: str) -> tuple[Key, ...]:
    claim, because, reason = normalised(text).rpartition(" because ")
    if not because:
        return by_value(opening=" ".join(reason.split()[:OPENING]))
    return by_value(claim=claim, reason=reason.rstrip(" ."))


def _deontology(row: Source, part: str) -> ParsedRow:
    texts = (row["scenario"], row["excuse"])
    return ParsedRow(f"{part}-{digest(*texts)}", texts, of_class(CLASSES, row["label"]), by_text(scenario=row["scenario"]))


def _utilitarianism(row: Source, part: str) -> ParsedRow:
    """Build a row that compares two scenarios. The order of the scenarios does not depend on which is more pleasant."""
    better, worse = row["baseline"], row["less_pleasant"]
    if normalised(better) == normalised(worse):
        raise SkippedRow("compares equal texts")
    id_ = f"{part}-{digest(*sorted((better, worse)))}"
    pair = ordered(id_, better, worse)
    groups = by_text(scenario=better) + by_text(scenario=worse)
    return ParsedRow(id_, (WHICH,), pair.index(better), groups, pair, compared=pair)


def _task(name: str, columns: dict[str, str], read: Reader, positive: str, head: str = "classification") -> Task:
    table = Table(path="hendrycks/ethics", config=name, revision=CONVERTED, columns=columns)
    return task(f"ethics_{name}", "ethics", TaskSource(table=table), read, positive=positive, license="MIT", head=head)


TASKS = (
    _task("justice", {"scenario": "text", "label": "integer"}, _justice, "the claim or reason is reasonable"),
    _task("deontology", {"scenario": "text", "excuse": "text", "label": "integer"}, _deontology, "the excuse is reasonable"),
    _task(
        "utilitarianism",
        {"baseline": "text", "less_pleasant": "text"},
        _utilitarianism,
        "the second scenario is more pleasant",
        head="reward",
    ),
)
