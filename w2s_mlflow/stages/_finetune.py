"""What supervisor, ceiling and student share: a split, a fitted head, and the run that records them.

Students are given examples without labels and soft labels by id; gold is read here only through `split.gold`, which counts.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import config as options
from w2s_mlflow import losses, models, split, tasks
from w2s_mlflow.records import Example, Floats, Gold, Predictions
from w2s_mlflow.stages._options import NONE, Cutting, GoldTraining, Training

if TYPE_CHECKING:
    from w2s_mlflow.heads import Head
    from w2s_mlflow.tracking.fingerprint import Parts
    from w2s_mlflow.tracking.store import Recorder, Result

LOG = logging.getLogger("w2s_mlflow")
MODULES = ("heads", "train", "predict", "split", "records")
"""The roots of every trained result's source digest, beside its task, its model family and its loss."""


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

    def validate(step: int) -> float:
        assert validation is not None and watched is not None
        score = metrics.agreement_score(predict.probabilities(head, watched), validation.labels_NC)
        recorder.metrics({"validation/agreement": score}, step)
        return score

    fitted = train.fit(
        head,
        head.encode(training.examples),
        training.labels_NC,
        lambda logits, labels, progress: plugin.loss(logits, labels, progress, chosen),
        train.Options(epochs=config.epochs, batch_size=config.batch_size, learning_rate=config.learning_rate, seed=config.seed),
        validate=validate if validation else None,
        report=lambda step, steps, values: recorder.metrics(values, step),
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
    name = run_name(parts.stage, identity)
    with store.recording(name, parts, config, identity, tags or {}, note) as recorder:
        recorder.dataset(config.task, cut.digest, tasks.find(config.task).source, sizes(cut))
        make(recorder)
    found = store.get(recorder.run_id)
    LOG.info("trained %s in %.1f s: test accuracy %.3f", name, found.seconds, found.metrics["test/accuracy"])
    return found


def run_name(stage: str, identity: Mapping[str, str]) -> str:
    """`student sst2 gpt2->gpt2-large confidence seed 0`."""
    models_ = "->".join(name for name in (identity["weak"], identity["strong"]) if name != NONE)
    method = "" if identity["method"] in (stage, NONE) else identity["method"]
    seed = "" if identity["seed"] == NONE else f"seed {identity['seed']}"
    return " ".join(word for word in (stage, identity["task"], models_, method, seed) if word)


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
