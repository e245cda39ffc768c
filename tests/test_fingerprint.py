"""Each part of a fingerprint counts, nothing else does, and a module's source counts where it is imported."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from w2s_mlflow.config import canonical_json
from w2s_mlflow.tracking import fingerprint
from w2s_mlflow.tracking.fingerprint import Parts

PARTS = Parts(
    stage="student",
    version=1,
    options={"epochs": 2, "loss_options": {"alpha": 0.5}},
    data="d",
    inputs={"weak": "w", "other": "o"},
    libraries={"torch": "2.13", "transformers": "5.23"},
    source={"train": "t", "heads": "h"},
    weights="r",
)
OTHER: dict[str, Any] = {
    "stage": "ceiling",
    "version": 2,
    "options": {"epochs": 2, "loss_options": {"alpha": 0.75}},
    "data": "e",
    "inputs": {"weak": "o", "other": "w"},
    "libraries": {"torch": "2.14", "transformers": "5.23"},
    "source": {"train": "t", "heads": "i"},
    "weights": "",
}

METHOD = ("train", "predict", "heads", "split", "losses.confidence", "tasks.chess", "models.chess")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's source that a test may edit; the fingerprint reads it instead."""
    copy = tmp_path / "w2s_mlflow"
    shutil.copytree(fingerprint.PACKAGE, copy, ignore=lambda _, names: [n for n in names if "." in n and not n.endswith(".py")])
    monkeypatch.setattr(fingerprint, "PACKAGE", copy)
    fingerprint._module.cache_clear()
    yield copy
    fingerprint._module.cache_clear()


def edited(package: Path, name: str, roots: tuple[str, ...] = METHOD) -> set[str]:
    """The modules whose digests change when the file `name` gets a line more."""
    before = fingerprint.source(roots)
    with (package / name).open("a", encoding="utf-8") as file:
        file.write("\n# a line more\n")
    fingerprint._module.cache_clear()
    after = fingerprint.source(roots)
    assert before.keys() == after.keys()
    return {module for module in before if before[module] != after[module]}


def test_other_holds_every_part() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(Parts)}


@pytest.mark.parametrize("part", OTHER)
def test_each_part_changes_the_digest(part: str) -> None:
    assert dataclasses.replace(PARTS, **{part: OTHER[part]}).digest() != PARTS.digest()


def test_digests_of_single_changes_differ_from_each_other() -> None:
    digests = {dataclasses.replace(PARTS, **{part: value}).digest() for part, value in OTHER.items()}
    assert len(digests) == len(OTHER)


def test_order_of_keys_does_not_matter() -> None:
    turned: dict[str, Any] = {
        name: dict(reversed(list(value.items()))) for name, value in vars(PARTS).items() if isinstance(value, dict)
    }
    other = dataclasses.replace(PARTS, **turned)
    assert [list(value) for value in turned.values()] != [list(getattr(PARTS, name)) for name in turned]
    assert other.digest() == PARTS.digest()


def test_a_digest_is_32_hexadecimal_digits_and_the_same_in_every_process() -> None:
    assert len(PARTS.digest()) == 32 and set(PARTS.digest()) <= set("0123456789abcdef")
    text = '{"data":"d","inputs":{},"libraries":{},"options":{"a":1},"source":{},"stage":"s","version":1,"weights":""}'
    assert Parts("s", 1, {"a": 1}, "d", {}, {}, {}).digest() == hashlib.sha256(text.encode()).hexdigest()[:32]


def test_parts_are_plain_enough_to_be_kept_as_json() -> None:
    assert '"weights":"r"' in canonical_json(dataclasses.asdict(PARTS))


def test_libraries_are_named_by_major_and_minor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "version", {"torch": "2.13.1+cpu", "transformers": "5.23.0"}.__getitem__)
    assert fingerprint.libraries() == {"torch": "2.13", "transformers": "5.23"}


def test_source_follows_imports() -> None:
    assert {"train", "heads", "config", "records"} <= set(fingerprint.source(["train"]))
    assert set(fingerprint.source(["records"])) == {"records"}
    assert set(fingerprint.source(["losses.cross_entropy"])) == {"losses.cross_entropy"}


def test_a_plug_in_brings_the_room_whose_names_it_uses() -> None:
    assert {"tasks.chess", "tasks", "tasks._chess_play", "records"} <= set(fingerprint.source(["tasks.chess"]))
    assert {"models.chess", "models"} <= set(fingerprint.source(["models.chess"]))


def test_a_trained_result_does_not_hang_on_what_reports_it() -> None:
    rooms = {module.split(".")[0] for module in fingerprint.source(METHOD)}
    assert rooms.isdisjoint({"tables", "figures", "stages", "tracking", "metrics", "stats", "cli"})


def test_order_of_roots_does_not_matter() -> None:
    assert fingerprint.source(METHOD) == fingerprint.source(reversed(METHOD))


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("train.py", "train"),
        ("config.py", "config"),
        ("losses/confidence.py", "losses.confidence"),
        ("tasks/__init__.py", "tasks"),
        ("tasks/_chess_play.py", "tasks._chess_play"),
    ],
)
def test_an_edit_changes_the_digest_of_its_own_module(package: Path, file: str, module: str) -> None:
    assert edited(package, file) == {module}


@pytest.mark.parametrize("file", ["tables/pgr.py", "stages/student.py", "cli.py", "stats.py", "losses/cross_entropy.py"])
def test_an_edit_elsewhere_changes_nothing(package: Path, file: str) -> None:
    assert edited(package, file) == set()


@pytest.mark.parametrize(
    ("file", "students"),
    [
        ("losses/confidence.py", {"confidence"}),
        ("losses/cross_entropy.py", {"baseline"}),
        ("heads.py", {"confidence", "baseline"}),
        ("records.py", {"confidence", "baseline"}),
        ("metrics.py", set()),
    ],
)
def test_an_edit_retrains_only_those_whose_result_it_makes(package: Path, file: str, students: set[str]) -> None:
    losses = {"confidence": "losses.confidence", "baseline": "losses.cross_entropy"}
    roots = {name: ("train", "predict", "heads", "split", loss) for name, loss in losses.items()}
    digests = {name: dataclasses.replace(PARTS, source=fingerprint.source(modules)).digest() for name, modules in roots.items()}
    edited(package, file)
    after = {name: dataclasses.replace(PARTS, source=fingerprint.source(modules)).digest() for name, modules in roots.items()}
    assert {name for name in roots if digests[name] != after[name]} == students


def test_imports_inside_functions_and_of_rooms_are_followed(package: Path) -> None:
    (package / "made_up.py").write_text(
        "from w2s_mlflow import losses, stats\n\n\ndef late() -> None:\n    from w2s_mlflow.tables.pgr import table\n"
    )
    found = set(fingerprint.source(["made_up"]))
    assert {"made_up", "losses", "stats", "tables.pgr", "tables"} <= found
