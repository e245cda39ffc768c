"""The stage of errors: its rows from stored answers and models, what analyze makes of them, and codes read back."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from tests.conftest import SMALL, runs
from tests.data.test_loading import reviews
from tests.models.test_hub import made, write
from w2s_mlflow.analysis import stage_tables
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import attribution, inference
from w2s_mlflow.stages import analyze, errors
from w2s_mlflow.tables import errors as table
from w2s_mlflow.tracking import logged_model, results
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.usefixtures("experiment")


def config(**options: Any) -> errors.Config:
    given: dict[str, Any] = {"strong": "chess-121k", "weak": "chess-27k"}
    return errors.Config(**given | SMALL | options)


def analysed(**options: Any) -> tuple[Result, list[dict[str, str]]]:
    found = analyze.run(analyze.Config(**options))
    with found.artifact("tables/error_examples.csv").open(newline="") as file:
        return found, list(csv.DictReader(file))


def test_chess_has_overfitting_and_other_and_needs_no_model() -> None:
    found = errors.run(config())
    own = results.get(found.tags["w2s.student_run_id"])
    rows = stage_tables.read_errors(found)
    assert len(rows) == found.metrics["errors/count"] == round(150 * (1 - own.metrics["test/accuracy"]))
    assert found.metrics["errors/overfitting"] + found.metrics["errors/other"] == pytest.approx(1)
    assert "errors/quote_selection_by_chance" not in found.metrics and found.metrics["gold/test/errors"] == 150
    weak, top = (results.get(own.tags[f"w2s.{role}_run_id"]).predictions("test") for role in ("weak", "ceiling"))
    expected = [
        "overfitting"
        if weak.of([str(row.id)]).argmax() == row.answer and top.of([str(row.id)]).argmax() == row.gold
        else "other"
        for row in rows.itertuples()
    ]
    assert table.types(rows).tolist() == expected and len(set(expected)) == 2
    assert not [run for run in runs() if "w2s.model_id" in run.data.tags]
    assert errors.run(config()).run_id == found.run_id


@pytest.fixture
def texts(tmp_path: Path) -> dict[str, Any]:
    """A task of words, one of which is as if not a number, and a ladder that reads it."""
    rows = [{"text": row["sentence"], "label": row["label"]} for row in reviews(500, 0)]
    pd.DataFrame([*rows, {"text": "nan", "label": 0}]).to_parquet(tmp_path / "words.parquet")
    checkpoint = write(made("llama"), tmp_path / "mini")
    sizes = {"train_size": 200, "test_size": 60, "epochs": 1}
    return {"task": f"file:{tmp_path / 'words.parquet'}", "weak": f"{checkpoint}:1", "strong": str(checkpoint)} | sizes


@pytest.mark.slow
def test_texts_have_evidence_and_answers_on_it(texts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    texts |= {"dtype": "bfloat16", "micro_batch": 16}
    scores, probabilities = Mock(wraps=attribution.scores), Mock(wraps=inference.probabilities)
    with monkeypatch.context() as patch:
        patch.setattr(attribution, "scores", scores)
        patch.setattr(inference, "probabilities", probabilities)
        found = errors.run(config(**texts, evidence=0.3))
    assert {call.args[3:] for call in scores.call_args_list} == {(16,)}
    assert {call.args[2:] for call in probabilities.call_args_list} == {(16, "bfloat16")}  # stored ones and those on evidence
    rows = stage_tables.read_errors(found)
    assert len(rows) == found.metrics["errors/count"] > 0 and rows[list(stage_tables.ON_EVIDENCE)].notna().all(axis=None)
    assert sum(found.metrics[f"errors/{name}"] for name in table.TYPES) == pytest.approx(1)
    own, top = (results.get(found.tags[f"w2s.{role}_run_id"]) for role in ("student", "ceiling"))
    head, other = (logged_model.load(run.tags["w2s.model_id"]) for run in (own, top))
    by_id = {example.id: example for example in loading.resolve_and_split(config(**texts).resolved())[1].test}
    data = head.encode([by_id[id_] for id_ in rows["id"]])
    for judged, answer, name in ((head, "answer", "own"), (other, "ceiling_answer", "ceiling")):
        kept = attribution.top_tokens(head, data, attribution.scores(judged, data, rows[answer].to_numpy(), 16), 0.3)
        answers = inference.probabilities(head, attribution.select_tokens(data, kept), 16, "bfloat16").argmax(axis=1)
        assert np.array_equal(rows[f"on_{name}_evidence"], answers)
        assert list(rows[f"{name}_evidence"]) == attribution.quotes(head, data, kept)


@pytest.mark.slow
def test_an_analysis_shows_errors_and_reads_codes_back(tmp_path: Path) -> None:
    for seed in (0, 1):
        errors.run(config(seed=seed))
    first, rows = analysed()
    assert {"figures/errors.png", "tables/errors.csv"} <= set(
        first.digests
    ) and "tables/annotator_agreement.csv" not in first.digests
    assert {row["annotation"] for row in rows} == {""} and len({row["run_id"] for row in rows}) == 2
    rows[0]["annotation"], rows[1]["annotation"] = rows[0]["type"], "quote_selection"
    file = tmp_path / "coded.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    second, again = analysed(error_annotations=str(file))
    assert second.run_id != first.run_id and [row["annotation"] for row in again[:2]] == [rows[0]["type"], "quote_selection"]
    with second.artifact("tables/annotator_agreement.csv").open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["n"], row["agreement"]) == ("2", "0.5")
    assert analyze.run(analyze.Config(error_annotations=str(file))).run_id == second.run_id


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"evidence": 1.0}, "--evidence must be in \\(0, 1\\), got 1.0"),
        (
            {"ceiling": "none"},
            "--ceiling must be gold, because the student's test errors are compared with the ceiling, got none",
        ),
        ({"eval_split": "none"}, "--eval-split must be test, because the student's test errors are .*, got none"),
    ],
)
def test_wrong_input_is_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        config(**options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--error-annotations must be a CSV file, got"),
        (
            "id,annotation\n1,other\n",
            "--error-annotations must be a CSV file with the columns run_id, id, annotation, got .* without run_id",
        ),
        (
            "run_id,id,annotation\nr,1,overfiting\n",
            "the annotation in row 2 of --error-annotations .* must be one of .*did you mean overfitting",
        ),
        (
            "run_id,id,annotation\nr,1,other\nr,1,overfitting\n",
            "--error-annotations must be a CSV file with one annotation per error",
        ),
        (
            "run_id,id,annotation\nr,1,other\n",
            "--error-annotations must name only errors of the analysed runs, got id '1' of run 'r'",
        ),
    ],
)
def test_codes_that_cannot_be_read_are_one_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    errors.run(config())
    if text is not None:
        (tmp_path / "coded.csv").write_text(text)
    before = len(runs())
    with pytest.raises(ConfigError, match=f"^{said}"):
        analyze.run(analyze.Config(error_annotations=str(tmp_path / "coded.csv")))
    assert len([run for run in runs() if run.info.status == "FINISHED"]) == before
