"""Read stored test predictions, compute their metrics, and cache both on this machine, by the digests of the files."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import kept, scratch
from w2s_mlflow.records import Floats, Ints, JoinError, canonical_json
from w2s_mlflow.tracking import source

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

READERS = 8
"""Number of threads that read predictions. There are several because the files may be on a server."""
PREDICTIONS, GOLD = "predictions/test.parquet", "gold/test.parquet"


@dataclass(frozen=True)
class Rows:
    """Test rows that many runs share, sorted by id.

    Attributes:
        key: digest of the file with the gold labels.
    """

    key: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    gold_N: Ints

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of ids and gold labels; unlike `key`, it does not depend on the library that wrote the file."""
        pairs = [[id_, int(gold)] for id_, gold in zip(self.ids, self.gold_N, strict=True)]
        return hashlib.sha256(canonical_json(pairs).encode()).hexdigest()


@dataclass(frozen=True)
class Scores:
    """A run's stored probabilities on its test rows, and every metric of `metrics.report`, computed from them."""

    rows: Rows
    probabilities_NC: Floats
    metrics: Mapping[str, float]

    @functools.cached_property
    def answer_N(self) -> NDArray[np.int16]:
        """The most probable class of each row."""
        return np.asarray(self.probabilities_NC.argmax(axis=1), dtype=np.int16)

    def correct_N(self) -> NDArray[np.bool_]:
        """Return whether each answer is correct."""
        return np.asarray(self.answer_N == self.rows.gold_N)


def load_scores(runs: Iterable[Result]) -> dict[str, Scores | str]:
    """Return the scores of each run with a test report, keyed by run id, or a message that says why they are unavailable."""
    reported = [result for result in runs if GOLD in result.digests and PREDICTIONS in result.digests]
    file = scratch.cache_path("scores") / f"{_cache_name(reported)}.scores"
    cached = _read(file)
    scores: dict[str, Scores | str] = {run.run_id: cached[_cache_key(run)] for run in reported if _cache_key(run) in cached}
    if missing := [run for run in reported if run.run_id not in scores]:
        rows = {scored.rows.key: scored.rows for scored in cached.values()}
        with ThreadPoolExecutor(READERS) as readers:
            scores |= zip([run.run_id for run in missing], readers.map(lambda run: _compute(run, rows), missing), strict=True)
        _write(file, cached | {_cache_key(run): scored for run in missing if isinstance(scored := scores[run.run_id], Scores)})
    return scores


def _cache_name(reported: Iterable[Result]) -> str:
    """Return the name of the cache file: a hash of the artifact locations, of metrics.py and of the file's layout."""
    locations = sorted({result.artifact_uri.rsplit("/", 2)[0] for result in reported})
    return hashlib.sha256(
        canonical_json([locations, source.digests(["metrics", "analysis.scores:_write"])]).encode()
    ).hexdigest()[:32]


def _cache_key(result: Result) -> str:
    """Return the cache key of a run's scores: the digests of its predictions and gold labels."""
    return f"{result.digests[PREDICTIONS]}{result.digests[GOLD]}"


def _compute(result: Result, rows: dict[str, Rows]) -> Scores | str:
    """Compute the scores of a run, or return an error message. Shared gold labels are read once and kept in `rows`."""
    from w2s_mlflow import metrics
    from w2s_mlflow.records import read_gold, read_predictions

    key = result.digests[GOLD]
    try:
        predictions = read_predictions(result.artifact(PREDICTIONS))
        if key not in rows:
            order = predictions.aligned(sorted(predictions.ids))
            rows[key] = Rows(key, order.ids, order.groups, read_gold(result.artifact(GOLD), order.ids))
        predictions = predictions.aligned(rows[key].ids)
    except (ConfigError, JoinError) as error:
        return str(error)
    return Scores(rows[key], predictions.probabilities_NC, metrics.report(predictions.probabilities_NC, rows[key].gold_N))


def _read(file: Path) -> dict[str, Scores]:
    """Return the cached scores, by cache key; empty if the file is missing or damaged."""
    if (tables := kept.read_tables(file, 2)) is None:
        return {}
    shared, entries = (table.to_pylist() for table in tables)
    rows = {
        row["key"]: Rows(row["key"], tuple(row["ids"]), tuple(row["groups"]), np.array(row["gold"], dtype=np.int64))
        for row in shared
    }
    return {
        row["mark"]: Scores(of := rows[row["key"]], _matrix(row["probabilities"], len(of.ids)), json.loads(row["metrics"]))
        for row in entries
    }


def _matrix(content: bytes, rows: int) -> Floats:
    return np.frombuffer(content, dtype=np.float32).reshape(rows, -1)


def _write(file: Path, score_by_key: Mapping[str, Scores]) -> None:
    """Write the shared rows and the scores, with a digest of both. The scores refer to their rows by `key`."""
    import pyarrow as pa

    rows = {scores.rows.key: scores.rows for scores in score_by_key.values()}
    shared = [
        {"key": row.key, "ids": list(row.ids), "groups": list(row.groups), "gold": row.gold_N.tolist()} for row in rows.values()
    ]
    entries = [
        {
            "mark": mark,
            "key": scores.rows.key,
            "probabilities": np.ascontiguousarray(scores.probabilities_NC, dtype=np.float32).tobytes(),
            "metrics": canonical_json(dict(scores.metrics)),
        }
        for mark, scores in score_by_key.items()
    ]
    kept.write_tables(file, [pa.Table.from_pylist(shared), pa.Table.from_pylist(entries)])
