"""The embedded ladder: five small decoder language models, pretrained by stages/pretrain.py on play that our code generates.

Words are pieces on squares (see VOCABULARY); the weights stand in weights/<rung>, a Hugging Face directory each, in float16.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_mlflow.config import unknown
from w2s_mlflow.models import Rung

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = Path(__file__).parent / "weights"
SPECIAL = ("<pad>", "<bos>", "<unk>", ">")
PLAYERS = ("expert", "hunter", "humble", "careful")
VOCABULARY = (*SPECIAL, *PLAYERS, *(f"{piece}{file}{rank}" for piece in "KQRBNPkqrbnp" for rank in "12345678" for file in "abcdefgh"))
CONTEXT = 32
"""Tokens that a text may have: a position of ten pieces, its mark and a few moves."""


@dataclass(frozen=True)
class Shape:
    """The size of one rung's Llama."""

    layers: int
    width: int
    heads: int


SHAPES = {
    "chess-38k": Shape(1, 32, 2),
}

RUNGS = (
    Rung(name="chess-38k", family="chess", parameters=38_000, learning_rate=1e-3),
)


def load(name: str, *, pretrained: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The rung's model in float32 and its tokenizer; `pretrained=False` draws weights from the current random state."""
    from transformers import LlamaForCausalLM

    if name not in SHAPES:
        raise unknown("--model", name, SHAPES)
    if not pretrained:
        return LlamaForCausalLM(_config(SHAPES[name])), tokenizer()
    return LlamaForCausalLM.from_pretrained(WEIGHTS / name, dtype="float32"), tokenizer()


def save(model: PreTrainedModel, directory: Path) -> None:
    """Write config.json and model.safetensors in float16; the caller's model becomes float16, too."""
    model.half().save_pretrained(directory)


def tokenizer() -> PreTrainedTokenizerBase:
    """One token a word, `<bos>` first; a pair is one text after the other."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", model_max_length=CONTEXT
    )


def _config(shape: Shape) -> LlamaConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=VOCABULARY.index("<pad>"),
        bos_token_id=VOCABULARY.index("<bos>"),
        eos_token_id=None,
    )
