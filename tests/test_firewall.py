"""Ground truth never reaches a student: not by type, not at run time, not through an ancestor."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SMALL
from w2s_mlflow import config as options
from w2s_mlflow.data import gold, loading, splits
from w2s_mlflow.debate import past_verdicts, play, policy_gradient, transcripts, verdicts
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.explainers import _extractive, _generated
from w2s_mlflow.judges import Judge
from w2s_mlflow.judges import model as judge_model
from w2s_mlflow.judges.reward import Reward
from w2s_mlflow.methods import bootstrapping, elicitation, labels, presets, student_options, weak_finetuning
from w2s_mlflow.modeling import heads, inference
from w2s_mlflow.pipeline import finetune, runs
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.records import Example, Gold, Ints, Predictions, Row, Rows, Side, SoftLabels
from w2s_mlflow.registry import plugin, plugins
from w2s_mlflow.stages import _alignment_round, analyze, ceiling, facilitate, rule, student, supervisor, sweep
from w2s_mlflow.tasks import Prompt, Task
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result
from w2s_mlflow.training import loop

pytestmark = pytest.mark.usefixtures("experiment")

LABELS = (Gold, Row, Rows, splits.Pool)
"""The types through which ground truth can be had."""


class Guarded(Gold):
    """Gold that raises when it is read for anything but what the test allows."""

    allowed: set[tuple[str, str]] = set()

    def read(self, examples: Iterable[Example], *, split: str, reason: str) -> Ints:
        if (split, reason) not in self.allowed:
            raise AssertionError(f"gold of {split} was read for {reason}")
        return super().read(examples, split=split, reason=reason)


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> type[Guarded]:
    monkeypatch.setattr(gold, "Gold", Guarded)
    monkeypatch.setattr(Guarded, "allowed", set())
    return Guarded


REPORT = {("test", "report"), ("transfer", "report")}
"""What the evaluator reads to score runs; on `transfer` only the accuracy of the labels that a student was trained on."""
ALLOWED: dict[str, set[tuple[str, str]]] = {
    "supervisor": {("supervision", "supervision"), *REPORT},
    "ceiling": {("transfer", "ceiling"), *REPORT},
    "student": {("supervision", "supervision"), ("transfer", "ceiling"), *REPORT},
    "generative": set(),
    "rule": REPORT,
    "probe": {("supervision", "supervision"), ("supervision", "probe"), ("test", "probe"), ("transfer", "ceiling"), *REPORT},
    "errors": {("supervision", "supervision"), ("test", "errors"), ("transfer", "ceiling"), *REPORT},
    "facilitate": {("supervision", "supervision"), ("transfer", "ceiling"), *REPORT},
    "debate": {("supervision", "supervision"), ("test", "debate")},
    "align": {("supervision", "supervision"), ("transfer", "ceiling"), *REPORT},
    "sweep": {("supervision", "supervision"), ("transfer", "ceiling"), *REPORT},
    "main": {("supervision", "supervision"), ("transfer", "ceiling"), *REPORT},
    "analyze": set(),
    "pretrain": set(),
}
"""What each stage may read, its inputs included."""


SLOW = ("full", "bootstrap", "consultancy", "no_explanation")
CONTROLS = {
    "random_labels": {("transfer", "control")},
    "matched_noise": {("transfer", "control")},
    "oracle": {("transfer", "oracle")},
    "gold_subset": {("transfer", "oracle")},
}
"""The presets that learn from ground truth of `transfer`, which their runs say; all others learn from none."""
OF_SUPERVISION = {"best_prompt": {("supervision", "prompt")}}
"""Those that read the ground truth on which the supervisor is trained."""


def asked(stage: str, directory: Path) -> Any:
    """A small Config of a stage."""
    if stage == "pretrain":
        return plugin("stages", stage, "x").Config(positions=20, epochs=1, workers=1, out=str(directory))
    if stage == "analyze":
        rule.run(rule.Config(**SMALL))
        return analyze.Config()
    if stage == "sweep":
        (directory / "grid.py").write_text("SETTINGS = [{'strong': 'chess-121k'}]")
        return sweep.Config(sweep=str(directory / "grid.py"), seeds="0", **SMALL)
    return plugin("stages", stage, "x").Config(**SMALL)


def test_every_stage_is_covered() -> None:
    assert set(ALLOWED) == set(plugins("stages"))


LONG = {"debate", "align", "sweep", "facilitate", "probe", "pretrain", "errors"}


@pytest.mark.parametrize(  # main is the grid of sweep
    "stage", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in ALLOWED if name != "main"]
)
def test_a_stage_reads_exactly_what_it_may(stage: str, guard: type[Guarded], tmp_path: Path) -> None:
    guard.allowed = REPORT
    config = asked(stage, tmp_path)
    guard.allowed = ALLOWED[stage]
    plugin("stages", stage, "x").run(config)
    read = {
        tuple(name.split("/")[1:])
        for run in server.client().search_runs([server.experiment().experiment_id])
        for name in run.data.metrics
        if name.startswith("gold/")
    }
    assert read - REPORT == ALLOWED[stage] - REPORT


@pytest.mark.shared
@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name.startswith(SLOW) else ()) for name in presets.METHODS]
)
def test_training_a_student_reads_none(method: str, guard: type[Guarded]) -> None:
    sizes = {**SMALL, "weak": "chess-27k", "report": "none"}
    guard.allowed = {("supervision", "supervision")}
    weak = supervisor.run(supervisor.Config(keep_model="always", **sizes))  # a judge of debates is its model
    guard.allowed = CONTROLS.get(method, set()) | OF_SUPERVISION.get(method, set())
    stopping: dict[str, Any] = {"early_stopping": "none"} if method == "gold_subset" else {}
    found = student.run(student.Config(strong="chess-60k", method=method, **sizes, **stopping))
    read = {tuple(name.split("/")[1:]) for name in found.metrics if name.startswith("gold/")}
    assert read == guard.allowed and ("w2s.gold" in found.tags) is (method in CONTROLS)
    assert not [name for name in found.metrics if name.startswith(("test/", "selection/"))]
    assert found.tags.get("w2s.weak_run_id", weak.run_id) == weak.run_id


def test_each_read_is_counted_and_logged_with_its_reason() -> None:
    found = student.run(student.Config(strong="chess-121k", **SMALL))
    weak, top = (results.get(found.tags[f"w2s.{role}_run_id"]) for role in ("weak", "ceiling"))
    cut = loading.resolve_and_split(supervisor.Config(**SMALL).resolved())[1]
    half = len(cut.supervision) + len(cut.supervision_validation)
    other = len(cut.transfer) + len(cut.transfer_validation)
    read = [{name: value for name, value in run.metrics.items() if name.startswith("gold/")} for run in (weak, top, found)]
    assert read == [
        {"gold/supervision/supervision": half, "gold/test/report": 150},
        {"gold/transfer/ceiling": other, "gold/test/report": 150},
        {"gold/test/report": 150, "gold/transfer/report": len(cut.transfer)},
    ]
    labels = weak.weak_labels().of([example.id for example in cut.transfer]).argmax(axis=1)
    truth = {row.example.id: row.label for row in loading.rows("chess", None)}
    right = [answer == truth[example.id] for answer, example in zip(labels, cut.transfer, strict=True)]
    assert found.metrics["transfer/label_accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.slow
def test_a_search_may_look_at_selection_and_not_at_test() -> None:
    found = student.run(student.Config(strong="chess-121k", eval_split="selection", **SMALL))
    assert "selection/pgr" in found.metrics or found.tags["w2s.pgr_status"] == "undetermined"
    assert not [name for name in found.metrics if name.startswith("test/")]
    assert found.predictions("test").gold_N is None and found.predictions("selection").gold_N is not None
    later = student.run(student.Config(strong="chess-121k", **SMALL))
    assert later.run_id == found.run_id and "test/accuracy" in later.metrics
    assert "selection/accuracy" in later.metrics


# --- by type ----------------------------------------------------------------------------------------------------------


def functions(module: ModuleType) -> list[Any]:
    """Every function and method that a module defines."""
    found: list[Any] = []
    for value in vars(module).values():
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            found.append(value)
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            found += [method for method in vars(value).values() if inspect.isfunction(method)]
    return found


def types_of(function: Any) -> set[Any]:
    """Every type in a signature, however deep."""
    names = (
        *("Recorder", "Result", "Head", "FingerprintParts", "Tensor", "Generator", "Encoded", "Options"),
        *("Explainer", "Transcript", "AuxiliaryObjective", "Loss", "Policy", "EncodedQuestions", "DebaterModel"),
    )
    judging: dict[str, Any] = {"Judge": Judge, "Reward": Reward, "Side": Side, "Verdicts": verdicts.Verdicts}
    judging |= {"Node": object, "Context": Context, "SoftLabels": SoftLabels}
    judging |= {"Task": Task, "Prompt": Prompt}
    late: dict[str, Any] = dict.fromkeys(names, object) | judging | {"pd": pd}  # imported for type checkers only
    waiting, found = list(typing.get_type_hints(function, localns=late).values()), set()
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, list):  # the arguments of a Callable
            waiting += kind
            continue
        waiting += typing.get_args(kind)
        if isinstance(origin := typing.get_origin(kind) or kind, type):
            found.add(origin)
    return found


LOSSES = tuple(plugin("losses", name, "x") for name in plugins("losses"))
LABELS_OF = tuple(module for name in plugins("methods.labels") if functions(module := plugin("methods.labels", name, "x")))
"""Kinds of labels with a function of their own; the others use `labels.unchanged`."""
DEBATING = (_alignment_round, policy_gradient, play, past_verdicts, verdicts, transcripts, _extractive, _generated, judge_model)
STUDENTS = (student, bootstrapping, elicitation, weak_finetuning, student_options, presets, labels, *LABELS_OF)
BLIND = (*STUDENTS, facilitate, finetune, runs, loop, inference, heads, *LOSSES, *DEBATING)


@pytest.mark.parametrize("module", BLIND, ids=lambda module: module.__name__)
def test_the_code_that_trains_students_takes_and_gives_no_label(module: ModuleType) -> None:
    assert functions(module)
    assert {function.__name__ for function in functions(module) if types_of(function) & set(LABELS)} == set()


def test_the_walk_over_types_sees_labels() -> None:
    evaluator = functions(gold) + functions(loading)
    seen = {function.__name__ for function in evaluator if types_of(function) & set(LABELS)}
    assert {"gold_of", "reads", "rows"} <= seen
    assert "split_task" in {function.__name__ for function in functions(splits) if types_of(function) & set(LABELS)}


def test_training_takes_labels_and_not_the_run_they_come_from() -> None:
    hints = inspect.get_annotations(weak_finetuning.train)
    assert hints == {
        "context": "Context[Config]",
        "labels": "SoftLabels",
        "watched": "SoftLabels | None",
        "start": "Path | None",
        "recorder": "Recorder",
        "return": "Head",
    }
    assert not {"gold", "label"} & {*vars(splits.Split)["__dataclass_fields__"], *Example.__slots__}


def test_a_student_takes_a_cut_and_the_labels_of_its_controls_from_the_evaluator() -> None:
    takes = {"oracle": "oracle_labels", "random": "random_labels"}
    takes |= {"matched_noise": "matched_noise", "gold_subset": "oracle_labels"}
    for name in plugins("methods.labels"):
        source = inspect.getsource(plugin("methods.labels", name, "--labels"))
        assert source.count("ground_truth.") == (source.count(f"ground_truth.{takes[name]}(") if name in takes else 0)
    source = inspect.getsource(weak_finetuning)
    taken = {"oracle_labels": 1, "chosen_l2": 1}  # the second reads `supervision` alone
    assert {name: source.count(f"ground_truth.{name}(") for name in taken} == taken
    assert source.count("ground_truth.") == sum(taken.values())
    source = inspect.getsource(elicitation)
    assert source.count("ground_truth.") == source.count("ground_truth.supervision_accuracies(") == 1
    for module in (student, bootstrapping, finetune):
        assert not any(word in inspect.getsource(module) for word in ("ground_truth", "data.gold", "import gold"))


def test_facilitation_takes_a_cut_and_questions_from_the_evaluator_and_nothing_else() -> None:
    source = inspect.getsource(facilitate)
    assert source.count("loading.") == source.count("loading.questions(") == 1
    assert not any(name in source for name in ("ground_truth", "data.gold", "import gold"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"questions": "both", "targets": "hard"}, {"start": "supervisor"}, {"iterations": 2}], ids=str
)
def test_teaching_the_weak_model_reads_no_gold(options: dict[str, Any], guard: type[Guarded]) -> None:
    guard.allowed = {("supervision", "supervision")}  # the supervisor's own
    found = facilitate.run(facilitate.Config(strong="chess-121k", eval_split="none", **SMALL | options))
    assert not [name for name in found.metrics if name.startswith(("gold/", "test/"))] and "w2s.gold" not in found.tags


# --- through an ancestor ----------------------------------------------------------------------------------------------


def of_gold(found: Result) -> Result:
    """A run that is made from another one, as a chain's link would be."""
    context = resolve(supervisor.Config(epochs=1, **SMALL))
    parts = runs.parts("link", 1, context, {"above": found}, [])

    def make(recorder: Any) -> None:
        recorder.weak_labels(Predictions(("a",), ("a",), np.array([[0.5, 0.5]], dtype=np.float32)))

    labels = {"weak": "a", "strong": "-", "method": "link"}
    return runs.produce(parts, context, labels, "a link", make, {"above": found})


def test_gold_is_inherited_and_refused() -> None:
    sizes = {**SMALL, "report": "none"}
    top = ceiling.run(ceiling.Config(strong="chess-121k", **sizes))
    weak = supervisor.run(supervisor.Config(**sizes))
    child = of_gold(top)
    grandchild = of_gold(child)
    assert [run.tags.get("w2s.gold") for run in (top, child, grandchild)] == ["transfer"] * 3
    assert "w2s.gold" not in weak.tags and "w2s.gold" not in of_gold(weak).tags
    assert runs.weak_labels(weak).probabilities_NC.shape[1] == 2
    for run in (child, grandchild):
        with pytest.raises(ConfigError, match="depends on ground truth of transfer"):
            runs.weak_labels(run)


def test_the_options_of_a_student_name_no_gold() -> None:
    assert "gold" not in options.sentences(student.Config)["early_stopping"]
