"""Spans sampled from the policy that `align` trains with these options; the weak side uses `gradient`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from w2s_mlflow.explainers import SPANS, DebaterModel, DebateSide, Explainer

if TYPE_CHECKING:
    from torch import Tensor

    from w2s_mlflow.explainers._policy import Policy
    from w2s_mlflow.modeling.heads import Head

EVIDENCE = SPANS
OPTIONS = ("evidence_spans",)
WITHOUT_POLICY = "gradient"


def make(side: DebateSide) -> Explainer:
    """Return the explainer of one side, whose model must have a policy."""
    from w2s_mlflow.explainers import _extractive

    return _extractive.sampled(side, scores)


def load_policy(path: Path, head: Head) -> Policy:
    """Load the policy of an aligned model onto the device of `head`."""
    from safetensors.torch import load_file

    from w2s_mlflow.explainers import _policy

    policy = _policy.Policy(head.model.config.hidden_size, seed=0)
    policy.load_state_dict(load_file(path))
    return policy.to(next(head.parameters()).device)


def scores(debater: DebaterModel) -> Tensor:
    """Return the scores of all spans by the policy, of shape (N, P), given the decision on each question."""
    import torch

    from w2s_mlflow.explainers import _policy
    from w2s_mlflow.modeling import token_batches

    assert debater.policy is not None, "the explainer policy needs a debater with a policy"
    encoded, head = debater.encoded, debater.head
    scores_NP = torch.zeros(encoded.shape)
    batches = token_batches.by_length(encoded.data.lengths_N(), debater.micro_batch, rows=encoded.data.rows_per_example)
    device, training = next(head.parameters()).device, head.training
    head.eval()
    with torch.inference_mode():
        for rows in batches:
            batch, span_RL = encoded.batch(rows, device)
            decisions = torch.from_numpy(debater.decisions_N[rows]).to(device)
            batch_NP, _ = _policy.scores(head, debater.policy, batch, span_RL, decisions, encoded.shape[1])
            scores_NP[rows] = batch_NP.cpu()
    head.train(training)
    return scores_NP
