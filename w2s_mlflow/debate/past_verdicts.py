"""Load the verdicts of people or judges on the debates of an earlier run, for judges that declare LEARNS_FROM."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from w2s_mlflow import registry
from w2s_mlflow.debate import transcripts
from w2s_mlflow.debate.play import STRONG, WEAK
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.pipeline import runs
from w2s_mlflow.records import Debate, Example, Explanation, Side

if TYPE_CHECKING:
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
STAGE = "debate"


def resolved(judges: Mapping[str, Any]) -> dict[str, str]:
    """Return the new values of judge options: the full id of the run and, for `human`, the digest of the votes on it.

    The digest changes when people add votes. A stage then computes a new result instead of reusing the earlier result.

    Raises:
        ConfigError: the run does not exist, is not a debate run, or its models were trained on ground truth of `transfer`;
            or half or more of its debates have no human vote.
    """
    changed: dict[str, str] = {}
    for name in judges:
        kind = learns_from(name)
        changed |= SOURCES[kind].resolve(judges[name]) if kind else {}
    return changed


def answer(name: str, chosen: Any) -> Callable[[], tuple[Sequence[Debate], Sequence[Any]]] | None:
    """Return a function that loads an earlier run's debates and verdicts, or None if the judge does not learn from a run."""
    kind = learns_from(name)
    return (lambda: SOURCES[kind].load(chosen)) if kind else None


def learns_from(name: str) -> str:
    """Return the kind of verdicts that a judge learns from (a key of SOURCES), or "" if it reads no earlier run."""
    kind = getattr(registry.plugin("judges", name, "--judge"), "LEARNS_FROM", "")
    assert not kind or kind in SOURCES, f"judges/{name}.py: LEARNS_FROM must be one of {', '.join(SOURCES)}"
    return str(kind)


def debates(run: Result) -> list[Debate]:
    """Return the debates of a run as its judges saw them, with the strong side first."""
    table, _ = transcripts.read(run)
    return [_debate(row) for row in transcripts.rows(table)]


def verdicts_of(debate_runs: Sequence[Result]) -> tuple[list[Debate], list[float]]:
    """Return the debates of several runs and, for each debate, D (Definition 4) according to the first judge of its run."""
    shown = [debate for run in debate_runs for debate in debates(run)]
    return shown, [value for run in debate_runs for value in transcripts.preference_N(*transcripts.read(run)).tolist()]


def _people(chosen: Any) -> dict[str, str]:
    from w2s_mlflow.tracking import human_feedback

    votes = human_feedback.pull(_run(chosen.run).run_id)
    LOG.info("%s", votes.describe())
    votes.check()
    return {"run": votes.run_id, "heard": votes.digest()}


def _judge(chosen: Any) -> dict[str, str]:
    return {"run": _run(chosen.run).run_id}


def _votes(chosen: Any) -> tuple[list[Debate], list[tuple[str, ...]]]:
    from w2s_mlflow.tracking import human_feedback

    shown, votes = debates(_run(chosen.run)), human_feedback.pull(chosen.run)
    if votes.digest() != chosen.heard:
        raise ConfigError(f"people have voted on debates of run {chosen.run} since this command started; run the command again")
    return shown, [votes.votes.get(debate.question.id, ()) for debate in shown]


def _verdicts(chosen: Any) -> tuple[list[Debate], list[float]]:
    run = _run(chosen.run)
    table, verdicts = transcripts.read(run)
    names = list(dict.fromkeys(verdicts["judge"]))
    if chosen.of and chosen.of not in names:
        raise must(
            "judge_options", f"of=JUDGE, where JUDGE is a judge of run {run.run_id}: {', '.join(names)}", f"of={chosen.of}"
        )
    return debates(run), transcripts.preference_N(table, verdicts, chosen.of or None).tolist()


class Source(NamedTuple):
    """One kind of past verdicts that a judge may learn from."""

    resolve: Callable[[Any], dict[str, str]]
    """Function that takes a judge's options, and returns those to change: the run's full id and the digest of any votes."""
    load: Callable[[Any], tuple[Sequence[Debate], Sequence[Any]]]
    """Function that takes a judge's options, and loads the debates and verdicts of the run that the options name."""


SOURCES = {"votes": Source(_people, _votes), "verdicts": Source(_judge, _verdicts)}
"""Kinds of past verdicts, by the value of LEARNS_FROM. `votes`: votes of people; `verdicts`: verdicts of the run's judges."""


def _run(name: str) -> Result:
    """Find the debate run that a judge's option `run` names. Raises ConfigError if the verdicts of that run cannot be used."""
    from w2s_mlflow.tracking import results

    if not name:
        readers = ", ".join(judge for judge in registry.plugins("judges") if learns_from(judge))
        raise must("judge_options", f"run=RUN with the judges {readers}, where RUN is the debate run to learn from", "no run")
    run = results.find(name)
    if run.stage != STAGE:
        raise must(
            "judge_options", f"run=RUN, where RUN is a {STAGE} run", f"run={name}, whose stage is {run.stage or 'unknown'}"
        )
    # The verdicts of such a run would leak ground truth into an aligned model.
    if runs.GOLD in run.tags:
        rule = "run=RUN, a run whose models were not trained on ground truth of transfer"
        raise must("judge_options", rule, f"run={name}, whose models were trained on ground truth of {run.tags[runs.GOLD]}")
    return run


def _debate(row: Mapping[str, Any]) -> Debate:
    segments, candidates = (tuple(map(str, np.atleast_1d(row[name]))) for name in ("segments", "candidates"))
    question = Example(str(row["id"]), str(row["group"]), segments, candidates)
    return Debate(question, _side(row, STRONG), _side(row, WEAK))


def _side(row: Mapping[str, Any], name: str) -> Side:
    values = {field: row[f"{name}_{field}"] for field in ("decision", "claim", "explanation", "pieces")}
    explanation = Explanation(str(values["explanation"]), tuple(int(span) for span in values["pieces"]))
    return Side(name, int(values["decision"]), str(values["claim"]), explanation)
