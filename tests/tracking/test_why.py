"""`why` names the part in which a run differs from its nearest match: what each kind of change is called."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL
from tests.tracking.test_source import package  # noqa: F401  # a copy of the source that a test may edit
from w2s_mlflow import tasks
from w2s_mlflow.data import gold, loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline import ground_truth
from w2s_mlflow.records import Rows
from w2s_mlflow.stages import student, supervisor
from w2s_mlflow.tracking import fingerprint, source
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result
from w2s_mlflow.tracking.why import differences, explain

pytestmark = pytest.mark.usefixtures("tidy")


def config(**options: Any) -> student.Config:
    return student.Config(**{"strong": "chess-121k", "method": "confidence", "epochs": 1, "report": "none", **SMALL, **options})


@pytest.fixture(scope="module")
def first(shared: str) -> Result:
    return student.run(config())


def why(found: Result) -> tuple[str, ...]:
    return explain(found.run_id).differences


def test_another_alpha(first: Result) -> None:
    explanation = explain(student.run(config(loss_options={"alpha": 0.6})).run_id)
    assert explanation.differences == ("option alpha: 0.5 -> 0.6",)
    assert explanation.nearest_run_id == first.run_id


def test_another_seed(first: Result) -> None:
    found = why(student.run(config(seed=1)))
    assert "option seed: 0 -> 1" in found and "input weak: option seed: 0 -> 1" in found
    assert any(
        line.startswith("data: ") and "moved to another part" in line and line.endswith(", out of 1224 rows") for line in found
    )


def edit(package: Path, name: str, old: str, new: str) -> None:  # noqa: F811
    text = (package / name).read_text()
    assert old in text
    (package / name).write_text(text.replace(old, new))
    source.clear()


def test_an_edited_loss(first: Result, package: Path) -> None:  # noqa: F811
    edit(package, "losses/confidence.py", "(1 - a) * labels_NC", "(1 + a) * labels_NC")
    found = student.run(config())
    assert not found.reused
    assert why(found) == ("source losses.confidence.loss was edited",)


def test_a_definition_that_moved_and_was_edited_is_one_line(first: Result, package: Path) -> None:  # noqa: F811
    edit(
        package,
        "losses/confidence.py",
        "from w2s_mlflow.losses import AuxiliaryOptions, weight",
        "from w2s_mlflow.losses import AuxiliaryOptions",
    )
    edit(package, "losses/confidence.py", "PER_EXAMPLE", "def weight(progress, options):\n    return 0.5\n\n\nPER_EXAMPLE")
    assert why(student.run(config())) == ("source losses.confidence.weight was edited",)


def test_editing_the_loss_retrains_students_with_it_only(first: Result, package: Path) -> None:  # noqa: F811
    plain, confident = student.run(config(method="baseline")), first
    edit(package, "losses/confidence.py", "(1 - a) * labels_NC", "(1 + a) * labels_NC")
    edit(package, "tables/pgr.py", "import", "import math as m\nimport")
    assert student.run(config(method="baseline")).run_id == plain.run_id
    again = student.run(config())
    assert again.run_id != confident.run_id
    assert again.tags["w2s.weak_run_id"] == confident.tags["w2s.weak_run_id"]


def test_a_newer_library(first: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fingerprint.libraries()
    monkeypatch.setattr(fingerprint, "libraries", lambda: old | {"torch": "9.9"})
    said = f"library torch: {old['torch']} -> 9.9"
    assert set(why(student.run(config()))) == {said, f"input weak: {said}"}


@pytest.fixture
def changed_row(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """From here on one row of the test part has the other label; its id."""
    task = tasks.find("chess")
    rows, victim = task.load(None), loading.resolve_and_split(config().resolved())[1].test[0].id
    heldout = tuple(dataclasses.replace(row, label=1 - row.label) if row.example.id == victim else row for row in rows.heldout)
    edited = dataclasses.replace(task, load=lambda data_dir: Rows(rows.train, heldout))
    monkeypatch.setattr(tasks, "find", lambda name: edited)
    _clear()
    yield victim
    _clear()


def _clear() -> None:
    for cached in (loading._split, loading._pool, loading._load, gold._labels, ground_truth._row_digests):
        cached.cache_clear()


def test_a_changed_row(first: Result, changed_row: str) -> None:
    found = why(student.run(config()))
    said = f"data: 1 edited (1 of test; the first is {changed_row!r}), out of 1224 rows"
    assert found == (said, f"input weak: {said}")


def test_an_option_of_an_input(first: Result) -> None:
    """An input's own difference is named under its name, however the input came to be another."""
    parts = json.loads(first.artifact("fingerprint.json").read_text())
    other = supervisor.run(supervisor.Config(epochs=5, eval_split="none", **SMALL))
    changed = parts | {"inputs": {"weak": other.fingerprint}}
    assert list(differences(parts, changed)) == ["input weak: option epochs: 2 -> 5"]


def test_the_nearest_match_is_the_one_with_the_fewest_parts_that_differ(first: Result) -> None:
    student.run(config(seed=1))
    near = student.run(config(loss_options={"alpha": 0.6}))
    found = student.run(config(loss_options={"alpha": 0.7, "warmup": 0.3}))
    assert explain(found.run_id).nearest_run_id in (first.run_id, near.run_id)
    found = student.run(config(loss_options={"alpha": 0.6, "warmup": 0.3}))
    assert explain(found.run_id).nearest_run_id == near.run_id


def test_a_run_alone_has_no_match(first: Result) -> None:
    assert explain(first.run_id).nearest_run_id is None and why(first) == ()


def test_a_run_is_found_by_its_name_and_the_launcher_s_by_its_result(first: Result) -> None:
    assert explain(first.name).run_id == first.run_id
    launch = server.client().create_run(
        server.experiment().experiment_id, tags={"w2s.stage": "launch", "w2s.result_run_id": first.run_id}
    )
    assert explain(launch.info.run_id).run_id == first.run_id


def test_what_is_no_result_is_one_sentence(first: Result) -> None:
    with pytest.raises(ConfigError, match=r"RUN must be the id or the name of a run .* got 'nothing'"):
        explain("nothing")
    plain = server.client().create_run(server.experiment().experiment_id, run_name="plain").info.run_id
    with pytest.raises(ConfigError, match="has no fingerprint"):
        explain(plain)


@pytest.mark.slow
def test_the_command_says_it(first: Result) -> None:
    student.run(config(loss_options={"alpha": 0.6}))
    line = [sys.executable, "-m", "w2s_mlflow", "why", first.run_id, "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["differences"] == ["option alpha: 0.6 -> 0.5"]
    assert "differs from the nearest finished run" in done.stderr and "  option alpha: 0.6 -> 0.5" in done.stderr
    wrong = subprocess.run([*line[:-2], "nothing"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "RUN must be" in wrong.stderr and "Traceback" not in wrong.stderr
