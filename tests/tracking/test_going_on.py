"""Real trainings: a damaged result is made again, and one that was stopped goes on in the same run to the same bits."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.entities import Metric

from tests.conftest import SMALL, runs
from tests.tracking.test_store import beat, status_of
from w2s_mlflow.data import loading
from w2s_mlflow.local import scratch
from w2s_mlflow.stages import student, supervisor
from w2s_mlflow.tracking import heartbeat, results, session, store
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.fingerprint import FingerprintParts
from w2s_mlflow.tracking.recorder import Recorder
from w2s_mlflow.tracking.results import ARTIFACTS, Result
from w2s_mlflow.training import checkpoint

pytestmark = pytest.mark.usefixtures("experiment")

TINY = supervisor.Config(weak="chess-27k", epochs=1, **SMALL)


# --- damage -----------------------------------------------------------------------------------------------------------


def cut_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look again at once."""
    monkeypatch.setattr(store, "POLL", 0.01)


@pytest.mark.shared
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("path", "damage"),
    [
        ("labels/weak_labels.parquet", flip_byte),
        ("predictions/test.parquet", cut_file),
        ("config.json", Path.unlink),
        ("gold/test.parquet", flip_byte),
        ("gold/test.parquet", Path.unlink),
    ],
)
def test_a_damaged_artifact_is_named_and_made_again(
    path: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    first = supervisor.run(TINY)
    labels = first.weak_labels().probabilities_NC
    damage(first.artifact(path))
    with session.changed(wait=False):  # nobody is waited for, though the process that has made it lives
        second = supervisor.run(TINY)
    assert not second.reused and second.run_id != first.run_id
    assert path in caplog.text and first.run_id in caplog.text and "the result will be made again" in caplog.text
    assert status_of(first.run_id) == "FAILED" and path in server.client().get_run(first.run_id).data.tags[store.CORRUPT]
    assert np.array_equal(second.weak_labels().probabilities_NC, labels)
    assert supervisor.run(TINY).run_id == second.run_id


@pytest.mark.slow
def test_a_student_never_learns_from_damaged_labels() -> None:
    weak = supervisor.run(supervisor.Config(**SMALL))
    flip_byte(weak.artifact(results.WEAK_LABELS))
    found = student.run(student.Config(strong="chess-121k", **SMALL))
    assert found.tags["w2s.weak_run_id"] != weak.run_id


@pytest.mark.shared
def test_a_report_that_is_just_written_anew_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process copies the same gold over, and is seen in the middle of it."""
    first = supervisor.run(TINY)
    path = first.artifact("gold/test.parquet")
    content = path.read_bytes()
    path.write_bytes(content[:10])
    monkeypatch.setattr("w2s_mlflow.tracking.store.time.sleep", lambda seconds: path.write_bytes(content))
    assert supervisor.run(TINY).run_id == first.run_id


@pytest.mark.shared
def test_a_report_whose_digests_are_missing_is_made_again() -> None:
    """Killed between the metrics and the tags of a report, which are two requests inside MLflow."""
    first = supervisor.run(TINY)
    server.client().delete_tag(first.run_id, f"{ARTIFACTS}.test")
    again = supervisor.run(TINY)
    assert again.run_id == first.run_id and again.predictions("test").gold_N is not None


def test_reading_a_damaged_artifact_is_refused() -> None:
    found = supervisor.run(TINY)
    cut_file(found.artifact("predictions/selection.parquet"))
    with pytest.raises(results.CorruptArtifactError, match=r"damaged artifact predictions/selection\.parquet"):
        found.predictions("selection")


# --- going on ---------------------------------------------------------------------------------------------------------

LONG: dict[str, Any] = {"epochs": 4, "early_stopping": "none", "checkpoint_every": 4, **SMALL}
LONG |= {"weak": "chess-27k", "report": "none"}


class Dead(BaseException):
    """What ends a training here: no handler of ours knows it, so that nothing is tidied up."""


@contextlib.contextmanager
def dying(step: int, error: type[BaseException]) -> Iterator[None]:
    """Inside, a training ends with `error` after `step` steps."""
    metrics = Recorder.metrics

    def report(self: Recorder, values: dict[str, float], at: int = 0) -> None:
        metrics(self, values, at)
        if at == step and "train/loss" in values:
            raise error

    with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
        patch.setattr(Recorder, "metrics", report)
        yield


@pytest.fixture(scope="module")
def whole(shared: str) -> Result:
    """The uninterrupted training."""
    return supervisor.run(supervisor.Config(seed=1, **LONG))


@pytest.mark.shared
@pytest.mark.usefixtures("tidy")
@pytest.mark.parametrize(("step", "error"), [(4, Dead), (6, KeyboardInterrupt), (11, Dead)])
def test_a_training_goes_on_in_the_same_run_with_the_same_bits(step: int, error: type[BaseException], whole: Result) -> None:
    with session.changed(reuse_since=session.reuse_since("never")):
        with dying(step, error):
            supervisor.run(supervisor.Config(seed=1, **LONG))
        stopped = next(run for run in runs() if run.info.status in ("KILLED", "FAILED"))
        kept = checkpoint.read(scratch.cache_path(stopped.info.run_id))
        assert (kept is None) == (step == 4), "a death at step 4 comes before the checkpoint of step 4 is written"
        again = supervisor.run(supervisor.Config(seed=1, **LONG))
    assert (again.run_id == stopped.info.run_id) == (kept is not None)
    for part in ("validation", "selection", "test"):
        assert np.array_equal(again.predictions(part).probabilities_NC, whole.predictions(part).probabilities_NC)
    assert status_of(again.run_id) == "FINISHED" and not scratch.cache_path(again.run_id).exists()
    for name in ("train/loss", "train/gradient_norm"):
        curve = [(point.step, point.value) for point in history_of(again, name)]
        assert curve == [(point.step, point.value) for point in history_of(whole, name)], "every step is there once"


def history_of(found: Result, name: str) -> list[Metric]:
    points = server.client().get_metric_history(found.run_id, name)
    return sorted(points, key=lambda point: point.step)


@pytest.mark.shared
@pytest.mark.usefixtures("tidy")
def test_a_damaged_checkpoint_is_named_and_not_used(whole: Result, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "w2s_mlflow")
    with session.changed(reuse_since=session.reuse_since("never")):
        with dying(9, KeyboardInterrupt):
            supervisor.run(supervisor.Config(seed=1, **LONG))
        stopped = next(run.info.run_id for run in runs() if run.info.status == "KILLED")
        file = next(scratch.cache_path(stopped).glob("*.safetensors"))
        flip_byte(file)
        again = supervisor.run(supervisor.Config(seed=1, **LONG))
    assert again.run_id == stopped and file.name in caplog.text and "resumed" not in caplog.text
    assert [point.step for point in history_of(again, "train/loss")] == list(range(1, 13))
    assert np.array_equal(again.weak_labels().probabilities_NC, whole.weak_labels().probabilities_NC)


def test_parameters_and_tags_of_a_continued_run_are_those_of_a_new_one() -> None:
    with dying(9, KeyboardInterrupt):
        supervisor.run(supervisor.Config(seed=3, **LONG))
    found = supervisor.run(supervisor.Config(seed=3, **LONG))
    assert found.tags[store.ATTEMPT] == "1" and found.params["epochs"] == "4"
    assert json.loads(found.artifact("fingerprint.json").read_text())["stage"] == "supervisor"
    assert len(runs()) == 1


@pytest.mark.shared
def test_the_parts_are_stored_one_by_one(whole: Result) -> None:
    found = whole
    parts = json.loads(found.artifact("fingerprint.json").read_text())
    assert FingerprintParts(**parts).digest() == found.fingerprint
    assert {"losses.cross_entropy.loss", "training.loop.fit", "data.splits.split_task", "models.chess.load"} <= set(
        parts["source"]
    )
    assert (
        found.tags["w2s.data"]
        == parts["data"]
        == loading.resolve_and_split(supervisor.Config(seed=1, **SMALL).resolved())[1].digest
    )


def test_the_run_of_an_owner_that_is_only_asleep_is_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for dead, its run ended by a stranger, its checkpoint there: it may wake up and go on."""
    with dying(9, KeyboardInterrupt):
        supervisor.run(supervisor.Config(seed=4, **LONG))
    asleep = runs()[0].info.run_id
    kept = scratch.cache_path(asleep)
    monkeypatch.setattr(heartbeat, "STALE", 0.2)
    monkeypatch.setattr(store, "POLL", 0.05)
    server.client().set_tag(asleep, heartbeat.WORKER, str(heartbeat.me()))
    server.client().set_tag(asleep, heartbeat.HEARTBEAT, beat(2 * heartbeat.STALE))
    found = supervisor.run(supervisor.Config(seed=4, **LONG))
    assert found.run_id != asleep and checkpoint.read(kept) is not None
