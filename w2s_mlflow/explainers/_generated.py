"""Explanations that a causal language model generates: the sampler, and the explainer that uses the sampler.

The model continues one prompt per question. If the generated text does not have the explainer's format, one more text is
sampled; if that text does not have the format either, the explanation is empty. Each batch has a separate random stream, keyed
by seed, side, sampling attempt and the batch's position, so the texts also depend on `--micro-batch`.

Shape legend: R token rows, L tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from w2s_mlflow import streams
from w2s_mlflow.exceptions import must
from w2s_mlflow.explainers import SPANS, DebateSide, every
from w2s_mlflow.modeling import token_batches
from w2s_mlflow.modeling.heads import Head
from w2s_mlflow.modeling.token_rows import Encoded
from w2s_mlflow.modeling.tokenization import Reader
from w2s_mlflow.records import Example, Explanation

ATTEMPTS = 2
TOP_P = 0.9
"""p of nucleus sampling, which samples from the fewest tokens with a total probability of at least p (Holtzman et al. 2020)."""
LEAST = 8
"""Minimum number of prompt tokens reserved for the question."""

Prompt = Callable[[Example, str, str], str]
"""Function that builds a prompt from a question, the side's claim, and the other side's text, which may be empty."""
Format = Callable[[str, str], str]
"""Function that takes a generated text and this side's claim, and returns the explanation; "" if the format is wrong."""
Fitting = Callable[[str, str], str]
"""Function that takes the other side's text and this side's claim, and returns the part of the text for the next prompt."""
Sampler = Callable[[Sequence[str], tuple[int, ...]], list[str]]
"""Function that samples a continuation of each prompt. It takes the prompts, and the integers that key a random stream (the
seed first)."""


class TextExplainer:
    """Explainer that generates one side's text.

    Attributes:
        heard: for each question, the part of the other side's text that enters the next prompt.
    """

    def __init__(
        self, name: str, side: DebateSide, tokens: int, prompt: Prompt, keep: Format, fitting: Fitting | None = None
    ) -> None:
        """Prepare the generation of at most `tokens` tokens per question and round.

        Args:
            name: name of the explainer, for errors.
            keep: function that extracts the explanation from a generated text.
            fitting: function that selects the part of the other side's text that enters the prompt. If it is None, the other
                side's text is ignored.

        Raises:
            ConfigError: the model cannot generate text, or `tokens` leaves no room for a question.
        """
        _check(side.debater.head, name)
        self.side, self.prompt, self.keep, self.fitting = side, prompt, keep, fitting
        self.sample = sampler(side.debater.head, tokens, side.debater.micro_batch)
        self.heard = [""] * len(side.claims)
        self._attempts = itertools.count()

    def hear(self, texts: Sequence[str]) -> list[str]:
        """For each question, store and return the part of the other side's latest text that enters the next prompt."""
        if self.fitting is not None:
            self.heard = [self.fitting(text, claim) for text, claim in zip(texts, self.side.claims, strict=True)]
        return self.heard

    def __call__(self, taken: Sequence[Collection[int]]) -> list[Explanation]:
        """Return this side's explanations in one round, one per question. The argument `taken` is not used."""
        claims = self.side.claims
        prompts = [self.prompt(*row) for row in zip(self.side.debater.encoded.questions, claims, self.heard, strict=True)]
        texts = [""] * len(prompts)
        for _ in range(ATTEMPTS):
            missing = [row for row, text in enumerate(texts) if not text]
            keys = (self.side.seed, self.side.number, next(self._attempts))
            generated = self.sample([prompts[row] for row in missing], keys)
            for row, text in zip(missing, generated, strict=True):
                texts[row] = self.keep(text, claims[row])
        return [Explanation(text) for text in texts]


def _check(head: Head, name: str) -> None:
    """Raise ConfigError if the model cannot generate text."""
    if not head.model.can_generate():
        legal = ", ".join(other for other, plugin in every().items() if plugin.EVIDENCE == SPANS)
        raise must("explainer", f"one of {legal}, because a {type(head.model).__name__} cannot generate text", name)


def sampler(head: Head, tokens: int, micro_batch: int | None) -> Sampler:
    """Return a function that samples continuations of at most `tokens` tokens."""
    reader = Reader(head.tokenizer, head.model, room(head, tokens))
    options = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True,
        use_cache=True,
        top_p=TOP_P,
        top_k=0,
        max_new_tokens=tokens,
        pad_token_id=reader.pad_id,
        eos_token_id=head.tokenizer.eos_token_id,
        bos_token_id=head.tokenizer.bos_token_id,
    )

    def sample(prompts: Sequence[str], seeds: tuple[int, ...]) -> list[str]:
        if not prompts:
            return []
        data = reader.read([(prompt,) for prompt in prompts], keep_end=True, closed=False)
        texts, start = [""] * len(prompts), 0
        # Group prompts by their length plus the number of tokens to generate.
        for rows in token_batches.by_length(data.lengths_R + tokens, micro_batch):
            batch = generate(head, data, rows, options, (*seeds, start))
            start += len(rows)
            for row, text in zip(rows, batch, strict=True):
                texts[row] = text
        return texts

    return sample


def generate(head: Head, data: Encoded, rows: np.ndarray, options: GenerationConfig, seeds: tuple[int, ...]) -> list[str]:
    """Sample a continuation of each token row in `rows`, and return the continuations without the prompts."""
    seed, *more = seeds
    device, training = next(head.parameters()).device, head.training
    inputs = {name: tensor.to(device) for name, tensor in left_padded(data, rows).items()}
    head.eval()
    with torch.inference_mode(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(streams.integer(seed, streams.DEBATE_WORDS, *more))
        ids_RL = head.model.generate(**inputs, generation_config=options)  # type: ignore[operator]
    head.train(training)
    generated_RL = ids_RL[:, inputs["input_ids"].shape[1] :]
    texts: list[str] = head.tokenizer.batch_decode(generated_RL, skip_special_tokens=True)
    return texts


def left_padded(data: Encoded, rows: np.ndarray) -> dict[str, Tensor]:
    """Return the token rows as a batch with padding on the left, which generation requires."""
    batch = data.batch(rows)
    shift_R = (1 - batch["attention_mask"]).sum(dim=1, keepdim=True)
    length = batch["input_ids"].shape[1]
    source_RL = (torch.arange(length) - shift_R) % length
    return {name: batch[name].gather(1, source_RL) for name in ("input_ids", "attention_mask")}


def room(head: Head, tokens: int) -> int | None:
    """Return the maximum length of a prompt in tokens, or None if the model has no limit.

    Raises:
        ConfigError: `tokens` is below 1, or leaves fewer than LEAST tokens for a question.
    """
    limit = head.reader.limit
    if tokens < 1 or (limit is not None and limit - tokens < LEAST):
        rule = (
            "at least 1" if limit is None else f"in [1, {limit - LEAST}], so that a question fits in the model's {limit} tokens"
        )
        raise must("max_new_tokens", rule, tokens)
    return None if limit is None else limit - tokens
