"""A copy of the package with a new explainer, two judges and a metric: each works, and finished runs are reused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SMALL
from tests.test_contributing import EXAMPLES, METRIC, TEXT
from tests.test_plugins import PACKAGE
from w2s_mlflow.debate import transcripts
from w2s_mlflow.registry import summaries
from w2s_mlflow.stages import debate, student
from w2s_mlflow.tracking import results

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("experiment")]

MODELS = {"weak": "chess-27k", "strong": "chess-60k"}
DEBATE: dict[str, Any] = {"num_questions": 20, "traces": 0, "eval_split": "none", **MODELS, **SMALL}
STUDENT: dict[str, Any] = {"epochs": 1, **MODELS, **SMALL}
MEAN = '''"""A judge that gives every debate the mean verdict of an earlier run."""

from w2s_mlflow.config import checked_dataclass
from w2s_mlflow.records import Verdict

LEARNS_FROM = "verdicts"


@checked_dataclass
class Options:
    """The earlier run."""

    run: str = ""
    """Run of debates."""
    of: str = ""
    """Judge of that run."""


def make(options, answer):
    def judge(debates):
        earlier, preferences = answer()
        sign = {"strong": 1, "weak": -1}
        mean = sum(preferences) / len(earlier)
        return [Verdict(sign[one.first.name] * mean, "", one.order(), 0) for one in debates]

    return judge
'''
SCRIPT = """
import json, sys
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.stages import analyze, debate, student

given = json.loads(sys.argv[1])
before = [debate.run(debate.Config(**given["debate"])), student.run(student.Config(**given["student"]))]
both = {"explainer": "first", "judge": "longest,mean", "judge_options": f"run={before[0].run_id},per_word=0.5"}
after = debate.run(debate.Config(**given["debate"] | both))
try:
    debate.Config(**given["debate"] | {"judge": "mean"})
    debate.run(debate.Config(**given["debate"] | {"judge": "mean"}))
except ConfigError as error:
    message = str(error)
new = student.run(student.Config(**given["student"] | {"seed": 1}))
found = analyze.run(analyze.Config())
runs = {"debate": after.run_id, "student": new.run_id, "analysis": found.run_id}
print(json.dumps({"reused": [run.reused for run in before], "message": message, **runs}))
"""


def test_additions_work_and_leave_finished_runs_what_they_are(tmp_path: Path) -> None:
    before = [debate.run(debate.Config(**DEBATE)), student.run(student.Config(**STUDENT))]
    shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    extend(tmp_path / PACKAGE.name)
    given = json.dumps({"debate": DEBATE, "student": STUDENT})
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    line = [sys.executable, "-c", SCRIPT, given]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["reused"] == [True, True]
    assert "with the judges human, mean, reward, where RUN is the debate run" in found["message"]
    check_debate(found["debate"], before[0].run_id)
    new, analysis = results.get(found["student"]), results.get(found["analysis"])
    assert new.metrics["test/log_loss"] > 0 and "test/log_loss" not in before[1].metrics
    with analysis.artifact("tables/runs.csv").open(newline="") as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    assert {before[1].run_id, new.run_id} <= set(rows)
    assert float(rows[new.run_id]["log_loss"]) == pytest.approx(new.metrics["test/log_loss"], rel=1e-3)
    assert float(rows[before[1].run_id]["log_loss"]) > 0  # computed from the stored predictions


def extend(package: Path) -> None:
    """Add the examples of an explainer, a judge and a metric, and a judge that reads an earlier run."""
    for folder in ("explainers", "judges"):
        name, source = EXAMPLES[folder]
        assert name not in summaries(folder)
        (package / folder / f"{name}.py").write_text(source)
    (package / "judges" / "mean.py").write_text(MEAN)
    with (package / "metrics.py").open("a") as file:
        file.write(f"\n\n{METRIC.findall(TEXT)[0]}")


def check_debate(run_id: str, earlier: str) -> None:
    run = results.get(run_id)
    debates, verdicts = transcripts.read(run)
    assert {tuple(spans) for side in ("strong", "weak") for spans in debates[f"{side}_pieces"]} == {(0, 1, 2)}
    assert set(verdicts["judge"]) == {"longest", "mean"} and run.params["explainer"] == "first"
    expected = transcripts.preference_N(*transcripts.read(results.get(earlier))).mean()
    assert transcripts.preference_N(debates, verdicts, "mean").tolist() == pytest.approx([expected] * 20)
