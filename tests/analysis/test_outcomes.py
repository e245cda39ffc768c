"""Rows of the frame `outcomes`: the paper's domain of a task."""

from __future__ import annotations

import dataclasses

import pytest

from w2s_mlflow import tasks
from w2s_mlflow.analysis import outcomes


@pytest.mark.parametrize(
    ("task", "domain"),
    [
        *(("chess", "chess"), ("puzzles", "chess"), ("chess_preference", "reward modelling")),
        *(("hh_rlhf", "reward modelling"), ("sst2", "NLP"), ("a task that no longer exists", "NLP")),
    ],
)
def test_a_task_has_one_of_the_papers_domains(task: str, domain: str) -> None:
    assert outcomes.domain.__wrapped__(task) == domain


def test_a_chess_task_stays_in_its_domain_with_the_head_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = dataclasses.replace(tasks.find("chess"), head="reward")
    monkeypatch.setattr(tasks, "find", lambda name: spec)
    assert outcomes.domain.__wrapped__("chess") == "chess"
