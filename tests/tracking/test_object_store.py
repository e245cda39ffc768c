"""Artifacts in an object store that clients reach themselves: S3's interface, on a real server of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError
from moto.server import ThreadedMotoServer

from tests import servers
from tests.conftest import SMALL, runs
from w2s_mlflow.stages import analyze, student
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.backend.error_messages import failure
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.server
BUCKET = "w2s"


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A bucket, with the environment by which clients find it."""
    keeper = ThreadedMotoServer(ip_address="127.0.0.1", port=servers.free_port(), verbose=False)
    keeper.start()
    address = f"http://127.0.0.1:{keeper.get_host_and_port()[1]}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "of-a-test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        found = boto3.resource("s3", endpoint_url=address).create_bucket(Bucket=BUCKET)
        yield found
    keeper.stop()


@pytest.fixture(scope="module")
def tracking_uri(bucket: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of runs whose artifacts are in the bucket."""
    with servers.mlflow_server(tmp_path_factory.mktemp("server"), artifacts=f"s3://{BUCKET}") as uri:
        yield uri


def trained() -> list[Result]:
    return [student.run(student.Config(strong="chess-121k", weak="chess-27k", seed=seed, **SMALL)) for seed in (0, 1)]


def test_an_analysis_is_the_same_as_from_files(
    experiment: str, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained()
    found = analyze.run(analyze.Config())
    assert found.artifact_uri.startswith(f"s3://{BUCKET}/")
    assert any(entry.key.endswith("/report.html") for entry in bucket.objects.all())
    assert analyze.run(analyze.Config()).run_id == found.run_id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    server.forget()
    trained()
    local = analyze.run(analyze.Config())
    assert not local.artifact_uri.startswith("s3:")
    assert {**local.metrics, "seconds": 0.0} == {**found.metrics, "seconds": 0.0}
    for name in ("pgr", "paired_tests", "agreement"):
        assert local.artifact(f"tables/{name}.csv").read_text() == found.artifact(f"tables/{name}.csv").read_text()


def test_a_lost_object_is_named_in_the_report(
    experiment: str, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = trained()
    for entry in bucket.objects.filter(Prefix=f"{first.artifact_uri.removeprefix(f's3://{BUCKET}/')}/predictions/test"):
        entry.delete()
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "of-another-machine"))
    results.forget(first.run_id)
    report = analyze.run(analyze.Config()).artifact("report.html").read_text()
    assert "Excluded (damaged): 1 run(s)." in report and first.run_id[:8] in report


def test_a_store_out_of_reach_is_one_sentence_and_what_is_finished_stays(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained()
    finished = {run.info.run_id for run in runs() if run.info.status == "FINISHED"}
    for run_id in finished:
        results.forget(run_id)
    address = os.environ["MLFLOW_S3_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{servers.free_port()}")
    with pytest.raises(BotoCoreError) as raised:
        trained()
    assert "the artifact store failed: Could not connect to the endpoint URL" in str(failure(raised.value))
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", address)
    assert all(result.reused for result in trained())
    assert {run.info.run_id for run in runs() if run.info.status == "FINISHED"} == finished


def test_a_missing_package_is_one_sentence() -> None:
    assert "the artifact store needs the package boto3" in str(
        failure(ModuleNotFoundError("No module named 'boto3'", name="boto3"))
    )
    assert failure(ModuleNotFoundError("No module named 'w2s'", name="w2s")) is None
