"""Bootstrapping (Algorithm 5): labels pass from the weak supervisor through models of increasing size, in several rounds.

In each round, every intermediate model is finetuned from its pretrained weights on the labels of the previous model, and then
labels `transfer`. The next round starts from the labels of the best intermediate model of the round. Ground truth is not
available, so the best model is the one that agrees most with the original weak labels on the validation split. The strong model
is trained once, after the last round, on the labels of the best intermediate model. With `--strong-each-round`, it is trained
in every round, as in the published Algorithm 5 ("train M_S" is inside the loop), and the next round starts from its labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from w2s_mlflow.config import selected
from w2s_mlflow.methods import chain_models, weak_finetuning
from w2s_mlflow.methods.presets import AUTO
from w2s_mlflow.methods.student_options import ORACLE, Config
from w2s_mlflow.pipeline import context as contexts
from w2s_mlflow.pipeline import finetune, runs, scoring
from w2s_mlflow.pipeline.context import Context

if TYPE_CHECKING:
    from w2s_mlflow.figures._chain import Node
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 2
LABELLER = "w2s.labels_run_id"
"""Tag on the runs of students and of the intermediate models of a chain. Its value is the id of the run that made the training
labels of the model."""

Labeller = TypeVar("Labeller")


def run_chain(
    names: Sequence[str],
    rounds: int,
    start: Labeller,
    fit: Callable[[str, int, Labeller], Labeller],
    best: Callable[[Sequence[Labeller]], Labeller],
    each_round: str | None = None,
) -> tuple[list[Labeller], Labeller]:
    """Train the chain. Return its models in training order, and the model on whose labels the student is finally trained.

    Args:
        names: names of the intermediate models, smallest first.
        rounds: number of rounds.
        start: the weak supervisor, on whose labels the first model is trained.
        fit: function that trains a model. Its arguments are the name of the model, its position in the chain and the model on
            whose labels it is trained.
        best: function that selects the best of the intermediate models of a round.
        each_round: name of the strong model if it is trained at the end of every round, or None if it is trained only once.
    """
    links: list[Labeller] = []
    for round_ in range(rounds):
        round_links, labeller = [], start
        for position, name in enumerate(names):
            labeller = fit(name, position, labeller)
            round_links.append(labeller)
        links += round_links
        start = best(round_links)
        if each_round is not None and round_ < rounds - 1:
            start = fit(each_round, len(names), start)
            links.append(start)
    return links, start


class Chain(NamedTuple):
    """A trained chain: the runs of its models in training order, and the run on whose labels the student is finally trained."""

    links: list[Result]
    labeller: Result


def train_chain(config: Config, context: Context[Config], weak: Result) -> Chain:
    """Find or train the models of a student's chain.

    Args:
        config: the student's options before defaults are filled in, because each chain model has its own defaults.
        context: the student's context.
        weak: the supervisor, on whose labels the first model is trained.
    """
    from w2s_mlflow import metrics

    options = context.options
    ids = [example.id for example in context.split.transfer_validation]

    def fit(name: str, position: int, labeller: Result) -> Result:
        return _train_link(_link_context(config, options, name, position), position, labeller, weak)

    def agreement(link: Result) -> float:
        return metrics.agreement_score(*(runs.weak_labels(run).of(ids) for run in (link, weak)))

    def best(links: Sequence[Result]) -> Result:
        planned_only = not all(link.run_id for link in links)
        # On a tie, max returns the first link, which is the smallest model.
        return links[-1] if planned_only else max(links, key=agreement)

    strong = options.strong if options.strong_each_round else None
    return Chain(*run_chain(chain_models.names(str(options.chain)), int(options.chain_rounds or 1), weak, fit, best, strong))


def _link_context(config: Config, student: Config, name: str, position: int) -> Context[Config]:
    """Return the context for training the model `name` of the bootstrapping chain.

    It is the student's context with this model in place of the strong model, and with the learning rate for this position.
    """
    no_chain: dict[str, Any] = {"chain": None, "chain_rounds": None, "lr_decay": None, "strong_each_round": False}
    shared = selected(student, ("train_size", "test_size", "head", "loss", "generative_epochs", "labels", "weights"))
    changes: dict[str, Any] = {"method": AUTO, "strong": name, "pooling": None, "layer": None, "keep_model": "never"}
    # Chain models must not see ground truth, even if the student uses it for early stopping as a control.
    changes["early_stopping"] = "weak" if student.early_stopping == ORACLE else student.early_stopping
    return decayed(contexts.resolve(replace(config, **no_chain, **shared, **changes)), student, position)


def decayed(context: Context[Config], student: Config, position: int) -> Context[Config]:
    """Return the context with its learning rate divided by lr_decay^position, where lr_decay is an option of `student`."""
    rate = context.options.learning_rate
    assert rate is not None and student.lr_decay is not None
    return replace(context, options=replace(context.options, learning_rate=rate / student.lr_decay**position))


def _train_link(context: Context[Config], position: int, labeller: Result, weak: Result) -> Result:
    """Find or train a chain model on the labels of the run `labeller`. After training, the chain model labels `transfer`."""
    from w2s_mlflow.tracking import results

    options, split = context.options, context.split
    inputs = {"labels": labeller} | weak_finetuning.generative_run(options)
    parts = runs.parts("link", VERSION, context, inputs, weak_finetuning.roots(options))

    def make(recorder: Recorder) -> Head | None:
        labels, transfer = weak_finetuning.weak_labels(labeller, context), split.transfer + split.transfer_validation
        if options.freeze is not None:
            model = weak_finetuning.train_frozen(context, labels, weak_finetuning.start_weights(inputs), recorder)
            recorder.weak_labels(model.predictions(transfer))
            return model.head()
        watched = weak_finetuning.validation_labels(labels, context, recorder)
        head = weak_finetuning.train(context, labels, watched, weak_finetuning.start_weights(inputs), recorder)
        recorder.weak_labels(finetune.predictions(head, transfer, options))
        return head

    name = context.names()["strong"]
    note = f"`{name}` at position {position} of a chain, finetuned on the labels of {results.link(labeller)}."
    link = runs.produce(parts, context, context.names() | {"method": options.method}, note, make, inputs)
    return link if options.eval_split == "none" else scoring.report(link, context, {"weak": weak})


def draw(student: Result, links: Sequence[Result], weak: Result, part: str) -> Result:
    """Attach `figures/chain_<part>.png`, a diagram of the chain with the models' scores on a split, to a student's run."""
    from w2s_mlflow.tracking import reports
    from w2s_mlflow.tracking.reports import Report

    name = f"chain_{part}"

    def report(student: Result) -> Report:
        from w2s_mlflow.figures import _chain, save

        nodes = _nodes(student, links, weak, part)

        def stage(directory: Path) -> None:
            save(lambda: _chain.figure(nodes, part), directory / "figures" / f"{name}.png")

        return Report(stage)

    return reports.attach_once(student, name, report)


def _nodes(student: Result, links: Sequence[Result], weak: Result, part: str) -> list[Node]:
    """Return one node of the diagram per trained model, in training order from supervisor to student.

    Each time the first intermediate model is trained, a new round begins.
    """
    from w2s_mlflow.figures._chain import Node

    trained, strong = [*links, student], student.params["strong"]
    names = [*dict.fromkeys(run.params["strong"] for run in links if run.params["strong"] != strong)]
    columns = {name: column for column, name in enumerate([*names, strong], start=1)}
    numbers = {run.run_id: number for number, run in enumerate([weak, *trained])}
    nodes, round_ = [Node(weak.params["weak"], 0, 0, None, None, weak.metrics.get(f"{part}/accuracy"))], -1
    for run in trained:
        column = columns[run.params["strong"]]
        round_ += column == 1
        values = [run.metrics.get(f"{part}/{name}") for name in ("agreement", "accuracy")]
        nodes.append(Node(run.params["strong"], column, round_, numbers[run.tags[LABELLER]], *values))
    return nodes
