"""--keep-model: the logged model gives the stored predictions, whenever it was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.pipeline import runs as pipeline_runs
from w2s_mlflow.stages import ceiling, facilitate, student, supervisor
from w2s_mlflow.tracking import logged_model, session
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.usefixtures("experiment")

TINY: dict[str, Any] = SMALL | {"weak": "chess-27k", "epochs": 1}
STAGES: dict[str, Any] = {
    "supervisor": (supervisor.run, supervisor.Config(**TINY)),
    "ceiling": (ceiling.run, ceiling.Config(strong="chess-43k", head="classification", epochs=1, **SMALL)),
    "student": (student.run, student.Config(strong="chess-43k", method="confidence", **TINY)),
    "facilitated": (facilitate.run, facilitate.Config(strong="chess-43k", ceiling="none", **TINY)),
    "zero_shot": (student.run, student.Config(strong="chess-43k", method="zero_shot", head="lm_choice", **TINY)),
}


def keeping(stage: str) -> Result:
    run, config = STAGES[stage]
    found: Result = run(type(config)(**vars(config) | {"keep_model": "always"}))
    return found


def served(found: Result, stage: str) -> np.ndarray[Any, Any]:
    """What MLflow's own loader makes of the test examples."""
    examples = loading.resolve_and_split(STAGES[stage][1].resolved())[1].test
    model = mlflow.pyfunc.load_model(f"models:/{found.tags[pipeline_runs.MODEL]}")
    frame = pd.DataFrame(
        {"segments": [list(e.segments) for e in examples], "candidates": [list(e.candidates) for e in examples]}
    )
    order = found.predictions("test").aligned([example.id for example in examples])
    assert order.ids == tuple(example.id for example in examples)
    return np.asarray(model.predict(frame))


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
def test_the_model_gives_the_stored_predictions(stage: str, later: bool) -> None:
    if later:
        run, config = STAGES[stage]
        assert pipeline_runs.MODEL not in run(config).tags
    made = len(runs())
    found = keeping(stage)
    assert found.reused == later and (len(runs()) == made) == later
    assert np.array_equal(served(found, stage), found.predictions("test").probabilities_NC)
    again = keeping(stage)
    assert again.tags[pipeline_runs.MODEL] == found.tags[pipeline_runs.MODEL]


def test_fitting_once_more_is_planned_and_its_reads_are_counted() -> None:
    first = supervisor.run(supervisor.Config(**TINY))
    with session.planning() as plan:
        keeping("supervisor")
    assert [step.state for step in plan.steps.values()] == ["trained"]
    found = keeping("supervisor")
    name = "gold/supervision/supervision"
    assert server.client().get_run(found.run_id).data.metrics[name] == 2 * first.metrics[name]
    assert found.metrics["gold/test/report"] == first.metrics["gold/test/report"]


@pytest.mark.slow
def test_a_damaged_model_is_made_again(caplog: pytest.LogCaptureFixture) -> None:
    found = keeping("supervisor")
    model = found.tags[pipeline_runs.MODEL]
    location = server.client().get_logged_model(model).artifact_location.removeprefix("file://")
    weights = next(Path(location).rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    again = keeping("supervisor")
    assert again.run_id == found.run_id and again.tags[pipeline_runs.MODEL] != model
    assert "model.safetensors" in caplog.text and logged_model.is_complete(again.tags[pipeline_runs.MODEL])


def test_a_model_that_gives_other_predictions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor.run(supervisor.Config(**TINY))
    build = finetune.build_head
    monkeypatch.setattr(finetune, "build_head", lambda config, **how: build(config, pretrained=False))
    with pytest.raises(ConfigError, match=r"was not kept and cannot be reproduced: .* use --reuse never to train it again"):
        keeping("supervisor")


def test_a_wrong_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="--keep-model must be one of always, never, got 'best'"):
        supervisor.Config(keep_model="best")  # type: ignore[arg-type]


def test_keeping_it_is_no_part_of_the_result() -> None:
    found = keeping("supervisor")
    assert supervisor.run(supervisor.Config(**TINY)).run_id == found.run_id
    assert "keep_model" not in json.loads(found.artifact("fingerprint.json").read_text())["options"]
