"""What alignment is asked for: who argues against whom, before whom, and how much it counts."""

from __future__ import annotations

from typing import ClassVar, Literal

from w2s_mlflow import models
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.debate import participants, past_verdicts
from w2s_mlflow.exceptions import must
from w2s_mlflow.pipeline.options import Training

GRADIENT = "gradient"


@checked_dataclass
class Config(Training):
    """A strong model that is aligned by debates."""

    weak: str = option(default="chess-60k", lookup=models.find)
    """The weak model: it labels, it argues on the other side, and, frozen, it answers where a judge asks a model."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """The strong model that is aligned."""
    lam: float = option(default=0.1, ge=0)
    """lambda of eq. 2, the weight of the debate beside the labels; 0 is a plain student."""
    kl: float = option(default=0.05, ge=0)
    """What the policy pays in D for each nat of distance from where it started."""
    pieces: int = option(default=3, ge=1)
    """Pieces of evidence that a side shows."""
    opponent: Literal["gradient", "random"] = "gradient"
    """How the weak side chooses its evidence: gradient or random; it does not learn."""
    judge: str = "model"
    """Who decides, a file of judges/."""
    judge_options: str = ""
    """Options of the judge, NAME=VALUE with commas between them."""
    rounds: int = option(default=1, ge=1, result=False)
    """How often it is aligned, each time from the start weights: from round 2 on by a reward model, which learns what the judge
    says of debates of the model of the round before."""
    questions: int | None = option(default=400, ge=1, unset="all")
    """Held-out questions on which it is seen whether the judge is won over, the first of the test part; none takes all."""
    ceiling: Literal["gold", "none"] = option(default="gold", result=False)
    """What it is reported against: gold, the strong model finetuned on ground truth; or none, and then there is no PGR."""
    early_stopping: Literal["weak", "none"] = "weak"
    """weak: stop at the first epoch that agrees no better with the weak labels of the validation slice, best weights back;
    none: all epochs."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(participants.judges(self.judge, self.judge_options)) > 1:
            raise must("judge", "one judge, whom the model is to convince", self.judge)
        if self.rounds > 1:
            self._check_rounds()

    def _check_rounds(self) -> None:
        """Debates of an aligned model need its policy, the weak side's evidence by gradient, and a judge to be asked anew."""
        if not self.lam:
            raise must("lam", f"above 0 with --rounds {self.rounds}, as without a policy there is nobody to debate", self.lam)
        if self.opponent != GRADIENT:
            raise must("opponent", f"{GRADIENT} with --rounds {self.rounds}", self.opponent)
        if self.judge in past_verdicts.RESOLVERS:
            others = " or ".join(past_verdicts.RESOLVERS)
            rule = f"one who can be asked about new debates with --rounds {self.rounds}, not {others}"
            raise must("judge", rule, self.judge)
