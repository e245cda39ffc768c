"""What a command would do: the results it would reuse and those it would train, with the time they took before."""

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
"""What two results must share for one to tell the time of the other."""


@dataclass(frozen=True)
class Step:
    """One result of a plan."""

    name: str
    state: str
    """`reused`, to be `trained`, or `running` in another process."""
    seconds: float | None
    """Estimated from past runs of its kind; None where there are none."""


@dataclass
class Plan:
    """The results that a command needs, each once."""

    steps: dict[str, Step] = field(default_factory=dict)
    known: Mapping[str, Result] = field(default_factory=dict)
    """Finished results by fingerprint that need not be asked for one by one."""
    _past: dict[str, list[Result]] = field(default_factory=dict)
    """Finished runs by stage, by which times are estimated."""

    def reuse(self, fingerprint: str) -> Result | None:
        """A result that is known to be finished, noted."""
        if (found := self.known.get(fingerprint)) is not None:
            self.steps[fingerprint] = Step(found.name, REUSED, 0.0)
        return found

    def add(
        self, name: str, parts: FingerprintParts, identity: Mapping[str, str], options: Mapping[str, Any], runs: Sequence[Run]
    ) -> Result:
        """Note one result, of which there are `runs`; what stands in for it has its fingerprint, and an id if it exists."""
        fingerprint = parts.digest()
        by_status = {run.info.status: run for run in reversed(runs)}  # the newest comes first in `runs`
        if found := by_status.get("FINISHED"):
            self.steps[fingerprint] = Step(name, REUSED, 0.0)
            return result(found, reused=True)
        state = RUNNING if "RUNNING" in by_status else TRAINED
        self.steps.setdefault(fingerprint, Step(name, state, self._estimate(parts.stage, dict(options) | dict(identity))))
        return self.placeholder(name, parts.stage, fingerprint)

    def again(self, found: Result) -> Result:
        """Note that a finished result is to be fitted once more, for its model."""
        if found.run_id:
            self.steps[found.fingerprint] = Step(found.name, TRAINED, found.seconds)
        return found

    def placeholder(self, name: str, stage: str, fingerprint: str = "") -> Result:
        """What stands in for a result that is not there."""
        return Result("", name, stage, fingerprint, "", {}, {}, {}, 0.0, reused=False)

    def count(self, state: str) -> int:
        """How many results are in this state."""
        return sum(step.state == state for step in self.steps.values())

    def seconds(self) -> float:
        """The estimated time of what is to be trained, as far as it is known."""
        return sum(step.seconds or 0.0 for step in self.steps.values() if step.state == TRAINED)

    def summary(self) -> dict[str, Any]:
        """The plan as plain values."""
        counts = {state: self.count(state) for state in (REUSED, TRAINED, RUNNING)}
        steps = [vars(step) | {"fingerprint": fingerprint} for fingerprint, step in self.steps.items()]
        return counts | {"seconds": round(self.seconds(), 1), "steps": steps}

    def unknown(self) -> int:
        """How many of the results to be trained have no estimate."""
        return sum(step.state == TRAINED and step.seconds is None for step in self.steps.values())

    def _estimate(self, stage: str, params: Mapping[str, Any]) -> float | None:
        """Median time of the finished runs of the same stage, task and models, in proportion to rows and epochs."""
        if stage not in self._past:
            self._past[stage] = _finished(stage)
        alike = [run for run in self._past[stage] if all(run.params.get(name) == str(params.get(name)) for name in ALIKE)]
        rates = [run.seconds / _work(run.params) for run in alike]
        return statistics.median(rates) * _work(params) if rates else None


def _work(params: Mapping[str, Any]) -> float:
    return float(params.get("train_size") or 1) * float(params.get("epochs") or 1)


def _finished(stage: str) -> list[Result]:
    clause = f"tags.`w2s.stage` = '{stage}' and attributes.status = 'FINISHED'"
    found = client().search_runs([experiment().experiment_id], clause, max_results=PAGE)
    return [result(run, reused=True) for run in found]
