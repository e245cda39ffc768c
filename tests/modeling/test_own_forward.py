"""Vocabulary logits are those of transformers' own forward pass, for every family of causal models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from tests import tiny, trunks
from w2s_mlflow import models, tasks
from w2s_mlflow.modeling import elicitation, heads, inference, language_modeling, vocabulary_logits
from w2s_mlflow.records import Example
from w2s_mlflow.tasks import Query

OFTEN = ("llama", "gemma2", "granite", "cohere", "bert", "roberta", "opt", "bart")
"""Families of the fast suite; the slow one has all of them, among them Falcon-H1 with its scales."""
TEXTS = ["a b c d e f", "g h", "c c a b h e d", "b d f h"]
NOT_MADE = {
    "blt": "it reads bytes in patches, whose sizes do not shrink alike",
    "cohere_compass_text": "its default config names an attention that its own code does not have",
    "dbrx": "its default config lacks rope_theta",
    "dots1": "its default config has no number of experts",
    "gemma3n": "it needs the package timm",
    "gemma3n_text": "it needs layers that share their caches, in a pattern of many layers",
    "gemma4_assistant": "it drafts for another model",
    "gemma4_unified_assistant": "it drafts for another model",
    "lfm2_moe": "its default config has no types of layers",
    "longcat_flash": "the sizes of its heads do not shrink alike",
    "mimo_v2_flash": "the sizes of its heads do not shrink alike",
    "musicgen": "it generates sound",
    "musicgen_melody": "it generates sound",
    "zamba": "its layers share weights in a pattern of many layers",
    "zamba2": "its layers share weights in a pattern of many layers",
}
"""Families that tests/tiny.py does not make, with the reason."""


def own_loss(model: PreTrainedModel, rows: list[list[int]]) -> float:
    """The mean loss per predicted token, computed by transformers from its own logits, row by row."""
    total, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([row])
        with torch.inference_mode():
            uncached = {"use_cache": False} if hasattr(model.config, "use_cache") else {}
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **uncached).logits.float()
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
    head = check(tiny.causal(kind))
    padded = head.encode([Example(text, text, (text,), ()) for text in TEXTS])
    assert language_modeling.mean_loss(head, padded, 4) == pytest.approx(language_modeling.mean_loss(head, padded, 1), rel=1e-4)


@pytest.mark.parametrize("kind", ["gemma2", "granite", "cohere", "bert"])
def test_the_output_matrix_alone_would_be_wrong(kind: str) -> None:
    """The tiny models have scales, caps and transforms, without which the logits would be others."""
    model = tiny.causal(kind)
    head = language_modeling.Packed(model, trunks.bert()[1])
    batch = head.encode([Example("a", "a", (TEXTS[0],), ())]).batch(np.arange(1))
    with torch.inference_mode():
        matrix = head.unembedding()(head.hidden_RLD(batch))[0, :-1]
        assert not torch.allclose(head(batch), matrix, atol=1e-2)


@pytest.mark.parametrize("kind", ["gemma2", "bart"])
def test_prompts_and_choices_use_the_models_own_logits(kind: str) -> None:
    model, tokenizer = tiny.causal(kind), trunks.bert()[1]
    choice = heads.build("lm_choice", model, tokenizer, 2).eval()
    prompt = elicitation.Continuations(model, tokenizer).eval()
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
    llama = tiny.causal("llama")
    assert vocabulary_logits.separable(llama) and not vocabulary_logits.separable(tiny.causal("bart"))
    seen: list[torch.Size] = []
    llama.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    head = language_modeling.Packed(llama, trunks.bert()[1])
    seen.clear()
    batch = head.encode([Example(text, text, (text,), ()) for text in TEXTS]).batch(np.arange(4))
    head(batch)
    assert seen == [torch.Size((1, len(head.targets(batch)), 16))]


def test_asking_whether_a_model_can_be_separated_changes_nothing() -> None:
    model = tiny.causal("gpt2").train()
    state, own = torch.random.get_rng_state(), dict(vars(model.base_model))
    assert vocabulary_logits.separable(model) and model.training
    assert torch.equal(torch.random.get_rng_state(), state) and vars(model.base_model).keys() == own.keys()


@pytest.mark.parametrize("name", ["chess-60k", "chess-222k"])
def test_the_shipped_models_have_the_logits_of_the_output_layer_alone_bit_for_bit(name: str) -> None:
    """So their results are those of the time before models computed their logits themselves."""
    model, tokenizer = models.load(models.find(name, "weak"), pretrained=True)
    head = language_modeling.Packed(model, tokenizer).eval()
    prompts = tasks.find("chess").load(None).heldout[:16]
    batch = head.encode([Example(row.example.id, "", row.example.segments, ()) for row in prompts]).batch(np.arange(16))
    with torch.inference_mode():
        scored = torch.nn.functional.pad(batch["attention_mask"][:, 1:], (0, 1)).bool()
        assert torch.equal(head(batch), head.unembedding()(head.hidden_RLD(batch)[scored]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(kind.model_type for kind in MODEL_FOR_CAUSAL_LM_MAPPING))
def test_every_causal_family_has_transformers_own_loss(kind: str) -> None:
    if kind in NOT_MADE:
        pytest.skip(f"{kind}: {NOT_MADE[kind]}")
    check(tiny.causal(kind))
