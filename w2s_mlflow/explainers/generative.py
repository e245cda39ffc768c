"""What a causal language model says of its decision: a rationale in words, or in chess the line of play that it expects.

`rationale`: the model goes on after the question, the claim and "Because"; what counts is whole sentences on one line. From
the second round on the other side's last words stand before the claim, on one line and in quotes.
`line`: it goes on after the position and the move that it decided for; what counts is moves, up to the first word that is none.
Whatever keeps to no form is sampled once more, and then nothing is shown. A batch is drawn from a random stream of its own, by
the seed, the side, the round and its place among the questions; so what is said hangs on `--micro-batch`, too. Shape legend: R
token rows, L tokens.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from w2s_mlflow import streams
from w2s_mlflow.exceptions import ConfigError, must
from w2s_mlflow.explainers.extractive import DebaterModel
from w2s_mlflow.modeling import token_batches
from w2s_mlflow.modeling.heads import Head
from w2s_mlflow.modeling.tokenization import SEPARATOR, Encoded, Reader
from w2s_mlflow.records import Example, Explanation

CHOOSERS = ("rationale", "line")
TRIES = 2
TOP_P = 0.9
"""Sampled are the most probable tokens that together have this probability (Holtzman et al. 2020, section 3.1)."""
LEAST = 8
"""Tokens of a prompt that must be left beside those of the answer."""
BECAUSE = "Because"
OTHER = "The other side says:"
_SENTENCES = re.compile(r".*[^\W\d_].*?[.!?](?=\s|$)")
_MOVE = re.compile(r"[KQRBNPkqrbnp][a-h][1-8]")


@dataclass
class RationaleGenerator:
    """A side's explainer that speaks in words of its own.

    Attributes:
        say: (what is heard of each question) -> what is said of it.
        fitting: (row, words) -> as many of the other side's words on a question as a prompt has room for.
        heard: of each question, what the prompts of the next round hold of the other side's words.
    """

    say: Callable[[Sequence[str]], list[str]]
    fitting: Callable[[int, str], str]
    heard: list[str]

    def hear(self, said: Sequence[str]) -> list[str]:
        """Take the other side's last words on each question; what of them the prompts of the next round hold."""
        self.heard = [self.fitting(row, words) for row, words in enumerate(said)]
        return self.heard

    def __call__(self, taken: Sequence[Collection[int]]) -> list[Explanation]:
        """What is said in one round."""
        return [Explanation(text) for text in self.say(self.heard)]


def explainer(chooser: str, mind: DebaterModel, tokens: int, claims: Sequence[str], seed: int, side: int) -> RationaleGenerator:
    """A side's explainer, which says at most `tokens` tokens in a round; a line of play does not hear the other side.

    Args:
        chooser: one of CHOOSERS.
        claims: the decision on each question in words; of `line` the move itself.
        seed: of the draws.
        side: its number in the debate: each draws for itself.

    Raises:
        ConfigError: the model cannot generate text, `tokens` leave no room for a question, or a claim is no move.
    """
    _check(chooser, mind.head, claims)
    prompt, keep = {"rationale": (_asked, _sentences), "line": (_played, _line)}[chooser]
    questions = mind.reading.questions
    sample, reader, room = _sampler(mind.head, tokens, mind.micro_batch), mind.head.reader, _room(mind.head, tokens)
    draws = itertools.count()

    def say(heard: Sequence[str]) -> list[str]:
        prompts = [prompt(*one) for one in zip(questions, claims, heard, strict=True)]
        found = [""] * len(prompts)
        for _ in range(TRIES):
            missing = [row for row, text in enumerate(found) if not text]
            said = sample([prompts[row] for row in missing], (seed, side, next(draws)))
            for row, text in zip(missing, said, strict=True):
                found[row] = keep(text, claims[row])
        return found

    def fitting(row: int, words: str) -> str:
        left = _quotable(words).split() if chooser == "rationale" else []
        while left and not _fits(reader, " ".join(left), claims[row], tokens, room):
            left.pop()
        return " ".join(left)

    return RationaleGenerator(say, fitting, [""] * len(questions))


def _check(chooser: str, head: Head, claims: Sequence[str]) -> None:
    if not head.model.can_generate():
        name = type(head.model).__name__
        raise ConfigError(f"--explainer {chooser} needs a model that can generate text, got {name}; gradient serves any model")
    if chooser == "line" and (wrong := next((claim for claim in claims if not _MOVE.fullmatch(claim)), None)) is not None:
        raise ConfigError(f"--explainer line needs a task whose answers are chess moves, such as chess, got {wrong!r}")


# --- the forms --------------------------------------------------------------------------------------------------------


def _asked(question: Example, claim: str, heard: str) -> str:
    return SEPARATOR.join((*question.segments, *question.candidates, *_end(claim, heard)))


def _end(claim: str, heard: str) -> tuple[str, ...]:
    """What a prompt ends with: the other side's words, if any, which nobody takes for the question's or its own; the claim."""
    return (*([f'{OTHER} "{heard}"'] if heard else []), f"Answer: {claim}", BECAUSE)


def _quotable(words: str) -> str:
    """Words on one line, without the mark that ends a quotation."""
    return " ".join(words.replace('"', "'").split())


def _fits(reader: Reader, heard: str, claim: str, tokens: int, room: int | None) -> bool:
    """Whether these words have at most `tokens` tokens, and a prompt with them has LEAST left for the question."""
    if len(reader.continuation(heard)) > tokens:
        return False
    return room is None or len(reader.continuation(SEPARATOR.join(_end(claim, heard)))) + LEAST <= room


def _sentences(text: str, claim: str) -> str:
    """The whole sentences on the first line, "Because" before them; "" where there is none with a letter in it."""
    line = text.lstrip(" ").splitlines()[0] if text.strip(" ") else ""
    found = _SENTENCES.match(line.strip())
    return f"{BECAUSE} {found[0]}" if found else ""


def _played(question: Example, claim: str, heard: str) -> str:
    return f"{SEPARATOR.join(question.segments)} {claim}"


def _line(text: str, claim: str) -> str:
    """The claimed move and those that are expected after it; "" where none is."""
    moves = list(itertools.takewhile(_MOVE.fullmatch, text.split()))
    return " ".join((claim, *moves)) if moves else ""


# --- sampling ---------------------------------------------------------------------------------------------------------

Sampler = Callable[[Sequence[str], tuple[int, ...]], list[str]]
"""(prompts, the seed and what else the draw goes by) -> what the model says after each."""


def _sampler(head: Head, tokens: int, micro_batch: int | None) -> Sampler:
    reader = Reader(head.tokenizer, head.model, _room(head, tokens))
    how = GenerationConfig(  # type: ignore[no-untyped-call]
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
        found, start = [""] * len(prompts), 0
        for rows in token_batches.by_length(data.lengths_R + tokens, micro_batch):  # with what is said after each
            texts = _generated(head, data, rows, how, (*seeds, start))
            start += len(rows)
            for row, text in zip(rows, texts, strict=True):
                found[row] = text
        return found

    return sample


def _generated(head: Head, data: Encoded, rows: np.ndarray, how: GenerationConfig, seeds: tuple[int, ...]) -> list[str]:
    seed, *more = seeds
    device, training = next(head.parameters()).device, head.training
    inputs = {name: tensor.to(device) for name, tensor in left_padded(data, rows).items()}
    head.eval()
    with torch.inference_mode(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(streams.integer(seed, streams.DEBATE_WORDS, *more))
        ids_RL = head.model.generate(**inputs, generation_config=how)  # type: ignore[operator]
    head.train(training)
    said_RL = ids_RL[:, inputs["input_ids"].shape[1] :]
    texts: list[str] = head.tokenizer.batch_decode(said_RL, skip_special_tokens=True)
    return texts


def left_padded(data: Encoded, rows: np.ndarray) -> dict[str, Tensor]:
    """Token rows with their padding on the left, where a model that goes on behind its last token needs it."""
    batch = data.batch(rows)
    shift_R = (1 - batch["attention_mask"]).sum(dim=1, keepdim=True)
    length = batch["input_ids"].shape[1]
    place_RL = (torch.arange(length) - shift_R) % length
    return {name: batch[name].gather(1, place_RL) for name in ("input_ids", "attention_mask")}


def _room(head: Head, tokens: int) -> int | None:
    """The tokens that a prompt may have."""
    limit = head.reader.limit
    if tokens < 1 or (limit is not None and limit - tokens < LEAST):
        most = "at least 1" if limit is None else f"in [1, {limit - LEAST}], what this model can say beside a question"
        raise must("tokens", most, tokens)
    return None if limit is None else limit - tokens
