"""A study: trials one after the other, each a run of its own that links to the students it used; kept where it can be resumed.

One machine: a journal file in the scratch directory. What is finished stays there, so that the same command goes on.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_mlflow import checkpoint
from w2s_mlflow import config as options
from w2s_mlflow.stages import _search
from w2s_mlflow.stages._search import Search

if TYPE_CHECKING:
    import optuna

    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
SAMPLERS = ("tpe", "random")
RUN = "run_id"
"""The user attribute of a trial with the id of its run."""


def opened(search: Search, name: str, sampler: str, seed: int) -> optuna.Study:
    """The study of this name, made where there is none."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    file = checkpoint.place("studies") / f"{name}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))),
        study_name=name,
        direction=search.direction,
        sampler=kinds[sampler](seed=seed),
        load_if_exists=True,
    )


def run_trials(study: optuna.Study, search: Search, trials: int, seeds: Sequence[int], sizes: Mapping[str, Any]) -> None:
    """Bring the study to so many finished trials. A trial that cannot be made ends the search; Ctrl-C marks it as failed."""
    from optuna.trial import TrialState

    done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
    for _ in range(trials - done):
        trial = study.ask()
        with _closing(study, trial):
            found = _made(search, trial, seeds, sizes)
            study.tell(trial, _search.value(search, found))


@contextlib.contextmanager
def _closing(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    from optuna.trial import TrialState

    try:
        yield
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise


def _made(search: Search, trial: optuna.Trial, seeds: Sequence[int], sizes: Mapping[str, Any]) -> list[Result]:
    """The results of one trial, found or made, under a run of its own."""
    from w2s_mlflow.tracking import recorder

    given = _search.proposed(search, trial)
    every = _search.configs(search, given, seeds, sizes)
    note = f"Trial {trial.number} of the search `{search.name}`, objective `{search.objective}`."
    with recorder.parent(f"trial {trial.number} {search.name}", "trial", given, note) as recording:
        trial.set_user_attr(RUN, recording.run_id)
        found: list[Result] = [options.plugin("stages", search.stage, "stage").run(config) for config in every]
        recording.metrics({"objective": _search.value(search, found)})
        recording.tags |= {"w2s.objective": search.objective, "w2s.student_run_ids": ",".join(run.run_id for run in found)}
    return found
