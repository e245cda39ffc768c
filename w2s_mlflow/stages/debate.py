"""Let student and supervisor debate unlabelled questions before a judge (Algorithm 1, steps 1 to 4; Definition 4).

Each side decides on an answer and explains it, by default with spans of the question (`--explainer`). The judge sees the claims
and the evidence of both sides twice, once in each order. The two models are trained first, or reused from finished runs that
kept their weights.

Metrics, each named `debate/<name>`: `questions`, the number of debates; `win_rate`, the share of debates that the strong side
wins, with its interval over groups; `win_rate_on_disagreements`, the same for the debates in which the sides disagree;
`preference`, the mean of D, the judge's log-odds for the strong side; `disagreements`, the share of questions on which the
sides disagree; `position_bias`, the judge's mean log-odds for the side shown first; `position_decides_rate`, the share of
debates whose winner depends on the order; `no_verdict`, the number of debates without a verdict; `cost`, the number of tokens
that the judge used; `strong_words` and `weak_words`, the mean number of words in a side's evidence;
`agreement/<judge>/<judge>`, the share of debates in which two judges choose the same winner.

If `--eval-split` is the debated split, there are also metrics against ground truth. Over the debates in which exactly one side
is right: `judge_accuracy`, `judge_brier`, `judge_ece`, `always_strong_accuracy` (the accuracy of a judge that always chooses
the strong side) and `decided` (the number of these debates). Over all debates: `strong_accuracy`, `weak_accuracy` and
`label_accuracy`.

Artifacts: `debates.parquet`, `verdicts.parquet`, and `labels/weak_labels.parquet`, the labels derived from the verdicts. The
first `--traces` debates (by default, all) are also logged as MLflow traces.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from w2s_mlflow import explainers, models, streams
from w2s_mlflow.config import checked_dataclass, option, selected
from w2s_mlflow.data import gold as data_gold
from w2s_mlflow.debate import alignment_options, debate_tables, measures, participants, play, transcripts, verdicts
from w2s_mlflow.debate.play import STRONG, WEAK, Debater
from w2s_mlflow.exceptions import must, unknown
from w2s_mlflow.methods import labels as label_sources
from w2s_mlflow.methods import presets
from w2s_mlflow.pipeline import finetune, fit_check, runs
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.options import OF_STUDENT, Training
from w2s_mlflow.records import Example
from w2s_mlflow.stages import _alignment_round, student, supervisor

if TYPE_CHECKING:
    from w2s_mlflow.explainers import DebaterModel
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
VERSION = 2


@checked_dataclass
class Config(Training):
    """Options of a debate: its sides, questions, protocol and judges."""

    weak: str = option(default="chess-60k", lookup=models.find)
    """Model from which the supervisor, the weak side of the debate, is trained."""
    strong: str = option(default="chess-426k", lookup=models.find)
    """Model from which the student, the strong side of the debate, is trained on the supervisor's labels."""
    method: str = option(default="baseline", former_values=presets.FORMER_METHODS)
    """Method of training the student: a preset of `student --method` except debate, consultancy and no_explanation."""
    split: Literal["test", "selection", "transfer"] = "test"
    """Split whose questions are debated: `test`, `selection`, or `transfer` (including its validation slice)."""
    num_questions: int | None = option(default=200, ge=1, unset="all", formerly="questions")
    """Number of questions to debate, from the start of the split. `all`: debate the whole split."""
    protocol: Literal["debate", "consultancy", "no_explanation"] = option(default="debate", formerly="form")
    """Which sides show evidence. `debate`: both; `consultancy`: the strong side only, and both claims are judged on its
    evidence; `no_explanation`: neither."""
    explainer: str = option(
        default="gradient",
        lookup=explainers.find,
        plugins=explainers.FOLDER,
        former_values={"line": "principal_variation"},
    )
    """How a side explains its decision: the name of a file in explainers/."""
    evidence_spans: int = option(default=3, ge=1, formerly="pieces")
    """Number of evidence spans that each side shows per round, for explainers that show spans of the question."""
    max_new_tokens: int | None = option(default=None, ge=1, formerly="tokens")
    """Maximum number of generated tokens per side and round, for explainers that generate text. Default: set by the
    explainer."""
    turns: int = option(default=1, ge=1, formerly="rounds")
    """Number of rounds. Both sides speak in each round. No span is shown twice, and from round 2 on a generated rationale can
    answer the other side's previous rationale. The judge sees the evidence of all rounds."""
    judge: str = option(default="model", plugins="judges")
    """Judge: the name of a file in judges/, or several names separated by commas. The labels are derived from the verdicts of
    the first judge."""
    judge_options: str = ""
    """Options of the judges, as comma-separated NAME=VALUE pairs."""
    traces: int | None = option(default=None, ge=0, unset="all", result=False)
    """Number of debates to log as MLflow traces, starting with the first. `all`: every debate; 0: none."""

    MODEL: ClassVar[str] = "strong"

    def __post_init__(self) -> None:
        super().__post_init__()
        debated = label_sources.names(label_sources.DEBATE)
        if (preset := presets.preset_of(self.method)) is None or preset.get("labels") in debated:
            legal = [name for name, preset in presets.METHODS.items() if preset.get("labels") not in debated]
            raise unknown("--method", self.method, legal)
        self._check_explainer()
        participants.judges(self.judge, self.judge_options)

    def _check_explainer(self) -> None:
        """Raise ConfigError if the explainer does not apply to the task, or if an option that it does not read is set."""
        name, task = self.explainer, self.find_task()
        if not explainers.applies_to(name, task.family, task.head):
            legal = [other for other in explainers.every() if explainers.applies_to(other, task.family, task.head)]
            raise unknown(f"--explainer for the task {task.name}", name, legal)
        if explainers.needs_policy(name) and self.method != "baseline":
            raise must("method", f"baseline with --explainer {name}", self.method)
        for option_name in explainers.unread_options(name):
            if (value := vars(self)[option_name]) != type(self).__dataclass_fields__[option_name].default:
                raise must(option_name, f"left out with --explainer {name}, which does not read it", value)


def run(config: Config) -> Result:
    """Find or run the debates, after finding or training both models.

    Raises ConfigError for invalid options, before anything is written.
    """
    config = replace(config, judge_options=participants.resolved(config.judge, config.judge_options))
    return between(config, *sides(config))


def between(config: Config, weak: Result, strong: Result, student_method: str = "") -> Result:
    """Find or run the debates between the models of two finished runs that kept their weights.

    Args:
        config: the options. The judges' options must already refer to runs by their full ids (`participants.resolved`).
        student_method: description of the student's method, logged as a parameter unless it is empty.
    """
    context = resolve(config)
    config, inputs = context.options, {"weak": weak, "student": strong}
    judge_options = participants.values(config.judge, config.judge_options)
    roots = ["stages.debate:_make", *explainers.roots(config.explainer), *(f"judges.{name}" for name in judge_options)]
    parts = runs.parts("debate", VERSION, context, inputs, roots)
    parts = replace(parts, options={**parts.options, "judge_options": judge_options})
    identity = context.names() | {"method": config.protocol}
    identity |= {"student_method": student_method} if student_method else {}

    def make(recorder: Recorder) -> None:
        _make(context, weak, strong, parts.digest(), recorder)

    # A debate run trains no model. The models of the two sides are kept in their own runs.
    without_model = replace(context, options=replace(config, keep_model="never"))
    debates = runs.produce(parts, without_model, identity, _note(config, inputs), make, inputs)
    _warn_without_verdict(debates, config.judge)
    debates = _scored(debates, config, questions(context))
    return transcripts.traced(debates, config.traces)


def _warn_without_verdict(debates: Result, judge: str) -> None:
    """Warn if the judge gave no verdict, or none in more than a tenth of the debates. The same holds for a reused run."""
    missing, count = (int(debates.metrics.get(f"debate/{name}", 0)) for name in ("no_verdict", "questions"))
    if count and missing == count:
        message = "the judge %s gave no verdict in any of the %d debates, so there is no win rate; its answers are in %s"
        LOG.warning(message, judge, count, debate_tables.VERDICTS)
    elif missing > count / 10:
        LOG.warning("the judge %s gave no verdict in %d of %d debates", judge, missing, count)


def sides(config: Config) -> tuple[Result, Result]:
    """Find or train the supervisor (weak side) and the student (strong side), keeping their weights, and return their runs."""
    shared: dict[str, Any] = {**config.shared(), "eval_split": "none", "keep_model": "always", "ceiling": "none"}
    options = selected(config, OF_STUDENT)
    with fit_check.required(resolve(config)):
        weak = supervisor.run(
            supervisor.Config(weak=config.weak, **config.shared() | {"eval_split": "none", "keep_model": "always"})
        )
    if explainers.needs_policy(config.explainer):
        return weak, _alignment_round.run(alignment_options.Config(evidence_spans=config.evidence_spans, **options, **shared))
    return weak, student.run(student.Config(method=config.method, **options, **shared))


def questions(context: Context[Config]) -> tuple[Example, ...]:
    """Return the questions to debate, without labels."""
    config, split = context.options, context.split
    part = split.transfer + split.transfer_validation if config.split == "transfer" else split.parts()[config.split]
    return part[: config.num_questions]


def _make(context: Context[Config], weak: Result, strong: Result, fingerprint: str, recorder: Recorder) -> None:
    config, to_debate = context.options, questions(context)
    heads = {side: finetune.load_kept_model(run, context.model.parameters) for side, run in ((WEAK, weak), (STRONG, strong))}
    policy = None
    if explainers.needs_policy(config.explainer):
        path = strong.artifact(_alignment_round.POLICY)
        policy = explainers.find(config.explainer, "explainer").load_policy(path, heads[STRONG])
    models_of = {
        WEAK: participants.debater_model(heads[WEAK], to_debate, config),
        STRONG: participants.debater_model(heads[STRONG], to_debate, config, policy),
    }
    played = play.play(context.task, to_debate, *debaters(context, models_of), config.turns)
    cache, judge_options = verdicts.cache_path(fingerprint), participants.judges(config.judge, config.judge_options)
    judges = {name: participants.judge(name, chosen, config, models_of[WEAK]) for name, chosen in judge_options.items()}
    answers = [verdicts.ask(name, judge, played.debates, cache) for name, judge in judges.items()]
    debate_tables.write(recorder.directory, played, answers)
    labels = weak.weak_labels() if config.split == "transfer" else weak.predictions(config.split)
    ids = [question.id for question in to_debate]
    groups = tuple(question.group for question in to_debate)
    labels = replace(labels, ids=tuple(ids), groups=groups, probabilities_NC=labels.of(ids))
    recorder.weak_labels(play.labels(labels, played.debates, answers[0].preference_N()))
    values = measures.measures(played, answers[0]) | measures.agreements(answers)
    recorder.metrics({f"debate/{name}": value for name, value in values.items()})
    cache.unlink(missing_ok=True)


def debaters(context: Context[Config], models_of: Mapping[str, DebaterModel]) -> tuple[Debater, Debater]:
    """Return both sides, the strong side first. Each side has its own random stream."""
    config = context.options
    shows_evidence = {STRONG: config.protocol != "no_explanation", WEAK: config.protocol == "debate"}

    def debater(number: int, name: str) -> Debater:
        """Return one side. `number` keys its random stream."""
        model = models_of[name]
        if not shows_evidence[name]:
            return Debater(name, model.decisions_N, None)
        explainer = config.explainer if name == STRONG else explainers.without_policy(config.explainer)
        side = explainers.DebateSide(
            debater=model,
            claims=participants.claims(context.task, model),
            random=streams.torch_generator(config.seed, streams.DEBATE_EVIDENCE, number),
            seed=config.seed,
            number=number,
            evidence_spans=config.evidence_spans,
            max_new_tokens=config.max_new_tokens,
        )
        return participants.debater(name, explainer, side)

    return debater(0, STRONG), debater(1, WEAK)


def _scored(debates: Result, config: Config, questions: Sequence[Example]) -> Result:
    """If --eval-split is the debated split, score the debates against ground truth and add the gold labels to the run."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    part, gold = config.eval_split, data_gold.gold_of(config)
    if part != config.split or not gold.known(questions):
        return debates

    def report(run: Result) -> Report:
        from w2s_mlflow.records import write_gold

        gold_N = data_gold.read(gold, questions, part, "debate")
        table, verdicts = transcripts.read(run)
        values = measures.against_gold(table, transcripts.preference_N(table, verdicts), gold_N)
        metrics = {f"debate/{name}": value for name, value in values.items() if np.isfinite(value)}
        ids = [question.id for question in questions]
        return Report(
            lambda directory: write_gold(directory / "gold" / f"{part}.parquet", ids, gold_N), metrics | data_gold.reads(gold)
        )

    return reports.attach_once(debates, part, report)


def _note(config: Config, inputs: Mapping[str, Result]) -> str:
    from w2s_mlflow.tracking import results

    strong, weak = (results.link(inputs[role]) for role in ("student", "weak"))
    shows = {
        "debate": "both show evidence",
        "consultancy": "the strong side alone shows evidence",
        "no_explanation": "neither shows evidence",
    }
    sides = f"{strong} against {weak} on `{config.split}`, {shows[config.protocol]}"
    return f"{sides}, before the judge `{config.judge}` (Algorithm 1)."
