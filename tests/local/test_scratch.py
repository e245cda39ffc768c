"""The scratch directory: W2S_SCRATCH if set, else the user's cache directory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from w2s_mlflow.local.scratch import cache_path


def test_a_chosen_directory_comes_before_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "chosen"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_path("tokens") == tmp_path / "chosen/w2s_mlflow/tokens"


@pytest.mark.skipif(sys.platform != "linux", reason="platformdirs chooses another directory on other systems")
@pytest.mark.parametrize("scratch", [None, ""])
def test_without_one_it_is_the_users_cache(scratch: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("W2S_SCRATCH", raising=False) if scratch is None else monkeypatch.setenv("W2S_SCRATCH", scratch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_path("tokens") == tmp_path / "cache/w2s_mlflow/tokens"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_path("tokens") == tmp_path / ".cache/w2s_mlflow/tokens"
