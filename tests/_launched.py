"""What `torchrun` runs in tests: gradients of a batch, whole trainings and predictions, on this process's share.

    torchrun --nproc_per_node 2 -m tests._launched DIRECTORY

Process K writes DIRECTORY/K.safetensors, each tensor named `<head>/<loss>/<micro-batch>/<number>`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from tests.training.test_microbatches import LOSSES, examples, labels, made
from w2s_mlflow.distributed import process_group
from w2s_mlflow.modeling import inference, language_modeling
from w2s_mlflow.modeling.heads import Classification
from w2s_mlflow.training import batching, loop, microbatches

ROWS = 33
"""Not to be shared out evenly."""
HEADS = (("bert", "classification"), ("gpt2", "reward"), ("llama", "language"))


def results() -> dict[str, Tensor]:
    """By its name every gradient, and every weight after a training, of this process; alone, those of the whole batch."""
    found = {f"gradient/{name}": tensor for name, tensor in _gradients()}
    found |= {f"trained/{name}": tensor for name, tensor in _trained()}
    return found | {f"predicted/{name}": tensor for name, tensor in _predicted()}


def _losses(name: str) -> dict[str, microbatches.Loss]:
    return {"next": language_modeling.loss} if name == "language" else LOSSES


def _gradients() -> Iterator[tuple[str, Tensor]]:
    group = process_group.current()
    for kind, name in HEADS:
        head = made(kind, name).train()
        data, weights = head.encode(examples(ROWS)), list(head.parameters())
        labels_NC = None if name == "language" else torch.from_numpy(labels(ROWS))
        for loss, function in _losses(name).items():
            for micro_batch in (1, 4, 32) if loss in ("confidence", "next") else (4,):
                parts = [data.batch(part) for part in batching.micro_batch_rows(data, np.arange(ROWS), micro_batch, group)]
                value = microbatches.batch_gradients(head, head, parts, labels_NC, function, 0.5, _backward, group)
                group.sum_gradients(weights)
                place = f"{kind}-{name}/{loss}/{micro_batch}"
                yield f"{place}/loss", value.reshape(1)
                for number, weight in enumerate(weights):
                    if weight.grad is not None:
                        yield f"{place}/{number}", weight.grad.clone()
                head.zero_grad()


def _trained() -> Iterator[tuple[str, Tensor]]:
    """Batches of 8 of 33 rows: the last has a single row, and one process none.

    Not by `reward`: a shift of both rewards has no gradient but rounding, which AdamW makes steps of.
    """
    for kind, name in (("bert", "classification"), ("gpt2", "classification"), ("llama", "language")):
        head = made(kind, name)
        data, labels_NC = head.encode(examples(ROWS)), None if name == "language" else labels(ROWS)
        options = loop.Options(epochs=2, batch_size=8, learning_rate=1e-3, seed=0, micro_batch=2)
        fitted = loop.fit(head, data, labels_NC, _losses(name).get("confidence", language_modeling.loss), options)
        yield f"{kind}-{name}/steps", torch.tensor([fitted.steps, fitted.tokens])
        for weight_name, weight in head.state_dict().items():
            yield f"{kind}-{name}/{weight_name}", weight.clone()


def _predicted() -> Iterator[tuple[str, Tensor]]:
    """Of 33 rows one is left over by two processes."""
    head = made("bert", "classification")
    assert isinstance(head, Classification)
    data = head.encode(examples(ROWS))
    for micro_batch in (1, 8, None):
        yield f"probabilities/{micro_batch}", torch.from_numpy(inference.probabilities(head, data, micro_batch))
        pooled_RD = inference.pooled(head, data, micro_batch).pooled_RD
        assert pooled_RD is not None
        yield f"pooled/{micro_batch}", torch.from_numpy(pooled_RD)
    reader = made("llama", "language")
    yield "mean_loss", torch.tensor([language_modeling.mean_loss(reader, reader.encode(examples(ROWS)), 4)])


def check_words(group: process_group.Group) -> None:
    """What the processes of a group say to each other."""
    assert group.any(group.rank == 1) and group.any(True) and not group.any(False)
    assert group.agree_on("same") and not group.agree_on(f"process {group.rank}")


def _backward(tensor: Tensor, **given: Tensor) -> None:
    tensor.backward(**given)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    check_words(process_group.current())
    rank = process_group.current().rank
    safetensors.torch.save_file(results(), Path(sys.argv[1]) / f"{rank}.safetensors")
    torch.distributed.destroy_process_group()
