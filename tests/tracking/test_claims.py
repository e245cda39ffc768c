"""Claims whose run or experiment a user has deleted, and runs that are found by any name."""

from __future__ import annotations

import re
from typing import Any

import mlflow
import pytest

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import claims, lifecycle, results
from w2s_mlflow.tracking.backend import server

pytestmark = pytest.mark.usefixtures("experiment")


def use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an experiment the current one."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    server.forget()


def home() -> Any:
    """The experiment that holds the current lock run."""
    return server.client().get_experiment(server.client().get_run(claims.lock_run_id()).info.experiment_id)


def test_what_is_advised_for_deleted_claims_works(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(claims.claim("one", 0), claims.Claim)
    deleted = home()
    server.client().delete_experiment(deleted.experiment_id)
    try:
        command = f"`mlflow experiments restore -x {deleted.experiment_id}`"
        advice = f"the experiment '{deleted.name}', which holds the claims of .*{command}"
        with pytest.raises(ConfigError, match=advice):
            claims.claim("two", 0)
        use(f"{experiment} another", monkeypatch)
        assert isinstance(claims.claim("one", 0), claims.Claim)
        assert home().name != deleted.name and home().name.startswith(claims.HOME)
    finally:
        server.client().restore_experiment(deleted.experiment_id)
    use(experiment, monkeypatch)
    assert isinstance(claims.claim("two", 0), claims.Claim)


def test_a_deleted_lock_run_is_named_and_can_be_restored() -> None:
    claims.claim("one", 0)
    server.client().delete_run(claims.lock_run_id())
    with pytest.raises(ConfigError, match=rf"`mlflow runs restore --run-id {claims.lock_run_id()}`"):
        claims.claim("two", 0)
    server.client().restore_run(claims.lock_run_id())
    assert isinstance(claims.claim("two", 0), claims.Claim)


def test_a_purged_lock_run_is_replaced() -> None:
    """`mlflow gc` removes it for good. The owner of a claim can still seal, and only one process can."""
    owner = claims.claim("one", 0)
    assert isinstance(owner, claims.Claim)
    lost = claims.lock_run_id()
    server.client().delete_run(lost)
    store: Any = mlflow.MlflowClient()._tracking_client.store
    store._hard_delete_run(lost)
    assert isinstance(claims.claim("one", 1), claims.Claim)
    assert claims.lock_run_id() != lost
    assert not owner.seal("0" * 32)


@pytest.mark.parametrize(
    "name", ['on file:bob\'s "first".csv', "data[old] 100%_`x`\\", "long " + "x/" * 200, "\x1b[2J und ümlaut"]
)
def test_a_run_is_found_by_the_name_that_it_was_given_and_by_the_one_that_is_shown(name: str) -> None:
    with lifecycle.plain(name, "test", {"path": name}, "") as recording:
        recording.metrics({f"probe/{name}/gain": 0.5})
    with lifecycle.plain(re.sub("[^a-z]", "-", name), "test", {}, ""):
        pass
    found = results.find(name)
    assert found.run_id == recording.run_id == results.find(found.name).run_id
    assert len(found.name) <= 250 and 0.5 in found.metrics.values()


def test_a_password_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_ENDPOINT_KEY", "Tr0ub4dor-key")
    uri = "postgresql://ann:hunter22@db/x"
    with lifecycle.plain(f"on {uri}", "test", {"storage": uri, "key": "Tr0ub4dor-key"}, f"From {uri}.") as recording:
        recording.tags["w2s.place"] = uri
    stored = repr(server.client().get_run(recording.run_id).to_dictionary())
    assert "hunter22" not in stored and "Tr0ub4dor-key" not in stored and stored.count("ann:***@db/x") >= 4


def test_an_unknown_run_names_the_option() -> None:
    with pytest.raises(ConfigError, match=r"--teacher must be the id or the name of a run of experiment .*, got 'nan'"):
        results.find("nan", "teacher")
