"""The page that puts the paper's tables and figures beside ours: from hand-made frames, and the page in the documentation."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import paper
from tests.tables.test_tables import SEEDS, student
from w2s_mlflow import registry, tasks
from w2s_mlflow.analysis import frames
from w2s_mlflow.tables import ERRORS, IMPORTED, PROBES, Frames

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "paper.md"
SIZES = {"small": 1000, "large": 9000}


def with_outcomes(rows: list[dict[str, Any]]) -> Frames:
    empty = frames.frames([])
    return dataclasses.replace(empty, outcomes=pd.DataFrame(rows), runs=pd.DataFrame(rows))


@pytest.fixture(scope="module")
def empty() -> paper.Tables:
    """The tables of no runs."""
    return paper.tables(frames.frames([]))


@pytest.fixture(scope="module")
def measured() -> paper.Tables:
    """Students of two sizes with each method and five seeds, a student of the supervisor's size, and an imported one."""
    accuracies = {"baseline": 0.7, "confidence": 0.75, "bootstrap": 0.72, "full": 0.74}
    rows = [
        student(seed, method, accuracy + 0.02 * (strong == "large"))
        | {"task": "sst2", "strong": strong, "parameters": size, "agreement": 0.9 - 0.1 * (strong == "large") + 0.01 * seed}
        for method, accuracy in accuracies.items()
        for strong, size in SIZES.items()
        for seed in range(SEEDS)
    ]
    rows += [student(seed, "baseline", 0.6) | {"task": "sst2", "strong": "w", "parameters": 1} for seed in range(SEEDS)]
    rows += [row | {"head": IMPORTED, "task": "cola"} for row in rows[:SEEDS]]
    return paper.tables(with_outcomes(rows))


def cells(found: paper.Tables, item: str) -> list[tuple[str, ...]]:
    return list(paper.COMPARISONS[item](found))


def stated(item: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in paper.STATED["items"] if one["name"] == item)
    return found


def test_every_item_is_compared_and_every_row_has_the_columns_of_its_item(empty: paper.Tables, measured: paper.Tables) -> None:
    assert [item["name"] for item in paper.STATED["items"]] == list(paper.COMPARISONS)
    for found in (empty, measured):
        for name in paper.COMPARISONS:
            rows = cells(found, name)
            assert rows and {len(row) for row in rows} == {len(stated(name)["columns"])}, name


def test_table_1_lists_the_papers_22_tasks() -> None:
    names = list(paper.STATED["nlp_tasks"])
    assert len(names) == len(set(names)) == 22 and all(tasks.find(name).name == name for name in names)


def test_without_a_store_nothing_is_measured() -> None:
    text = paper.markdown(frames.frames([]))
    assert "No store has been read yet." in text and "n = " not in text and " [0" not in text
    assert text.count(paper.NOT_MEASURED) >= len(paper.COMPARISONS)


def test_our_numbers_are_those_of_the_analysis(measured: paper.Tables) -> None:
    row = measured["pgr"].query("method == 'full' and strong == 'large'").iloc[0]
    label = "sst2, w → large, lm_choice, n = 5"
    accuracy = f"{row['accuracy']:.3f} [{row['accuracy_low']:.3f}, {row['accuracy_high']:.3f}]"
    share = f"{row['pgr']:.2f} [{row['pgr_low']:.2f}, {row['pgr_high']:.2f}]"
    assert ("`full`", "not stated", "not stated", accuracy, share, label) in cells(measured, "Table 2")
    test = measured["paired_tests"].query(
        "method == 'confidence' and baseline == 'baseline' and strong == 'small' and metric == 'accuracy'"
    )
    (p,) = test["p"]
    (shown,) = (cell for cell in cells(measured, "Table 3") if cell[0] == "`confidence`" and "small" in cell[-1])
    assert shown[1:3] == ("0.03", "0.01") and shown[3].endswith(f", p = {p:.2g}") and shown[3].startswith("+0.0")


def test_the_papers_numbers_are_its_own(empty: paper.Tables) -> None:
    assert [row[:3] for row in cells(empty, "Table 2")] == [
        ("`full`", "not stated", "not stated"),
        ("`full-without-confidence`", "0.82", "0.60"),
        ("`full-without-bootstrap`", "0.80", "0.55"),
        ("`full-without-generative`", "0.85", "0.70"),
    ]
    assert [row[:3] for row in cells(empty, "Table 3")] == [
        ("`confidence`", "0.03", "0.01"),
        ("`bootstrap`", "0.003", "0.002"),
        ("`generative`", "0.01", "0.01"),
    ]
    assert [row[:2] for row in cells(empty, "Figure 3")] == [
        ("`baseline`", "0.90 → 0.87"),
        ("`confidence`", "0.89 → 0.80"),
        ("`bootstrap`", "0.88 → 0.75"),
        ("`generative`", "0.89 → 0.79"),
    ]


def test_sizes_are_in_order_and_the_supervisors_own_size_and_imported_runs_are_left_out(measured: paper.Tables) -> None:
    rows = cells(measured, "Figure 1")
    assert [row[-1].split(", ")[1] for row in rows if row[0] == "NLP"] == ["w → small", "w → large"]
    assert not any(IMPORTED in cell for name in paper.COMPARISONS for row in cells(measured, name) for cell in row)
    (row,) = (row for row in cells(measured, "Figure 3") if row[0] == "`baseline`")
    assert re.fullmatch(r"0\.92 \[.*\] → 0\.82 \[.*\]", row[2]) and "small and large" in row[-1]
    unmeasured = [row[0] for row in cells(measured, "Figure 1") if row[2] == paper.NOT_MEASURED]
    assert unmeasured == ["chess", "reward modelling"]


def test_an_undetermined_pgr_is_called_so() -> None:
    rows = [student(seed, "baseline", 0.6, ceiling=0.6) | {"task": "sst2"} for seed in range(SEEDS)]
    assert cells(paper.tables(with_outcomes(rows)), "Figure 1")[0][2] == "undetermined"
    no_ceiling = [row | {"ceiling_accuracy": np.nan, "ceiling_correct": None} for row in rows]
    assert cells(paper.tables(with_outcomes(no_ceiling)), "Figure 1")[0][2] == "no ceiling"


def test_probes_and_errors_come_from_their_tables() -> None:
    run = {"task": "t", "weak": "w", "strong": "s", "method": "baseline", "method_options": "", "other_options": ""}
    probe = run | {"run_id": "a", "seed": "0", "concept": "sentiment", "layer": 1, "chosen": True, "selectivity": 0.1}
    probes = pd.DataFrame([probe | {"model": "before", "accuracy": 0.7}, probe | {"model": "after", "accuracy": 0.75}])
    error = run | {"run_id": "b", "seed": "0", "gold": 0, "answer": 1, "on_own_evidence": np.nan, "on_ceiling_evidence": np.nan}
    error |= {"on_random": np.nan, "ceiling_answer": 0}
    errors = pd.DataFrame([error | {"weak_answer": weak} for weak in (1, 1, 1, 0)])
    found = dataclasses.replace(
        frames.frames([]), probes=probes.reindex(columns=list(PROBES)), errors=errors.reindex(columns=list(ERRORS))
    )
    label, data = "t, w → s, n = 1", paper.tables(found)
    assert cells(data, "Figure 4") == [("sentiment", "`baseline`", "higher after", "0.700 → 0.750", "0.050", label)]
    assert cells(data, "Figure 5")[1] == ("`baseline`", "0.00", "0.00", "0.75", "0.25", label)


def test_only_the_part_between_the_markers_is_replaced() -> None:
    page = f"before\n{paper.BEGIN}\nold\n{paper.END}\nafter\n"
    once = paper.replaced(page, "new\n")
    assert once == f"before\n{paper.BEGIN}\n\nnew\n\n{paper.END}\nafter\n" and paper.replaced(once, "new\n") == once
    with pytest.raises(SystemExit, match="--write must be a page that has the lines"):
        paper.replaced("no markers", "new")


def test_the_page_has_every_item_of_the_paper() -> None:
    page = PAGE.read_text(encoding="utf-8")
    part = page.partition(paper.BEGIN)[2].partition(paper.END)[0]
    for item in paper.STATED["items"]:
        assert f"### {item['name']}: {item['title']}\n\n{item['stated'].strip()}" in part
    assert "### " not in page.replace(part, "")


def test_the_commands_name_grids_that_exist() -> None:
    grids = {path.stem for path in (PAGE.parents[2] / "sweeps").glob("*.py")}
    named = {name for item in paper.STATED["items"] for line in item["commands"] for name in re.findall(r"--sweep (\w+)", line)}
    assert named and named <= grids
    assert {"student", "probe", "errors"} <= set(registry.plugins("stages"))
