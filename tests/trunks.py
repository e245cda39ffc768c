"""Tokenizers and trunks of three kinds, made in the test: BERT's pairs, GPT-2's bytes without marks, Llama's `<s>` first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from w2s_mlflow.modeling.token_rows import Encoded

Maker = Callable[..., tuple[PreTrainedModel, PreTrainedTokenizerBase]]
CLS, SEP = 1, 2
WORDS = {word: id_ for id_, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"abcdefgh", "##h", "[", "]", "sep"])}
"""BERT's vocabulary: `a` is 4, ..., `h` is 11."""
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def bert(limit: int = 512) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """[CLS] A [SEP] B [SEP], token types 0 and 1; as some files have it, with truncation and padding switched on."""
    words = Tokenizer(models.WordPiece(WORDS, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=True)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    words.enable_truncation(5)
    words.enable_padding(length=5)
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    config = BertConfig.from_dict({**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": limit})
    return BertModel(config), _fast(words, model_input_names=inputs, **names)


def gpt2(limit: int = 512) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Bytes in GPT-2's order, where "!" is 0, and the merges " a" and " b"; no token marks a beginning or an end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # the printable ones first, as in GPT-2
    vocabulary = {letter: id_ for id_, letter in enumerate([*letters, "Ġa", "Ġb"])}
    words = Tokenizer(models.BPE(vocabulary, [("Ġ", "a"), ("Ġ", "b")]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.post_processor = processors.ByteLevel(trim_offsets=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = _fast(words, eos_token="<|endoftext|>")
    config = GPT2Config(
        vocab_size=len(vocabulary) + 1, n_positions=limit, n_embd=16, n_layer=1, n_head=2, bos_token_id=258, eos_token_id=258
    )
    return GPT2LMHeadModel(config), tokenizer


def llama(limit: int = 512) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """<s> first, and, as in Llama's own files, once more before the second text of a pair; "▁" starts every word."""
    vocabulary = {word: id_ for id_, word in enumerate(["<unk>", "<s>", "</s>", "▁", "\n", *"abcd", "▁a", "▁b", "▁c"])}
    words = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("▁", "b"), ("▁", "c")], unk_token="<unk>"))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    own = {"num_key_value_heads": 1, "bos_token_id": 1, "eos_token_id": 2}
    config = LlamaConfig.from_dict({**SIZES, **own, "vocab_size": len(vocabulary), "max_position_embeddings": limit})
    return LlamaForCausalLM(config), _fast(words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _fast(words: Tokenizer, **names: object) -> PreTrainedTokenizerBase:
    found: PreTrainedTokenizerBase = PreTrainedTokenizerFast(tokenizer_object=words, **names)  # type: ignore[no-untyped-call]
    return found


def ragged(rows: Sequence[Sequence[int]]) -> Encoded:
    """Rows of tokens as a reader gives them, of one row each, without types."""
    lengths_R = np.array([len(row) for row in rows], dtype=np.int64)
    return Encoded(np.concatenate(rows), np.cumsum(lengths_R) - lengths_R, lengths_R, 1, pad_id=0)
