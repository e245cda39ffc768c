"""Linear heads on a hidden layer of a frozen backbone, and the features that they read.

A language model reads the task's prompt, and the feature vector is the hidden state of its last token: there it has read the
text and is about to answer. An encoder reads the texts as for the head `classification`, and its hidden states are averaged.

Shape legend: N examples, R token rows, L tokens, D hidden units.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from w2s_mlflow import tasks
from w2s_mlflow.distributed import process_group
from w2s_mlflow.local import row_cache
from w2s_mlflow.modeling import inference
from w2s_mlflow.modeling.heads import INPUTS, Batch, Classification, Encoded, Reward, causal
from w2s_mlflow.records import Example, Floats, canonical_json
from w2s_mlflow.tasks import Prompt, Task

LOG = logging.getLogger("w2s_mlflow")


class FrozenClassification(Classification):
    """Linear classifier on the pooled hidden states of one layer."""

    layer: int
    task: str | None
    """Task whose prompt the model reads; None if it reads no prompt."""

    def hidden_RLD(self, batch: Batch) -> Tensor:
        """Return the hidden states of the head's layer, (R, L, D)."""
        return _layer(self, batch, self.layer)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise the examples. A prompt that is longer than the context is truncated at its beginning."""
        prompt = prompt_of(tasks.find(self.task)) if self.task is not None else None
        if prompt is None:
            return super().encode(examples)
        return self.reader.read([(text_of(prompt, example),) for example in examples], keep_end=True, closed=False)


class FrozenReward(Reward):
    """Linear reward on the pooled hidden states of one layer."""

    layer: int
    task: str | None
    """Task whose prompt the model reads; None if it reads no prompt."""

    def hidden_RLD(self, batch: Batch) -> Tensor:
        """Return the hidden states of the head's layer, (R, L, D)."""
        return _layer(self, batch, self.layer)


FrozenHead = FrozenClassification | FrozenReward


def _layer(head: FrozenHead, batch: Batch, layer: int) -> Tensor:
    inputs = {name: batch[name] for name in INPUTS if name in batch}
    options = {"use_cache": False} if hasattr(head.model.config, "use_cache") else {}
    hidden: Tensor = head.model.base_model(**inputs, **options, output_hidden_states=True).hidden_states[layer]
    return hidden


def build(
    name: str,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    classes: int,
    pooling: str | None,
    max_length: int | None,
    layer: int,
    task: str | None,
) -> FrozenHead:
    """Return a head of the kind `name`, `classification` or `reward`, on a layer of `model`.

    Args:
        task: name of the task whose prompt a language model reads, if it has one. An encoder does not read prompts.
    """
    head: FrozenHead
    if name == "reward":
        head = FrozenReward(model, tokenizer, pooling, max_length)
    else:
        head = FrozenClassification(model, tokenizer, classes, pooling, max_length)
    head.layer, head.task = layer, task if causal(model) else None
    return head


def prompt_of(task: Task) -> Prompt | None:
    """Return the first prompt of a task, or None if there is none or if its candidates are texts to compare (`reward`)."""
    return next(iter(task.prompts.values()), None) if task.head != "reward" else None


def text_of(prompt: Prompt, example: Example) -> str:
    """Return the text that a prompt makes of an example, without the answer."""
    return prompt.queries(example)[0].text


def features(
    head: Callable[[], FrozenHead], examples: Sequence[Example], prompt: Prompt | None, key: Sequence[object], dtype: str
) -> Floats:
    """Return the feature vectors of examples, (N, D), or (N, 2, D) with one per response for the head `reward`.

    The vectors are cached on this machine. In a distributed launch they are computed each time, because all ranks take part.

    Args:
        head: function that builds the head. It is called only if a vector is not cached. The weights of this head's backbone
            are rounded to `dtype`.
        prompt: the prompt that the head reads, if any.
        key: everything besides the texts on which the vectors depend.
        dtype: precision of the backbone, float32 or bfloat16. The vectors are float32.
    """

    def compute(rows: Sequence[int]) -> Floats:
        return _computed(head(), [examples[row] for row in rows], dtype)

    texts = [[example.segments, example.candidates, text_of(prompt, example) if prompt else ""] for example in examples]
    digests = [hashlib.sha256(canonical_json(text).encode()).hexdigest() for text in texts]
    if process_group.joined().size > 1:
        return compute(range(len(examples)))
    name = hashlib.sha256(canonical_json([*key, dtype]).encode()).hexdigest()[:32]
    return row_cache.rows(name, digests, compute)


def _computed(head: FrozenHead, examples: Sequence[Example], dtype: str) -> Floats:
    data, limit = head.encode(examples), head.reader.limit
    if limit is not None and (full := int((data.lengths_R >= limit).sum())):
        LOG.info("%d of %d texts have %d tokens, the model's limit, or were cut to it", full, len(examples), limit)
    LOG.info("computing layer %d of the frozen backbone for %d rows in %s", head.layer, len(examples), dtype)
    for weight in head.model.parameters():  # but not buffers: rotary frequencies are too coarse in bfloat16
        weight.data = weight.data.to(getattr(torch, dtype))
    pooled_RD = inference.pooled(head, data).pooled_RD
    assert pooled_RD is not None
    vectors: Floats = np.asarray(pooled_RD.reshape(len(examples), data.rows_per_example, -1), dtype=np.float32)
    return vectors
