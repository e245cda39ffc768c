"""Serialisation of syntax trees to lists of words, from which the source digests are computed.

The words do not depend on layout, comments, docstrings, annotations, the texts of errors and logs, or the version of Python.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from w2s_mlflow.tracking.source_modules import (
    NAME,
    Definition,
    bound_names,
    imported,
    is_text,
    module_named,
    own_nodes,
    resolve,
)

LOGS, LOG_METHODS = (
    ("LOG", "logging", "warnings"),
    ("debug", "info", "warning", "warn", "error", "exception", "critical", "log"),
)
IGNORED = {"ctx", "kind", "type_comment", "type_params", "annotation", "returns", "simple"}


@dataclass
class Writer:
    """Serialiser of syntax trees to words.

    Empty fields of a syntax tree and fields that do not affect results are skipped. Python versions differ only in such fields,
    so all versions give the same words.
    """

    module: str
    """Module that contains the serialised definition."""
    follows: Callable[[str], bool]
    """Function that takes a module's name and returns whether references to the module's definitions go to `references`."""
    words: list[str] = field(default_factory=list)
    references: list[Definition] = field(default_factory=list)
    scopes: list[tuple[bool, dict[str, str | None]]] = field(default_factory=list)
    """Enclosing scopes, innermost last. Each scope is a pair: whether it is a class, and a dictionary of its names.

    The value of an imported name is the dotted path of the imported object. The value of any other name is None.
    """
    as_message: bool = False
    """Whether the current node is in a `raise` statement or creates an error.

    Strings in such a node are written as the word `message`, so that texts of errors do not change the digest.
    """

    def statements(self, body: Sequence[ast.stmt]) -> None:
        for statement in body:
            if not (is_text(statement) or is_log(statement) or isinstance(statement, (ast.Import, ast.ImportFrom))):
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

    # The methods below serialise nodes that open a new scope.

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.words.append(f"({type(node).__name__} {node.name}")
        self.write(node.decorator_list)
        self.write(node.args)  # default values of arguments are evaluated in the enclosing scope
        self._within(bound_names(node.body) | _arguments(node.args), node.body, node.body)
        self.words.append(")")

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.words.append("(Lambda")
        self.write(node.args)  # default values of arguments are evaluated in the enclosing scope
        self._within(_arguments(node.args), [], [node.body])
        self.words.append(")")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.words.append(f"(ClassDef {node.name}")
        for part in (node.decorator_list, node.bases, node.keywords):
            self.write(part)
        self._within(bound_names(node.body), node.body, node.body, is_class=True)
        self.words.append(")")

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.words.append(f"({type(node).__name__}")
        first = node.generators[0].iter
        self.write(first)  # the first iterable is evaluated in the enclosing scope
        parts: list[Any] = [getattr(node, name) for name in node._fields if name != "generators"]
        for part in node.generators:
            parts += [part.target, *([] if part.iter is first else [part.iter]), part.ifs, part.is_async]
        self._within({name for part in node.generators for name in _targets(part.target)}, [], parts)
        self.words.append(")")

    visit_SetComp = visit_DictComp = visit_GeneratorExp = visit_ListComp

    def _within(self, bound: set[str], imports: Sequence[ast.stmt], nodes: list[Any], *, is_class: bool = False) -> None:
        scope: dict[str, str | None] = dict.fromkeys(bound)
        for statement in imports:
            for node in own_nodes(statement):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    scope.update(imported(node))
        self.scopes.append((is_class, scope))
        self._each(nodes)
        self.scopes.pop()

    # The methods below serialise names and attributes, and collect the references to definitions.

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
        """Return the full dotted path of a module-level or imported name. Return None for a local variable or a builtin."""
        for depth, (is_class, scope) in enumerate(reversed(self.scopes)):
            if name in scope and (depth == 0 or not is_class):
                return scope[name]
        module = module_named(self.module)
        if name in module.statements:
            return ".".join(filter(None, (NAME, self.module, name)))
        return module.imports.get(name)

    def _path(self, name: str, attributes: list[str], node: ast.Name | ast.Attribute) -> None:
        meaning = self._meaning(name)
        if meaning is None:
            self.words.append(f"name {name}")
            return
        definition = resolve(".".join([meaning, *attributes]))
        if definition is None:
            self.words.append(f"foreign {'.'.join([meaning, *attributes])}")
            return
        if self.follows(definition.module):
            self.references.append(definition)
        self.words += ["ours", definition.name, *self._rest(meaning, attributes, definition)]

    def _rest(self, meaning: str, attributes: list[str], definition: Definition) -> list[str]:
        """Return the attributes that follow the definition's name in a dotted reference."""
        path = [*meaning.split("."), *attributes]
        if definition.name not in path:  # the reference is to a whole module, or to a definition re-exported under another name
            return []
        last = len(path) - 1 - path[::-1].index(definition.name)
        return path[last + 1 :]

    # The methods below skip annotations and replace the texts of errors by a placeholder.

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


def is_log(statement: ast.stmt) -> bool:
    """Return whether a statement only logs or warns."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    func = call.func if isinstance(call, ast.Call) else None
    named = isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name)
    return named and func.value.id in LOGS and func.attr in LOG_METHODS  # type: ignore[union-attr]


def _arguments(arguments: ast.arguments) -> set[str]:
    return {node.arg for node in ast.walk(arguments) if isinstance(node, ast.arg)}


def _targets(target: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
