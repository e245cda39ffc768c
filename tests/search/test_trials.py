"""Trials under way: what is begun, reported, pruned, failed and tried again, with runs that cost nothing."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import runs
from w2s_mlflow.exceptions import ConfigError, FailedTrainingError
from w2s_mlflow.search import space as search_space
from w2s_mlflow.search import study as search_study
from w2s_mlflow.search import trials
from w2s_mlflow.search import workers as search_workers
from w2s_mlflow.search.study import StudyTarget
from w2s_mlflow.tracking import heartbeat
from w2s_mlflow.tracking.results import Result


def space(trial: Any) -> dict[str, Any]:
    return {"x": trial.suggest_float("x", 0.0, 1.0)}


def steps(trial: Any) -> dict[str, Any]:
    """Five settings: with `a` there is `b`."""
    if trial.suggest_categorical("kind", ["a", "c"]) == "a":
        return {"b": trial.suggest_int("b", 0, 3)}
    return {"b": -1}


@dataclass
class Told:
    """A run that says a number, or raises."""

    say: Callable[[], float]
    stage: str = "told"
    config: Any = None

    def run(self) -> Result:
        metrics = {"selection/accuracy": self.say()}
        return Result("0" * 32, "told", "told", "", "", {}, metrics, {}, 0.0, reused=False)


@pytest.fixture(autouse=True)
def here(experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment, and studies of this test alone."""
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "scratch"))


def searching(draws: Callable[[Any], dict[str, Any]] = space) -> search_space.Search:
    module = ModuleType("search")
    vars(module).update(SETTING={}, PROXY=[{}], space=draws)
    return search_space.load_search("searching", module, "", None)


def brought(
    wanted: StudyTarget,
    say: Callable[[Mapping[str, Any], int], float],
    draws: Callable[[Any], dict[str, Any]] = space,
    of: int = 2,
) -> optuna.Study:
    """The study after `trials.run`, a trial being the mean of `say(options, place)` over places."""
    search = searching(draws)
    study = search_study.open_study(search, wanted, "digest", of)

    def jobs(given: Mapping[str, Any]) -> list[Any]:
        return [Told(lambda place=place: say(given, place)) for place in range(of)]  # type: ignore[misc]

    with search_workers.worker_pool(1) as workers:
        trials.run(study, search, wanted, jobs, workers)
    return study


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials()]


def test_a_grid_tries_each_setting_once_and_ends_by_itself() -> None:
    study = brought(StudyTarget(sampler="grid", trials=None), lambda given, place: float(given["b"]), steps, of=1)
    tried = sorted(trial.user_attrs[search_study.PARAMS]["b"] for trial in search_study.finished_trials(study))
    assert tried == [-1, 0, 1, 2, 3] and study.best_value == 3
    assert (
        brought(StudyTarget(sampler="grid", trials=None), lambda *_: math.nan, steps, of=1).best_value == 3
    )  # nothing is left


def test_options_that_come_to_nothing_cost_one_trial_and_are_not_tried_again() -> None:
    def say(given: Mapping[str, Any], place: int) -> float:
        if given["x"] < 0.5:
            raise FailedTrainingError("diverged")
        return float(given["x"])

    study = brought(StudyTarget(trials=8, sampler="random"), say)
    assert sorted(set(states(study))) == ["COMPLETE", "FAIL"] and len(states(study)) == 8
    assert all((trial.params["x"] < 0.5) == (trial.state == TrialState.FAIL) for trial in study.get_trials())
    failed = [run for run in runs() if run.data.tags.get(trials.STATE) == "failed"]
    assert len(failed) == states(study).count("FAIL") and {run.info.status for run in failed} == {"FAILED"}
    assert search_study.best(study)["x"] == study.best_value


def test_where_all_trials_fail_the_sentence_says_as_what_and_the_study_can_be_gone_on_with() -> None:
    def diverges(*_: object) -> float:
        raise FailedTrainingError("its training diverged")

    study = brought(StudyTarget(trials=3), diverges)
    with pytest.raises(
        ConfigError,
        match="none of the 3 ended trials of study searching-digest is complete; last training error: its training diverged",
    ):
        search_study.best(study)
    assert search_study.best(brought(StudyTarget(trials=4), lambda given, place: 1.0))


def test_a_pruner_ends_a_trial_before_its_last_run() -> None:
    asked: list[tuple[float, int]] = []

    def say(given: Mapping[str, Any], place: int) -> float:
        asked.append((given["x"], place))
        return float(len({x for x, _ in asked}) <= 6)  # the first five are the median's own; the seventh is hopeless

    study = brought(StudyTarget(trials=7, pruner="median"), say, of=3)
    assert states(study) == ["COMPLETE"] * 6 + ["PRUNED"]
    assert len(asked) == 6 * 3 + 1
    (pruned,) = [run for run in runs() if run.data.tags.get(trials.STATE) == "pruned"]
    assert "objective" not in pruned.data.metrics and pruned.data.metrics["intermediate"] == 0
    assert pruned.info.status == "FINISHED"


def test_wilcoxon_compares_run_by_run() -> None:
    """Means so far would not tell the trials apart: each run is much harder or easier than the others."""
    easy = [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]
    first: list[float] = []

    def say(given: Mapping[str, Any], place: int) -> float:
        first.append(given["x"])
        return easy[place] - float(given["x"] != first[0])

    study = brought(StudyTarget(trials=2, pruner="wilcoxon"), say, of=len(easy))
    assert states(study) == ["COMPLETE", "PRUNED"]
    assert len(study.get_trials()[1].intermediate_values) < len(easy)


@pytest.mark.slow
def test_hyperband_prunes_some_and_finishes_some() -> None:
    study = brought(StudyTarget(trials=12, pruner="hyperband"), lambda given, place: given["x"] + place, of=9)
    assert {"COMPLETE", "PRUNED"} == set(states(study))


def test_of_a_pruner_that_has_no_name_nothing_is_made() -> None:
    with pytest.raises(ConfigError, match="--sampler must be one of grid, random, tpe"):
        brought(replace(StudyTarget(), sampler="none"), lambda *_: 0.0)


def test_two_that_draw_from_one_study_make_no_trial_too_many_and_none_twice() -> None:
    """The number of a trial decides whether it is one too many, whoever asks when."""
    search, wanted, drawn = searching(), StudyTarget(trials=6), []
    both = [search_study.open_study(search, wanted, "digest", 1) for _ in range(2)]

    def draw(study: optuna.Study) -> None:
        while search_study.below_trial_limit(study, wanted):
            if asked := search_study.ask(study, search, wanted):
                drawn.append(asked[1]["x"])
                search_study.tell(study, asked[0].number, asked[1]["x"], "complete")

    threads = [threading.Thread(target=draw, args=(study,)) for study in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == len(set(drawn)) == 6 and len(search_study.finished_trials(both[0])) == 6


def test_a_trial_that_was_given_up_is_tried_again_with_its_options_once() -> None:
    search, wanted = searching(), StudyTarget(trials=2)
    study = search_study.open_study(search, wanted, "digest", 1)
    asked = search_study.ask(study, search, wanted)
    assert asked is not None
    for _ in range(2):  # as two processes would
        search_study.fail_and_requeue(study, asked[0].number, asked[0].params)
    assert states(study) == ["FAIL", "WAITING"]
    again = search_study.ask(study, search, wanted)
    assert again is not None and again[1] == asked[1]
    assert not search_study.tell(study, asked[0].number, 1.0, "complete")  # whoever was only asleep comes too late
    assert states(study) == ["FAIL", "RUNNING"]


def test_a_trial_without_an_owner_is_dead_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    study = search_study.open_study(searching(), StudyTarget(), "digest", 1)
    study.ask()
    search_study.cleanup_once(study)
    assert states(study) == ["RUNNING"]
    monkeypatch.setattr(search_study, "REGISTRATION_TIMEOUT", -1.0)
    search_study.cleanup_once(study)
    assert states(study) == ["FAIL"]


def test_runs_of_dead_processes_are_ended_though_another_process_starts_the_next_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    study = search_study.open_study(searching(), StudyTarget(), "digest", 1)
    study.ask().set_user_attr(search_study.OWNER, f"{heartbeat._machine()}:{2**22 + 1}:1")
    cleanups: list[int] = []
    monkeypatch.setattr(heartbeat, "kill_orphans", lambda: cleanups.append(1))
    monkeypatch.setattr(optuna.storages, "fail_stale_trials", lambda study: study.ask())  # as another process would
    search_study.cleanup_once(study)
    assert states(study) == ["FAIL", "RUNNING"] and cleanups == [1]


def test_a_study_by_name_is_refused_to_another_space() -> None:
    named = StudyTarget(study="mine")
    search_study.open_study(searching(), named, "one", 1)
    search_study.open_study(searching(), named, "one", 1)
    with pytest.raises(
        ConfigError, match=r"--study must be a new name, because the existing study has another space.*got 'mine'"
    ):
        search_study.open_study(searching(), named, "another", 1)


def test_time_that_is_over_begins_no_trial() -> None:
    study = brought(StudyTarget(trials=5, seconds=1e-9), lambda *_: 0.0)
    assert states(study) == []


def test_an_error_of_the_server_leaves_the_trial_to_be_tried_again() -> None:
    def fails(given: Mapping[str, Any], place: int) -> float:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        brought(StudyTarget(trials=2), fails)
    study = search_study.open_study(searching(), StudyTarget(trials=2), "digest", 1)
    assert states(study) == ["FAIL", "WAITING"]
    after = brought(StudyTarget(trials=2), lambda given, place: given["x"])
    assert states(after) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert after.get_trials()[0].params == after.get_trials()[1].params
