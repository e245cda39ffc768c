"""Text -> tensors, and logits -> answers: the heads `choose`, `classify` and `compare`, and `language` for pretraining.

A head wraps a Hugging Face model: `encode` tokenises examples once, `forward` turns a batch into logits_NC. Positions of
tokens come from the attention mask alone, never from token values. Shape legend: N examples, R token rows (2N for
`compare`, else N), L tokens, D hidden units, C classes, V words, M scored tokens. `save` and `load` keep a fitted head as
a Hugging Face directory.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from w2s_mlflow.config import ConfigError, unknown
from w2s_mlflow.records import Example, Ints
from w2s_mlflow.tasks import HEADS

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Encoded:
    """Tokenised examples, ragged: all token rows one after the other, so that a batch is cut out without Python loops."""

    flat: Ints
    """The tokens of all R rows, (sum of lengths,)."""
    offsets_R: Ints
    lengths_R: Ints
    rows_per_example: int
    pad_id: int
    candidates_NC: Ints | None = None
    """Head `choose`: the token of each candidate answer."""
    scored_from_R: Ints | None = None
    """Head `language`: the first token of the row that counts in the loss."""

    def __len__(self) -> int:
        return len(self.lengths_R) // self.rows_per_example

    def lengths_N(self) -> Ints:
        """The longest token row of each example, (N,): what batches are sorted by."""
        longest_N: Ints = self.lengths_R.reshape(-1, self.rows_per_example).max(axis=1)
        return longest_N

    def batch(self, examples: Ints) -> Batch:
        """The given examples as tensors, right-padded to the longest among them: input_ids_RL, attention_mask_RL, ..."""
        k = self.rows_per_example
        rows = (examples[:, None] * k + np.arange(k)).reshape(-1)
        columns = np.arange(int(self.lengths_R[rows].max()))
        mask_RL = columns < self.lengths_R[rows, None]
        where_RL = np.minimum(self.offsets_R[rows, None] + columns, len(self.flat) - 1)
        input_ids_RL = np.where(mask_RL, self.flat[where_RL], self.pad_id)
        batch = {"input_ids": torch.from_numpy(input_ids_RL), "attention_mask": torch.from_numpy(mask_RL.astype(np.int64))}
        if self.candidates_NC is not None:
            batch["candidates"] = torch.from_numpy(self.candidates_NC[examples])
        if self.scored_from_R is not None:
            batch["scored_from"] = torch.from_numpy(self.scored_from_R[rows])
        return batch


def ragged(rows: Sequence[Sequence[int]], pad_id: int, rows_per_example: int = 1, **extra: Ints | None) -> Encoded:
    """`Encoded` from lists of tokens. Raises ConfigError for an empty row: a model cannot answer nothing."""
    lengths_R = np.array([len(row) for row in rows], dtype=np.int64)
    if len(rows) and lengths_R.min() == 0:
        raise ConfigError(f"an example of {len(rows)} has no tokens: every text must hold at least one word")
    flat = np.fromiter((token for row in rows for token in row), dtype=np.int64, count=int(lengths_R.sum()))
    return Encoded(flat, np.cumsum(lengths_R) - lengths_R, lengths_R, rows_per_example, pad_id, **extra)


class Head(nn.Module):
    """A model that answers: `encode` once, then `forward` per batch."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    def encode(self, examples: Sequence[Example]) -> Encoded:
        """Tokenise once. Subclasses say what the text of an example is."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Tensor:
        """logits_NC of a batch made by `Encoded.batch`."""
        raise NotImplementedError

    def targets(self, batch: Batch) -> Tensor:
        """What the loss compares the logits with: soft labels_NC."""
        return batch["labels"]

    def hidden_RLD(self, batch: Batch) -> Tensor:
        """The trunk's last hidden states."""
        hidden: Tensor = self.model.base_model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
        return hidden

    def last_RD(self, batch: Batch) -> Tensor:
        """The hidden state of the last real token of each row, found by the mask (rows are right-padded)."""
        last_R = batch["attention_mask"].sum(dim=1) - 1
        hidden_RLD = self.hidden_RLD(batch)
        return hidden_RLD[torch.arange(len(last_R), device=last_R.device), last_R]

    def unembedding(self) -> nn.Module:
        """The language-model head. Raises ConfigError for a model without one."""
        layer: nn.Module | None = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if layer is None:
            raise ConfigError(f"--head choose needs a language model, got {type(self.model).__name__} without output words")
        return layer

    def _tokens(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[list[int]]:
        limit = min(self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 10**9))
        found = self.tokenizer(list(texts), list(pairs) if pairs else None, truncation=True, max_length=limit)
        tokens: list[list[int]] = found["input_ids"]
        return tokens

    def _pad_id(self) -> int:
        ids = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(id_ for id_ in ids if isinstance(id_, int))


class Choose(Head):
    """The language-model head's scores of the candidate words after the text; a named departure from the paper."""

    def encode(self, examples: Sequence[Example]) -> Encoded:
        tokens = self._tokens([" ".join(example.segments) for example in examples])
        words = sorted({word for example in examples for word in example.candidates})
        token_of = {word: self._candidate(word) for word in words}
        candidates = [[token_of[word] for word in example.candidates] for example in examples]
        return ragged(tokens, self._pad_id(), candidates_NC=np.array(candidates, dtype=np.int64))

    def forward(self, batch: Batch) -> Tensor:
        logits_NV: Tensor = self.unembedding()(self.last_RD(batch))
        return logits_NV.gather(1, batch["candidates"])

    def _candidate(self, word: str) -> int:
        tokens: list[int] = self.tokenizer(" " + word, add_special_tokens=False)["input_ids"]
        if len(tokens) != 1 or tokens[0] == self.tokenizer.unk_token_id:
            raise ConfigError(f"--head choose needs candidates of one token, got {word!r} as {len(tokens)} tokens")
        return tokens[0]


class Classify(Head):
    """A linear head on the mask-aware pooled trunk, as the paper has it: last token of a decoder, mean of an encoder."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, classes: int) -> None:
        super().__init__(model, tokenizer)
        self.linear = nn.Linear(model.config.hidden_size, classes)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        texts = [example.segments + example.candidates for example in examples]
        pairs = [" ".join(text[1:]) for text in texts] if any(len(text) > 1 for text in texts) else None
        return ragged(self._tokens([text[0] for text in texts], pairs), self._pad_id())

    def forward(self, batch: Batch) -> Tensor:
        logits_NC: Tensor = self.linear(self.pooled_RD(batch))
        return logits_NC

    def pooled_RD(self, batch: Batch) -> Tensor:
        """One vector a row: the last real token where attention is causal, else the mean over real tokens."""
        if self.model.can_generate():  # it reads left to right: only the last token has seen the whole text
            return self.last_RD(batch)
        mask_RL1 = batch["attention_mask"].unsqueeze(-1).to(torch.float32)
        return (self.hidden_RLD(batch) * mask_RL1).sum(dim=1) / mask_RL1.sum(dim=1)


class Compare(Classify):
    """A scalar per response: logits (r_A, r_B), whose softmax is the Bradley-Terry probability."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(model, tokenizer, classes=1)

    def encode(self, examples: Sequence[Example]) -> Encoded:
        prompts = [" ".join(example.segments) for example in examples for _ in range(2)]
        responses = [response for example in examples for response in example.candidates]
        return ragged(self._tokens(prompts, responses), self._pad_id(), rows_per_example=2)

    def forward(self, batch: Batch) -> Tensor:
        reward_R: Tensor = self.linear(self.pooled_RD(batch)).squeeze(-1)
        return reward_R.view(-1, 2)


class Language(Head):
    """Next-token prediction: each example's candidate (or, without one, its whole text) is what is scored."""

    def encode(self, examples: Sequence[Example]) -> Encoded:
        prompts = [" ".join(example.segments) if example.candidates else "" for example in examples]
        texts = [" ".join(example.segments + example.candidates) for example in examples]
        starts = [max(1, len(tokens)) for tokens in self._tokens(prompts)]
        return ragged(self._tokens(texts), self._pad_id(), scored_from_R=np.array(starts, dtype=np.int64))

    def forward(self, batch: Batch) -> Tensor:
        """logits_MV of the M scored tokens, each from the hidden state of the token before it."""
        logits_MV: Tensor = self.unembedding()(self.hidden_RLD(batch)[:, :-1][self._scored(batch)])
        return logits_MV

    def targets(self, batch: Batch) -> Tensor:
        """The scored tokens themselves, (M,)."""
        return batch["input_ids"][:, 1:][self._scored(batch)]

    def _scored(self, batch: Batch) -> Tensor:
        columns = torch.arange(1, batch["input_ids"].shape[1], device=batch["input_ids"].device)
        return (columns >= batch["scored_from"][:, None]) & batch["attention_mask"][:, 1:].bool()


def build(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, classes: int) -> Head:
    """The head `name` on `model`; new weights are drawn from the current random state, so seed first."""
    if name == "choose":
        return Choose(model, tokenizer)
    if name == "compare":
        return Compare(model, tokenizer)
    if name == "classify":
        return Classify(model, tokenizer, classes)
    raise unknown("--head", name, HEADS)


# --- a fitted head on disk --------------------------------------------------------------------------------------------

NAMES: dict[type[Head], str] = {Choose: "choose", Classify: "classify", Compare: "compare"}
HEAD = "head.json"
LINEAR = "head.safetensors"


def classes_of(head: Head) -> int | None:
    """How many classes a head answers with; None for `choose`, which has as many as an example has candidates."""
    if isinstance(head, Compare):
        return 2
    return head.linear.out_features if isinstance(head, Classify) else None


def save(head: Head, directory: Path) -> None:
    """Write a fitted head: a Hugging Face directory, `head.json`, and `head.safetensors` where the head has its own weights.

    The precision is that of the head, float32.
    """
    with _without_progress_bars():
        head.model.save_pretrained(directory)
    head.tokenizer.save_pretrained(directory)
    content = {"head": NAMES[type(head)], "classes": classes_of(head)}
    (directory / HEAD).write_text(json.dumps(content) + "\n", encoding="utf-8")
    if isinstance(head, Classify):
        safetensors.torch.save_file(head.linear.state_dict(), directory / LINEAR)


def load(directory: Path) -> Head:
    """The head that `save` wrote, in float32 on the CPU, ready to answer; no random number is drawn.

    Raises:
        ConfigError: config.json names no model of transformers, or the weights are not that model's.
    """
    content = json.loads((directory / HEAD).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    model = _load_model(directory)
    with torch.device("meta"):  # the weights that are read below replace those that would be drawn
        head = build(content["head"], model, tokenizer, content["classes"])
    if isinstance(head, Classify):
        weights = safetensors.torch.load((directory / LINEAR).read_bytes())
        head.linear.load_state_dict(weights, assign=True)
    return head.eval()


def _load_model(directory: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    name = next(iter(config.architectures or ()), "")
    architecture = getattr(transformers, name, None)
    if not (isinstance(architecture, type) and issubclass(architecture, PreTrainedModel)):
        raise ConfigError(f"{directory / 'config.json'} must name a model of transformers as its architecture, got {name!r}")
    with _without_progress_bars():
        read: tuple[PreTrainedModel, dict[str, Collection[object]]] = architecture.from_pretrained(  # type: ignore[assignment]
            directory,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            disable_mmap=True,  # else the weights are views of the file, and change with it
            output_loading_info=True,
        )
    model, report = read
    if wrong := sorted(str(key) for keys in report.values() for key in keys):
        raise ConfigError(f"the weights in {directory} are not those of {name}: {wrong[0]} is missing or does not belong there")
    return model


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Hold back the progress bars of transformers, which would tear our own."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
