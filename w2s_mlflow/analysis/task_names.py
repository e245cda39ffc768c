"""One name for each task that is built from a user's file, however the path of the file was written.

Runs log the task as the user wrote it, so one file may have several spellings: with an absolute and a relative path, or before
and after it was moved. Two spellings are one task if prefix and stem of the file's name are equal, and if the held-out rows are
equal (the tag HELDOUT) or, for runs without this tag, the paths are.
"""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from w2s_mlflow import tasks
from w2s_mlflow.analysis import declared_claims
from w2s_mlflow.pipeline.runs import HELDOUT

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

Feature = tuple[str, str, str]
"""Prefix and stem of a spelling, and what shows the rows of the file. Spellings that share a feature are one task."""


def with_one_name(runs: Sequence[Result]) -> list[Result]:
    """Return the runs, with the spelling that the last run of each task has in place of its other spellings."""
    newest = spellings(runs)
    return [_renamed(run, newest) for run in runs]


def spellings(runs: Iterable[Result]) -> dict[str, str]:
    """Return the last spelling of each task that is built from a file, by its spellings."""
    newest: dict[str, str] = {}
    first: dict[Feature, str] = {}
    for run in runs:
        name = run.params.get("task", "")
        for feature in _features(name, run.tags.get(HELDOUT, "")):
            same = first.setdefault(feature, name)
            group = {newest.get(same, same), newest.get(name, name)}
            members = {spelling for spelling, last in newest.items() if last in group} | {same, name}
            newest |= dict.fromkeys(members, name)
    return newest


def _features(name: str, heldout: str) -> list[Feature]:
    prefix, colon, path = name.partition(":")
    if not colon or prefix not in tasks.prefixes():
        return []
    rows = [f"rows {heldout}"] if heldout else []
    return [(prefix, PurePath(path).stem, shown) for shown in (f"path {os.path.normpath(path)}", *rows)]


def _renamed(run: Result, names: Mapping[str, str]) -> Result:
    params = {**run.params}
    if params.get("task") in names:
        params["task"] = names[params["task"]]
    if run.stage == declared_claims.STAGE and declared_claims.PARAM in params:
        claim = [row | {"task": names.get(row["task"], row["task"])} for row in json.loads(params[declared_claims.PARAM])]
        params[declared_claims.PARAM] = json.dumps(claim)
    return replace(run, params=params)
