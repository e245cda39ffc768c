"""Optuna studies that several processes can work on at the same time.

A study is stored in a journal file in the scratch directory (one machine) or in a database (several machines, `--storage`). A
trial whose process is dead is marked as failed; its options are tried again, and its finished runs are reused. A dead process
of this machine is detected by its process id, and one of another machine by Optuna's heartbeats in the database.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.search import samplers, space
from w2s_mlflow.search import storage as search_storage
from w2s_mlflow.search.space import Search

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

TRIALS = 20
OWNER, PARAMS, RUN, USED = "worker", "options", "run_id", "used_run_ids"
"""Names of a trial's user attributes. OWNER: the process that runs the trial. PARAMS: the trial's options. RUN: the id of the
trial's MLflow run. USED: the ids of the runs over which the trial's value is averaged."""
ERROR, WITHDRAWN = "error", "withdrawn"
"""Names of a failed trial's user attributes. ERROR: the message of the error with which a training failed. WITHDRAWN: True if
the trial was withdrawn, because the limit on trials was reached or because the grid was exhausted."""
DIGEST, EXHAUSTED = "hangs_on", "exhausted"
"""Names of a study's user attributes. DIGEST: the digest of everything that the values of the trials depend on. EXHAUSTED:
True if the grid sampler has tried every point of the space."""
REGISTRATION_TIMEOUT = 60.0
"""Seconds after which a trial that has not recorded its process (OWNER) counts as dead."""


@dataclass(frozen=True)
class StudyTarget:
    """Settings of a study: its storage, sampler and pruner, and when to stop.

    Attributes:
        study: name of the study. If None, the name consists of the search's name and its digest.
        storage: URL of a database. If None, the study is stored in a journal file on this machine.
        trials: number of trials to finish. If None, there is no limit, but the grid sampler stops when its space is exhausted.
        seconds: time after which no trial starts. If None, there is no limit.
    """

    study: str | None = None
    storage: str | None = None
    sampler: str = samplers.SAMPLERS[0]
    pruner: str = samplers.PRUNERS[0]
    trials: int | None = TRIALS
    seconds: float | None = None
    seed: int = 0

    def limit(self) -> int:
        """Return the maximum number of trials, or sys.maxsize if there is no limit."""
        return sys.maxsize if self.trials is None else self.trials


def open_study(search: Search, target: StudyTarget, digest: str, runs: int) -> optuna.Study:
    """Open the study, or create it if it does not exist.

    Args:
        digest: digest of everything that the values of the study's trials depend on.
        runs: number of runs per trial, the maximum resource of the hyperband pruner.

    Raises:
        ConfigError: the storage cannot be reached, or holds a study of this name with another digest.
    """
    study = _load_study(search, target, digest, create=True)
    assert study is not None
    study.set_user_attr(DIGEST, digest)
    study.pruner = samplers.make_pruner(target.pruner, runs)
    return study


def _load_study(search: Search, target: StudyTarget, digest: str, *, create: bool) -> optuna.Study | None:
    """Open the study. If it does not exist, create it if `create` is true, and return None otherwise."""
    import optuna
    import sqlalchemy.exc

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name, url = target.study or f"{search.name}-{digest}", target.storage
    if not create and url is None and not search_storage.journal(name).exists():
        return None
    try:
        with search_storage.suppress_warnings():
            storage = search_storage.open_storage(name, url, _requeue)
            if not create and name not in optuna.get_all_study_names(storage):
                return None
            study = optuna.create_study(storage=storage, study_name=name, direction=search.direction, load_if_exists=True)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, optuna.exceptions.OptunaError, RuntimeError) as error:
        from w2s_mlflow.tracking.backend.error_messages import sentence

        reason = sentence(error.__cause__ if isinstance(error, ImportError) and error.__cause__ else error)
        raise must(
            "storage", "a database that can be reached and used", f"{search_storage.quoted(str(url))}: {reason}"
        ) from error
    except json.JSONDecodeError as error:
        raise must(
            "study", "a study whose journal file can be read", f"the damaged file {search_storage.journal(name)}"
        ) from error
    except OSError as error:
        raise must("W2S_SCRATCH", "a writable directory", f"{error.filename}: {error.strerror}") from error
    if study.user_attrs.get(DIGEST, digest) != digest:
        rule = "a new name, because the existing study has another space, objective, data or code"
        raise must("study", rule, repr(name))
    return study


def counts(trial: FrozenTrial) -> bool:
    """Return whether a trial counts towards the limit on trials.

    All trials count except failed ones without the attribute ERROR: these were retried or withdrawn, or had invalid options.
    """
    from optuna.trial import TrialState

    return trial.state != TrialState.FAIL or ERROR in trial.user_attrs


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the finished trials: complete, pruned, or failed in training."""
    return [trial for trial in study.get_trials(deepcopy=False) if counts(trial) and trial.state.is_finished()]


def running_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the running trials of all processes."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def below_trial_limit(study: optuna.Study, target: StudyTarget) -> bool:
    """Return whether another trial may start.

    A trial may start if one is enqueued, or if the limit on trials is not reached and the space is not exhausted.
    """
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return True
    return not study.user_attrs.get(EXHAUSTED) and sum(map(counts, trials)) < target.limit()


def ask(study: optuna.Study, search: Search, target: StudyTarget) -> tuple[optuna.Trial, dict[str, Any]] | None:
    """Start a trial in this process and return it with its options.

    Return None instead if the limit on trials is reached or the grid is exhausted.

    Other processes may start trials at the same time. Whether a trial exceeds the limit is therefore known only once it has
    been created and has its number. A trial that exceeds the limit is then withdrawn.

    Raises:
        ConfigError: `space` fails or returns an option that must not be tuned.
    """
    from w2s_mlflow.tracking import heartbeat

    with search_storage.suppress_warnings():
        trial = study.ask()
    trial.set_user_attr(OWNER, str(heartbeat.me()))
    before = [other for other in study.get_trials(deepcopy=False) if other.number < trial.number and counts(other)]
    try:
        params = _sample_params(study, search, target, trial, len(before)) if len(before) < target.limit() else None
    except ConfigError:
        tell(study, trial.number)
        raise
    if params is not None and target.sampler == "grid" and any(other.params == trial.params for other in before):
        study.set_user_attr(EXHAUSTED, True)
        params = None
    if params is None:
        trial.set_user_attr(WITHDRAWN, True)
        tell(study, trial.number)
        return None
    trial.set_user_attr(PARAMS, params)
    return trial, params


def _sample_params(
    study: optuna.Study, search: Search, target: StudyTarget, trial: optuna.Trial, number: int
) -> dict[str, Any]:
    study.sampler = samplers.make_sampler(target.sampler, target.seed, number)
    try:
        with search_storage.suppress_warnings():
            return space.sample_params(search, trial)
    finally:
        # Replace the sampler: when the trial ends, BruteForceSampler would call study.stop(), which fails outside optimize().
        study.sampler = samplers.make_sampler("random", 0, 0)


def fail_and_requeue(study: optuna.Study, number: int, params: Mapping[str, Any]) -> None:
    """Mark a trial as failed and enqueue its options again, unless another process has already ended the trial."""
    if tell(study, number) and params:
        study.enqueue_trial(dict(params))


def tell(study: optuna.Study, number: int, value: float | None = None, state: str = "fail") -> bool:
    """End a trial as complete (with a value), pruned or failed. Return False if another process has already ended the trial."""
    import optuna

    try:
        study.tell(number, value, optuna.trial.TrialState[state.upper()])
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    return True


def _requeue(study: optuna.Study, trial: FrozenTrial) -> None:
    """Enqueue the options of a trial again. Optuna calls this for trials with a stale heartbeat."""
    if trial.params:
        study.enqueue_trial(trial.params)


def cleanup_once(study: optuna.Study) -> None:
    """Mark the trials of dead processes as failed, enqueue their options again, and end their MLflow runs."""
    import optuna

    from w2s_mlflow.tracking import heartbeat

    running = running_trials(study)
    for trial in running:
        owner = heartbeat.Worker.parse(trial.user_attrs.get(OWNER, ""))
        began = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        if owner.gone() if owner else time.time() - began > REGISTRATION_TIMEOUT:
            fail_and_requeue(study, trial.number, trial.params)
    with search_storage.suppress_warnings():
        optuna.storages.fail_stale_trials(study)
    # Compare trials, not their counts: another process may have started the next trial meanwhile.
    if {trial.number for trial in running} - {trial.number for trial in running_trials(study)}:
        heartbeat.kill_orphans()


def placeholder_params(search: Search, target: StudyTarget, digest: str) -> list[dict[str, Any]]:
    """Return options with which a search can be planned: one set for each remaining trial, and one for the best setting.

    The options are sampled from the grid if the sampler is `grid`, and at random otherwise.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _load_study(search, target, digest, create=False)
    temporary, remaining = optuna.create_study(), target.limit() - (len(finished_trials(study)) if study else 0)
    unlimited = StudyTarget(sampler="grid" if target.sampler == "grid" else "random", trials=None)
    params: list[dict[str, Any]] = []
    while len(params) <= max(remaining, 0) and (sampled := ask(temporary, search, unlimited)):
        params.append(sampled[1])
    return params


def gold_reads(study: optuna.Study, search: Search) -> int:
    """Return the number of runs that the finished trials have scored against the ground truth of `selection`."""
    if search.objective == "agreement":
        return 0
    return sum(len(trial.user_attrs.get(USED, ())) for trial in finished_trials(study))


def best(study: optuna.Study) -> dict[str, Any]:
    """Return the options of the best trial. Raises ConfigError if all trials failed."""
    from optuna.trial import TrialState

    trials = finished_trials(study)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        reason = next((trial.user_attrs[ERROR] for trial in reversed(trials) if ERROR in trial.user_attrs), "none")
        raise ConfigError(
            f"none of the {len(trials)} ended trials of study {study.study_name} is complete; last training error: {reason}"
        )
    return dict(study.best_trial.user_attrs[PARAMS])
