"""Debates: what is shown, judged, kept and written down; labels made of verdicts; and students that learn from them."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import trunks
from tests.conftest import SMALL, runs
from w2s_mlflow import config as options
from w2s_mlflow import tasks
from w2s_mlflow.analysis import build, debate_frames, scores, selection
from w2s_mlflow.debate import debate_tables, measures, play, transcripts
from w2s_mlflow.debate import verdicts as debate_verdicts
from w2s_mlflow.debate.play import Debater
from w2s_mlflow.debate.verdicts import Verdicts
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.explainers import DebaterModel, Explainer
from w2s_mlflow.explainers._token_spans import EncodedQuestions
from w2s_mlflow.judges import Judge, model
from w2s_mlflow.local import scratch
from w2s_mlflow.modeling import heads
from w2s_mlflow.pipeline.context import resolve
from w2s_mlflow.records import Debate, Example, Explanation, SoftLabels, Verdict, read_gold
from w2s_mlflow.stages import analyze, debate, student
from w2s_mlflow.tables import debate as table
from w2s_mlflow.tracking import planning, results, session, traces
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

MODELS: dict[str, Any] = {"weak": "chess-27k", "strong": "chess-121k"}
CHESS = tasks.find("chess")


def config(**options: Any) -> debate.Config:
    return debate.Config(**{"num_questions": 30, "traces": 0, **MODELS, **SMALL, **options})


def questions(count: int) -> list[Example]:
    return [Example(str(n), str(n // 2), ("Ka1 Qb2 kc3 rd4 ne5 >",), ("Qc3", "Kb1")) for n in range(count)]


def says(*chosen: int) -> Explainer:
    """An explainer that shows what of these pieces has not been shown."""

    def explain(taken: Sequence[Any]) -> list[Explanation]:
        found = [tuple(piece for piece in chosen if piece not in already)[:1] for already in taken]
        return [Explanation(" ".join(map(str, own)), own) for own in found]

    return explain


def played(count: int, rounds: int = 1, weak: Explainer | None = None) -> play.DebateTranscripts:
    strong = Debater("strong", np.zeros(count, dtype=np.int64), says(0, 1, 2))
    other = Debater("weak", np.arange(count) % 2, weak or says(3, 0, 1))
    return play.play(CHESS, questions(count), strong, other, rounds)


def scripted(log_odds: Callable[[Debate], float | None]) -> Judge:
    return lambda debates: [Verdict(log_odds(one), "said so", one.order(), 1) for one in debates]


def always(value: float) -> Callable[..., Judge]:
    """A judge, as `make` gives it, for whom the strong side wins by so much."""
    sign = {"strong": value, "weak": -value}
    return lambda options, answer: scripted(lambda one: sign[one.first.name])


# --- played -----------------------------------------------------------------------------------------------------------


def test_sides_speak_at_the_same_time_and_never_repeat_what_was_shown() -> None:
    found = played(2, rounds=3)
    assert found.debates[1].first.explanation.pieces == (0, 1, 2)
    assert found.debates[1].second.explanation.pieces == (3, 1)  # 0 was shown by the other side in round 1, 1 at the same time
    assert found.said["strong"][0] == ("0", "1", "2") and found.said["weak"][0] == ("3", "1", "")
    assert found.heard["strong"][0] == ("", "3", "1") and found.heard["weak"][0] == ("", "0", "1")
    assert found.debates[1].first.explanation.text == "Ka1 Qb2 kc3"
    assert [side.claim for side in (found.debates[1].first, found.debates[1].second)] == ["Qc3", "Kb1"]


def test_a_side_hears_what_it_says_it_hears_of_the_others_last_round_and_the_transcript_has_that(tmp_path: Path) -> None:
    strong = Debater("strong", np.zeros(2, dtype=np.int64), says(0, 1, 2), lambda said: [words[:1] + "!" for words in said])
    weak = Debater("weak", np.ones(2, dtype=np.int64), says(3, 4), lambda said: [""] * len(said))
    found = play.play(CHESS, questions(2), strong, weak, 3)
    assert found.heard == {"strong": [("", "3!", "4!")] * 2, "weak": [("", "", "")] * 2}
    verdicts = debate_verdicts.ask("x", scripted(lambda one: 1.0), found.debates, tmp_path / "kept")
    debate_tables.write(tmp_path, found, [verdicts])
    tables = [pd.read_parquet(tmp_path / name) for name in (debate_tables.DEBATES, debate_tables.VERDICTS)]
    spoken = {turn.name: turn.inputs for turn in transcripts.transcripts(*tables)[1].turns if turn.kind == "side"}
    assert spoken["strong, round 3"] == {"claim": "Qc3", "shown before by the other side": "4!"}
    assert [spoken[name] for name in ("strong, round 1", "weak, round 3")] == [{"claim": "Qc3"}, {"claim": "Kb1"}]
    older = [tables[0].drop(columns=["strong_heard", "weak_heard"]), tables[1]]  # as it was written when all of it was pieces
    spoken = {turn.name: turn.inputs for turn in transcripts.transcripts(*older)[1].turns if turn.kind == "side"}
    assert spoken["weak, round 2"] == {"claim": "Kb1", "shown before by the other side": "0"}


def test_rationales_hear_each_other_and_pieces_are_known_anyway() -> None:
    """The sides as a run makes them, of two small language models: what one said last is what the other hears."""
    asked, nothing = questions(3), np.empty(0, dtype=np.int64)
    head = heads.build("classification", *trunks.gpt2(), classes=2)
    own = DebaterModel(head, EncodedQuestions(asked, head.encode(asked), nothing, nothing), np.zeros(3, dtype=np.int64))
    sides = debate.debaters(resolve(config(explainer="rationale", form="debate")), {"strong": own, "weak": own})
    assert [side.hear and side.hear(["Because so."] * 3) for side in sides] == [["Because so."] * 3] * 2
    sides = debate.debaters(resolve(config(explainer="rationale", form="consultancy")), {"strong": own, "weak": own})
    assert sides[0].hear and sides[1].hear is None and sides[1].explain is None
    assert {side.hear for side in debate.debaters(resolve(config(explainer="random")), {"strong": own, "weak": own})} == {None}


def test_a_silent_side_hears_nothing_and_is_not_heard() -> None:
    strong = Debater("strong", np.zeros(1, dtype=np.int64), says(0, 1))
    found = play.play(CHESS, questions(1), strong, Debater("weak", np.ones(1, dtype=np.int64), None), 2)
    assert found.heard == {"strong": [("", "")], "weak": [("", "")]}


@pytest.mark.parametrize(
    ("task", "expected"),
    [("chess", "Kb1"), ("chess_preference", "Kb1"), ("hh_rlhf", "response B"), ("rte", "the premise entails the hypothesis")],
)
def test_a_claim_is_the_decision_in_words(task: str, expected: str) -> None:
    assert play.claim(tasks.find(task), questions(1)[0], 1) == expected


def test_labels_change_only_where_the_sides_disagree_and_there_is_a_verdict() -> None:
    weak_NC = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.4, 0.6]], dtype=np.float32)
    weak = SoftLabels(tuple("0123"), tuple("0123"), weak_NC)
    preference_N = np.array([5.0, math.log(3), -1.0, math.nan])
    found = play.labels(weak, played(4).debates, preference_N)
    expected = [[0.9, 0.1], [0.75, 0.25], [0.6, 0.4], [0.4, 0.6]]
    np.testing.assert_allclose(found.probabilities_NC, expected, rtol=1e-6)
    assert found.ids == weak.ids and np.array_equal(weak.probabilities_NC, weak_NC)


def test_of_three_classes_the_third_is_out_of_the_question() -> None:
    weak = SoftLabels(("a", "b"), ("a", "b"), np.full((2, 3), 1 / 3, dtype=np.float32))
    found = play.labels(weak, played(2).debates, np.array([0.0, -700.0]))
    np.testing.assert_allclose(found.probabilities_NC[1], [0, 1, 0], atol=1e-12)


# --- judged -----------------------------------------------------------------------------------------------------------


def test_both_orders_are_asked_and_a_bias_for_the_first_place_is_measured_and_cancels(tmp_path: Path) -> None:
    seen: list[Debate] = []

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        seen.extend(debates)
        return scripted(lambda one: 2.0 + (1.0 if one.first.name == "strong" else -1.0))(debates)

    given = played(4)
    found = debate_verdicts.ask("x", judge, given.debates, tmp_path / "kept")
    assert [one.order() for one in seen] == ["strong,weak", "weak,strong"] * 4
    assert found.preference_N().tolist() == [1.0] * 4 and found.bias_N().tolist() == [2.0] * 4
    values = measures.measures(given, found)
    assert (values["win_rate"], values["position_bias"], values["position_decides_rate"], values["cost"]) == (1, 2, 1, 8)
    assert (values["disagreements"], values["strong_words"], values["weak_words"]) == (0.5, 1, 1)


def test_what_a_judge_has_said_before_it_failed_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debate_verdicts, "CHUNK", 2)
    asked: list[Debate] = []

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        if len(asked) >= 8 and failing:
            raise ConfigError("the judge cannot be reached")
        asked.extend(debates)
        return scripted(lambda one: float(one.question.id))(debates)

    failing, given, kept = True, played(7).debates, tmp_path / "deep" / "kept"
    with pytest.raises(ConfigError, match="cannot be reached"):
        debate_verdicts.ask("x", judge, given, kept)
    assert len(asked) == 8
    with kept.open("a") as file:
        file.write('\n["cut in the mid')
    failing = False
    found = debate_verdicts.ask("x", judge, given, kept)
    assert len(asked) == 14 and len(set(asked)) == 14
    assert [verdict.log_odds for verdict in found.strong_first] == list(range(7))
    debate_verdicts.ask("x", judge, given, kept)
    assert len(asked) == 14
    debate_verdicts.ask("another", judge, given, kept)
    assert len(asked) == 28


def test_verdicts_of_a_run_that_nobody_goes_on_with_are_removed_like_its_checkpoint(tmp_path: Path) -> None:
    judge, debates, ages = scripted(lambda one: 1.0), played(1).debates, {"old": 1.01, "resumed": 1.01, "waiting": 0.99}
    for name in ages:
        debate_verdicts.ask("x", judge, debates, tmp_path / f"{name}.jsonl")
    for name, age in ages.items():
        then = time.time() - age * scratch.OLD
        os.utime(tmp_path / f"{name}.jsonl", (then, then))
    debate_verdicts.ask("x", lambda asked: pytest.fail("its verdicts were kept"), debates, tmp_path / "resumed.jsonl")
    debate_verdicts.ask("x", judge, debates, tmp_path / "new.jsonl")
    assert sorted(file.stem for file in tmp_path.glob("*.jsonl")) == ["new", "resumed", "waiting"]


def test_no_verdict_is_no_side(tmp_path: Path) -> None:
    judge = scripted(lambda one: None if one.question.id == "1" and one.first.name == "weak" else 1.0)
    given = played(3)
    found = debate_verdicts.ask("x", judge, given.debates, tmp_path / "kept")
    assert np.isnan(found.preference_N()).tolist() == [False, True, False]
    values = measures.measures(given, found)
    assert values["no_verdict"] == 1 and values["win_rate"] == 0.5  # of the two others, l(S, W) = l(W, S): a tie


def test_judges_agree_where_the_same_side_wins() -> None:
    def verdicts(name: str, *values: float | None) -> Verdicts:
        first = tuple(Verdict(value, "", "strong,weak", 0) for value in values)
        second = tuple(Verdict(None if value is None else -value, "", "weak,strong", 0) for value in values)
        return Verdicts(name, first, second)

    both = verdicts("a", 1.0, -2.0, 3.0, None), verdicts("b", 0.5, 1.0, 2.0, 1.0)
    assert measures.agreements(both) == {"agreement/a/b": pytest.approx(2 / 3)}
    assert measures.agreements(both[:1]) == {}


# --- the stage --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("experiment")
def test_a_run_of_debates_says_what_its_tables_say() -> None:
    found = debate.run(config(traces=None))
    debates, verdicts = transcripts.read(found)
    assert len(debates) == 30 and len(verdicts) == 60 and set(verdicts["judge"]) == {"model"}
    preference_N = transcripts.preference_N(debates, verdicts)
    assert found.metrics["debate/win_rate"] == pytest.approx(measures.won_N(preference_N).mean())
    assert found.metrics["debate/position_bias"] == pytest.approx(0, abs=1e-6)
    gold_N = read_gold(found.artifact("gold/test.parquet"), list(debates["id"]))
    apart_N = (debates["strong_decision"] != debates["weak_decision"]).to_numpy()
    right_N = np.where(debates["strong_decision"] == gold_N, preference_N > 0, preference_N < 0)
    assert found.metrics["debate/judge_accuracy"] == pytest.approx(right_N[apart_N].mean())
    assert found.metrics["debate/decided"] == apart_N.sum() > 0
    assert all(len(own) == 3 for own in debates["strong_pieces"])
    check_traces(found, debates, preference_N)
    assert debate.run(config(traces=None)).run_id == found.run_id


def check_traces(found: Result, debates: Any, preference_N: Any) -> None:
    """Every debate has its transcript among the run's traces, and writing it again adds none."""
    place = server.experiment().experiment_id
    transcripts.traced(replace(found, tags={**found.tags, transcripts.TRACES: "25"}), None)
    seen = server.client().search_traces(locations=[place], max_results=100, run_id=found.run_id)
    assert len(seen) == 30 == int(results.get(found.run_id).tags[transcripts.TRACES])
    by_question = {trace.info.tags[traces.QUESTION]: trace for trace in seen}
    for row, preference in zip(debates.to_dict("records"), preference_N, strict=True):
        trace = by_question[row["id"]]
        assert trace.info.trace_id == traces.trace_id(found.run_id, row["id"])
        said = {span.name: span for span in trace.data.spans}
        assert said["strong"].outputs == {"evidence": row["strong_explanation"]} and said["weak"].inputs["claim"]
        assert said["debate"].outputs["winner"] == transcripts.winner(preference)
        assert [span.name for span in trace.data.spans] == ["debate", "strong", "weak", "judge model", "judge model"]


@pytest.mark.usefixtures("experiment")
def test_a_judge_that_fails_in_the_middle_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Debate] = []

    def judge(debates: Sequence[Debate]) -> list[Verdict]:
        if len(asked) >= 20 and failing:
            raise ConfigError("WINNER_API_KEY must be set")
        asked.extend(debates)
        return scripted(lambda one: 1.0 if one.first.name == "strong" else -1.0)(debates)

    monkeypatch.setattr(debate_verdicts, "CHUNK", 5)
    monkeypatch.setattr(model, "make", lambda options, answer: judge)
    failing = True
    with pytest.raises(ConfigError, match="must be set"):
        debate.run(config())
    assert [run.info.status for run in runs() if run.data.tags["w2s.stage"] == "debate"] == ["FAILED"]
    failing = False
    found = debate.run(config())
    assert len(asked) == len(set(asked)) == 60 and found.metrics["debate/win_rate"] == 1
    assert not list(debate_verdicts.cache_path("x").parent.glob("*"))


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_forms_of_a_debate_show_what_they_say() -> None:
    shown = {}
    for form in ("debate", "consultancy", "no_explanation"):
        debates, _ = transcripts.read(debate.run(config(form=form, report="none")))
        shown[form] = [sum(map(len, debates[f"{side}_pieces"])) for side in ("strong", "weak")]
    assert shown == {"debate": [90, 90], "consultancy": [90, 0], "no_explanation": [0, 0]}
    with session.planning() as plan:
        debate.run(config(rounds=2))
    assert plan.count(planning.TRAINED) == 1 and plan.count(planning.REUSED) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"judge": "modle"}, r"--judge must be one of .*model.*, got 'modle' \(did you mean model\?\)"),
        (
            {"judge_options": "x=1"},
            "--judge-options must be empty, because no judge in --judge model has options, got x=1",
        ),
        ({"judge": "reward", "judge_options": "x=1"}, "an option of --judge-options must be one of l2, of, run, got 'x'"),
        ({"judge_options": "x"}, "--judge-options must be comma-separated NAME=VALUE pairs, got 'x'"),
        ({"explainer": "x"}, "--explainer must be one of gradient, policy, principal_variation, random, rationale, got 'x'"),
        ({"protocol": "x"}, "--protocol must be one of consultancy, debate, no_explanation, got 'x'"),
        ({"split": "train"}, "--split must be one of selection, test, transfer, got 'train'"),
        ({"pieces": 0}, "--evidence-spans must be at least 1, got 0"),
        ({"tokens": 0}, "--max-new-tokens must be at least 1, got 0"),
        ({"rounds": 0}, "--turns must be at least 1, got 0"),
        ({"num_questions": 0}, "--num-questions must be at least 1, got 0"),
        ({"traces": -1}, "--traces must be at least 0, got -1"),
        ({"explainer": "policy", "method": "confidence"}, "--method must be baseline with --explainer policy, got confidence"),
        (
            {"explainer": "principal_variation", "task": "sst2"},
            "--explainer for the task sst2 must be one of gradient, policy, random, rationale, got 'principal_variation'",
        ),
        ({"explainer": "principal_variation", "task": "chess_preference"}, "--explainer for the task chess_preference must be"),
        ({"tokens": 9}, "--max-new-tokens must be left out with --explainer gradient, which does not read it, got 9"),
        (
            {"explainer": "rationale", "evidence_spans": 2},
            "--evidence-spans must be left out with --explainer rationale, which does not read it, got 2",
        ),
        ({"method": "debate"}, "--method must be one of .*baseline.*, got 'debate'"),
        ({"weak": "x"}, "--weak must be"),
    ],
)
def test_wrong_options_are_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        config(**options)


# --- as a supervisor --------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
@pytest.mark.parametrize("labels", ["debate", "consultancy", "no_explanation"])
def test_a_student_of_debates_learns_their_labels_and_nothing_else(labels: str, tmp_path: Path) -> None:
    found = student.run(student.Config(labels=labels, **MODELS, **SMALL))
    held = results.get(found.tags["w2s.labels_run_id"])
    assert (found.params["method"], held.params["protocol"], held.params["split"]) == (labels, labels, "transfer")
    assert "w2s.gold" not in held.tags and not [name for name in held.metrics if name.startswith("gold/")]
    weak = results.get(found.tags["w2s.weak_run_id"]).weak_labels()
    debates, verdicts = transcripts.read(held)
    assert set(debates["id"]) == set(weak.ids)
    same_N = (debates["strong_decision"] == debates["weak_decision"]).to_numpy()
    own_NC, weak_NC = (given.of(list(debates["id"])) for given in (held.weak_labels(), weak))
    assert np.array_equal(own_NC[same_N], weak_NC[same_N])
    p_strong_N = own_NC[np.arange(len(own_NC)), debates["strong_decision"]][~same_N]
    preference_N = transcripts.preference_N(debates, verdicts)
    assert np.array_equal(own_NC.argmax(axis=1), measures.label_N(debates, preference_N))
    expected = 1 / (1 + np.exp(-preference_N[~same_N]))
    np.testing.assert_allclose(p_strong_N, expected, rtol=1e-5)
    file = tmp_path / "debated.parquet"
    file.write_bytes(held.artifact("labels/weak_labels.parquet").read_bytes())
    given = student.run(student.Config(labels=str(file), ceiling="none", **MODELS, **SMALL))
    assert found.predictions("test").probabilities_NC.tobytes() == given.predictions("test").probabilities_NC.tobytes()
    assert json.loads(found.artifact("fingerprint.json").read_text())["inputs"] == {"labels": held.fingerprint}
    assert found.metrics["test/weak_accuracy"] < 1 and "test/ceiling_accuracy" in found.metrics


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_an_aligned_model_argues_with_its_policy() -> None:
    found = debate.run(config(explainer="policy", report="none"))
    aligned = results.get(found.tags["w2s.student_run_id"])
    assert (aligned.stage, aligned.params["evidence_spans"]) == ("align", "3") and "policy.safetensors" in aligned.digests
    debates, _ = transcripts.read(found)
    other, _ = transcripts.read(debate.run(config(report="none")))
    assert debates["weak_explanation"].tolist() == other["weak_explanation"].tolist()
    assert debates["strong_explanation"].tolist() != other["strong_explanation"].tolist()
    held = aligned.predictions("test").of(list(debates["id"])).argmax(axis=1)
    assert debates["strong_decision"].tolist() == held.tolist()


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_analyze_has_debates_by_seed_and_keeps_other_settings_apart() -> None:
    for own in ({"seed": 0}, {"seed": 1}, {"seed": 1, "num_questions": 20}):
        debate.run(config(**own))
    student.run(student.Config(**MODELS, **SMALL))
    frames = build.load(build.pull(analyze.Config()))
    assert frames.debates["other_options"].tolist() == ["num_questions=30", "num_questions=30", "num_questions=20"]
    found = table.table(frames.debates)
    assert found["n"].tolist() == [2, 1]
    first = debate.run(config(seed=0)), debate.run(config(seed=1))
    for name in ("win_rate", "judge_accuracy", "always_strong_accuracy", "label_accuracy"):
        assert found[name][0] == pytest.approx(np.mean([run.metrics[f"debate/{name}"] for run in first]))
    assert found["judge_accuracy_low"][0] < found["judge_accuracy"][0] < found["judge_accuracy_high"][0]


def test_the_labels_of_verdicts_hold_who_won_most_probable_and_else_the_weak_side() -> None:
    shown = pd.DataFrame({"strong_decision": [1, 1, 0, 1, 0], "weak_decision": [0, 0, 1, 0, 1]})
    assert measures.label_N(shown, np.array([2.0, -2.0, 0.0, 0.0, np.nan])).tolist() == [1, 0, 0, 0, 1]


def held(run_id: str, student: Result, **params: str) -> Result:
    """A run of debates as it is read back, of which nothing is stored."""
    own = (
        {name: str(value) for name, value in options.flat(config()).items()}
        | {"head": "lm_choice", "method": "debate"}
        | params
    )
    tags = {"w2s.student_run_id": student.run_id, "w2s.weak_run_id": "weak", "w2s.data": f"data of seed {own['seed']}"}
    return Result(run_id, run_id, "debate", run_id, "", own, {}, tags, 1.0, True)


def test_debates_that_do_not_count_are_named_and_those_of_other_students_do(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = pd.DataFrame({"strong_decision": [0, 1], "weak_decision": [1, 1]})
    verdicts = pd.DataFrame({"judge": ["model", "human"], "cost": 1, "log_odds": 0.5})
    monkeypatch.setattr(transcripts, "read", lambda _: (shown, verdicts))
    monkeypatch.setattr(transcripts, "preference_N", lambda *_: np.ones(2))
    plain, other = (
        Result(method, method, "student", method, "", {"method": method}, {}, {"w2s.weak_run_id": "weak"}, 2.0, True)
        for method in ("baseline", "confidence")
    )
    first, again, third = held("first", plain), held("again", plain), held("third", other)
    stale = replace(held("stale", plain, seed="1"), tags={**first.tags, "w2s.data": "of an older package"})
    fresh, fewer = held("fresh", plain, seed="1"), held("fewer", plain, num_questions="20")
    orphan = held("orphan", replace(plain, run_id="purged"), seed="2")
    found = {run.run_id: run for run in (plain, other, first, stale, again, third, fresh, fewer, orphan)}
    pulled = selection.AnalysisRuns(found, {})
    debated, _ = debate_frames.frames(pulled)
    assert {run_id: rule for run_id, (rule, _) in pulled.left_out.items()} == {
        "first": "duplicated seed",
        "stale": "other data",
    }
    assert debated["judge"].tolist() == 5 * ["model", "human"]
    settings = dict(zip(debated["run_id"], debated["other_options"], strict=True))
    assert settings == {
        "again": "num_questions=30",
        "third": "num_questions=30 student_method=confidence",
        "fresh": "num_questions=30",
        "fewer": "num_questions=20",
        "orphan": "num_questions=30 student_method=-",
    }


def test_seeds_that_were_tested_on_other_rows_than_the_newest_do_not_count() -> None:
    def student(run_id: str, seed: int, ids: tuple[str, ...], file: str) -> tuple[Result, scores.Scores]:
        params = {"task": "t", "seed": str(seed), "train_size": "40", "test_size": "2", "balance": "False"}
        rows = scores.Rows(file, ids, ids, np.zeros(2, dtype=np.int64))
        tags = {"w2s.data": f"seed {seed}"}
        run = Result(run_id, run_id, "student", run_id, "", params, {}, tags, 1.0, True)
        return run, scores.Scores(rows, np.zeros(2, dtype=np.int16), {})

    made = [
        student("before", 0, ("a", "b"), "old file"),
        student("same rows", 1, ("c", "d"), "written by another library"),
        student("now", 2, ("c", "d"), "new file"),
    ]
    pulled = selection.AnalysisRuns({run.run_id: run for run, _ in made}, {run.run_id: own for run, own in made})
    kept = selection.one_per_seed([selection.identified(run) for run, _ in made], pulled)
    assert [row["run_id"] for row in kept] == ["same rows", "now"]
    assert pulled.left_out["before"][0] == "other data"


def test_what_a_run_was_made_from_has_the_debates_of_later_rounds_once_and_not_what_it_is_compared_with() -> None:
    def run(run_id: str, stage: str, **inputs: str) -> Result:
        tags = {f"w2s.{role}": ids for role, ids in inputs.items()}
        return Result(run_id, run_id, stage, run_id, "", {}, {}, tags, 1.0, True)

    runs_ = [
        run("weak", "supervisor"),
        run("plain", "student", weak_run_id="weak"),
        run("top", "ceiling"),
        run("one", "align", weak_run_id="weak", baseline_run_id="plain", ceiling_run_id="top"),
        run("held", "debate", weak_run_id="weak", student_run_id="one"),
        run("two", "align", weak_run_id="weak", baseline_run_id="plain", ceiling_run_id="top", debates_2_run_id="held"),
        run("chained", "student", chain_run_ids="two,one"),
    ]
    pulled = selection.AnalysisRuns({one.run_id: one for one in runs_}, {})
    of = {one.run_id: sorted(other.run_id for other in pulled.made_from(one)) for one in runs_}
    assert of["one"] == ["one", "weak"] and of["two"] == ["held", "one", "two", "weak"]
    assert of["chained"] == sorted(["chained", *of["two"]])
