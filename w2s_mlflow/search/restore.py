"""Trials of a study as their MLflow runs hold them. Where the journal and the runs differ, the runs are right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from w2s_mlflow.search import storage

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

ARTIFACT = "trial.json"
STUDY, STATE = "w2s.study", "w2s.trial_state"
"""Tags of a trial's run: the name of its study, and how it ended."""
RUN = "run_id"
"""User attribute of a trial: the id of its MLflow run."""


def describe(trial: optuna.Trial, value: float, state: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """Return all that is needed to make a trial anew, as JSON values.

    Args:
        value: the trial's value, or its last intermediate value if it was pruned.
        attributes: user attributes that the trial gets when it ends.
    """
    from optuna.distributions import distribution_to_json

    frozen = trial.study.get_trials(deepcopy=False)[trial.number]
    return {
        "number": trial.number,
        "state": state,
        "value": value,
        # A list keeps the order in which the trial was sampled.
        "params": [[name, value, distribution_to_json(frozen.distributions[name])] for name, value in frozen.params.items()],
        "attributes": frozen.user_attrs | attributes,
        "intermediate": {str(step): reported for step, reported in frozen.intermediate_values.items()},
    }


def add_missing(study: optuna.Study) -> int:
    """Add the ended trials that have a run in the current experiment but are missing in the study. Return their number."""
    from w2s_mlflow.search import journal  # this import loads Optuna

    with journal.locked(storage.journal(study.study_name).with_suffix(".restore")):  # two processes may have just started
        known = {trial.user_attrs.get(RUN) for trial in study.get_trials(deepcopy=False)}
        missing = [_trial(record) for run_id, record in _records(study.study_name) if run_id not in known]
        for trial in missing:
            study.add_trial(trial)
    return len(missing)


def outcome(trial: FrozenTrial) -> tuple[float | None, str] | None:
    """Return the value and the state of a trial by its MLflow run; None if the run has not ended as a complete trial.

    A process that is killed between the end of the run and the end of the trial leaves the trial running.
    """
    from w2s_mlflow.tracking import results

    runs = results.by_id([trial.user_attrs[RUN]]) if RUN in trial.user_attrs else []
    if not runs or runs[0].info.status != "FINISHED" or STATE not in runs[0].data.tags:
        return None
    state = runs[0].data.tags[STATE]
    return (runs[0].data.metrics["objective"] if state == "complete" else None), state


def _records(study: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the records of the trials with a finished run, by run id and in the order of their numbers."""
    from w2s_mlflow.tracking import results
    from w2s_mlflow.tracking.backend.server import experiment

    clause = f"attributes.status = 'FINISHED' and tags.`{STUDY}` = '{study}' and tags.`{STATE}` LIKE '%'"
    found = [results.result(run, reused=True) for run in results.pages(clause, [experiment().experiment_id])]
    records = [
        (run.run_id, json.loads(run.artifact(ARTIFACT).read_text(encoding="utf-8"))) for run in found if ARTIFACT in run.digests
    ]
    return sorted(records, key=lambda pair: int(pair[1]["number"]))


def _trial(record: dict[str, Any]) -> FrozenTrial:
    import optuna
    from optuna.distributions import json_to_distribution

    complete = record["state"] == "complete"
    params = [(name, value, json_to_distribution(text)) for name, value, text in record["params"]]
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState[record["state"].upper()],
        value=record["value"] if complete else None,
        params={name: value for name, value, kind in params},
        distributions={name: kind for name, _, kind in params},
        user_attrs=record["attributes"],
        intermediate_values={int(step): value for step, value in record["intermediate"].items()},
    )
