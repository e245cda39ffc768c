"""Tables and figures from a hand-made frame: every column against its definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from w2s_mlflow import stats
from w2s_mlflow.figures import accuracy_by_size, agreement_by_size, forest, pgr_by_size
from w2s_mlflow.figures import inheritance as inheritance_figure
from w2s_mlflow.tables import LABEL, PROBES, ablation, agreement, claims, inheritance, paired_tests, pgr, transfer

ROWS, SEEDS = 400, 5


def student(seed: int, method: str, accuracy: float, weak: float = 0.6, ceiling: float = 0.8) -> dict[str, Any]:
    """One student of the frame, each row right with the given probability."""
    rng = np.random.default_rng([seed, len(method)])
    correct = {name: (rng.random(ROWS) < p).astype(float) for name, p in (("weak", weak), ("own", accuracy), ("top", ceiling))}
    return {
        "run_id": f"{method}{seed}",
        "checkpoints": "",
        "task": "t",
        "weak": "w",
        "strong": "s",
        "head": "lm_choice",
        "method": method,
        "method_options": "",
        "other_options": "",
        "domain": "NLP",
        "gold": np.zeros(ROWS, dtype=int),
        "answer": 1 - correct["own"].astype(int),
        "weak_answer": 1 - correct["weak"].astype(int),
        "ceiling_answer": 1 - correct["top"].astype(int),
        "seed": str(seed),
        "train_size": 10,
        "test_size": ROWS,
        "parameters": 1000,
        "groups": tuple(str(n) for n in range(ROWS)),
        "correct": correct["own"],
        "weak_correct": correct["weak"],
        "ceiling_correct": correct["top"],
        "accuracy": correct["own"].mean(),
        "weak_accuracy": correct["weak"].mean(),
        "ceiling_accuracy": correct["top"].mean(),
        "agreement": 0.5,
        "ceiling_failed": False,
        "elicited_correct": None,
        "elicited_accuracy": math.nan,
        "collapsed": False,
        "diverged": 0,
    }


def rule() -> dict[str, Any]:
    """A rule of the frame: no models, no seed."""
    blank = dict.fromkeys(("agreement", "weak_accuracy", "ceiling_accuracy", "parameters"), math.nan)
    models = {"weak": "-", "strong": "-", "head": "-", "seed": "-", "weak_correct": None, "ceiling_correct": None}
    models |= {"weak_answer": None, "ceiling_answer": None}
    return student(0, "rule:random", 0.5) | models | blank


@pytest.fixture
def outcomes() -> pd.DataFrame:
    """Two methods of five seeds, and a rule."""
    rows = [student(seed, method, p) for method, p in (("baseline", 0.7), ("confidence", 0.75)) for seed in range(SEEDS)]
    return pd.DataFrame([*rows, rule()])


def test_the_pgr_table_has_a_row_per_label_with_the_interval_of_stats(outcomes: pd.DataFrame) -> None:
    found = pgr.table(outcomes).set_index("method")
    assert list(found.index) == ["baseline", "confidence", "rule:random"]
    own = outcomes[outcomes["method"] == "confidence"]
    expected = stats.pgr_interval(
        list(own["weak_correct"]), list(own["correct"]), list(own["ceiling_correct"]), own["groups"].iloc[0]
    )
    row = found.loc["confidence"]
    assert (row["pgr"], row["pgr_low"], row["pgr_high"], row["pgr_status"]) == expected[:4]
    assert row["n"] == SEEDS and row["accuracy"] == pytest.approx(own["accuracy"].mean())
    both = stats.two_way_interval(list(own["correct"]), own["groups"].iloc[0])
    assert (row["accuracy_low"], row["accuracy_high"]) == pytest.approx(both[1:])
    assert row["reliable"] == "yes" and row["collapsed"] == 0
    random = found.loc["rule:random"]
    assert random["n"] == 1 and pd.isna(random["pgr"])
    of_rows = scipy_stats.t.interval(0.95, ROWS - 1, random["accuracy"], scipy_stats.sem(rule()["correct"]))
    assert (random["accuracy_low"], random["accuracy_high"]) == pytest.approx(of_rows)


def test_an_untrained_model_has_the_interval_of_its_rows_and_not_the_width_of_its_seeds() -> None:
    untrained = student(0, "zero_shot", 0.6)
    (row,) = pgr.table(pd.DataFrame([untrained | {"seed": str(seed)} for seed in range(SEEDS)])).to_dict("records")
    expected = stats.group_interval(untrained["correct"], untrained["groups"])
    assert (row["accuracy"], row["accuracy_low"], row["accuracy_high"]) == pytest.approx(expected)
    assert row["accuracy_high"] - row["accuracy_low"] > 0.05


def test_collapsed_students_are_counted_and_their_rows_are_marked() -> None:
    rows = [student(seed, method, 0.7) for method in ("baseline", "confidence", "full") for seed in range(SEEDS)]
    frame = pd.DataFrame(rows)
    frame["collapsed"] = (frame["method"] == "confidence") & (frame["seed"] == "2")
    frame.loc[frame["method"] == "full", "diverged"] = 2
    found = pgr.table(frame).set_index("method")
    assert found["collapsed"].to_dict() == {"baseline": 0, "confidence": 1, "full": 2}
    assert found["reliable"].to_dict() == {"baseline": "yes", "confidence": "no", "full": "no"}
    assert set(found["n"]) == {SEEDS} and set(found["failed_ceilings"]) == {0}
    failed = pgr.table(frame.assign(ceiling_failed=frame["seed"] == "0", collapsed=False, diverged=0))
    assert set(failed["reliable"]) == {"no"}


def test_paired_tests_match_by_seed_and_agree_with_scipy(outcomes: pd.DataFrame) -> None:
    shuffled = outcomes.sample(frac=1, random_state=0)
    for frame in (outcomes, shuffled):
        found = paired_tests.table(frame).query("metric == 'accuracy' and baseline == 'baseline' and method == 'confidence'")
        base, own = (outcomes[outcomes["method"] == name] for name in ("baseline", "confidence"))
        expected = scipy_stats.ttest_rel(own["accuracy"].to_numpy(), base["accuracy"].to_numpy())
        row = found.iloc[0]
        assert row["p_seeds"] == pytest.approx(expected.pvalue)
        both = stats.two_way_test(list(base["correct"]), list(own["correct"]), own["groups"].iloc[0])
        assert tuple(row[["t", "p", "mean_difference", "low", "high"]]) == pytest.approx(both[:5])
        assert row["n"] == SEEDS and row["unit"] == "seed"


def test_holm_is_over_the_family_whatever_else_is_in_the_store(outcomes: pd.DataFrame) -> None:
    """Four methods are asked about; what was not run counts as failed, and other runs change nothing."""
    alone = paired_tests.table(outcomes)
    tested = alone[alone["family"] != ""]
    assert set(tested["metric"]) == {"accuracy", "pgr"} and set(tested["method"]) == {"confidence"}
    assert tested["p_holm"].to_numpy() == pytest.approx(np.minimum(1, 4 * tested["p"].to_numpy()))
    assert alone.loc[alone["family"] == "", "p_holm"].isna().all()
    more = [student(seed, "loss:entropy", 0.72) for seed in range(SEEDS)]
    more += [student(seed, "baseline", 0.7) | {"strong": "s2"} for seed in range(SEEDS)]
    found = paired_tests.table(pd.concat([outcomes, pd.DataFrame(more)], ignore_index=True))
    assert found[found["family"] != ""]["p_holm"].tolist() == tested["p_holm"].tolist()


def test_holm_of_a_family_of_two_tests(outcomes: pd.DataFrame) -> None:
    full = pd.DataFrame([student(seed, "full", 0.76) for seed in range(SEEDS)])
    found = paired_tests.table(pd.concat([outcomes, full], ignore_index=True))
    rows = found[(found["family"] != "") & (found["metric"] == "accuracy")]
    assert rows["p_holm"].to_numpy() == pytest.approx(stats.holm([*rows["p"], 1, 1])[:2])


def test_tests_of_imported_runs_are_over_seeds(outcomes: pd.DataFrame) -> None:
    found = paired_tests.table(imported(outcomes[outcomes["weak"] != "-"]))
    assert len(found) and (found["p"] == found["p_seeds"]).all()


def test_failed_ceilings_are_counted_in_every_table() -> None:
    rows = [student(seed, method, 0.7) for method in ("baseline", "full") for seed in range(SEEDS)]
    frame = pd.DataFrame(rows).assign(ceiling_failed=lambda frame: frame["seed"].isin(["1", "3"]))
    for plugin in (pgr, paired_tests, ablation):
        assert set(plugin.table(frame)["failed_ceilings"]) == {2}


def test_a_pair_without_a_gap_is_undetermined_and_out_of_the_pgr_tests() -> None:
    frame = pd.DataFrame(
        [student(seed, method, 0.6, 0.6, 0.6) for method in ("baseline", "confidence") for seed in range(SEEDS)]
    )
    assert set(pgr.table(frame)["pgr_status"]) == {"undetermined"}
    assert set(paired_tests.table(frame)["metric"]) == {"accuracy"}


def test_one_seed_has_no_test_and_no_interval_over_seeds() -> None:
    frame = pd.DataFrame([student(0, "baseline", 0.7)])
    assert paired_tests.table(frame).empty
    row = pgr.table(frame).iloc[0]
    assert row["n"] == 1 and row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    assert row["pgr_low"] < row["pgr"] < row["pgr_high"]


OF_ANSWERS = ("groups", "gold", "answer", "weak_answer", "ceiling_answer", "correct", "weak_correct", "ceiling_correct")


def imported(rows: pd.DataFrame) -> pd.DataFrame:
    """The same runs as if they were imported: with accuracies and no answers."""
    known: dict[str, Any] = {"train_size": "-", "test_size": "-", "parameters": math.nan, "agreement": math.nan}
    unknown: dict[str, Any] = dict.fromkeys(OF_ANSWERS)
    return rows.assign(head="imported", domain="-", **known, **unknown)


@pytest.mark.parametrize("plugin", [pgr, paired_tests, transfer, ablation, agreement, inheritance], ids=lambda it: it.__name__)
def test_own_rows_are_the_same_beside_imported_ones(plugin: Any) -> None:
    methods = {"baseline": 0.7, "confidence": 0.75, "full": 0.72}
    rows = [
        student(seed, method, p) | {"task": f"t{task}", "strong": strong}
        for method, p in methods.items()
        for seed in range(3)
        for task in range(5)
        for strong in ("s", "s2")
    ]
    own = pd.DataFrame(rows)
    alone, both = plugin.table(own), plugin.table(pd.concat([own, imported(own)], ignore_index=True))
    is_imported = both.get("head", pd.Series("", index=both.index)) == "imported"
    pd.testing.assert_frame_equal(both[~is_imported].reset_index(drop=True), alone.reset_index(drop=True), check_dtype=False)
    assert is_imported.sum() == (len(alone) if plugin in (pgr, paired_tests, transfer) else 0)


def test_the_paper_s_statements_are_not_tested_on_imported_runs() -> None:
    probes = pd.DataFrame(columns=list(PROBES))
    own = pd.DataFrame([student(seed, name, p) for name, p in (("baseline", 0.7), ("confidence", 0.75)) for seed in range(3)])
    assert len(claims.table(own, probes)) and claims.table(imported(own), probes).empty


@pytest.mark.parametrize(
    ("low", "high", "expected", "verdict"),
    [
        (0.1, 0.3, "above 0", "supported"),
        (0.0, 0.3, "above 0", "undetermined"),  # zero is not above zero
        (-0.1, 0.3, "above 0", "undetermined"),
        (-0.3, 0.0, "above 0", "contradicted"),
        (0.0, 0.0, "above 0", "contradicted"),
        (-0.1, 0.1, "below 0.2", "supported"),
        (-0.1, 0.2, "below 0.2", "undetermined"),
        (0.2, 0.3, "below 0.2", "contradicted"),
        (math.nan, math.nan, "below 0.2", "undetermined"),
    ],
)
def test_a_statement_holds_if_the_whole_interval_lies_inside_its_range(
    low: float, high: float, expected: str, verdict: str
) -> None:
    finding, limit = claims.Finding("PGR", "s", 5, (low + high) / 2, low, high), float(expected.split()[1])
    limits = (limit, math.inf) if expected.startswith("above") else (-math.inf, limit)
    row = claims._verdict_row("a statement", finding, *limits)
    assert (row["expected"], row["verdict"]) == (expected, verdict)


def test_figures_over_size_draw_no_imported_runs_and_the_forest_draws_them_apart(outcomes: pd.DataFrame) -> None:
    both = pd.concat([outcomes, imported(outcomes[outcomes["weak"] != "-"])], ignore_index=True)
    for plugin, more in ((pgr_by_size, 0), (accuracy_by_size, 0), (agreement_by_size, 0), (inheritance_figure, 0), (forest, 1)):
        assert len(plugin.figure(both).axes) == len(plugin.figure(outcomes).axes) + more
    assert accuracy_by_size.figure(imported(outcomes)).axes == []


def test_the_pgr_of_imported_runs_is_over_seeds(outcomes: pd.DataFrame) -> None:
    own = outcomes[outcomes["method"] == "confidence"]
    (row,) = pgr.table(imported(own)).to_dict("records")
    expected = stats.pgr_over_seeds(own["weak_accuracy"], own["accuracy"], own["ceiling_accuracy"])
    assert (row["pgr"], row["pgr_low"], row["pgr_high"], row["pgr_status"]) == expected[:4] and row["pgr_status"] == "ok"
    assert row["pgr"] == pytest.approx(pgr.table(own)["pgr"].iloc[0])


def test_the_ablation_stands_beside_the_papers_numbers() -> None:
    methods = ("baseline", "full", "full-without-confidence", "full-without-bootstrap", "full-without-generative")
    rows = [student(seed, method, 0.7) for method in methods for seed in range(SEEDS)]
    found = ablation.table(pd.DataFrame([*rows, rule()])).set_index("method")
    assert list(found.index) == list(methods[1:]) and list(found["n"]) == [SEEDS] * 4
    assert found["paper_accuracy"].tolist()[1:] == [0.82, 0.80, 0.85] and found["paper_pgr"].tolist()[1:] == [0.60, 0.55, 0.70]
    assert found.loc["full", ["paper_accuracy", "paper_pgr"]].isna().all()
    ours = pgr.table(pd.DataFrame(rows)).set_index("method")
    assert found["pgr"].tolist() == ours["pgr"].tolist()[1:]


def test_an_ablation_that_was_not_made_has_no_row(outcomes: pd.DataFrame) -> None:
    found = ablation.table(outcomes)
    assert found.empty and list(found.columns) == ablation.COLUMNS


def test_tables_do_not_change_their_input(outcomes: pd.DataFrame) -> None:
    before = outcomes.copy(deep=True)
    pgr.table(outcomes), paired_tests.table(outcomes), pgr_by_size.figure(outcomes)
    pd.testing.assert_frame_equal(outcomes, before)
    assert set(LABEL) <= set(outcomes.columns)


def test_the_figure_draws_one_line_per_method_at_the_table_s_points(outcomes: pd.DataFrame) -> None:
    found = pgr_by_size.figure(outcomes)
    (axes,), (legend,) = found.axes, found.legends
    assert [text.get_text() for text in legend.get_texts()] == ["baseline", "confidence"]
    drawn = [line[0].get_ydata()[0] for line in axes.containers]
    assert drawn == pytest.approx(pgr.table(outcomes)["pgr"].dropna().tolist())
    assert axes.get_xlabel() and axes.get_ylabel()


def test_an_undetermined_panel_says_so() -> None:
    axes = pgr_by_size.figure(pd.DataFrame([student(seed, "baseline", 0.6, 0.6, 0.6) for seed in range(SEEDS)])).axes[0]
    assert [text.get_text() for text in axes.texts] == ["PGR undetermined"]


def test_seeds_that_share_checkpoints_are_one_cluster_and_are_counted() -> None:
    rows = [student(seed, method, p) for method, p in (("baseline", 0.7), ("confidence", 0.75)) for seed in range(4)]
    frame = pd.DataFrame(rows)
    shared = frame.assign(checkpoints=[f"w@{int(seed) % 2}" for seed in frame["seed"]])
    found = pgr.table(shared).set_index("method").loc["confidence"]
    assert (found["n"], found["pretrainings"]) == (4, 2)
    own = shared[shared["method"] == "confidence"]
    expected = stats.two_way_interval(list(own["correct"]), own["groups"].iloc[0], units=[0, 1, 0, 1])
    assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(expected[1:])
    tests = paired_tests.table(shared).set_index(["metric", "baseline", "method"])
    alone = paired_tests.table(frame).set_index(["metric", "baseline", "method"])
    key = ("accuracy", "baseline", "confidence")
    assert tests.loc[key, "mean_difference"] == pytest.approx(alone.loc[key, "mean_difference"])
    assert tests.loc[key, "p"] != pytest.approx(alone.loc[key, "p"])
