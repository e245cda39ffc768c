"""Files that a user names: only regular files are read, and every other kind is named."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from w2s_mlflow.analysis import coded_errors, published_file
from w2s_mlflow.data import label_files
from w2s_mlflow.data.user_files import described, printable, regular_file
from w2s_mlflow.exceptions import ConfigError


def test_a_regular_file_and_a_link_to_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert regular_file("--x", "~/b") == tmp_path / "b"


def test_what_is_no_regular_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    os.mkfifo("pipe")
    Path("directory").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        kinds = {"pipe": "a named pipe", "directory": "a directory", "socket": "a socket", "/dev/null": "a character device"}
        for name, kind in kinds.items():
            with pytest.raises(ConfigError, match=f"^--x must be an existing file, got {name}, which is {kind}$"):
                regular_file("--x", name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "got none$"),
        ("a\x00b", r"got a\\x00b: embedded null byte$"),
        ("a" * 300, "File name too long$"),
        ("~no-such-user/a", "home directory"),
        ("\udcff.csv", r"with a name in UTF-8, got \\udcff.csv$"),
    ],
)
def test_a_name_that_leads_to_no_file(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        regular_file("--x", name)


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_every_file_of_a_user_passes_this_door(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    for read in (
        lambda: label_files.read(str(path), 2),
        lambda: coded_errors.read(str(path)),
        lambda: published_file.read(path),
    ):
        with pytest.raises(ConfigError, match=f"which is a (named )?{kind}"):
            read()


def test_values_are_shown_short_and_without_control_characters() -> None:
    assert described(None) == "no value" and described("\ud83d") == r"'\ud83d'"
    assert len(described("word " * 1000)) < 70 and described([[[["a"]]]]) == "the list [[[...]]]"
    assert described({"a": 1}) == "the object {'a': 1}"
    assert printable("é \x1b[1m") == r"é \x1b[1m"
