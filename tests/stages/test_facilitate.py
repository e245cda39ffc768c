"""Facilitation (eq. 1): its known cases to the bit, whose labels each iteration learns, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import SMALL, runs
from w2s_mlflow import metrics, stats
from w2s_mlflow.analysis import build
from w2s_mlflow.data import loading
from w2s_mlflow.data.splits import Split
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.modeling import inference
from w2s_mlflow.pipeline import runs as pipeline_runs
from w2s_mlflow.records import SoftLabels, read_predictions
from w2s_mlflow.stages import analyze, ceiling, facilitate, student, supervisor
from w2s_mlflow.tables import facilitation
from w2s_mlflow.tracking import logged_model, results, session
from w2s_mlflow.tracking.backend import server
from w2s_mlflow.tracking.results import Result

pytestmark = pytest.mark.usefixtures("experiment")

GIVEN: dict[str, Any] = SMALL | {"weak": "chess-27k", "strong": "chess-43k", "ceiling": "none", "epochs": 1}


def config(**options: Any) -> facilitate.Config:
    return facilitate.Config(**GIVEN | options)


def taught(**options: Any) -> Result:
    return facilitate.run(config(**options))


def cut() -> Split:
    return loading.resolve_and_split(config().resolved())[1]


def answers(found: Result) -> SoftLabels:
    """What the strong model has answered to the questions."""
    return read_predictions(found.artifact(facilitate.ANSWERS))


def bits(found: Result) -> bytes:
    order = found.predictions("test").aligned([example.id for example in cut().test])
    return order.probabilities_NC.tobytes()


def as_student(labels: SoftLabels, directory: Path, **options: Any) -> Result:
    """The weak model as an ordinary student of labels from outside."""
    labels.write(directory / "given.parquet")
    given = {"strong": GIVEN["weak"], "labels": str(directory / "given.parquet"), "epochs": 2}
    return student.run(student.Config(**GIVEN | given | options))


# --- eq. 1 and its known cases ----------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.slow
def test_at_temperature_1_it_is_training_on_the_strong_model_s_answers(tmp_path: Path) -> None:
    found = taught(question_source="transfer")
    assert bits(found) == bits(as_student(answers(found), tmp_path))


@pytest.mark.shared
@pytest.mark.slow
def test_hard_targets_are_the_most_probable_answers(tmp_path: Path) -> None:
    found = taught(targets="hard", question_source="transfer")
    assert bits(found) == bits(as_student(answers(found).hardened(), tmp_path)) != bits(taught(question_source="transfer"))


@pytest.mark.shared
@pytest.mark.slow
def test_a_temperature_is_that_of_distillation_on_both_sides(tmp_path: Path) -> None:
    found = taught(question_source="transfer", temperature=4.0)
    distilled = as_student(answers(found), tmp_path, loss="distillation", loss_options={"distillation_temperature": 4.0})
    assert bits(found) == bits(distilled) != bits(taught(question_source="transfer"))


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("questions", ("rest", "supervision", "transfer", "both"))
def test_the_questions_are_those_of_the_chosen_half_and_answered_by_the_strong_model(questions: str) -> None:
    found, parts = taught(question_source=questions), cut().parts()
    halves = ("supervision", "transfer") if questions == "both" else (questions,)
    if questions == "rest":
        rest = loading.questions(loading.resolve_and_split(config().resolved())[0], None)
        parts, halves = {"rest": rest.train, "rest_validation": rest.validation}, ("rest",)
    asked = [example for half in halves for slice_ in ("", "_validation") for example in parts[half + slice_]]
    assert sorted(answers(found).ids) == sorted(example.id for example in asked)
    head = logged_model.load(results.get(found.tags["w2s.strong_run_id"]).tags[pipeline_runs.MODEL])
    assert np.array_equal(answers(found).of([e.id for e in asked]), inference.probabilities(head, head.encode(asked)))


@pytest.mark.shared
@pytest.mark.slow
def test_where_nothing_is_learned_the_weak_model_stays_where_it_started() -> None:
    """With the head that has no new weights, so that the pretrained model can answer."""
    given: dict[str, Any] = {"head": "lm_choice"}
    still = given | {"weak_learning_rate": 1e-30, "weak_epochs": 1}
    weak = supervisor.run(supervisor.Config(**SMALL | given, weak="chess-27k"))
    untuned = student.run(student.Config(**GIVEN | given | {"strong": "chess-27k", "method": "zero_shot"}))
    for start, before in (("supervisor", weak), ("pretrained", untuned)):
        assert bits(taught(start=start, **still)) == bits(before)


# --- what a run says --------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.slow
def test_its_numbers_are_those_of_stored_predictions() -> None:
    found = taught()
    ids = [example.id for example in cut().test]
    weak, strong = (results.get(found.tags[f"w2s.{role}_run_id"]) for role in ("weak", "strong"))
    assert (weak.stage, strong.stage) == ("supervisor", "student")
    own, floor, teacher = (run.predictions("test").aligned(ids) for run in (found, weak, strong))
    said = {name: found.metrics[f"test/{name}"] for name in ("agreement", "weak_agreement", "weak_accuracy", "strong_accuracy")}
    assert said == {
        "agreement": metrics.agreement_score(own.probabilities_NC, teacher.probabilities_NC),
        "weak_agreement": metrics.agreement_score(own.probabilities_NC, floor.probabilities_NC),
        "weak_accuracy": weak.metrics["test/accuracy"],
        "strong_accuracy": strong.metrics["test/accuracy"],
    }
    gain = stats.group_interval(own.correct_N() - floor.correct_N(), own.groups)
    assert [found.metrics[f"test/{name}"] for name in ("gain", "gain_low", "gain_high")] == list(gain[:3])
    assert gain.mean == pytest.approx(found.metrics["test/accuracy"] - weak.metrics["test/accuracy"])


@pytest.mark.slow
def test_the_second_time_nothing_is_trained_and_a_plan_starts_nothing() -> None:
    with session.planning() as plan:
        taught(iterations=2)
    assert plan.count("trained") == 5 and runs() == []  # the supervisor, and two students and weak models
    found, made = taught(iterations=2), len(runs())
    assert made == 5
    again = taught(iterations=2)
    assert again.run_id == found.run_id and again.reused and len(runs()) == made
    with session.planning() as plan:
        taught(iterations=3)
    assert (plan.count("reused"), plan.count("trained")) == (5, 2)


@pytest.mark.slow
def test_it_can_be_scored_later() -> None:
    before = taught(report="none")
    assert not [name for name in before.metrics if name.startswith("test/")]
    later = taught()
    assert later.run_id == before.run_id and "test/gain" in later.metrics


# --- iterations -------------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.slow
def test_each_turn_is_a_run_and_its_student_learns_the_labels_of_the_weak_model_before() -> None:
    second = taught(iterations=2)
    student_2 = results.get(second.tags["w2s.strong_run_id"])
    first = results.get(student_2.tags["w2s.labels_run_id"])
    student_1 = results.get(first.tags["w2s.strong_run_id"])
    assert (first.params["iteration"], second.params["iteration"]) == ("1", "2") and student_1.params["labels"] == "weak"
    assert first.run_id == taught().run_id
    assert student_2.params["labels"] == first.tags["w2s.labels"] == "facilitated by chess-43k"
    assert (student_1.tags["w2s.weak_run_id"], "w2s.labels_run_id" in student_1.tags) == (
        student_2.tags["w2s.weak_run_id"],
        False,
    )
    inputs = [_inputs(run) for run in (student_1, first, student_2, second)]
    weak = results.get(student_1.tags["w2s.weak_run_id"])
    questions = {"questions": loading.questions(loading.resolve_and_split(config().resolved())[0], None).digest}
    assert inputs == [
        {"weak": weak.fingerprint},
        {"strong": student_1.fingerprint} | questions,
        {"labels": first.fingerprint},
        {"strong": student_2.fingerprint} | questions,
    ]


def _inputs(run: Result) -> dict[str, str]:
    found: dict[str, str] = json.loads(run.artifact("fingerprint.json").read_text())["inputs"]
    return found


def test_labels_say_who_has_taught_whom_and_how() -> None:
    asked = config(temperature=0.5, question_source="both")
    assert config().labeller({"strong": "s", "method": "baseline", "iteration": "1"}) == "facilitated by s"
    said = asked.labeller({"strong": "s", "method": "confidence", "iteration": "2"})
    assert said == "facilitated by s confidence iteration 2 question_source=both temperature=0.5"


@pytest.mark.shared
@pytest.mark.slow
def test_any_student_can_learn_a_facilitated_model_s_labels_by_its_run(tmp_path: Path) -> None:
    first = taught()
    asked = student.Config(**GIVEN | {"labels": f"run:{first.run_id}"})
    found = student.run(asked)
    assert found.run_id == results.get(taught(iterations=2).tags["w2s.strong_run_id"]).run_id
    first.weak_labels().write(tmp_path / "given.parquet")
    outside = student.run(student.Config(**GIVEN | {"labels": str(tmp_path / "given.parquet")}))
    assert bits(found) == bits(outside) and found.params["method"] == "baseline"


@pytest.mark.slow
def test_the_trajectory_is_on_the_last_run() -> None:
    found = taught(iterations=2)
    with found.artifact("tables/trajectory_test.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["iteration"], row["model"], row["name"]) for row in rows] == [
        ("0", "weak", "chess-27k"),
        ("1", "strong", "chess-43k"),
        ("1", "weak", "chess-27k"),
        ("2", "strong", "chess-43k"),
        ("2", "weak", "chess-27k"),
    ]
    for row in rows:
        assert float(row["accuracy"]) == results.get(row["run_id"]).metrics["test/accuracy"]
    assert rows[-1]["run_id"] == found.run_id and found.artifact("figures/trajectory_test.png").stat().st_size > 5000
    first = results.get(rows[2]["run_id"])
    assert "figures/trajectory_test.png" not in first.digests


# --- gold -------------------------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"teacher": "ceiling"},
        pytest.param({"method": "oracle"}, marks=pytest.mark.slow),
        pytest.param({"early_stopping": "oracle"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_gold_that_the_teacher_has_learned_is_passed_on_and_no_student_learns_it(options: dict[str, Any]) -> None:
    found = taught(**options)
    assert found.tags["w2s.gold"] == "transfer" and found.params["method"] == options.get("teacher", found.params["method"])
    made = len(runs())
    with pytest.raises(ConfigError, match="depends on ground truth of transfer"):
        student.run(student.Config(**GIVEN | {"labels": f"run:{found.run_id}"}))
    with pytest.raises(
        ConfigError, match=r"^--iterations must be 1 with --(teacher|labels|early-stopping) (ceiling|oracle), got 2$"
    ):
        taught(iterations=2, **options)
    assert len(runs()) == made


# --- analysis ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_analysis_recomputes_every_turn_and_leaves_out_what_is_contradicted() -> None:
    for seed in (0, 1):
        last = taught(iterations=2, seed=seed)
    taught(temperature=3.0)
    frames = build.load(build.pull(analyze.Config()))
    table = facilitation.table(frames.facilitations)
    assert sorted(zip(table["iteration"], table["other_options"], table["n"], strict=True)) == [
        (1, "", 2),
        (1, "temperature=3.0", 1),
        (2, "", 2),
    ]
    row = frames.facilitations.set_index("run_id").loc[last.run_id]
    for name in ("accuracy", "weak_accuracy", "strong_accuracy", "agreement", "weak_agreement"):
        assert row[name] == pytest.approx(last.metrics[f"test/{name}"])
    variants = frames.outcomes.groupby("method_options")["seed"].nunique().to_dict()
    assert variants == {"": 2, "labels=facilitated by chess-43k": 2}
    server.client().log_metric(last.run_id, "test/strong_accuracy", 0.99)
    wrong = build.load(build.pull(analyze.Config(filter="tags.`w2s.task` = 'chess'"))).left_out
    assert wrong[["run_id", "exclusion_rule"]].to_numpy().tolist() == [[last.run_id, "contradicted"]]


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 0.0}, r"--temperature must be in \[0.01, 100\], got 0.0"),
        ({"temperature": 101.0}, r"--temperature must be in \[0.01, 100\], got 101.0"),
        (
            {"temperature": 2.0, "targets": "hard"},
            "--temperature must be 1 with --targets hard, because hard targets have no logits to divide, got 2.0",
        ),
        ({"targets": "firm"}, "--targets must be one of hard, soft, got 'firm'"),
        ({"question_source": "x"}, "--question-source must be one of both, rest, supervision, transfer, got 'x'"),
        ({"start": "here"}, "--start must be one of pretrained, supervisor, got 'here'"),
        ({"iterations": 0}, "--iterations must be at least 1, got 0"),
        ({"question_rows": 0}, "--question-rows must be at least 1, got 0"),
        (
            {"question_rows": 9, "question_source": "both"},
            "--question-rows must be left out unless --question-source is rest, got 9",
        ),
        ({"weak_epochs": 0}, "--weak-epochs must be at least 1, got 0"),
        ({"weak_learning_rate": -1.0}, r"--weak-learning-rate must be in \(0, 1e\+30\), got -1.0"),
        ({"iterations": 2, "chain": "chess-43k"}, "--iterations must be 1 with --chain chess-43k, got 2"),
        ({"iterations": 2, "method": "hard_labels"}, "--iterations must be 1 with --labels hard, got 2"),
        ({"iterations": 2, "calibrate": True}, "--iterations must be 1 with --calibrate True, got 2"),
    ],
)
def test_wrong_options_are_one_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}$"):
        config(**options)


def test_a_cut_that_leaves_no_rows_to_ask_is_one_sentence_and_nothing_is_written() -> None:
    with pytest.raises(
        ConfigError, match=r"^--train-size must be small enough to leave rows outside both halves \(the task has 8623"
    ):
        taught(train_size=8623)
    assert runs() == []


def test_labels_from_outside_have_no_weak_model_to_teach(tmp_path: Path) -> None:
    (tmp_path / "people.parquet").touch()
    with pytest.raises(ConfigError, match=r"^--labels must be a name or run:ID, not a file, because .*, got .*people.parquet$"):
        config(labels=str(tmp_path / "people.parquet"))


@pytest.mark.slow
def test_a_teacher_by_its_run_teaches_as_if_asked_for_by_its_options() -> None:
    found = taught()
    teacher = results.get(found.tags["w2s.strong_run_id"])
    assert taught(teacher=teacher.run_id).run_id == found.run_id
    top = ceiling.run(ceiling.Config(strong="chess-43k", keep_model="always", **SMALL))
    by_name = taught(teacher=top.name)
    assert (by_name.params["method"], by_name.params["teacher"], by_name.tags["w2s.gold"]) == ("ceiling", "run", "transfer")


@pytest.mark.slow
def test_a_teacher_that_cannot_teach_is_one_sentence_and_nothing_is_written() -> None:
    plain = student.run(student.Config(**GIVEN))
    kept = student.run(student.Config(**GIVEN | {"seed": 1, "keep_model": "always"}))
    made = len(runs())
    for teacher, said in {
        "nobody": "must be the id or the name of a run",
        plain.run_id: r"^--teacher must be a run with a logged model \(--keep-model always\), got student",
        kept.run_id: r"^--teacher must be a run with the same data \(--task, --seed and sizes\), got student .*$",
    }.items():
        with pytest.raises(ConfigError, match=said):
            taught(teacher=teacher)
    location = server.client().get_logged_model(kept.tags[pipeline_runs.MODEL]).artifact_location.removeprefix("file://")
    weights = next(Path(location).rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"has a damaged file .*model.safetensors"):
        taught(teacher=kept.run_id, seed=1)
    assert len(runs()) == made


@pytest.mark.shared
@pytest.mark.slow
def test_labels_of_a_run_that_has_none_or_of_others_rows_are_refused() -> None:
    found, other = taught(), supervisor.run(supervisor.Config(**SMALL, weak="chess-27k", seed=1))
    plain, made = results.get(found.tags["w2s.strong_run_id"]), len(runs())
    for run, options, said in (
        (plain, {}, "a run that has labels for the rows of transfer, got student"),
        (other, {}, r"a run with the same data \(--task, --seed and sizes\), got supervisor"),
        (found, {"weak": "chess-43k"}, "a run with the weak model chess-43k, got facilitate"),
    ):
        with pytest.raises(ConfigError, match=f"^--labels must be {said}"):
            student.run(student.Config(**GIVEN | {"labels": f"run:{run.run_id}"} | options))
    assert len(runs()) == made
