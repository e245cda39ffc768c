"""Explanation of why a new run was made although there were older runs of the same stage.

The new run's fingerprint is compared with the fingerprint of the nearest run: the finished run of the same stage with the
fewest differing fingerprint parts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import results
from w2s_mlflow.tracking.backend.server import client, experiment
from w2s_mlflow.tracking.results import CorruptArtifactError, Result

READ = 50
"""Maximum number of runs whose fingerprints are compared part by part. The runs with the most similar parameters are taken."""
ROWS = "rows.parquet"
NESTED = ("options", "libraries", "inputs")
FingerprintParts = Mapping[str, Any]


@dataclass(frozen=True)
class Explanation:
    """Comparison of a run with the nearest finished run of the same stage.

    `differences` has one line for each fingerprint part that differs. In a line with two values, the nearest run's value is
    first.
    """

    run_id: str
    name: str
    nearest_run_id: str | None
    nearest_name: str | None
    differences: tuple[str, ...]


def explain(run: str) -> Explanation:
    """Compare a run, given by id or name, with the nearest finished run of its stage.

    Raises:
        ConfigError: the run does not exist, was imported, or has no fingerprint.
    """
    result = results.find(run)
    if result.imported:
        raise ConfigError(f"run {result.run_id} ({result.name}) was imported: its code and options are unknown")
    parts = _parts(result)
    if parts is None:
        raise ConfigError(f"run {result.run_id} ({result.name}) has no fingerprint: only runs of stages have fingerprints")
    nearest = _nearest(result, parts)
    if nearest is None:
        return Explanation(result.run_id, result.name, None, None, ())
    nearest_parts = _parts(nearest)
    assert nearest_parts is not None
    return Explanation(result.run_id, result.name, nearest.run_id, nearest.name, tuple(differences(nearest_parts, parts)))


def differences(old: FingerprintParts, new: FingerprintParts) -> Iterator[str]:
    """Yield one line per fingerprint part that differs.

    If an input differs, the fingerprints of the old and the new input are compared in the same way. The lines of this
    comparison begin with the name of the input.
    """
    for name, before, after in _differing_parts(old, new):
        kind, _, key = name.partition(" ")
        if kind == "source":
            yield f"source {key} {_edit(before, after)}"
        elif kind == "data":
            yield f"data: {_changed_rows(before, after)}"
        elif kind == "input" and before and after:
            yield from (f"input {key}: {line}" for line in _input_differences(before, after))
        else:
            yield f"{name}: {_short(before)} -> {_short(after)}"


def _edit(before: str | None, after: str | None) -> str:
    if before and after:
        return "was edited"
    return "is used now" if after else "is no longer used"


def _differing_parts(old: FingerprintParts, new: FingerprintParts) -> list[tuple[str, Any, Any]]:
    """Return the name, old value and new value of each part that differs. Options, inputs and so on are separate parts."""
    before, after = _flat(old), _flat(new)
    names = dict.fromkeys((*before, *after))
    changed = [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]
    return [*changed, *_source(old["source"], new["source"])]


def _source(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the name, old digest and new digest of each definition that differs.

    Definitions that were only moved are left out. A definition that was moved and edited is yielded once, under its new name.
    """
    removed, added = Counter(old.values()) - Counter(new.values()), Counter(new.values()) - Counter(old.values())
    before = {key: value for key, value in old.items() if value in removed}
    after = {key: value for key, value in new.items() if value in added}
    for key, value in after.items():
        same_name = [other for other in before if other.rpartition(".")[2] == key.rpartition(".")[2]]
        match = key if key in before else same_name[0] if same_name else None
        yield f"source {key}", before.pop(match) if match else None, value
    for key, value in before.items():
        yield f"source {key}", value, None


def _flat(parts: FingerprintParts) -> dict[str, Any]:
    flat: dict[str, Any] = {name: value for name, value in parts.items() if name not in (*NESTED, "source")}
    singular = dict(zip(NESTED, ("option", "library", "input"), strict=True))
    for kind, word in singular.items():
        for key, value in parts[kind].items():
            if isinstance(value, Mapping):  # the options of a loss are nested
                flat |= {f"{word} {inner}": value[inner] for inner in value}
            else:
                flat[f"{word} {key}"] = value
    return flat


def _input_differences(before: str, after: str) -> Iterator[str]:
    old, new = (_by_fingerprint(fingerprint) for fingerprint in (before, after))
    if old is None or new is None:
        yield "the old or the new run was deleted, so their fingerprints cannot be compared"
    else:
        yield from differences(old, new)


def _by_fingerprint(fingerprint: str) -> FingerprintParts | None:
    for run in results.active(results.runs_of(fingerprint)):
        if parts := _parts(results.result(run, reused=True)):
            return parts
    return None


def _changed_rows(before: str, after: str) -> str:
    """Describe how the rows of two data sets differ.

    The data sets are given by their digests. Their rows are read from the artifact `rows.parquet` of supervisor runs.
    """
    old, new = _rows(before), _rows(after)
    if old is None or new is None:
        return f"the rows differ (digest {before[:12]} -> {after[:12]})"
    edited = sorted(id_ for id_ in old.keys() & new.keys() if old[id_][1] != new[id_][1])
    moved = sum(old[id_][0] != new[id_][0] for id_ in old.keys() & new.keys())
    counts = {"removed": len(old.keys() - new.keys()), "added": len(new.keys() - old.keys()), "moved to another part": moved}
    changes = [f"{count} {kind}" for kind, count in counts.items() if count]
    if edited:
        parts = Counter(new[id_][0] for id_ in edited)
        by_part = ", ".join(f"{count} of {part}" for part, count in parts.items())
        changes.insert(0, f"{len(edited)} edited ({by_part}; the first is {edited[0]!r})")
    return f"{', '.join(changes)}, out of {len(new)} rows"


def _rows(data: str) -> dict[str, tuple[str, str]] | None:
    """Return the rows of the data set with digest `data`, by row id: for each row, the part of the data set that contains the
    row, and the row's digest.

    Return None if no supervisor run stored the rows of this data set.
    """
    import pyarrow.parquet as pq

    clause = f"tags.`w2s.data` = '{data}' and tags.`w2s.stage` = 'supervisor' and attributes.status = 'FINISHED'"
    for run in client().search_runs([experiment().experiment_id], clause, max_results=1):
        table = pq.read_table(results.result(run, reused=True).artifact(ROWS)).to_pydict()
        return dict(zip(table["id"], zip(table["part"], table["digest"], strict=True), strict=True))
    return None


def _nearest(result: Result, run_parts: FingerprintParts) -> Result | None:
    """Return the finished run of the same stage with the fewest differing fingerprint parts.

    Of several such runs, return the one whose parameters are most similar.
    """
    others = [
        other
        for other in results.finished(f"tags.`w2s.stage` = '{result.stage}'")
        if other.fingerprint != result.fingerprint and not other.imported
    ]
    others.sort(key=lambda other: sum(other.params.get(name) != value for name, value in result.params.items()))
    ranked = [
        (len(_differing_parts(parts, run_parts)), rank, other)
        for rank, other in enumerate(others[:READ])
        if (parts := _parts(other))
    ]
    return min(ranked, key=lambda entry: entry[:2])[2] if ranked else None


def _parts(result: Result) -> FingerprintParts | None:
    """Return the fingerprint parts stored with a run, or None if the run has none."""
    try:
        parts: FingerprintParts = json.loads(result.artifact("fingerprint.json").read_text())
    except CorruptArtifactError:
        return None
    return parts


def _short(value: Any) -> str:
    text = "none" if value in (None, "") else str(value)
    return text[:12] if len(text) > 40 else text
