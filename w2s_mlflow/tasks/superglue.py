"""SuperGLUE tasks as binary questions.

In CB, label 1 means entailment and 0 anything else. In COPA, the premise is shown with its right alternative (label 1) or the
wrong one (0). In MultiRC, each row is one answer to a question, right (1) or wrong (0). In ReCoRD, the placeholder is filled
with a right entity (1) or a wrong one (0). In COPA and ReCoRD, a hash of the id decides whether the shown
one is right. In WiC, the word in question is enclosed in asterisks; in WSC, the pronoun and the noun are. WSC is the hub's
`wsc.fixed`, with corrected span indices.

Rows that share a premise, passage or sentence form one group. So do BoolQ rows that share a question, WiC rows that share the
word in question, and WSC rows that begin with the same four words.
"""

from __future__ import annotations

import functools
import re

from w2s_mlflow.tasks import Human, Task
from w2s_mlflow.tasks._groups import by_text, by_value, normalised
from w2s_mlflow.tasks._hub import Table, TaskSource, task
from w2s_mlflow.tasks._rows import ParsedRow, Reader, SkippedRow, Source, draw, of_class

PLACEHOLDER = "@placeholder"
MARK = "*"
HIGHLIGHT = "@highlight"
"""Marker that ReCoRD puts before each sentence of a passage's summary."""
LICENSE = "other (the hub card: that of each source)"
PAPER = "Wang et al. 2019, SuperGLUE, arXiv:1905.00537, Table 3"
AS_ON_THE_HUB = {0: 0, 1: 1}
CB = {0: 1, 1: 0, 2: 0}
"""The task's class for each hub label. The hub labels are 0 for entailment, 1 for contradiction and 2 for neutral."""
ASKS = {"cause": "What was the cause?", "effect": "What happened as a result?"}


def _cb(row: Source, part: str) -> ParsedRow:
    texts = (row["premise"], row["hypothesis"])
    return ParsedRow(f"{part}-{row['idx']}", texts, of_class(CB, row["label"]), by_text(premise=row["premise"]))


def _copa(row: Source, part: str) -> ParsedRow:
    id_ = f"{part}-{row['idx']}"
    right = of_class(AS_ON_THE_HUB, row["label"])
    if row["question"] not in ASKS:
        raise SkippedRow("asks for neither cause nor effect")
    label = draw("copa", id_, 2)
    shown = row["choice1"] if (right == 0) == (label == 1) else row["choice2"]
    premise = row["premise"].strip()
    segments, groups = (f"{premise} {ASKS[row['question']]}", shown), by_text(premise=premise)
    # The question is the same in half of the rows, so it is not compared.
    return ParsedRow(id_, segments, label, groups, compared=(premise, shown))


def _multirc(row: Source, part: str) -> ParsedRow:
    idx = row["idx"]
    id_ = f"{part}-{idx['paragraph']}-{idx['question']}-{idx['answer']}"
    texts = (row["paragraph"], f"{row['question']} {row['answer']}")
    return ParsedRow(id_, texts, of_class(AS_ON_THE_HUB, row["label"]), by_text(passage=row["paragraph"]))


def _record(row: Source, part: str) -> ParsedRow:
    id_ = f"{part}-{row['idx']['passage']}-{row['idx']['query']}"
    right = {normalised(answer) for answer in row["answers"]}
    of_passage = {normalised(entity): entity for entity in sorted(row["entities"], reverse=True)}
    choices = {
        1: sorted(set(row["answers"])),
        0: sorted(entity for name, entity in of_passage.items() if name not in right),
    }
    if PLACEHOLDER not in row["query"]:
        raise SkippedRow("has no placeholder")
    if not all(choices.values()):
        raise SkippedRow("has no correct entity or no incorrect entity")
    label = draw("record", id_, 2)
    entity = choices[label][draw("entity", id_, len(choices[label]))]
    passage = " ".join(row["passage"].replace(HIGHLIGHT, " ").split())
    return ParsedRow(id_, (passage, row["query"].replace(PLACEHOLDER, entity)), label, by_text(passage=passage))


def _wic(row: Source, part: str) -> ParsedRow:
    texts = [_marked(row[f"sentence{n}"], row[f"start{n}"], row[f"end{n}"]) for n in (1, 2)]
    sentences = (row["sentence1"], row["sentence2"])
    groups = (*by_value(word=row["word"]), *(key for text in sentences for key in by_text(sentence=text)))
    segments, label = (f"{row['word']}: {texts[0]}", texts[1]), of_class(AS_ON_THE_HUB, row["label"])
    return ParsedRow(f"{part}-{row['idx']}", segments, label, groups, compared=sentences)


def _wsc(row: Source, part: str) -> ParsedRow:
    """Parse a WSC row, which gives the text of each span and the index of its first word. Spaces separate words."""
    spans = [_span(row["text"], row[f"span{n}_index"], row[f"span{n}_text"]) for n in (1, 2)]
    text = functools.reduce(lambda text, span: _marked(text, *span), sorted(spans, reverse=True), row["text"])
    question = f"{row['span2_text']}: {row['span1_text']}"
    groups = by_text(passage=row["text"]) + by_value(opening=" ".join(row["text"].split()[:4]))
    return ParsedRow(f"{part}-{row['idx']}", (text, question), of_class(AS_ON_THE_HUB, row["label"]), groups)


def _marked(text: str, start: int, end: int) -> str:
    if not 0 <= start < end <= len(text):
        raise SkippedRow("has a span outside its text")
    return f"{text[:start]}{MARK}{text[start:end]}{MARK}{text[end:]}"


def _span(text: str, word: int, span: str) -> tuple[int, int]:
    """Return the start and end of `span` in `text`.

    The span begins in the word with index `word`. At most one character of that word, such as a quote, may precede the span.
    """
    starts = [match.start() for match in re.finditer(r"\S+", text)]
    start = text.lower().find(span.lower().strip(), starts[word]) if 0 <= word < len(starts) else -1
    if not span.strip() or start < 0 or start - starts[word] > 1:
        raise SkippedRow("has a span that is not in its text")
    return start, start + len(span.strip())


def _boolq(row: Source, part: str) -> ParsedRow:
    texts = (row["passage"], row["question"])
    groups = by_text(passage=row["passage"], question=row["question"])
    return ParsedRow(f"{part}-{row['idx']}", texts, of_class(AS_ON_THE_HUB, row["label"]), groups)


def _task(
    name: str, columns: dict[str, str], read: Reader, positive: str, human: tuple[float, str], config: str | None = None
) -> Task:
    table = Table(
        path="aps/super_glue",
        config=config or name,
        revision="3de24cf8022e94f4ee4b9d55a6f539891524d646",
        columns=columns,
    )
    return task(
        name, "superglue", TaskSource(table=table), read, positive=positive, license=LICENSE, human=Human(*human, source=PAPER)
    )


def _columns(*texts: str, **others: str) -> dict[str, str]:
    return {**dict.fromkeys(texts, "text"), "label": "integer", "idx": "integer", **others}


WIC_SPANS = dict.fromkeys(("start1", "end1", "start2", "end2"), "integer")
WSC_SPANS = dict.fromkeys(("span1_index", "span2_index"), "integer")
RECORD = {"passage": "text", "query": "text", "entities": "list", "answers": "list", "idx": "struct"}

TASKS = (
    _task(
        "cb",
        _columns("premise", "hypothesis"),
        _cb,
        "the premise entails the hypothesis",
        (0.989, "accuracy over three classes (average F1 is 0.958)"),
    ),
    _task(
        "copa",
        _columns("premise", "choice1", "choice2", "question"),
        _copa,
        "the alternative is the cause or effect that is asked for",
        (1.0, "accuracy over two alternatives"),
    ),
    _task(
        "multirc",
        _columns("paragraph", "question", "answer", idx="struct"),
        _multirc,
        "the answer is right by the passage",
        (0.818, "F1 over all answers (exact match of a question's answers is 0.519)"),
    ),
    _task(
        "record", RECORD, _record, "the entity belongs in the place", (0.917, "F1 of the entity named (exact match is 0.913)")
    ),
    _task(
        "wic",
        _columns("word", "sentence1", "sentence2", **WIC_SPANS),
        _wic,
        "the word has one sense in both sentences",
        (0.800, "accuracy"),
    ),
    _task(
        "wsc",
        _columns("text", "span1_text", "span2_text", **WSC_SPANS),
        _wsc,
        "the pronoun refers to the noun",
        (1.0, "accuracy"),
        config="wsc.fixed",
    ),
    _task("boolq", _columns("passage", "question"), _boolq, "the answer is yes", (0.890, "accuracy")),
)
