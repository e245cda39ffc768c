"""Feedback of people on debates: pulled with all that MLflow lets them do, asked at a terminal, put into a review queue."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import AssessmentSource, Feedback
from mlflow.genai import label_schemas, review_queues
from mlflow.genai.label_schemas import InputCategorical, InputPassFail

from tests import servers
from w2s_mlflow.cli import app
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.tracking import human_feedback, traces
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.traces import Transcript, Turn


@pytest.fixture
def run(experiment: str) -> str:
    """A run of four debates, as the stage writes them."""
    return debates()


def debates(count: int = 4, rounds: int = 1) -> str:
    made: str = server.client().create_run(server.experiment().experiment_id, run_name="debate chess").info.run_id
    traces.write(made, [transcript(f"q{number}", rounds) for number in range(count)])
    return made


def transcript(question: str, rounds: int) -> Transcript:
    turns = []
    for number in range(1, rounds + 1):
        for side, claim in (("strong", "take the queen"), ("weak", "take the rook")):
            name = f"{side}, round {number}" if rounds > 1 else side
            turns.append(Turn(name, "side", {"claim": claim}, {"evidence": f"{side} shows {question} {number}"}))
    turns.append(Turn("judge model", "judge", {"order": "strong,weak"}, {"rationale": "the verdict of a machine"}))
    given = {"question": f"Ka1 {question} >", "claims": {"strong": "take the queen", "weak": "take the rook"}}
    return Transcript(question, given, {"winner": "strong"}, turns, {"w2s.winner": "strong"})


def vote(run: str, question: str, value: object, who: str = "ann", kind: str = "HUMAN") -> Feedback:
    found = mlflow.log_feedback(
        trace_id=traces.trace_id(run, question),
        name=human_feedback.NAME,
        value=value,  # type: ignore[arg-type]
        source=AssessmentSource(kind, who),
    )
    assert isinstance(found, Feedback)
    return found


# --- pulled -----------------------------------------------------------------------------------------------------------


def test_votes_are_pulled_and_counted_and_the_missing_ones_too(run: str) -> None:
    for question, value, who in (("q0", "strong", "ann"), ("q0", "weak", "bob"), ("q1", "Tie ", "ann"), ("q2", "weak", "bob")):
        vote(run, question, value, who)
    found = human_feedback.pull(run)
    assert {name: sorted(own) for name, own in found.votes.items()} == {
        "q0": ["strong", "weak"],
        "q1": ["tie"],
        "q2": ["weak"],
        "q3": [],
    }
    votes = f"people have judged 3 of 4 debates of run {run}, with 4 votes; debates without a vote: 1"
    assert found.describe() == f"{votes}; two people who judged the same debate agree in 0% of cases"
    found.check()


def test_of_one_person_the_last_word_counts_and_of_the_nameless_all_that_stands(run: str) -> None:
    vote(run, "q0", "strong")
    vote(run, "q0", "weak")
    vote(run, "q1", "strong", "default")
    vote(run, "q1", "strong", "default")
    found = human_feedback.pull(run)
    assert found.votes["q0"] == ("weak",) and found.votes["q1"] == ("strong", "strong")


def test_a_changed_mind_and_a_word_taken_back_count_as_such(run: str) -> None:
    first, second = vote(run, "q0", "strong", "default"), vote(run, "q1", "strong")
    trace = traces.trace_id(run, "q0")
    changed = Feedback(human_feedback.NAME, "weak", source=AssessmentSource("HUMAN", "default"), overrides=first.assessment_id)
    mlflow.override_feedback(trace_id=trace, assessment_id=str(first.assessment_id), value=changed.value, source=changed.source)
    mlflow.delete_assessment(trace_id=traces.trace_id(run, "q1"), assessment_id=str(second.assessment_id))
    found = human_feedback.pull(run)
    assert found.votes["q0"] == ("weak",) and found.votes["q1"] == ()


def test_other_feedback_is_no_vote_and_what_cannot_be_read_is_told(run: str) -> None:
    vote(run, "q0", "strong", "gpt", kind="LLM_JUDGE")
    vote(run, "q1", "both")
    vote(run, "q2", True)
    mlflow.log_feedback(
        trace_id=traces.trace_id(run, "q3"), name="quality", value="strong", source=AssessmentSource("HUMAN", "ann")
    )
    found = human_feedback.pull(run)
    assert (
        found.judged == 0 and found.unreadable == 2 and found.describe().endswith("; answers other than strong, weak, tie: 2")
    )


@pytest.mark.parametrize(("judged", "fails"), [(0, True), (2, True), (3, False)])
def test_half_the_verdicts_missing_is_one_sentence(run: str, judged: int, fails: bool) -> None:
    for number in range(judged):
        vote(run, f"q{number}", "tie")
    found = human_feedback.pull(run)
    if not fails:
        return found.check()
    with pytest.raises(ConfigError, match=rf"people have judged {judged} of 4 debates .* `python -m w2s_mlflow judge {run}`"):
        found.check()


def test_more_debates_than_a_page_are_all_pulled(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(human_feedback, "PAGE", 2)
    run = debates(5)
    debates(1)
    vote(run, "q4", "strong")
    assert list(map(len, dict(sorted(human_feedback.pull(run).votes.items())).values())) == [0, 0, 0, 0, 1]


def test_the_digest_hangs_on_what_was_said_alone(run: str) -> None:
    vote(run, "q0", "strong", "ann"), vote(run, "q0", "weak", "bob")
    before = human_feedback.pull(run).digest()
    vote(run, "q0", "weak", "ann"), vote(run, "q0", "strong", "bob")
    assert human_feedback.pull(run).digest() == before
    vote(run, "q1", "tie")
    assert human_feedback.pull(run).digest() != before


def test_a_run_without_debates_is_one_sentence(experiment: str) -> None:
    made = server.client().create_run(server.experiment().experiment_id).info.run_id
    with pytest.raises(ConfigError, match=f"run {made} has no debates to judge"):
        human_feedback.pull(made)


# --- at a terminal ----------------------------------------------------------------------------------------------------


class Terminal:
    """The command at a terminal at which a person types."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def judge(self, run: str, typed: str, *more: str) -> tuple[str, dict[str, object]]:
        """What a person is shown, and the JSON object."""
        self.monkeypatch.setattr(sys, "argv", ["w2s_mlflow", "judge", run, "--name", "ann", "--json", *more])
        self.monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        app.main()
        out, err = self.capsys.readouterr()
        return err, json.loads(out)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(monkeypatch, capsys)


def test_a_person_judges_at_a_terminal_and_goes_on_where_they_stopped(run: str, terminal: Terminal) -> None:
    shown, found = terminal.judge(run, "s\nx\n\nw\nq\n")
    assert found["judged"] == 2 and found["votes"] == {"q0": ["strong"], "q1": ["weak"], "q2": [], "q3": []}
    assert shown.count("Which side argues better") == 5  # two answers, two that are none, and the stop
    for text in ("Ka1 q0 >", "strong claims: take the queen", "shows: weak shows q0 1", "2 of 4 debates"):
        assert text in shown
    assert "verdict of a machine" not in shown  # nobody is told what the judge made of it
    again, found = terminal.judge(run, "t\ns\n")
    assert "Ka1 q1" not in again and "Ka1 q2 >" in again
    assert found["votes"] == {"q0": ["strong"], "q1": ["weak"], "q2": ["tie"], "q3": ["strong"]}
    nothing, found = terminal.judge(run, "")
    assert "Which side argues" not in nothing and found["judged"] == 4


def test_another_person_is_asked_about_all(run: str, terminal: Terminal) -> None:
    for number in range(4):
        vote(run, f"q{number}", "strong", "bob")
    _, found = terminal.judge(run, "w\n")
    assert found["votes"] == {"q0": ["strong", "weak"], "q1": ["strong"], "q2": ["strong"], "q3": ["strong"]}


def test_blind_nobody_is_told_which_side_is_strong_and_the_first_is_not_always_the_same(run: str, terminal: Terminal) -> None:
    shown, found = terminal.judge(run, "a\na\nb\nb\n", "--blind")
    claims = [line for line in shown.splitlines() if "claims:" in line]
    assert "strong claims" not in shown and "A (strong)" not in shown and "a (A) or b (B) or t (tie)" in shown
    swapped = [one.swapped() for one in reversed_views(run)]
    expected = [["weak" if swap != (key == "b") else "strong"] for swap, key in zip(swapped, "aabb", strict=True)]
    assert found["votes"] == {f"q{number}": own for number, own in enumerate(expected)}
    assert [("rook" in claims[2 * number]) for number in range(4)] == swapped


def reversed_views(run: str) -> Iterator[human_feedback.DebateForReview]:
    """The debates as somebody sees them who has judged none."""
    return human_feedback.unjudged(run, "somebody else")


def test_half_of_the_debates_show_the_weak_side_first() -> None:
    found = [human_feedback.DebateForReview(traces.trace_id("run", str(number)), "", ()).swapped() for number in range(400)]
    assert 160 < sum(found) < 240


def test_several_rounds_are_shown_one_after_the_other(experiment: str, terminal: Terminal) -> None:
    shown, _ = terminal.judge(debates(1, rounds=2), "q\n")
    said = [line for line in shown.splitlines() if "shows:" in line]
    assert [line.split()[-1] for line in said] == ["1", "1", "2", "2"]
    assert [("weak" in line) for line in said[:2]] == [("weak" in line) for line in said[2:]]


def test_wrong_runs_are_one_sentence(experiment: str, terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        terminal.judge("nothing", "")
    assert stop.value.code == 2 and "RUN must be the id or the name of a run" in capsys.readouterr().err


# --- the review queue of the UI ---------------------------------------------------------------------------------------


def test_a_review_queue_asks_for_the_winner_of_each_debate_once(run: str, terminal: Terminal) -> None:
    shown, _ = terminal.judge(run, "", "--review")
    name = human_feedback.review(run)  # a second time changes nothing
    assert repr(name) in shown
    queue = review_queues.get_review_queue(name=name, experiment_id=server.experiment().experiment_id)
    items = {item.item_id for item in review_queues.list_review_queue_items(queue.queue_id)}
    assert items == {traces.trace_id(run, f"q{number}") for number in range(4)}
    schema = label_schemas.get_label_schema(human_feedback.NAME, experiment_id=server.experiment().experiment_id)
    assert isinstance(schema.input, InputCategorical) and tuple(schema.input.options) == ("strong", "weak", "tie")


def test_two_runs_have_two_queues_with_one_question(run: str) -> None:
    assert human_feedback.review(run) != human_feedback.review(debates(1))
    names = [schema.name for schema in label_schemas.list_label_schemas(server.experiment().experiment_id)]
    assert names.count(human_feedback.NAME) == 1


def test_another_question_of_that_name_is_one_sentence(run: str) -> None:
    place = server.experiment().experiment_id
    label_schemas.create_label_schema(
        human_feedback.NAME, type="feedback", input=InputPassFail("yes", "no"), experiment_id=place
    )
    with pytest.raises(ConfigError, match="a label schema winner whose answers are not strong, weak, tie"):
        human_feedback.review(run)


# --- a real server ----------------------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_real_server_takes_and_gives_back_what_people_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    with servers.mlflow_server(tmp_path) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "judged")
        server.forget()
        run = debates(3)
        vote(run, "q0", "strong", "bob")
        _, found = terminal.judge(run, "w\nt\nq\n")
        assert found["votes"] == {"q0": ["strong", "weak"], "q1": ["tie"], "q2": []}
        assert human_feedback.review(run).endswith(run[:8])
        human_feedback.pull(run).check()
    server.forget()
