"""What `torchrun` runs in tests of shards: gradients of a batch and whole trainings, each weight in shards.

    torchrun --nproc_per_node 3 -m tests._sharded DIRECTORY

Process K writes DIRECTORY/K.safetensors; alone, without ACCELERATE_USE_FSDP, `results` is what one process comes to.
"""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from tests._launched import HEADS, ROWS, _backward, _losses
from tests.training.test_microbatches import examples, labels, made
from w2s_mlflow import metrics
from w2s_mlflow.distributed import launch, process_group
from w2s_mlflow.modeling import inference, language_modeling
from w2s_mlflow.modeling.heads import Classification, Head
from w2s_mlflow.training import batching, fsdp, loop, microbatches, trainable
from w2s_mlflow.training.checkpoint import Checkpoint

PLAIN: dict[str, Any] = {"lora": None, "freeze": None, "gradient_checkpointing": False}
TRAININGS: dict[str, dict[str, Any]] = {
    "whole": {},
    "lora": {"lora": 3},
    "frozen": {"freeze": "backbone"},
    "recomputed": {"gradient_checkpointing": True},
}
TRAINED = (
    ("bert", "classification", tuple(TRAININGS)),
    ("gpt2", "classification", ("lora", "recomputed")),
    ("llama", "classification", ("whole",)),
    ("llama", "language", ("whole", "recomputed")),
)
STOP = 6
"""The step of which a stopped training keeps no checkpoint: it goes on after the one before."""


def results() -> dict[str, Tensor]:
    """By its name every gradient, and every weight after a training, whole."""
    found = {f"gradient/{name}": tensor for name, tensor in _gradients()}
    for kind, name, trainings in TRAINED:
        for how in trainings:
            found |= _trained(f"trained/{kind}-{name}-{how}", kind, name, how)
    return found | _trained("trained/bfloat16", "llama", "classification", "whole", dtype="bfloat16")


def _gradients() -> Iterator[tuple[str, Tensor]]:
    group = process_group.current()
    for kind, name in HEADS:
        head = made(kind, name).train()
        data, count = head.encode(examples(ROWS)), sum(weight.numel() for weight in head.parameters())
        learner = fsdp.split(head, group) if launch.shards() else head
        if launch.shards():
            check_shards(head, learner, count)
        for rows, sizes in ((ROWS, (4, 32)), (1, (1,))):  # of a single row one process has none
            labels_NC = None if name == "language" else torch.from_numpy(labels(rows))
            for micro_batch in sizes:
                device = torch.device("cpu")
                parts = batching.micro_batches(data, np.arange(rows), micro_batch, device, group, even=launch.shards())
                loss = _losses(name).get("confidence", language_modeling.loss)
                value = microbatches.batch_gradients(learner, learner, parts, labels_NC, loss, 0.5, _backward, group)
                place = f"{kind}-{name}/{rows}/{micro_batch}"
                yield f"{place}/loss", value.reshape(1)
                found = {key: weight.grad for key, weight in learner.named_parameters() if weight.grad is not None}
                for key, gradient in fsdp.gathered(found, keep=True).items():
                    yield f"{place}/{key}", gradient.clone()
                learner.zero_grad()


def check_shards(head: Head, learner: Head, count: int) -> None:
    """Each process holds a third of the weights, but for what cannot be shared out evenly; the head itself holds none."""
    local = [weight.to_local() for weight in learner.parameters() if isinstance(weight, DTensor)]
    assert len(local) == len(list(learner.parameters())) and not any(weight.numel() for weight in head.parameters())
    assert sum(weight.numel() for weight in local) < 0.4 * count


def _trained(
    place: str, kind: str, name: str, how: str, *, dtype: str = "float32", checkpoint: Checkpoint | None = None, stop: int = 0
) -> dict[str, Tensor]:
    """Batches of 8 of 33 rows: the last has a single row, and one process none. A third epoch that is no better is undone."""
    head = made(kind, name)
    data, labels_NC = head.encode(examples(ROWS)), labels(ROWS)
    if TRAININGS[how].get("freeze"):  # then its blocks stay idle
        assert isinstance(head, Classification)
        data = inference.pooled(head, data, 8)
    scores = []

    def validate(step: int) -> float:
        if name == "language":
            scores.append(-language_modeling.mean_loss(head, data, 4))
        else:
            scores.append(metrics.agreement_score(inference.probabilities(head, data, 8), labels_NC))
        return len(scores) if len(scores) < 3 else 0.0

    def report(step: int, steps: int, values: dict[str, float]) -> None:
        if step == stop:
            raise KeyboardInterrupt

    options = loop.Options(epochs=4, batch_size=8, learning_rate=1e-3, seed=0, micro_batch=2, dtype=dtype)
    given, loss = None if name == "language" else labels_NC, _losses(name).get("confidence", language_modeling.loss)
    with trainable.learning(head, **PLAIN | TRAININGS[how]):
        watch = None if checkpoint else validate
        fitted = loop.fit(head, data, given, loss, options, validate=watch, report=report, checkpoint=checkpoint)
    numbers = {f"{place}/fit": torch.tensor([fitted.steps, fitted.tokens, fitted.best_epoch])}
    numbers |= {f"{place}/scores": torch.tensor(scores, dtype=torch.float64)} if scores else {}
    return numbers | {f"{place}/{key}": weight.clone() for key, weight in head.state_dict().items()}


def going_on(place: str, directory: Path) -> dict[str, Tensor]:
    """A training that goes on from the checkpoint in a directory, or begins."""
    return _trained(place, "bert", "classification", "whole", checkpoint=Checkpoint(directory, 1))


def stopped(directory: Path) -> None:
    """Leave a checkpoint of the step before `STOP`."""
    try:
        _trained("", "bert", "classification", "whole", checkpoint=Checkpoint(directory, 1), stop=STOP)
    except KeyboardInterrupt:
        return
    raise AssertionError("it was not stopped")


def continued(directory: Path) -> dict[str, Tensor]:
    """Trainings that go on from a stop in shards, and from one of a process alone, whose checkpoint lies in `alone`."""
    stopped(directory / "shards")
    distributed.barrier()
    if launch.is_leader():
        shutil.copytree(directory / "shards", directory / "copy")
    distributed.barrier()
    found = going_on("continued/shards", directory / "copy") | going_on("continued/alone", directory / "alone")
    return found


if __name__ == "__main__":
    warnings.simplefilter("error", UserWarning)  # of what torch warns of at each use nobody could read the rest
    launch.check()
    assert launch.shards() and process_group.current().size == 3
    target = Path(sys.argv[1])
    safetensors.torch.save_file(results() | continued(target), target / f"{process_group.current().rank}.safetensors")
    distributed.destroy_process_group()
