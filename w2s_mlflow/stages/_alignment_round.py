"""Train one iteration of alignment (Definition 5, eq. 2), or reuse a finished run.

From the second iteration on, training replaces the judge with a reward model (judges/reward.py), which is fitted on the judge's
verdicts in earlier iterations (stages/align.py). Debates on held-out questions are always decided by the judge itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import config as options
from w2s_mlflow import explainers, streams
from w2s_mlflow.config import selected
from w2s_mlflow.debate import debate_tables, measures, participants, past_verdicts, play, policy_gradient, verdicts
from w2s_mlflow.debate.alignment_options import TRAINED, UNTRAINED, Config
from w2s_mlflow.debate.play import STRONG, WEAK, Debater
from w2s_mlflow.debate.policy_gradient import DebateTerm
from w2s_mlflow.pipeline import finetune, fit_check, runs, scoring
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.pipeline.options import OF_STRONG, OF_STUDENT
from w2s_mlflow.records import Example
from w2s_mlflow.stages import ceiling, student, supervisor

if TYPE_CHECKING:
    from torch import Generator

    from w2s_mlflow.debate.verdicts import Verdicts
    from w2s_mlflow.explainers import DebaterModel
    from w2s_mlflow.judges import Judge
    from w2s_mlflow.judges.reward import Reward
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.records import Side
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 2
POLICY, REWARD = "policy.safetensors", "reward.json"
COMPARED = {"before": "baseline", "after": "aligned"}
"""Prefix of the metrics of debates on held-out questions, by the artifact directory that holds the debates.

The prefix names the model on the strong side.
"""


@dataclass(frozen=True)
class _AlignmentInputs:
    """Input runs of an iteration: those of the weak model and the plain student, and the debate runs of earlier iterations."""

    weak: Result
    before: Result
    debates: Sequence[Result]


def run(config: Config, debates: Sequence[Result] = ()) -> Result:
    """Find or train the aligned model of one iteration, after finding or making the runs that it needs.

    Args:
        debates: the debate runs of the earlier iterations, one per iteration; empty in the first iteration.

    Raises:
        ConfigError: an option is invalid. The error is raised before anything is written.
    """
    config = replace(
        config, judge_options=participants.resolved(config.judge, config.judge_options), iterations=len(debates) + 1
    )
    context = resolve(config)
    with fit_check.required(context):
        others = _AlignmentInputs(weak(config), _before(config), debates)
    config = context.options
    roots = ["stages._alignment_round:_make", "losses.cross_entropy", f"judges.{config.judge}"]
    roots += explainers.roots(config.opponent, UNTRAINED, *([TRAINED] if config.debate_weight else []))
    roots += ["judges.reward"] if debates else []
    inputs = {"weak": others.weak} | {f"debates_{number}": run for number, run in enumerate(debates, start=2)}
    parts = runs.parts("align", VERSION, context, inputs, roots)
    parts = replace(parts, options={**parts.options, "judge_options": _judge_values(config, debates)})
    identity = context.names() | {"method": describe(config)}
    identity |= {"iteration": str(config.iterations)} if debates else {}
    tags = {"w2s.baseline_run_id": others.before.run_id}

    def make(recorder: Recorder) -> Head:
        return _make(context, others, parts.digest(), recorder)

    aligned = runs.produce(parts, context, identity, _note(config, others), make, inputs, tags)
    return aligned if config.eval_split == "none" else _reported(aligned, context, others)


def _judge_values(config: Config, debates: Sequence[Result]) -> dict[str, Any]:
    """Return the judge's options that enter the fingerprint and, from iteration 2 on, those of the reward model."""
    from w2s_mlflow.judges import reward

    values = participants.values(config.judge, config.judge_options)
    return values | ({"reward": options.identity(reward.Options())} if debates else {})


def describe(config: Config) -> str:
    """Return a description of the iteration, such as `lambda 0.1 iteration 2`."""
    return f"lambda {config.debate_weight:g}" + (f" iteration {config.iterations}" if config.iterations > 1 else "")


def _note(config: Config, others: _AlignmentInputs) -> str:
    from w2s_mlflow.tracking import results

    note = (
        f"`{config.spec().name}`, trained on the labels of {results.link(others.weak)} and aligned by debates before the judge "
        f"`{config.judge}` with lambda = {config.debate_weight:g} (Definition 5). {results.link(others.before)} is the same "
        "student trained without debates. The PGR interval of this single run covers test groups only, not seeds."
    )
    learned = ", ".join(results.link(run) for run in others.debates)
    return (
        f"{note} Iteration {config.iterations}: the reward model was fitted on the verdicts of {learned}." if learned else note
    )


def _reported(aligned: Result, context: Context[Config], others: _AlignmentInputs) -> Result:
    """Score the aligned model. Add the plain student's accuracy, `<split>/baseline_accuracy`, to the aligned model's run."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    config, before, references = context.options, others.before, {"weak": others.weak}
    if config.ceiling == "gold":
        references["ceiling"] = ceiling.run(ceiling.Config(**selected(config, OF_STRONG), **config.shared()))
    aligned = scoring.report(aligned, context, references)
    name, accuracy = f"{config.eval_split}/baseline_accuracy", f"{config.eval_split}/accuracy"
    if accuracy not in before.metrics:
        return aligned
    return reports.attach_once(aligned, "baseline", lambda _: Report(metrics={name: before.metrics[accuracy]}))


def weak(config: Config) -> Result:
    """Find or train the supervisor, keeping its model."""
    return supervisor.run(supervisor.Config(weak=config.weak, **config.shared() | {"keep_model": "always"}))


def _before(config: Config) -> Result:
    """Find or train the plain student, the baseline for the aligned model."""
    shared = selected(config, (*OF_STUDENT, "early_stopping")) | config.shared()
    return student.run(student.Config(**shared | {"keep_model": "always", "ceiling": "none"}))


def _make(context: Context[Config], others: _AlignmentInputs, fingerprint: str, recorder: Recorder) -> Head:
    config, split = context.options, context.split
    head, weak_head = finetune.build_head(context), finetune.load_kept_model(others.weak, context.model.parameters)
    learned = _learned(others.debates, recorder)
    labels = runs.weak_labels(others.weak)
    training, validation = (LabelledExamples.joined(part, labels) for part in (split.transfer, split.transfer_validation))
    if config.debate_weight:
        training = replace(training, auxiliary=_debate_term(context, head, training.examples, weak_head, learned))
    watched = validation if config.early_stopping == "weak" else None
    finetune.fit_head(head, context, training, watched, recorder)
    policy: Any = head._modules.pop("policy", None)
    recorder.predictions("validation", finetune.predictions(head, split.transfer_validation, config))
    finetune.record_heldout(head, context, recorder)
    _keep(policy, recorder)
    questions, before = split.test[: config.num_questions], finetune.load_kept_model(others.before)
    models_of = {
        name: participants.debater_model(one, questions, config) for name, one in ((WEAK, weak_head), ("before", before))
    }
    models_of["after"] = participants.debater_model(head, questions, config, policy)
    _compare(context, questions, models_of, learned, fingerprint, recorder)
    return head


def _learned(debates: Sequence[Result], recorder: Recorder) -> Reward | None:
    """Fit a reward model on the judge's verdicts in `debates`, and save it as an artifact. Without debates, return None."""
    from w2s_mlflow.judges import reward

    if not debates:
        return None
    model = reward.fit(*past_verdicts.verdicts_of(debates), reward.Options().l2)
    model.write(recorder.directory / REWARD)
    return model


def _debate_term(
    context: Context[Config], head: Head, questions: Sequence[Example], weak_head: Head, learned: Reward | None
) -> DebateTerm:
    """Return the debate term of the loss, with a new policy. The policy is added to `head`, so checkpoints include it."""
    config = context.options
    policy = policy_gradient.new_policy(head, config.seed)
    head.add_module("policy", policy)
    weak = participants.debater_model(weak_head, questions, config)
    return DebateTerm(
        head=head,
        policy=policy,
        encoded=participants.encoded(head, questions),
        weak=_weak_sides(context, weak),
        judge=learned.judge if learned else _judge(config, weak),
        task=context.task,
        weight=config.debate_weight,
        kl=config.kl,
        size=config.evidence_spans,
        seed=config.seed,
        micro_batch=config.micro_batch,
    )


def _weak_sides(context: Context[Config], weak: DebaterModel) -> list[Side]:
    """Return the weak side's claim and evidence for each question."""
    random = streams.torch_generator(context.options.seed, streams.OPPONENT_EVIDENCE)
    opponent = _debater(context, WEAK, context.options.opponent, weak, random)
    silent = Debater(STRONG, weak.decisions_N, None)
    played = play.play(context.task, weak.encoded.questions, silent, opponent, rounds=1)
    return [debate.second for debate in played.debates]


def _debater(context: Context[Config], name: str, explainer: str, model: DebaterModel, random: Generator) -> Debater:
    config = context.options
    side = explainers.DebateSide(
        debater=model,
        claims=participants.claims(context.task, model),
        random=random,
        seed=config.seed,
        number=(STRONG, WEAK).index(name),
        evidence_spans=config.evidence_spans,
    )
    return participants.debater(name, explainer, side)


def _judge(config: Config, weak: DebaterModel) -> Judge:
    ((name, chosen),) = participants.judges(config.judge, config.judge_options).items()
    return participants.judge(name, chosen, config, weak)


def _keep(policy: Any, recorder: Recorder) -> None:
    from safetensors.torch import save_file

    if policy is not None:
        save_file({name: tensor.cpu() for name, tensor in policy.state_dict().items()}, str(recorder.directory / POLICY))


def _compare(
    context: Context[Config],
    questions: Sequence[Example],
    models_of: Mapping[str, DebaterModel],
    learned: Reward | None,
    fingerprint: str,
    recorder: Recorder,
) -> None:
    """Compare the plain student, which shows random evidence, with the aligned model.

    Each of these two models debates held-out questions with the weak model.

    Args:
        models_of: the models by name: the weak model ("weak"), the plain student ("before") and the aligned model ("after").
        learned: the reward model, whose verdicts are compared with the judge's; None in the first iteration.
        fingerprint: fingerprint of the run, which is part of the names of the files that cache verdicts. If the judge fails
            midway and the run is started again, the cached verdicts are reused.
    """
    from w2s_mlflow import stats

    config, weak_model = context.options, models_of[WEAK]
    answers: dict[str, Verdicts] = {}
    for when in COMPARED:
        # Use the same random numbers for both models, so that the debates differ only because of the model.
        draws = [streams.torch_generator(config.seed, streams.COMPARED_EVIDENCE, side) for side in (0, 1)]
        explainer = UNTRAINED if models_of[when].policy is None else TRAINED
        strong = _debater(context, STRONG, explainer, models_of[when], draws[0])
        weak = _debater(context, WEAK, config.opponent, weak_model, draws[1])
        played = play.play(context.task, questions, strong, weak, rounds=1)
        cache = verdicts.cache_path(f"{fingerprint}-{when}")
        answers[when] = verdicts.ask(config.judge, _judge(config, weak_model), played.debates, cache)
        every = [answers[when], *([verdicts.ask("reward", learned.judge, played.debates, cache)] if learned else [])]
        (recorder.directory / when).mkdir()
        debate_tables.write(recorder.directory / when, played, every)
        values = measures.measures(played, answers[when]) | measures.agreements(every)
        recorder.metrics({f"align/{COMPARED[when]}_{name}": value for name, value in values.items()})
    for when in answers:
        verdicts.cache_path(f"{fingerprint}-{when}").unlink(missing_ok=True)
    gain_N = answers["after"].preference_N() - answers["before"].preference_N()
    known_N = np.isfinite(gain_N)
    if known_N.any():
        gain = stats.group_interval(gain_N[known_N], np.array([question.group for question in questions])[known_N])
        recorder.metrics({"align/gain": gain.mean, "align/gain_low": gain.low, "align/gain_high": gain.high})
