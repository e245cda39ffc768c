"""What facilitation is asked for: a student's options, who teaches, on what, and how the weak model learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import ClassVar, Literal

from w2s_mlflow import exceptions
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.exceptions import LARGEST, must
from w2s_mlflow.methods import presets, student_options
from w2s_mlflow.pipeline.options import Training

STUDENT, CEILING, RUN = "student", "ceiling", "run"
REST = "rest"
SUPERVISOR = "supervisor"


@checked_dataclass
class Config(student_options.Config):
    """Who teaches (a student, asked for by its own options), on which text, and how often."""

    teacher: str = STUDENT
    """Who teaches: student, the one that the other options ask for; ceiling, the strong model finetuned on ground truth; or a
    finished run that has kept its model, by its id or name."""
    questions: Literal["rest", "supervision", "transfer", "both"] = "rest"
    """The text without labels that the weak model learns on: rest, rows of the training part that are in neither half;
    supervision, transfer, or both."""
    question_rows: int | None = option(default=None, ge=1)
    """At most so many rows of the rest; none takes as many as --train-size."""
    targets: Literal["soft", "hard"] = "soft"
    """What it learns: soft, the strong model's probabilities; hard, its most probable classes."""
    temperature: float = option(default=1.0, gt=0, lt=LARGEST)
    """What the strong model's log-probabilities are divided by, above 0: surer targets below 1, less sure ones above."""
    start: Literal["pretrained", "supervisor"] = "pretrained"
    """Where the weak model starts: pretrained, its own weights; supervisor, those that ground truth of supervision gave it."""
    weak_epochs: int = option(default=2, ge=1)
    """Passes of the weak model over the questions; --early-stopping holds for it, too, by its agreement with the targets."""
    weak_learning_rate: float | None = option(default=None, gt=0, lt=LARGEST)
    """Its peak learning rate; none takes the model's own."""
    iterations: int = option(default=1, ge=1, result=False)
    """Turns: in each a student learns what the weak model of the turn before says of transfer, and teaches the weak model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_together()
        if self.iterations > 1:
            self._check_turns()

    def _check_together(self) -> None:
        """What goes with what."""
        if self.targets == "hard" and self.temperature != 1:
            raise must("temperature", "1 with --targets hard, which it does not change", self.temperature)
        if self.question_rows is not None and self.questions != REST:
            raise must("question_rows", f"left out unless --questions is {REST}", self.question_rows)
        if presets.labels_file(self.labels):
            raise must("labels", "those of a supervisor, the weak model that is taught", self.labels)

    def _check_turns(self) -> None:
        """A student of a later turn learns M'_W's labels as they are, and nothing of gold."""
        labels, chain = (self._primitives()[name] for name in ("labels", "chain"))
        wrong = {"teacher": self.teacher != STUDENT, "labels": labels != "weak", "chain": bool(chain)}
        wrong |= {"calibrate": self.calibrate, "early_stopping": self.early_stopping == "oracle"}
        if name := next((name for name, is_wrong in wrong.items() if is_wrong), None):
            value = {"labels": labels, "chain": chain}.get(name, getattr(self, name))
            raise must("iterations", f"1 with {exceptions.flag(name)} {value}", self.iterations)

    def learner(self) -> Learner:
        """How the weak model learns: the same data, head and way to compute."""
        own = {name: getattr(self, name) for name in ("weak", "questions", "targets", "temperature", "start")}
        stops = "none" if self.early_stopping == "none" else "weak"
        how = Learner(epochs=self.weak_epochs, learning_rate=self.weak_learning_rate, early_stopping=stops)
        return Learner(**vars(how) | self.shared() | own).resolved()

    def labeller(self, by: Mapping[str, str]) -> str:
        """Whose labels M'_W's are, in words that tell each option of facilitation that is not the default.

        Args:
            by: the strong model, its method, and the turn.
        """
        plain = {field.name: field.default for field in fields(Config)}
        method, turn = by["method"].replace("baseline", ""), f"turn {by['turn']}" if by["turn"] != "1" else ""
        given = [f"{name}={getattr(self, name)}" for name in OWN if getattr(self, name) != plain[name]]
        return " ".join(word for word in ("facilitated by", by["strong"], method, turn, *given) if word)


OWN = ("questions", "question_rows", "targets", "temperature", "start", "weak_epochs", "weak_learning_rate")


@checked_dataclass
class Learner(Training):
    """All that makes M'_W but who teaches it, whose fingerprint is an input."""

    weak: str = "chess-60k"
    """The weak model."""
    questions: str = REST
    """The text it learns on."""
    targets: str = "soft"
    """What of the answers it learns."""
    temperature: float = 1.0
    """How sure they are."""
    start: str = "pretrained"
    """Where it starts."""
    early_stopping: str = "weak"
    """weak: stop at the first epoch that agrees no better with the targets of the validation slice; none: all epochs."""

    MODEL: ClassVar[str] = "weak"
