"""A result's identity, over every stage: prose, layout and new options move no fingerprint; what has an effect moves its own.

Fingerprints are those of plans, on a copy of the package's source.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.conftest import SMALL
from tests.tracking.test_source import package  # noqa: F401  # a copy of the source that a test may edit
from w2s_mlflow import config as options
from w2s_mlflow.config import option
from w2s_mlflow.methods import weak_finetuning
from w2s_mlflow.registry import plugin, plugins
from w2s_mlflow.stages import student, supervisor
from w2s_mlflow.tracking import session, source, source_modules, source_syntax

pytestmark = pytest.mark.usefixtures("tidy", "finished")

STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "supervisor": ("supervisor", SMALL),
    "ceiling": ("ceiling", SMALL),
    "baseline": ("student", {"method": "baseline", "report": "none", **SMALL}),
    "confidence": ("student", {"method": "confidence", "report": "none", **SMALL}),
    "bootstrap": ("student", {"method": "bootstrap", "report": "none", **SMALL}),
    "random": ("student", {"labels": "random", "report": "none", **SMALL}),
    "oracle": ("student", {"labels": "oracle", "report": "none", **SMALL}),
    "generative": ("generative", SMALL),
    "facilitate": ("facilitate", {"report": "none", "questions": "transfer", **SMALL}),
    "debate": ("debate", {"report": "none", **SMALL}),
    "rationale": ("debate", {"report": "none", "explainer": "rationale", **SMALL}),
    "policy": ("debate", {"report": "none", "explainer": "policy", **SMALL}),
    "align": ("align", {"report": "none", **SMALL}),
    "probe": ("probe", {"report": "none", "concepts": "chess", **SMALL}),
    "errors": ("errors", SMALL),
    "rule": ("rule", {"report": "none", **SMALL}),
    "pretrain": ("pretrain", {}),
    "analyze": ("analyze", {}),
}
"""A plan of each stage that makes a result of its own; a sweep and main are made of these."""
COMPOSITE = ("sweep", "main")


@pytest.fixture(scope="module")
def finished(shared: str) -> None:
    """A student, for there to be something to analyse."""
    student.run(student.Config(epochs=1, weak="chess-27k", strong="chess-27k", **SMALL))


def fingerprints() -> dict[str, set[str]]:
    """The fingerprints of all results that each plan needs."""
    source.clear()
    found = {}
    for name, (stage, given) in STAGES.items():
        module = plugin("stages", stage, "the stage")
        with session.planning() as plan:
            module.run(module.Config(**given))
        found[name] = set(plan.steps)
    return found


@pytest.fixture(scope="module")
def before(finished: None) -> dict[str, set[str]]:
    """The fingerprints of the source as it is."""
    return fingerprints()


def changed(before: dict[str, set[str]]) -> set[str]:
    """The plans in which a result is another one than before."""
    after = fingerprints()
    return {name for name in before if before[name] != after[name]}


def test_every_stage_is_planned() -> None:
    assert {stage for stage, _ in STAGES.values()} == set(plugins("stages")) - set(COMPOSITE)


class Reworded(ast.NodeTransformer):
    """Every docstring, sentence under a field, message and log says something else; layout and comments go with unparse."""

    def visit_Expr(self, node: ast.Expr) -> Any:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            node.value.value = "Reworded: " + node.value.value
        elif source_syntax.is_log(node):
            return self._reword(node)
        return node

    def visit_Raise(self, node: ast.Raise) -> Any:
        return self._reword(node)

    def _reword(self, node: Any) -> Any:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                inner.value += ", reworded"
        return node


def rewrite(package: Path, change: Callable[[str, str], str]) -> None:  # noqa: F811
    for path in package.rglob("*.py"):
        path.write_text(change(path.relative_to(package).as_posix(), path.read_text()))


def test_reworded_prose_moves_nothing(before: dict[str, set[str]], package: Path) -> None:  # noqa: F811
    rewrite(package, lambda name, text: "# Reworded.\n" + ast.unparse(Reworded().visit(ast.parse(text))))
    assert '"""Reworded: ' in (package / "training/loop.py").read_text()
    assert changed(before) == set()


MOVED = ("training", "modeling", "records", "metrics", "data", "distributed", "streams")


def test_moved_modules_move_nothing(before: dict[str, set[str]], package: Path) -> None:  # noqa: F811
    for name in MOVED:
        (package / "rooms").mkdir(exist_ok=True)
        path = package / name if (package / name).is_dir() else package / f"{name}.py"
        path.rename(package / "rooms" / path.name)
    (package / "rooms" / "__init__.py").write_text("")
    names = "|".join(MOVED)

    def moved(file: str, text: str) -> str:
        text = re.sub(rf"w2s_mlflow\.({names})\b", r"w2s_mlflow.rooms.\1", text)
        return re.sub(r"^( *)from w2s_mlflow import (.*)$", split_import, text, flags=re.M)

    def split_import(found: re.Match[str]) -> str:
        lines = []
        for one in found[2].split(", "):
            room = "w2s_mlflow.rooms" if one.split()[0] in MOVED else "w2s_mlflow"
            lines.append(f"{found[1]}from {room} import {one}")
        return "\n".join(lines)

    rewrite(package, moved)
    with pytest.MonkeyPatch.context() as patch:  # roots and NEUTRAL are named in the code, which moves with them
        found = source.digests
        patch.setattr(source, "NEUTRAL", [relocated(module) for module in source.NEUTRAL])
        patch.setattr(source, "digests", lambda roots: found([relocated(root) for root in roots]))
        assert changed(before) == set()


def relocated(root: str) -> str:
    return f"rooms.{root}" if re.split("[.:]", root)[0] in MOVED else root


DEBATES = ("debate", "align")
"""Plans of debates in which a side shows the spans of the explainer `gradient`; `policy` is a third."""
TRAINED = set(STAGES) - {"rule", "analyze"}
FINETUNED = TRAINED - {"generative", "pretrain"}
SUPERVISED = {"baseline", "confidence", "bootstrap", "facilitate", "probe", "errors", *DEBATES, "policy", "rationale"}
"""Plans with a student on the labels of its supervisor."""
EDITS = {
    "a constant of the training loop": ("training/loop.py", "WARMUP = 0.1", "WARMUP = 0.2", TRAINED),
    "an operator of the schedule": ("training/loop.py", "(step + 1) / warm", "(step + 2) / warm", TRAINED),
    "a default": ("modeling/inference.py", '= "float32") -> Floats:', '= "bfloat16") -> Floats:', FINETUNED),
    "a loss": ("losses/confidence.py", "(1 - a) * labels_NC", "(1 + a) * labels_NC", {"confidence"}),
    "the plain loss": ("losses/cross_entropy.py", "-(labels_NC", "+(labels_NC", FINETUNED),
    "random labels": ("pipeline/ground_truth.py", "integers(1, classes", "integers(0, classes", {"random"}),
    "oracle labels": ("pipeline/ground_truth.py", '"transfer", "oracle"', '"supervision", "oracle"', {"oracle"}),
    "hidden labels of the supervisor": ("methods/labels/__init__.py", "return weak", "return weak.hardened()", SUPERVISED),
    "a phrase of a note": ("methods/labels/weak.py", 'NOTE = "finetuned', 'NOTE = "trained', set()),
    "a judge": ("judges/model.py", "return [", "return [None] or [", {*DEBATES, "policy", "rationale"}),
    "another judge": ("judges/reward.py", "SIZE = 2**14", "SIZE = 2**15", set()),
    "an explainer": ("explainers/gradient.py", "return _extractive.sums", "return -_extractive.sums", {*DEBATES, "policy"}),
    "another explainer": ("explainers/rationale.py", "TOKENS = 40", "TOKENS = 41", {"rationale"}),
    "a policy": ("explainers/policy.py", "scores_NP[rows] = ", "scores_NP[rows] = 0 + ", {"align", "policy"}),
    "the network of a policy": ("explainers/_policy.py", "SCALE = 50.0", "SCALE = 40.0", {"align", "policy"}),
    "a sampler of text": ("explainers/_generated.py", "TOP_P = 0.9", "TOP_P = 0.8", {"rationale"}),
    "the order of spans": ("explainers/_plackett_luce.py", "descending=True", "descending=False", {*DEBATES, "policy"}),
    "a metric": ("metrics.py", "ranks = rankdata", "ranks = 0 + rankdata", {"analyze"}),
    "language modelling": ("modeling/language_modeling.py", "HIDDEN = 0.15", "HIDDEN = 0.2", {"generative"}),
    "a rule": ("tasks/chess.py", "def at_random(example: Example)", "def at_random(example: Example, more: int = 1)", {"rule"}),
    "a table": ("tables/pgr.py", "CAPTION = ", "CAPTION = 'x' + ", {"analyze"}),
    "a message": ("exceptions.py", "must be {rule}, got", "should be {rule}, but is", set()),
    "the command line": ("cli/app.py", "def ", "def changed() -> None: ...\n\n\ndef ", set()),
    "the cache": ("local/arrays.py", "def ", "def changed() -> None: ...\n\n\ndef ", set()),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_moves_the_results_that_use_it(edit: str, before: dict[str, set[str]], package: Path) -> None:  # noqa: F811
    file, old, new, expected = EDITS[edit]
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new, 1))
    assert changed(before) == expected


def test_another_training_input_is_another_result(before: dict[str, set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is made from a supervisor is another result with another supervisor, and what is not stays what it is."""
    monkeypatch.setattr(supervisor, "VERSION", supervisor.VERSION + 1)
    made = {name for name, found in fingerprints().items() if not before[name] & found}
    students = {"baseline", "confidence", "bootstrap", "random", "facilitate", "probe"}
    assert made == {"supervisor", *students, *DEBATES, "policy", "rationale"}
    assert changed(before) == TRAINED - {"ceiling", "oracle", "generative", "pretrain"}


METRIC = '@metric("added", direction="maximize", description="added")\ndef added(probabilities_NC, gold_N):\n    return 0.0\n'
ADDED = {
    "a loss": ("losses/added.py", "PER_EXAMPLE = True\n", set()),
    "a judge": ("judges/added.py", "def make(options, answer): ...\n", set()),
    "an explainer": ("explainers/added.py", "def make(side): ...\n", set()),
    "a metric": ("metrics.py", METRIC, {"analyze"}),
}
"""Additions with the plans that they change: an analysis has a column for each metric."""


@pytest.mark.parametrize("what", ADDED)
def test_an_addition_moves_no_result_that_lacks_it(what: str, before: dict[str, set[str]], package: Path) -> None:  # noqa: F811
    file, text, expected = ADDED[what]
    with (package / file).open("a") as opened:
        opened.write(f"\n\n{text}")
    assert changed(before) == expected


# --- options ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Old:
    rate: float = 0.1
    loss: None = None


@dataclass(frozen=True, kw_only=True)
class New(Old):
    decay: float = option(default=1.0, introduced=1.0)


@dataclass(frozen=True, kw_only=True)
class Newer(Old):
    decay: float = option(default=2.0, introduced=1.0)


def test_a_new_option_adds_nothing_until_it_has_an_effect() -> None:
    assert options.identity(New()) == options.identity(Old())
    assert options.identity(New(decay=2.0)) == {**options.identity(Old()), "decay": 2.0}
    assert options.identity(Newer()) == options.identity(New(decay=2.0)), "a changed default is another result"
    assert options.identity(Newer(decay=1.0)) == options.identity(Old())


@dataclass(frozen=True, kw_only=True)
class Renamed:
    learning_rate: float = option(default=0.1, formerly="rate")
    loss: None = None


def test_a_renamed_option_is_the_same_result() -> None:
    assert options.identity(Renamed()) == options.identity(Old())
    assert options.identity(Renamed(learning_rate=0.2)) == options.identity(Old(rate=0.2))


def test_a_new_option_of_a_loss_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    config = student.Config(method="confidence").resolved()
    before = options.identity(config)
    confidence = plugin("losses", "confidence", "--loss")

    @dataclass(frozen=True, kw_only=True)
    class Options(confidence.Options):  # type: ignore[name-defined,misc]
        sharpness: float = option(default=1.0, introduced=1.0)

    monkeypatch.setattr(confidence, "Options", Options)
    monkeypatch.setattr(options, "plugin_options", options.plugin_options.__wrapped__)  # not the ones that are known
    assert options.identity(student.Config(method="confidence").resolved()) == before
    sharper = student.Config(method="confidence", loss_options={"sharpness": 2.0}).resolved()
    assert options.identity(sharper)["loss_options"] == before["loss_options"] | {"sharpness": 2.0}


FIRST = Path(__file__).parent / "first_options.txt"
"""The options that were there when identity by values began; any other must say the value that it was introduced with."""


def test_options_that_are_newer_say_how_they_were_introduced() -> None:
    first, known = set(FIRST.read_text().split()), set()
    for stage in plugins("stages"):
        for field in fields(plugin("stages", stage, "the stage").Config):
            if field.metadata.get("result", True):
                known.add(f"{stage}.{field.name}")
                assert f"{stage}.{field.name}" in first or "introduced" in field.metadata, f"--{field.name} of {stage}"
    for folder in ("losses", "judges"):
        for name in plugins(folder):
            for field in fields(plugin(folder, name, "the plug-in").Options):
                known.add(f"{folder}.{name}.{field.name}")
                assert f"{folder}.{name}.{field.name}" in first or "introduced" in field.metadata, f"{field.name} of {name}"
    assert first <= known, "an option that is gone leaves the list"


# --- what runs -------------------------------------------------------------------------------------------------------


def test_all_that_makes_a_student_is_in_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every function of the package that runs while a student is made stands in its source, or makes no result."""
    config = student.Config(method="confidence", eval_split="none", epochs=1, **SMALL)
    supervisor.run(supervisor.Config(eval_split="none", epochs=1, **SMALL))
    roots: list[str] = []
    digests = source.digests

    def noted(given: Iterable[str]) -> dict[str, str]:
        roots.extend(given)
        return digests(given)

    monkeypatch.setattr(source, "digests", noted)
    ran: set[tuple[str, str]] = set()

    def trace(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(source_modules.PACKAGE):
            module = ".".join(path.relative_to(source_modules.PACKAGE).with_suffix("").parts).removesuffix(".__init__")
            ran.add((module, frame.f_code.co_qualname.partition(".")[0]))

    make = weak_finetuning.train
    monkeypatch.setattr(weak_finetuning, "train", lambda *args: traced(trace, make, *args))
    student.run(config)
    reached = set(digests(roots))
    followed = {(module, name) for module, name in ran if not source.is_neutral(module) and name != "<module>"}
    assert len(followed) > 40
    unreached = {f"{module}.{name}" for module, name in followed if name not in source.BY_VALUE} - reached
    assert unreached <= {"losses.AuxiliaryOptions", "models.ModelSpec", "pipeline.context.Context"}, "they hold options"


def traced(trace: Any, make: Callable[..., Any], *args: Any) -> Any:
    sys.setprofile(trace)
    try:
        return make(*args)
    finally:
        sys.setprofile(None)
