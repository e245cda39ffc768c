"""Train one iteration of alignment (Definition 5, eq. 2), or reuse a finished run.

From the second iteration on (stages/align.py), a reward model (judges/reward.py) fitted on the judge's previous verdicts
replaces the judge in training. On held-out questions the judge itself decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import config as options
from w2s_mlflow import streams, tasks
from w2s_mlflow.data import loading
from w2s_mlflow.data.splits import Split
from w2s_mlflow.debate import debate_tables, measures, participants, past_verdicts, play, verdicts
from w2s_mlflow.debate.alignment_options import Config
from w2s_mlflow.debate.play import STRONG, WEAK, Debater
from w2s_mlflow.debate.policy_gradient import Arguing
from w2s_mlflow.pipeline import finetune, runs, scoring
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.pipeline.options import OF_STUDENT, model_name
from w2s_mlflow.records import Example
from w2s_mlflow.stages import ceiling, student, supervisor

if TYPE_CHECKING:
    from torch import Generator

    from w2s_mlflow.debate.verdicts import Verdicts
    from w2s_mlflow.explainers.extractive import DebaterModel, Policy
    from w2s_mlflow.judges import Judge
    from w2s_mlflow.judges.reward import Reward
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.records import Side
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 2
POLICY, REWARD = "policy.safetensors", "reward.json"
COMPARED = {"before": "baseline", "after": "aligned"}
"""Models in the metrics of the debates on held-out questions, by the directory of the debates."""


@dataclass(frozen=True)
class _AlignmentInputs:
    """Input runs of an iteration: the weak model, the plain student, and the judged debates of earlier iterations."""

    weak: Result
    before: Result
    debates: Sequence[Result]


def run(config: Config, debates: Sequence[Result] = ()) -> Result:
    """Find or train the aligned model of one iteration, with its inputs.

    Args:
        debates: the debate runs of earlier iterations, one per iteration; empty in the first iteration.

    Raises:
        ConfigError: before anything is written.
    """
    config = replace(
        config, judge_options=participants.resolved(config.judge, config.judge_options), iterations=len(debates) + 1
    )
    others = _AlignmentInputs(weak(config), _before(config), debates)
    config, cut = loading.resolve_and_split(config.resolved())
    roots = ["stages._alignment_round:_make", "losses.cross_entropy", "explainers.extractive", f"judges.{config.judge}"]
    roots += ["judges.reward"] if debates else []
    inputs = {"weak": others.weak} | {f"debates_{number}": held for number, held in enumerate(debates, start=2)}
    parts = runs.parts("align", VERSION, config, cut, inputs, roots)
    parts = replace(parts, options={**parts.options, "judge_options": _judge_values(config, debates)})
    identity = {"weak": model_name(config.weak, "weak"), "strong": config.spec().name, "method": describe(config)}
    identity |= {"iteration": str(config.iterations)} if debates else {}
    tags = {"w2s.baseline_run_id": others.before.run_id}

    def make(recorder: Recorder) -> Head:
        return _make(config, cut, others, parts.digest(), recorder)

    found = runs.produce(parts, config, cut, identity, _note(config, others), make, inputs, tags)
    return found if config.eval_split == "none" else _reported(found, config, cut, others)


def _judge_values(config: Config, debates: Sequence[Result]) -> dict[str, Any]:
    """Return the fingerprinted options of the judge and, from the second iteration on, of the reward model."""
    from w2s_mlflow.judges import reward

    found = participants.values(config.judge, config.judge_options)
    return found | ({"reward": options.identity(reward.Options())} if debates else {})


def describe(config: Config) -> str:
    """Return a label of the iteration, such as `lambda 0.1 iteration 2`."""
    return f"lambda {config.debate_weight:g}" + (f" iteration {config.iterations}" if config.iterations > 1 else "")


def _note(config: Config, others: _AlignmentInputs) -> str:
    from w2s_mlflow.tracking import results

    found = (
        f"`{config.spec().name}` aligned with {results.link(others.weak)} by debates before the judge `{config.judge}`, lambda "
        f"= {config.debate_weight:g} (Definition 5); before it is {results.link(others.before)}. The PGR interval here is over "
        "test groups only."
    )
    learned = ", ".join(results.link(held) for held in others.debates)
    return (
        f"{found} Iteration {config.iterations}: it is rewarded by a model that learned the verdicts of {learned}."
        if learned
        else found
    )


def _reported(found: Result, config: Config, cut: Split, others: _AlignmentInputs) -> Result:
    """Score the run and attach the plain student's accuracy as `<split>/baseline_accuracy`."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    before, beside = others.before, {"weak": others.weak}
    if config.ceiling == "gold":
        beside["ceiling"] = ceiling.run(ceiling.Config(strong=config.strong, pooling=config.pooling, **config.shared()))
    found = scoring.report(found, config, cut, beside)
    name, own = f"{config.eval_split}/baseline_accuracy", f"{config.eval_split}/accuracy"
    if own not in before.metrics:
        return found
    return reports.attach_once(found, "baseline", lambda found: Report(metrics={name: before.metrics[own]}))


def weak(config: Config) -> Result:
    """Find or train the supervisor, with its model kept."""
    return supervisor.run(supervisor.Config(weak=config.weak, **config.shared() | {"keep_model": "always"}))


def _before(config: Config) -> Result:
    """Find or train the plain student, the baseline for the aligned model."""
    own = {name: getattr(config, name) for name in (*OF_STUDENT, "early_stopping")}
    kept = {"keep_model": "always", "ceiling": "none"}
    return student.run(student.Config(**own, **config.shared() | kept))


def _make(config: Config, cut: Split, others: _AlignmentInputs, fingerprint: str, recorder: Recorder) -> Head:
    head, weak_head = finetune.build_head(config), finetune.load_kept_model(others.weak, config.spec().parameters)
    learned = _learned(others.debates, recorder)
    labels = runs.weak_labels(others.weak)
    training, validation = (LabelledExamples.joined(part, labels) for part in (cut.transfer, cut.transfer_validation))
    if config.debate_weight:
        training = replace(training, also=_arguing(config, head, training.examples, weak_head, learned))
    watched = validation if config.early_stopping == "weak" else None
    finetune.fit_head(head, config, training, watched, recorder)
    policy: Any = head._modules.pop("policy", None)
    recorder.predictions("validation", finetune.predictions(head, cut.transfer_validation, config))
    finetune.record_heldout(head, config, cut, recorder)
    _keep(policy, recorder)
    asked, before = cut.test[: config.num_questions], finetune.load_kept_model(others.before)
    minds = {WEAK: participants.mind(weak_head, asked, config), "before": participants.mind(before, asked, config)}
    minds["after"] = participants.mind(head, asked, config, policy)
    _compare(config, asked, minds, learned, fingerprint, recorder)
    return head


def _learned(debates: Sequence[Result], recorder: Recorder) -> Reward | None:
    """Fit the reward model on the judge's verdicts in `debates` and save it as an artifact; None in the first iteration."""
    from w2s_mlflow.judges import reward

    if not debates:
        return None
    found = reward.fit(*past_verdicts.verdicts_of(debates), reward.Options().l2)
    found.write(recorder.directory / REWARD)
    return found


def _arguing(config: Config, head: Head, asked: Sequence[Example], weak_head: Head, learned: Reward | None) -> Arguing:
    """Set up debates on the training questions, and add the policy to the head's modules, to train and checkpoint both."""
    from w2s_mlflow.explainers import extractive

    policy = extractive.Policy(head.model.config.hidden_size, config.seed).to(next(head.parameters()).device)
    head.add_module("policy", policy)
    weak = participants.mind(weak_head, asked, config)
    return Arguing(
        head=head,
        policy=policy,
        reading=extractive.read(head, asked),
        weak=_weak_sides(config, weak),
        judge=learned.judge if learned else _judge(config, weak),
        task=tasks.find(config.task),
        weight=config.debate_weight,
        kl=config.kl,
        size=config.evidence_spans,
        seed=config.seed,
        micro_batch=config.micro_batch,
    )


def _weak_sides(config: Config, weak: DebaterModel) -> list[Side]:
    """Return the weak side's claim and evidence for each question."""
    random = streams.torch_generator(config.seed, streams.OPPONENT_EVIDENCE)
    own = _debater(config, WEAK, config.opponent, weak, random)
    quiet = Debater(STRONG, weak.decisions_N, None)
    played = play.play(tasks.find(config.task), weak.reading.questions, quiet, own, rounds=1)
    return [debate.second for debate in played.debates]


def _debater(config: Config, name: str, chooser: str, mind: DebaterModel, random: Generator) -> Debater:
    from w2s_mlflow.explainers import extractive

    return Debater(name, mind.decisions_N, extractive.explainer(chooser, mind, config.evidence_spans, random))


def _judge(config: Config, weak: DebaterModel) -> Judge:
    ((name, chosen),) = participants.judges(config.judge, config.judge_options).items()
    return participants.judge(name, chosen, config, weak)


def policy_of(found: Result, head: Head) -> Policy | None:
    """Load the policy of an aligned model onto the head's device; None if lambda = 0, which trains no policy."""
    from safetensors.torch import load_file

    from w2s_mlflow.explainers import extractive

    if POLICY not in found.digests:
        return None
    policy = extractive.Policy(head.model.config.hidden_size, seed=0)
    policy.load_state_dict(load_file(found.artifact(POLICY)))
    return policy.to(next(head.parameters()).device)


def _keep(policy: Any, recorder: Recorder) -> None:
    from safetensors.torch import save_file

    if policy is not None:
        save_file({name: tensor.cpu() for name, tensor in policy.state_dict().items()}, str(recorder.directory / POLICY))


def _compare(
    config: Config,
    asked: Sequence[Example],
    minds: Mapping[str, DebaterModel],
    learned: Reward | None,
    fingerprint: str,
    recorder: Recorder,
) -> None:
    """Run the debates on held-out questions, with the plain student (random evidence) and with the aligned model.

    Args:
        minds: the weak model, the plain student ("before") and the aligned model ("after"), with their decisions on `asked`.
        learned: the reward model, from the second iteration on; its verdicts are compared with the judge's.
        fingerprint: fingerprint of the run, which names the files that keep the verdicts if the judge fails midway.
    """
    from w2s_mlflow import stats

    other = minds[WEAK]
    said: dict[str, Verdicts] = {}
    for when in COMPARED:
        # Use the same random numbers before and after, so that only the model differs.
        draws = [streams.torch_generator(config.seed, streams.COMPARED_EVIDENCE, side) for side in (0, 1)]
        strong = _debater(config, STRONG, "random" if minds[when].policy is None else "policy", minds[when], draws[0])
        weak = _debater(config, WEAK, config.opponent, other, draws[1])
        played = play.play(tasks.find(config.task), asked, strong, weak, rounds=1)
        place = verdicts.cache_path(f"{fingerprint}-{when}")
        said[when] = verdicts.ask(config.judge, _judge(config, other), played.debates, place)
        every = [said[when], *([verdicts.ask("reward", learned.judge, played.debates, place)] if learned else [])]
        (recorder.directory / when).mkdir()
        debate_tables.write(recorder.directory / when, played, every)
        values = measures.measures(played, said[when]) | measures.agreements(every)
        recorder.metrics({f"align/{COMPARED[when]}_{name}": value for name, value in values.items()})
    for when in said:
        verdicts.cache_path(f"{fingerprint}-{when}").unlink(missing_ok=True)
    grown_N = said["after"].preference_N() - said["before"].preference_N()
    known_N = np.isfinite(grown_N)
    if known_N.any():
        gain = stats.group_interval(grown_N[known_N], np.array([question.group for question in asked])[known_N])
        recorder.metrics({"align/gain": gain.mean, "align/gain_low": gain.low, "align/gain_high": gain.high})
