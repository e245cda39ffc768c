"""Preference tasks: which of two responses to a prompt is preferred. The logits are the two responses' rewards (head `reward`).

The order of the responses depends on their texts and a hash of the id, not on which is preferred. Rows that share a prompt, a
first question or a post form one group. Pairs with contradictory judgements are excluded.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from w2s_mlflow.data.tables import Kind, UserTable
from w2s_mlflow.records import Rows
from w2s_mlflow.tasks import Human, Task, _files
from w2s_mlflow.tasks._groups import Key, by_group, by_text, by_value, digest, normalised
from w2s_mlflow.tasks._hub import CONVERTED, Table, TaskSource, task
from w2s_mlflow.tasks._rows import ParsedRow, SkippedRow, Source, of_class, ordered

POSITIVE = "the second response is preferred"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
CHOICES = {0: 0, 1: 1}


def _pair(part: str, prompt: str, chosen: str, rejected: str, groups: Sequence[Key], id_: str | None = None) -> ParsedRow:
    """Build a row that compares two responses, ordered by a hash of the id. Raises SkippedRow if the responses are equal."""
    if normalised(chosen) == normalised(rejected):
        raise SkippedRow("has two equal responses")
    id_ = id_ or f"{part}-{digest(prompt, *sorted((chosen, rejected)))}"
    pair = ordered(id_, chosen, rejected)
    return ParsedRow(id_, (prompt,), pair.index(chosen), (*by_text(prompt=prompt), *groups), pair)


def _hh(row: Source, part: str) -> ParsedRow:
    """Parse a pair of dialogues, whose common beginning is the prompt. Pairs with the same first question form one group."""
    common = _common(row["chosen"], row["rejected"])
    end = common.rfind(ASSISTANT)
    if end < 0:
        raise SkippedRow("has no common prompt")
    end += len(ASSISTANT)
    prompt, chosen, rejected = (text.strip() for text in (common[:end], row["chosen"][end:], row["rejected"][end:]))
    first = row["chosen"].partition(ASSISTANT)[0].removeprefix(HUMAN)
    return _pair(part, prompt, chosen, rejected, by_text(question=first))


def _common(first: str, second: str) -> str:
    """Return the common prefix of both texts."""
    length = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return first[:length]


def _summarize(row: Source, part: str) -> ParsedRow:
    info, summaries = row["info"], [summary["text"] for summary in row["summaries"]]
    if len(summaries) != 2:
        raise SkippedRow("does not have two summaries")
    post = info.get("post") or info.get("article")
    if not post:
        raise SkippedRow("has neither post nor article")
    better = of_class(CHOICES, row["choice"])
    prompt = f"{info['title']}\n{post}\nTL;DR:" if info.get("title") else f"{post}\nTL;DR:"
    return _pair(part, prompt, summaries[better], summaries[1 - better], [*by_value(id=info["id"]), *by_text(post=post)])


def _ultrafeedback(row: Source, part: str) -> ParsedRow:
    if row["score_chosen"] == row["score_rejected"]:
        raise SkippedRow("has equal scores")
    chosen, rejected = (_answer(row[name]) for name in ("chosen", "rejected"))
    return _pair(part, row["prompt"], chosen, rejected, [])


def _answer(messages: Sequence[dict[str, str]]) -> str:
    if not messages or messages[-1]["role"] != "assistant":
        raise SkippedRow("does not end with an answer")
    return messages[-1]["content"].strip()


# --- pairs from a user's file -----------------------------------------------------------------------------------------


def _load(table: UserTable) -> Rows:
    columns: dict[str, Kind] = dict.fromkeys(("prompt", "chosen", "rejected"), "text")
    return _files.split_by_part(_read, (row for _, row in _files.grouped_rows(table, columns, columns)))


FILES = {"preferences": functools.partial(_files.task, "preferences", load=_load, head="reward", positive=POSITIVE)}


def _read(row: Source, part: str) -> ParsedRow:
    return _pair(part, row["prompt"], row["chosen"], row["rejected"], by_group(row["group"]), row["id"])


def _task(name: str, table: Table, read: Any, splits: tuple[str, str], license: str, human: Human | None = None) -> Task:
    parts = TaskSource(table=table, train=splits[0], heldout=splits[1])
    return task(name, "preferences", parts, read, positive=POSITIVE, license=license, head="reward", human=human)


HH = Table(
    path="Anthropic/hh-rlhf",
    revision="09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
    columns={"chosen": "text", "rejected": "text"},
)
SUMMARIZE = Table(
    path="openai/summarize_from_feedback",
    config="comparisons",
    revision=CONVERTED,
    columns={"info": "struct", "summaries": "list", "choice": "integer"},
)
ULTRAFEEDBACK = Table(
    path="HuggingFaceH4/ultrafeedback_binarized",
    revision="3949bf5f8c17c394422ccfab0c31ea9c20bdeb85",
    columns={"prompt": "text", "chosen": "list", "rejected": "list", "score_chosen": "number", "score_rejected": "number"},
)
STIENNON = Human(0.77, "agreement of one labeller with the researchers", "Stiennon et al. 2020, arXiv:2009.01325, Section 3.3")

TASKS = (
    _task("hh_rlhf", HH, _hh, ("train", "test"), "MIT"),
    _task("summarize", SUMMARIZE, _summarize, ("train", "validation"), "MIT (modified)", STIENNON),
    _task("ultrafeedback", ULTRAFEEDBACK, _ultrafeedback, ("train_prefs", "test_prefs"), "MIT"),
)
