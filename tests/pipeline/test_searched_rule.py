"""Rules searched over features: each family against all its rules tried one by one, and the stage that scores them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.conftest import SMALL
from tests.losses.test_losses import slow_machine
from w2s_mlflow.data import gold, loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.pipeline import searched_rule
from w2s_mlflow.pipeline.searched_rule import Features, Rule
from w2s_mlflow.records import Example, Ints
from w2s_mlflow.stages import rule
from w2s_mlflow.tasks import _chess_features as chess_features

NAMES = ["a", "b", "c"]
SMALL_NUMBERS = st.integers(-2, 2).map(float)
ROWS = st.integers(1, 12).flatmap(
    lambda rows: st.tuples(
        arrays.arrays(np.float64, (rows, 2, len(NAMES)), elements=SMALL_NUMBERS),
        arrays.arrays(np.int64, rows, elements=st.integers(0, 1)),
    )
)


def correct(found: Rule, features_N2F: Features, gold_N: Ints) -> int:
    return int((found.choose(features_N2F) == gold_N).sum())


def better(first: Any, second: Any, gold_: int) -> bool:
    """Whether the choice between two keys is the gold one; a tie goes to the first."""
    return int(second > first) == gold_


@slow_machine
@given(ROWS)
def test_the_best_rule_of_one_feature_is_as_good_as_every_single_one(rows: tuple[Features, Ints]) -> None:
    features_N2F, gold_N = rows
    found = correct(searched_rule.one_feature(features_N2F, gold_N, NAMES, 0), features_N2F, gold_N)

    def key(value: float, threshold: float | None) -> float:
        return value if threshold is None else float(value > threshold)

    def thresholds(f: int) -> list[float | None]:
        """No threshold, and those that some value of the feature exceeds and another one does not."""
        return [None, *np.unique(features_N2F[:, :, f])[:-1].tolist()]

    each = [
        sum(
            better(sign * key(first[f], threshold), sign * key(second[f], threshold), label)
            for (first, second), label in zip(features_N2F, gold_N, strict=True)
        )
        for f, sign in itertools.product(range(len(NAMES)), (1, -1))
        for threshold in thresholds(f)
    ]
    assert found == max(each)


@slow_machine
@given(ROWS)
def test_the_best_lexicographic_rule_is_as_good_as_every_single_one(rows: tuple[Features, Ints]) -> None:
    features_N2F, gold_N = rows
    found = correct(searched_rule.lexicographic(features_N2F, gold_N, NAMES, 0), features_N2F, gold_N)
    each = [
        sum(
            better((s * first[f], t * first[g]), (s * second[f], t * second[g]), label)
            for (first, second), label in zip(features_N2F, gold_N, strict=True)
        )
        for f, g, s, t in itertools.product(range(len(NAMES)), range(len(NAMES)), (1, -1), (1, -1))
    ]
    assert found == max(each)


def rows(count: int, seed: int = 0) -> Features:
    values_N2F: Features = np.random.default_rng(seed).integers(0, 10, (count, 2, len(NAMES))).astype(float)
    return values_N2F


def test_a_weighted_sum_finds_a_difference_of_two_features() -> None:
    features_N2F = rows(400)
    margin_N = (features_N2F[:, 1, 0] - features_N2F[:, 1, 2]) - (features_N2F[:, 0, 0] - features_N2F[:, 0, 2])
    kept = margin_N != 0
    features_N2F, gold_N = features_N2F[kept], (margin_N[kept] > 0).astype(np.int64)
    found = searched_rule.weighted_sum(features_N2F, gold_N, NAMES, 0)
    assert correct(found, features_N2F, gold_N) / len(gold_N) > 0.97
    single = searched_rule.one_feature(features_N2F, gold_N, NAMES, 0)
    assert correct(single, features_N2F, gold_N) / len(gold_N) < 0.85
    words = found.description.split()
    assert {words[1], words[3]} == {"a", "c"} and float(words[0]) * float(words[2]) < 0


def test_a_weighted_sum_of_constants_is_a_tie() -> None:
    features_N2F = np.ones((4, 2, 3))
    found = searched_rule.weighted_sum(features_N2F, np.array([0, 0, 0, 1]), NAMES, 0)
    assert found.choose(features_N2F).tolist() == [0, 0, 0, 0]


def gated(count: int, seed: int) -> tuple[Features, Ints]:
    """Larger `a`, less `b` where `c` is above 4: what no rule of two features says."""
    features_N2F = rows(count, seed)
    worth_N2 = features_N2F[:, :, 0] - features_N2F[:, :, 1] * (features_N2F[:, :, 2] > 4)
    kept = worth_N2[:, 0] != worth_N2[:, 1]
    return features_N2F[kept], (worth_N2[:, 1] > worth_N2[:, 0])[kept].astype(np.int64)


def test_the_search_takes_trees_where_two_features_do_not_say_it() -> None:
    features_N2F, gold_N = gated(600, 0)
    found = searched_rule.search(features_N2F, gold_N, [str(row) for row in range(len(gold_N))], NAMES, 0)
    assert "boosted trees" in found.rule.description
    assert max(found.accuracies[name] for name in ("trees_4", "trees_16")) > found.accuracies["weighted_sum"] + 0.05
    unseen_N2F, truth_N = gated(600, 1)
    assert correct(found.rule, unseen_N2F, truth_N) / len(truth_N) > 0.85
    flipped_N = found.rule.choose(unseen_N2F[:, ::-1])
    assert (flipped_N != found.rule.choose(unseen_N2F)).mean() > 0.99  # all but ties


def test_the_accuracies_are_of_rows_that_the_rule_has_not_seen() -> None:
    """Labels by a coin: what is found fits them, and is right in half of the rows left out."""
    features_N2F, gold_N = rows(400), np.random.default_rng(5).integers(0, 2, 400)
    found = searched_rule.search(features_N2F, gold_N, [str(row) for row in range(400)], NAMES, 0)
    assert all(0.4 < accuracy < 0.6 for accuracy in found.accuracies.values())
    assert correct(searched_rule.FAMILIES["trees_16"](features_N2F, gold_N, NAMES, 0), features_N2F, gold_N) > 300


def test_a_group_is_in_one_fold_and_the_seed_deals_them() -> None:
    groups = [f"g{row // 3}" for row in range(300)]
    folds = searched_rule._folds(groups, 0)
    assert all(len(set(folds[start : start + 3])) == 1 for start in range(0, 300, 3))
    assert np.bincount(folds).tolist() == [60] * 5
    assert (folds != searched_rule._folds(groups, 1)).any()


# --- chess ------------------------------------------------------------------------------------------------------------

EXAMPLE = Example("e", "g", ("Ke2 Qd3 Rc4 ke7 pc5 nd6 qf5 >",), ("Rc5", "Qd6"))
EXPECTED = {
    # The rook takes the pawn on c5, two files and two ranks from the king on e7, beside the knight on d6.
    "Rc5": {
        **{"value_taken": 1, "value_of_piece": 5, "black_king_distance": 2, "beside_black_king": 0, "white_king_distance": 3},
        **{"nearest_black_piece": 1, "near_black_pieces": 1, "file": 2, "rank": 4, "off_centre": 1.5, "gives_check": 0},
        **{"files_and_ranks": 1, "diagonals": 0, "knights": 0, "pawns": 0},
    },
    # The queen takes the knight beside the king, with check; the queen on f5 is two away, the pawn on c5 does not move back.
    "Qd6": {
        **{"value_taken": 3, "value_of_piece": 9, "black_king_distance": 1, "beside_black_king": 1, "white_king_distance": 4},
        **{"nearest_black_piece": 1, "near_black_pieces": 2, "file": 3, "rank": 5, "off_centre": 0.5, "gives_check": 1},
        **{"files_and_ranks": 0, "diagonals": 0, "knights": 0, "pawns": 0},
    },
}


@pytest.mark.parametrize("move", EXPECTED)
def test_features_of_a_capture(move: str) -> None:
    found = {name: feature(EXAMPLE, move) for name, feature in chess_features.FEATURES["attack_lines"].items()}
    assert found == EXPECTED[move]


def test_lines_of_attack() -> None:
    """On d5: a bishop on its diagonal, a knight's jump away, and a pawn one rank above; the captured piece is left out."""
    example = Example("e", "g", ("Ke2 Qd3 kf7 bf3 nc7 pe6 pd5 >",), ("Qd5",))
    lines = {name: feature(example, "Qd5") for name, feature in chess_features.LINES.items()}
    assert lines == {"files_and_ranks": 0, "diagonals": 1, "knights": 1, "pawns": 1}


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("shared")
def test_a_searched_rule_is_found_on_supervision_and_scored_for_each_seed() -> None:
    first, second = (rule.run(rule.Config(rule="searched_rule", seed=seed, **SMALL)) for seed in (0, 1))
    assert (first.run_id != second.run_id) and (first.params["seed"], second.params["seed"]) == ("0", "1")
    config = rule.Config(rule="searched_rule", **SMALL)
    split = loading.resolve_and_split(config.resolved())[1]
    examples = split.supervision + split.supervision_validation
    gold_N = gold.gold_of(config).read(examples, split="supervision", reason="test")
    values = searched_rule.features_of(examples, chess_features.CHEAP)
    found = searched_rule.search(values, gold_N, [example.group for example in examples], list(chess_features.CHEAP), 0)
    answers_N = found.rule.choose(searched_rule.features_of(split.test, chess_features.CHEAP))
    stored = first.predictions("test").of([example.id for example in split.test])
    assert (stored.argmax(axis=1) == answers_N).all()
    assert first.tags[rule.FOUND] == found.rule.description
    assert first.metrics["gold/supervision/rule"] == len(examples) and first.params["method"] == "rule:searched_rule"


@pytest.mark.usefixtures("shared")
def test_a_rule_without_a_search_is_scored_once() -> None:
    assert rule.Config(rule="random", seed=3) == rule.Config(rule="random")
    assert rule.run(rule.Config(rule="random", seed=3, **SMALL)).params["seed"] == "-"


def test_a_rule_needs_features_to_be_searched() -> None:
    with pytest.raises(ConfigError, match=r"^--rule must be one of .*, got 'searched_rule'"):
        rule.Config(task="sst2", rule="searched_rule")
