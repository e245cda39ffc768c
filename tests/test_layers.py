"""The house: imports point one way, heavy or unsafe libraries stay in their rooms, and `--help` loads none of them."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import w2s_mlflow
from w2s_mlflow import registry

PACKAGE = Path(w2s_mlflow.__file__).parent

LAYERS = (
    {"exceptions", "display"},
    {"registry", "streams", "validation"},
    {"config", "records"},
    {"metrics", "stats", "local", "data.spans", "data.texts", "data.tables", "data.table_formats", "data.user_files"},
    {"distributed"},
    {"tasks", "models", "losses", "judges", "tables", "figures"},
    {"data", "modeling"},
    {"training"},
    {"explainers"},
    {"tracking"},
    {"pipeline", "search"},
    {"methods"},
    {"debate"},
    {"analysis"},
    {"stages"},
    {"cli"},
    {"__main__"},
)
"""Each line may import the lines before it; imports within one package are free. A single module is named in full: judges and
explainers need spans of text, tasks compare texts and read tables, and explainers read a model's heads, which is why they stand
above the other plug-ins."""
PLUGIN_ROOMS = {"losses", "tasks", "models", "judges", "tables", "figures", "explainers"}
EXCEPTIONS = {("figures", "tables")}
"""Figures draw what tables compute."""
LAZY = ("torch", "mlflow", "transformers", "pandas", "scipy", "matplotlib", "accelerate", "datasets", "optuna")
UNSAFE = {"pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}


class Import(NamedTuple):
    """One name that a module of the package imports."""

    module: str
    """The importer, without the package's name: `stages.student`."""
    target: str
    """The whole dotted name that is imported."""
    line: int
    level: int
    """The dots of a relative import."""
    plain: bool
    """Whether it is an `import x` and not a `from x import y`."""

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """The syntax of one file."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of one file, at module level, under TYPE_CHECKING and inside functions."""
    module = module_name(path)
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, 0, True)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(module, f"{node.module or ''}.{alias.name}", node.lineno, node.level, False)


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_name(path) for path in FILES}


@functools.cache
def imports() -> list[Import]:
    """Those of the whole package: not at every collection, for they take a second."""
    return [found for path in FILES for found in imports_of(path)]


def inner(found: Import) -> str | None:
    """The module of this package that is imported ("" for a name of the package itself), or None."""
    if found.target.split(".")[0] != "w2s_mlflow":
        return None
    inside = found.target.split(".")[1:]
    while ".".join(inside) not in MODULES:
        inside.pop()
    return ".".join(inside)


def room(module: str) -> str:
    return module.split(".")[0]


def layer(module: str) -> int:
    """The line of LAYERS that names the module, else the one that names its package."""
    names = (module, room(module))
    return next(height for name in names for height, rooms in enumerate(LAYERS) if name in rooms)


@functools.cache
def edges() -> list[tuple[Import, str]]:
    """Each import of this package's own with the module that it is of."""
    return [(found, target) for found in imports() if (target := inner(found))]


def test_the_walk_sees_imports_at_every_level(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("stages.student", "tracking.results") in {(found.module, target) for found, target in edges()}
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "x.py").write_text("import a.b\nif TYPE_CHECKING:\n    from c import d\ndef f():\n    from . import e\n")
    assert [(found.target, found.level) for found in imports_of(tmp_path / "x.py")] == [("a.b", 0), ("c.d", 0), (".e", 1)]


def test_every_file_stands_in_a_layer() -> None:
    named = set().union(*LAYERS)
    assert {room(module) for module in MODULES - {""}} <= named
    assert {name for name in named if name not in MODULES} <= {"streams"}


def test_imports_point_one_way() -> None:
    wrong = [
        str(found)
        for found, target in edges()
        if room(found.module) != room(target)
        and layer(found.module) <= layer(target)
        and (room(found.module), room(target)) not in EXCEPTIONS
    ]
    assert wrong == []


def test_exceptions_are_needed() -> None:
    assert {(room(found.module), room(target)) for found, target in edges()} >= EXCEPTIONS


def test_no_module_imports_itself_by_a_circle() -> None:
    waiting = {module: {target for found, target in edges() if found.module == module} for module in MODULES}
    while free := {module for module, targets in waiting.items() if not targets}:
        waiting = {module: targets - free for module, targets in waiting.items() if module not in free}
    assert waiting == {}


def test_plug_in_rooms_do_not_import_each_other() -> None:
    wrong = [
        str(found)
        for found, target in edges()
        if {room(found.module), room(target)} <= PLUGIN_ROOMS
        and room(found.module) != room(target)
        and (room(found.module), room(target)) not in EXCEPTIONS
    ]
    assert wrong == []


PRIVATE_OF_OTHERS = {
    ("figures", "pipeline"): "the reliability diagram of one run",
    ("figures", "methods"): "the chain of one student, the trajectory of one weak model",
    ("figures", "analysis"): "a figure as an interactive page",
    ("tasks", "stages"): "pretraining plays the same chess",
    ("explainers", "debate"): "alignment trains the policy of an explainer, and participants encode questions for all of them",
}
"""Which packages read the private files of which plug-ins, and what for."""


def test_private_files_are_imported_in_their_own_package_or_by_those_named() -> None:
    private = [(found, target) for found, target in edges() if target.split(".")[-1].startswith("_") and target != "__main__"]
    others = [(found, target) for found, target in private if room(found.module) != room(target)]
    assert [str(found) for found, target in others if (room(target), room(found.module)) not in PRIVATE_OF_OTHERS] == []
    assert {(room(target), room(found.module)) for found, target in others} == set(PRIVATE_OF_OTHERS)


def test_the_fingerprint_can_follow_every_import() -> None:
    """It reads `from w2s_mlflow... import name`; a relative or plain import of the package would escape it."""
    assert [str(found) for found in imports() if found.level or (found.plain and room(found.target) == "w2s_mlflow")] == []


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("mlflow", {"tracking"}),
        ("optuna", {"search"}),
        ("accelerate", {"training", "distributed"}),
        ("typer", {"cli"}),
        ("click", {"cli"}),
        ("requests", {"tracking", "judges"}),
    ],
)
def test_a_library_is_imported_in_its_packages_only(library: str, allowed: set[str]) -> None:
    assert {room(found.module) for found in imports() if room(found.target) == library} <= allowed


def test_tracking_imports_mlflow_and_search_optuna() -> None:
    assert {("tracking", "mlflow"), ("search", "optuna")} <= {(room(found.module), room(found.target)) for found in imports()}


BARRED = {
    "methods": {"search"},
    "debate": {"search"},
    "analysis": {"search"},
    "modeling": {"tracking"},
    "training": {"tracking"},
}
"""What a package must not import, beyond what the order of the layers says."""


def test_barred_packages_are_not_imported() -> None:
    assert [str(found) for found, target in edges() if room(target) in BARRED.get(room(found.module), ())] == []


def test_stages_are_imported_by_the_command_line_alone() -> None:
    """Searches and grids run a stage by its name, through the registry."""
    assert {room(found.module) for found, target in edges() if room(target) == "stages"} <= {"stages", "cli"}


def test_local_files_know_nothing_of_the_experiment() -> None:
    wrong = [(found, target) for found, target in edges() if room(found.module) == "local" and room(target) != "local"]
    assert [str(found) for found, target in wrong if target not in {"records", "exceptions"}] == []


GOLD = (
    "w2s_mlflow.data.gold",
    "w2s_mlflow.pipeline.ground_truth",
    *(f"w2s_mlflow.records.{name}" for name in ("Gold", "read_gold", "write_gold")),
)
EVALUATORS = {"data", "pipeline", "stages.supervisor", "stages.ceiling", "stages.probe", "stages.errors", "stages.debate"}
READS_GOLD = {
    "methods.labels.gold_subset": "a control takes the ground truth of some rows that ground_truth reads",
    "methods.labels.matched_noise": "a control takes the noise that ground_truth makes",
    "methods.labels.oracle": "a control takes the ground truth that ground_truth reads",
    "methods.labels.random": "a control takes the random labels that ground_truth makes",
    "methods.elicitation": "the best prompt takes the accuracies on supervision that ground_truth measures",
    "methods.weak_finetuning": "a control stops early by the ground truth that ground_truth reads",
    "stages.rule": "a searched rule is fitted on the ground truth of supervision that ground_truth reads, as a supervisor is",
    "analysis.scores": "recomputes each number from the gold that scoring stored beside the predictions",
    "analysis.debate_frames": "recomputes each number from the gold that scoring stored beside the debates",
    "tracking.results": "reads stored predictions with the gold beside them",
}
"""Modules beyond the evaluator's that touch gold, and why."""


def test_gold_is_touched_by_the_evaluator_alone() -> None:
    touching = {found.module for found in imports() if found.target.startswith(GOLD)}
    others = {module for module in touching if module not in EVALUATORS and room(module) not in EVALUATORS}
    assert others == set(READS_GOLD)


def test_nothing_is_pickled() -> None:
    assert [str(found) for found in imports() if room(found.target) in UNSAFE] == []


def test_figures_are_written_by_one_function_that_draws_names_as_they_are() -> None:
    called = {(module_name(path), node.attr) for path in FILES for node in nodes(path) if isinstance(node, ast.Attribute)}
    assert {module for module, name in called if name == "savefig"} == {"figures", "figures._interactive", "search.trials"}


def test_no_code_of_others_is_trusted() -> None:
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, f"{path.name}:{node.value.lineno}"
            if isinstance(node, ast.keyword) and node.arg == "weights_only":
                assert isinstance(node.value, ast.Constant) and node.value.value is True, f"{path.name}:{node.value.lineno}"


def test_the_pure_modules_import_no_tracking_and_no_torch() -> None:
    pure = {"exceptions", "registry", "validation", "config", "records", "metrics", "stats", "data.splits", "data.spans"}
    barred = {"torch", "mlflow", "pandas"}
    assert pure <= MODULES
    assert [str(found) for found in imports() if found.module in pure and room(found.target) in barred] == []


def test_help_of_every_stage_loads_nothing_heavy() -> None:
    code = """
import contextlib, io, json, sys
from w2s_mlflow import registry; from w2s_mlflow.cli import app as cli_app
app = cli_app.app()
with contextlib.redirect_stdout(io.StringIO()) as shown:
    for arguments in ([], *([name] for name in registry.plugins("stages"))):
        app([*arguments, "--help"], standalone_mode=False)
print(json.dumps([sorted(name for name in sys.modules if "." not in name), shown.getvalue().count("Usage")]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    loaded, helps = json.loads(done.stdout)
    assert "typer" in loaded and helps == 1 + len(registry.plugins("stages"))
    assert [name for name in LAZY if name in loaded] == []
