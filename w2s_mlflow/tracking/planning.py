"""Plan of a command, shown by the option `--plan`: the results that the command would reuse or train, with estimated times."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow.entities import Run

from w2s_mlflow.tracking.backend.server import client, experiment
from w2s_mlflow.tracking.fingerprint import FingerprintParts
from w2s_mlflow.tracking.results import PAGE, Result, result

REUSED, TRAINED, RUNNING = "reused", "trained", "running"
ALIKE = ("task", "weak", "strong", "head")
"""Parameters that a past run must share with a planned run for its training time to be used as an estimate."""


@dataclass(frozen=True)
class Step:
    """One result of a plan."""

    name: str
    state: str
    """`reused` if a finished run exists, `trained` if the result must be trained, `running` if another process is making it."""
    seconds: float | None
    """Training time in seconds, estimated from similar past runs. None if there are no such runs; 0 if the result is reused."""


@dataclass
class Plan:
    """The distinct results that a command needs, by fingerprint."""

    steps: dict[str, Step] = field(default_factory=dict)
    known: Mapping[str, Result] = field(default_factory=dict)
    """Finished results by fingerprint, fetched in advance because looking up many results one by one is slow."""
    downloads: dict[str, int] = field(default_factory=dict)
    """Bytes to download for the models of unfinished results, by model."""
    _past: dict[str, list[Result]] = field(default_factory=dict)
    """Finished runs by stage, from which training times are estimated."""

    def reuse(self, fingerprint: str) -> Result | None:
        """If the result is in `known`, add it to the plan as reused and return it; else return None."""
        if (run := self.known.get(fingerprint)) is not None:
            self.steps[fingerprint] = Step(run.name, REUSED, 0.0)
        return run

    def add(
        self, name: str, parts: FingerprintParts, identity: Mapping[str, str], options: Mapping[str, Any], runs: Sequence[Run]
    ) -> Result:
        """Add a result to the plan. Return the finished run in `runs` or, if there is none, a placeholder Result."""
        fingerprint = parts.digest()
        # The runs are sorted newest first, so the newest run of each status is kept.
        by_status = {run.info.status: run for run in reversed(runs)}
        if finished := by_status.get("FINISHED"):
            self.steps[fingerprint] = Step(name, REUSED, 0.0)
            return result(finished, reused=True)
        state = RUNNING if "RUNNING" in by_status else TRAINED
        self.steps.setdefault(fingerprint, Step(name, state, self._estimate(parts.stage, dict(options) | dict(identity))))
        return self.placeholder(name, parts.stage, fingerprint)

    def refit(self, run: Result) -> Result:
        """Record in the plan that the model of a finished run must be retrained, because it was not kept. Return the run."""
        if run.run_id:
            self.steps[run.fingerprint] = Step(run.name, TRAINED, run.seconds)
        return run

    def placeholder(self, name: str, stage: str, fingerprint: str = "") -> Result:
        """Return a placeholder Result, without run id, for a result that does not exist yet."""
        return Result("", name, stage, fingerprint, "", {}, {}, {}, 0.0, reused=False)

    def count(self, state: str) -> int:
        """Return the number of results in this state."""
        return sum(step.state == state for step in self.steps.values())

    def seconds(self) -> float:
        """Return the total estimated training time in seconds. Results without an estimate are not counted."""
        return sum(step.seconds or 0.0 for step in self.steps.values() if step.state == TRAINED)

    def summary(self) -> dict[str, Any]:
        """Return the plan as a dictionary of JSON-compatible values."""
        counts = {state: self.count(state) for state in (REUSED, TRAINED, RUNNING)}
        steps = [vars(step) | {"fingerprint": fingerprint} for fingerprint, step in self.steps.items()]
        return counts | {"seconds": round(self.seconds(), 1), "downloads": self.downloads, "steps": steps}

    def unknown(self) -> int:
        """Return the number of planned trainings whose duration cannot be estimated."""
        return sum(step.state == TRAINED and step.seconds is None for step in self.steps.values())

    def _estimate(self, stage: str, params: Mapping[str, Any]) -> float | None:
        """Return the estimated training time in seconds, or None if there are no similar runs.

        The estimate uses the stage's finished runs whose ALIKE parameters equal those in `params`. Their median time per row
        and epoch is multiplied by the numbers of rows and epochs in `params`.
        """
        if stage not in self._past:
            self._past[stage] = _finished(stage)
        alike = [run for run in self._past[stage] if all(run.params.get(name) == str(params.get(name)) for name in ALIKE)]
        rates = [run.seconds / _work(run.params) for run in alike]
        return statistics.median(rates) * _work(params) if rates else None


def _work(params: Mapping[str, Any]) -> float:
    return float(params.get("train_size") or 1) * float(params.get("epochs") or 1)


def _finished(stage: str) -> list[Result]:
    clause = f"tags.`w2s.stage` = '{stage}' and attributes.status = 'FINISHED'"
    runs = client().search_runs([experiment().experiment_id], clause, max_results=PAGE)
    return [result(run, reused=True) for run in runs]
