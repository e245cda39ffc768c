"""Build the participants of a debate: the models of both sides, and the judges with their options."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import config as options
from w2s_mlflow import explainers, registry
from w2s_mlflow.debate import past_verdicts, play
from w2s_mlflow.debate.play import Debater
from w2s_mlflow.exceptions import must, unknown
from w2s_mlflow.explainers import DebaterModel, DebateSide, Explainer
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.pipeline.options import Training
from w2s_mlflow.records import Example, Floats
from w2s_mlflow.tasks import Task

if TYPE_CHECKING:
    from w2s_mlflow.explainers._policy import Policy
    from w2s_mlflow.explainers._token_spans import EncodedQuestions
    from w2s_mlflow.judges import Judge
    from w2s_mlflow.modeling.heads import Head


def judges(names: str, given: str) -> dict[str, Any]:
    """Return the options of each judge, by judge name.

    Args:
        names: comma-separated names of files in judges/.
        given: comma-separated NAME=VALUE pairs. Each applies to every judge that has an option NAME.

    Raises:
        ConfigError: a judge does not exist or is named twice, or `given` has an option that no judge has.
    """
    pairs, chosen = _pairs(given), [name.strip() for name in names.split(",")]
    kinds = {name: registry.plugin("judges", name, "--judge").Options for name in chosen}
    if len(kinds) < len(chosen):
        raise must("judge", "a comma-separated list without duplicates", names)
    declared = {name: options.declarations(kind) for name, kind in kinds.items()}
    known = {option for options_of_judge in declared.values() for option in options_of_judge}
    if pairs and not known:
        raise must("judge_options", f"empty, because no judge in --judge {names} has options", given)
    if strange := set(pairs) - known:
        raise unknown("an option of --judge-options", min(strange), known)
    return {
        name: options.parse(kind, {key: value for key, value in pairs.items() if key in declared[name]})
        for name, kind in kinds.items()
    }


def values(names: str, given: str) -> dict[str, dict[str, Any]]:
    """Return, for each judge, the options that enter a run's fingerprint. For errors, see `judges`."""
    return {name: options.identity(chosen) for name, chosen in judges(names, given).items()}


def resolved(names: str, given: str) -> str:
    """Return `given` with each run name replaced by the run's full id and, for the judge `human`, the votes' digest added.

    Raises:
        ConfigError: see `past_verdicts.resolved`.
    """
    changed = past_verdicts.resolved(judges(names, given))
    return ",".join(f"{name}={value}" for name, value in (_pairs(given) | changed).items()) if changed else given


def _pairs(given: str) -> dict[str, str]:
    return dict(_pair(text) for text in given.split(",") if text.strip())


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.strip().partition("=")
    if not equals:
        raise must("judge_options", "comma-separated NAME=VALUE pairs", repr(text))
    return name.replace("-", "_"), value


def judge(name: str, chosen: Any, config: Training, weak: DebaterModel) -> Judge:
    """Build the judge called `name`.

    If the judge learns from an earlier run, it is given a function that loads the verdicts of that run; otherwise, it is given
    a function that asks the weak model.
    """
    answer = past_verdicts.answer(name, chosen) or answers(weak, config)
    judge: Judge = registry.plugin("judges", name, "--judge").make(chosen, answer)
    return judge


def answers(weak: DebaterModel, config: Training) -> Callable[[Sequence[Example]], Floats]:
    """Return a function that computes the frozen weak model's log probabilities of the classes, (N, C)."""

    def answer(questions: Sequence[Example]) -> Floats:
        p_NC = finetune.probabilities(weak.head, weak.head.encode(questions), config)
        log_p_NC: Floats = np.log(np.maximum(p_NC, np.finfo(np.float32).tiny))
        return log_p_NC

    return answer


def debater_model(head: Head, questions: Sequence[Example], config: Training, policy: Policy | None = None) -> DebaterModel:
    """Return the model of one side of a debate, with its decisions on the questions."""
    encoded_questions = encoded(head, questions)
    decisions_N = finetune.probabilities(head, encoded_questions.data, config).argmax(axis=1)
    return DebaterModel(head, encoded_questions, decisions_N, policy, config.micro_batch)


def encoded(head: Head, questions: Sequence[Example]) -> EncodedQuestions:
    """Encode questions for a model, and find the evidence span that contains each token."""
    from w2s_mlflow.explainers import _token_spans

    return _token_spans.read(head, questions)


def debater(name: str, explainer: str, side: DebateSide) -> Debater:
    """Return the debater called `name`. The explainer called `explainer` explains its decisions."""
    plugin = explainers.find(explainer, "explainer")
    explain: Explainer = plugin.make(side)
    hear = None if plugin.EVIDENCE == explainers.SPANS else getattr(explain, "hear", _ignore)
    return Debater(name, side.debater.decisions_N, explain, hear)


def _ignore(texts: Sequence[str]) -> list[str]:
    """Return an empty text per question. Used for explainers of text without the method `hear`, which ignore the other side."""
    return [""] * len(texts)


def claims(task: Task, debater: DebaterModel) -> list[str]:
    """Return a debater's decision on each question, put into words."""
    questions = debater.encoded.questions
    return [play.claim(task, *row) for row in zip(questions, debater.decisions_N.tolist(), strict=True)]
