"""Tables go to parquet and back unchanged, joins lose and double nothing, and each read of gold is counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from w2s_mlflow.records import (
    NO_LABEL,
    Debate,
    Example,
    Explanation,
    Gold,
    JoinError,
    NoLabelError,
    Predictions,
    Side,
    SoftLabels,
    Verdict,
    positions,
    read_gold,
    read_predictions,
    write_gold,
)

IDS, GROUPS = ("b", "a", "c"), ("g1", "g1", "é 2")
PROBABILITIES = np.array([[0.1, 0.9], [1 / 3, 2 / 3], [1e-38, 1.0]], dtype=np.float32)
GOLD = np.array([1, 0, 1], dtype=np.int64)


def predictions(*, gold: bool = True) -> Predictions:
    return Predictions(IDS, GROUPS, PROBABILITIES, GOLD if gold else None)


def examples(*ids: str) -> list[Example]:
    return [Example(id_, "g", ("text",)) for id_ in ids]


def assert_equal(found: Predictions, expected: Predictions) -> None:
    assert (found.ids, found.groups) == (expected.ids, expected.groups)
    assert found.probabilities_NC.dtype == np.float32
    assert found.probabilities_NC.tobytes() == expected.probabilities_NC.tobytes()
    if expected.gold_N is None:
        assert found.gold_N is None
    else:
        assert found.gold_N is not None and found.gold_N.dtype == np.int64
        assert found.gold_N.tolist() == expected.gold_N.tolist()


def test_predictions_survive_parquet_to_the_last_bit(tmp_path: Path) -> None:
    path = tmp_path / "predictions" / "test.parquet"
    predictions(gold=False).write(path)
    assert_equal(read_predictions(path), predictions(gold=False))


@pytest.mark.parametrize("shape", [(1, 2), (5000, 3), (4, 768)])
def test_any_shape_survives_parquet(tmp_path: Path, shape: tuple[int, int]) -> None:
    probabilities_NC = np.random.default_rng(0).dirichlet(np.ones(shape[1]), size=shape[0]).astype(np.float32)
    ids = tuple(f"id {row}" for row in range(shape[0]))
    expected = Predictions(ids, ids, np.asfortranarray(probabilities_NC))
    expected.write(tmp_path / "table.parquet")
    found = read_predictions(tmp_path / "table.parquet")
    assert found.ids == ids and np.array_equal(found.probabilities_NC, probabilities_NC)


@pytest.mark.parametrize("table", [SoftLabels(IDS, GROUPS, PROBABILITIES), predictions()])
def test_gold_is_never_written_beside_probabilities(table: SoftLabels, tmp_path: Path) -> None:
    table.write(tmp_path / "table.parquet")
    found = pq.read_table(tmp_path / "table.parquet")
    assert found.column_names == ["id", "group", "probabilities"]
    assert str(found.schema.field("probabilities").type).startswith("fixed_size_list<") and found.num_rows == 3
    assert_equal(read_predictions(tmp_path / "table.parquet"), predictions(gold=False))


def test_gold_is_joined_by_id(tmp_path: Path) -> None:
    write_gold(tmp_path / "gold" / "test.parquet", IDS, GOLD)
    assert pq.read_table(tmp_path / "gold" / "test.parquet").to_pydict() == {"id": list(IDS), "gold": GOLD.tolist()}
    assert read_gold(tmp_path / "gold" / "test.parquet", ["a", "b"]).tolist() == [0, 1]
    with pytest.raises(JoinError, match="'x'"):
        read_gold(tmp_path / "gold" / "test.parquet", ["a", "x"])


def test_positions_follow_the_ids_that_are_wanted() -> None:
    assert positions(IDS, ["c", "b"]).tolist() == [2, 0]
    assert positions(IDS, []).tolist() == []


def test_labels_are_joined_by_id() -> None:
    labels = SoftLabels(IDS, GROUPS, PROBABILITIES)
    assert np.array_equal(labels.of(["c", "a"]), PROBABILITIES[[2, 1]])


def test_a_label_that_is_missing_is_named() -> None:
    with pytest.raises(JoinError, match=r"2 of 3 ids are missing from a table, such as 'x'"):
        SoftLabels(IDS, GROUPS, PROBABILITIES).of(["a", "x", "y"])


def test_an_id_that_stands_twice_in_a_table_is_named() -> None:
    with pytest.raises(JoinError, match=r"id 'a' occurs twice in a table of 3 rows"):
        SoftLabels(("b", "a", "a"), GROUPS, PROBABILITIES).of(["b"])


@pytest.mark.parametrize("gold", [True, False])
def test_alignment_moves_whole_rows(gold: bool) -> None:
    found = predictions(gold=gold).aligned(["a", "b", "c"])
    expected = Predictions(("a", "b", "c"), ("g1", "g1", "é 2"), PROBABILITIES[[1, 0, 2]], GOLD[[1, 0, 2]] if gold else None)
    assert_equal(found, expected)


@pytest.mark.parametrize(
    "ids",
    [["a", "b"], ["a", "b", "x"], ["a", "b", "c", "x"], ["a", "b", "c", "a"], ["a", "b", "b"]],
    ids=["one lost", "one unknown", "one more", "one doubled", "one lost and one doubled"],
)
def test_alignment_of_other_ids_is_refused(ids: list[str]) -> None:
    with pytest.raises(JoinError):
        predictions().aligned(ids)


def test_alignment_of_a_table_with_a_doubled_id_is_refused() -> None:
    with pytest.raises(JoinError, match="id 'a' occurs twice"):
        Predictions(("a", "b", "a"), GROUPS, PROBABILITIES, GOLD).aligned(["a", "b"])


def test_a_table_needs_one_row_of_probabilities_per_id() -> None:
    for ids, groups in ((IDS[:2], GROUPS), (IDS, GROUPS[:2])):
        with pytest.raises(AssertionError):
            SoftLabels(ids, groups, PROBABILITIES)
    with pytest.raises(AssertionError):
        SoftLabels(IDS, GROUPS, PROBABILITIES[:, 0])


def test_correct_is_the_most_probable_class_and_a_tie_the_lower() -> None:
    tied_NC = np.array([[0.5, 0.5], [0.5, 0.5], [0.2, 0.8]], dtype=np.float32)
    assert Predictions(IDS, GROUPS, tied_NC, GOLD).correct_N().tolist() == [0.0, 1.0, 1.0]


def test_correctness_without_gold_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="not been scored"):
        predictions(gold=False).correct_N()


def test_gold_is_put_beside_predictions() -> None:
    assert_equal(predictions(gold=False).with_gold(GOLD), predictions())


def test_each_read_of_gold_is_counted_under_its_split_and_reason() -> None:
    gold = Gold({"a": 0, "b": 1, "c": 1})
    assert gold.ledger() == {}
    assert gold.read(examples("c", "a"), split="transfer", reason="ceiling").tolist() == [1, 0]
    gold.read(examples("a"), split="transfer", reason="oracle")
    gold.read(iter(examples("b")), split="transfer", reason="ceiling")
    gold.read(examples("a", "b", "c"), split="test", reason="report")
    assert gold.ledger() == {"test/report": 3, "transfer/ceiling": 3, "transfer/oracle": 1}


def test_gold_that_is_not_held_is_not_counted() -> None:
    gold = Gold({"a": 0})
    with pytest.raises(KeyError):
        gold.read(examples("a", "x"), split="test", reason="report")
    assert gold.ledger() == {}


def test_gold_without_a_label_is_neither_returned_nor_counted() -> None:
    gold = Gold({"a": 0, "b": NO_LABEL, "c": NO_LABEL})
    with pytest.raises(NoLabelError, match=r"^2 of 3 rows of transfer have no label, but ceiling needs labels$"):
        gold.read(examples("a", "b", "c"), split="transfer", reason="ceiling")
    assert gold.ledger() == {}


@pytest.mark.parametrize(("ids", "known"), [("a", True), ("b", True), ("ca", True), ("c", False), ("", False)])
def test_whether_a_label_is_known_is_not_a_read(ids: str, known: bool) -> None:
    gold = Gold({"a": 0, "b": 1, "c": NO_LABEL})
    assert gold.known(examples(*ids)) is known
    assert gold.ledger() == {}


def test_gold_of_nothing_is_empty_and_typed() -> None:
    labels_N = Gold({}).read([], split="test", reason="report")
    assert labels_N.shape == (0,) and labels_N.dtype == np.int64


def test_a_debate_swapped_twice_is_the_same_and_has_no_place_for_gold() -> None:
    strong, weak = (Side(name, 1, "yes", Explanation("a piece", (2,))) for name in ("strong", "weak"))
    debate = Debate(examples("a")[0], strong, weak)
    assert debate.order() == "strong,weak"
    assert debate.swapped().order() == "weak,strong"
    assert debate.swapped() == Debate(debate.question, weak, strong) and debate.swapped().swapped() == debate
    fields = {field.name for record in (Debate, Side, Explanation, Verdict, Example) for field in dataclasses.fields(record)}
    assert not {"gold", "label", "labels"} & fields
