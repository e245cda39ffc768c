"""A server that a group shares: MLflow's app `basic-auth`, as docs/how-to/shared-server.md sets it up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import servers
from tests.tracking.test_store import request, text
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import store
from w2s_mlflow.tracking.backend import server

ADMIN = ("admin", "the-admin-password")
PASSWORD = "a-long-password"


@pytest.fixture(scope="module")
def shared_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the users ann and ben, each of whom may edit all experiments."""
    pytest.importorskip("flask_wtf", reason="MLflow's basic-auth app needs mlflow[auth]")
    directory = tmp_path_factory.mktemp("auth")
    settings = f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = sqlite:///{directory}/users.db\nadmin_username = admin\n"
    settings += "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    (directory / "auth.ini").write_text(settings)
    auth = {
        "MLFLOW_AUTH_CONFIG_PATH": str(directory / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key-of-this-test",
    }
    with servers.mlflow_server(directory, auth=auth) as uri:
        for name in ("ann", "ben"):
            user = {"username": name, "password": PASSWORD}
            requests.post(f"{uri}/api/2.0/mlflow/users/create", json=user, auth=ADMIN, timeout=60).raise_for_status()
        yield uri


def use(patch: pytest.MonkeyPatch, uri: str, user: str, password: str = PASSWORD) -> None:
    for name, value in {"URI": uri, "USERNAME": user, "PASSWORD": password}.items():
        patch.setenv(f"MLFLOW_TRACKING_{name}", value)
    patch.setenv("MLFLOW_EXPERIMENT_NAME", "group")
    server.forget()


@pytest.mark.server
def test_users_of_one_server_share_results_and_others_are_refused(
    shared_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    use(monkeypatch, shared_uri, "ann")
    first = store.produce(request(), text())
    use(monkeypatch, shared_uri, "ben")
    found = store.produce(request(), lambda recorder: pytest.fail("what another user has made is made again"))
    assert (found.run_id, found.reused) == (first.run_id, True)
    assert found.artifact("words.txt").read_text() == "whole"
    assert not store.produce(request(1), text()).reused
    use(monkeypatch, shared_uri, "ben", "a-wrong-password")
    with pytest.raises(ConfigError, match=r"401.*MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"):
        server.client()
    server.forget()
