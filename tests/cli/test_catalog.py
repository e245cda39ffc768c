"""What is listed: every task and model, what a mirror holds of them, and in what words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.tasks import mirror
from w2s_mlflow import models, tasks
from w2s_mlflow.cli import app, catalog, terminal
from w2s_mlflow.exceptions import ConfigError

SST2 = {"sentence": pa.string(), "label": pa.int64(), "idx": pa.int32()}


@pytest.fixture
def sst2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror that holds one task, where the hub cannot be reached."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("W2S_DATA_DIR", raising=False)
    for split, count in (("train", 60), ("validation", 20)):
        rows = [{"sentence": f"a film {n} of {split}", "label": int(n % 3 == 0), "idx": n} for n in range(count)]
        mirror.write(tmp_path, "nyu-mll/glue/sst2", split, SST2, rows)
    return tmp_path


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "w2s_mlflow", *arguments], capture_output=True, text=True, env=os.environ.copy()
    )


def test_what_a_mirror_holds_is_described_and_the_rest_named(sst2: Path) -> None:
    found = {row["task"]: row for row in catalog.check_tasks(str(sst2))}
    assert {name for name, row in found.items() if row["rows"] is not None} == {"chess", "chess_preference", "sst2"}
    assert set(found) == {task.name for task in tasks.all_tasks()}
    one = found["sst2"]
    assert {name: one[name] for name in ("rows", "positive_class", "groups", "train", "halves", "left out")} == {
        "rows": 80,
        "positive_class": 20 + 7,
        "groups": 80,
        "train": 60,
        "halves": 30,
        "left out": "",
    }

    assert (one["largest group"], one["joined by"], one["dropped"], one["warning"]) == (1, "", "", "")
    assert one["selection"] + one["test"] == 20 and one["longest text"] == len("a film 10 of validation")


def test_joins_drops_and_a_warning_are_reported(sst2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every third held-out row holds a training row; two of the training rows are equal up to punctuation."""
    train = [f"film {n} was good {n * n}" for n in range(60)] + ["film 0 was good, 0!"]
    heldout = [f"I think {train[n]}" if n % 3 == 0 else f"nothing like {n}" for n in range(40)]
    for split, texts in (("train", train), ("validation", heldout)):
        rows = [{"sentence": text, "label": n % 2, "idx": n} for n, text in enumerate(texts)]
        mirror.write(sst2, "nyu-mll/glue/sst2", split, SST2, rows)
    checked = list(catalog.check_tasks(str(sst2)))
    (one,) = (row for row in checked if row["task"] == "sst2")
    assert one["largest group"] == 2 and one["joined by"] == "near-duplicates 1"
    counts = {part.split()[0]: int(part.split()[1]) for part in one["dropped"].split(", ")}
    assert set(counts) == {"selection", "test"} and sum(counts.values()) == 14
    assert "of test contain rows of other parts or are contained in them" in one["warning"]
    terminal.show_checked(checked)
    assert "warning: sst2: " in capsys.readouterr().err


def test_a_table_that_is_not_what_the_task_reads_is_an_error(sst2: Path) -> None:
    mirror.write(sst2, "nyu-mll/glue/sst2", "validation", {"text": pa.string()}, [{"text": "a"}])
    with pytest.raises(ConfigError, match="split validation must have the column sentence, but it has only text"):
        list(catalog.check_tasks(str(sst2)))


def test_every_task_prefix_and_rung_is_listed() -> None:
    names = [row["task"] for row in catalog.task_rows()]
    assert names == [task.name for task in tasks.all_tasks()] + [f"{prefix}:PATH" for prefix in tasks.prefixes()]
    assert [row["model"] for row in catalog.model_rows()] == [spec.name for spec in models.all_specs()]


@pytest.mark.slow
def test_the_commands_print_for_people_or_json(sst2: Path) -> None:
    shown = command("tasks", "--check", "--data-dir", str(sst2))
    assert shown.returncode == 0 and shown.stdout == "" and "not found: " in shown.stderr and "sst2" in shown.stderr
    for name in ("tasks", "models"):
        assert json.loads(command(name, "--json").stdout)


def test_a_mirror_that_is_not_there_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["w2s_mlflow", "tasks", "--check", "--data-dir", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stop:
        app.main()
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and printed.count("\n") == 1
    assert f"--data-dir must be an existing directory, got {tmp_path / 'nowhere'}" in printed


@pytest.mark.slow
def test_rows_are_written_and_a_wrong_option_named(tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    shown = command("rows", "--train-size", "100", "--test-size", "20", "--out", str(out), "--json")
    assert json.loads(shown.stdout)["rows"]["transfer"] == 45 and out.exists()
    wrong = command("rows", "--sed", "1")
    assert wrong.returncode == 2 and "--seed" in wrong.stderr
