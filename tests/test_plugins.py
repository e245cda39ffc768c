"""One suite per folder of plug-ins, run over every file in it; a folder without a suite fails."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import w2s_mlflow
from w2s_mlflow import config, explainers, figures, losses, metrics, models, registry, tables, tasks
from w2s_mlflow.methods import labels
from w2s_mlflow.models import ModelSpec
from w2s_mlflow.tasks import Task

PACKAGE = Path(w2s_mlflow.__file__).parent
NO_PLUGINS = {
    "analysis",
    "cli",
    "data",
    "debate",
    "distributed",
    "local",
    "methods",
    "modeling",
    "pipeline",
    "search",
    "stats",
    "tracking",
    "tracking.backend",
    "training",
}
"""Folders whose files are parts of one thing."""
PACKAGES = {".".join(init.parent.relative_to(PACKAGE).parts) for init in PACKAGE.glob("*/**/__init__.py")}
FOLDERS = sorted(PACKAGES - NO_PLUGINS)
PLUGINS = [(folder, name) for folder in FOLDERS for name in registry.plugins(folder)]


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def is_options(cls: type) -> bool:
    """Whether it is a frozen, keyword-only dataclass with a sentence under each field."""
    assert dataclasses.is_dataclass(cls)
    fields = dataclasses.fields(cls)
    sentences = config.sentences(cls)
    silent = [field.name for field in fields if not sentences.get(field.name, "").rstrip().endswith(".")]
    assert silent == [], f"fields of {cls.__qualname__} without a sentence"
    frozen = cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return bool(frozen) and all(field.kw_only for field in fields)


def check_loss(plugin: ModuleType) -> None:
    assert is_options(plugin.Options)
    assert parameters(plugin.loss) == ["logits_NC", "labels_NC", "progress", "options"]
    for large, classes in itertools.product((True, False), (2, 5)):
        options = losses.resolve(plugin.Options(), large=large)
        logits_NC = torch.randn(6, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        labels_NC = torch.full((6, classes), 1 / classes, dtype=torch.float64)
        for progress in (0.0, 0.5, 1.0):
            leaf_NC = logits_NC.clone().requires_grad_()
            value = plugin.loss(leaf_NC, labels_NC, progress, options)
            assert value.shape == () and torch.isfinite(value)
            value.backward()
            assert leaf_NC.grad is not None and torch.isfinite(leaf_NC.grad).all() and leaf_NC.grad.abs().sum() > 0
            assert torch.equal(leaf_NC, logits_NC)


def check_tasks(plugin: ModuleType) -> None:
    assert isinstance(plugin.TASKS, tuple) and (plugin.TASKS or plugin.FILES)
    for task in plugin.TASKS:
        assert isinstance(task, Task) and task.family == plugin.__name__.split(".")[-1]
        assert tasks.find(task.name) is task
        assert task.head in tasks.HEADS and task.classes >= 2 and (task.head != "reward" or task.classes == 2)
        assert callable(task.load) and task.train_size >= 40 and task.test_size >= 1
        assert task.source and task.license and task.positive and task.key == task.name
        assert all(callable(rule) and name == name.strip() and name for name, rule in task.rules.items())
        assert task.human is None or (0 <= task.human.score <= 1 and task.human.metric and task.human.source)


def check_model(plugin: ModuleType) -> None:
    assert isinstance(plugin.SPECS, tuple) and (plugin.SPECS or plugin.find)
    sizes = [spec.parameters for spec in plugin.SPECS]
    assert sizes == sorted(sizes) and all(size > 0 for size in sizes)
    for spec in plugin.SPECS:
        assert isinstance(spec, ModelSpec) and spec.family == plugin.__name__.split(".")[-1]
        assert models.find(spec.name, "weak") is spec
        assert math.isfinite(spec.learning_rate) and spec.learning_rate > 0
        assert 0 < spec.non_embedding < spec.parameters and spec.tier == models.tier_of(spec.non_embedding)
        assert spec.pooling in ("last", "first", "mean") and spec.layers is None
        assert spec.source or (models.revision(spec) and models.revision(spec) == models.revision(spec))
    assert parameters(plugin.load) == ["spec", "pretrained"]
    assert inspect.signature(plugin.load).parameters["pretrained"].kind is inspect.Parameter.KEYWORD_ONLY
    assert parameters(plugin.revision) == parameters(plugin.layers) == ["spec"]


def check_table(plugin: ModuleType) -> None:
    assert plugin.CAPTION.endswith(".") and parameters(plugin.table) == list(plugin.FRAMES)
    given = [FRAMES[name]() for name in plugin.FRAMES]
    found = plugin.table(*given)
    assert isinstance(found, pd.DataFrame) and len(found) and list(found.columns) == plugin.COLUMNS and found.columns.is_unique
    for name, frame in zip(plugin.FRAMES, given, strict=True):
        pd.testing.assert_frame_equal(frame, FRAMES[name]())
    shuffled = plugin.table(*(frame.sample(frac=1, random_state=1) for frame in given))
    assert list(shuffled.columns) == plugin.COLUMNS and len(shuffled) == len(found)
    assert sums(shuffled) == pytest.approx(sums(found), nan_ok=True)
    nothing = plugin.table(*(frame[:0] for frame in given))
    assert nothing.empty and list(nothing.columns) == plugin.COLUMNS


NO_MATHEMATICS = "$_{"
"""Part of a name on which matplotlib's parser of mathematics fails."""


def named(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with names of its tasks and supervisors that are no mathematics."""
    columns = {name: frame[name] + f" {NO_MATHEMATICS}$" for name in ("task", "weak") if name in frame}
    return frame.assign(**{name: column.where(frame[name] != "-", "-") for name, column in columns.items()})


def check_figure(plugin: ModuleType) -> None:
    assert plugin.CAPTION.endswith(".") and parameters(plugin.figure) == list(plugin.FRAMES)
    given = [named(FRAMES[name]()) for name in plugin.FRAMES]
    with tempfile.TemporaryDirectory() as directory:
        found = figures.save(lambda: plugin.figure(*given), Path(directory, "figures", "one.png"))
        assert Path(directory, "figures", "one.png").stat().st_size > 1000
    assert isinstance(found, Figure) and found.axes
    assert all(axes.get_xlabel() and axes.get_ylabel() for axes in found.axes)
    assert any(NO_MATHEMATICS in text.get_text() for text in found.findobj(Text)), "names are drawn as they are"
    for name, frame in zip(plugin.FRAMES, given, strict=True):
        pd.testing.assert_frame_equal(frame, named(FRAMES[name]()))
    assert not plugin.figure(*(frame[:0] for frame in given)).axes


def check_stage(plugin: ModuleType) -> None:
    assert inspect.getdoc(plugin)
    assert is_options(plugin.Config)
    assert parameters(plugin.run) == ["config"]
    hints = get_type_hints(plugin.Config)
    assert {field.name for field in dataclasses.fields(plugin.Config)} <= set(hints)
    for field in dataclasses.fields(plugin.Config):
        assert field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    assert isinstance(getattr(plugin, "VERSION", 1), int)


def check_labels(plugin: ModuleType) -> None:
    assert is_options(plugin.Options)
    assert plugin.LABELLER in (labels.SUPERVISOR, labels.ZERO_SHOT, labels.DEBATE, labels.NOBODY)
    assert isinstance(plugin.GOLD, bool) and isinstance(plugin.NOTE, str) and plugin.NOTE
    assert parameters(plugin.labels) == ["weak", "context", "options", "recorder"]


def check_judge(plugin: ModuleType) -> None:
    assert is_options(plugin.Options)
    assert parameters(plugin.make) == ["options", "answer"]
    needed = {"": set(), "verdicts": {"run", "of"}, "votes": {"run", "heard"}}[getattr(plugin, "LEARNS_FROM", "")]
    assert needed <= set(plugin.Options.__dataclass_fields__)


def check_explainer(plugin: ModuleType) -> None:
    assert plugin.EVIDENCE in (explainers.SPANS, explainers.TEXT)
    assert parameters(plugin.make) == ["side"]
    assert plugin.OPTIONS and set(plugin.OPTIONS) <= set(explainers.DebateSide.__dataclass_fields__) & set(options_of("debate"))
    if hasattr(plugin, "applies_to"):
        assert parameters(plugin.applies_to) == ["family", "head"]
        assert any(plugin.applies_to(task.family, task.head) for task in tasks.all_tasks())
    if hasattr(plugin, "WITHOUT_POLICY"):
        other = explainers.find(plugin.WITHOUT_POLICY, "explainer")
        assert parameters(plugin.load_policy) == ["path", "head"] and not hasattr(other, "WITHOUT_POLICY")
        assert set(other.OPTIONS) <= set(plugin.OPTIONS)


def options_of(stage: str) -> list[str]:
    return [field.name for field in dataclasses.fields(registry.plugin("stages", stage, "the stage").Config)]


SUITES: dict[str, Callable[[ModuleType], None]] = {
    "losses": check_loss,
    "tasks": check_tasks,
    "models": check_model,
    "tables": check_table,
    "figures": check_figure,
    "stages": check_stage,
    "judges": check_judge,
    "methods.labels": check_labels,
    "explainers": check_explainer,
}


def outcomes() -> pd.DataFrame:
    """Two tasks, two supervisors, two sizes of student, six methods, three seeds and a rule (see tables/__init__.py)."""
    rng = np.random.default_rng(0)
    groups = tuple(f"g{row // 2}" for row in range(60))
    rows = []
    for task, weak, seed in itertools.product(("one", "two"), ("small", "tiny"), range(3)):
        weak_N, top_N = (rng.uniform(size=60) < share for share in (0.5, 0.95))
        methods = ("baseline", "confidence", "full", "matched_noise", "few_gold", "more_gold")
        for (strong, size), method in itertools.product({"mid": 1e5, "big": 1e6}.items(), methods):
            own = _row(task, seed, strong, method, groups, rng.uniform(size=60) < 0.75)
            rows.append(own | _beside(weak_N, top_N, size) | {"weak": weak})
    rows += [_row(task, "-", "-", "rule:random", groups, rng.uniform(size=60) < 0.5) for task in ("one", "two")]
    return pd.DataFrame(rows)


SETTINGS = {
    "matched_noise": {"labels": "matched_noise"},
    "few_gold": {"labels": "gold_subset", "gold_rows": "10"},
    "more_gold": {"labels": "gold_subset", "gold_rows": "100"},
}
"""Options of those methods of the frame that are not trained on weak labels."""


def _row(task: str, seed: Any, strong: str, method: str, groups: tuple[str, ...], correct_N: Any) -> dict[str, Any]:
    names = {"task": task, "weak": "-", "strong": strong, "head": "lm_choice", "method": method, "domain": "NLP"}
    names |= {
        "method_options": "",
        "other_options": "",
        "settings": json.dumps({"labels": "weak", "learning_rate": "0.001"} | SETTINGS.get(method, {})),
        "data": "d",
        "run_id": f"{task}-{strong}-{method}-{seed}",
        "checkpoints": "",
    }
    numbers = {"train_size": 100, "test_size": 60, "parameters": math.nan, "accuracy": correct_N.mean()}
    numbers |= {name: 0.2 for name in metrics.METRICS if name != "accuracy"}
    missing: dict[str, Any] = dict.fromkeys(("agreement", "weak_accuracy", "ceiling_accuracy"), math.nan)
    missing |= dict.fromkeys(("weak_correct", "ceiling_correct", "weak_answer", "ceiling_answer")) | {"ceiling_failed": False}
    missing |= dict.fromkeys(("weak_probabilities", "ceiling_probabilities")) | {"tuned_on_gold": "", "file_accuracy": math.nan}
    missing |= {"elicited_correct": None, "elicited_accuracy": math.nan}
    missing |= {"collapsed": False, "diverged": 0}
    gold_N = np.arange(60) % 2
    arrays = {"groups": groups, "gold": gold_N, "correct": correct_N, "answer": np.where(correct_N, gold_N, 1 - gold_N)}
    arrays["probabilities"] = _soft(arrays["answer"])
    return names | {"seed": str(seed)} | numbers | missing | arrays


def _soft(answer_N: Any) -> Any:
    """Probabilities of two classes with these answers."""
    return np.where(np.eye(2)[answer_N] == 1, 0.8, 0.2).astype(np.float32)


def _beside(weak_N: Any, top_N: Any, size: float) -> dict[str, Any]:
    gold_N = np.arange(60) % 2
    answers = {"weak_answer": np.where(weak_N, gold_N, 1 - gold_N), "ceiling_answer": np.where(top_N, gold_N, 1 - gold_N)}
    probabilities = {name.replace("answer", "probabilities"): _soft(answer_N) for name, answer_N in answers.items()}
    accuracies = {"weak_accuracy": weak_N.mean(), "ceiling_accuracy": top_N.mean(), "agreement": 0.8}
    return accuracies | answers | probabilities | {"weak_correct": weak_N, "ceiling_correct": top_N, "parameters": size}


def claims() -> pd.DataFrame:
    """The claim of one sweep: a student against its supervisor and the best label-free answer."""
    rows = [("sweep grid", "one", "small", "mid", "baseline", reference) for reference in ("supervisor", "label_free")]
    return pd.DataFrame(rows, columns=list(tables.CLAIMS))


def runs() -> pd.DataFrame:
    """A supervisor and two students of three seeds, as tables/__init__.py describes them."""
    rows = []
    for seed, (stage, method) in itertools.product(
        range(3), (("supervisor", "supervisor"), ("student", "baseline"), ("student", "full"))
    ):
        row: dict[str, Any] = dict.fromkeys(tables.RUNS, "") | {
            "stage": stage,
            "method": method,
            "seed": str(seed),
            "task": "one",
        }
        row |= {"run_id": f"{method}{seed}", "pgr_status": "ok", "reads": {"test/report": 60, "supervision/supervision": 50}}
        row |= dict.fromkeys((*metrics.METRICS, "pgr"), 0.5 + 0.1 * seed)
        rows.append(row | {name: 10.0 * (1 + seed) for name in tables.RUNS if name.endswith(("seconds", "tokens", "flops"))})
    return pd.DataFrame(rows)


def left_out() -> pd.DataFrame:
    """Two runs that do not count."""
    return pd.DataFrame(
        [(str(n), f"student {n}", "damaged", "its file is gone") for n in range(2)], columns=list(tables.LEFT_OUT)
    )


def probes() -> pd.DataFrame:
    """Probes of two concepts and two layers before and after, three seeds."""
    rows = []
    for seed, concept, model, layer in itertools.product(range(3), ("one", "two"), ("before", "after"), range(2)):
        row: dict[str, Any] = dict.fromkeys(tables.PROBES, "") | {"run_id": f"{seed}", "seed": str(seed), "concept": concept}
        row |= {"model": model, "layer": layer, "chosen": layer == 1, "control": 0.5, "rows": 100, "selectivity": 0.2}
        accuracy = 0.6 + 0.05 * (model == "after") + 0.01 * seed * layer
        row |= dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high"), accuracy)
        rows.append(row | {"task": "one", "weak": "small", "strong": "big", "method": "baseline"})
    return pd.DataFrame(rows)


def errors() -> pd.DataFrame:
    """Errors of two methods and three seeds, one in two annotated."""
    rows = []
    for seed, method, number in itertools.product(range(3), ("baseline", "confidence"), range(8)):
        row: dict[str, Any] = dict.fromkeys(tables.ERRORS, "") | {
            "run_id": f"{method}{seed}",
            "seed": str(seed),
            "method": method,
        }
        row |= {"gold": 0, "answer": 1, "weak_answer": number % 2, "ceiling_answer": number // 2 % 2, "id": str(number)}
        row |= {"on_own_evidence": (number + seed) % 2, "on_ceiling_evidence": number % 3 % 2, "on_random": 1}
        rows.append(row | {"task": "one", "weak": "small", "strong": "big", "annotation": "other" if number % 2 else ""})
    return pd.DataFrame(rows)


def facilitations() -> pd.DataFrame:
    """Two methods in two iterations, three seeds."""
    rows = []
    for seed, method, iteration in itertools.product(range(3), ("baseline", "confidence"), (1, 2)):
        row: dict[str, Any] = dict.fromkeys((*tables.FACILITATIONS, "method_options", "other_options"), "") | {
            "run_id": f"{method}{iteration}{seed}"
        }
        row |= {"task": "one", "weak": "small", "strong": "big", "method": method, "seed": str(seed), "iteration": iteration}
        row |= {
            "train_size": 100,
            "test_size": 60,
            "accuracy": 0.6 + 0.02 * iteration + 0.01 * seed,
            "weak_accuracy": 0.6 - 0.01 * seed,
        }
        rows.append(row | {"strong_accuracy": 0.7, "agreement": 0.8, "weak_agreement": 0.9})
    return pd.DataFrame(rows)


def debates() -> pd.DataFrame:
    """Debates in two forms over three seeds, one of them without ground truth."""
    rows = []
    for seed, form in itertools.product(range(3), ("debate", "consultancy")):
        row: dict[str, Any] = dict.fromkeys(tables.DEBATES, 0.4 + 0.1 * seed) | {"run_id": f"{form}{seed}", "seed": str(seed)}
        row |= {"task": "one", "weak": "small", "strong": "big", "split": "test", "protocol": form, "explainer": "gradient"}
        rows.append(row | {"evidence_spans": "3", "turns": "1", "judge": "model", "other_options": ""})
    return pd.DataFrame(rows)


def alignments() -> pd.DataFrame:
    """Aligned models at two weights over three seeds, one of them in two iterations."""
    rows = []
    for seed, (lam, number) in itertools.product(range(3), (("0.0", 1), ("0.1", 1), ("0.1", 2))):
        row: dict[str, Any] = dict.fromkeys(tables.ALIGNMENTS, 0.4 + 0.1 * seed) | {"run_id": f"{lam}{seed}{number}"}
        row |= {"seed": str(seed), "iteration": number, "iterations": 2 if float(lam) else 1}
        row |= {"task": "one", "weak": "small", "strong": "big", "debate_weight": lam, "kl": "0.05", "opponent": "gradient"}
        rows.append(
            row
            | {"evidence_spans": "3", "judge": "model", "other_options": "", "preference_after": 0.9 + 0.2 * seed * float(lam)}
        )
    return pd.DataFrame(rows)


FRAMES = {"outcomes": outcomes, "runs": runs, "left_out": left_out, "probes": probes, "errors": errors}
FRAMES |= {"facilitations": facilitations}
FRAMES |= {"debates": debates, "alignments": alignments, "claims": claims}


def sums(table: pd.DataFrame) -> dict[str, float]:
    """The sum of each column of numbers, what a change of row order leaves alone."""
    return {str(name): float(column.sum()) for name, column in table.select_dtypes("number").items()}


def test_every_folder_of_plug_ins_has_a_suite() -> None:
    assert set(FOLDERS) == set(SUITES)


def test_folders_without_plug_ins_exist() -> None:
    assert NO_PLUGINS <= PACKAGES


@pytest.mark.parametrize(("folder", "name"), PLUGINS, ids=["/".join(plugin) for plugin in PLUGINS])
def test_plug_in_keeps_its_contract(folder: str, name: str) -> None:
    assert folder in SUITES, f"no suite covers {folder}/{name}.py: write one in {Path(__file__).name}"
    plugin = registry.plugin(folder, name, folder)
    assert inspect.getdoc(plugin), "a plug-in says in its first line what it is"
    SUITES[folder](plugin)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_holds_plug_ins(folder: str) -> None:
    assert registry.plugins(folder)


def test_names_of_tasks_and_models_are_used_once() -> None:
    names = [task.name for family in registry.plugins("tasks") for task in registry.plugin("tasks", family, "--task").TASKS]
    specs = [spec.name for family in registry.plugins("models") for spec in registry.plugin("models", family, "--model").SPECS]
    assert len(set(names)) == len(names) and len(set(specs)) == len(specs)


def test_an_option_of_two_losses_has_one_type() -> None:
    kinds: dict[str, set[str]] = {}
    for name in registry.plugins("losses"):
        for option, kind in get_type_hints(registry.plugin("losses", name, "--loss").Options).items():
            kinds.setdefault(option, set()).add(str(kind))
    assert {option: found for option, found in kinds.items() if len(found) > 1} == {}


def test_options_of_plug_ins_hide_neither_each_other_nor_those_of_a_stage() -> None:
    student = registry.plugin("stages", "student", "the stage").Config
    names = [field.name for field in dataclasses.fields(student)]
    names += [name for package, _ in config.nested_fields(student).values() for name in config.plugin_options(package)]
    assert len(set(names)) == len(names)


def test_frames_of_this_suite_have_the_columns_that_tables_are_promised() -> None:
    assert set(outcomes().columns) == {*tables.OUTCOMES, "method_options", "other_options"}
    assert set(runs().columns) == set(tables.RUNS) and set(probes().columns) == set(tables.PROBES)
    assert set(errors().columns) == set(tables.ERRORS)
    assert set(facilitations().columns) == {*tables.FACILITATIONS, "method_options", "other_options"}
    assert set(claims().columns) == set(tables.CLAIMS)
    assert set(debates().columns) == set(tables.DEBATES) and set(alignments().columns) == set(tables.ALIGNMENTS)
    assert set(FRAMES) == set(tables.Frames.__dataclass_fields__)
