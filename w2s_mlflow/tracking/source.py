"""Source digests of a result: one for each function, class and constant that the result's code uses, directly or not.

A stage lists the roots of its code: modules and definitions from which references to other definitions are followed. A digest
is computed from the syntax tree, so layout, comments, docstrings, annotations and the texts of errors and logs do not change
it. Definitions are identified by name without their module, so they may move to another module. Some code is excluded, so that
edits of it do not change the digests: options and their checks (the fingerprint contains the values of the options), the
storage in MLflow, the caches and the command line. References to excluded code are not followed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import source_modules
from w2s_mlflow.tracking.source_modules import ALL, NAME, Definition, module_named, resolve
from w2s_mlflow.tracking.source_syntax import Writer

NEUTRAL = (
    *("config", "validation", "exceptions", "registry", "local", "tracking", "search", "analysis", "cli"),
    *("training.checkpoint", "pipeline.options", "pipeline.runs", "pipeline.scoring", "pipeline.fit_check"),
)
"""Modules and packages of w2s_mlflow that do not affect results. If a definition refers to a name in one of them, its digest
covers this name but not the definition itself."""
PLUGINS = ("losses", "tasks", "models", "judges", "explainers", "tables", "figures")
"""Folders of plug-ins. If code outside a folder refers to a plug-in in it, the reference is not followed: otherwise a result
would depend on plug-ins that it does not use. Instead, each stage lists the plug-ins that it uses as roots."""
BY_VALUE = ("Config", "Options")
"""Names of the dataclasses that define the options of stages and plug-ins. A fingerprint contains the values of their fields
(see `config.identity`), not digests of their source."""
LENGTH = 16


def digests(roots: Iterable[str]) -> dict[str, str]:
    """Return the digest of each definition that is reachable from `roots`, by dotted path (such as "training.loop.fit").

    Args:
        roots: modules of the package, such as "losses.confidence", or single definitions, such as "training.loop:fit". A module
            stands for all its definitions.

    Raises:
        KeyError: a root is not a module or definition.
    """
    return dict(_digests(tuple(sorted(set(roots)))))


@functools.cache
def _digests(roots: tuple[str, ...]) -> dict[str, str]:
    reached = _reached(roots)
    names = Counter(definition.name for definition in reached)
    digest_by_path = {}
    for definition in reached:
        tree = _tree(definition)
        # A definition's digest covers the names of the definitions that it refers to, but not their modules. If several reached
        # definitions have the same name, the digest also covers the digest of the one that is referred to.
        referenced = [_tree(other).digest for other in tree.references if names[other.name] > 1]
        digest_by_path[f"{definition.module}.{definition.name}"] = _sha(tree.digest, *referenced) if referenced else tree.digest
    return digest_by_path


def _reached(roots: Iterable[str]) -> list[Definition]:
    pending, reached = [_root(root) for root in roots], dict[Definition, None]()
    while pending:
        definition = pending.pop()
        if definition.name == ALL:
            pending += [Definition(definition.module, name) for name in module_named(definition.module).statements]
        elif definition not in reached:
            reached[definition] = None
            pending += _tree(definition).references
            if "" in module_named(definition.module).statements:
                pending.append(Definition(definition.module, ""))
    return sorted(reached)


def _root(root: str) -> Definition:
    module, _, name = root.partition(":")
    definition = resolve(".".join(filter(None, (NAME, module, name))))
    if definition is None or (name and definition.name == ALL):
        raise KeyError(f"{NAME} has no module or definition {root}")
    return definition


def check_unchanged() -> None:
    """Check that the source code on disk is still that of this process, whose digests its results carry.

    Python imports modules when they are first needed, so a process would mix old code with edited code.

    Raises:
        ConfigError: a source file has changed.
    """
    changed = source_modules.changed_file(source_modules.PACKAGE)
    if changed is not None:
        name = changed.relative_to(source_modules.PACKAGE.parent)
        raise ConfigError(
            f"the source code {name} changed while it was in use, so later results would not come from the code that their "
            "fingerprint names: start the command again (finished results are reused)"
        )


def clear() -> None:
    """Clear the caches. This is necessary after source files have changed."""
    for cached in (_digests, module_named, _tree):
        cached.cache_clear()
    source_modules.forget()


@dataclass(frozen=True)
class Tree:
    """Digest of a definition's syntax tree, and the definitions that it refers to, in order of appearance."""

    digest: str
    references: tuple[Definition, ...]


@functools.cache
def _tree(definition: Definition) -> Tree:
    writer = Writer(definition.module, functools.partial(_is_followed, user=definition.module))
    statements = module_named(definition.module).statements.get(definition.name)
    if statements is None:
        raise KeyError(f"{definition.module} has no definition {definition.name}")
    if not _is_by_value(definition):
        writer.statements(statements)
    return Tree(_sha(*writer.words), tuple(writer.references))


def _is_by_value(definition: Definition) -> bool:
    return definition.name in BY_VALUE and definition.module.partition(".")[0] in (*PLUGINS, "stages")


def _sha(*words: str) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:LENGTH]


def _is_followed(module: str, user: str) -> bool:
    """Return whether references from module `user` into `module` are followed."""
    return not is_neutral(module) and not _is_plugin_of_others(module, user)


def is_neutral(module: str) -> bool:
    """Return whether NEUTRAL lists the module or a package that contains it."""
    return any(module == room or module.startswith(f"{room}.") for room in NEUTRAL)


def _is_plugin_of_others(module: str, user: str) -> bool:
    folder, _, name = module.partition(".")
    return folder in PLUGINS and bool(name) and not name.startswith("_") and user.partition(".")[0] != folder
