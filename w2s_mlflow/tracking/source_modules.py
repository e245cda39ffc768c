"""Parsing of the modules of w2s_mlflow for the source digests (see source.py).

The functions find the definitions and imports of a module, and resolve dotted paths to definitions.

This module needs only the standard library, so that any version of Python can compute the digests.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parent.parent
NAME = "w2s_mlflow"
ALL = "*"


class Definition(NamedTuple):
    """A top-level name in a module of w2s_mlflow. The name ALL stands for all names of the module."""

    module: str
    name: str


@dataclass(frozen=True)
class Module:
    """Top-level definitions and imports of a module of w2s_mlflow."""

    statements: dict[str, list[ast.stmt]]
    """Lists of statements, by the name that the statements bind. Statements that bind no name have the key ''."""
    imports: dict[str, str]
    """Full dotted path of each imported object, by the name that the import binds."""


@functools.cache
def module_named(name: str) -> Module:
    """Parse a module of w2s_mlflow. Raises KeyError if the module does not exist."""
    content = snapshot(PACKAGE).get(file_of(name))
    if content is None:
        raise KeyError(f"{NAME} has no module {name}")
    module = Module({}, {})
    for statement in ast.parse(content).body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            module.imports.update(imported(statement))
        elif not _for_types(statement) and not is_text(statement):
            for bound in bound_names([statement]) or {""}:
                module.statements.setdefault(bound, []).append(statement)
    return module


Snapshot = Mapping[Path, bytes]
"""Content of each source file, by path."""
_snapshots: dict[Path, Snapshot] = {}
"""The snapshot of each package directory. There is one directory, except in tests."""


def snapshot(package: Path) -> Snapshot:
    """Return the source files of the package as they were when this process, or the one that started it, first asked for them.

    All digests are computed from one snapshot, so a file that is edited later does not change them.
    """
    if package not in _snapshots:
        _snapshots[package] = {path: path.read_bytes() for path in sorted(package.rglob("*.py"))}
    return _snapshots[package]


def adopt(taken: Snapshot) -> None:
    """Use the snapshot of the process that started this one."""
    _snapshots[PACKAGE] = taken


def forget() -> None:
    """Forget the snapshots, so that files are read again."""
    _snapshots.clear()


def changed_file(package: Path) -> Path | None:
    """Return a source file that differs from the snapshot, or None. Comments and layout do not count."""
    before = snapshot(package)
    for path in sorted({*before, *package.rglob("*.py")}):
        with contextlib.suppress(FileNotFoundError):
            now = path.read_bytes()
            if path in before and (now == before[path] or _parsed(now) == _parsed(before[path])):
                continue
        return path
    return None


def _parsed(content: bytes) -> str:
    """Return the syntax tree of a file, or the text of one that is being edited and cannot be parsed."""
    try:
        return ast.dump(ast.parse(content))
    except (SyntaxError, ValueError):
        return repr(content)


def file_of(name: str) -> Path:
    """Return the file of a module of w2s_mlflow. The file of a subpackage is its `__init__.py`."""
    path = PACKAGE.joinpath(*filter(None, name.split(".")))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    """Yield each name that an import binds, and the full dotted path of the imported object."""
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            yield alias.asname or alias.name, f"{statement.module}.{alias.name}"
        else:
            yield alias.asname or alias.name.partition(".")[0], alias.name if alias.asname else alias.name.partition(".")[0]


def resolve(path: str) -> Definition | None:
    """Return the definition to which a dotted path leads, following re-exports. Return None for a path outside w2s_mlflow."""
    package, _, inside = path.partition(".")
    if package != NAME:
        return None
    parts = inside.split(".") if inside else []
    for depth in range(len(parts), -1, -1):
        module, names = ".".join(parts[:depth]), parts[depth:]
        if file_of(module).exists():
            if not names:
                return Definition(module, ALL)
            reexported = module_named(module).imports.get(names[0])
            return resolve(".".join([reexported, *names[1:]])) if reexported else Definition(module, names[0])
    return None


def is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring. A string that documents the field or constant above it also counts."""
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )


def _for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"


NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


def bound_names(body: Sequence[ast.stmt]) -> set[str]:
    """Return the names that statements bind in the current scope, except imports and names declared global or nonlocal."""
    names: set[str | None] = set()
    elsewhere: set[str] = set()
    for node in itertools.chain.from_iterable(map(own_nodes, body)):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, NAMED):
            names.add(node.name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            elsewhere.update(node.names)
    return {name for name in names if name} - elsewhere


def own_nodes(statement: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, without entering nested scopes."""
    yield statement
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
    if not isinstance(statement, (*inner, ast.GeneratorExp)):
        for child in ast.iter_child_nodes(statement):
            yield from own_nodes(child)
