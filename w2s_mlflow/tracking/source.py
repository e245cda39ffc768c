"""Source digests of a result: one per function, class and constant reachable from its roots.

A digest is computed from the syntax tree, so layout, comments, docstrings, annotations and the texts of errors and logs do not
change it. Definitions are identified by name without their module, so they may move to another module. References to options
and their checks (a Config enters a fingerprint by its values), the store, caches and the command line are not followed, so
edits there do not change the digests of a result.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

PACKAGE = Path(__file__).parent.parent
NAME = "w2s_mlflow"
NEUTRAL = (
    *("config", "exceptions", "registry", "local", "tracking", "training.checkpoint", "search", "analysis", "cli"),
    *("pipeline.options", "pipeline.runs", "pipeline.scoring"),
)
"""Modules and packages that do not affect results: references to them are recorded by name, not followed."""
PLUGINS = ("losses", "tasks", "models", "judges", "explainers", "tables", "figures")
"""Plug-in folders. References to one from outside its folder are not followed; stages list plug-ins they use as roots."""
BY_VALUE = ("Config", "Options")
"""Dataclasses in stages and plug-ins that are fingerprinted by field values (config.identity), not by source."""
LOGS, LOG_METHODS = (
    ("LOG", "logging", "warnings"),
    ("debug", "info", "warning", "warn", "error", "exception", "critical", "log"),
)
IGNORED = {"ctx", "kind", "type_comment", "type_params", "annotation", "returns", "simple"}
LENGTH = 16


class Definition(NamedTuple):
    """A top-level name of a module of the package; the name ALL means all names of the module."""

    module: str
    name: str


ALL = "*"


def digests(roots: Iterable[str]) -> dict[str, str]:
    """Return {"module.name": digest} for each definition reachable from `roots`.

    Args:
        roots: modules of the package ("losses.confidence": all its definitions) or single definitions ("training.loop:fit").

    Raises:
        KeyError: a root is not a module or definition.
    """
    return dict(_digests(tuple(sorted(set(roots)))))


@functools.cache
def _digests(roots: tuple[str, ...]) -> dict[str, str]:
    reached = _reached(roots)
    names = Counter(definition.name for definition in reached)
    found = {}
    for definition in reached:
        tree = _tree(definition)
        # If several definitions share a name, a digest also covers the digest of the definition to which the name refers.
        meant = [_tree(other).digest for other in tree.references if names[other.name] > 1]
        found[f"{definition.module}.{definition.name}"] = _sha(tree.digest, *meant) if meant else tree.digest
    return found


def _reached(roots: Iterable[str]) -> list[Definition]:
    waiting, found = [_root(root) for root in roots], dict[Definition, None]()
    while waiting:
        definition = waiting.pop()
        if definition.name == ALL:
            waiting += [Definition(definition.module, name) for name in _module(definition.module).statements]
        elif definition not in found:
            found[definition] = None
            waiting += _tree(definition).references
            if "" in _module(definition.module).statements:
                waiting.append(Definition(definition.module, ""))
    return sorted(found)


def _root(root: str) -> Definition:
    module, _, name = root.partition(":")
    found = _resolve(".".join(filter(None, (NAME, module, name))))
    if found is None or (name and found.name == ALL):
        raise KeyError(f"{NAME} has no {root}")
    return found


def clear() -> None:
    """Clear the caches after the source files have changed."""
    for cached in (_digests, _module, _tree):
        cached.cache_clear()


# --- modules ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """Top-level definitions and imports of a module of this package."""

    statements: dict[str, list[ast.stmt]]
    """Statements by the name they bind; statements that bind no name have the key ''."""
    imports: dict[str, str]
    """Full dotted path of each imported object, by the name it is imported as."""


@functools.cache
def _module(name: str) -> Module:
    """Parse a module of the package. Raises KeyError if it does not exist."""
    path = _file(name)
    if not path.exists():
        raise KeyError(f"{NAME} has no module {name}")
    found = Module({}, {})
    for statement in ast.parse(path.read_bytes()).body:
        if isinstance(statement, (ast.Import, ast.ImportFrom)):
            found.imports.update(_imported(statement))
        elif not _for_types(statement) and not _is_text(statement):
            for bound in _bound([statement]) or {""}:
                found.statements.setdefault(bound, []).append(statement)
    return found


def _file(name: str) -> Path:
    path = PACKAGE.joinpath(*filter(None, name.split(".")))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
    for alias in statement.names:
        if isinstance(statement, ast.ImportFrom):
            yield alias.asname or alias.name, f"{statement.module}.{alias.name}"
        else:
            yield alias.asname or alias.name.partition(".")[0], alias.name if alias.asname else alias.name.partition(".")[0]


def _resolve(path: str) -> Definition | None:
    """Return the definition at a dotted path, following re-exports; None for a path outside this package."""
    package, _, inside = path.partition(".")
    if package != NAME:
        return None
    parts = inside.split(".") if inside else []
    for cut in range(len(parts), -1, -1):
        module, left = ".".join(parts[:cut]), parts[cut:]
        if _file(module).exists():
            if not left:
                return Definition(module, ALL)
            passed_on = _module(module).imports.get(left[0])
            return _resolve(".".join([passed_on, *left[1:]])) if passed_on else Definition(module, left[0])
    return None


def _is_neutral(module: str) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in NEUTRAL)


def _is_plugin_of_others(module: str, user: str) -> bool:
    folder, _, name = module.partition(".")
    return folder in PLUGINS and bool(name) and not name.startswith("_") and user.partition(".")[0] != folder


# --- one definition --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tree:
    """Digest of a definition's syntax tree, and the definitions it refers to, in order of appearance."""

    digest: str
    references: tuple[Definition, ...]


@functools.cache
def _tree(definition: Definition) -> Tree:
    writer = _Writer(definition.module)
    statements = _module(definition.module).statements.get(definition.name)
    if statements is None:
        raise KeyError(f"{definition.module} defines no {definition.name}")
    if not _is_by_value(definition):
        writer.statements(statements)
    return Tree(_sha(*writer.words), tuple(writer.references))


def _sha(*words: str) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:LENGTH]


@dataclass
class _Writer:
    """Serialiser of syntax trees to words. Fields without effect are skipped, so all Python versions give the same words."""

    module: str
    words: list[str] = field(default_factory=list)
    references: list[Definition] = field(default_factory=list)
    scopes: list[tuple[bool, dict[str, str | None]]] = field(default_factory=list)
    """Enclosing scopes, innermost last: (is it a class, {bound name: path of the imported object, or None if not imported})."""
    as_message: bool = False
    """Whether the current node is in an error message; its strings then become the word `message`."""

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if not (_is_text(statement) or _is_log(statement) or isinstance(statement, (ast.Import, ast.ImportFrom))):
                self.write(statement)

    def write(self, node: Any) -> None:
        """Write a node, a list of nodes or a plain value."""
        special = getattr(self, f"visit_{type(node).__name__}", None)
        if special is not None:
            special(node)
        elif isinstance(node, ast.AST):
            self._fields(node)
        elif isinstance(node, list):
            self._each(node)
        else:
            self.words.append(_plain(node))

    def _fields(self, node: ast.AST, *without: str) -> None:
        self.words.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            if name not in IGNORED and name not in without and value is not None and value != []:
                self.words.append(f".{name}")
                self.write(value)
        self.words.append(")")

    def _each(self, nodes: list[Any]) -> None:
        self.words.append("[")
        if nodes and isinstance(nodes[0], ast.stmt):
            self.statements(nodes)
        else:
            for node in nodes:
                self.write(node)
        self.words.append("]")

    # Scopes.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.words.append(f"({type(node).__name__} {node.name}")
        self.write(node.decorator_list)
        self.write(node.args)  # defaults are evaluated in the enclosing scope
        self._within(_bound(node.body) | _arguments(node.args), node.body, node.body)
        self.words.append(")")

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.words.append("(Lambda")
        self.write(node.args)  # defaults are evaluated in the enclosing scope
        self._within(_arguments(node.args), [], [node.body])
        self.words.append(")")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.words.append(f"(ClassDef {node.name}")
        for part in (node.decorator_list, node.bases, node.keywords):
            self.write(part)
        self._within(_bound(node.body), node.body, node.body, is_class=True)
        self.words.append(")")

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.words.append(f"({type(node).__name__}")
        first = node.generators[0].iter
        self.write(first)  # evaluated in the enclosing scope
        parts: list[Any] = [getattr(node, name) for name in node._fields if name != "generators"]
        for part in node.generators:
            parts += [part.target, *([] if part.iter is first else [part.iter]), part.ifs, part.is_async]
        self._within({name for part in node.generators for name in _targets(part.target)}, [], parts)
        self.words.append(")")

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def _within(self, bound: set[str], imports: Sequence[ast.stmt], nodes: list[Any], *, is_class: bool = False) -> None:
        scope: dict[str, str | None] = dict.fromkeys(bound)
        for statement in imports:
            for node in _own_nodes(statement):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    scope.update(_imported(node))
        self.scopes.append((is_class, scope))
        self._each(nodes)
        self.scopes.pop()

    # Names.

    def visit_Name(self, node: ast.Name) -> None:
        self._path(node.id, [], node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        names: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            names.insert(0, value.attr)
            value = value.value
        if isinstance(value, ast.Name) and self._meaning(value.id):
            self._path(value.id, names, node)
        else:
            self._fields(node)

    def _meaning(self, name: str) -> str | None:
        """Return the full dotted path of a module-level or imported name; None for a local variable or a builtin."""
        for depth, (is_class, scope) in enumerate(reversed(self.scopes)):
            if name in scope and (depth == 0 or not is_class):
                return scope[name]
        module = _module(self.module)
        if name in module.statements:
            return ".".join(filter(None, (NAME, self.module, name)))
        return module.imports.get(name)

    def _path(self, name: str, attributes: list[str], node: ast.Name | ast.Attribute) -> None:
        meaning = self._meaning(name)
        if meaning is None:
            self.words.append(f"name {name}")
            return
        definition = _resolve(".".join([meaning, *attributes]))
        if definition is None:
            self.words.append(f"foreign {'.'.join([meaning, *attributes])}")
            return
        if not _is_neutral(definition.module) and not _is_plugin_of_others(definition.module, self.module):
            self.references.append(definition)
        self.words += ["ours", definition.name, *self._rest(meaning, attributes, definition)]

    def _rest(self, meaning: str, attributes: list[str], definition: Definition) -> list[str]:
        """Return the attributes that follow the definition's name in a dotted reference."""
        path = [*meaning.split("."), *attributes]
        if definition.name not in path:  # a whole module, or re-exported under another name
            return []
        last = len(path) - 1 - path[::-1].index(definition.name)
        return path[last + 1 :]

    # These skip annotations, and replace the texts of messages by a placeholder.

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.words.append("(Assign")
        self.write(node.target)
        if node.value is not None:
            self.write(node.value)
        self.words.append(")")

    def visit_Assign(self, node: ast.Assign) -> None:
        self.words.append("(Assign")
        for target in node.targets:
            self.write(target)
        self.write(node.value)
        self.words.append(")")

    def visit_Raise(self, node: ast.Raise) -> None:
        self._message(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        self._fields(node, "msg")

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name.endswith("Error") or name in ("must", "unknown"):
            self._message(node)
        else:
            self._fields(node)

    def _message(self, node: ast.AST) -> None:
        before, self.as_message = self.as_message, True
        self._fields(node)
        self.as_message = before

    def visit_Constant(self, node: ast.Constant) -> None:
        self.words.append("message" if self.as_message and isinstance(node.value, str) else _plain(node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        if self.as_message:
            self.words.append("message")
        else:
            self._fields(node)


def _plain(value: Any) -> str:
    return f"{type(value).__name__} {value.hex() if isinstance(value, float) else value!r}"


def _is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring or the text under a field or constant."""
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )


def _is_log(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    func = call.func if isinstance(call, ast.Call) else None
    named = isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name)
    return named and func.value.id in LOGS and func.attr in LOG_METHODS  # type: ignore[union-attr]


def _for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and isinstance(statement.test, ast.Name) and statement.test.id == "TYPE_CHECKING"


def _is_by_value(definition: Definition) -> bool:
    return definition.name in BY_VALUE and definition.module.partition(".")[0] in (*PLUGINS, "stages")


def _arguments(arguments: ast.arguments) -> set[str]:
    return {node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)}


NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)


def _bound(body: Sequence[ast.stmt]) -> set[str]:
    """Return the names that statements bind in the current scope, except imports and names declared global or nonlocal."""
    found: set[str | None] = set()
    elsewhere: set[str] = set()
    for node in itertools.chain.from_iterable(map(_own_nodes, body)):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, NAMED):
            found.add(node.name)
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            elsewhere.update(node.names)
    return {name for name in found if name} - elsewhere


def _own_nodes(statement: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a statement, without entering nested scopes."""
    yield statement
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp)
    if not isinstance(statement, (*inner, ast.GeneratorExp)):
        for child in ast.iter_child_nodes(statement):
            yield from _own_nodes(child)


def _targets(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
