"""What supervisor, ceiling and student share: their options, a split, a fitted head, and the run that records them.

Students are given examples without labels and soft labels by id; gold is read here only through `split.gold`, which counts.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from w2s_mlflow import config as options
from w2s_mlflow import losses, models, split, tasks
from w2s_mlflow.config import must, unknown
from w2s_mlflow.records import Example, Floats, Gold, Predictions

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.fingerprint import Parts
    from w2s_mlflow.tracking.store import Recorder, Result

LOG = logging.getLogger("w2s_mlflow")
MODULES = ("heads", "train", "predict", "split", "records")
"""The roots of every trained result's source digest, beside its task, its model family and its loss."""
NONE = "-"
"""The parameter of a run that has no such thing (a supervisor has no strong model), so that the UI can group by all."""


class Cutting(Protocol):
    """The options that cut a task."""

    @property
    def task(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def train_size(self) -> int | None: ...
    @property
    def test_size(self) -> int | None: ...


@dataclass(frozen=True, kw_only=True)
class Training:
    """The options of every stage that trains."""

    task: str = "chess"
    """What is learned: a task of tasks/, such as chess or chess_preference."""
    seed: int = 0
    """Seeds the cut of the training part, new weights, the order of batches and dropout."""
    train_size: int | None = None
    """Rows of the training part drawn by the seed, supervision and transfer together; none takes the task's own."""
    test_size: int | None = None
    """At most so many test rows, the same for every seed; none takes the task's own."""
    head: str | None = None
    """How the model answers: choose, classify or compare; none takes the task's own."""
    epochs: int = 2
    """Passes over the training half."""
    batch_size: int = 32
    """Examples in one optimizer step."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW; none takes the model's own."""

    MODEL: ClassVar[str]
    """The field that names the model which is trained."""

    def __post_init__(self) -> None:
        task = tasks.find(self.task)
        models.find(getattr(self, self.MODEL), self.MODEL)
        if self.head is not None and self.head not in ("choose", "classify", "compare"):
            raise unknown("--head", self.head, ("choose", "classify", "compare"))
        if self.head is not None and self.head != task.head and "compare" in (self.head, task.head):
            raise must("head", f"{task.head} for the task {task.name}", self.head)
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise must(name, "at least 1", getattr(self, name))
        for name in ("train_size", "test_size"):
            if (size := getattr(self, name)) is not None and size < 1:
                raise must(name, "at least 1", size)
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise must("learning_rate", "a positive, finite number", self.learning_rate)
        if not 0 <= self.seed < 2**32:
            raise must("seed", "in [0, 2^32)", self.seed)

    def resolved(self) -> Self:
        """The same with every `none` replaced by what the task and the model say."""
        task, rung = tasks.find(self.task), self.rung()
        return replace(
            self,
            train_size=self.train_size or task.train_size,
            test_size=self.test_size or task.test_size,
            head=self.head or task.head,
            learning_rate=self.learning_rate or rung.learning_rate,
        )

    def rung(self) -> models.Rung:
        """The model that is trained."""
        return models.find(getattr(self, self.MODEL), self.MODEL)

    def shared(self) -> dict[str, Any]:
        """What a stage hands on to the stages it needs: the same task, seed, sizes and head, nothing of its method."""
        return {name: getattr(self, name) for name in ("task", "seed", "train_size", "test_size", "head")}


@dataclass(frozen=True, kw_only=True)
class GoldTraining(Training):
    """The options of the stages that train on ground truth: supervisor and ceiling."""

    early_stopping: str = "gold"
    """gold: stop at the first epoch that is no better on the validation slice, best weights back; none: all epochs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.early_stopping not in ("gold", "none"):
            raise unknown("--early-stopping", self.early_stopping, ("gold", "none"))


@dataclass(frozen=True)
class Labelled:
    """Examples with the soft labels they are trained on, row for row."""

    examples: Sequence[Example]
    labels_NC: Floats


def cut(config: Cutting) -> split.Split:
    """The split of one stage's run, with a ledger of its own. Raises ConfigError for sizes the task does not have."""
    assert config.train_size is not None and config.test_size is not None
    found, labels = _cut(config.task, config.seed, config.train_size, config.test_size)
    return replace(found, gold=Gold(labels))


def build_head(config: Training, *, pretrained: bool = True) -> Head:
    """The seeded model with its head; the seed is set first, so new weights are covered by it."""
    from w2s_mlflow import heads, train

    train.seed_everything(config.seed)
    train.use_threads(config.rung().parameters)
    model, tokenizer = models.load(config.rung(), pretrained=pretrained)
    return heads.build(str(config.head), model, tokenizer, tasks.find(config.task).classes)


def fit_on_gold(config: GoldTraining, cut: split.Split, half: str, reason: str, recorder: Recorder) -> Head:
    """A head fitted on the ground truth of one half, `supervision` or `transfer`; each label read is counted."""

    def gold(examples: Sequence[Example]) -> Labelled:
        labels_N = cut.gold.read(examples, split=half, reason=reason)
        return Labelled(examples, np.eye(tasks.find(config.task).classes, dtype=np.float32)[labels_N])

    head = build_head(config)
    slice_ = getattr(cut, f"{half}_validation")
    validation = gold(slice_) if config.early_stopping == "gold" else None
    fit_head(head, config, gold(getattr(cut, half)), validation, recorder)
    recorder.predictions("validation", predictions(head, slice_))
    return head


def fit_head(
    head: Head,
    config: Training,
    training: Labelled,
    validation: Labelled | None,
    recorder: Recorder,
    loss: str = "cross_entropy",
    loss_options: Mapping[str, Any] | None = None,
) -> None:
    """Train `head` on `training`; stop early by agreement with the labels of `validation`, if given. Logs the curve."""
    from w2s_mlflow import metrics, predict, train

    assert config.learning_rate is not None
    plugin = options.plugin("losses", loss, "--loss")
    chosen = losses.resolve(plugin.Options(**(loss_options or {})), large=config.rung().large)
    watched = head.encode(validation.examples) if validation else None

    def validate() -> float:
        assert validation is not None and watched is not None
        score = metrics.agreement_score(predict.probabilities(head, watched), validation.labels_NC)
        recorder.metrics({"validation/agreement": score}, step=done[0])
        return score

    done = [0]

    def report(step: int, steps: int, values: dict[str, float]) -> None:
        done[0] = step
        recorder.metrics(values, step)

    fitted = train.fit(
        head,
        head.encode(training.examples),
        training.labels_NC,
        lambda logits, labels, progress: plugin.loss(logits, labels, progress, chosen),
        train.Options(epochs=config.epochs, batch_size=config.batch_size, learning_rate=config.learning_rate, seed=config.seed),
        validate=validate if validation else None,
        report=report,
    )
    recorder.metrics({"train/steps": fitted.steps, "train/tokens": fitted.tokens, "train/best_epoch": fitted.best_epoch + 1})


def predictions(head: Head, examples: Sequence[Example]) -> Predictions:
    """The head's probabilities on `examples`, without gold."""
    from w2s_mlflow import predict

    return predict_table(examples, predict.probabilities(head, head.encode(examples)))


def predict_table(examples: Sequence[Example], probabilities_NC: Floats) -> Predictions:
    """A table of predictions, row for row with `examples`."""
    ids, groups = (tuple(getattr(example, name) for example in examples) for name in ("id", "group"))
    return Predictions(ids, groups, probabilities_NC)


def record_test(head: Head, cut: split.Split, recorder: Recorder) -> None:
    """The evaluator's step after fitting: store predictions on `selection`, and on `test` with its gold, and score them."""
    recorder.predictions("selection", predictions(head, cut.selection))
    score_test(predictions(head, cut.test), cut, recorder)


def score_test(found: Predictions, cut: split.Split, recorder: Recorder) -> None:
    """Store predictions on `test` with its gold, with the ledger of gold reads, and log their metrics."""
    from w2s_mlflow import metrics

    gold_N = cut.gold.read(cut.test, split="test", reason="report")
    recorder.predictions("test", found.with_gold(gold_N))
    values = metrics.report(found.probabilities_NC, gold_N)
    recorder.metrics({f"test/{name}": value for name, value in values.items()})
    recorder.json("gold_reads.json", cut.gold.ledger())


def parts(
    stage: str, version: int, config: Training, cut: split.Split, inputs: Mapping[str, Result], roots: Sequence[str]
) -> Parts:
    """The parts of this result's fingerprint."""
    from w2s_mlflow.tracking import fingerprint

    rung = config.rung()
    modules = (*MODULES, f"tasks.{tasks.find(config.task).family}", f"models.{rung.family}", *roots)
    return fingerprint.Parts(
        stage=stage,
        version=version,
        options=options.result_options(config),
        data=cut.digest,
        inputs={role: result.fingerprint for role, result in inputs.items()},
        libraries=fingerprint.libraries(),
        source=fingerprint.source(modules),
        weights=models.revision(rung),
    )


def produce(
    parts: Parts,
    config: Cutting,
    cut: split.Split,
    labels: Mapping[str, str],
    note: str,
    make: Callable[[Recorder], None],
    tags: Mapping[str, str] | None = None,
) -> Result:
    """The result with this fingerprint: a finished run if there is one, else a new run made by `make`.

    Args:
        labels: `weak`, `strong` and `method` as the UI shows and groups them; NONE where a stage has no such thing.
        tags: more tags, such as the run ids of the inputs.
    """
    from w2s_mlflow.tracking import store

    if found := store.find(parts.digest()):
        LOG.debug("reused  %s", found.name)
        return found
    identity = {"task": config.task, "seed": str(config.seed), **labels}
    marks = {f"w2s.{key}": value for key, value in identity.items()} | dict(tags or {})
    name = run_name(parts.stage, identity)
    with store.recording(name, parts, options.flat(config) | identity, marks, note) as recorder:
        recorder.dataset(config.task, cut.digest, tasks.find(config.task).source, sizes(cut))
        make(recorder)
    found = store.get(recorder.run_id)
    LOG.info("trained %s in %.1f s: test accuracy %.3f", name, found.seconds, found.metrics["test/accuracy"])
    return found


def run_name(stage: str, identity: Mapping[str, str]) -> str:
    """`student sst2 gpt2->gpt2-large confidence seed 0`."""
    models_ = "->".join(name for name in (identity["weak"], identity["strong"]) if name != NONE)
    method = "" if identity["method"] in (stage, NONE) else identity["method"]
    return " ".join(word for word in (stage, identity["task"], models_, method, f"seed {identity['seed']}") if word)


def sizes(cut: split.Split) -> dict[str, int]:
    """The rows in each part of a split."""
    names = ("supervision", "supervision_validation", "transfer", "transfer_validation", "selection", "test")
    return {name: len(getattr(cut, name)) for name in names}


@functools.lru_cache(maxsize=8)
def _rows(task: str) -> tasks.Rows:
    return tasks.find(task).load()


@functools.lru_cache(maxsize=32)
def _cut(task: str, seed: int, train_size: int, test_size: int) -> tuple[split.Split, dict[str, int]]:
    rows = _rows(task)
    found = split.cut(task, rows, seed=seed, train_size=train_size, test_size=test_size)
    return found, {row.example.id: row.label for row in (*rows.train, *rows.heldout)}
