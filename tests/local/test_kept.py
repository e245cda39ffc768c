"""Files that the package keeps for itself: a damaged one counts as missing, wherever its damage is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from w2s_mlflow.analysis import scores
from w2s_mlflow.debate import verdicts
from w2s_mlflow.judges import _chat
from w2s_mlflow.local import arrays, kept
from w2s_mlflow.records import Verdict
from w2s_mlflow.tracking import run_cache

ROWS = scores.Rows("key", ("a", "b"), ("", "g"), np.array([0, 1]))
SCORES = {"mark": scores.Scores(ROWS, np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32), {"accuracy": 0.5})}
KNOWN = run_cache._Known({"r": {"run_id": "r", "metrics": '{"test/pgr": -0.03}'}}, frozenset({"d"}), 7)
VERDICTS = {"k": Verdict(0.5, "first", "strong first", cost=3), "l": Verdict(-0.5, "second", "weak first", cost=4)}
REQUEST = {"url": "http://host", "body": {"n": 1}}


def plain(found: object) -> str:
    """Everything of a value that is read, as text."""
    if isinstance(found, dict):
        return str({key: plain(value) for key, value in found.items()})
    if isinstance(found, scores.Scores):
        return str([found.rows.ids, found.rows.groups, found.rows.gold_N, found.probabilities_NC, found.metrics])
    return str(found)


KEPT: dict[str, tuple[Callable[[Path], object], Callable[[Path], object], object]] = {
    "content": (lambda file: kept.write(file, b"some\nbytes"), kept.read, None),
    "index of runs": (lambda file: run_cache._write(file, KNOWN), run_cache._read, run_cache._Known()),
    "cached scores": (lambda file: scores._write(file, SCORES), scores._read, {}),
    "arrays": (lambda file: arrays.write(file, {"ids": np.arange(5)}), arrays.read, None),
    "an endpoint's answer": (
        lambda file: _chat._write(file, {**REQUEST, "text": "WINNER: A", "tokens": 5}),
        lambda file: _chat._read(file, REQUEST),
        None,
    ),
}
"""By name of a kept file: how it is written, how it is read, and what is read of a missing one."""


@pytest.mark.parametrize("name", KEPT)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    write, read, missing = KEPT[name]
    assert plain(read(tmp_path / "file")) == plain(missing)
    write(tmp_path / "file")
    assert plain(read(tmp_path / "file")) != plain(missing)


@pytest.mark.parametrize("name", KEPT)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_a_flipped_byte_or_a_cut_file_counts_as_missing(
    name: str, position: float, flip: int, cut: bool, tmp_path: Path
) -> None:
    write, read, missing = KEPT[name]
    file = tmp_path / "file"
    write(file)
    content = bytearray(file.read_bytes())
    place = int(position * len(content))
    content[place] ^= flip
    file.write_bytes(content[:place] if cut else content)
    assert plain(read(file)) == plain(missing)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_verdict_is_asked_for_again_and_the_others_are_kept(
    position: float, flip: int, cut: bool, tmp_path: Path
) -> None:
    file = tmp_path / "verdicts.jsonl"
    file.unlink(missing_ok=True)
    verdicts._append(file, VERDICTS)
    content = bytearray(file.read_bytes())
    place = int(position * len(content))
    content[place] ^= flip
    file.write_bytes(content[:place] if cut else content)
    found = verdicts._read(file)
    assert len(found) < len(VERDICTS) or found == VERDICTS  # the newline at the beginning is no part of a verdict
    assert all(VERDICTS[key] == verdict for key, verdict in found.items())


def test_a_file_with_fewer_tables_counts_as_missing(tmp_path: Path) -> None:
    kept.write_tables(tmp_path / "file", [pa.table({"a": [1]})])
    assert kept.read_tables(tmp_path / "file", 1) == [pa.table({"a": [1]})]
    assert kept.read_tables(tmp_path / "file", 2) is None
