"""A rule of the task: scored as a control, and in the place of a supervisor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conftest import SMALL
from w2s_mlflow import tasks
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.stages import analyze, facilitate, rule, student, supervisor
from w2s_mlflow.tracking import results

pytestmark = pytest.mark.usefixtures("experiment")

RULES = tasks.find("chess").rules
NAME = next(iter(RULES))


def config(**options: Any) -> student.Config:
    return student.Config(strong="chess-43k", early_stopping="none", **SMALL | {"weak": f"rule:{NAME}"} | options)


@pytest.mark.shared
def test_a_student_of_a_rule_is_held_against_the_rules_answers() -> None:
    found = student.run(config())
    weak = results.get(found.tags["w2s.weak_run_id"])
    alone = rule.run(rule.Config(rule=NAME, test_size=SMALL["test_size"]))
    assert found.params["weak"] == weak.params["weak"] == f"rule:{NAME}" and weak.stage == "supervisor"
    assert weak.metrics["test/accuracy"] == alone.metrics["test/accuracy"] == found.metrics["test/weak_accuracy"]
    cut = loading.resolve_and_split(config().resolved())[1]
    examples = cut.transfer + cut.transfer_validation
    labels_NC = weak.weak_labels().of([example.id for example in examples])
    np.testing.assert_array_equal(labels_NC, np.eye(2)[[RULES[NAME](example) for example in examples]])
    assert "test/ceiling_accuracy" in found.metrics and {"w2s.gold", "w2s.pgr_status"} & found.tags.keys() == {"w2s.pgr_status"}
    assert student.run(config()).reused


@pytest.mark.shared
def test_noise_is_matched_to_the_rule_and_tables_hold_it() -> None:
    plain, noise = (student.run(config(method=method)) for method in ("baseline", "matched_noise"))
    assert plain.tags["w2s.weak_run_id"] == noise.tags["w2s.weak_run_id"] and noise.tags["w2s.gold"] == "transfer"
    text = analyze.run(analyze.Config()).artifact("tables/imitation.csv").read_text()
    assert f"rule:{NAME}" in text and "matched_noise" in text


def test_the_stage_supervisor_takes_a_rule_and_labels_other_rows_for_another_seed() -> None:
    found = [supervisor.run(supervisor.Config(weak=f"rule:{NAME}", seed=seed, **SMALL)) for seed in (0, 1)]
    assert found[0].fingerprint != found[1].fingerprint
    assert set(found[0].weak_labels().ids) != set(found[1].weak_labels().ids)
    assert not [
        name for run in found for name in run.metrics if name.startswith(("train/", "gold/transfer", "gold/supervision"))
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weak": "rule:none"}, r"^--weak must be one of .*rule:.*, got 'rule:none'"),
        ({"weak": f"rule:{NAME}", "calibrate": True}, r"^--weak must be a model with --calibrate, .*, got rule:"),
        ({"weak": f"rule:{NAME}", "method": "bootstrap"}, r"^--chain must be names of models with --weak rule:.*, got auto$"),
    ],
)
def test_what_a_rule_cannot_do_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**options)


def test_a_rule_cannot_be_taught() -> None:
    with pytest.raises(ConfigError, match=r"^--weak must be a model, because a rule cannot be taught, got rule:"):
        facilitate.Config(weak=f"rule:{NAME}", **SMALL)
