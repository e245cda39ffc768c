"""Logged models: nothing pickled, ready only when whole, damage named, the same probabilities wherever they are asked for."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException

from tests import servers, trunks
from w2s_mlflow import models, tasks
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import inference
from w2s_mlflow.modeling.heads import Head, build
from w2s_mlflow.records import Example, Floats
from w2s_mlflow.tracking import logged_model
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import ARTIFACTS, CorruptArtifactError
from w2s_mlflow.training import loop

TASKS = {"lm_choice": "chess", "classification": "chess", "reward": "chess_preference"}
"""The task that each head is asked about."""


def fitted(name: str) -> Head:
    """A head whose weights are not exact in half the precision."""
    loop.seed_everything(0)
    one = build(name, *models.load(models.find("chess-27k", "weak"), pretrained=True), 2).eval()
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return one


def examples(name: str, count: int = 100) -> list[Example]:
    return [row.example for row in tasks.find(TASKS[name]).load(None).heldout[:count]]


def answers(head: Head, asked: Sequence[Example]) -> Floats:
    return inference.probabilities(head, head.encode(asked))


def columns(asked: Sequence[Example]) -> dict[str, list[list[str]]]:
    """What a model is asked, as a table."""
    return {name: [list(getattr(example, name)) for example in asked] for name in ("segments", "candidates")}


def new_run() -> str:
    return str(server.client().create_run(server.experiment().experiment_id).info.run_id)


def directory_of(model_id: str) -> Path:
    """Where a model lies on this machine."""
    return Path(urlparse(server.client().get_logged_model(model_id).artifact_location).path)


@pytest.fixture(scope="module")
def logged(shared: str) -> Callable[[str], str]:
    """The id of the logged model of a head, which is logged once for all who do not change it."""
    return functools.cache(lambda name: logged_model.log(new_run(), fitted(name)))


def statuses() -> list[str]:
    found = server.client().search_logged_models([server.experiment().experiment_id])
    return [str(model.status) for model in found]


# --- what it answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TASKS)
def test_the_pyfunc_answers_as_the_head_did(name: str, logged: Callable[[str], str]) -> None:
    head, asked = fitted(name), examples(name)
    expected = answers(head, asked)
    model_id = logged(name)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    np.testing.assert_array_equal(loaded.predict(pd.DataFrame(columns(asked))), expected)
    few = [7, 99, 8]
    alone = loaded.predict(pd.DataFrame(columns([asked[row] for row in few])))
    assert alone.shape == (3, 2) and alone == pytest.approx(expected[few], abs=1e-6)


def test_the_pyfunc_reads_pairs_as_the_head_did(experiment: str) -> None:
    loop.seed_everything(0)
    head = build("classification", *trunks.bert(), 2, "first", 8).eval()
    asked = [
        Example(text, text, texts) for texts in (("a b", "c d"), ("c d", "a b"), ("a b c d e f", "g")) for text in texts[:1]
    ]
    expected = answers(head, asked)
    assert not np.allclose(expected[0], expected[1])
    model_id = logged_model.log(new_run(), head)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    np.testing.assert_array_equal(loaded.predict(pd.DataFrame(columns(asked))), expected)


@pytest.mark.parametrize("name", TASKS)
def test_a_later_stage_gets_the_head_itself(name: str, logged: Callable[[str], str]) -> None:
    head, asked = fitted(name), examples(name)
    found = logged_model.load(logged(name))
    assert type(found) is type(head)
    np.testing.assert_array_equal(answers(found, asked), answers(head, asked))


@pytest.mark.parametrize(
    ("name", "segments", "candidates", "sentence"),
    [
        ("lm_choice", [], [], "each row must have at least one text in `segments`"),
        ("classification", [[]], [["Qd5"]], "each row must have at least one text in `segments`"),
        ("lm_choice", [["Ke1"]], [[]], r"the same number of words in `candidates`, at least one, got rows with \[0\]"),
        (
            "lm_choice",
            [["Ke1"]] * 2,
            [["Qd5"], ["Qd5", "Kf1"]],
            r"the same number of words in `candidates`, at least one, got rows with \[1, 2\]",
        ),
        (
            "lm_choice",
            [["Ke1"]],
            [["Qd5", "castles"]],
            "single tokens of the vocabulary, but 'castles'",
        ),
        ("reward", [["Ke1"]], [["Qd5"]], r"each row must have two responses in `candidates`, got rows with \[1\]"),
    ],
)
def test_what_a_head_cannot_answer_is_one_sentence(
    name: str, segments: list[list[str]], candidates: list[list[str]], sentence: str, logged: Callable[[str], str]
) -> None:
    model_id = logged(name)
    loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    with pytest.raises(MlflowException, match=sentence) as caught:
        loaded.predict(pd.DataFrame({"segments": segments, "candidates": candidates}))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


# --- what it is -------------------------------------------------------------------------------------------------------


def test_a_model_belongs_to_its_run(experiment: str) -> None:
    client, run_id = server.client(), new_run()
    client.log_param(run_id, "strong", "chess-27k")
    client.set_tag(run_id, "mlflow.source.git.commit", "abc")
    client.set_tag(run_id, "mlflow.note.content", "of the run")
    model_id = logged_model.log(run_id, fitted("lm_choice"), name="student")
    model = client.get_logged_model(model_id)
    assert (str(model.status), model.name, model.source_run_id) == ("READY", "student", run_id)
    assert (model.experiment_id, model.params) == (server.experiment().experiment_id, {"strong": "chess-27k"})
    assert model.tags["mlflow.source.git.commit"] == "abc" and "mlflow.note.content" not in model.tags
    outputs = client.get_run(run_id).outputs
    assert outputs is not None and [output.model_id for output in outputs.model_outputs] == [model_id]
    described = yaml.safe_load((directory_of(model_id) / "MLmodel").read_text())
    assert (described["model_id"], described["run_id"]) == (model_id, run_id)


@pytest.mark.parametrize(("name", "classes"), [("lm_choice", -1), ("classification", 2), ("reward", 2)])
def test_the_signature_says_what_goes_in_and_out(name: str, classes: int, logged: Callable[[str], str]) -> None:
    model_id = logged(name)
    signature = mlflow.models.get_model_info(f"models:/{model_id}").signature
    assert signature is not None
    texts = {"type": "array", "items": {"type": "string"}, "required": True}
    assert signature.inputs.to_dict() == [{**texts, "name": "segments"}, {**texts, "name": "candidates"}]
    probabilities = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": (-1, classes)}}
    assert signature.outputs.to_dict() == [probabilities]


def test_nothing_in_a_model_is_pickled(logged: Callable[[str], str]) -> None:
    directory = directory_of(logged("classification"))
    files = {file.relative_to(directory).as_posix(): file for file in directory.rglob("*") if file.is_file()}
    weights = {name for name in files if name.endswith(".safetensors")}
    assert weights == {"artifacts/head/model.safetensors", "artifacts/head/head.safetensors"}
    for name in weights:
        assert files[name].read_bytes()[8:9] == b"{"
    for name in files.keys() - weights:
        assert files[name].suffix in ("", ".json", ".py", ".txt", ".yaml")
        files[name].read_text(encoding="utf-8")  # a pickle starts with a byte that no text has
    pyfunc = yaml.safe_load(files["MLmodel"].read_text())["flavors"]["python_function"]
    assert Path(pyfunc["model_code_path"]).name == "pyfunc_model.py" and "python_model" not in pyfunc


def test_it_is_pinned_to_what_is_installed_without_looking_for_it(logged: Callable[[str], str]) -> None:
    directory = directory_of(logged("lm_choice"))
    pinned = dict(line.split("==") for line in (directory / "requirements.txt").read_text().split())
    assert pinned.keys() == set(logged_model.NEEDS)
    assert pinned["torch"] == torch.__version__.split("+")[0]


def test_logging_is_quiet(experiment: str, capfd: pytest.CaptureFixture[str]) -> None:
    run_id = new_run()
    capfd.readouterr()
    logged_model.load(logged_model.log(run_id, fitted("lm_choice")))
    assert capfd.readouterr() == ("", "")


# --- ready only when whole --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["artifacts/head/model.safetensors", "artifacts/head/head.safetensors", "MLmodel", "pyfunc_model.py"]
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "lost"])
def test_a_damaged_file_is_named(name: str, damage: str, logged: Callable[[str], str]) -> None:
    model_id = logged("classification")
    logged_model.verify(model_id)
    file = directory_of(model_id) / name
    content = file.read_bytes()
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(content[:-1] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    for use in (logged_model.verify, logged_model.load):
        with pytest.raises(
            CorruptArtifactError, match=f"the logged model {model_id} (has a damaged|is missing its) file {name}"
        ):
            use(model_id)
    file.write_bytes(content)
    logged_model.verify(model_id)


def test_every_file_has_its_digest(experiment: str) -> None:
    model_id = logged_model.log(new_run(), fitted("classification"))
    directory = directory_of(model_id)
    files = {file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file()}
    assert json.loads(server.client().get_logged_model(model_id).tags[ARTIFACTS]).keys() == files
    assert len(files) == 12


def test_a_model_whose_files_are_gone_is_named(experiment: str, tmp_path: Path) -> None:
    model_id = logged_model.log(new_run(), fitted("lm_choice"))
    directory = directory_of(model_id)
    directory.rename(tmp_path / "elsewhere")
    with pytest.raises(CorruptArtifactError, match=f"the files of the logged model {model_id} in {directory} cannot be read: "):
        logged_model.verify(model_id)


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ("log_model_artifacts", OSError("the disk is full")),
        ("log_model_artifacts", KeyboardInterrupt()),
        ("set_logged_model_tags", KeyboardInterrupt()),
        ("log_outputs", OSError("the disk is full")),
    ],
)
def test_a_model_that_was_never_finished_is_refused(
    step: str, error: BaseException, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        seen.extend(statuses())
        raise error

    seen: list[str] = []
    monkeypatch.setattr(server.client(), step, fail)
    with pytest.raises(type(error)):
        logged_model.log(new_run(), fitted("lm_choice"))
    assert (seen, statuses()) == (["PENDING"], ["FAILED"])
    model = server.client().search_logged_models([server.experiment().experiment_id])[0]
    with pytest.raises(ConfigError, match=f"the logged model {model.model_id} is FAILED, not READY"):
        logged_model.load(model.model_id)


def test_a_model_that_is_not_there_is_one_sentence(experiment: str) -> None:
    with pytest.raises(ConfigError, match=r"the logged model m-none cannot be read: .*not found"):
        logged_model.load("m-none")


# --- with real servers ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(model_id: str, directory: Path) -> Iterator[str]:
    """`mlflow models serve` of a logged model; its URL."""
    port = servers.free_port()
    line = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{model_id}", "--env-manager", "local"]
    line += ["--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    log = directory / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(line, cwd=directory, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        servers.wait_until_healthy(f"http://127.0.0.1:{port}/ping", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        servers.end(process)


def post(url: str, asked: dict[str, Any]) -> tuple[int, Any]:
    """The status and the answer of /invocations to a table."""
    rows = [dict(zip(asked, values, strict=True)) for values in zip(*asked.values(), strict=True)]
    body = json.dumps({"dataframe_records": rows}).encode()
    request = urllib.request.Request(f"{url}/invocations", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=servers.DEADLINE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.server
def test_a_served_model_answers_as_the_head_did(experiment: str, tmp_path: Path) -> None:
    head, asked = fitted("lm_choice"), examples("lm_choice")
    model_id = logged_model.log(new_run(), head)
    with serving(model_id, tmp_path) as url:
        status, found = post(url, columns(asked))
        assert status == 200
        np.testing.assert_array_equal(np.array(found["predictions"], dtype=np.float32), answers(head, asked))
        status, refused = post(url, {"segments": [["Ke1"]], "candidates": [["Qd5", "castles"]]})
        assert status == 400 and "single tokens of the vocabulary, but 'castles'" in refused["message"]


@pytest.mark.server
def test_a_model_is_the_same_behind_a_tracking_server(experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, asked = fitted("lm_choice"), examples("lm_choice")
    with servers.mlflow_server(tmp_path) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        server.forget()
        model_id = logged_model.log(new_run(), head)
        np.testing.assert_array_equal(answers(logged_model.load(model_id), asked), answers(head, asked))
        loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
        np.testing.assert_array_equal(loaded.predict(pd.DataFrame(columns(asked))), answers(head, asked))
        stored = next((tmp_path / "artifacts").rglob("model.safetensors"))
        content = stored.read_bytes()
        stored.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(CorruptArtifactError, match=r"a damaged file artifacts/head/model\.safetensors"):
            logged_model.load(model_id)
        stored.unlink()
        with pytest.raises(CorruptArtifactError, match=r"is missing its file artifacts/head/model\.safetensors"):
            logged_model.verify(model_id)
