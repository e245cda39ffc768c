"""Runs of version 0.1 are read under the present names: of its store (version_0_1/README.md), its own tables are made again."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.file_utils import local_file_uri_to_path
from scipy import stats

from w2s_mlflow import registry
from w2s_mlflow.analysis import build, former_names
from w2s_mlflow.config import declarations
from w2s_mlflow.stages import analyze
from w2s_mlflow.tables import Frames
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

DIRECTORY = Path(__file__).parent / "version_0_1"
RUNS: list[dict[str, Any]] = json.loads((DIRECTORY / "runs.json").read_text(encoding="utf-8"))
COLUMNS = {
    **{"variant": "method_options", "setting": "other_options", "form": "protocol", "pieces": "evidence_spans"},
    **{"lam": "debate_weight", "strong_right": "always_strong_accuracy", "words": "evidence_words"},
    **{"round": "iteration", "turn": "iteration"},
    **{f"apart_win_rate{bound}": f"win_rate_on_disagreements{bound}" for bound in ("", "_low", "_high")},
}
VALUES = {
    **{"choose": "lm_choice", "classify": "classification", "compare": "reward", "untuned": "zero_shot"},
    **{"custom": "loss:product", "line": "principal_variation"},
}
TEXTS = {r"^argues=(.*) questions=(\S+)$": r"num_questions=\2 student_method=\1", r"^questions=": "num_questions="}
"""Lists of options that differ; they are sorted by name."""
ADDED = {
    "pgr": [
        *("pretrainings", "collapsed", "reliable", "low", "high", "elicited_accuracy"),
        *("pgr_elicited", "pgr_elicited_low", "pgr_elicited_high"),
    ]
}
"""Columns that the tables of version 0.1 do not have."""
TWO_WAY = {"pgr": ["accuracy_low", "accuracy_high"]}
"""Intervals that came from the seeds alone in version 0.1, and come from seeds and test rows now."""
TEST_ROWS = 60
"""Number of test rows of the runs of version 0.1."""


@pytest.fixture
def store(experiment: str) -> None:
    """Log the runs of version 0.1 into a fresh store."""
    client, ids = server.client(), {}
    for start, run in enumerate(RUNS, start=1):
        ids[run["run_id"]] = client.create_run(server.experiment().experiment_id, start, run_name=run["name"]).info.run_id
    with zipfile.ZipFile(DIRECTORY / "artifacts.zip") as files:
        for run in RUNS:
            new = client.get_run(ids[run["run_id"]]).info
            for path, digest in run["artifacts"].items():
                file = Path(local_file_uri_to_path(new.artifact_uri)) / path  # type: ignore[no-untyped-call]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(files.read(digest))
            tags = {name: ",".join(ids.get(part, part) for part in value.split(",")) for name, value in run["tags"].items()}
            tags["w2s.artifacts"] = json.dumps(run["artifacts"])
            client.log_batch(
                new.run_id,
                [Metric(name, value, new.start_time, 0) for name, value in run["metrics"].items()],
                [Param(name, value) for name, value in run["params"].items()],
                [RunTag(name, value) for name, value in tags.items()],
            )
            client.set_terminated(new.run_id, "FINISHED", new.start_time + round(1000 * run["seconds"]))


@pytest.fixture
def runs(store: None) -> list[Result]:
    return build.pull(analyze.Config())


def test_every_run_is_read_under_the_present_names(runs: list[Result]) -> None:
    found = [former_names.with_current_names(run) for run in runs]
    assert [run.name for run in found] == [run["name"] for run in RUNS]
    for run in found:
        options = declarations(registry.plugin("stages", run.stage, "the stage").Config)
        former = {declared.formerly for _, declared in options.values()} - options.keys()
        assert not run.params.keys() & (former | {"argues", "round", "turn"}), run.name
        assert all(value not in options[name][1].former_values for name, value in run.params.items() if name in options)
        assert not run.tags.keys() & {"w2s.before_run_id", "w2s.human", "w2s.contents", "w2s.torn"}
        assert not [name for name in run.metrics if re.match(r"before/|after/|align/words|\w+/before_acc|debate/.*apart", name)]
    methods = {run.params["method"] for run in found if run.stage == "student"}
    assert methods == {"baseline", "confidence", "zero_shot", "loss:product"}
    assert {run.params["freeze"] for run in found if run.params.get("head") == "classification"} == {"backbone"}
    assert {run.params["labels"] for run in found if run.params["method"] == "zero_shot"} == {"none"}
    aligned = [run for run in found if run.stage == "align"]
    assert [run.params["method"] for run in aligned] == ["lambda 0.2", "lambda 0.2 iteration 2"]
    assert {run.tags["w2s.baseline_run_id"] for run in aligned} <= {run.run_id for run in found}
    assert {"align/baseline_win_rate", "align/aligned_win_rate_on_disagreements"} <= aligned[0].metrics.keys()


def test_its_tables_are_made_again(runs: list[Result]) -> None:
    frames = build.load(runs)
    assert len(frames.left_out) == 0 and len(frames.runs) == len(RUNS)
    assert len(frames.probes) > 0 and len(frames.errors) > 0
    for name in ("pgr", "debate", "alignment", "facilitation"):
        check_table(name, table(name, frames))


def test_accuracy_of_one_seed_has_the_interval_of_its_test_rows(runs: list[Result]) -> None:
    found = table("pgr", build.load(runs))
    assert (found["accuracy_low"] < found["accuracy"]).all() and (found["accuracy"] < found["accuracy_high"]).all()
    single = found[found["n"] == 1]
    error = np.sqrt(single["accuracy"] * (1 - single["accuracy"]) / (TEST_ROWS - 1)) * stats.t.ppf(0.975, TEST_ROWS - 1)
    assert len(single) == 6
    assert single["accuracy_low"].tolist() == pytest.approx((single["accuracy"] - error).tolist())
    assert single["accuracy_high"].tolist() == pytest.approx((single["accuracy"] + error).tolist())


def test_iterations_of_one_seed_are_told_apart_in_the_frame_of_all_runs(runs: list[Result]) -> None:
    frame = build.load(runs).runs
    assert frame[frame["stage"] == "facilitate"]["other_options"].tolist() == ["iteration=1", "iteration=2"]
    rows = registry.plugin("tables", "calibration", "table").table(frame)
    assert rows[rows["stage"] == "facilitate"]["n"].tolist() == [1, 1]


def table(name: str, frames: Frames) -> pd.DataFrame:
    plugin = registry.plugin("tables", name, "table")
    found: pd.DataFrame = plugin.table(*(getattr(frames, frame) for frame in plugin.FRAMES))
    return found


def check_table(name: str, found: pd.DataFrame) -> None:
    former = pd.read_csv(DIRECTORY / "tables" / f"{name}.csv", keep_default_na=False, dtype=str)
    columns = COLUMNS | {"rounds": "turns" if name == "debate" else "iterations"}
    expected = former.rename(columns=columns).replace(VALUES).replace(TEXTS, regex=True)
    assert [column for column in found if column not in ADDED.get(name, ())] == list(expected.columns)
    assert found.columns.difference(expected.columns).tolist() == sorted(ADDED.get(name, ()))
    for column in expected.columns.difference(list(TWO_WAY.get(name, ()))):
        if found[column].dtype.kind in "fi":
            numbers = pd.to_numeric(expected[column], errors="coerce").tolist()
            assert found[column].tolist() == pytest.approx(numbers, nan_ok=True), f"{name} {column}"
        else:
            assert found[column].fillna("").tolist() == expected[column].tolist(), f"{name} {column}"


@pytest.mark.parametrize(
    ("former", "now"),
    [
        ("before/preference", "align/baseline_preference"),
        ("after/apart_win_rate_low", "align/aligned_win_rate_on_disagreements_low"),
        ("after/agreement/model/reward", "align/aligned_agreement/model/reward"),
        ("debate/by_position", "debate/position_decides_rate"),
        ("debate/strong_right", "debate/always_strong_accuracy"),
        ("test/before_accuracy", "test/baseline_accuracy"),
        ("align/words", "align/evidence_words"),
        ("probe/chess/before", "probe/chess/before"),
        ("test/accuracy", "test/accuracy"),
    ],
)
def test_a_metric_has_its_present_name(former: str, now: str) -> None:
    run = Result("", "", "align", "", "", {}, {former: 1.0}, {}, 0.0, reused=True)
    assert former_names.with_current_names(run).metrics == {now: 1.0}
