"""What alignment is asked for: who argues against whom, before whom, and how much it counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from w2s_mlflow import models
from w2s_mlflow.config import flag, must, option, unknown
from w2s_mlflow.stages import _heard, _judging
from w2s_mlflow.stages._options import Training
from w2s_mlflow.stages._student_options import CEILINGS

OPPONENTS = ("gradient", "random")
STOPPING = ("weak", "none")


@dataclass(frozen=True, kw_only=True)
class Config(Training):
    """A strong model that is aligned by debates."""

    weak: str = "chess-60k"
    """The weak model: it labels, it argues on the other side, and, frozen, it answers where a judge asks a model."""
    strong: str = "chess-426k"
    """The strong model that is aligned."""
    lam: float = 0.1
    """lambda of eq. 2, the weight of the debate beside the labels; 0 is a plain student."""
    kl: float = 0.05
    """What the policy pays in D for each nat of distance from where it started."""
    pieces: int = 3
    """Pieces of evidence that a side shows."""
    opponent: str = "gradient"
    """How the weak side chooses its evidence: gradient or random; it does not learn."""
    judge: str = "model"
    """Who decides, a file of judges/."""
    judge_options: str = ""
    """Options of the judge, NAME=VALUE with commas between them."""
    rounds: int = option(1, result=False)
    """How often it is aligned, each time from the start weights: from round 2 on by a reward model, which learns what the judge
    says of debates of the model of the round before."""
    questions: int | None = 400
    """Held-out questions on which it is seen whether the judge is won over, the first of the test part; none takes all."""
    ceiling: str = option("gold", result=False)
    """What it is reported against: gold, the strong model finetuned on ground truth; or none, and then there is no PGR."""
    early_stopping: str = "weak"
    """weak: stop at the first epoch that agrees no better with the weak labels of the validation slice, best weights back;
    none: all epochs."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        models.find(self.weak, "weak")
        for name, values in {"opponent": OPPONENTS, "early_stopping": STOPPING, "ceiling": CEILINGS}.items():
            if getattr(self, name) not in values:
                raise unknown(flag(name), getattr(self, name), values)
        for name in ("lam", "kl"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise must(name, "finite and at least 0", getattr(self, name))
        for name in ("pieces", "questions", "rounds"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise must(name, "at least 1", value)
        if len(_judging.judges(self.judge, self.judge_options)) > 1:
            raise must("judge", "one judge, whom the model is to convince", self.judge)
        if self.rounds > 1:
            self._check_rounds()

    def _check_rounds(self) -> None:
        """Debates of an aligned model need its policy, the weak side's evidence by gradient, and a judge to be asked anew."""
        if not self.lam:
            raise must("lam", f"above 0 with --rounds {self.rounds}, as without a policy there is nobody to debate", self.lam)
        if self.opponent != OPPONENTS[0]:
            raise must("opponent", f"{OPPONENTS[0]} with --rounds {self.rounds}", self.opponent)
        if self.judge in _heard.HEARD:
            rule = f"one who can be asked about new debates with --rounds {self.rounds}, not {' or '.join(_heard.HEARD)}"
            raise must("judge", rule, self.judge)
