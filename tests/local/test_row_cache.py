"""Vectors of rows are computed once per content; a damaged file is computed again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from w2s_mlflow.local import row_cache


def digests(*texts: str) -> list[str]:
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path))
    return []


def rows(made: list[int], *texts: str, key: str = "k") -> list[float]:
    def make(missing: list[int]) -> row_cache.Matrix:
        made.append(len(missing))
        return np.array([[len(texts[index])] for index in missing], dtype=np.float32)

    return [float(value) for value in row_cache.rows(key, digests(*texts), make)[:, 0]]


def test_only_missing_rows_are_computed(made: list[int]) -> None:
    assert rows(made, "a", "bb", "a") == [1, 2, 1] and made == [2]
    assert rows(made, "ccc", "bb") == [3, 2] and made == [2, 1]
    assert rows(made, "a", "bb", "ccc") == [1, 2, 3] and made == [2, 1]
    assert rows(made, "a", key="other") == [1] and made == [2, 1, 1]


@pytest.mark.parametrize("damage", [lambda content: content[:-4], lambda content: b"", lambda content: content[:-1] + b"?"])
def test_a_damaged_file_is_made_anew(made: list[int], damage: object, tmp_path: Path) -> None:
    rows(made, "a", "bb")
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert rows(made, "a", "bb") == [1, 2] and made == [2, 2]
    assert rows(made, "a", "bb") == [1, 2] and made == [2, 2]
