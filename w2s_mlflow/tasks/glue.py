"""GLUE tasks as binary questions.

In MNLI, QNLI, RTE, WNLI and AX, label 1 means entailment and 0 anything else. In STS-B, 1 means a similarity rating of at least
3.0 of 5. In MRPC and QQP, 1 means a paraphrase.

Rows that share a premise form one group; in QNLI, rows that share a question do too, and in RTE rows that share a hypothesis.
In MNLI a hypothesis is no key: short ones such as "I don't know." recur by chance. In MRPC, QQP and STS-B, rows that share
either text form one group. WNLI is made from Winograd schemas, whose twin sentences differ only in a word or two near one end,
so rows whose premises have equal opening or closing words form one group.

AX has no training part, and the hub lacks its labels. Models train on MNLI and are scored on the labelled file that the authors
of AX publish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from w2s_mlflow.tasks import Human, Task
from w2s_mlflow.tasks import _text_prompts as text_prompts
from w2s_mlflow.tasks._groups import Key, by_text, by_value, normalised
from w2s_mlflow.tasks._hub import Table, TaskSource, task
from w2s_mlflow.tasks._rows import ParsedRow, Reader, SkippedRow, Source, of_class

ENTAILS = "the premise entails the hypothesis"
SIMILAR = 3.0
"""Minimum STS-B score (0 to 5) of a similar pair; 3 is "roughly equivalent, but some important information differs/missing"."""
SCHEMA_WORDS = 4
"""Number of words at the beginning or the end of a WNLI premise that identify its schema.

A manual check showed that with this number all twins are grouped and no other premises are.
"""

LICENSE = "other (the hub card: that of each source corpus)"
MUPPET = "Nangia and Bowman 2019, Human vs. Muppet, arXiv:1905.10425: GLUE leaderboard, test part"
PREMISE = ("premise", "hypothesis")
SENTENCES = ("sentence1", "sentence2")
QUESTIONS = ("question1", "question2")

PROMPT = "question"
"""Name of each task's prompt."""
PROMPTS = {
    "cola": text_prompts.GRAMMAR,
    "sst2": text_prompts.SENTIMENT,
    "mrpc": text_prompts.PARAPHRASE,
    "stsb": text_prompts.SIMILAR,
    "qqp": text_prompts.DUPLICATE,
    "qnli": text_prompts.ANSWERED,
    **dict.fromkeys(("mnli", "rte", "wnli", "ax"), text_prompts.ENTAILMENT),
}

Texts = tuple[str, ...]
Groups = Callable[[Source], tuple[Key, ...]]

# --- labels -----------------------------------------------------------------------------------------------------------


def _as_on_the_hub(label: object) -> int:
    return of_class({0: 0, 1: 1}, label)


def _entails_of_2(label: object) -> int:
    """Return 1 for entailment, else 0. On the hub, the label of entailment is 0 in QNLI and RTE (but 1 in WNLI)."""
    return of_class({0: 1, 1: 0}, label)


def _entails_of_3(label: object) -> int:
    """Return 1 for entailment, else 0. In MNLI and AX, the hub's labels are 0 entailment, 1 neutral and 2 contradiction."""
    return of_class({0: 1, 1: 0, 2: 0}, label)


def _similar(label: float | None) -> int:
    if label is None or not 0 <= label <= 5:
        raise SkippedRow("has an invalid label")
    return int(label >= SIMILAR)


# --- groups -----------------------------------------------------------------------------------------------------------


def _alone(row: Source) -> tuple[Key, ...]:
    return ()


def _by(*columns: str) -> Groups:
    """Return a function that gives two rows a common group key if they have the same text in the same column."""
    return lambda row: by_text(**{column: row[column] for column in columns})


def _either(*columns: str) -> Groups:
    """Return a function that gives two rows a common group key if they share a text, even in different columns."""
    return lambda row: tuple(key for column in columns for key in by_text(either=row[column]))


def _schema(row: Source) -> tuple[Key, ...]:
    words = normalised(row["sentence1"]).split()
    return by_value(opening=" ".join(words[:SCHEMA_WORDS]), closing=" ".join(words[-SCHEMA_WORDS:]))


# --- tasks ------------------------------------------------------------------------------------------------------------


def _table(config: str, texts: Texts, label: str = "integer") -> Table:
    return Table(
        path="nyu-mll/glue",
        config=config,
        revision="bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
        columns={**dict.fromkeys(texts, "text"), "label": label, "idx": "integer"},
    )


def _reader(texts: Texts, label: Callable[..., int], groups: Groups) -> Reader:
    def read(row: Source, part: str) -> ParsedRow:
        return ParsedRow(f"{part}-{row['idx']}", tuple(row[name] for name in texts), label(row["label"]), groups(row))

    return read


def _task(
    name: str,
    texts: Texts,
    positive: str,
    human: tuple[float, str],
    *,
    groups: Groups,
    label: Callable[..., int] = _as_on_the_hub,
    kind: str = "integer",
    heldout: str = "validation",
) -> Task:
    """Build the task of one GLUE configuration. `human` holds the human score that MUPPET reports, and the score's metric."""
    parts = TaskSource(table=_table(name, texts, kind), heldout=heldout)
    read = _reader(texts, label, groups)
    built = task(name, "glue", parts, read, positive=positive, license=LICENSE, human=Human(*human, MUPPET))
    return replace(built, prompts={PROMPT: PROMPTS[name]})


def _diagnostic(row: Source, part: str) -> ParsedRow:
    """Parse a row of the task AX.

    Training rows, which are from MNLI, are grouped by premise. AX rows that share any text form one group, because
    each pair also occurs with premise and hypothesis exchanged.
    """
    groups = _either(*PREMISE if part == "heldout" else PREMISE[:1])
    return _reader(PREMISE, _entails_of_3, groups)(row, part)


DIAGNOSTIC = replace(
    _table("ax", PREMISE),
    by_hand="the hub has these pairs without labels; download diagnostic-full.tsv, which has the labels, from "
    "gluebenchmark.com/diagnostics and save it as this file with the hub's columns and classes",
)
AX = task(
    "ax",
    "glue",
    TaskSource(table=_table("mnli", PREMISE), heldout="diagnostic_full", heldout_table=DIAGNOSTIC),
    _diagnostic,
    positive=ENTAILS,
    license=LICENSE,
    human=Human(
        0.80,
        "Matthews correlation over three classes (R3), six annotators on 50 pairs",
        "Wang et al. 2019, GLUE, arXiv:1804.07461",
    ),
)

TASKS = (
    _task("cola", ("sentence",), "the sentence is acceptable English", (0.664, "Matthews correlation"), groups=_alone),
    _task("sst2", ("sentence",), "the review is positive", (0.978, "accuracy"), groups=_alone),
    _task(
        "mrpc",
        SENTENCES,
        "the sentences are paraphrases",
        (0.808, "accuracy (F1 is 0.863)"),
        groups=_either(*SENTENCES),
    ),
    _task(
        "stsb",
        SENTENCES,
        "the similarity of the sentences is rated 3 of 5 or more",
        (0.927, "Pearson correlation with the ratings (Spearman's is 0.926)"),
        groups=_either(*SENTENCES),
        label=_similar,
        kind="number",
    ),
    _task(
        "qqp",
        QUESTIONS,
        "the questions are duplicates",
        (0.804, "accuracy (F1 is 0.595)"),
        groups=_either(*QUESTIONS),
    ),
    _task(
        "mnli",
        PREMISE,
        ENTAILS,
        (0.920, "accuracy over three classes, matched genres"),
        groups=_by("premise"),
        label=_entails_of_3,
        heldout="validation_matched",
    ),
    _task(
        "qnli",
        ("question", "sentence"),
        "the sentence answers the question",
        (0.912, "accuracy"),
        # Rows cannot be grouped by paragraph, because the table does not show which paragraph a sentence comes from.
        groups=_by("question", "sentence"),
        label=_entails_of_2,
    ),
    # A hypothesis of RTE is often a question that is asked of several premises.
    _task("rte", SENTENCES, ENTAILS, (0.936, "accuracy"), groups=_by(*SENTENCES), label=_entails_of_2),
    _task("wnli", SENTENCES, ENTAILS, (0.959, "accuracy"), groups=_schema),
    replace(AX, prompts={PROMPT: PROMPTS["ax"]}),
)
