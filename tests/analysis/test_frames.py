"""The frames of an analysis: what is derived from a task's name."""

from __future__ import annotations

import dataclasses

import pytest

from w2s_mlflow import tasks
from w2s_mlflow.analysis import frames


@pytest.mark.parametrize(
    ("task", "domain"),
    [
        *(("chess", "chess"), ("puzzles", "chess"), ("chess_preference", "reward modelling")),
        *(("hh_rlhf", "reward modelling"), ("sst2", "NLP"), ("a task that no longer exists", "NLP")),
    ],
)
def test_a_task_has_one_of_the_papers_domains(task: str, domain: str) -> None:
    assert frames._domain.__wrapped__(task) == domain


def test_a_chess_task_stays_in_its_domain_with_the_head_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(tasks.find("chess"), head="reward")
    monkeypatch.setattr(tasks, "find", lambda name: spec)
    assert frames._domain.__wrapped__("chess") == "chess"
