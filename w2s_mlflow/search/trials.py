"""Run the trials of a study in this process. Each trial has an MLflow run, which links to the runs that the trial is scored on.

A trial consists of one run per setting and seed of its search. The runs may end in any order but are reported to Optuna in a
fixed order, so that a pruner compares two trials on the same settings and seeds.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from w2s_mlflow.exceptions import ConfigError, FailedTrainingError, first_line
from w2s_mlflow.search import restore, space, storage, study
from w2s_mlflow.search.jobs import Job
from w2s_mlflow.search.space import Search
from w2s_mlflow.search.study import StudyTarget
from w2s_mlflow.search.workers import Workers

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    from tqdm import tqdm

    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

LOG = logging.getLogger("w2s_mlflow")
PLOTS = ("optimization_history", "param_importances", "parallel_coordinate", "slice", "intermediate_values")
BY_NUMBER = ("optimization_history", "intermediate_values")
"""Plots whose x-axis is the number of a trial, or of a run within a trial: their ticks are set to whole numbers."""
PAUSE, ROUND = 1.0, 10.0
"""PAUSE: seconds between two updates of the progress, and between two checks for trials of other processes. ROUND: seconds
between two clean-ups of trials of dead processes."""

Jobs = Callable[[Mapping[str, Any]], Sequence[Job]]


def run(study: optuna.Study, search: Search, target: StudyTarget, jobs: Jobs, workers: Workers) -> None:
    """Run trials until the study, which other processes may share, is finished.

    Trials that are interrupted, for example by Ctrl-C, are retried when the search is next started.

    Args:
        jobs: function that takes the options of a trial and returns its jobs.
        workers: pool that runs the jobs.

    Raises:
        ConfigError: the options of a trial are invalid, or a run does not log the metric of the objective. The study
            can be resumed.
    """
    from tqdm import tqdm

    with tqdm(total=target.trials, unit="trial", dynamic_ncols=True) as bar:
        loop = _TrialLoop(study, search, target, jobs, workers, bar)
        with storage.heartbeat(study, loop.trial_ids):
            try:
                loop.run()
            except BaseException as error:
                loop.abandon(error)
                raise
            finally:
                loop.show()


@dataclass
class _Trial:
    """A running trial.

    Attributes:
        open: stack whose exit closes the trial's MLflow run.
        recording: recorder of the trial's MLflow run.
        note: description of the MLflow run, to which the outcome is added when the trial ends.
        runs: number of runs of the trial.
        results: results of the runs that have ended, by the index of the run.
        reported: number of runs already reported to Optuna.
    """

    trial: optuna.Trial
    open: contextlib.ExitStack
    recording: Recorder
    note: str
    runs: int
    results: dict[int, Result] = field(default_factory=dict)
    reported: int = 0

    def close(self, error: BaseException | None = None) -> None:
        """End the trial's MLflow run, as finished or with an error."""
        self.open.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


@dataclass
class _TrialLoop:
    """Loop that runs the trials of this process."""

    study: optuna.Study
    search: Search
    target: StudyTarget
    jobs: Jobs
    workers: Workers
    bar: tqdm[Any]
    active: dict[int, _Trial] = field(default_factory=dict)
    reused: int = 0
    began: float = field(default_factory=time.monotonic)
    last_cleanup: float = -math.inf
    last_shown: float = -math.inf

    def trial_ids(self) -> list[int]:
        """Return the storage ids of the trials that run in this process."""
        return [active.trial._trial_id for active in list(self.active.values())]

    def run(self) -> None:
        """Start trials and collect the results of their runs until the study is finished."""
        while True:
            self.clean_up()
            while self.workers.pending < self.workers.count and self.start_trial():
                pass
            if self.workers.pending:
                for (number, index), outcome in self.workers.ended(self.show_activity):
                    self.handle_outcome(number, index, outcome)
                if time.monotonic() - self.last_shown > PAUSE:
                    self.show()
            elif not self.wait_for_others():
                return

    def clean_up(self) -> None:
        """Clean up the trials of dead processes, at most once every ROUND seconds."""
        if time.monotonic() - self.last_cleanup > ROUND:
            self.last_cleanup = time.monotonic()
            study.cleanup_once(self.study)

    def wait_for_others(self) -> bool:
        """Wait for other processes to finish their trials.

        Returns:
            False, without waiting, if the time has run out, or if no trial is running and none may start.
        """
        if self.out_of_time() or not (study.running_trials(self.study) or study.below_trial_limit(self.study, self.target)):
            return False
        self.show_activity("waiting for other processes")
        time.sleep(PAUSE)
        return True

    def out_of_time(self) -> bool:
        """Return whether the time limit, after which no trial starts, has passed."""
        return self.target.seconds is not None and time.monotonic() - self.began > self.target.seconds

    def start_trial(self) -> bool:
        """Start one more trial, if the limits allow it; return whether one was started."""
        from w2s_mlflow.tracking import lifecycle

        if self.out_of_time() or not study.below_trial_limit(self.study, self.target):
            return False
        if (sampled := study.ask(self.study, self.search, self.target)) is None:
            return False
        trial, params = sampled
        note = f"Trial {trial.number} of the search `{self.search.name}`, objective `{self.search.objective}`."
        try:
            jobs = list(self.jobs(params))
        except ConfigError:
            study.tell(self.study, trial.number)
            raise
        stack = contextlib.ExitStack()
        recording = stack.enter_context(lifecycle.plain(f"trial {trial.number} {self.search.name}", "trial", params, note))
        recording.tags |= {"w2s.objective": self.search.objective, restore.STUDY: self.study.study_name}
        trial.set_user_attr(study.RUN, recording.run_id)
        self.active[trial.number] = _Trial(trial, stack, recording, note, len(jobs))
        for index, job in enumerate(jobs):
            self.workers.add((trial.number, index), job)
        return True

    def handle_outcome(self, number: int, index: int, outcome: Result | Exception) -> None:
        """Handle the result or the error of one run of a trial."""
        if (trial := self.active.get(number)) is None:
            return  # the trial has been pruned or has failed: ignore its other runs
        if isinstance(outcome, FailedTrainingError):
            self.fail(trial, outcome)
        elif isinstance(outcome, Exception):
            self.discard(trial, outcome)
            raise outcome
        else:
            trial.results[index] = outcome
            self.reused += outcome.reused
            try:
                self.report(trial)
            except ConfigError as error:
                self.discard(trial, error)
                raise

    def report(self, trial: _Trial) -> None:
        """Report results to Optuna, in the order of the runs, up to the first run that has not ended.

        End the trial after its last run, or earlier if the pruner stops it.
        """
        while trial.reported in trial.results:
            mean = space.value(self.search, [trial.results[index] for index in range(trial.reported + 1)])
            last = space.value(self.search, [trial.results[trial.reported]])
            trial.trial.report(last if self.target.pruner == "wilcoxon" else mean, trial.reported)
            trial.recording.metrics({"intermediate": mean}, trial.reported + 1)
            trial.reported += 1
            if trial.reported == trial.runs:
                return self.end(trial, mean, "complete")
            if self.prunes(trial):
                return self.end(trial, mean, "pruned")

    def prunes(self, trial: _Trial) -> bool:
        """Return whether the pruner stops the trial."""
        with storage.suppress_warnings():
            return self.target.pruner != "none" and trial.trial.should_prune()

    def end(self, trial: _Trial, value: float, state: str) -> None:
        """End a trial as complete or pruned: first its MLflow run, then the Optuna trial."""
        from w2s_mlflow.tracking import results

        reported = [trial.results[index] for index in range(trial.reported)]
        used = [result.run_id for result in reported]
        trial.recording.metrics({"objective": value} if state == "complete" else {})
        trial.recording.json(restore.ARTIFACT, restore.describe(trial.trial, value, state, {study.USED: used}))
        trial.recording.tags |= {"w2s.used_run_ids": ",".join(used), restore.STATE: state}
        trial.recording.note(f"{trial.note} {state.capitalize()}: mean over {', '.join(map(results.link, reported))}.")
        trial.close()
        trial.trial.set_user_attr(study.USED, used)
        self._forget(trial)
        study.tell(self.study, trial.trial.number, value if state == "complete" else None, state)

    def fail(self, trial: _Trial, error: FailedTrainingError) -> None:
        """End a trial in which a training failed. The search continues with other trials."""
        trial.recording.tags[restore.STATE] = "failed"
        trial.recording.note(f"{trial.note} Failed: {error}.")
        trial.close(error)
        self._forget(trial)
        trial.trial.set_user_attr(study.ERROR, str(error))
        study.tell(self.study, trial.trial.number)

    def discard(self, trial: _Trial, error: Exception) -> None:
        """End a trial after a ConfigError, without retrying it. After other errors, do nothing: `abandon` ends the trial."""
        if isinstance(error, ConfigError):
            trial.close(error)
            self._forget(trial)
            study.tell(self.study, trial.trial.number)

    def _forget(self, trial: _Trial) -> None:
        del self.active[trial.trial.number]
        self.workers.drop(lambda key: key[0] == trial.trial.number)

    def abandon(self, error: BaseException) -> None:
        """End the running trials and enqueue their options again, so that another process or a later start retries them."""
        for trial in self.active.values():
            with contextlib.suppress(Exception):  # if the server or the database is down, this fails too
                trial.close(error)
                study.fail_and_requeue(self.study, trial.trial.number, trial.trial.params)
        self.active.clear()

    def show_activity(self, activity: str) -> None:
        """Show the current activity beside the progress bar."""
        self.bar.set_description_str(activity)

    def show(self) -> None:
        """Show the progress of the study, including the trials of other processes."""
        import optuna

        self.last_shown = time.monotonic()
        trials = self.study.get_trials(deepcopy=False)
        states = [trial.state for trial in trials]
        self.bar.n = len(study.finished_trials(self.study))
        counts = [f"{states.count(optuna.trial.TrialState.RUNNING)} running", f"{self.reused} runs reused"]
        if failed := sum(study.ERROR in trial.user_attrs for trial in trials):
            counts.append(f"{failed} failed")
        if pruned := states.count(optuna.trial.TrialState.PRUNED):
            counts.append(f"{pruned} pruned")
        if optuna.trial.TrialState.COMPLETE in states:
            counts.insert(0, f"best {self.study.best_value:.4f} of trial {self.study.best_trial.number}")
        self.bar.set_postfix_str(", ".join(counts))


def plot(study: optuna.Study, search: Search, directory: Path) -> None:
    """Write a table of the trials, and those of Optuna's plots in PLOTS that can be drawn.

    A plot cannot be drawn if there are too few trials, or if Optuna does not support the values in a space, such as tuples.
    """
    directory.mkdir(parents=True, exist_ok=True)
    study.trials_dataframe().to_csv(directory / "trials.csv", index=False)
    for name in PLOTS:
        file = directory / f"{name}.png"
        try:
            _draw(study, name, search.metric, file)
        except (ValueError, RuntimeError) as error:  # too few trials
            LOG.debug("the plot %s was left out: %s", name, first_line(error))
        except Exception as error:  # a plot is never worth the result of the search
            LOG.warning("the plot %s was left out, because Optuna cannot draw it: %s", name, first_line(error))
            file.unlink(missing_ok=True)


def _draw(study: optuna.Study, name: str, metric: str, file: Path) -> None:
    """Draw one of Optuna's plots into a file. Names and values of the space are drawn as they are, never as mathematics."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogFormatter, LogFormatterMathtext, MaxNLocator, NullFormatter
    from optuna.visualization import matplotlib as plots

    from w2s_mlflow import figures

    with storage.suppress_warnings(), figures.plain_text():
        try:
            getattr(plots, f"plot_{name}")(study, **({} if name == "intermediate_values" else {"target_name": metric}))
            if name in BY_NUMBER:
                plt.gca().xaxis.set_major_locator(MaxNLocator(integer=True))
            for axis in (axis for axes in plt.gcf().axes for axis in (axes.xaxis, axes.yaxis)):
                if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                    axis.set_major_formatter(LogFormatter())
                    axis.set_minor_formatter(NullFormatter())
            plt.gcf().set_size_inches(12, 5)
            plt.gcf().savefig(file, dpi=120, bbox_inches="tight")
        finally:
            plt.close("all")
