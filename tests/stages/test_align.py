"""Alignment: at lambda = 0 a plain student, to the bit; else a policy that shows what its judge prefers."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.conftest import SMALL, runs
from w2s_mlflow.analysis import build
from w2s_mlflow.data import loading
from w2s_mlflow.debate import past_verdicts, policy_gradient, transcripts
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import Judge, model, reward
from w2s_mlflow.records import Debate, Verdict
from w2s_mlflow.stages import _alignment_round, align, student
from w2s_mlflow.tracking import logged_model, planning, results, session
from w2s_mlflow.tracking.results import Result

MODELS: dict[str, Any] = {"weak": "chess-27k", "strong": "chess-121k"}


def config(**options: Any) -> align.Config:
    return align.Config(**{"num_questions": 60, "ceiling": "none", **MODELS, **SMALL, **options})


def probabilities(found: Result) -> list[bytes]:
    return [found.predictions(part).probabilities_NC.tobytes() for part in ("validation", "selection", "test")]


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_at_lambda_zero_it_is_the_plain_student_to_the_bit_and_else_not(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = student.run(student.Config(ceiling="none", **MODELS, **SMALL))
    found = align.run(config(debate_weight=0.0))
    assert probabilities(found) == probabilities(plain)
    assert found.metrics["test/accuracy"] == found.metrics["test/baseline_accuracy"] == plain.metrics["test/accuracy"]
    assert found.metrics["align/gain"] == 0 and _alignment_round.POLICY not in found.digests
    assert not [name for name in found.metrics if name.startswith("align/re")]
    monkeypatch.setattr(logged_model, "load", load := Mock(wraps=logged_model.load))
    other = align.run(config(debate_weight=0.5))
    assert load.call_count == 2  # the weak model and the plain student, once each
    assert (
        probabilities(other) != probabilities(plain) and results.get(other.tags["w2s.baseline_run_id"]).run_id == plain.run_id
    )
    check_written(other)
    assert align.run(config(debate_weight=0.5)).run_id == other.run_id
    with session.planning() as plan:
        align.run(config(debate_weight=0.2))
    assert plan.count(planning.TRAINED) == 1


def check_written(found: Result) -> None:
    policy = load_file(found.artifact(_alignment_round.POLICY))
    assert np.abs(policy["score.weight"]).max() > 0
    for when, model_ in _alignment_round.COMPARED.items():
        debates = pd.read_parquet(found.artifact(f"{when}/debates.parquet"))
        assert len(debates) == 60 == found.metrics[f"align/{model_}_questions"]
        assert {len(own) for own in debates["strong_pieces"]} == {3}
    for name in ("reward", "win_rate", "kl", "entropy", "evidence_words", "gain", "gain_low", "gain_high"):
        assert np.isfinite(found.metrics[f"align/{name}"])


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_two_sides_that_draw_at_random_draw_apart() -> None:
    found = align.run(config(opponent="random", debate_weight=0.0))
    debates = pd.read_parquet(found.artifact("before/debates.parquet"))
    same = [sorted(one) == sorted(other) for one, other in zip(debates["strong_pieces"], debates["weak_pieces"], strict=True)]
    assert np.mean(same) < 0.2


def planted(debate: Debate) -> float:
    """The strong side wins if it shows the black king, whatever the other does."""
    strong = debate.first if debate.first.name == "strong" else debate.second
    wins = any(word.startswith("k") for word in strong.explanation.text.split())
    return 2.0 if wins is (strong is debate.first) else -2.0


def prefers_the_king(options: Any, answer: Any) -> Judge:
    return lambda debates: [Verdict(planted(one), "the king", one.order(), 0) for one in debates]


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_a_judge_that_prefers_a_planted_piece_drives_the_policy_to_choose_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "make", prefers_the_king)
    found = align.run(config(train_size=800, epochs=4, early_stopping="none", pieces=2, debate_weight=1.0, kl=0.0))
    shares = {}
    for when in ("before", "after"):
        shown = pd.read_parquet(found.artifact(f"{when}/debates.parquet"))["strong_explanation"]
        shares[when] = float(np.mean([any(word.startswith("k") for word in text.split()) for text in shown]))
    assert shares["before"] < 0.5 and shares["after"] > 0.9
    assert found.metrics["align/gain_low"] > 0 and found.metrics["align/entropy"] < 0.7


def test_a_draw_without_a_verdict_weighs_nothing() -> None:
    own = policy_gradient.rewards([3.0, 1.0, None, 2.0, None, None, None, None])
    np.testing.assert_allclose(own, [[3, 1, 2, 2], [0, 0, 0, 0]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"debate_weight": -0.1}, "--debate-weight must be at least 0, got -0.1"),
        ({"kl": float("inf")}, "--kl must be finite, got inf"),
        ({"evidence_spans": 0}, "--evidence-spans must be at least 1, got 0"),
        ({"num_questions": 0}, "--num-questions must be at least 1, got 0"),
        ({"opponent": "policy"}, "--opponent must be one of gradient, random, got 'policy'"),
        ({"early_stopping": "oracle"}, "--early-stopping must be one of none, weak, got 'oracle'"),
        ({"judge": "nobody"}, "--judge must be one of .*model.*, got 'nobody'"),
        ({"iterations": 0}, "--iterations must be at least 1, got 0"),
        (
            {"iterations": 2, "debate_weight": 0.0},
            "--debate-weight must be above 0 with --iterations 2, because later iterations need a trained policy",
        ),
        ({"iterations": 2, "opponent": "random"}, "--opponent must be gradient with --iterations 2, got random"),
        (
            {"iterations": 2, "judge": "human"},
            r"--judge must be a judge that reads no earlier run \(endpoint, model\) with --iterations 2, got human",
        ),
        ({"ceiling": "x"}, "--ceiling must be one of gold, none, got 'x'"),
    ],
)
def test_wrong_options_are_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        config(**options)


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_an_alignment_that_is_stopped_goes_on_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    argue, steps = policy_gradient.DebateTerm.__call__, []

    def stopped(self: policy_gradient.DebateTerm, step: int, examples: Any, backward: Any) -> dict[str, float]:
        steps.append(step)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return argue(self, step, examples, backward)

    monkeypatch.setattr(policy_gradient.DebateTerm, "__call__", stopped)
    asked = config(debate_weight=0.5, early_stopping="none", checkpoint_every=2)
    with pytest.raises(KeyboardInterrupt):
        align.run(asked)
    found = align.run(asked)
    assert steps[:4] == [0, 1, 2, 3] and steps[4] == 2  # it goes on from its checkpoint, not from the start
    with session.changed(reuse_since=session.reuse_since("never")):
        whole = align.run(asked)
    assert found.run_id != whole.run_id and probabilities(found) == probabilities(whole)
    assert found.digests[_alignment_round.POLICY] == whole.digests[_alignment_round.POLICY]


# --- iterations -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_each_round_is_a_run_of_its_own_that_learns_the_verdicts_so_far_and_is_made_once() -> None:
    with session.planning() as plan:
        align.run(config(iterations=3))
    assert plan.count(planning.TRAINED) == 7 and runs() == []  # supervisor, plain student, three models, debates before two
    first, found = align.run(config()), align.run(config(iterations=3))
    assert len(runs()) == 7 and (found.params["iteration"], found.params["method"]) == ("3", "lambda 0.1 iteration 3")
    debates = [results.get(found.tags[f"w2s.debates_{number}_run_id"]) for number in (2, 3)]
    students = [results.get(held.tags["w2s.student_run_id"]) for held in debates]
    assert students[0].run_id == first.run_id and "w2s.debates_2_run_id" not in first.tags
    assert {name for name in students[1].tags if name.startswith("w2s.debates_")} == {"w2s.debates_2_run_id"}
    assert [held.params["student_method"] for held in debates] == ["lambda 0.1, kl 0.05", "lambda 0.1 iteration 2, kl 0.05"]
    assert align.run(config(iterations=3)).run_id == found.run_id
    assert align.run(config(iterations=2)).run_id == students[1].run_id and align.run(config()).run_id == first.run_id
    assert len(runs()) == 7
    check_learned(found, debates)
    frames = build.load([found])  # with all that it hangs on
    aligned = frames.alignments.sort_values("iteration")
    assert set(frames.runs["run_id"]) == {run.info.run_id for run in runs()}
    assert (
        aligned["iteration"].tolist() == [1, 2, 3]
        and set(aligned["iterations"]) == {3}
        and set(aligned["other_options"]) == {""}
    )
    assert aligned["run_id"].tolist() == [first.run_id, students[1].run_id, found.run_id]
    assert frames.debates["other_options"].nunique() == 2
    check_by_round(found, [first, students[1], found])


def check_learned(found: Result, debates: list[Result]) -> None:
    """The reward model is, to the bit, the one that debates and verdicts give, and no truth of these questions was read."""
    shown, preferences = [], []
    for held in debates:
        assert not [name for name in held.digests if "gold" in name] and not [name for name in held.metrics if "gold/" in name]
        table, verdicts = transcripts.read(held)
        asked = loading.resolve_and_split(config().resolved())[1]
        assert set(table["id"]) == {question.id for question in asked.transfer + asked.transfer_validation}
        assert set(verdicts["judge"]) == {"model"}
        shown += past_verdicts.debates(held)
        preferences += transcripts.preference_N(table, verdicts).tolist()
    own = reward.fit(shown, preferences, l2=0.01)
    np.testing.assert_array_equal(reward.read(found.artifact(_alignment_round.REWARD)).weights_D, own.weights_D)
    assert np.abs(own.weights_D).max() > 0 and np.isfinite(found.metrics["align/aligned_agreement/model/reward"])
    assert {name for name in found.metrics if name.startswith("gold/")} <= {"gold/test/report"}


def check_by_round(found: Result, models: list[Result]) -> None:
    """The table says what each iteration's run says, by the judge itself."""
    table = pd.read_csv(found.artifact("tables/iterations_test.csv"))
    assert table["iteration"].tolist() == [0, 1, 2, 3]
    assert table["run_id"].tolist() == [models[0].tags["w2s.baseline_run_id"], *(model.run_id for model in models)]
    for row, own in zip(table.to_dict("records")[1:], models, strict=True):
        assert row["accuracy"] == pytest.approx(own.metrics["test/accuracy"])
        assert row["preference"] == pytest.approx(own.metrics["align/aligned_preference"])
        assert row["win_rate"] == pytest.approx(own.metrics["align/aligned_win_rate"])
        verdicts = pd.read_parquet(own.artifact("after/verdicts.parquet"))
        assert verdicts["judge"].iloc[0] == "model"  # the first, whose D it is


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_in_a_later_round_the_reward_model_is_asked_and_not_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(options: Any, answer: Any) -> Judge:
        own = prefers_the_king(options, answer)

        def judge(debates: Any) -> list[Verdict]:
            asked.append(len(debates))
            return own(debates)

        return judge

    align.run(config(keep_model="always"))
    monkeypatch.setattr(model, "make", counted)
    found = align.run(config(iterations=2))
    questions = results.get(found.tags["w2s.debates_2_run_id"]).metrics["debate/questions"]
    assert sum(asked) == 2 * (questions + 60 + 60)  # both orders: the debates, and the held-out ones before and after
