"""Mutation testing: change one operator or number of a module at a time, and check whether the module's tests fail.

    pip install -c constraints.txt -e ".[dev,mutation]"
    python benchmarks/mutation.py [--module losses/entropy.py ...] [--limit 50] [--seed 0]

Prints every mutant that passes all tests (a survivor), and one Markdown table. Cosmic Ray makes the mutants. Binary operators
are replaced by one counterpart each, comparisons by every other comparison. Mutants of annotations, of `if TYPE_CHECKING` and
of the `*` before keyword arguments are left out. At most `--limit` mutants of a module are tested, drawn with `--seed`. Tests
run in forked processes on a copy of the working tree.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import gc
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import hypothesis  # noqa: F401  # like mlflow, scipy and torch, imported once instead of in each forked process
import mlflow  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import torch  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
LOSSES = ("tests/losses",)
TESTS = {
    "losses/__init__.py": LOSSES,
    "losses/confidence.py": LOSSES,
    "losses/cross_entropy.py": LOSSES,
    "losses/entropy.py": LOSSES,
    "losses/product.py": LOSSES,
    "losses/window.py": LOSSES,
    "stats.py": ("tests/test_stats.py",),
    "tracking/fingerprint.py": ("tests/tracking/test_fingerprint.py",),
    "tracking/source_syntax.py": ("tests/tracking/test_source.py",),
    "data/splits.py": ("tests/data/test_splits.py",),
    "data/gold.py": ("tests/data/test_gold.py",),
    "records.py:Gold": ("tests/test_records.py",),
}
"""Modules, or one class of a module, with the tests that should fail for each mutant."""
BINARY = {("Add", "Sub"), ("Sub", "Add"), ("Mul", "Div"), ("Div", "Mul"), ("FloorDiv", "Div"), ("Pow", "Mul")}
BINARY |= {("BitOr", "BitAnd"), ("BitAnd", "BitOr")}
IDENTITY = {"Is", "IsNot"}
OPTIONS = ("-x", "--assert=plain", "--basetemp=build", "-p", "no:cacheprovider", "--hypothesis-profile=ci")
"""Options of pytest. Hypothesis' profile `ci` draws the same examples for each mutant."""


class Mutant(NamedTuple):
    """A changed module."""

    line: int
    source: str


def used(operator: str) -> bool:
    """Return whether an operator of Cosmic Ray is used; it is named `core/Kind` or `core/Kind_Old_New`."""
    kind, *change = operator.removeprefix("core/").split("_")
    if get_operator(operator).arguments() or "UAdd" in change:
        return False
    if kind == "ReplaceBinaryOperator":
        return tuple(change) in BINARY
    return kind != "ReplaceComparisonOperator" or len(IDENTITY & set(change)) in (0, 2)


def comparable(source: str) -> str | None:
    """Return a module's syntax tree as text, None for a syntax error; functions have neither annotations nor `*` or `/`."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
            for inner in ast.walk(node):
                if isinstance(inner, ast.AnnAssign):
                    inner.annotation = ast.Constant(None)
            node.args.args = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            node.args.defaults += [default for default in node.args.kw_defaults if default]
            node.args.posonlyargs, node.args.kwonlyargs, node.args.kw_defaults = [], [], []
    return ast.dump(tree)


def mutants(source: str, lines: range) -> list[Mutant]:
    """Return the mutants of the given lines of a module, each once."""
    found, seen = [], {comparable(source), None}
    for name in filter(used, operator_names()):
        operator = get_operator(name)()
        places = [start for node in ast_nodes(get_ast(source)) for (start, _), _ in operator.mutation_positions(node)]
        for occurrence, line in enumerate(places):
            skipped = line not in lines or "TYPE_CHECKING" in source.splitlines()[line - 1]
            mutated = None if skipped else mutate_code(source, operator, occurrence)
            if mutated and (tree := comparable(mutated)) not in seen:
                seen.add(tree)
                found.append(Mutant(line, mutated))
    return sorted(found)


def lines_of(source: str, name: str) -> range:
    """Return the line numbers of a class, or of the whole module for an empty name."""
    nodes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    return range(nodes[0].lineno, (nodes[0].end_lineno or 0) + 1) if name else range(len(source.splitlines()) + 1)


def run_tests(tests: tuple[str, ...], write_bytecode: bool) -> None:
    """Run tests in the current directory and exit with pytest's status."""
    sys.path.insert(0, str(Path.cwd()))
    sys.dont_write_bytecode = not write_bytecode
    with Path(os.devnull).open("w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        code = pytest.main([*OPTIONS, *tests])
    os._exit(code)


def outcome(tests: tuple[str, ...], limit: float | None) -> str:
    """Return `survived` if all tests pass, else `failed` or `timeout`."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(tests, limit is None))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return "timeout"
    return "failed" if process.exitcode else "survived"


def difference(source: str, mutated: str) -> str:
    """Return the changed lines before and after."""
    lines = list(difflib.unified_diff(source.splitlines(), mutated.splitlines(), n=0, lineterm=""))[3:]
    before, after = ([line[1:].strip() for line in lines if line[0] == sign and line[1:]] for sign in "-+")
    return f"{' '.join(before)} -> {' '.join(after)}"


def tested(module: str, limit: int, seed: int) -> str:
    """Test the mutants of a module in the current directory, print the survivors and return the module's row of the table."""
    file, _, name = module.partition(":")
    path, tests = Path("w2s_mlflow") / file, TESTS[module]
    source = path.read_text()
    every = mutants(source, lines_of(source, name))
    chosen = sorted(random.Random(seed).sample(every, min(limit, len(every))))
    started = time.perf_counter()
    if outcome(tests, None) != "survived":
        raise SystemExit(f"the tests of {module} must pass without a mutant: {' '.join(tests)}")
    patience = 10 * (time.perf_counter() - started)
    outcomes = []
    for mutant in chosen:
        path.write_text(mutant.source)
        outcomes.append(outcome(tests, patience))
        if outcomes[-1] == "survived":
            print(f"{module}:{mutant.line}: {difference(source, mutant.source)}", flush=True)
    path.write_text(source)
    counts = [outcomes.count(kind) for kind in ("failed", "timeout", "survived")]
    return "| " + " | ".join(map(str, (module, len(every), len(chosen), *counts))) + " |"


def main() -> None:
    """Test the mutants of each module and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", nargs="*", choices=TESTS, default=list(TESTS))
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = ["| module | mutants | tested | a test fails | timeout | survive |", "|---|---|---|---|---|---|"]
    gc.freeze()  # the forked processes need not visit what is imported here
    with tempfile.TemporaryDirectory() as directory:
        for name in ("w2s_mlflow", "tests"):
            shutil.copytree(ROOT / name, Path(directory, name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", directory)
        os.chdir(directory)
        for module in options.module:
            table.append(tested(module, options.limit, options.seed))
            print(table[-1], flush=True)
    print("", *table, sep="\n")


if __name__ == "__main__":
    main()
