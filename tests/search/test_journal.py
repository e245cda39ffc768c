"""The journal of a study: what is read of it was written to it, and what it has lost comes from the runs of the trials."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import runs
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.search import restore
from w2s_mlflow.search.journal import Journal
from w2s_mlflow.tracking import lifecycle

LOGS: list[dict[str, Any]] = [{"op_code": code, "value": -0.03} for code in range(4)]
damage = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def filled(file: Path) -> bytes:
    """A journal with all of LOGS; its content."""
    for path in file.parent.glob(f"{file.name}*"):
        path.unlink()
    Journal(file).append_logs(LOGS)
    return file.read_bytes()


def test_processes_read_what_others_append(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "j"), Journal(tmp_path / "j")
    first.append_logs(LOGS[:2])
    assert list(second.read_logs(0)) == LOGS[:2]
    second.append_logs(LOGS[2:])
    assert list(first.read_logs(1)) == LOGS[1:] and list(first.read_logs(4)) == []


@damage
@given(position=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_ends_in_a_new_journal_or_costs_the_last_record(position: float, flip: int, tmp_path: Path) -> None:
    content = bytearray(filled(tmp_path / "j"))
    place = int(position * len(content))
    content[place] ^= flip
    (tmp_path / "j").write_bytes(content)
    read = list(Journal(tmp_path / "j").read_logs(0))
    aside = tmp_path / "j.damaged"
    assert (read, aside.exists()) in (([], True), (LOGS[:-1], False))
    assert not aside.exists() or aside.read_bytes() == content


@damage
@given(length=st.floats(0, 1, exclude_max=True))
def test_a_journal_that_is_cut_short_goes_on_from_the_record_before(length: float, tmp_path: Path) -> None:
    content = filled(tmp_path / "j")
    cut = content[: int(length * len(content))]
    (tmp_path / "j").write_bytes(cut)
    journal = Journal(tmp_path / "j")
    whole = LOGS[: cut.count(b"\n")]
    assert list(journal.read_logs(0)) == whole
    journal.append_logs(LOGS[:1])
    assert list(Journal(tmp_path / "j").read_logs(0)) == [*whole, LOGS[0]]


def test_a_journal_that_is_damaged_while_it_is_used_ends_the_search_in_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "j"
    filled(file)
    journal = Journal(file)
    with file.open("ab") as opened:
        opened.write(b"rubbish\n")
    with pytest.raises(ConfigError, match="start the search again"):
        list(journal.read_logs(0))
    Journal(file)
    with pytest.raises(ConfigError, match="start the search again"):
        journal.append_logs(LOGS)


def opened(file: Path, name: str) -> optuna.Study:
    file.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(Journal(file))
    return optuna.create_study(storage=storage, study_name=name, load_if_exists=True)


def trial(study: optuna.Study, state: str | None) -> None:
    """A trial with its run; a process that is killed before the last step leaves the trial without a `state`."""
    asked = study.ask()
    asked.suggest_float("lr", 0, 1)
    value = asked.suggest_categorical("kind", ["a", "b"]) == "b"
    with lifecycle.plain(f"trial {asked.number}", "trial", {}, "") as recording:
        asked.set_user_attr(restore.RUN, recording.run_id)
        asked.report(float(value), 1)
        recording.metrics({"objective": float(value)})
        recording.tags |= {restore.STUDY: study.study_name, restore.STATE: "complete"}
        recording.json(restore.ARTIFACT, restore.describe(asked, float(value), "complete", {"used": ["x"]}))
    if state:
        study.tell(asked, float(value))


@pytest.mark.usefixtures("experiment")
def test_a_lost_journal_is_made_anew_from_the_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = opened(tmp_path / "j", "lost")
    trial(study, "complete")
    trial(study, "complete")
    expected = [(one.number, one.params, one.value, one.intermediate_values) for one in study.get_trials()]
    assert restore.add_missing(study) == 0
    content = bytearray((tmp_path / "j").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "j").write_bytes(content)
    with caplog.at_level(logging.WARNING, logger="w2s_mlflow"):
        anew = opened(tmp_path / "j", "lost")
    assert "made anew from the runs" in caplog.text
    assert restore.add_missing(anew) == 2 and restore.add_missing(anew) == 0
    found = [(one.number, one.params, one.value, one.intermediate_values) for one in anew.get_trials()]
    assert [str(one) for one in found] == [str(one) for one in expected]
    assert len(runs()) == 2


@pytest.mark.usefixtures("experiment")
def test_a_trial_whose_process_was_killed_after_its_run_has_the_value_of_its_run(tmp_path: Path) -> None:
    study = opened(tmp_path / "j", "killed")
    trial(study, None)
    (left,) = study.get_trials()
    assert restore.outcome(left) in ((0.0, "complete"), (1.0, "complete"))
    study.set_user_attr("other", 1)
    assert restore.outcome(optuna.trial.create_trial(value=0.0)) is None
