"""Chess models: six small decoder language models, shipped with the package.

The stage `pretrain` (stages/pretrain.py) trains them on chess moves and their recaptures. Each token is a word, such as a piece
on a square (see VOCABULARY). Each checkpoint is stored in float16 as a Hugging Face directory, weights/<name>/<checkpoint>; its
number is the seed of its pretraining.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from w2s_mlflow.models import ModelSpec, Size

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase

WEIGHTS = Path(__file__).parent / "weights"
_SQUARES = tuple(file + rank for rank in "12345678" for file in "abcdefgh")
VOCABULARY = (
    "<pad>",
    "<bos>",
    "<unk>",
    ">",
    "-",
    *(piece + square for piece in "KQRBNPkqrbnp" for square in _SQUARES),
)
"""All tokens, in the order of their ids: the special tokens, then each piece on each square. White's are in upper case."""
CONTEXT = 32
"""Maximum number of tokens in a text: a position of at most eight pieces, the token `>` and a few moves."""


@dataclass(frozen=True)
class Shape:
    """Dimensions of one chess model. All chess models have the Llama architecture."""

    layers: int
    width: int
    heads: int


SHAPES = {
    "chess-27k": Shape(1, 16, 1),
    "chess-43k": Shape(1, 24, 2),
    "chess-60k": Shape(1, 32, 2),
    "chess-121k": Shape(2, 48, 3),
    "chess-222k": Shape(3, 64, 4),
    "chess-426k": Shape(3, 96, 6),
}

SPECS = (
    ModelSpec(name="chess-27k", family="chess", size=Size(27_344, 2_608), learning_rate=3e-3),
    ModelSpec(name="chess-43k", family="chess", size=Size(42_936, 5_832), learning_rate=3e-3),
    ModelSpec(name="chess-60k", family="chess", size=Size(59_808, 10_336), learning_rate=1e-3, checkpoints=3),
    ModelSpec(name="chess-121k", family="chess", size=Size(120_528, 46_320), learning_rate=1e-3),
    ModelSpec(name="chess-222k", family="chess", size=Size(222_272, 123_328), learning_rate=1e-3, checkpoints=3),
    ModelSpec(name="chess-426k", family="chess", size=Size(425_568, 277_152), learning_rate=1e-3, checkpoints=3),
)


def load(spec: ModelSpec, *, pretrained: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model in float32 and its tokenizer. If `pretrained` is False, draw random weights from torch's random state."""
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(_config(SHAPES[_shape_name(spec)]))
    if pretrained:  # from_pretrained is not used, because it is ten times slower and prints a progress bar
        model.load_state_dict(load_file(_weights(spec)))
    return model, tokenizer()


def save(model: PreTrainedModel, directory: Path) -> None:
    """Write a model as a Hugging Face directory: config.json, and model.safetensors in float16."""
    import torch
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.float16
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    weights = {key: tensor.half().contiguous() for key, tensor in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def revision(spec: ModelSpec) -> str:
    """Return the sha256 of the shipped weights, which is used in fingerprints, or "" if no weights are shipped."""
    file = _weights(spec)
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""


def layers(spec: ModelSpec) -> int:
    """Return the model's number of layers."""
    return SHAPES[_shape_name(spec)].layers


def _weights(spec: ModelSpec) -> Path:
    return WEIGHTS / _shape_name(spec) / str(spec.checkpoint) / "model.safetensors"


def _shape_name(spec: ModelSpec) -> str:
    """Return the name of a model without the checkpoint that it may pin."""
    return spec.name.partition("@")[0]


def tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer with one token per word. Texts begin with `<bos>`; a pair of texts is joined without a separator."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)])
    tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", model_max_length=CONTEXT
    )
    return tokenizer


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
