"""Evidence from a question's own text: which tokens a piece has, how pieces are drawn, and what each explainer shows."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests import trunks
from w2s_mlflow.data import spans
from w2s_mlflow.explainers import DebaterModel, DebateSide, Explainer, _extractive, _plackett_luce, every, find, policy
from w2s_mlflow.explainers._policy import Policy
from w2s_mlflow.explainers._token_spans import NOWHERE, read
from w2s_mlflow.modeling import attribution, heads
from w2s_mlflow.modeling.heads import Head
from w2s_mlflow.records import Example
from w2s_mlflow.training import loop

KINDS: dict[str, type[Head]] = {"bert": heads.Classification, "gpt2": heads.LMChoice, "llama": heads.Reward}
QUESTIONS = [
    Example("0", "0", ("a b c d", "b a"), ("a c", "d b")),
    Example("1", "1", ("d c",), ("b", "c a")),
    Example("2", "2", ("ab é cd . a", "d"), ("c b", "a")),
]


def made(kind: str, max_length: int | None = None) -> Head:
    loop.seed_everything(0)
    model, tokenizer = getattr(trunks, kind)()
    more: dict[str, Any] = {"classes": 2} if kind == "bert" else {}
    return KINDS[kind](model, tokenizer, max_length=max_length, **more).eval()


def questions(kind: str) -> list[Example]:
    if kind != "gpt2":
        return QUESTIONS
    return [Example(question.id, question.group, question.segments, ("a", "b")) for question in QUESTIONS]


def debater(kind: str, network: Policy | None = None) -> DebaterModel:
    head = made(kind)
    return DebaterModel(head, read(head, questions(kind)), np.array([0, 1, 1]), network)


def explainer(name: str, own: DebaterModel, size: int, seed: int = 0) -> Explainer:
    random = torch.Generator().manual_seed(seed)
    side = DebateSide(own, claims=[""] * 3, random=random, seed=seed, number=0, evidence_spans=size)
    made: Explainer = find(name, "explainer").make(side)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_of_a_text_belongs_to_the_piece_it_stands_in(kind: str) -> None:
    head, asked = made(kind), questions(kind)
    found = read(head, asked)
    rows = found.data.rows_per_example
    for row, length in enumerate(found.data.lengths_R):
        question, start = asked[row // rows], found.data.offsets_R[row]
        texts, cut = question.segments + question.candidates, spans.spans_of(question)
        for piece in set(found.span_T[start : start + length]) - {NOWHERE}:
            own = found.data.flat[start : start + length][found.span_T[start : start + length] == piece]
            said = "".join(str(head.tokenizer.decode(own)).replace("▁", " ").split())
            place = cut[piece]
            expected = texts[place.text][place.start : place.end]
            assert said in (expected, expected.replace("é", "e"), "[UNK]", "<unk>")
    assert _extractive.readable(found).sum(dim=1).tolist() == [len(spans.spans_of(question)) for question in asked]


def test_a_piece_that_the_model_does_not_read_cannot_be_chosen() -> None:
    head = made("bert", max_length=6)
    found = read(head, [Example("long", "long", ("a b c d e f g h",), ())])
    assert _extractive.readable(found).tolist() == [[True] * 4 + [False] * 4] and found.count_N.tolist() == [8]
    explain = explainer("random", DebaterModel(head, found, np.array([0])), 6)
    assert sorted(explain([()])[0].pieces) == [0, 1, 2, 3]


# --- draws ------------------------------------------------------------------------------------------------------------

SCORES = torch.tensor([[0.5, -1.0, 2.0, 0.0]], dtype=torch.float64)
OPEN = torch.tensor([[True, True, True, False]])


def ordered(size: int) -> torch.Tensor:
    """All ordered draws of the three open pieces, (1, K, size)."""
    return torch.tensor([list(itertools.permutations(range(3), size))])


def test_the_probability_of_an_ordered_draw_worked_by_hand() -> None:
    weights = [math.exp(0.5), math.exp(-1.0), math.exp(2.0)]
    expected = weights[2] / sum(weights) * weights[0] / (weights[0] + weights[1])
    found = _plackett_luce.log_probability(SCORES, OPEN, torch.tensor([[[2, 0]]]))
    assert found.exp().item() == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_probabilities_of_all_ordered_draws_sum_to_one(size: int) -> None:
    assert _plackett_luce.log_probability(SCORES, OPEN, ordered(size)).exp().sum().item() == pytest.approx(1)


def test_draws_are_as_frequent_as_their_probability() -> None:
    drawn = _plackett_luce.draw(SCORES, OPEN, 20_000, 2, torch.Generator().manual_seed(0))
    for pair, probability in zip(ordered(2)[0], _plackett_luce.log_probability(SCORES, OPEN, ordered(2)).exp()[0], strict=True):
        share = (drawn[0] == pair).all(dim=1).double().mean()
        assert share.item() == pytest.approx(probability.item(), abs=4 * math.sqrt(0.25 / 20_000))


def test_what_is_not_there_is_not_drawn_and_costs_nothing() -> None:
    drawn = _plackett_luce.draw(SCORES, OPEN, 3, 4, torch.Generator().manual_seed(0))
    assert (drawn[..., 3] == NOWHERE).all() and drawn[..., :3].sort().values.tolist() == [[[0, 1, 2]] * 3]
    both = [_plackett_luce.log_probability(SCORES, OPEN, drawn[..., :size]) for size in (3, 4)]
    assert torch.equal(*both)
    closed = torch.zeros(1, 4, dtype=torch.bool)
    leaf = SCORES.clone().requires_grad_()
    _plackett_luce.log_probability(leaf, closed, torch.full((1, 2, 2), NOWHERE)).sum().backward()  # type: ignore[no-untyped-call]
    assert leaf.grad is not None and not leaf.grad.any()


def test_entropy_is_one_of_anything_and_zero_of_always_the_same() -> None:
    scores = torch.tensor([[0.0, 0.0, 0.0, 9.0], [60.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    open_NP = torch.tensor([[True, True, True, False], [True] * 4, [False, False, True, False]])
    assert _plackett_luce.entropy(scores, open_NP).tolist() == pytest.approx([1, 0, 1], abs=1e-6)


# --- explainers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_chooses_the_pieces_that_speak_most_for_the_decision(kind: str) -> None:
    own = debater(kind)
    score_T = attribution.scores(own.head, own.encoded.data, own.decisions_N)
    found = explainer("gradient", own, 2)([()] * 3)
    rows = own.encoded.data.rows_per_example
    example_T = np.repeat(np.arange(3 * rows) // rows, own.encoded.data.lengths_R)
    for number, explanation in enumerate(found):
        sums = {
            piece: float(score_T[(example_T == number) & (own.encoded.span_T == piece)].sum())
            for piece in range(own.encoded.count_N[number])
        }
        best = sorted(sums, key=lambda piece: -sums[piece])[:2]
        assert [sums[piece] for piece in explanation.pieces] == pytest.approx([sums[piece] for piece in best], abs=1e-6)
        assert explanation.text == spans.quoted(own.encoded.questions[number], explanation.pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_at_its_start_prefers_nothing_and_draws_no_number_of_others(kind: str) -> None:
    before = torch.get_rng_state()
    network = Policy(16, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    own = debater(kind, network)
    assert not policy.scores(own).any()
    torch.nn.init.normal_(network.score.weight)
    assert len(set(policy.scores(own).flatten().tolist())) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_a_policy_hang_on_the_decision(kind: str) -> None:
    network = Policy(16, seed=3)
    torch.nn.init.normal_(network.score.weight)
    own = debater(kind, network)
    other = DebaterModel(own.head, own.encoded, 1 - own.decisions_N, network)
    assert not torch.allclose(policy.scores(own), policy.scores(other))


@pytest.mark.parametrize("name", ["gradient", "policy"])
def test_at_most_a_micro_batch_of_questions_is_read_at_once(name: str) -> None:
    own = replace(debater("llama", Policy(16, seed=0)), micro_batch=2)
    read: list[int] = []
    own.head.model.get_input_embeddings().register_forward_hook(lambda module, given, made: read.append(len(made)))
    explainer(name, own, 2)([()] * 3)
    assert read == [2 * 2, 1 * 2]  # each is two rows, one of each answer


@pytest.mark.parametrize("name", [name for name, plugin in every().items() if plugin.EVIDENCE == "spans"])
def test_what_was_shown_is_not_shown_again_until_nothing_is_left(name: str) -> None:
    own = debater("bert", Policy(16, seed=0))
    explain = explainer(name, own, 3)
    taken: list[set[int]] = [set(), set(), set()]
    for _ in range(4):
        for already, explanation in zip(taken, explain(taken), strict=True):
            assert not already & set(explanation.pieces) and len(set(explanation.pieces)) == len(explanation.pieces)
            already |= set(explanation.pieces)
    assert [len(already) for already in taken] == own.encoded.count_N.tolist()
    assert {explanation.text for explanation in explain(taken)} == {""}


def test_draws_are_the_generator_s_own() -> None:
    drawn = [explainer("random", debater("bert"), 3, seed)([()] * 3) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
