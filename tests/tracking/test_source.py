"""The digest of source: what it holds, what it leaves out, and how far it follows references, in made-up modules."""

from __future__ import annotations

import ast
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import source, source_modules


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's source that a test may edit; digests are taken of it instead."""
    copy = tmp_path / "w2s_mlflow"
    shutil.copytree(
        source_modules.PACKAGE, copy, ignore=lambda _, names: [n for n in names if "." in n and not n.endswith(".py")]
    )
    monkeypatch.setattr(source_modules, "PACKAGE", copy)
    source.clear()
    yield copy
    source.clear()


def write(package: Path, name: str, text: str) -> None:
    path = package.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    if not (path.parent / "__init__.py").exists():
        (path.parent / "__init__.py").write_text("")
    path.write_text(textwrap.dedent(text))
    source.clear()


LOOP = '''
    """A loop."""
    import numpy as np
    from w2s_mlflow import made_batches as batches
    from w2s_mlflow.config import must

    RATE: float = 0.1
    """The rate."""
    UNUSED = 3


    def fit(rows: int = 2) -> float:
        """Fit."""
        # Twice.
        if rows < 1:
            raise must("rows", f"at least 1, not {rows}", rows)
        found = [batches.cut(row) for row in range(rows)]
        return np.mean(found) * RATE + step(rows)


    def step(rows):
        assert rows, "there are rows"
        return rows
'''
BATCHES = """
    def cut(row):
        return row * 2
"""


@pytest.fixture
def made(package: Path) -> Path:
    write(package, "made_loop", LOOP)
    write(package, "made_batches", BATCHES)
    return package


def digests(*roots: str) -> dict[str, str]:
    return source.digests(roots or ("made_loop:fit",))


def values(*roots: str) -> list[str]:
    return sorted(digests(*roots).values())


def test_a_root_brings_what_it_refers_to_and_no_more(made: Path) -> None:
    assert set(digests()) == {"made_loop.fit", "made_loop.RATE", "made_loop.step", "made_batches.cut"}
    assert set(digests("made_loop")) == set(digests()) | {"made_loop.UNUSED"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Fit."""', '"""Fit it, another way to say so."""'),
        ('"""The rate."""', ""),
        ('"""A loop."""', '"""The loop."""'),
        ("# Twice.", "# Three times."),
        ('"rows", f"at least 1, not {rows}"', 'f"the {rows}", "must be one or more"'),
        ('"there are rows"', 'f"no {rows}"'),
        ("rows: int = 2) -> float:", "rows=2):"),
        ("RATE: float = 0.1", "RATE = 0.1"),
        ("RATE: float = 0.1", "RATE: float = 1e-1"),
        ("import numpy as np", "import numpy as np, math"),
        ("np.mean(found) * RATE", "(np.mean(found)) * (RATE)"),
        ("        return rows\n", "        LOG.info('%d rows', rows)\n        return rows\n"),
        ("UNUSED = 3", "UNUSED = 4"),
    ],
)
def test_what_has_no_effect_moves_nothing(made: Path, old: str, new: str) -> None:
    before = values()
    assert old in textwrap.dedent(LOOP) or old in LOOP
    write(made, "made_loop", LOOP.replace(old, new))
    assert values() == before


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("0.1", "0.2", "RATE"),
        ("RATE +", "RATE -", "fit"),
        ("rows: int = 2", "rows: int = 3", "fit"),
        ("rows < 1", "rows < 2", "fit"),
        ("raise must(", "raise ValueError(", "fit"),
        ("        assert rows,", "        assert rows > 1,", "step"),
        ("np.mean", "np.median", "fit"),
        ("import numpy as np", "import torch as np", "fit"),
    ],
)
def test_what_has_an_effect_moves_its_definition(made: Path, old: str, new: str, changed: str) -> None:
    before = digests()
    write(made, "made_loop", LOOP.replace(old, new))
    after = digests()
    assert {name for name in before if before[name] != after[name]} == {f"made_loop.{changed}"}


def test_a_moved_module_and_another_way_to_import_it_move_nothing(made: Path) -> None:
    before = values()
    write(made, "rooms.cutting", BATCHES)
    write(
        made,
        "rooms.loop",
        LOOP.replace("from w2s_mlflow import made_batches as batches", "from w2s_mlflow.rooms import cutting"),
    )
    text = (made / "rooms/loop.py").read_text().replace("batches.cut", "cutting.cut")
    write(made, "rooms.loop", text)
    assert values("rooms.loop:fit") == before
    text = text.replace("from w2s_mlflow.rooms import cutting", "from w2s_mlflow.rooms.cutting import cut as slices")
    write(made, "rooms.loop", text.replace("cutting.cut", "slices"))
    assert values("rooms.loop:fit") == before


def test_a_module_may_be_imported_under_its_full_path(made: Path) -> None:
    before = values()
    write(made, "rooms.cutting", BATCHES)
    text = LOOP.replace("from w2s_mlflow import made_batches as batches", "import w2s_mlflow.rooms.cutting")
    write(made, "made_loop", text.replace("batches.cut", "w2s_mlflow.rooms.cutting.cut"))
    assert values() == before and "rooms.cutting.cut" in digests()


def returns(first: str, second: str) -> tuple[str, str]:
    """Two sources of a function f(row) that return different expressions."""
    return f"def f(row):\n    return {first}\n", f"def f(row):\n    return {second}\n"


MEANING = {
    "a base": ("class f(One):\n    pass\n", "class f(Two):\n    pass\n"),
    "an argument of a class": ("class f(One, key=1):\n    pass\n", "class f(One, key=2):\n    pass\n"),
    "a decorator of a class": ("@One\nclass f:\n    pass\n", "@Two\nclass f:\n    pass\n"),
    "a decorator": ("@One\ndef f():\n    pass\n", "@Two\ndef f():\n    pass\n"),
    "an asynchronous function": ("def f():\n    pass\n", "async def f():\n    pass\n"),
    "the default of a lambda": returns("lambda x=1: x", "lambda x=2: x"),
    "the body of a lambda": returns("lambda x: x", "lambda x: -x"),
    "an element of a list": returns("[x for x in row]", "[-x for x in row]"),
    "a list or a set": returns("[x for x in row]", "{x for x in row}"),
    "the key of a dictionary": returns("{x: 1 for x in row}", "{-x: 1 for x in row}"),
    "the value of a dictionary": returns("{x: x for x in row}", "{x: -x for x in row}"),
    "the condition of a comprehension": returns("[x for x in row if x > 1]", "[x for x in row if x > 2]"),
    "a later loop of a comprehension": returns("[x for y in row for x in y]", "[x for y in row for x in -y]"),
    "an attribute of a variable": returns("row.one", "row.two"),
    "the order of attributes": returns("row.one.two.three", "row.two.one.three"),
    "an attribute of a definition": returns("One.first", "One.second"),
    "the order of attributes of a definition": returns("One.first.second.third", "One.second.first.third"),
    "an attribute of another library": returns("np.linalg.norm(row)", "np.linalg.det(row)"),
    "the path into another library": returns("np.linalg.norm(row)", "np.norm.linalg(row)"),
    "a text": returns("'one'", "'two'"),
    "a text with a value": returns("f'{row} one'", "f'{row} two'"),
    "bytes or text": returns("'one'", "b'one'"),
    "an integer or a float": returns("1", "1.0"),
    "the last digit of a float": returns("0.1", "0.10000000000000002"),
    "true or one": returns("True", "1"),
    "the variables that are assigned": ("def f():\n    a = b = 1\n", "def f():\n    a = c = 1\n"),
    "a value beside an annotation": ("def f():\n    a: int = 1\n", "def f():\n    a: int = 2\n"),
    "the class of an error": ("def f():\n    raise ValueError('one')\n", "def f():\n    raise KeyError('one')\n"),
    "a number in an error": ("def f():\n    raise ValueError(1)\n", "def f():\n    raise ValueError(2)\n"),
    "a text after an error": returns("[ValueError('one'), 'one']", "[ValueError('one'), 'two']"),
    "a text in a call": returns("row('one')", "row('two')"),
    "what is printed": ("def f():\n    print('one')\n", "def f():\n    print('two')\n"),
    "a method named like one of a log": ("def f(row):\n    row.warn('one')\n", "def f(row):\n    row.warn('two')\n"),
    "another method of a log": ("def f():\n    LOG.setLevel('one')\n", "def f():\n    LOG.setLevel('two')\n"),
}
"""Pairs of sources that do different things."""
WORDS = {
    "the text of an error that is returned": returns("ValueError('one')", "ValueError('two')"),
    "the text of an error with a prefix": returns("errors.ConfigError('one')", "errors.ConfigError(f'two {row}')"),
    "the text of a rule": returns("must('one', 'two', row)", "must('one', 'three', row)"),
    "the text of an unknown name": returns("unknown('one', row)", "unknown('two', row)"),
    "a warning": ("def f():\n    return 1\n", "def f():\n    warnings.warn('one')\n    return 1\n"),
    "an annotation alone": ("def f():\n    a: int\n    return 1\n", "def f():\n    a: str\n    return 1\n"),
    "an annotation of a variable": ("def f():\n    a: int = 1\n", "def f():\n    a = 1\n"),
    "an import inside": ("def f():\n    return 1\n", "def f():\n    import json\n    return 1\n"),
    "a text in a class": ("class f:\n    a = 1\n", "class f:\n    'One.'\n    a = 1\n    'Two.'\n"),
}
"""Pairs of sources that do the same."""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package without modules, in which a test may write one."""
    monkeypatch.setattr(source_modules, "PACKAGE", tmp_path)
    yield tmp_path
    source.clear()


def digest_of_f(empty: Path, text: str) -> str:
    write(empty, "made_user", f"import numpy as np\n\nOne = 1\nTwo = 1\n\n\n{text}")
    return digests("made_user:f")["made_user.f"]


@pytest.mark.parametrize(("first", "second"), MEANING.values(), ids=MEANING.keys())
def test_a_change_of_meaning_moves_the_digest(empty: Path, first: str, second: str) -> None:
    assert digest_of_f(empty, first) != digest_of_f(empty, second)


@pytest.mark.parametrize(("first", "second"), WORDS.values(), ids=WORDS.keys())
def test_a_change_of_words_does_not_move_the_digest(empty: Path, first: str, second: str) -> None:
    assert digest_of_f(empty, first) == digest_of_f(empty, second)


def test_a_definition_may_move_alone_and_be_passed_on(made: Path) -> None:
    before = values()
    write(made, "made_batches", "from w2s_mlflow.made_slices import cut\n")
    write(made, "made_slices", BATCHES)
    assert values() == before and "made_slices.cut" in digests()


def test_imports_inside_a_function_are_followed(made: Path) -> None:
    before = values()
    text = LOOP.replace("    from w2s_mlflow import made_batches as batches\n", "")
    write(made, "made_loop", text.replace("        # Twice.", "        from w2s_mlflow import made_batches as batches\n"))
    assert values() == before


def test_which_of_two_definitions_of_one_name_is_meant_counts(package: Path) -> None:
    both = "def one():\n    return {first}.weight()\n\n\ndef two():\n    return {second}.weight()\n"
    write(package, "made_a", "def weight():\n    return 1\n")
    write(package, "made_b", "def weight():\n    return 2\n")
    imports = "from w2s_mlflow import made_a, made_b\n"
    write(package, "made_user", imports + both.format(first="made_a", second="made_b"))
    before = values("made_user")
    write(package, "made_user", imports + both.format(first="made_b", second="made_a"))
    assert values("made_user") != before


@pytest.mark.parametrize(
    "body",
    [
        "def f(cut):\n    return cut(1)\n",
        "def f():\n    cut = 1\n    return cut\n",
        "def f():\n    return [cut for cut in range(3)]\n",
        "def f():\n    return (lambda cut: cut)(1)\n",
        "def f():\n    for cut, other in []:\n        pass\n    return cut\n",
        "class f:\n    cut = 1\n    twice = 2 * cut\n",
        "def f():\n    return [row for cut in [] for row in cut]\n",
    ],
)
def test_a_local_name_is_no_reference(made: Path, body: str) -> None:
    write(made, "made_user", f"from w2s_mlflow.made_batches import cut\n\n\n{body}")
    assert set(digests("made_user:f")) == {"made_user.f"}


@pytest.mark.parametrize(
    "body",
    [
        "def f():\n    return [cut(1) for cut in [cut]]\n",
        "def f():\n    return [row for cut in cut for row in []]\n",
        "class f:\n    cut = 1\n\n    def g(self):\n        return cut(2)\n",
        "def f(x=cut):\n    return x\n",
        "@cut\ndef f():\n    pass\n",
        "f = cut\n",
    ],
)
def test_a_name_outside_the_scope_that_binds_it_is_a_reference(made: Path, body: str) -> None:
    write(made, "made_user", f"from w2s_mlflow.made_batches import cut\n\n\n{body}")
    assert "made_batches.cut" in digests("made_user:f")


def test_options_the_store_caches_and_plug_ins_of_others_are_not_followed(package: Path) -> None:
    reached = source.digests(["methods.weak_finetuning:train", "losses.confidence"])
    rooms = {name.split(".")[0] for name in reached}
    assert rooms.isdisjoint({"config", "exceptions", "tracking", "local", "cli", "tables", "figures", "stats"})
    assert {name for name in reached if name.startswith("losses.") and name.count(".") == 2} == {
        f"losses.confidence.{name}" for name in ("PER_EXAMPLE", "Options", "loss", "hardened", "_most_positive")
    }


def test_a_root_that_is_not_there_is_an_error(package: Path) -> None:
    for root in ("nowhere", "training.loop:nothing"):
        with pytest.raises(KeyError, match=r"nowhere|nothing"):
            source.digests([root])


def test_options_of_plug_ins_hold_values_and_checks_only() -> None:
    """They enter by value, so that nothing else may stand in them."""
    for folder in source.PLUGINS:
        for file in (source_modules.PACKAGE / folder).glob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ClassDef) and node.name in source.BY_VALUE:
                    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
                    assert methods <= {"__post_init__"}, f"{folder}/{file.name}: {methods}"


def test_the_serialisation_stays_what_it_is(package: Path) -> None:
    """A digest that changes retrains every store: change this number only with a new major version."""
    write(package, "made_loop", LOOP)
    write(package, "made_batches", BATCHES)
    assert digests()["made_loop.fit"] == "3e330fe3a5af8fa2"


def interpreters() -> list[str]:
    """The other versions of Python on this machine."""
    names = [f"python3.{minor}" for minor in range(12, 16)]
    pyenv = (Path.home() / ".pyenv" / "versions").glob("3.1[2-9]*/bin/python3")
    return [path for name in [*names, *map(str, pyenv)] if (path := shutil.which(name)) and "shims" not in path]


@pytest.mark.skipif(not interpreters(), reason="no other version of Python is installed")
def test_other_versions_of_python_give_the_same_digests() -> None:
    """The modules need the standard library alone, so that any interpreter can import them."""
    roots, root = ["methods.weak_finetuning:train", "tasks.chess", "tracking.source"], str(source_modules.PACKAGE.parent)
    code = f"""if True:
        import sys
        sys.path.insert(0, {root!r})
        from w2s_mlflow.tracking import source
        print(sorted(source.digests({roots}).values()))
    """
    for python in interpreters():
        done = subprocess.run([python, "-B", "-c", code], capture_output=True, text=True, check=True)
        assert ast.literal_eval(done.stdout) == sorted(source.digests(roots).values()), python


def test_a_file_that_is_edited_later_changes_no_digest_and_ends_the_sweep(made: Path) -> None:
    before = digests()
    path = made / "made_batches.py"
    path.write_text(path.read_text() + "# a comment\n")
    source.check_unchanged()
    path.write_text(path.read_text().replace("row * 2", "row * 3"))
    source._digests.cache_clear()
    assert digests() == before, "the digests are those of the code that was there first"
    with pytest.raises(ConfigError, match=r"the source code w2s_mlflow/made_batches\.py changed while it was in use"):
        source.check_unchanged()
    source.clear()
    assert digests() != before


def test_a_worker_has_the_snapshot_of_the_process_that_started_it(made: Path) -> None:
    before, taken = digests(), source_modules.snapshot(made)
    write(made, "made_batches", "def cut(row):\n    return row * 3\n")
    source_modules.adopt(taken)
    assert digests() == before
