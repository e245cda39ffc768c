"""The ledger of ground truth adds up: what the runs say they have read is what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow.analysis import build
from w2s_mlflow.records import Example, Gold, Ints
from w2s_mlflow.stages import student
from w2s_mlflow.tables import gold_reads
from w2s_mlflow.tracking import results

pytestmark = pytest.mark.usefixtures("experiment")


def test_the_ledger_of_all_runs_is_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read, counted = Gold.read, Counter[str]()

    def counting(gold: Gold, examples: Iterable[Example], *, split: str, reason: str) -> Ints:
        found = read(gold, list(examples), split=split, reason=reason)
        counted[f"{split}/{reason}"] += len(found)
        return found

    monkeypatch.setattr(Gold, "read", counting)
    student.run(student.Config(labels="random", strong="chess-121k", epochs=1, **SMALL))
    said = Counter[str]()
    for run in runs():
        said.update(
            {name.removeprefix("gold/"): int(value) for name, value in run.data.metrics.items() if name.startswith("gold/")}
        )
    assert said == counted and {"supervision/supervision", "transfer/ceiling", "transfer/control", "test/report"} <= set(
        counted
    )
    frames = build.load([results.result(run, reused=True) for run in reversed(runs())], {})
    table = gold_reads.table(frames.runs)
    assert table["rows"].sum() == sum(counted.values())
