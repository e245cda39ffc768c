"""A linear head on features of a frozen backbone (`--freeze backbone`), shared by the stages.

The features come from one layer and are standardised on the rows that the head is trained on, without their labels. They are
computed once for all roles, seeds and methods (modeling/frozen_heads.py), so a run whose features are cached does not load the
model. No function here reads gold labels.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from w2s_mlflow import losses, models, registry
from w2s_mlflow.local import arrays
from w2s_mlflow.pipeline import finetune
from w2s_mlflow.pipeline.context import Context
from w2s_mlflow.pipeline.finetune import LabelledExamples
from w2s_mlflow.pipeline.options import Training
from w2s_mlflow.records import Example, Floats, Ints, Predictions

if TYPE_CHECKING:
    from torch import Tensor

    from w2s_mlflow.modeling.frozen_heads import FrozenHead
    from w2s_mlflow.modeling.logistic import Classifier, Standardisation
    from w2s_mlflow.tracking.recorder import Recorder

ROOTS = ("pipeline.frozen:FrozenModel", "pipeline.ground_truth:chosen_l2")
"""Definitions whose source enters the fingerprint of every head on a frozen backbone."""


class FrozenModel:
    """A frozen backbone, and the linear classifier that `fit` puts on it."""

    classifier: Classifier
    standardisation: Standardisation

    def __init__(self, context: Context[Training], *, pretrained: bool = True, start: Path | None = None) -> None:
        """Set up the backbone. It is not loaded until features are needed that are not cached.

        Args:
            pretrained: use the pretrained weights instead of random ones.
            start: file of weights that replace those of the model.
        """
        from w2s_mlflow.modeling import frozen_heads

        self._context, self._pretrained, self._start = context, pretrained, start
        self._prompt = frozen_heads.prompt_of(context.task)
        self._backbone = functools.cache(self._build)

    def fit(
        self, training: LabelledExamples, l2: float, loss: str, loss_options: Mapping[str, Any], recorder: Recorder
    ) -> None:
        """Fit the classifier, and log the penalty, the loss on the training rows and the norm of the weights.

        A loss with the function `hardened` is the cross-entropy with targets that are mixed with the classifier's own hardened
        answers. It is minimised in rounds; any other loss but the cross-entropy is minimised by AdamW.
        """
        import torch

        from w2s_mlflow.modeling import logistic

        plugin = registry.plugin("losses", loss, "--loss")
        options = losses.resolve(plugin.Options(**loss_options), large=self._context.model.large)
        vectors = self.features(training.examples)
        self.standardisation = logistic.Standardisation.of(vectors.reshape(-1, vectors.shape[-1]))
        features_ND, labels_NC, intercept = self._inputs(vectors), training.labels_NC, vectors.shape[1] == 1
        self._use_one_thread()
        if features_ND.shape[0] < features_ND.shape[1]:
            logistic.LOG.info("%d rows have %d features each: only the penalty determines the weights", *features_ND.shape)

        def targets(logits_NC: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
            a = losses.weight(progress, options)
            mixed_NC: Tensor = (1 - a) * labels_NC + a * plugin.hardened(logits_NC, labels_NC)
            return mixed_NC

        def value(logits_NC: Tensor, labels_NC: Tensor, progress: float) -> Tensor:
            loss_value: Tensor = plugin.loss(logits_NC, labels_NC, progress, options)
            return loss_value

        if loss == "cross_entropy":
            self.classifier = logistic.fit(features_ND, labels_NC, l2, intercept=intercept)
        elif hasattr(plugin, "hardened"):
            self.classifier = logistic.fit_own_targets(features_ND, labels_NC, l2, targets, intercept=intercept)
        else:
            rate = self._context.options.learning_rate
            assert rate is not None
            self.classifier = logistic.descend(features_ND, labels_NC, l2, value, rate, intercept=intercept)
        logits_NC = self.classifier.logits(torch.from_numpy(features_ND))
        norm = float(self.classifier.weight_KD.norm())
        final = float(value(logits_NC, torch.from_numpy(labels_NC), 1.0))
        metrics = {"train/loss": final, "train/l2": l2, "train/weight_norm": norm}
        metrics |= {"model/layer": self._context.options.feature_layer(), "model/parameters": self._context.model.parameters}
        recorder.metrics(metrics)

    def features(self, examples: Sequence[Example]) -> Floats:
        """Return the features of examples, (N, 1, D), or (N, 2, D) with one vector per response for the head `reward`."""
        from w2s_mlflow.modeling import frozen_heads

        options = self._context.options
        weights = models.revision(self._context.model) if self._pretrained else f"random {options.seed}"
        started = hashlib.sha256(self._start.read_bytes()).hexdigest() if self._start else ""
        key = ["" if self._pretrained else self._context.model.name, weights, started]
        key += [options.feature_layer(), options.pooling, options.head == "reward", options.max_length]
        return frozen_heads.features(self._backbone, examples, self._prompt, key, str(options.dtype))

    def predictions(self, examples: Sequence[Example]) -> Predictions:
        """Return the fitted classifier's predictions."""
        self._use_one_thread()
        return finetune.predict_table(examples, self.classifier.probabilities(self._inputs(self.features(examples))))

    def record_heldout(self, recorder: Recorder) -> None:
        """Store the predictions on the splits `selection` and `test`."""
        for part in ("selection", "test"):
            recorder.predictions(part, self.predictions(self._context.split.parts()[part]))

    def head(self) -> FrozenHead | None:
        """Return the backbone with the fitted classifier as its linear layer, or None if the model is not to be kept."""
        if self._context.options.keep_model != "always":
            return None
        import torch

        head = self._build()
        weight_CD, bias_C = self.classifier.by_class()
        mean_D, scale_D = (torch.from_numpy(of_D) for of_D in (self.standardisation.mean_D, self.standardisation.scale_D))
        with torch.no_grad():
            if self._context.options.head == "reward":  # the reward's weights are those of the difference of both responses
                weight_CD, bias_C = self.classifier.weight_KD, self.classifier.bias_K
            head.linear.weight.copy_(weight_CD / scale_D)
            head.linear.bias.copy_(bias_C - weight_CD @ (mean_D / scale_D))
        return head

    def choose_l2(self, examples: Sequence[Example], labels_N: Ints, random: np.random.Generator) -> float:
        """Return the penalty that cross-validation on labelled examples chooses. The choice is cached on this machine."""
        from w2s_mlflow.modeling import logistic

        vectors, classes = self.features(examples), self._context.task.classes
        standardised = logistic.Standardisation.of(vectors.reshape(-1, vectors.shape[-1]))
        features_ND = self._inputs(vectors, standardised)
        groups, intercept = [example.group for example in examples], vectors.shape[1] == 1
        self._use_one_thread()
        content = hashlib.sha256(repr((groups, random.bit_generator.state, logistic.GRID, intercept)).encode())
        for part in (features_ND, labels_N):
            content.update(part.tobytes())

        def choose() -> arrays.Arrays:
            l2 = logistic.choose_l2(features_ND, labels_N, groups, classes, random, intercept=intercept)
            return {"index": np.array([logistic.GRID.index(l2)])}

        return logistic.GRID[int(arrays.arrays(f"l2-{content.hexdigest()}", choose)["index"][0])]

    def _inputs(self, vectors: Floats, standardisation: Standardisation | None = None) -> Floats:
        """Return what the classifier reads, (N, D): the vector of each row, or the difference of its two responses' vectors."""
        standardised = (standardisation or self.standardisation)(vectors)
        difference_ND: Floats = standardised[:, 1] - standardised[:, 0] if vectors.shape[1] == 2 else standardised[:, 0]
        return difference_ND

    def _use_one_thread(self) -> None:
        from w2s_mlflow.training import loop

        loop.use_threads(0)  # the classifier is small, and its result must not depend on the number of threads

    def _build(self) -> FrozenHead:
        """Load the backbone, with a linear layer that is not fitted, onto the training device."""
        import safetensors.torch

        from w2s_mlflow.modeling import frozen_heads
        from w2s_mlflow.training import loop

        options = self._context.options
        loop.seed_everything(options.seed)
        loop.use_threads(self._context.model.parameters)
        model, tokenizer = models.load(self._context.model, pretrained=self._pretrained)
        if self._start is not None:
            safetensors.torch.load_model(model, str(self._start))
        classes = self._context.task.classes
        task = options.task if self._prompt else None
        head = frozen_heads.build(
            str(options.head), model, tokenizer, classes, options.pooling, options.max_length, options.feature_layer(), task
        )
        loop.to_device(head)
        return head
