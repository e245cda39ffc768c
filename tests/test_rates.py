"""benchmarks/rates.py: the rows on which rates are tuned are in no part of the experiment."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from w2s_mlflow.data import loading
from w2s_mlflow.stages import ceiling


@pytest.fixture(scope="module")
def rates() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rates", Path(__file__).parents[1] / "benchmarks" / "rates.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_development_rows_share_no_group_with_any_part_of_any_seed(rates: ModuleType) -> None:
    rows = rates.development_rows("chess", [0, 1, 2], 2000, 10_000)
    groups = {row.example.group for row in rows}
    assert len(rows) >= rates.FEWEST
    for seed in (0, 1, 2):
        parts = loading.resolve_and_split(ceiling.Config(seed=seed, train_size=2000).resolved())[1].parts()
        assert not groups & {example.group for part in parts.values() for example in part}


def test_too_few_rows_end_in_a_sentence(rates: ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"^--seeds must leave at least 400 training rows in no part, but \d+ are left$"):
        rates.development_rows("chess", list(range(40)), None, 10_000)


def test_folds_keep_groups_together_and_every_row(rates: ModuleType) -> None:
    rows = rates.development_rows("chess", [0], 2000, 500)
    parts = rates.folds(rows, 4)
    assert sorted(row.example.id for part in parts for row in part) == sorted(row.example.id for row in rows)
    groups = [{row.example.group for row in part} for part in parts]
    assert all(not one & other for n, one in enumerate(groups) for other in groups[:n])
