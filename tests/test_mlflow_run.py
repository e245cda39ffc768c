"""The whole way, as a user goes it: `mlflow run` on an empty database, then again; from git; in an environment of its own."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Run

from tests.conftest import SMALL
from tests.test_project import pins
from w2s_mlflow import __version__

ROOT = Path(__file__).parents[1]
SIZES = [f"-P{name}={value}" for name, value in SMALL.items()]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
ADDRESS = "https://git.example/w2s_mlflow"
UV_NAMES = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}
"""Where uv has what pip's configuration calls so: it does not read that."""


def launch(caller: Path, line: Sequence[str], settings: Mapping[str, str], manager: str = "local", status: int = 0) -> str:
    """`mlflow run` with `line`, from the directory `caller`, with no MLflow settings but these; its standard error."""
    caller.mkdir(exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment |= {"PATH": PATH, **settings}
    command = ["mlflow", "run", "--env-manager", manager, *line]
    done = subprocess.run(command, cwd=caller, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr


def published(repository: Path) -> dict[str, str]:
    """Commit the files as they are now, with a version of their own, to `repository`; the settings to find it at ADDRESS."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, repository / name)
    with (repository / "w2s_mlflow" / "__init__.py").open("a") as file:
        file.write('__version__ += "+published"\n')
    who = ["-c", "user.name=test", "-c", "user.email=test@git.example", "-c", "commit.gpgsign=false"]
    for step in (["init", "--quiet"], ["add", "--all"], [*who, "commit", "--quiet", "--message", "As it is now"]):
        subprocess.run(["git", *step], cwd=repository, check=True)
    # To MLflow a directory, also as file://, is no repository: it is run where it is, and never cloned.
    rule = {"GIT_CONFIG_KEY_0": f"url.file://{repository}.insteadOf", "GIT_CONFIG_VALUE_0": ADDRESS}
    return {"GIT_CONFIG_COUNT": "1", **rule}


def result(uri: str, stage: str) -> Run:
    """The only run of `stage`, which every launch points at."""
    runs = mlflow.MlflowClient(uri).search_runs(["0"])
    (found,) = (run for run in runs if run.data.tags["w2s.stage"] == stage)
    launches = {run.data.tags["w2s.result_run_id"] for run in runs if run.data.tags["w2s.stage"] == "launch"}
    assert launches == {found.info.run_id}
    return found


def test_mlflow_run_trains_what_it_needs_and_then_reuses_it(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tiny = [f"-P{name}={value}" for name, value in {"weak": "chess-27k", "strong": "chess-43k", "epochs": 1}.items()]
    line = [str(ROOT), "-e", "student", "-P", "method=confidence", *tiny, *SIZES]
    outputs = [launch(tmp_path, line, {"MLFLOW_TRACKING_URI": uri}) for _ in range(2)]
    assert "trained student chess" in outputs[0] and "reused in" in outputs[1]
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs(["0"])
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_stage: dict[str, list[str]] = {}
    for run in runs:
        by_stage.setdefault(run.data.tags["w2s.stage"], []).append(run.info.run_id)
    assert {stage: len(ids) for stage, ids in by_stage.items()} == {"launch": 2, "supervisor": 1, "ceiling": 1, "student": 1}
    launches = [client.get_run(run_id) for run_id in by_stage["launch"]]
    assert {run.data.tags["w2s.result_run_id"] for run in launches} == set(by_stage["student"])
    student = client.get_run(by_stage["student"][0])
    assert student.data.tags["mlflow.parentRunId"] in by_stage["launch"]
    assert "test/accuracy" in student.data.metrics


@pytest.mark.slow
@pytest.mark.parametrize("store", ["default", "named"])
def test_a_git_repository_runs_its_own_code_into_the_caller_s_store(store: str, tmp_path: Path) -> None:
    repository, clones, caller = tmp_path / "repository", tmp_path / "clones", tmp_path / "caller"
    clones.mkdir()
    database = (caller if store == "default" else tmp_path) / "mlflow.db"
    settings = published(repository) | {"TMPDIR": str(clones)}
    settings |= {} if store == "default" else {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    launch(caller, [ADDRESS, "-e", "rule", *SIZES], settings)  # a rule needs no torch, which takes seconds to load
    run = result(f"sqlite:///{database}", "rule")
    assert run.data.tags["w2s.version"] == f"{__version__}+published"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    assert run.data.tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert Path(run.info.artifact_uri) == caller / "mlruns" / "0" / run.info.run_id / "artifacts"
    assert Path(run.info.artifact_uri, "predictions", "test.parquet").is_file()
    assert list(clones.glob("*/w2s_mlflow")) and not [*clones.rglob("mlflow.db"), *clones.rglob("mlruns")]


@pytest.mark.slow
def test_a_relative_database_is_refused_where_the_project_runs_elsewhere(tmp_path: Path) -> None:
    clones = tmp_path / "clones"
    clones.mkdir()
    settings = published(tmp_path / "repository") | {"TMPDIR": str(clones), "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    printed = launch(tmp_path / "caller", [ADDRESS, "-e", "rule", *SIZES], settings, status=1)
    assert "give an absolute path" in printed and "Traceback" not in printed
    assert not list(clones.rglob("mlflow.db"))


@pytest.mark.slow
def test_parameters_that_the_project_does_not_declare_reach_the_stage(tmp_path: Path) -> None:
    planned = launch(tmp_path, [str(ROOT), "-e", "rule", "-P", "plan=true", *SIZES], {})
    assert "1 to be trained" in planned and "Nothing was started" in planned
    refused = launch(tmp_path, [str(ROOT), "-e", "rule", "-P", "colour=red", *SIZES], {}, status=1)
    assert "the option must be one of" in refused and "got '--colour'" in refused and "Traceback" not in refused
    runs = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db").search_runs(["0"], order_by=["start_time"])
    assert [(run.data.params["test_size"], run.info.status) for run in runs] == [("150", "FINISHED"), ("150", "FAILED")]


def uv_settings() -> dict[str, str]:
    """pip's own settings of where packages are, for uv, read as pip reads them."""
    line = [sys.executable, "-m", "pip", "config", "list"]
    found = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip does, which asks all indexes alike
    for name, value in reversed([entry.split("=", 1) for entry in found]):  # the environment's come first, and count
        if option := UV_NAMES.get(name.rpartition(".")[2]):
            separator = "," if option == "UV_FIND_LINKS" else " "
            settings[option] = separator.join(ast.literal_eval(value).split())
    return settings


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("uv", path=PATH), reason="uv is not on PATH")
def test_uv_makes_the_pinned_environment_once(tmp_path: Path) -> None:
    environments, caller = tmp_path / "environments", tmp_path / "caller"
    settings = uv_settings() | {"MLFLOW_ENV_ROOT": str(environments), "UV_PYTHON_DOWNLOADS": "never"}
    line = [str(ROOT), "-e", "supervisor", *SIZES]
    outputs = [launch(caller, line, settings, manager="uv") for _ in range(2)]
    assert "Creating a new environment" in outputs[0] and "already exists" in outputs[1]
    assert "trained supervisor chess" in outputs[0] and "reused in" in outputs[1]
    (python,) = environments.glob("*/bin/python")
    listed = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout.split()
    installed = {name.lower().replace("_", "-"): version for name, version in (entry.split("==") for entry in listed)}
    assert {name: version.split("+")[0] for name, version in installed.items()}.items() <= pins().items()
    assert "mlflow" in installed and "torch" in installed
    assert result(f"sqlite:///{caller}/mlflow.db", "supervisor").data.tags["w2s.version"] == __version__
