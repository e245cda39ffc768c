"""Over every table of a mirror, no nearly equal text and no containment is left across the parts of a split.

The definitions are restated here, without the package's code: a sample of the rows of one part is compared with all rows of the
others, one pair at a time.
"""

from __future__ import annotations

import html
import random
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.test_real_data import TASKS, data_dir, load, pooled
from w2s_mlflow.data import splits
from w2s_mlflow.records import Example

__all__ = ["data_dir"]

pytestmark = pytest.mark.data

SAMPLE = 50
"""Rows of a part that are compared with all rows of the other parts."""
UNCOMPARED = {"What was the cause?", "What happened as a result?", "Which of the two is more pleasant?"}
"""Questions that a task adds to many rows: they are not compared."""
COMPARED = [name for name, task in TASKS.items() if task.family not in ("chess", "puzzles")]


def plain(text: str) -> list[str]:
    """The words of a text, with nothing but letters and digits in them, in one case and width and without tags."""
    for question in UNCOMPARED:
        text = text.replace(question, " ")
    text = re.sub(r"</?[A-Za-z][^<>]*>", " ", html.unescape(text))
    text = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(char if char.isalnum() else "" if char in "'`\u2018\u2019\u02bc" else " " for char in text)
    return letters.split()


def texts(task: str, example: Example) -> list[list[str]]:
    """The compared texts of a row; the word in question of WiC is no part of its sentence."""
    segments = example.segments
    if task == "wic":
        segments = (segments[0].partition(": ")[2], segments[1])
    return [words for text in segments + example.candidates if (words := plain(text))]


def shingles(found: Iterable[list[str]]) -> set[tuple[str, ...]]:
    return {tuple(words[n : n + 3]) for words in found for n in range(max(len(words) - 2, 1))}


def contained(found: list[list[str]], others: list[list[str]]) -> bool:
    if max(map(len, found), default=0) < 4:
        return False
    wholes = [f" {' '.join(words)} " for words in others]
    return all(any(f" {' '.join(words)} " in whole for whole in wholes) for words in found)


def related(task: str, examples: Iterable[Example], others: Iterable[Example]) -> Iterator[tuple[str, str]]:
    """Pairs of rows that are nearly equal, or of which one contains the other."""
    compared = [(other.id, texts(task, other)) for other in others]
    prepared = [(id_, words, shingles(words), {word for text in words for word in text}) for id_, words in compared]
    for example in examples:
        words = texts(task, example)
        own, vocabulary = shingles(words), {word for text in words for word in text}
        for id_, other_words, other, other_vocabulary in prepared:
            inside = vocabulary <= other_vocabulary and contained(words, other_words)  # a whole has all words of its parts
            around = other_vocabulary <= vocabulary and contained(other_words, words)
            common = len(own & other)
            if inside or around or 10 * common >= 8 * (len(own) + len(other) - common):
                yield example.id, id_


@pytest.mark.parametrize("name", COMPARED)
def test_nothing_nearly_equal_and_no_containment_is_left_across_parts(name: str, data_dir: Path) -> None:
    task = TASKS[name]
    pool = pooled(task, load(task, data_dir))
    train_size, test_size = min(task.train_size, pool.train_rows()), min(task.test_size, pool.test_rows())
    found = splits.split_task(pool, seed=1, train_size=train_size, test_size=test_size)
    supervision = found.supervision + found.supervision_validation
    transfer = found.transfer + found.transfer_validation
    drawn = random.Random(0)
    training = supervision + transfer
    for part, others in ((transfer, supervision), (found.selection, training), (found.test, training)):
        sample = drawn.sample(part, min(SAMPLE, len(part)))
        assert list(related(name, sample, others)) == []
        assert not any(text != text.strip() for example in part for text in example.segments + example.candidates)


def test_the_restatement_finds_what_the_split_removes(data_dir: Path) -> None:
    """In SST-2, whose rows are phrases of one another, rows that were dropped from `transfer` are related to `supervision`."""
    task = TASKS["sst2"]
    pool = pooled(task, load(task, data_dir))
    found = splits.split_task(pool, seed=1, train_size=min(task.train_size, pool.train_rows()), test_size=1)
    used = {example.id for part in found.parts().values() for example in part}
    dropped = [row.example for group in pool.train for row in group if row.example.id not in used]
    supervision = found.supervision + found.supervision_validation
    sample = random.Random(0).sample(dropped, 40)
    assert len({id_ for id_, _ in related("sst2", sample, supervision)}) >= 38  # a half may leave out a group that did not fit
