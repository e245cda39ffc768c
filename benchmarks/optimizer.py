"""AdamW fused against torch's default: seconds per step as the ratio default / fused, measured in one run, in turns.

    python benchmarks/optimizer.py --model DIRECTORY [--steps 20]

DIRECTORY holds a BERT, such as all-MiniLM-L6-v2; a GPT-2 of 124 million random weights is measured beside it. Two twins train
on the same random tokens; the difference of losses is the largest of all steps.
This is why training/loop.py takes the fused one.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, GPT2Config, GPT2Model

from w2s_mlflow.training import loop

ROWS, LENGTH = 8, 16


class Twin:
    """A model, its optimizer, and what its steps took."""

    def __init__(self, model: Any, *, fused: bool) -> None:
        self.model = copy.deepcopy(model).eval()  # no dropout, so that the losses are those of the same training
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=fused)
        self.losses: list[float] = []
        self.update: list[float] = []
        self.whole: list[float] = []

    def step(self, ids_RL: Tensor) -> None:
        """One training step: the mean square of a row's last hidden state to 1."""
        started = time.perf_counter()
        loss = (self.model(input_ids=ids_RL).last_hidden_state[:, -1].mean(dim=-1) - 1).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), loop.CLIP)
        before = time.perf_counter()
        self.optimizer.step()
        self.update.append(time.perf_counter() - before)
        self.optimizer.zero_grad(set_to_none=True)
        self.whole.append(time.perf_counter() - started)
        self.losses.append(loss.item())


def measured(model: Any, steps: int) -> dict[str, float]:
    """Ratios of medians, default / fused, and the largest difference of losses."""
    default, fused = Twin(model, fused=False), Twin(model, fused=True)
    for _ in range(steps):
        ids_RL = torch.randint(model.config.vocab_size, (ROWS, LENGTH))
        for twin in (default, fused):
            twin.step(ids_RL)
    difference = max(
        abs(default_loss - fused_loss) for default_loss, fused_loss in zip(default.losses, fused.losses, strict=True)
    )
    return {
        "optimizer step, default / fused": round(statistics.median(default.update) / statistics.median(fused.update), 2),
        "whole step, default / fused": round(statistics.median(default.whole) / statistics.median(fused.whole), 2),
        "first loss": round(fused.losses[0], 4),
        "last loss": round(fused.losses[-1], 4),
        "largest difference of losses": float(f"{difference:.1e}"),
    }


def main() -> None:
    """Measure and print one JSON object for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    for make in (lambda: AutoModel.from_pretrained(options.model, local_files_only=True), lambda: GPT2Model(GPT2Config())):
        model = make()
        result = {"model": type(model).__name__, "parameters": model.num_parameters()}
        print(json.dumps(result | measured(model, options.steps)), flush=True)


if __name__ == "__main__":
    main()
