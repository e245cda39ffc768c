"""Options of the `facilitate` stage: those of the student, the teacher, the questions and the weak model's training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import ClassVar, Literal

from w2s_mlflow import exceptions
from w2s_mlflow.config import checked_dataclass, option, selected
from w2s_mlflow.exceptions import LARGEST, must
from w2s_mlflow.losses import distillation
from w2s_mlflow.methods import presets, student_options
from w2s_mlflow.pipeline.options import Training, rule_name

STUDENT, CEILING, RUN = "student", "ceiling", "run"
REST = "rest"
SUPERVISOR = "supervisor"


@checked_dataclass
class Config(student_options.Config):
    """Options of facilitation: those of the student, the teacher, the questions, the weak model and the iterations."""

    teacher: str = STUDENT
    """Teacher of the weak model. `student`: the student that the other options define; `ceiling`: the strong model finetuned on
    ground truth; otherwise the id or name of a finished run that kept its model."""
    question_source: Literal["rest", "supervision", "transfer", "both"] = option(default="rest", formerly="questions")
    """Unlabelled questions to train the weak model on. `rest`: rows of the training part outside both halves;
    `supervision` or `transfer`: the rows of this half; `both`: the rows of both halves."""
    question_rows: int | None = option(default=None, ge=1)
    """Maximum number of rows for --question-source rest. Default: --train-size."""
    targets: Literal["soft", "hard"] = "soft"
    """Training targets of the weak model. `soft`: the teacher's class probabilities; `hard`: its most probable classes."""
    temperature: float = option(default=1.0, ge=distillation.LOWEST, le=distillation.HIGHEST)
    """Temperature T of knowledge distillation: the loss is T^2 times the cross-entropy of the teacher's and the weak model's
    probabilities, both from logits divided by T. 1: cross-entropy with the teacher's probabilities."""
    start: Literal["pretrained", "supervisor"] = "pretrained"
    """Initial weights of the weak model. `pretrained`: the pretrained ones; `supervisor`: the supervisor's weights."""
    weak_epochs: int = option(default=2, ge=1)
    """Number of passes of the weak model over the questions. Unless --early-stopping is `none`, training stops after the
    first epoch that does not improve agreement with the targets."""
    weak_learning_rate: float | None = option(default=None, gt=0, lt=LARGEST)
    """Peak learning rate of the weak model. Default: set by the model, adjusted for --lora and --freeze."""
    iterations: int = option(default=1, ge=1, result=False)
    """Number of iterations. In each iteration, a student is trained and then teaches the weak model. The first student is
    trained on the labels that the supervisor gives to the `transfer` split, and each later student on the labels that the weak
    model of the previous iteration gives to it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_together()
        if self.iterations > 1:
            self._check_iterations()

    def _check_together(self) -> None:
        """Check options that depend on each other."""
        if self.freeze is not None:
            raise must("freeze", "none, because the weak model is trained as a whole on the teacher's answers", self.freeze)
        if self.targets == "hard" and self.temperature != 1:
            raise must("temperature", "1 with --targets hard, because hard targets have no logits to divide", self.temperature)
        if self.question_rows is not None and self.question_source != REST:
            raise must("question_rows", f"left out unless --question-source is {REST}", self.question_rows)
        if rule_name(self.weak) is not None:
            raise must("weak", "a model, because a rule cannot be taught", self.weak)
        if presets.labels_file(self.labels):
            raise must("labels", "a name or run:ID, not a file, because a file has no supervisor to teach", self.labels)

    def _check_iterations(self) -> None:
        """Raise ConfigError unless all students after the first train on the unchanged labels of M'_W, without ground truth."""
        labels, chain = (self._primitives()[name] for name in ("labels", "chain"))
        wrong = {"teacher": self.teacher != STUDENT, "labels": labels != "weak", "chain": bool(chain)}
        wrong |= {"calibrate": self.calibrate, "early_stopping": self.early_stopping == "oracle"}
        if name := next((name for name, is_wrong in wrong.items() if is_wrong), None):
            value = {"labels": labels, "chain": chain}.get(name, vars(self)[name])
            raise must("iterations", f"1 with {exceptions.flag(name)} {value}", self.iterations)

    def learner(self) -> Learner:
        """Return the options for training the weak model. Its data, head and compute settings are those of the student."""
        return Learner(
            **self.shared(),
            **selected(self, ("weak", "question_source", "targets", "temperature", "start")),
            epochs=self.weak_epochs,
            learning_rate=self.weak_learning_rate,
            early_stopping="none" if self.early_stopping == "none" else "weak",
        )

    def labeller(self, by: Mapping[str, str]) -> str:
        """Return a description of M'_W, the facilitated weak model, as a source of labels. It lists the non-default options.

        Args:
            by: parameters of the run of M'_W. Those used are `strong` (the strong model), `method` and `iteration`.
        """
        plain = {field.name: field.default for field in fields(Config)}
        method = by["method"].replace("baseline", "")
        iteration = f"iteration {by['iteration']}" if by["iteration"] != "1" else ""
        changed = [f"{name}={value}" for name, value in selected(self, OF_LEARNER).items() if value != plain[name]]
        return " ".join(word for word in ("facilitated by", by["strong"], method, iteration, *changed) if word)


OF_LEARNER = ("question_source", "question_rows", "targets", "temperature", "start", "weak_epochs", "weak_learning_rate")


@checked_dataclass
class Learner(Training):
    """Options of the weak model's training. They and the teacher, whose fingerprint is an input, determine M'_W."""

    weak: str = "chess-60k"
    """Weak model."""
    question_source: str = option(default=REST, formerly="questions")
    """Unlabelled examples to train on."""
    targets: str = "soft"
    """Training targets: `soft` or `hard`."""
    temperature: float = 1.0
    """Temperature of knowledge distillation."""
    start: str = "pretrained"
    """Initial weights: `pretrained` or `supervisor`."""
    early_stopping: str = "weak"
    """`weak`: stop after the first epoch that does not improve agreement with the validation targets; `none`: do not stop."""

    MODEL: ClassVar[str] = "weak"
