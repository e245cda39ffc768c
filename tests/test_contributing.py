"""The examples of CONTRIBUTING.md are complete plug-ins: each is laid over the package and used."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch

from tests import test_plugins
from tests.conftest import SMALL
from w2s_mlflow import config, judges, metrics, registry, tasks
from w2s_mlflow.config import parse
from w2s_mlflow.data import splits
from w2s_mlflow.explainers import DebaterModel, DebateSide
from w2s_mlflow.pipeline import runs
from w2s_mlflow.pipeline.context import resolve
from w2s_mlflow.records import Debate, Example, Explanation, Side
from w2s_mlflow.stages import student
from w2s_mlflow.tracking import results, source_modules

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
BLOCK = re.compile(r'^```python title="w2s_mlflow/([\w/]+)/(\w+)\.py"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
METRIC = re.compile(r'^```python title="w2s_mlflow/metrics\.py"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
EXAMPLES = {folder.replace("/", "."): (name, source) for folder, name, source in BLOCK.findall(TEXT)}
CACHES = (registry.plugins, config.plugin_options, tasks.prefixes, tasks._task_by_name)
LONGEST = 40


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ModuleType]]:
    """The examples by folder, each loaded as a plug-in from a directory that extends the path of its folder."""
    root = tmp_path_factory.mktemp("overlay")
    with pytest.MonkeyPatch.context() as patch:
        for folder, (name, source) in EXAMPLES.items():
            (root / folder).mkdir(parents=True)
            (root / folder / f"{name}.py").write_text(source)
            package = importlib.import_module(f"w2s_mlflow.{folder}")
            patch.setattr(package, "__path__", [*package.__path__, str(root / folder)])
        in_package = source_modules.file_of
        files = {f"{folder}.{name}": root / folder / f"{name}.py" for folder, (name, _) in EXAMPLES.items()}
        patch.setattr(source_modules, "file_of", lambda name: files.get(name) or in_package(name))
        added = {path: path.read_bytes() for path in files.values()}
        shipped = source_modules.snapshot(source_modules.PACKAGE)
        patch.setitem(source_modules._snapshots, source_modules.PACKAGE, {**shipped, **added})
        _forget()
        try:
            yield {folder: registry.plugin(folder, name, folder) for folder, (name, _) in EXAMPLES.items()}
        finally:  # other tests must not find them, whatever came of them
            patch.undo()
            for folder, (name, _) in EXAMPLES.items():
                sys.modules.pop(f"w2s_mlflow.{folder}.{name}", None)
                vars(sys.modules[f"w2s_mlflow.{folder}"]).pop(name, None)
            _forget()


def _forget() -> None:
    importlib.invalidate_caches()
    for cache in CACHES:
        cache.cache_clear()


def test_there_is_an_example_of_each_kind() -> None:
    assert set(EXAMPLES) == {"losses", "methods.labels", "tasks", "tables", "judges", "explainers"}
    assert len(BLOCK.findall(TEXT)) == len(EXAMPLES) == TEXT.count("```python") - len(METRIC.findall(TEXT))
    assert len(METRIC.findall(TEXT)) == 1


@pytest.mark.parametrize("folder", EXAMPLES)
def test_an_example_is_short_and_new(folder: str) -> None:
    name, source = EXAMPLES[folder]
    assert len(source.splitlines()) < LONGEST
    assert not (test_plugins.PACKAGE / folder.replace(".", "/") / f"{name}.py").exists()


@pytest.mark.parametrize("folder", EXAMPLES)
def test_an_example_keeps_the_contract_of_its_folder(plugins: dict[str, ModuleType], folder: str) -> None:
    test_plugins.SUITES[folder](plugins[folder])


def test_the_loss_declares_what_the_others_declare(plugins: dict[str, ModuleType]) -> None:
    other = registry.plugin("losses", "product", "--loss")
    declared = {name for name in vars(other) if name.isupper() and name != "TYPE_CHECKING"}
    assert declared <= set(vars(plugins["losses"]))


def test_the_loss_by_hand(plugins: dict[str, ModuleType]) -> None:
    plugin = plugins["losses"]
    logits_NC = torch.tensor([[0.8, 0.2], [0.3, 0.7]], dtype=torch.float64).log()
    labels_NC = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    found = plugin.loss(logits_NC, labels_NC, 0.0, plugin.Options(gce_power=1.0))
    assert found.item() == pytest.approx(((1 - 0.8) + 0.5 * (0.7 + 0.3)) / 2)
    small = plugin.loss(logits_NC, labels_NC, 0.0, plugin.Options(gce_power=1e-6))
    assert small.item() == pytest.approx(-(labels_NC * logits_NC).sum(dim=-1).mean().item(), abs=1e-4)
    assert "gce_power" in config.plugin_options("losses")


@pytest.mark.usefixtures("experiment")
def test_a_student_learns_the_labels_that_the_method_keeps(plugins: dict[str, ModuleType]) -> None:
    config = parse(
        student.Config, {"labels": "most_confident", "share": "0.25", "strong": "chess-27k", "ceiling": "none"} | SMALL
    )
    plain, half = student.run(replace(config, labels="weak", label_options={})), student.run(config)
    assert (half.params["method"], half.params["share"]) == ("labels:most_confident", "0.25")
    weak = runs.weak_labels(results.get(half.tags["w2s.weak_run_id"]))
    transfer = [example.id for example in resolve(config).split.transfer]
    assert half.metrics["train/rows"] == round(0.25 * len(transfer)) and half.fingerprint != plain.fingerprint
    context: Any = SimpleNamespace(split=resolve(config).split)
    plugin, nothing = plugins["methods.labels"], SimpleNamespace(metrics=lambda values: None)
    labels = plugin.labels(weak, context, plugin.Options(share=0.25), nothing)
    kept = [id_ for id_ in labels.ids if id_ in set(transfer)]
    left_out = sorted(set(transfer) - set(kept))
    assert weak.of(kept).max(axis=1).min() >= weak.of(left_out).max(axis=1).max()
    assert half.metrics["train/steps"] < plain.metrics["train/steps"]
    assert "w2s.gold" not in half.tags


def test_the_task_loads_and_splits(plugins: dict[str, ModuleType], tmp_path: Path) -> None:
    task = tasks.find("rotten_tomatoes")
    mirror = tmp_path / plugins["tasks"].TABLE.path / "default"
    mirror.mkdir(parents=True)
    for part, rows in {"train": 80, "test": 40}.items():
        texts = [f"{part} film {number}" for number in range(rows)] + ["word"]
        labels = [number % 2 for number in range(len(texts))]
        pd.DataFrame({"text": texts, "label": labels}).to_parquet(mirror / f"{part}.parquet")
    found = task.load(tmp_path)
    assert (len(found.train), len(found.heldout), found.skipped) == (80, 40, {"has one word": 2})
    split = splits.split_task(splits.pool(task.key, found), seed=0, train_size=60, test_size=20)
    sizes = {part: len(examples) for part, examples in split.parts().items()}
    assert sum(size for part, size in sizes.items() if part not in ("selection", "test")) == 60
    assert 0 < sizes["test"] <= 20 and sizes["supervision"] == sizes["transfer"]


def test_the_table_by_hand(plugins: dict[str, ModuleType]) -> None:
    plugin = plugins["tables"]
    key = dict.fromkeys(plugin.KEYS, "x")
    outcomes = pd.DataFrame([key | {"accuracy": 0.5}, key | {"accuracy": 0.7}, key | {"task": "alone", "accuracy": 0.9}])
    (row,) = plugin.table(outcomes).to_dict("records")
    assert (row["n"], row["lowest"], row["highest"]) == (2, 0.5, 0.7)
    assert row["deviation"] == pytest.approx(0.02**0.5)


def test_the_judge_decides_two_debates(plugins: dict[str, ModuleType]) -> None:
    question = Example("q", "q", ("Ka1 Qb2 >",), ("Qc3", "Kb1"))
    sides = [Side(name, 0, "Qc3", Explanation(text)) for name, text in (("strong", "one two three"), ("weak", "one"))]
    debate = Debate(question, *sides)
    judge = plugins["judges"].make(plugins["judges"].Options(per_word=0.5), None)
    first, second = judge([debate, debate.swapped()])
    assert (first.log_odds, second.log_odds) == (1.0, -1.0)
    assert (first.order, second.order) == ("strong,weak", "weak,strong")
    assert judges.preference(first, second) == 1.0 and judges.bias(first, second) == 0.0


def test_the_explainer_shows_the_first_spans_that_are_left(plugins: dict[str, ModuleType]) -> None:
    questions = [Example("q", "q", ("Ka1 Qb2 kc3 rd4 >",), ("Qc3", "Kb1")), Example("r", "r", ("Ka1 >",), ("Kb2", "Kb1"))]
    debater = DebaterModel(Mock(), Mock(questions=questions), np.zeros(2, dtype=np.int64))
    side = DebateSide(debater, ["Qc3", "Kb2"], random=Mock(), seed=0, number=0, evidence_spans=2)
    found = plugins["explainers"].make(side)([{1}, {0}])
    assert [explanation.pieces for explanation in found] == [(0, 2), ()]
    assert [explanation.text for explanation in found] == ["Ka1 … kc3", ""]


def test_the_metric_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", {})
    exec(METRIC.findall(TEXT)[0], vars(metrics) | {})
    assert list(metrics.METRICS) == ["log_loss"] and metrics.METRICS["log_loss"].direction == "minimize"
    found = metrics.report(np.array([[0.5, 0.5], [0.75, 0.25]]), np.array([0, 1]))
    assert found["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.25)) / 2)
    assert np.isfinite(metrics.METRICS["log_loss"].function(np.eye(2), np.array([1, 0])))
