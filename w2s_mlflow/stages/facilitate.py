"""Let a strong model teach the weak model on unlabelled text: facilitation (Definition 3, eq. 1).

theta_W' = argmin sum_{q in Q} CE(f_W'(q), f_S(q)): the weak model is finetuned on the answers of the strong model, M_S, to the
questions Q, and becomes M'_W. With `--temperature` T, the loss is that of knowledge distillation (losses/distillation.py). M'_W
is compared with the supervisor, M_W, which is the same model finetuned on the ground truth of `supervision`. With
`--iterations`, M'_W labels `transfer`, and a new student is trained on these labels and teaches the weak model again, from its
initial weights. The student and the weak model of each iteration are separate runs.

By default, Q consists of the rows of the training part that are in neither of its halves, `transfer` and `supervision`.
`transfer` is excluded because M'_W must label it without having been trained on it, as the supervisor does, and because the
strong model was trained on its weak labels. `supervision` is excluded because the supervisor was trained on its ground truth,
which no teacher can improve. `--question-source` can select either half or both instead (docs/explanation/facilitation.md).

Metrics: per step, `train/loss` and `train/gradient_norm`; per epoch, `validation/agreement`, the agreement with the targets;
`test/accuracy` and the other metrics of metrics.py for M'_W; `test/weak_accuracy`, the accuracy of M_W; `test/strong_accuracy`,
the accuracy of M_S; `test/agreement`, the agreement of M'_W with M_S; `test/weak_agreement`, that of M'_W with M_W;
`test/gain`, the accuracy of M'_W minus that of M_W, with its interval over test groups, `test/gain_low` and `test/gain_high`.
Artifacts: `labels/teacher.parquet`, the answers of M_S to Q; `labels/weak_labels.parquet`, the labels of `transfer` by M'_W;
`predictions/*.parquet`; `tables/trajectory_test.csv` and `figures/trajectory_test.png`, the accuracies by iteration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from w2s_mlflow.config import inherited, selected
from w2s_mlflow.data import loading
from w2s_mlflow.data.splits import Questions
from w2s_mlflow.exceptions import must
from w2s_mlflow.methods import trajectory
from w2s_mlflow.methods.facilitation_options import CEILING, REST, RUN, STUDENT, SUPERVISOR, Config, Learner
from w2s_mlflow.methods.trajectory import Iteration
from w2s_mlflow.pipeline import finetune, fit_check, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.pipeline.options import OF_STRONG
from w2s_mlflow.records import Example, SoftLabels
from w2s_mlflow.stages import ceiling, student, supervisor

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

__all__ = ["VERSION", "Config", "run"]

VERSION = 1
ROOTS = ("stages.facilitate:_make", "data.loading:questions")
ANSWERS = "labels/teacher.parquet"
"""Artifact with the strong model's answers to the questions."""


@dataclass(frozen=True)
class _FacilitationContext:
    """Options, data and supervisor, which are the same in all iterations."""

    config: Config
    learner: Context[Learner]
    questions: Questions
    weak: Result
    """Run of the supervisor, M_W."""


def run(config: Config) -> Result:
    """Find or train the weak model of each iteration, and return the run of the last iteration.

    Raises ConfigError for invalid options, before anything is written.
    """
    context = resolve(config)
    options, questions = context.options, _questions(context)
    shared = options.shared() | {"keep_model": "always" if options.start == SUPERVISOR else "never"}
    with fit_check.required(context):
        teacher = _teacher(config, context)
        weak = supervisor.run(supervisor.Config(weak=options.weak, **shared))
    lesson = _FacilitationContext(options, resolve(options.learner()), questions, weak)
    iterations = [Iteration(teacher, _facilitated(lesson, teacher, 1))]
    for number in range(2, options.iterations + 1):
        teacher = student.on_labels_of(iterations[-1].weak, _student(config))
        iterations.append(Iteration(teacher, _facilitated(lesson, teacher, number)))
    return iterations[-1].weak if options.eval_split == "none" else trajectory.attach(weak, iterations, options.eval_split)


def _questions(context: Context[Config]) -> Questions:
    """Return the questions Q, with a validation slice for early stopping."""
    config, split = context.options, context.split
    if config.question_source == REST:
        return loading.questions(config, config.question_rows)
    halves = ("supervision", "transfer") if config.question_source == "both" else (config.question_source,)
    parts = split.parts()
    examples, validation = (
        tuple(example for half in halves for example in parts[f"{half}{part}"]) for part in ("", "_validation")
    )
    return Questions(examples, validation, split.digest)


def _teacher(config: Config, context: Context[Config]) -> Result:
    """Find or train the teacher of the first iteration, keeping its model.

    Args:
        config: the options as the user gave them, before defaults are filled in.
    """
    if config.teacher == CEILING:
        options = context.options
        shared = options.shared() | {"keep_model": "always"}
        return ceiling.run(ceiling.Config(**selected(options, OF_STRONG), **shared))
    return student.run(_student(config)) if config.teacher == STUDENT else _named(config.teacher, context)


def _student(config: Config) -> student.Config:
    return student.Config(**inherited(student.Config, config) | {"keep_model": "always"})


def _named(name: str, context: Context[Config]) -> Result:
    """Find a teacher's run by id or name. Raises ConfigError if the run is damaged, kept no model or used other data."""
    from w2s_mlflow.tracking import logged_model, results

    run = results.find(name, "teacher")
    shown = f"{run.name} ({run.run_id})"
    if runs.MODEL not in run.tags:
        raise must("teacher", "a run with a logged model (--keep-model always)", shown)
    # With other data, the teacher may have been trained on test rows of this split.
    if run.tags.get("w2s.data") != context.split.digest:
        raise must("teacher", "a run with the same data (--task, --seed and sizes)", shown)
    run.check()
    logged_model.verify(run.tags[runs.MODEL])
    return run


def _facilitated(lesson: _FacilitationContext, teacher: Result, number: int) -> Result:
    """Find or train M'_W, the weak model taught in one iteration, and score it."""
    from w2s_mlflow.tracking import results

    config, learner = lesson.config, lesson.learner
    inputs = {"strong": teacher} | ({"weak": lesson.weak} if learner.options.start == SUPERVISOR else {})
    parts = runs.parts("facilitate", VERSION, learner, inputs, (*ROOTS, f"losses.{_loss(learner.options)[0]}"))
    parts = replace(parts, inputs={**parts.inputs, "questions": lesson.questions.digest})
    identity = learner.names() | _by(config, teacher) | {"iteration": str(number)}
    tags = {runs.LABELS: config.labeller(identity)}
    text = f"taught by {results.link(teacher)} on unlabelled text ({config.question_source}; eq. 1)"

    def make(recorder: Recorder) -> Head:
        return _make(lesson, teacher, recorder)

    # Pass the options of this stage, so that the run logs them.
    context = Context(config, learner.task, learner.split, learner.models)
    taught = runs.produce(parts, context, identity, f"`{identity['weak']}`, {text}.", make, inputs, tags)
    return scoring.report(taught, context, {"weak": lesson.weak, "strong": teacher})


def _by(config: Config, teacher: Result) -> dict[str, str]:
    """Return the run parameters that describe the teacher. If --teacher names a run, some are copied from that run."""
    if config.teacher in (STUDENT, CEILING):
        method = CEILING if config.teacher == CEILING else config.method
        return {"strong": config.spec().name, "method": method, "teacher": config.teacher}
    return {name: teacher.params[name] for name in ("strong", "method")} | {"teacher": RUN}


def _make(lesson: _FacilitationContext, teacher: Result, recorder: Recorder) -> Head:
    learner, questions, split = lesson.learner.options, lesson.questions, lesson.learner.split
    answers = _answers(teacher, lesson.config, [*questions.train, *questions.validation])
    answers.write(recorder.directory / ANSWERS)
    targets = answers.hardened() if learner.targets == "hard" else answers
    head = _start(lesson.learner, lesson.weak)
    stopping = LabelledExamples.joined(questions.validation, targets) if learner.early_stopping == "weak" else None
    training = LabelledExamples.joined(questions.train, targets)
    finetune.fit_head(head, lesson.learner, training, stopping, recorder, *_loss(learner))
    recorder.metrics({"facilitate/questions": len(questions.train)})
    recorder.predictions("validation", finetune.predictions(head, questions.validation, learner))
    recorder.weak_labels(finetune.predictions(head, split.transfer + split.transfer_validation, learner))
    finetune.record_heldout(head, lesson.learner, recorder)
    return head


def _loss(learner: Learner) -> tuple[str, dict[str, float]]:
    """Return the loss of the weak model and its options. At temperature 1, distillation is cross-entropy."""
    if learner.temperature == 1:
        return "cross_entropy", {}
    return "distillation", {"distillation_temperature": learner.temperature}


def _answers(teacher: Result, config: Config, questions: Sequence[Example]) -> SoftLabels:
    """Return the teacher's answer f_S(q) to each question, computed in the same way as the teacher's stored predictions."""
    return finetune.predictions(finetune.load_kept_model(teacher), questions, config)


def _start(learner: Context[Learner], weak: Result) -> Head:
    """Return the weak model before training, with the initial weights that `--start` selects."""
    from w2s_mlflow.training import loop

    if learner.options.start != SUPERVISOR:
        return finetune.build_head(learner)
    loop.seed_everything(learner.options.seed)
    return finetune.load_kept_model(weak)
