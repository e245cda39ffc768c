"""A study: trials one after the other, each a run of its own that links to the runs it used; kept where it can be resumed.

It lies in a journal file in the scratch directory, so the same command goes on where it was. A trial whose process is gone is
called failed, and its options are tried again: what was finished of its runs is reused.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_mlflow import checkpoint
from w2s_mlflow import config as options
from w2s_mlflow.config import unknown
from w2s_mlflow.stages import _search
from w2s_mlflow.stages._search import Search

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

    from w2s_mlflow.tracking.results import Result

SAMPLERS = ("tpe", "random")
OWNER, GIVEN, RUN, USED = "worker", "options", "run_id", "used_run_ids"
"""What a trial notes of itself: its process, its options, its run, and the runs that its value is the mean of."""
PLOTS = ("optimization_history", "param_importances", "parallel_coordinate", "slice")


def opened(search: Search, name: str) -> optuna.Study:
    """The study of this name, made where there is none, its dead trials called failed and waiting to be tried again."""
    from optuna.trial import TrialState

    from w2s_mlflow.tracking import worker

    _file(name).parent.mkdir(parents=True, exist_ok=True)
    study = _loaded(search, name)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = worker.Worker.parse(trial.user_attrs.get(OWNER, ""))
        if owner is None or owner.gone():
            _give_up(study, trial.number, trial.params)
    return study


def run_trials(
    study: optuna.Study,
    search: Search,
    configs: Callable[[Mapping[str, Any]], list[Any]],
    trials: int,
    sampler: str,
    seed: int,
) -> None:
    """Bring the study to so many finished trials. Ctrl-C calls the one in progress failed, to be tried again next time.

    Args:
        configs: of the runs that a trial with these options is made of.

    Raises:
        ConfigError: a trial cannot be made of the space, or does not log its objective; the study stays as it was.
    """
    from tqdm import tqdm

    done = len(_finished(study))
    with tqdm(total=max(trials, done), initial=done, unit="trial", dynamic_ncols=True) as bar:
        while len(_finished(study)) < trials:
            study.sampler = drawing(sampler, seed, len(_started(study)))
            trial = study.ask()
            with _owned(study, trial):
                study.tell(trial, _made(search, trial, configs))
            bar.update()
            bar.set_postfix_str(f"best {study.best_value:.4f} of trial {study.best_trial.number}", refresh=False)


def drawing(sampler: str, seed: int, number: int) -> BaseSampler:
    """The sampler of one trial, seeded by how many have not failed: a study that was stopped draws what one that was not does.

    Raises:
        ConfigError: there is none of this name.
    """
    import optuna

    if sampler not in SAMPLERS:
        raise unknown("--sampler", sampler, SAMPLERS)
    own = int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4])
    return optuna.samplers.RandomSampler(own) if sampler == "random" else optuna.samplers.TPESampler(seed=own)


def rehearsed(search: Search, name: str, trials: int) -> list[dict[str, Any]]:
    """As many options drawn at random as the study lacks trials, and for the best one: how many there are, of which kind."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    done = len(_finished(_loaded(search, name))) if _file(name).exists() else 0
    drawn = optuna.create_study(sampler=drawing("random", 0, 0))
    return [_search.proposed(search, drawn.ask()) for _ in range(max(trials - done, 0) + 1)]


def looks(study: optuna.Study, search: Search) -> int:
    """How many scores on the ground truth of `selection` the finished trials have seen."""
    if search.objective == "agreement":
        return 0
    return sum(len(trial.user_attrs[USED]) for trial in _finished(study))


def best(study: optuna.Study) -> dict[str, Any]:
    """The options of the best trial."""
    return dict(study.best_trial.user_attrs[GIVEN])


def draw(study: optuna.Study, search: Search, directory: Path) -> None:
    """Write the table of trials, and Optuna's plots as far as there are trials enough for them."""
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    directory.mkdir(parents=True, exist_ok=True)
    study.trials_dataframe().to_csv(directory / "trials.csv", index=False)
    for name in PLOTS:
        with warnings.catch_warnings(), contextlib.suppress(ValueError, RuntimeError):  # one trial, or one value only
            warnings.simplefilter("ignore")  # these plots are new, and there are few trials for them: both are known
            getattr(plots, f"plot_{name}")(study, target_name=search.metric)
            plt.gcf().set_size_inches(12, 5)
            plt.gcf().savefig(directory / f"{name}.png", dpi=120, bbox_inches="tight")
        plt.close("all")


def _file(name: str) -> Path:
    return checkpoint.place("studies") / f"{name}.log"


def _loaded(search: Search, name: str) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(_file(name))))
    return optuna.create_study(storage=storage, study_name=name, direction=search.direction, load_if_exists=True)


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _started(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that are finished or, in other processes, under way: those do not draw the same."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))


def _give_up(study: optuna.Study, number: int, params: Mapping[str, Any]) -> None:
    from optuna.trial import TrialState

    study.tell(number, state=TrialState.FAIL)
    study.enqueue_trial(dict(params))


@contextlib.contextmanager
def _owned(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """A trial of this process, which ends as failed where the block does not."""
    from optuna.trial import TrialState

    from w2s_mlflow.tracking import worker

    trial.set_user_attr(OWNER, str(worker.me()))
    try:
        yield
    except KeyboardInterrupt:
        _give_up(study, trial.number, trial.params)
        raise
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise


def _made(search: Search, trial: optuna.Trial, configs: Callable[[Mapping[str, Any]], list[Any]]) -> float:
    """The value of one trial, its runs found or made, under a run of its own beside them."""
    from w2s_mlflow.tracking import recorder, results

    given = _search.proposed(search, trial)
    trial.set_user_attr(GIVEN, given)
    every = configs(given)
    note = f"Trial {trial.number} of the search `{search.name}`, objective `{search.objective}`."
    with recorder.plain(f"trial {trial.number} {search.name}", "trial", given, note) as recording:
        found: list[Result] = [options.plugin("stages", search.stage, "stage").run(config) for config in every]
        value, used = _search.value(search, found), [run.run_id for run in found]
        recording.metrics({"objective": value})
        recording.tags |= {"w2s.objective": search.objective, "w2s.used_run_ids": ",".join(used)}
        recording.note(f"{note} Mean over {', '.join(map(results.link, found))}.")
    trial.set_user_attr(RUN, recording.run_id)
    trial.set_user_attr(USED, used)
    return value
