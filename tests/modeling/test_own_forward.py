"""Vocabulary logits are those of transformers' own forward pass, for every family of causal models."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from tests import trunks
from w2s_mlflow.modeling import elicitation, heads, inference, language_modeling, vocabulary_logits
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import Query

WORDS = len(trunks.WORDS)
SMALL: dict[str, Any] = {
    **{"vocab_size": WORDS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    **{"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.5, "is_decoder": True},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_experts": 2, "num_local_experts": 2},
    **{"num_experts_per_tok": 1, "dropout": 0.0, "attention_dropout": 0.0, "word_embed_proj_dim": 8},
}
"""Sizes under the names that most config classes use. A class ignores those that it does not know."""
OFTEN: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 5.0, "initializer_range": 2.0},
    "granite": {"logits_scaling": 8.0},
    "cohere": {"logit_scale": 0.0625},
    "bert": {},
    "roberta": {},
    "opt": {},
    "bart": {"d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16},
}
"""Families of the fast suite, with the settings that make their own forward differ from the output matrix alone."""
TEXTS = ["a b c d e f", "g h", "c c a b h e d", "b d f h"]


def config(kind: str, **values: Any) -> Any:
    return transformers.CONFIG_MAPPING[kind](**SMALL | values)


def model_of(kind: str, **values: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        architecture: Any = transformers.AutoModelForCausalLM
        found: PreTrainedModel = architecture.from_config(config(kind, **values), dtype=torch.float32).eval()
    return found


def own_loss(model: PreTrainedModel, rows: list[list[int]]) -> float:
    """The mean loss per predicted token, computed by transformers from its own logits, row by row."""
    total, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([row])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
        total += torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
        tokens += len(row) - 1
    return total / tokens


def check(model: PreTrainedModel) -> language_modeling.Packed:
    """Compare the mean loss over padded batches with transformers' loss, row by row."""
    head = language_modeling.Packed(model, trunks.bert()[1]).eval()
    data = head.encode([Example(text, text, (text,), ()) for text in TEXTS])
    rows = [data.flat[start : start + size].tolist() for start, size in zip(data.offsets_R, data.lengths_R, strict=True)]
    # Each row is a batch of its own, because a model with a state (Mamba) or sorting (Reformer) need not ignore padding.
    assert language_modeling.mean_loss(head, data, 1) == pytest.approx(own_loss(model, rows), rel=1e-4)
    return head


@pytest.mark.parametrize("kind", OFTEN)
def test_the_loss_is_that_of_transformers(kind: str) -> None:
    head = check(model_of(kind, **OFTEN[kind]))
    padded = head.encode([Example(text, text, (text,), ()) for text in TEXTS])
    assert language_modeling.mean_loss(head, padded, 4) == pytest.approx(language_modeling.mean_loss(head, padded, 1), rel=1e-4)


@pytest.mark.parametrize("kind", ["gemma2", "granite", "cohere", "bert"])
def test_the_output_matrix_alone_would_be_wrong(kind: str) -> None:
    """The settings of OFTEN are no idle ones: without the model's own forward the logits are others."""
    model = model_of(kind, **OFTEN[kind])
    head = language_modeling.Packed(model, trunks.bert()[1])
    batch = head.encode([Example("a", "a", (TEXTS[0],), ())]).batch(np.arange(1))
    with torch.inference_mode():
        matrix = head.unembedding()(head.hidden_RLD(batch))[0, :-1]
        assert not torch.allclose(head(batch), matrix, atol=1e-2)


@pytest.mark.parametrize("kind", ["gemma2", "bart"])
def test_prompts_and_choices_use_the_models_own_logits(kind: str) -> None:
    model, tokenizer = model_of(kind, **OFTEN[kind]), trunks.bert()[1]
    choice = heads.build("lm_choice", model, tokenizer, 2).eval()
    prompt = elicitation.Continuations(model, tokenizer)
    examples = [Example(text, text, (text,), ("b", "c")) for text in TEXTS]
    found = inference.outputs(choice, choice.encode(examples))
    answers = inference.outputs(prompt, prompt.encode_queries([Query(text, word) for text in TEXTS for word in ("b", "c")]))
    for text, row, pair in zip(TEXTS, found, answers.reshape(-1, 2), strict=True):
        ids = torch.tensor([[trunks.CLS, *(trunks.WORDS[word] for word in text.split())]])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1]
        chosen = [trunks.WORDS["b"], trunks.WORDS["c"]]
        np.testing.assert_allclose(row, logits[chosen], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(pair, logits.log_softmax(-1)[chosen], rtol=1e-4, atol=1e-5)


def test_logits_are_computed_at_the_selected_positions_only() -> None:
    """Llama's backbone can be separated from the rest; BART's decoder, which its own forward calls elsewhere, cannot."""
    llama = model_of("llama")
    assert vocabulary_logits.separable(llama) and not vocabulary_logits.separable(model_of("bart", **OFTEN["bart"]))
    seen: list[torch.Size] = []
    llama.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    head = language_modeling.Packed(llama, trunks.bert()[1])
    seen.clear()
    batch = head.encode([Example(text, text, (text,), ()) for text in TEXTS]).batch(np.arange(4))
    head(batch)
    assert seen == [torch.Size((1, len(head.targets(batch)), 16))]


def test_asking_whether_a_model_can_be_separated_changes_nothing() -> None:
    model = model_of("gpt2", n_embd=16, n_layer=1, n_head=2).train()
    state, own = torch.random.get_rng_state(), dict(vars(model.base_model))
    assert vocabulary_logits.separable(model) and model.training
    assert torch.equal(torch.random.get_rng_state(), state) and vars(model.base_model).keys() == own.keys()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(kind.model_type for kind in MODEL_FOR_CAUSAL_LM_MAPPING))
def test_every_causal_family_has_transformers_own_loss(kind: str) -> None:
    """A family that cannot be made from the small sizes, or is not a decoder of text, is skipped by name."""
    try:
        model = model_of(kind)
        if model.num_parameters() > 30_000_000:
            pytest.skip(f"{kind} cannot be made small with common names of sizes")
        own_loss(model, [[1, 4, 5, 2]])
    except (AttributeError, TypeError, ValueError, RuntimeError, ImportError, IndexError, KeyError, AssertionError) as error:
        pytest.skip(f"{kind} cannot be made from the common names of sizes: {error}")
    if not heads.causal(model) or model.get_output_embeddings() is None:  # type: ignore[no-untyped-call]
        pytest.skip(f"{kind} has no output layer that the project uses")
    check(model)
