"""Options of the `align` stage: models, evidence, judge, and weight of the debate term."""

from __future__ import annotations

from typing import ClassVar, Literal

from w2s_mlflow import exceptions, explainers, models, registry
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.debate import participants, past_verdicts
from w2s_mlflow.exceptions import must, unknown
from w2s_mlflow.pipeline.options import Training

TRAINED, UNTRAINED = "policy", "random"
"""Explainers of the strong side. The first samples evidence from the trained policy; the second samples evidence uniformly, as
an untrained policy does."""


def opponent(name: str, option: str) -> None:
    """Raise ConfigError unless the explainer `name` shows spans of the question and needs no trained policy."""
    shows_spans = [other for other, plugin in explainers.every().items() if plugin.EVIDENCE == explainers.SPANS]
    legal = [other for other in shows_spans if not explainers.needs_policy(other)]
    if name not in legal:
        raise unknown(exceptions.flag(option), name, legal)


@checked_dataclass
class Config(Training):
    """Options of the `align` stage."""

    weak: str = option(default="chess-60k", lookup=models.find)
    """Weak model. Finetuned on ground truth, it provides the labels, debates with the strong model and, with `--judge model`,
    judges the debates. Alignment does not change its weights."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """Strong model to align."""
    debate_weight: float = option(default=0.1, ge=0, formerly="lam")
    """lambda of eq. 2: weight of the debate term, which is added to the label loss. With 0, the result is a plain student."""
    kl: float = option(default=0.05, ge=0)
    """Coefficient of the KL penalty. The reward D (the judge's log-odds for the strong side) is reduced by this value for each
    nat of KL divergence of the policy from the untrained policy."""
    evidence_spans: int = option(default=3, ge=1, formerly="pieces")
    """Number of evidence spans that each side shows."""
    opponent: str = option(default="gradient", lookup=opponent)
    """Explainer with which the weak side, which is not trained, chooses its evidence. It must show spans of the question and
    need no policy, such as `gradient` or `random`."""
    judge: str = option(default="model", plugins="judges")
    """Judge of the debates: the name of a file in judges/."""
    judge_options: str = ""
    """Options of the judge, as comma-separated NAME=VALUE pairs."""
    iterations: int = option(default=1, ge=1, result=False, formerly="rounds")
    """Number of alignment iterations. Each trains the strong model anew from its initial weights. From iteration 2 on, the
    reward comes from a reward model, which is fitted on the judge's verdicts on the debates of all earlier iterations."""
    num_questions: int | None = option(default=400, ge=1, unset="all", formerly="questions")
    """Number of test questions, from the start of the split, on which the judge compares the aligned model with the plain
    student. `all`: use the whole split."""
    ceiling: Literal["gold", "none"] = option(default="gold", result=False)
    """Ceiling for PGR. `gold`: the strong model finetuned on ground truth; `none`: no ceiling and no PGR."""
    early_stopping: Literal["weak", "none"] = "weak"
    """`weak`: stop after the first epoch that does not improve agreement with the weak labels of the validation split, and
    restore the best weights; `none`: train for all epochs."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.freeze is not None:
            raise must("freeze", "none, because alignment trains the whole strong model", self.freeze)
        if len(participants.judges(self.judge, self.judge_options)) > 1:
            raise must("judge", "the name of a single judge", self.judge)
        if self.iterations > 1:
            self._check_iterations()

    def _check_iterations(self) -> None:
        """Raise ConfigError unless the options allow several iterations.

        Several iterations need a debate weight above 0, the default explainer of the weak side, and a judge that does not learn
        from an earlier run.
        """
        if not self.debate_weight:
            rule = f"above 0 with --iterations {self.iterations}, because later iterations need a trained policy"
            raise must("debate_weight", rule, self.debate_weight)
        if self.opponent != (weak_side := explainers.without_policy(TRAINED)):
            raise must("opponent", f"{weak_side} with --iterations {self.iterations}", self.opponent)
        if past_verdicts.learns_from(self.judge):
            judges = [name for name in registry.plugins("judges") if not past_verdicts.learns_from(name)]
            rule = f"a judge that reads no earlier run ({', '.join(judges)}) with --iterations {self.iterations}"
            raise must("judge", rule, self.judge)
