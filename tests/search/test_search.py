"""A search: its objectives, what its study keeps and goes on from, and what it reads of ground truth."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import SMALL, runs
from w2s_mlflow import config, metrics, registry
from w2s_mlflow.analysis import build
from w2s_mlflow.data import gold
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import process
from w2s_mlflow.records import Gold
from w2s_mlflow.search import grid, samplers, space, sweep_file
from w2s_mlflow.search import study as search_study
from w2s_mlflow.stages import student, sweep
from w2s_mlflow.tracking import heartbeat, planning, results, session
from w2s_mlflow.tracking.backend import server

SPACE = """
SETTING = {"weak": "chess-43k", "strong": "chess-121k", "method": "confidence", "early_stopping": "none", "epochs": 1}
PROXY = [{"weak": "chess-27k", "strong": "chess-60k"}]

def space(trial):
    return {"alpha": trial.suggest_float("a", 0.0, 1.0) / 2, "warmup": trial.suggest_categorical("warmup", [0.0, 0.2])}
"""
WITHOUT_CEILING = SPACE.replace('"epochs": 1', '"epochs": 1, "ceiling": "none"')
RATES = """
SETTING = {"weak": "chess-43k", "strong": "chess-60k", "method": "baseline"}

def space(trial):
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-3, log=True)}
"""
SETTING_OF_RATES = 'SETTING = {"weak": "chess-43k", "strong": "chess-60k", "method": "baseline"}'
SPLITS = ("test", "selection")
SEARCHES = (
    "bootstrap",
    "confidence",
    "full",
    "generative",
    "learning_rate",
    "learning_rate_ceiling",
    "learning_rate_supervisor",
)


@pytest.fixture(autouse=True)
def here(experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment, two search files, studies of this test alone; most of an analysis is the drawing of its figures."""
    monkeypatch.setenv("W2S_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setattr(build, "_figures", lambda *_: [])
    (tmp_path / "space.py").write_text(SPACE)
    (tmp_path / "rates.py").write_text(RATES)


def asked(**given: Any) -> sweep.Config:
    return sweep.Config(**{"sweep": "space.py", "trials": 2, "search_seeds": "7,8", "seeds": "0..1", **SMALL, **given})


def study_of(asked: sweep.Config) -> optuna.Study:
    search = asked.search()
    assert search is not None
    return search_study.open_study(search, asked.study_target(), sweep._study_digest(asked, search), 2)


def drawn(study: optuna.Study) -> list[tuple[Any, Any]]:
    return [(trial.params, trial.value) for trial in study.get_trials(states=(TrialState.COMPLETE,))]


def test_a_search_is_a_run_with_its_trials_below_and_trains_inputs_once(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(WITHOUT_CEILING)
    parent = sweep.run(asked(seeds="0"))
    below = [run for run in runs() if run.data.tags.get("mlflow.parentRunId") == parent.run_id]
    trials = [run for run in below if run.data.tags["w2s.stage"] == "trial"]
    assert len(trials) == 2 and len(below) == len(runs()) - 1
    by_stage = [run.data.tags["w2s.stage"] for run in below]
    # Two seeds of the proxy and a fresh one of the pair that is tuned; of this pair the best setting and the default.
    assert (by_stage.count("supervisor"), by_stage.count("ceiling"), by_stage.count("student")) == (3, 0, 2 * 2 + 2)
    for trial in trials:
        used = [results.get(run_id) for run_id in trial.data.tags["w2s.used_run_ids"].split(",")]
        assert [run.params["seed"] for run in used] == ["7", "8"] and {run.params["strong"] for run in used} == {"chess-60k"}
        assert {run.params["alpha"] for run in used} == {trial.data.params["alpha"]}
        mean = sum(run.metrics["selection/accuracy"] for run in used) / 2
        assert trial.data.metrics["objective"] == pytest.approx(mean) and trial.data.tags["w2s.objective"] == "proxy"
    best = max(trials, key=lambda run: run.data.metrics["objective"])
    assert parent.metrics["search/objective"] == best.data.metrics["objective"] and parent.metrics["search/looks"] == 4
    assert parent.params["best_alpha"] == best.data.params["alpha"]
    assert f"--alpha {best.data.params['alpha']}" in parent.artifact("search/best.txt").read_text()


@pytest.mark.parametrize("objective", ["oracle", pytest.param("proxy", marks=pytest.mark.slow)])
def test_a_search_by_ground_truth_tags_the_runs_of_its_best_setting_and_the_report_says_so(
    objective: str, tmp_path: Path
) -> None:
    proxy = '\nPROXY = [{"weak": "chess-27k", "strong": "chess-43k"}]'
    (tmp_path / "rates.py").write_text(RATES.replace('"baseline"}', '"baseline", "epochs": 1, "ceiling": "none"}' + proxy))
    parent = sweep.run(asked(sweep="rates.py", trials=1, search_seeds="7", seeds="0", objective=objective))
    tagged = [run.data for run in runs() if "w2s.tuned_on_gold" in run.data.tags]
    by_gold = objective == "oracle"
    assert [run.params["learning_rate"] for run in tagged] == [parent.params["best_learning_rate"]] * by_gold
    assert {run.tags["w2s.tuned_on_gold"] for run in tagged} == {parent.tags["w2s.study"]} if by_gold else not tagged
    text = parent.artifact("report.html").read_text()
    assert ("options of 1 student(s) were chosen by ground truth of selection" in text) is by_gold


@pytest.mark.slow
def test_test_is_read_only_for_the_best_setting_and_the_default_over_fresh_seeds() -> None:
    parent = sweep.run(asked())
    students = [run for run in runs() if run.data.tags["w2s.stage"] == "student"]
    seen = {split: {run.data.params["seed"] for run in students if f"{split}/accuracy" in run.data.metrics} for split in SPLITS}
    assert seen == {"test": {"0", "1"}, "selection": {"7", "8"}}
    scores: dict[bool, float] = {True: 0.0, False: 0.0}
    for run in students:
        if run.data.params["seed"] in "01":
            scores[run.data.params["alpha"] == parent.params["best_alpha"]] += run.data.metrics["test/accuracy"] / 2
    assert parent.metrics["test/best_accuracy"] == pytest.approx(scores[True])
    assert parent.metrics["test/default_accuracy"] == pytest.approx(scores[False])
    assert parent.metrics["test/difference"] == pytest.approx(scores[True] - scores[False]) and parent.metrics["test/n"] == 2
    with parent.artifact("tables/pgr.csv").open(newline="") as file:
        assert [row["n"] for row in csv.DictReader(file)] == ["2", "2"]


@pytest.mark.slow
def test_the_second_time_nothing_is_trained_and_more_trials_go_on() -> None:
    first, made = sweep.run(asked(trials=2)), len(runs())
    second = sweep.run(asked(trials=2))
    assert len(runs()) == made + 1 and second.params["best_alpha"] == first.params["best_alpha"]
    sweep.run(asked(trials=3))
    assert len([run for run in runs() if run.data.tags["w2s.stage"] == "trial"]) == 3


@pytest.mark.slow
def test_a_study_that_was_stopped_comes_to_what_one_that_was_not_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = student.run, []

    def stopped(given: student.Config) -> results.Result:
        if session.current().plan is None:
            calls.append(given)
            if len(calls) == 4:  # the second run of the second trial
                raise KeyboardInterrupt
        return run(given)

    monkeypatch.setattr(student, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(asked(trials=3))
    states = [trial.state for trial in study_of(asked()).get_trials()]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, TrialState.WAITING]
    assert {run.info.status for run in runs() if run.data.tags["w2s.stage"] in ("trial", "sweep")} == {"FINISHED", "KILLED"}
    sweep.run(asked(trials=3))
    after = drawn(study_of(asked()))
    monkeypatch.setenv("W2S_SCRATCH", "another")
    sweep.run(asked(trials=3))
    assert drawn(study_of(asked())) == after and len(after) == 3


def test_a_trial_whose_process_is_gone_is_tried_again() -> None:
    study = study_of(asked())
    for owner in (f"{process.machine()}:{2**22 + 1}:1", str(heartbeat.me())):
        trial = study.ask()
        trial.suggest_float("a", 0.0, 1.0)
        trial.set_user_attr(search_study.OWNER, owner)
    again = study_of(asked())
    search_study.cleanup_once(again)
    assert [trial.state for trial in again.get_trials()] == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    assert again.ask().suggest_float("a", 0.0, 1.0) == study.get_trials()[0].params["a"]


@pytest.mark.slow
def test_agreement_reads_no_ground_truth_of_what_is_tuned() -> None:
    parent = sweep.run(asked(sweep="rates.py", objective="agreement", trials=2))
    trials = [run for run in runs() if run.data.tags["w2s.stage"] == "trial"]
    for run_id in ",".join(run.data.tags["w2s.used_run_ids"] for run in trials).split(","):
        used = results.get(run_id)
        assert not [name for name in used.metrics if name.startswith(("gold/", "test/", "selection/"))]
    assert parent.metrics["search/looks"] == 0


@pytest.mark.slow
def test_agreement_is_that_of_the_weights_which_are_kept() -> None:
    given = asked(sweep="rates.py", objective="agreement").search()
    assert given is not None
    (one,) = space.configs(given, {"learning_rate": 1e-2, "epochs": 4}, [2], {"train_size": 1000, "test_size": 100})
    found = student.run(one)
    by_epoch = [point.value for point in server.client().get_metric_history(found.run_id, "validation/agreement")]
    assert by_epoch[-1] < max(by_epoch) == space.value(given, [found])


@pytest.mark.slow
def test_a_plan_counts_what_is_left_and_writes_nothing() -> None:
    def states(given: sweep.Config) -> dict[str, int]:
        with session.planning() as plan:
            sweep.run(given)
        return {state: plan.count(state) for state in (planning.REUSED, planning.TRAINED)}

    whole = 4 + 4 + 2 * 2 + 2 * 2
    assert states(asked()) == {"reused": 0, "trained": whole}
    assert runs() == [] and not Path("scratch").exists()
    sweep.run(asked())
    assert states(asked())["trained"] == 2  # what the best setting is, a plan does not know
    assert states(asked(trials=4))["trained"] == 2 + 2 * 2


def test_another_space_size_or_objective_is_another_study(tmp_path: Path) -> None:
    kinds = [asked(), asked(train_size=100), asked(objective="oracle"), asked(search_seeds="9"), asked(sampler="random")]
    names = {study_of(one).study_name for one in kinds}
    (tmp_path / "space.py").write_text(SPACE.replace("/ 2", "/ 3"))
    names.add(study_of(asked()).study_name)
    assert len(names) == 6


def test_a_study_is_not_gone_on_with_after_its_code_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = study_of(asked()).study_name
    assert study_of(asked()).study_name == before
    monkeypatch.setattr(student, "VERSION", student.VERSION + 1)
    assert study_of(asked()).study_name != before


def test_a_sampler_draws_the_same_for_the_same_number() -> None:
    def draws(name: str, number: int) -> float:
        study = optuna.create_study(sampler=samplers.make_sampler(name, 5, number))
        return study.ask().suggest_float("x", 0, 1, step=0.001)

    for name in samplers.SAMPLERS:
        assert draws(name, 0) == draws(name, 0) != draws(name, 1)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_shipped_search_draws_settings_that_can_be_run(name: str) -> None:
    search = sweep.Config(sweep=name).search()
    assert search is not None and "ground truth" in str(sweep_file.read(name).__doc__)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    for _ in range(30):
        given = space.sample_params(search, study.ask())
        for one in space.configs(search, given, [0], SMALL):
            one.resolved()
        kind = registry.plugin("stages", search.stage, "stage").Config
        assert config.parse(kind, {**search.tuned, **given}).resolved().eval_split == "test"


def test_a_metric_may_be_whatever_a_split_with_gold_is_scored_by() -> None:
    assert set(metrics.METRICS) < set(space.SCORES)


@pytest.mark.parametrize(
    ("metric", "objective", "expected"),
    [
        ("ece", "oracle", "minimize"),
        ("auroc", "oracle", "maximize"),
        ("pgr", "oracle", "maximize"),
        ("ece", "agreement", "maximize"),
    ],
)
def test_the_direction_of_a_search_is_that_of_its_metric_by_default(metric: str, objective: str, expected: str) -> None:
    module = ModuleType("x")
    vars(module).update(METRIC=metric, space=lambda trial: {})
    assert space.load_search("x", module, "", objective).direction == expected
    vars(module).update(DIRECTION="maximize")
    assert space.load_search("x", module, "", objective).direction == "maximize"


def test_every_shipped_file_is_a_grid_or_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, model in {"W2S_TEXT_WEAK": "chess-27k", "W2S_TEXT_STRONG": "chess-43k,chess-60k"}.items():
        monkeypatch.setenv(variable, model)  # instead of models of the hub
    names = {path.stem for path in sweep_file.FOLDER.glob("*.py")}
    assert {name for name in names if sweep.Config(sweep=name).search()} == set(SEARCHES)
    for name in sorted(names - {*SEARCHES, "paper"}):  # the papers' grid is large, and tested below
        assert [grid.job(dict(setting), 0) for setting in grid.settings(name)]


def test_the_papers_grid_has_all_its_tasks_and_every_setting_can_be_run_where_the_data_is() -> None:
    every = [grid.job(dict(setting), 0).config.resolved() for setting in grid.settings("paper")]
    assert len({config.task for config in every}) == 22 + 2
    chained = [config for config in every if config.chain]
    assert {len(config.chain.split(",")) for config in chained} == {1, 2}
    assert len(every) == 24 * 2 * (6 * 3 + 3 * 4)


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        (
            SPACE,
            {"objective": "agreement"},
            "--objective must be proxy or oracle if the space has alpha, warmup",
        ),
        (SPACE, {"objective": "gold"}, "--objective must be one of agreement, auto, oracle, proxy, got 'gold'"),
        (RATES, {}, "--objective proxy needs PROXY"),
        (RATES.replace("learning_rate", "batch_size"), {"objective": "agreement"}, "if the space has batch_size"),
        (SPACE, {"sampler": "cma"}, "--sampler must be one of auto, grid, random, tpe, got 'cma'"),
        (SPACE, {"sampler": "grid"}, r"space\(trial\) failed: ValueError: FloatDistribution.step must be given"),
        (SPACE, {"pruner": "none "}, "--pruner must be one of hyperband, median, none, wilcoxon, got 'none '"),
        (SPACE, {"pruner": "median", "search_seeds": "9"}, "--pruner must be none.* a single run"),
        (SPACE, {"timeout": 0.0}, "--timeout must be above 0, got 0.0"),
        (SPACE, {"workers": 0}, "--workers must be at least 1, got 0"),
        (SPACE, {"storage": "sqlite:///x.db"}, "--storage must be the URL of a database server"),
        (SPACE, {"storage": "postgresql://me:secret@here/x"}, r"--storage must be a URL without a password.*me:\*\*\*@here"),
        (SPACE, {"storage": "postgresql+psycopg2://me@127.0.0.1:9/x"}, "--storage must be a database that can be reached"),
        (SPACE, {"storage": "postgresql://me:s/cr#t@here/x"}, r"--storage must be a URL without a password.*me:\*\*\*@here"),
        (SPACE, {"storage": "postgresql://me@here/x?password=secret"}, r"--storage must be a URL without a password.*=\*\*\*"),
        (SPACE, {"storage": "postgresql://me@here:port/x"}, "--storage must be the URL of a database server"),
        (SPACE, {"study": "../outside"}, "--study must be a name of at most 150 letters, digits, underscores, dots and dashes"),
        (SPACE + "METRIC = 'acuracy'", {}, "METRIC must be one of .*did you mean accuracy"),
        (SPACE.replace('"alpha":', '"seed": 3, "alpha":'), {}, r"space\(trial\) must not return `seed`"),
        ("SETTINGS = ({} for _ in range(2))", {}, r"must define either SETTINGS \(a list of dictionaries"),
        ("SETTINGS = [{1: 2}]", {}, r"must define either SETTINGS \(a list of dictionaries"),
        ("import sys; sys.exit()", {}, "space.py cannot be loaded: SystemExit"),
        (
            "SETTINGS = [{'stage': 'sweep'}]",
            {"trials": None, "search_seeds": None},
            "--stage must be a stage that makes a single",
        ),
        (SPACE, {"trials": 0}, "--trials must be at least 1, got 0"),
        (SPACE, {"search_seeds": "1,2"}, "--search-seeds must be seeds that are not in --seeds.*, got 1"),
        (SPACE, {"search_seeds": "x"}, "--search-seeds must be a range"),
        (SPACE + "STAGE = 'studnet'", {}, "STAGE must be one of .*studnet"),
        (SPACE + "STAGE = 'analyze'", {}, "STAGE must be a stage that stores predictions, got 'analyze'"),
        (SPACE + "DIRECTION = 'up'", {}, "DIRECTION must be one of maximize, minimize, got 'up'"),
        (SPACE + "SETTINGS = [{}]", {}, r"must define either SETTINGS \(a list of dictionaries of options\) or space"),
        (SPACE.replace('"alpha"', '"alhpa"'), {}, "the option must be one of .*did you mean --alpha"),
        (SPACE.replace("0.0, 1.0)", "2.0, 1.0)"), {}, r"space\(trial\) failed: ValueError"),
        (SPACE.replace("0.0, 1.0)", "7.0, 9.0)"), {}, r"--alpha must be in \[0, 1\]"),
        ("SETTINGS = [{}]", {"trials": 3}, "--trials must be left out for space.py, which is a grid, got 3"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_starts(
    text: str, given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "space.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        sweep.run(asked(**given))
    assert runs() == []


def test_an_objective_that_nobody_logs_ends_the_search_and_the_study_stays_usable(tmp_path: Path) -> None:
    (tmp_path / "space.py").write_text(WITHOUT_CEILING + "METRIC = 'pgr'")
    with pytest.raises(ConfigError, match="--objective proxy needs selection/pgr, which run"):
        sweep.run(asked())
    assert [trial.state for trial in study_of(asked()).get_trials()] == [TrialState.FAIL]
    assert {run.info.status for run in runs() if run.data.tags["w2s.stage"] in ("trial", "sweep")} == {"FAILED"}


@pytest.mark.slow
def test_a_supervisor_is_tuned_by_its_own_validation_slice_alone(tmp_path: Path) -> None:
    text = RATES.replace(SETTING_OF_RATES, 'SETTING = {"weak": "chess-27k"}') + 'STAGE = "supervisor"\n'
    (tmp_path / "rates.py").write_text(text)
    parent = sweep.run(asked(sweep="rates.py", objective="agreement", trials=2))
    used = [run for run in runs() if run.data.tags["w2s.stage"] == "supervisor" and run.data.params["seed"] in "78"]
    assert len(used) == 4
    assert not [name for run in used for name in run.data.metrics if name.startswith(("test/", "selection/"))]
    by_rate: dict[str, list[float]] = {}
    for run in used:
        by_rate.setdefault(run.data.params["learning_rate"], []).append(run.data.metrics["validation/accuracy"])
    assert parent.metrics["search/objective"] == pytest.approx(max(sum(values) / 2 for values in by_rate.values()))
    assert parent.metrics["test/n"] == 2


@pytest.mark.slow
def test_gold_of_test_is_not_read_by_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, str]] = []

    class Listening(Gold):
        def read(self, examples: Any, *, split: str, reason: str) -> Any:
            read.append((split, reason))
            return super().read(examples, split=split, reason=reason)

    monkeypatch.setattr(gold, "Gold", Listening)
    monkeypatch.setattr(sweep, "_compare", lambda *_: None)
    sweep.run(asked())
    assert set(read) == {("supervision", "supervision"), ("transfer", "ceiling"), ("selection", "report")}
