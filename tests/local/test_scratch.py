"""The scratch directory: W2S_SCRATCH if set, else the user's cache directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import scratch as local_scratch
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


def test_only_the_user_may_read_and_write_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    assert not cache_path("").exists()  # nothing is created before there is a file
    with local_scratch.replacing(cache_path("tokens/a")) as partial:
        partial.write_text("x")
    assert cache_path("").stat().st_mode & 0o777 == 0o700
    cache_path("").chmod(0o777)
    assert cache_path("").stat().st_mode & 0o777 == 0o700


def test_one_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    local_scratch.make_directory(cache_path("tokens"))
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    rule = r"W2S_SCRATCH must be a directory of your own, because .*w2s_mlflow belongs to another user \(uid \d+\), got '"
    with pytest.raises(ConfigError, match=rule):
        cache_path("tokens")
