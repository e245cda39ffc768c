"""Over every table of a mirror, no nearly equal text and no containment is left across the parts of a split.

The definitions are restated here, without the package's code. Every row of one part is compared with every row of the others,
except in pairs whose texts have no run of words in common that related rows must share.
"""

from __future__ import annotations

import functools
import html
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.test_real_data import TASKS, data_dir, load, pooled
from w2s_mlflow.data import splits
from w2s_mlflow.records import Example

__all__ = ["data_dir"]

pytestmark = pytest.mark.data

UNCOMPARED = {"What was the cause?", "What happened as a result?", "Which of the two is more pleasant?"}
"""Questions that a task adds to many rows: they are not compared."""
COMPARED = [name for name, task in TASKS.items() if task.family not in ("chess", "puzzles")]


@functools.lru_cache(maxsize=4096)  # rows about one passage follow each other
def plain(text: str) -> tuple[str, ...]:
    """The words of a text, with nothing but letters and digits in them, in one case and width and without tags.

    A text without letters and digits is one word.
    """
    for question in UNCOMPARED:
        text = text.replace(question, " ")
    untagged = re.sub(r"</?[A-Za-z][^<>]*>", " ", html.unescape(text))
    normal = unicodedata.normalize("NFKC", untagged).casefold()
    letters = "".join(char if char.isalnum() else "" if char in "'`\u2018\u2019\u02bc" else " " for char in normal)
    return tuple(letters.split()) or ("".join(text.split()),) * bool(text.strip())


class Compared(NamedTuple):
    """A row with what is compared of it."""

    id: str
    texts: list[tuple[str, ...]]
    """The words of each text."""
    shingles: set[tuple[str, ...]]
    """The runs of three words. A shorter text is one run."""


def compared(task: str, examples: Iterable[Example]) -> list[Compared]:
    """Read rows; the word in question of WiC is no part of its sentence."""
    rows = []
    for example in examples:
        segments = example.segments
        if task == "wic":
            segments = (segments[0].partition(": ")[2], segments[1])
        texts = [words for text in segments + example.candidates if (words := plain(text))]
        rows.append(Compared(example.id, texts, {run for words in texts for run in runs_of_three(words)}))
    return rows


def runs_of_three(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[n : n + 3] for n in range(max(len(words) - 2, 1))}


def similar(one: Compared, other: Compared) -> bool:
    common = len(one.shingles & other.shingles)
    return 10 * common >= 8 * (len(one.shingles) + len(other.shingles) - common)


def contained(one: Compared, other: Compared) -> bool:
    if max(map(len, one.texts), default=0) < 4:
        return False
    wholes = [f" {' '.join(words)} " for words in other.texts]
    return all(any(f" {' '.join(words)} " in whole for whole in wholes) for words in one.texts)


def related(one: Compared, other: Compared) -> bool:
    return similar(one, other) or contained(one, other) or contained(other, one)


def all_related(rows: Sequence[Compared], others: Sequence[Compared]) -> set[tuple[str, str]]:
    """Return the related pairs of a row of `rows` and a row of `others`."""
    around = ((one, other) for one, other in similar_or_around(rows, others) if related(one, other))
    inside = ((one, other) for other, one in similar_or_around(others, rows) if related(one, other))
    return {(one.id, other.id) for pairs in (around, inside) for one, other in pairs}


def similar_or_around(rows: Sequence[Compared], others: Sequence[Compared]) -> Iterator[tuple[Compared, Compared]]:
    """Yield candidates: no row of `others` that is similar to a row, or contains it, is left out.

    A similar row lacks at most a fifth of the row's shingles, so it has one of any fifth and one more. A row that contains the
    row has all runs of three words of its long text. The rarest ones have the fewest candidates.
    """
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, other in enumerate(others):
        for shingle in other.shingles:
            holders[shingle].append(number)
    for row in rows:
        rarest = sorted(row.shingles, key=lambda shingle: len(holders.get(shingle, ())))
        long = {run for words in row.texts if len(words) >= 4 for run in runs_of_three(words)}
        asked = rarest[: len(rarest) // 5 + 1] + [shingle for shingle in rarest if shingle in long][:1]
        for number in {number for shingle in asked for number in holders.get(shingle, ())}:
            yield row, others[number]


@pytest.mark.parametrize("name", COMPARED)
def test_nothing_nearly_equal_and_no_containment_is_left_across_parts(name: str, data_dir: Path) -> None:
    task = TASKS[name]
    pool = pooled(task, load(task, data_dir))
    train_size, test_size = min(task.train_size, pool.train_rows()), min(task.test_size, pool.test_rows())
    found = splits.split_task(pool, seed=1, train_size=train_size, test_size=test_size)
    for part in found.parts().values():
        assert not any(text != text.strip() for example in part for text in example.segments + example.candidates)
    supervision = compared(name, found.supervision + found.supervision_validation)
    transfer = compared(name, found.transfer + found.transfer_validation)
    training = supervision + transfer
    assert all_related(transfer, supervision) == set()
    assert all_related(compared(name, found.selection), training) == set()
    assert all_related(compared(name, found.test), training) == set()


def test_the_restatement_finds_what_the_split_removes(data_dir: Path) -> None:
    """In SST-2, whose rows are phrases of one another, rows that were dropped from `transfer` are related to `supervision`."""
    task = TASKS["sst2"]
    pool = pooled(task, load(task, data_dir))
    found = splits.split_task(pool, seed=1, train_size=min(task.train_size, pool.train_rows()), test_size=1)
    used = {example.id for part in found.parts().values() for example in part}
    dropped = [row.example for group in pool.train for row in group if row.example.id not in used]
    supervision = compared("sst2", found.supervision + found.supervision_validation)
    sample = compared("sst2", random.Random(0).sample(dropped, 40))
    pairs = all_related(sample, supervision)
    assert pairs == {(one.id, other.id) for one in sample for other in supervision if related(one, other)}
    assert len({id_ for id_, _ in pairs}) >= 38  # a half may leave out a group that did not fit
