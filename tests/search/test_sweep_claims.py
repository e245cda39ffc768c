"""Grid files: the models and tasks that environment variables choose, and claims on several tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.search import sweep_file

PART = '{"task": "%s", "weak": "w", "strong": ["a", "b"], "above": ["supervisor"]}'


def test_the_text_grid_takes_models_and_tasks_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_TEXT_WEAK", "/models/minilm:2")
    monkeypatch.setenv("W2S_TEXT_STRONG", "/models/one.q4.gguf, owner/two")
    monkeypatch.setenv("W2S_TEXT_TASKS", "sst2,snli")
    module, claim = sweep_file.read("text"), json.loads(sweep_file.claim("text"))
    assert len(module.SETTINGS) == 2 * 2 * len(module.METHODS)
    assert {setting["strong"] for setting in module.SETTINGS} == {"/models/one.q4.gguf", "owner/two"}
    assert {(row["task"], row["weak"], row["strong"]) for row in claim} == {
        (task, "minilm:2", strong) for task in ("sst2", "snli") for strong in ("one.q4", "two")
    }


def test_a_claim_on_several_tasks_is_one_family(tmp_path: Path) -> None:
    file = tmp_path / "grid.py"
    file.write_text(f"SETTINGS = [{{}}]\nCLAIM = [{PART % 'x'}, {PART % 'y'}]\n")
    assert [(row["task"], row["strong"]) for row in json.loads(sweep_file.claim(str(file)))] == [
        ("x", "a"),
        ("x", "b"),
        ("y", "a"),
        ("y", "b"),
    ]


@pytest.mark.parametrize("claim", ["[]", f"[{PART % 'x'}, 3]", f"[[{PART % 'x'}]]"])
def test_a_list_with_anything_else_is_refused(tmp_path: Path, claim: str) -> None:
    file = tmp_path / "grid.py"
    file.write_text(f"SETTINGS = [{{}}]\nCLAIM = {claim}\n")
    with pytest.raises(ConfigError, match=r"CLAIM must be a dictionary .* \(or a list of such dictionaries\), got"):
        sweep_file.claim(str(file))
