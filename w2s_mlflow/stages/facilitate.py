"""Facilitation (Definition 3, eq. 1): a strong model teaches the weak one on text without labels.

theta_W' = argmin sum_{q in Q} CE(f_W'(q), f_S(q)): the weak model M_W is finetuned on what the strong one, M_S, answers to the
questions Q, and becomes M'_W. It is compared with the weak supervisor, which ground truth of `supervision` has made of the
same model. With `--iterations` M'_W labels `transfer`, a new student learns these labels and teaches the weak model again, from
the same start; each turn's student and weak model are runs of their own.

Q is the text of `supervision`. The strong model was trained on `transfer`: its answers there would repeat the labels that it
was given; and M'_W is to label `transfer` as the supervisor does, without having been trained on it. The rows are those that
the supervisor has learned, so that a gain is that of the labels. (docs/facilitation.md)

Metrics: `train/loss` and `train/gradient_norm` by step; `validation/agreement` with the targets; `test/accuracy`, `test/auroc`,
`test/brier`, `test/ece` of M'_W; `test/weak_accuracy` of M_W, `test/strong_accuracy` of M_S; `test/agreement` of M'_W with M_S,
`test/weak_agreement` with M_W; `test/gain`, the accuracy of M'_W minus that of M_W, `test/gain_low` and `test/gain_high`, its
interval over test groups.
Artifacts: `labels/teacher.parquet`, what M_S answers to Q; `labels/weak_labels.parquet`, what M'_W says of `transfer`;
`predictions/*.parquet`; `tables/trajectory_test.csv` and `figures/trajectory_test.png`, the accuracies turn by turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from w2s_mlflow.config import must
from w2s_mlflow.records import Example, SoftLabels
from w2s_mlflow.split import Split
from w2s_mlflow.stages import _finetune, _gold, _runs, _scoring, _trajectory, ceiling, student, supervisor
from w2s_mlflow.stages._facilitate_options import CEILING, QUESTIONS, RUN, STUDENT, Config, Learner
from w2s_mlflow.stages._finetune import Labelled
from w2s_mlflow.stages._options import model_name
from w2s_mlflow.stages._trajectory import Turn

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

__all__ = ["VERSION", "Config", "run"]

VERSION = 1
ANSWERS = "labels/teacher.parquet"
"""What the strong model has answered to the questions."""


def run(config: Config) -> Result:
    """The last turn's weak model, found or trained, with all it needs. Raises ConfigError before anything is written."""
    asked, (config, cut) = config, _gold.cut(config.resolved())
    learner, turns = config.learner(), list[Turn]()
    for number in range(1, config.iterations + 1):
        teacher = _teacher(asked, config, cut, turns[-1].weak if turns else None)
        weak = supervisor.run(
            supervisor.Config(
                weak=config.weak, keep_model="always" if config.start == "supervisor" else "never", **config.shared()
            )
        )
        turns.append(Turn(teacher, _facilitated(config, learner, cut, teacher, weak, number)))
    return turns[-1].weak if config.report == "none" else _trajectory.attach(weak, turns, config.report)


def _teacher(asked: Config, config: Config, cut: Split, before: Result | None) -> Result:
    """The strong model of a turn, with its model kept.

    Args:
        asked: the options as the user gave them.
        config: the same, resolved.
        before: who labels `transfer` in this turn; None for the supervisor.
    """
    if asked.teacher == CEILING:
        shared = config.shared() | {"keep_model": "always"}
        return ceiling.run(ceiling.Config(strong=config.strong, pooling=config.pooling, **shared))
    if asked.teacher != STUDENT:
        return _named(asked.teacher, cut)
    own = {field.name: getattr(asked, field.name) for field in fields(student.Config)} | {"keep_model": "always"}
    chosen = student.Config(**own)
    return student.run(chosen) if before is None else student.on_labels_of(before, chosen)


def _named(run: str, cut: Split) -> Result:
    """A teacher by its id or name. Raises ConfigError unless it is whole, has kept its model, and is of the same rows."""
    from w2s_mlflow.tracking import logged_model, results

    found = results.find(run)
    if _runs.MODEL not in found.tags:
        raise must("teacher", "a run that has kept its model (--keep-model always)", f"{found.name} ({found.run_id})")
    if found.tags.get("w2s.data") != cut.digest:  # its training rows could be this cut's test rows
        raise must("teacher", "a run on the same rows: task, seed, sizes", f"{found.name} ({found.run_id}), which has others")
    found.check()
    logged_model.verify(found.tags[_runs.MODEL])
    return found


def _facilitated(config: Config, learner: Learner, cut: Split, teacher: Result, weak: Result, number: int) -> Result:
    """M'_W of one turn, found or trained, and scored."""
    from w2s_mlflow.tracking import results

    inputs = {"strong": teacher} | ({"weak": weak} if learner.start == "supervisor" else {})
    parts = _runs.parts("facilitate", VERSION, learner, cut, inputs, ["losses.cross_entropy"])
    named = config.teacher not in (STUDENT, CEILING)
    by = {"strong": config.rung().name, "method": CEILING if config.teacher == CEILING else config.method}
    by |= {name: teacher.params[name] for name in by if named}
    identity = {"weak": model_name(config.weak, "weak"), **by, "turn": str(number), "teacher": RUN if named else config.teacher}
    tags = {_runs.LABELS: config.labeller(number, by["strong"])}
    note = (
        f"`{identity['weak']}`, taught by {results.link(teacher)} on the text of `{learner.questions}` without labels (eq. 1)."
    )

    def make(recorder: Recorder) -> Head:
        return _make(learner, config, cut, teacher, weak, recorder)

    found = _runs.produce(parts, config, cut, identity, note, make, inputs, tags)
    return _scoring.report(found, config, cut, {"weak": weak, "strong": teacher})


def _make(learner: Learner, config: Config, cut: Split, teacher: Result, weak: Result, recorder: Recorder) -> Head:
    asked, watched = questions(cut, learner.questions)
    answers = _answers(teacher, config, [*asked, *watched])
    answers.write(recorder.directory / ANSWERS)
    taught = targets(answers, learner)
    head = _start(learner, weak)
    stopping = Labelled.joined(watched, taught) if learner.early_stopping == "weak" else None
    _finetune.fit_head(head, learner, Labelled.joined(asked, taught), stopping, recorder)
    recorder.predictions("validation", _finetune.predictions(head, watched, learner))
    recorder.weak_labels(_finetune.predictions(head, cut.transfer + cut.transfer_validation, learner))
    _finetune.record_heldout(head, learner, cut, recorder)
    return head


def questions(cut: Split, chosen: str) -> tuple[Sequence[Example], Sequence[Example]]:
    """Q, and the slice by which the training on it stops."""
    halves = QUESTIONS[:2] if chosen == "both" else (chosen,)
    parts = cut.parts()
    asked, watched = (tuple(row for half in halves for row in parts[f"{half}{part}"]) for part in ("", "_validation"))
    return asked, watched


def targets(answers: SoftLabels, learner: Learner) -> SoftLabels:
    """What the weak model learns of the strong one's answers; at temperature 1 their very bits."""
    if learner.targets == "hard":
        return answers.hardened()
    return answers if learner.temperature == 1 else answers.at_temperature(learner.temperature)


def _answers(teacher: Result, config: Config, asked: Sequence[Example]) -> SoftLabels:
    """f_S(q) for each question, computed as the strong model's stored predictions were."""
    from w2s_mlflow import train
    from w2s_mlflow.tracking import logged_model

    head = logged_model.load(teacher.tags[_runs.MODEL])
    train.use_threads(head.model.num_parameters())
    train.place(head)
    return _finetune.predictions(head, asked, config)


def _start(learner: Learner, weak: Result) -> Head:
    """The weak model before it is taught."""
    from w2s_mlflow import train
    from w2s_mlflow.tracking import logged_model

    if learner.start == "pretrained":
        return _finetune.build_head(learner)
    train.seed_everything(learner.seed)
    train.use_threads(learner.rung().parameters)
    head = logged_model.load(weak.tags[_runs.MODEL])
    train.place(head)
    return head
