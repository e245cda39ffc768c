"""The command line: one sentence and status 2 for wrong input, one JSON value on standard output."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import mlflow
import pytest
import torch

from tests.conftest import SMALL, runs
from w2s_mlflow import exceptions, registry
from w2s_mlflow.cli import app, arguments, commands
from w2s_mlflow.config import checked_dataclass, plugin_options, sentences
from w2s_mlflow.losses import confidence
from w2s_mlflow.stages import student

SIZES = ["--train-size", str(SMALL["train_size"]), "--test-size", str(SMALL["test_size"])]

WRONG = {
    "studnet": r"the command must be one of align, .*, got 'studnet' \(did you mean student\?\)",
    "student --sed 1": r"the option must be one of --alpha, .*, got '--sed' \(did you mean --seed\?\)",
    "student --seed": r"'--seed' requires an argument",
    "student --seed x": r"--seed must be a whole number, got 'x'",
    "student --seed -1": r"--seed must be in \[0, 4294967296\), got -1",
    "student --task ches": r"--task must be one of .*chess, .*, got 'ches' \(did you mean chess\?\)",
    "student --weak chess-1": r"--weak must be one of .*chess-121k.*, got 'chess-1' \(did you mean chess-121k\?\)",
    "student --method confidense": r"--method must be one of .*, got 'confidense' \(did you mean confidence\?\)",
    "student --method confidence --alpha 2": r"--alpha must be in \[0, 1\], got 2.0",
    "student --method confidence --alpha nan": r"--alpha must be finite, got nan",
    "student --alpha 0.5": r"--alpha is an option of --loss confidence or entropy, not of cross_entropy",
    "student --loss confidence --method baseline": r"--loss must be cross_entropy under --method baseline.*got confidence",
    "student --epochs 0": r"--epochs must be at least 1, got 0",
    "student --epochs 1.5": r"--epochs must be a whole number, got '1.5'",
    "student --batch-size -3": r"--batch-size must be at least 1, got -3",
    "student --train-size -5": r"--train-size must be at least 1, got -5",
    "student --train-size 9999999": r"--train-size must be at most \d+, the number of training rows of this task, got 9999999",
    "student --learning-rate inf": r"--learning-rate must be finite, got inf",
    "student --learning-rate 0": r"--learning-rate must be in \(0, 1e\+30\), got 0",
    "student --head chose": r"--head must be one of auto, classification, lm_choice, reward, got 'chose'",
    "student --task wic --method zero_shot": r"--task must be a task with prompts .* for --labels none, got wic",
    "student --task sst2 --head reward": r"--head must be classification or lm_choice for the task sst2, got reward",
    "student --learning-rate 1e300": r"--learning-rate must be in \(0, 1e\+30\), got 1e\+300",
    "debate --judge model,model": r"--judge must be a comma-separated list without duplicates, got model,model",
    "rows --out nowhere/rows.parquet": r"--out must be a file in an existing directory, got 'nowhere/rows.parquet'",
    "rows --out /dev/null": r"--out must be a file in an existing directory, got '/dev/null'",
    "student confidence": r"options must have the form --name value, got 'confidence' without a name",
    "supervisor --early-stopping weak": r"--early-stopping must be one of gold, none, got 'weak'",
    "rule --rule best": r"--rule must be one of .*random.*, got 'best'",
    "sweep --sweep nothing": r"--sweep must be one of .*, got 'nothing'",
    "main --seeds 4..0": r"--seeds must be a range such as 0..4, .* got '4..0'",
    "analyze": r"there is no finished student to analyse",
    "analyze --filter x": r"--filter must be a valid MLflow filter string, got 'x'",
}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["w2s_mlflow", *arguments])
    app.main()


@pytest.mark.parametrize("line", WRONG)
def test_wrong_input_is_one_sentence_and_status_two(
    line: str, shared: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *line.split())
    printed = capsys.readouterr()
    assert stop.value.code == 2 and printed.out == ""
    assert printed.err.count("\n") == 1 and "Traceback" not in printed.err
    assert re.search(WRONG[line], printed.err), printed.err
    assert runs() == []


def test_a_user_without_a_home_is_told_to_set_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """MLflow asks for the home directory when it is imported."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "runs")
    assert stop.value.code == 2
    assert capsys.readouterr().err == (
        "w2s_mlflow: HOME must be set, because the user of this process is unknown on this machine, got nothing\n"
    )


NO_MEMORY = {
    "a CPU, by torch": RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 4 bytes"),
    "a CPU, by numpy": MemoryError("Unable to allocate 7.28 TiB for an array"),
    "a GPU": type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "a GPU, by cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


@pytest.mark.parametrize("place", NO_MEMORY)
def test_out_of_memory_is_one_sentence_with_the_settings_to_lower(
    place: str, experiment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(config: object) -> None:
        raise NO_MEMORY[place]

    monkeypatch.setattr(student, "run", fails)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "student")
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and printed.count("\n") == 1
    assert printed.startswith("w2s_mlflow: the command ran out of memory: lower --micro-batch or --max-length, set --gradient-")


def test_memory_that_torch_really_lacks_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert "student ran out of memory: lower --micro-batch" in str(exceptions.memory_error(caught.value, "student"))
    assert exceptions.memory_error(RuntimeError("shapes differ"), "student") is None


def test_a_deleted_experiment_is_one_sentence(
    experiment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from w2s_mlflow.tracking.backend import server

    mlflow.delete_experiment(server.experiment().experiment_id)
    server.forget()
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "supervisor", *SIZES)
    assert stop.value.code == 2
    assert f"the experiment '{experiment}' was deleted" in capsys.readouterr().err


def test_json_is_all_that_standard_output_holds(
    experiment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["student", "--method", "confidence", "--weak", "chess-27k", "--strong", "chess-43k", "--epochs", "1", *SIZES]
    run(monkeypatch, *line, "--json")
    first = json.loads(capsys.readouterr().out)
    run(monkeypatch, *line, "--json")
    second = json.loads(capsys.readouterr().out)
    assert set(first) == {"run_id", "inputs", "metrics", "seconds", "reused"}
    assert set(first["inputs"]) == {"weak", "ceiling"}
    assert not first["reused"] and second["reused"] and second["run_id"] == first["run_id"]


def test_the_help_says_what_is_the_default(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "student", "--help")
    text = " ".join(capsys.readouterr().out.split())
    names = {field.name for field in dataclasses.fields(student.Config)} - {"loss_options", "label_options"}
    assert text.count("[default: ") == len([*names, *plugin_options("losses"), *plugin_options("methods.labels"), "reuse"])
    assert re.search(r"--task TEXT [^\[]*\. \[default: chess\]", text) and "--calibrate [true|false]" in text


def test_the_list_of_commands_cuts_no_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, "--help")
    text = "".join(capsys.readouterr().out.split())  # lines may break at spaces and at hyphens
    stages = {name: inspect.getdoc(registry.plugin("stages", name, "stage")) for name in registry.plugins("stages")}
    for name, documentation in (stages | {name: inspect.getdoc(one) for name, one in commands.COMMANDS.items()}).items():
        first = (documentation or "").splitlines()[0]
        assert first.endswith(".") and name + "".join(first.split()) in text


def test_plug_ins_that_share_the_help_of_an_option_are_named_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "student", "--help")
    text = " ".join(capsys.readouterr().out.split())
    for option, default in (("alpha", "auto"), ("warmup", "0.2")):
        help_ = " ".join(sentences(confidence.Options)[option].split())
        assert f"--{option} NUMBER (confidence, entropy; default {default}) {help_}" in text and text.count(help_) == 1


@checked_dataclass
class Sharp:
    power: float = 1.0
    """Exponent."""


@checked_dataclass
class Sharper:
    power: float = 2.0
    """Exponent."""


@checked_dataclass
class Flat:
    power: float = 1.0
    """Exponent of the labels."""


def test_plug_ins_whose_help_or_default_differs_are_listed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"first": Sharp, "flat": Flat, "second": Sharp, "sharper": Sharper}
    monkeypatch.setattr(registry, "plugins", lambda package: tuple(kinds))
    monkeypatch.setattr(registry, "plugin", lambda package, name, option: SimpleNamespace(Options=kinds[name]))
    [parameter] = arguments._plugin_parameters("exponents", "exponent")
    each = (
        "(first, second; default 1.0) Exponent.",
        "(flat; default 1.0) Exponent of the labels.",
        "(sharper; default 2.0) Exponent.",
    )
    assert parameter.name == "power" and parameter.default.help == " ".join([*each, "[default: depends on --exponent]"])


@pytest.mark.parametrize("given", [["--calibrate"], ["--calibrate", "true"], ["--calibrate", "--seed", "3"]])
def test_a_switch_may_stand_alone(given: list[str]) -> None:
    found = arguments.with_boolean_values(["student", *given, "--plan"], student.Config)
    assert found[1:3] == ["--calibrate", "true"] and found.count("true") == 1 and found[-1] == "--plan"
    assert arguments.with_boolean_values(["student", "--calibrate", "false"], student.Config)[-1] == "false"


def test_a_training_that_diverges_says_so_and_fails(
    experiment: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage, model in (("supervisor", "--weak"), ("generative", "--strong")):
        with pytest.raises(SystemExit) as stop:
            run(monkeypatch, stage, model, "chess-27k", "--learning-rate", "1e20", *SIZES)
        assert stop.value.code == 2 and "training diverged; lower --learning-rate" in capsys.readouterr().err
    assert [run.info.status for run in runs()] == ["FAILED"] * 2


def test_ctrl_c_while_options_are_read_is_a_stop(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(arguments, "specified", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "student")
    assert stop.value.code == 130 and "stopped; finished results are kept" in capsys.readouterr().err
