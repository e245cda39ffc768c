"""The look at the hub: once, and only where nothing else says how it is reached."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from w2s_mlflow.local import hub


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody has looked yet, and nothing is set; what a look sets is undone."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    hub.detect_offline.cache_clear()
    yield
    hub.detect_offline.cache_clear()


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this machine that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def offline() -> bool:
    assert constants.HF_HUB_OFFLINE is (os.environ["HF_HUB_OFFLINE"] == "1")
    return constants.HF_HUB_OFFLINE


def test_hub_that_answers_is_used(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    hub.detect_offline()
    assert not offline()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:{port}", "https://no-such-host.invalid"])
def test_hub_that_does_not_answer_is_left_alone(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint.format(port=closed_port()))
    hub.detect_offline()
    assert offline()


def test_proxy_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    # The hub may be out of reach of a socket and within that of the proxy.
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy.invalid"})
    hub.detect_offline()
    assert not offline()


def test_an_exception_to_proxies_is_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"no": "localhost"})
    hub.detect_offline()
    assert offline()


def test_who_is_offline_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_answers", lambda _: pytest.fail("looked"))
    hub.detect_offline()


def test_one_look_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(hub, "_answers", lambda endpoint: not looks.append(endpoint))  # type: ignore[func-returns-value]
    hub.detect_offline()
    hub.detect_offline()
    assert looks == [constants.ENDPOINT]


@pytest.mark.parametrize(("endpoint", "port"), [("https://hub.example", 443), ("http://hub.example:8080/path", 8080)])
def test_port_is_that_of_the_endpoint(endpoint: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def connect(address: object, timeout: float) -> socket.socket:
        asked.append((address, timeout))
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", connect)
    assert not hub._answers(endpoint)
    assert asked == [(("hub.example", port), hub.TIMEOUT)]
