"""Natural language inference tasks that are not in GLUE. Label 1 means entailment and 0 anything else.

Rows that share a premise form one group. So do SciTail rows that share a hypothesis, because it is the question: a premise is a
sentence that was retrieved for it. In SNLI a hypothesis is no key: short ones such as "A man is outside." recur by chance, and
would join most of the table to one group. SNLI pairs without a gold label (-1 on the hub) are skipped. The tables have no ids,
so the id of a row is a hash of its texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from w2s_mlflow.tasks import Human
from w2s_mlflow.tasks import _text_prompts as text_prompts
from w2s_mlflow.tasks._groups import by_text, digest
from w2s_mlflow.tasks._hub import Table, TaskSource, task
from w2s_mlflow.tasks._rows import ParsedRow, Reader, Source, of_class

ENTAILS = "the premise entails the hypothesis"
SCITAIL = {"entails": 1, "neutral": 0}
SNLI = {0: 1, 1: 0, 2: 0}
"""The task's class for each hub label. The hub labels are 0 for entailment, 1 for neutral and 2 for contradiction."""


def _columns(label: str) -> dict[str, str]:
    return {"premise": "text", "hypothesis": "text", "label": label}


def _reader(classes: Mapping[Any, int], *fields: str) -> Reader:
    """Return a reader. Rows that share the text of one of `fields` form one group."""

    def read(row: Source, part: str) -> ParsedRow:
        texts, groups = (row["premise"], row["hypothesis"]), by_text(**{name: row[name] for name in fields})
        return ParsedRow(f"{part}-{digest(*texts)}", texts, of_class(classes, row["label"]), groups)

    return read


DECLARED = (
    task(
        "scitail",
        "inference",
        TaskSource(
            table=Table(
                path="allenai/scitail",
                config="tsv_format",
                revision="0cc4353235b289165dfde1c7c5d1be983f99ce44",
                columns=_columns("text"),
            )
        ),
        _reader(SCITAIL, "premise", "hypothesis"),
        positive=ENTAILS,
        license="Apache-2.0",
    ),
    task(
        "snli",
        "inference",
        TaskSource(
            table=Table(
                path="stanfordnlp/snli",
                config="plain_text",
                revision="cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
                columns=_columns("integer"),
            )
        ),
        _reader(SNLI, "premise"),
        positive=ENTAILS,
        license="CC-BY-SA-4.0",
        human=Human(
            0.890,
            "agreement of one annotator with the gold label, three classes",
            "Bowman et al. 2015, A large annotated corpus for learning natural language inference, Table 2",
        ),
    ),
)
TASKS = tuple(replace(declared, prompts={"question": text_prompts.ENTAILMENT}) for declared in DECLARED)
