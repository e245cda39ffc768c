"""Algorithm 1, steps 1 to 4: student and supervisor debate unlabelled questions before a judge (Definition 4).

Each side decides and explains its decision, by default with spans of the question (`--explainer`). The judge sees both claims
with their evidence, in both orders. Both models are trained, or reused from finished runs, and their weights are kept.

Metrics, each `debate/<name>`: `win_rate` of the strong side with its interval over groups; `win_rate_on_disagreements`, the
same where the sides disagree; `preference`, the mean D; `disagreements`, the share of questions on which the sides disagree;
`position_bias`, the judge's mean log-odds for the side shown first; `position_decides_rate`, the share of debates whose winner
depends on the order; `no_verdict`, the number of debates without a verdict; `cost` in tokens; `strong_words` and `weak_words`
of evidence; `agreement/<judge>/<judge>`. If `--eval-split` is the debated split, there are also metrics against ground truth:
over the debates with exactly one side right, `judge_accuracy`, `judge_brier`, `judge_ece`, `always_strong_accuracy` (the
accuracy of a judge that always chooses the strong side) and `decided` (the number of these debates); over all debates,
`strong_accuracy`, `weak_accuracy` and `label_accuracy`.
Artifacts: `debates.parquet`, `verdicts.parquet`, and `labels/weak_labels.parquet`, the labels derived from the verdicts.
One MLflow trace per debate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from w2s_mlflow import models, streams, tasks
from w2s_mlflow.config import checked_dataclass, option
from w2s_mlflow.data import gold as data_gold
from w2s_mlflow.data import loading
from w2s_mlflow.data.splits import Split
from w2s_mlflow.debate import alignment_options, debate_tables, measures, participants, play, transcripts, verdicts
from w2s_mlflow.debate.play import STRONG, WEAK, Debater
from w2s_mlflow.exceptions import must, unknown
from w2s_mlflow.methods import presets
from w2s_mlflow.pipeline import finetune, runs
from w2s_mlflow.pipeline.options import OF_STUDENT, Training, model_name
from w2s_mlflow.records import Example
from w2s_mlflow.stages import _alignment_round, student, supervisor

if TYPE_CHECKING:
    from torch import Generator

    from w2s_mlflow.explainers import Explainer
    from w2s_mlflow.explainers.extractive import DebaterModel
    from w2s_mlflow.explainers.generative import RationaleGenerator
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 2
CHOOSERS = ("gradient", "policy", "random")
SAID = {"rationale": 40, "principal_variation": 4}
"""Explainers that generate text, each with its default maximum number of tokens."""


@checked_dataclass
class Config(Training):
    """Options of a debate: its sides, questions, protocol and judges."""

    weak: str = option(default="chess-60k", lookup=models.find)
    """Weak side: the supervisor trained from this model."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """Strong side: the student trained from this model on the weak side's labels."""
    method: str = option(default="baseline", former_values=presets.FORMER_METHODS)
    """Method of the student: a preset of `student --method`, except debate, consultancy and no_explanation."""
    split: Literal["test", "selection", "transfer"] = "test"
    """Split to debate: `test`, `selection`, or `transfer` (with its validation slice)."""
    num_questions: int | None = option(default=200, ge=1, unset="all", formerly="questions")
    """Number of questions to debate, from the start of the split. `all`: the whole split."""
    protocol: Literal["debate", "consultancy", "no_explanation"] = option(default="debate", formerly="form")
    """Which sides show evidence. `debate`: both; `consultancy`: the strong side only, and both claims are judged on its
    evidence; `no_explanation`: neither."""
    explainer: str = option(default="gradient", former_values={"line": "principal_variation"})
    """How a side explains its decision. By spans of the question: `gradient`, those with the highest attribution to the
    decision; `random`; `policy`, for the strong side those selected by the policy that `align` trains with these options, for
    the weak side the same as `gradient`. By text that a causal language model generates: `rationale`; `principal_variation`,
    in chess the moves that the side expects."""
    evidence_spans: int = option(default=3, ge=1, formerly="pieces")
    """Spans of evidence per side and round."""
    max_new_tokens: int | None = option(default=None, ge=1, formerly="tokens")
    """Maximum number of tokens of a generated text, per side and round. Default: 40 for `rationale`, 4 for
    `principal_variation`."""
    turns: int = option(default=1, ge=1, formerly="rounds")
    """Number of rounds; in each, both sides speak. No span is shown twice, a rationale answers the other side's last rationale,
    and the judge sees everything that the sides have shown."""
    judge: str = "model"
    """Judge, a file of judges/. Several are separated by commas; the verdicts of the first determine the labels."""
    judge_options: str = ""
    """Options of the judges: NAME=VALUE, separated by commas."""
    traces: int | None = option(default=None, ge=0, unset="all", result=False)
    """Number of debates logged as MLflow traces, starting with the first. `all`: every debate; 0: none."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (preset := presets.preset_of(self.method)) is None or preset.get("labels") in presets.DEBATES:
            legal = [name for name in presets.METHODS if name not in presets.DEBATES]
            raise unknown("--method", self.method, legal)
        if self.explainer not in (*CHOOSERS, *SAID):
            raise unknown("--explainer", self.explainer, (*CHOOSERS, *SAID))
        if self.explainer == "policy" and self.method != "baseline":
            raise must("method", "baseline under --explainer policy", self.method)
        participants.judges(self.judge, self.judge_options)


def run(config: Config) -> Result:
    """Find or run the debates, with the two models they need. Raises ConfigError before anything is written."""
    config = replace(config, judge_options=participants.resolved(config.judge, config.judge_options))
    return held(config, *sides(config))


def held(config: Config, weak: Result, strong: Result, student_method: str = "") -> Result:
    """Find or run the debates between the models of two finished runs, whose weights are kept.

    Args:
        config: the options, with the judges' options resolved.
        student_method: method of the student that debates, logged as a parameter if it is not empty.
    """
    config, cut = loading.resolve_and_split(config.resolved())
    inputs = {"weak": weak, "student": strong}
    judge_options = participants.values(config.judge, config.judge_options)
    roots = ["stages.debate:_make", "explainers.extractive", *(f"judges.{name}" for name in judge_options)]
    roots += ["explainers.generative"] if config.explainer in SAID else []
    parts = runs.parts("debate", VERSION, config, cut, inputs, roots)
    parts = replace(parts, options={**parts.options, "judge_options": judge_options})
    identity = {"weak": model_name(config.weak, "weak"), "strong": config.spec().name, "method": config.protocol}
    identity |= {"student_method": student_method} if student_method else {}

    def make(recorder: Recorder) -> None:
        _make(config, cut, weak, strong, parts.digest(), recorder)

    plain = replace(config, keep_model="never")  # a debate run has no model of its own; its inputs keep theirs
    found = runs.produce(parts, plain, cut, identity, _note(config, inputs), make, inputs)
    found = _scored(found, config, questions(config, cut))
    return transcripts.traced(found, config.traces)


def sides(config: Config) -> tuple[Result, Result]:
    """Find or train the two sides, supervisor and student, with their weights kept."""
    kept: dict[str, Any] = {**config.shared(), "eval_split": "none", "keep_model": "always", "ceiling": "none"}
    own = {name: getattr(config, name) for name in OF_STUDENT}
    weak = supervisor.run(
        supervisor.Config(weak=config.weak, **config.shared() | {"eval_split": "none", "keep_model": "always"})
    )
    if config.explainer == "policy":
        return weak, _alignment_round.run(alignment_options.Config(evidence_spans=config.evidence_spans, **own, **kept))
    return weak, student.run(student.Config(method=config.method, **own, **kept))


def questions(config: Config, cut: Split) -> tuple[Example, ...]:
    """Return the questions to debate, without labels."""
    found = cut.transfer + cut.transfer_validation if config.split == "transfer" else cut.parts()[config.split]
    return found[: config.num_questions]


def _make(config: Config, cut: Split, weak: Result, strong: Result, fingerprint: str, recorder: Recorder) -> None:
    asked = questions(config, cut)
    heads = {
        side: finetune.load_kept_model(found, config.spec().parameters) for side, found in ((WEAK, weak), (STRONG, strong))
    }
    policy = _alignment_round.policy_of(strong, heads[STRONG]) if config.explainer == "policy" else None
    minds = {
        WEAK: participants.mind(heads[WEAK], asked, config),
        STRONG: participants.mind(heads[STRONG], asked, config, policy),
    }
    played = play.play(tasks.find(config.task), asked, *debaters(config, minds), config.turns)
    kept, chosen = verdicts.cache_path(fingerprint), participants.judges(config.judge, config.judge_options)
    judge = {name: participants.judge(name, own, config, minds[WEAK]) for name, own in chosen.items()}
    said = [verdicts.ask(name, judge[name], played.debates, kept) for name in judge]
    debate_tables.write(recorder.directory, played, said)
    own = weak.weak_labels() if config.split == "transfer" else weak.predictions(config.split)
    ids = [question.id for question in asked]
    labelled = replace(own, ids=tuple(ids), groups=tuple(question.group for question in asked), probabilities_NC=own.of(ids))
    recorder.weak_labels(play.labels(labelled, played.debates, said[0].preference_N()))
    values = measures.measures(played, said[0]) | measures.agreements(said)
    recorder.metrics({f"debate/{name}": value for name, value in values.items()})
    kept.unlink(missing_ok=True)


def debaters(config: Config, minds: Mapping[str, DebaterModel]) -> tuple[Debater, Debater]:
    """Return both sides, the strong one first; each has its own random stream."""
    speak = {STRONG: config.protocol != "no_explanation", WEAK: config.protocol == "debate"}

    def debater(number: int, side: str) -> Debater:
        decisions_N = minds[side].decisions_N
        if not speak[side]:
            return Debater(side, decisions_N, None)
        if config.explainer in SAID:
            speaker = _speaker(config, minds[side], number)
            return Debater(side, decisions_N, speaker, speaker.hear)
        random = streams.torch_generator(config.seed, streams.DEBATE_EVIDENCE, number)
        return Debater(side, decisions_N, _chooser(config, side, minds[side], random))

    return debater(0, STRONG), debater(1, WEAK)


def _speaker(config: Config, mind: DebaterModel, side: int) -> RationaleGenerator:
    from w2s_mlflow.explainers import generative

    task, asked = tasks.find(config.task), mind.reading.questions
    claims = [play.claim(task, *one) for one in zip(asked, mind.decisions_N.tolist(), strict=True)]
    tokens = config.max_new_tokens or SAID[config.explainer]
    return generative.explainer(config.explainer, mind, tokens, claims, config.seed, side)


def _chooser(config: Config, side: str, mind: DebaterModel, random: Generator) -> Explainer:
    from w2s_mlflow.explainers import extractive

    chooser = "gradient" if side == WEAK and config.explainer == "policy" else config.explainer
    return extractive.explainer(chooser, mind, config.evidence_spans, random)


def _scored(found: Result, config: Config, asked: Sequence[Example]) -> Result:
    """Score the judge against ground truth (once) and store the gold labels with the debates."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    part, gold = config.eval_split, data_gold.gold_of(config)
    if part != config.split or not gold.known(asked):
        return found

    def report(found: Result) -> Report:
        from w2s_mlflow.records import write_gold

        gold_N = data_gold.read(gold, asked, part, "debate")
        debates, verdicts = transcripts.read(found)
        values = measures.against_gold(debates, transcripts.preference_N(debates, verdicts), gold_N)
        metrics = {f"debate/{name}": value for name, value in values.items() if np.isfinite(value)}
        ids = [question.id for question in asked]
        return Report(
            lambda directory: write_gold(directory / "gold" / f"{part}.parquet", ids, gold_N), metrics | data_gold.reads(gold)
        )

    return reports.attach_once(found, part, report)


def _note(config: Config, inputs: Mapping[str, Result]) -> str:
    from w2s_mlflow.tracking import results

    strong, weak = (results.link(inputs[role]) for role in ("student", "weak"))
    how = {
        "debate": "both show evidence",
        "consultancy": "the strong side alone shows evidence",
        "no_explanation": "neither shows evidence",
    }
    return (
        f"{strong} against {weak} on `{config.split}`, {how[config.protocol]}, before the judge `{config.judge}` (Algorithm 1)."
    )
