"""Fit linear probes on frozen activations, to measure whether weak-to-strong training makes a concept more salient (Figure 4).

The pretrained strong model and the student process the same examples. The activations of every layer are pooled over tokens in
the same way as for the model's head. A concept is the ground truth of a task. For each concept and layer, a logistic regression
(modeling/logistic.py) is fitted on `supervision` and scored on `test`; its penalty is chosen by cross-validation on the rows
that it is fitted on, and the layer on the validation slice of `supervision`. The control is a second probe, with the same
penalty, which is fitted on shuffled labels. Selectivity is the accuracy of a probe minus that of its control (Hewitt
& Liang 2019).

Metrics, each named `probe/<concept>/<name>`: `before` and `after`, the test accuracy at the chosen layer before and after
training; `gain`, the increase from `before` to `after`, with its interval over test groups, `gain_low` and `gain_high`;
`selectivity`, the selectivity after training; `before_by_layer` and `after_by_layer`, the test accuracy of each layer, with the
layer as the step.
Artifacts: `probes.csv`, one row per concept, layer and model.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from w2s_mlflow import models, streams, tasks
from w2s_mlflow.analysis.stage_tables import PROBES
from w2s_mlflow.config import checked_dataclass, inherited, option
from w2s_mlflow.data import gold
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.local import arrays
from w2s_mlflow.pipeline import finetune, runs
from w2s_mlflow.pipeline.context import Context, resolve
from w2s_mlflow.records import Floats, Ints, canonical_json
from w2s_mlflow.stages import student

if TYPE_CHECKING:
    from w2s_mlflow.modeling.heads import Head
    from w2s_mlflow.modeling.logistic import Classifier
    from w2s_mlflow.tracking.fingerprint import FingerprintParts
    from w2s_mlflow.tracking.recorder import Recorder
    from w2s_mlflow.tracking.results import Result

VERSION = 3
BEFORE, AFTER = "before", "after"
COLUMNS = ("concept", "model", "layer", "chosen", "accuracy", "accuracy_low", "accuracy_high", "control", "selectivity", "rows")


@checked_dataclass
class Config(student.Config):
    """Options of the student, and the concepts to probe for."""

    concepts: str = ""
    """Comma-separated names of tasks. The ground truth of each is a concept to probe for. Empty: the student's task."""
    probe_size: int = option(default=1000, ge=20)
    """Maximum number of rows that each probe is fitted on. The same maximum applies to the rows that it is scored on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.named():
            tasks.find(name, "concepts")

    def named(self) -> list[str]:
        """Return the names of the concepts to probe for, which are names of tasks."""
        return [name.strip() for name in self.concepts.split(",") if name.strip()] or [self.task]


class Probe(NamedTuple):
    """Logistic regression on one layer.

    Attributes:
        correct_N: for each test row, 1 if the probe classifies it correctly, else 0.
        chosen_by: validation accuracy. The layer whose probe has the highest value is chosen.
        control: test accuracy of a second probe, which is fitted on shuffled labels.
    """

    layer: int
    correct_N: Floats
    chosen_by: float
    control: float


def run(config: Config) -> Result:
    """Find or fit the probes, after finding or training the student.

    Raises ConfigError for invalid options, before anything is written.
    """
    from w2s_mlflow.tracking import fingerprint, source, store

    student_options = student.Config(**inherited(student.Config, config) | {"keep_model": "always"})
    context = resolve(config)
    config = context.options
    concepts = {name: gold.concept(config, name, config.probe_size) for name in config.named()}
    for name, concept in concepts.items():
        if len(set(concept.fit_N)) < 2:
            raise ConfigError(
                f"--concepts must be tasks with two or more classes among the rows that probes are fitted on, but the "
                f"{len(concept.fit_N)} rows of {name} have one class"
            )
    student_run, spec = student.run(student_options), context.model
    parts = fingerprint.FingerprintParts(
        stage="probe",
        version=VERSION,
        options={"concepts": sorted(concepts), "probe_size": config.probe_size, "seed": config.seed},
        data=hashlib.sha256(canonical_json([concept.digest for concept in concepts.values()]).encode()).hexdigest()[:32],
        inputs={"student": student_run.fingerprint},
        libraries=fingerprint.libraries(),
        source=source.digests(["stages.probe:_make", "data.gold:concept", f"models.{spec.family}:load"]),
        weights=models.revision(spec),
    )
    identity = {"task": config.task, **context.names(), "method": config.method, "seed": str(config.seed)}
    note = f"Linear probes for {', '.join(concepts)} on `{spec.name}` before and after it became {student_run.name}."
    request = store.RunRequest(
        runs.run_name("probe", identity), parts, config, identity, {"w2s.student_run_id": student_run.run_id}, note
    )
    return store.produce(request, lambda recorder: _make(context, student_run, concepts, parts, recorder))


def _make(
    context: Context[Config],
    student_run: Result,
    concepts: dict[str, gold.Concept],
    parts: FingerprintParts,
    recorder: Recorder,
) -> None:
    from w2s_mlflow.tracking import names

    rows: list[dict[str, Any]] = []
    for name, probes in _fit_probes(context, student_run, concepts, parts).items():
        concept = concepts[name]
        rows += [row for when, every in probes.items() for row in _rows(name, when, every, concept)]
        recorder.metrics(_gained(name, probes, concept) | concept.reads)
        for when, every in probes.items():
            for probe in every:
                recorder.metrics({names.metric("probe", name, f"{when}_by_layer"): float(probe.correct_N.mean())}, probe.layer)
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    recorder.text(PROBES, table.getvalue())


def _fit_probes(
    context: Context[Config], student_run: Result, concepts: Mapping[str, gold.Concept], parts: FingerprintParts
) -> dict[str, dict[str, list[Probe]]]:
    """Fit each concept's probes on the model before and after training. Only one of these two models is in memory at a time."""
    config = context.options
    build = {BEFORE: lambda: finetune.build_head(context), AFTER: lambda: finetune.load_kept_model(student_run)}
    weights = {BEFORE: models.revision(context.model), AFTER: student_run.fingerprint}
    probes: dict[str, dict[str, list[Probe]]] = {name: {} for name in concepts}
    for when, build_head in build.items():
        head = functools.cache(build_head)
        for name, concept in concepts.items():
            activations_NLD = _activations(head, weights[when], concept, config, parts)
            probes[name][when] = [*_probes(activations_NLD, concept, config.seed)]
    return probes


def _activations(
    head: Callable[[], Head], weights: str, concept: gold.Concept, config: Config, parts: FingerprintParts
) -> Floats:
    """Return the activations of all rows of a concept, (N, layers, D).

    The activations are cached on this machine under a digest of the weights, rows, options and source code.

    Args:
        head: function that builds the model. It is called only if the activations are not cached.
    """
    from w2s_mlflow.modeling import heads, inference

    examples = concept.examples
    pooling = config.pooling or config.spec().pooling
    settings = [pooling, config.max_length, config.dtype, config.micro_batch, sorted(parts.source.values()), parts.libraries]
    key = [weights, concept.digest, *settings, [example.segments for example in examples]]
    name = hashlib.sha256(canonical_json(key).encode()).hexdigest()[:32]

    def compute() -> arrays.Arrays:
        read = heads.encode_responses if concept.task.head == "reward" else heads.encode_texts
        data = read(head().reader, examples)
        return {"hidden": inference.layers(head(), data, pooling, config.micro_batch, config.dtype)}

    activations_NLD: Floats = arrays.arrays(f"probe-{name}", compute)["hidden"]
    return activations_NLD


def _probes(activations_NLD: Floats, concept: gold.Concept, seed: int) -> Iterator[Probe]:
    """Fit and score one probe per layer, and yield the probes from the first layer to the last."""
    from w2s_mlflow.modeling import logistic
    from w2s_mlflow.training import loop

    loop.use_threads(0)  # the probes are small, and must not depend on the number of threads
    groups = [example.group for example in concept.examples[: len(concept.fit_N)]]
    shuffled_N = streams.generator(seed, streams.SHUFFLED_LABELS).permutation(concept.fit_N)
    for layer in range(activations_NLD.shape[1]):
        parts = concept.parts(activations_NLD[:, layer])
        fit_ND, choose_ND, test_ND = map(logistic.Standardisation.of(parts[0]), parts)
        folds = streams.generator(seed, streams.PROBE_FOLDS)
        l2 = logistic.choose_l2(fit_ND, concept.fit_N, groups, concept.task.classes, folds)
        probe, control = (
            logistic.fit(fit_ND, np.eye(concept.task.classes, dtype=np.float32)[labels_N], l2)
            for labels_N in (concept.fit_N, shuffled_N)
        )
        chosen_by = _correct(probe, choose_ND, concept.choose_N).mean()
        correct_N = _correct(probe, test_ND, concept.test_N)
        yield Probe(layer, correct_N, float(chosen_by), float(_correct(control, test_ND, concept.test_N).mean()))


def _correct(probe: Classifier, features_ND: Floats, labels_N: Ints) -> Floats:
    """Return 1 for each row that the probe classifies correctly, else 0."""
    return np.asarray(probe.probabilities(features_ND).argmax(axis=1) == labels_N, dtype=np.float32)


def best(probes: Sequence[Probe]) -> Probe:
    """Return the probe with the highest validation accuracy; on a tie, the probe of the lowest layer."""
    return max(probes, key=lambda probe: probe.chosen_by)


def _gained(name: str, probes: Mapping[str, Sequence[Probe]], concept: gold.Concept) -> dict[str, float]:
    from w2s_mlflow import stats
    from w2s_mlflow.tracking import names

    before, after = (best(probes[when]) for when in (BEFORE, AFTER))
    gain = stats.group_interval(after.correct_N - before.correct_N, concept.test_groups)
    values = {BEFORE: float(before.correct_N.mean()), AFTER: float(after.correct_N.mean())}
    values |= {"selectivity": values[AFTER] - after.control, "gain": gain.mean}
    values |= {"gain_low": gain.low, "gain_high": gain.high}
    return {names.metric("probe", name, key): value for key, value in values.items()}


def _rows(name: str, when: str, probes: Sequence[Probe], concept: gold.Concept) -> Iterator[dict[str, Any]]:
    from w2s_mlflow import stats

    chosen = best(probes).layer
    for probe in probes:
        accuracy = stats.group_interval(probe.correct_N, concept.test_groups)
        yield {
            "concept": name,
            "model": when,
            "layer": probe.layer,
            "chosen": probe.layer == chosen,
            "accuracy": accuracy.mean,
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            "control": probe.control,
            "selectivity": accuracy.mean - probe.control,
            "rows": len(probe.correct_N),
        }
