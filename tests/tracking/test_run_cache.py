"""What is known here of finished runs follows what is deleted, restored and purged, and no clock that is ahead hides a run."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.conftest import purge
from w2s_mlflow.stages import sweep
from w2s_mlflow.tracking import results, run_cache
from w2s_mlflow.tracking.backend import server

pytestmark = pytest.mark.usefixtures("experiment")


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks agree: else every run of these tests would be asked for again."""
    monkeypatch.setattr(run_cache, "MARGIN", 0)


def now() -> int:
    return int(1000 * time.time())


def run(name: str, end: int = 1000) -> str:
    """A finished run, from long ago; its id."""
    found = server.client().create_run(server.experiment().experiment_id, 0, tags={results.FINGERPRINT: name}, run_name=name)
    server.client().log_text(found.info.run_id, "", "kept.txt")
    server.client().set_terminated(found.info.run_id, end_time=end)
    return str(found.info.run_id)


def known() -> set[str]:
    return {run.name for run in run_cache.finished(server.experiment().experiment_id)}


@pytest.mark.parametrize("seen", [True, False], ids=["known before", "never seen"])
def test_a_restored_run_is_back(seen: bool) -> None:
    run("other")
    restored = run("restored")
    assert not seen or known() == {"other", "restored"}
    server.client().delete_run(restored)
    assert known() == {"other"}
    server.client().restore_run(restored)
    assert known() == {"other", "restored"} == known()


@pytest.mark.filterwarnings("ignore:.*AnyType:UserWarning")
@pytest.mark.parametrize("seen", [True, False], ids=["seen deleted", "purged at once"])
def test_a_purged_run_is_gone(seen: bool, tracking_uri: str) -> None:
    run("other")
    purged = run("purged")
    known()
    server.client().delete_run(purged)
    assert not seen or known() == {"other"}
    purge(purged, tracking_uri)
    assert known() == {"other"} == known()


def test_an_emptied_experiment_keeps_nothing() -> None:
    only = run("only")
    known()
    server.client().delete_run(only)
    assert known() == set() and not run_cache._read(run_cache._file(server.experiment().experiment_id)).rows


def test_a_run_whose_files_alone_are_lost_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    run("kept")
    known()
    monkeypatch.setattr(run_cache, "_is_lost", lambda row: True)
    assert known() == {"kept"}, "an analysis names it"


def test_a_clock_that_is_ahead_hides_no_later_run() -> None:
    run("ahead", now() + 3_600_000)
    known()
    run("later", now() + 1)
    assert known() == {"ahead", "later"}


def test_what_is_known_costs_two_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        run(name)
    known()
    asked: list[str] = []
    search = server.client().search_runs

    def spy(ids: list[str], text: str, *given: Any) -> Any:
        asked.append(text)
        return search(ids, text, *given)

    monkeypatch.setattr(server.client(), "search_runs", spy)
    assert known() == set("abc") and len(asked) == 2


def test_a_grid_with_a_result_that_is_not_known_has_contents() -> None:
    found = results.get(run("a"))
    assert sweep.contents([found], {}) == sweep.contents([found], {"a": found})
