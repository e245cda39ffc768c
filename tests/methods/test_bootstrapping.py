"""Bootstrapping (Algorithm 5): the order of links, whose labels each learns, at which rate, and from which weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import SMALL, runs
from tests.models.test_hub import made, write
from w2s_mlflow import models
from w2s_mlflow.data import loading
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.figures._chain import figure
from w2s_mlflow.methods import bootstrapping, chain_models, presets
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.stages import student
from w2s_mlflow.tracking import planning, results, session
from w2s_mlflow.tracking.results import Result

NAMES = ("small", "middle")

# --- the walk ---------------------------------------------------------------------------------------------------------


def walked(rounds: int, best: str, each_round: str | None = None) -> tuple[list[str], str]:
    """The links as text, "middle(small(weak))" being middle on the labels of small on those of weak."""

    def fit(name: str, position: int, before: str) -> str:
        assert position == {"small": 0, "middle": 1, "strong": 2}[name]
        return f"{name}({before})"

    def choose(links: Sequence[str]) -> str:
        return next(link for link in links if link.startswith(best))

    return bootstrapping.run_chain(NAMES, rounds, "weak", fit, choose, each_round)


def test_a_round_goes_through_all_models_and_the_next_starts_from_the_best() -> None:
    one, two = "small(weak)", "middle(small(weak))"
    assert walked(1, "middle") == ([one, two], two)
    assert walked(2, "small") == ([one, two, f"small({one})", f"middle(small({one}))"], f"small({one})")
    links, last = walked(3, "middle")
    assert len(links) == 6 and last == "middle(small(middle(small(middle(small(weak))))))"


def test_to_the_letter_the_strong_model_is_fitted_in_each_round_and_labels_for_the_next() -> None:
    links, last = walked(2, "middle", "strong")
    strong = "strong(middle(small(weak)))"
    assert links == ["small(weak)", "middle(small(weak))", strong, f"small({strong})", f"middle(small({strong}))"]
    assert last == links[-1]  # the last fit of the strong model is the student itself


def test_two_models_of_the_ladder_lie_between() -> None:
    weak, strong = (models.find(name, "x") for name in ("chess-60k", "chess-426k"))
    assert chain_models.between(weak, strong) == ["chess-121k", "chess-222k"]
    assert chain_models.between(models.find("chess-27k", "x"), models.find("chess-60k", "x")) == ["chess-43k"]
    assert chain_models.between(models.find("pythia-14m", "x"), models.find("pythia-12b", "x")) == ["pythia-70m", "pythia-1b"]
    with pytest.raises(
        ConfigError,
        match=r"^--chain must name the models, because no known model .* size between those of chess-222k and chess-426k$",
    ):
        chain_models.between(models.find("chess-222k", "x"), strong)


# --- runs -------------------------------------------------------------------------------------------------------------

GIVEN: dict[str, Any] = SMALL | {
    "weak": "chess-27k",
    "strong": "chess-121k",
    "chain": "chess-43k,chess-60k",
    "chain_rounds": 2,
    "epochs": 1,
}


def config(**options: Any) -> student.Config:
    return student.Config(**GIVEN | options)


def chain_of(found: Result) -> list[Result]:
    return [results.get(run_id) for run_id in found.tags[student.CHAIN].split(",")]


@pytest.mark.shared
@pytest.mark.usefixtures("experiment")
def test_each_link_learns_the_labels_that_the_paper_says() -> None:
    found = student.run(config())
    links, weak = chain_of(found), results.get(found.tags["w2s.weak_run_id"])
    assert [link.params["strong"] for link in links] == ["chess-43k", "chess-60k"] * 2
    learned = [link.tags["w2s.labels_run_id"] for link in links]

    cut = loading.resolve_and_split(config().resolved())[1]
    ids = [example.id for example in cut.transfer_validation]
    original = weak.weak_labels().of(ids).argmax(axis=1)

    def best(of: Sequence[Result]) -> str:
        agreement = [(link.weak_labels().of(ids).argmax(axis=1) == original).mean() for link in of]
        return of[int(np.argmax(agreement))].run_id

    assert learned == [weak.run_id, links[0].run_id, best(links[:2]), links[2].run_id]
    assert found.tags["w2s.labels_run_id"] == best(links[2:])
    for link in links:  # what a link labels with is what it says of transfer
        assert set(link.weak_labels().ids) == {example.id for example in cut.transfer + cut.transfer_validation}
        assert link.metrics["test/agreement"] == pytest.approx(
            (answers(link, found) == answers(weak, found)).mean()
        )  # with the original supervisor
        assert not [name for name in link.metrics if name.startswith("gold/") and "report" not in name]
    assert found.metrics["test/agreement"] == pytest.approx((answers(found, found) == answers(weak, found)).mean())


def answers(result: Result, like: Result) -> Any:
    return result.predictions("test").aligned(like.predictions("test").ids).probabilities_NC.argmax(axis=1)


@pytest.mark.usefixtures("experiment")
@pytest.mark.slow
def test_each_fit_starts_from_pretrained_weights_at_its_models_rate_by_ten_to_its_position(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, float]] = []
    fit_head = finetune.fit_head

    def spy(head: Any, context: Any, *arguments: Any) -> None:
        plain = models.load(context.model, pretrained=True)[0].state_dict()
        for name, tensor in head.model.state_dict().items():
            torch.testing.assert_close(tensor, plain[name], rtol=0, atol=0)
        seen.append((context.model.name, context.options.learning_rate))
        fit_head(head, context, *arguments)

    monkeypatch.setattr(finetune, "fit_head", spy)
    student.run(config(ceiling="none"))
    rates = {name: models.find(name, "x").learning_rate for name in ("chess-27k", "chess-43k", "chess-60k", "chess-121k")}
    a_round = [("chess-43k", rates["chess-43k"]), ("chess-60k", rates["chess-60k"] / 10)]
    assert seen == [("chess-27k", rates["chess-27k"]), *a_round, *a_round, ("chess-121k", rates["chess-121k"] / 100)]
    seen.clear()
    student.run(config(ceiling="none", lr_decay=1.0, learning_rate=1e-3))
    assert seen == [("chess-43k", 1e-3), ("chess-60k", 1e-3)] * 2 + [("chess-121k", 1e-3)]


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_links_are_reused_and_a_longer_chain_goes_on_from_a_shorter() -> None:
    student.run(config(chain="chess-43k", chain_rounds=1))
    before = len(runs())
    again = student.run(config(chain="chess-43k", chain_rounds=1))
    assert again.reused and len(runs()) == before
    longer = student.run(config(chain_rounds=1))
    assert len(runs()) == before + 2  # the second link and the student
    assert chain_of(longer)[0].run_id == chain_of(again)[0].run_id


@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_full_is_all_three_and_each_link_has_the_loss_and_has_read() -> None:
    found = student.run(config(chain=None, weak="chess-43k", chain_rounds=1, method="full"))
    (link,) = chain_of(found)
    assert (found.params["method"], found.params["chain"], found.params["generative_epochs"]) == ("full", "chess-60k", "1")
    for result in (found, link):
        assert result.params["loss"] == "confidence" and "w2s.generative_run_id" in result.tags
    assert link.params["strong"] == "chess-60k" and link.stage == "link"


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.usefixtures("experiment")
def test_the_chain_is_drawn_as_it_went() -> None:
    found = student.run(config())
    links, weak = chain_of(found), results.get(found.tags["w2s.weak_run_id"])
    nodes = bootstrapping._nodes(found, links, weak, "test")
    assert [(node.name, node.column, node.round) for node in nodes] == [
        ("chess-27k", 0, 0),
        ("chess-43k", 1, 0),
        ("chess-60k", 2, 0),
        ("chess-43k", 1, 1),
        ("chess-60k", 2, 1),
        ("chess-121k", 3, 1),
    ]
    by_run = [weak.run_id, *(link.run_id for link in links)]
    assert [by_run[node.learned] for node in nodes if node.learned is not None] == [
        *(link.tags["w2s.labels_run_id"] for link in links),
        found.tags["w2s.labels_run_id"],
    ]
    assert [node.accuracy for node in nodes[1:]] == [fit.metrics["test/accuracy"] for fit in (*links, found)]
    assert [node.agreement for node in nodes[1:]] == [fit.metrics["test/agreement"] for fit in (*links, found)]
    drawn = figure(nodes, "test").axes[0]
    texts = [text.get_text() for text in drawn.texts]
    assert f"chess-27k\naccuracy {weak.metrics['test/accuracy']:.3f}" in texts and "round 2" in texts
    assert found.artifact("figures/chain_test.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("experiment")
def test_a_plan_counts_every_link_and_starts_none() -> None:
    with session.planning() as plan:
        student.run(config())
    assert plan.count(planning.TRAINED) == 1 + 4 + 1 + 1  # supervisor, links, student, ceiling
    assert runs() == []


@pytest.mark.usefixtures("experiment")
def test_a_chain_of_moved_checkpoints_is_the_same_result(tmp_path: Path) -> None:
    place = write(made("llama"), tmp_path / "here" / "mini")
    given = SMALL | {
        "weak": "chess-27k",
        "strong": "chess-43k",
        "head": "classification",
        "chain_rounds": 1,
        "ceiling": "none",
        "epochs": 1,
    }
    first = student.run(student.Config(**given, chain=str(place)))
    moved = place.rename(tmp_path / "mini")
    assert student.run(student.Config(**given, chain=str(moved))).run_id == first.run_id


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"chain": "chess-43k,,chess-60k"},
            "--chain must be comma-separated names of models, got chess-43k,,chess-60k",
        ),
        ({"chain": "chess-44k"}, "--chain must be one of .*chess-43k.*, got 'chess-44k'"),
        ({"chain_rounds": 0}, "--chain-rounds must be"),
        ({"lr_decay": 0.5}, "--lr-decay must be at least 1, got 0.5"),
        ({"chain": None}, "--chain-rounds must be left out without --chain, got 2"),
        ({"labels": "oracle"}, "--chain must be left out unless --labels is weak, got chess-43k,chess-60k"),
        ({"method": "confidence"}, "--chain must be .* under --method confidence"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}"):
        config(**options)


def test_presets_are_told_from_what_they_are_made_of() -> None:
    plain: dict[str, Any] = {"weak": "chess-60k", "strong": "chess-426k"}
    for method in presets.METHODS:
        stopping = {"early_stopping": "none"} if method == "gold_subset" else {}
        resolved = student.Config(**plain | stopping, method=method).resolved()
        assert resolved.method == method and student.Config(**vars(resolved) | {"method": "auto"}).resolved().method == method
    assert student.Config(**plain, method="bootstrap").resolved().chain == "chess-121k,chess-222k"
