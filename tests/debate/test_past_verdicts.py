"""What was said of the debates of a run, by people or judges, is what later debates, reward models and alignment learn from."""

from __future__ import annotations

import logging
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.entities import AssessmentSource

from tests.conftest import SMALL, runs
from w2s_mlflow.debate import past_verdicts, transcripts
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.judges import reward
from w2s_mlflow.stages import align, debate, student
from w2s_mlflow.tracking import human_feedback, traces
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.slow


def hold(**options: Any) -> Result:
    """Thirty debates of small models."""
    small: dict[str, Any] = {"weak": "chess-27k", "strong": "chess-121k", "questions": 30, "report": "none", **SMALL}
    return debate.run(debate.Config(**{"traces": 0, **small, **options}))


def vote(run: Result, question: str, value: str, who: str = "ann") -> None:
    trace, source = traces.trace_id(run.run_id, question), AssessmentSource("HUMAN", who)
    mlflow.log_feedback(trace_id=trace, name=human_feedback.NAME, value=value, source=source)


@pytest.mark.usefixtures("experiment")
def test_debates_come_back_as_they_were_held() -> None:
    found = hold()
    debates = past_verdicts.debates(found)
    table, verdicts = transcripts.read(found)
    assert [one.question.id for one in debates] == list(table["id"]) and len(debates) == 30
    assert [one.first.explanation.pieces for one in debates] == [tuple(own) for own in table["strong_pieces"]]
    assert all(len(one.question.candidates) == 2 and one.first.name == "strong" for one in debates)
    heard = past_verdicts.answer("reward", reward.Options(run=found.run_id))  # of the run's first judge, as no other is named
    assert heard is not None and past_verdicts.answer("model", None) is None
    shown, preference = heard()
    assert shown == debates
    np.testing.assert_array_equal(preference, transcripts.preference_N(table, verdicts))


@pytest.mark.usefixtures("experiment")
def test_a_reward_model_learns_what_the_judge_of_an_earlier_run_prefers() -> None:
    before = hold(questions=120)
    found = hold(questions=120, judge="model,reward", judge_options=f"run={before.name},l2=0.001")
    assert found.params["judge_options"] == f"run={before.run_id},l2=0.001"
    assert found.metrics["debate/agreement/model/reward"] > 0.8  # on the debates that it was fitted on
    with pytest.raises(
        ConfigError, match=r"--judge-options must be of=JUDGE, where JUDGE is a judge of run .*: model, got of=end"
    ):
        hold(judge="reward", judge_options=f"run={before.run_id},of=endpoint")


@pytest.mark.usefixtures("experiment")
def test_people_judge_and_their_votes_make_the_verdicts(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "w2s_mlflow")
    before = hold(traces=None)
    debates, count = past_verdicts.debates(before), len(runs())
    for one in debates[:15]:
        vote(before, one.question.id, "strong")
    options = {"judge": "human", "judge_options": f"run={before.run_id},others=none"}
    with pytest.raises(ConfigError, match=f"people have judged 15 of 30 debates of run {before.run_id}, with 15 votes;"):
        hold(**options)
    assert len(runs()) == count  # before anything was made
    vote(before, debates[15].question.id, "tie")
    vote(before, debates[16].question.id, "weak")
    found = hold(**options)
    assert "people have judged 17 of 30 debates" in caplog.text
    _, verdicts = transcripts.read(found)
    own = verdicts[verdicts["order"] == "strong,weak"].set_index("id")["log_odds"]
    assert own[debates[0].question.id] == pytest.approx(np.log(3)) and own[debates[15].question.id] == 0
    assert own[debates[16].question.id] == pytest.approx(-np.log(3)) and own.isna().sum() == 13
    assert found.metrics["debate/no_verdict"] > 0 and found.metrics["debate/position_bias"] == 0
    assert hold(**options).run_id == found.run_id
    vote(before, debates[0].question.id, "weak")  # ann has changed her mind: that is another result
    assert hold(**options).run_id != found.run_id


@pytest.mark.usefixtures("experiment")
def test_a_line_of_play_is_an_explanation_that_the_judge_reads() -> None:
    found = hold(explainer="principal_variation")
    debates = past_verdicts.debates(found)
    lines = [one.first.explanation.text for one in debates if one.first.explanation.text]
    assert lines and all(
        one.first.explanation.text.startswith(f"{one.first.claim} ") for one in debates if one.first.explanation.text
    )
    assert all(one.first.explanation.pieces == () for one in debates) and hold(explainer="principal_variation").reused


@pytest.mark.usefixtures("experiment")
def test_a_run_that_cannot_be_heard_is_one_sentence() -> None:
    other = student.run(student.Config(strong="chess-121k", weak="chess-27k", eval_split="none", ceiling="none", **SMALL))
    for options, said in (
        (
            "",
            r"--judge-options must be run=RUN with the judges human, reward, where RUN is the debate run to learn from, "
            r"got no run",
        ),
        ("run=nothing", r"RUN must be the id or the name of a run of experiment .*, got 'nothing'"),
        (
            f"run={other.run_id}",
            rf"--judge-options must be run=RUN, where RUN is a debate run, got run={other.run_id}, whose stage is ",
        ),
    ):
        for judge in ("human", "reward"):
            with pytest.raises(ConfigError, match=said):
                hold(judge=judge, judge_options=options)


@pytest.mark.usefixtures("experiment")
def test_a_model_is_aligned_with_what_people_said() -> None:
    """Their votes teach a reward model, which judges what the policy draws and nobody has seen."""
    before = hold(traces=None)
    for number, one in enumerate(past_verdicts.debates(before)):
        vote(before, one.question.id, "strong" if number % 3 else "weak")
    small: dict[str, Any] = {"weak": "chess-27k", "strong": "chess-121k", "questions": 20, "report": "none", **SMALL}
    found = align.run(align.Config(judge="human", judge_options=f"run={before.run_id}", **small))
    assert found.metrics["align/aligned_no_verdict"] == 0 and np.isfinite(found.metrics["align/gain"])
    assert found.params["judge_options"].startswith(f"run={before.run_id},heard=")


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_debates_of_a_model_that_has_learned_the_truth_teach_nobody() -> None:
    before = hold(method="oracle")
    with pytest.raises(
        ConfigError, match=r"not trained on ground truth of transfer, got run=.*, whose models were trained on .* of transfer$"
    ):
        hold(judge="reward", judge_options=f"run={before.run_id}")
