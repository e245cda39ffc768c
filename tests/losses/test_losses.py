"""Both losses against hand-worked numbers, an independent numpy statement of Algorithms 3 and 4, and their edge cases."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from w2s_mlflow import losses
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.losses import confidence, cross_entropy
from w2s_mlflow.registry import plugin, plugins

CONSTANT = confidence.Options(alpha=0.5, warmup=0.0)
RAMPED = confidence.Options(alpha=0.75, warmup=0.2)
LOSSES: dict[str, tuple[Any, Any, float]] = {
    "cross_entropy": (cross_entropy, cross_entropy.Options(), 0.0),
    "confidence constant": (confidence, CONSTANT, 0.5),
    "confidence ramped": (confidence, RAMPED, 0.375),
}
"""Plug-in, options, and the weight of the confidence term at progress .1."""
HALFWAY = 0.1

slow_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

each_loss = pytest.mark.parametrize(("plugin_", "options", "a"), LOSSES.values(), ids=LOSSES.keys())
each_width = pytest.mark.parametrize("classes", [2, 3, 768])


def batch(rows: int, classes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    logits_NC = rng.normal(scale=3.0, size=(rows, classes))
    labels_NC = rng.dirichlet(np.ones(classes), size=rows)
    return torch.tensor(logits_NC, dtype=dtype), torch.tensor(labels_NC, dtype=dtype)


def of_margins(margins: list[float], labels: list[float]) -> tuple[Tensor, Tensor]:
    """Logits (0, margin) and labels (1 - y, y), in float64."""
    margins_N, labels_N = torch.tensor(margins, dtype=torch.float64), torch.tensor(labels, dtype=torch.float64)
    return torch.stack([torch.zeros_like(margins_N), margins_N], dim=1), torch.stack([1 - labels_N, labels_N], dim=1)


def positives(margins: list[float], labels: list[float]) -> list[bool]:
    """Which rows `hardened` calls class 1."""
    return [bool(one) for one in confidence.hardened(*of_margins(margins, labels))[:, 1] == 1]


def sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def numpy_target(logits_NC: NDArray[np.float64], labels_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """f_hat row by row: for two classes a row is positive if at most k rows, itself among them, are as positive as it is."""
    target_NC = np.zeros_like(logits_NC)
    k = round(len(labels_NC) * labels_NC[:, 1].mean())
    for row, scores in enumerate(logits_NC):
        chosen = int(scores.argmax())
        if len(scores) == 2:
            chosen = int(sum(other[1] - other[0] >= scores[1] - scores[0] for other in logits_NC) <= k)
        target_NC[row, chosen] = 1.0
    return target_NC


def numpy_cross_entropy(logits_NC: NDArray[np.float64], labels_NC: NDArray[np.float64]) -> float:
    total = 0.0
    for scores, label in zip(logits_NC, labels_NC, strict=True):
        log_z = math.log(sum(math.exp(score - scores.max()) for score in scores)) + scores.max()
        total -= sum(y * (score - log_z) for y, score in zip(label, scores, strict=True))
    return total / len(logits_NC)


def test_cross_entropy_by_hand() -> None:
    # f = (.25, .75) and (.5, .5): (.25 ln 4 + .75 ln 4/3 + ln 2) / 2
    logits_NC, labels_NC = of_margins([math.log(3), 0.0], [0.75, 0.0])
    value = cross_entropy.loss(logits_NC, labels_NC, 0.5, cross_entropy.Options())
    assert value.item() == pytest.approx(0.6277411626, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "progress", "expected"),
    [(CONSTANT, 0.0, 0.5590778945), (RAMPED, 0.0, 0.6277411626), (RAMPED, 0.1, 0.5762437115), (RAMPED, 0.2, 0.5247462605)],
)
def test_confidence_by_hand(options: confidence.Options, progress: float, expected: float) -> None:
    # k = round(.75) = 1: the first row is called positive, so CE(f, f_hat) = (ln 4/3 + ln 2) / 2 = .4904146265
    logits_NC, labels_NC = of_margins([math.log(3), 0.0], [0.75, 0.0])
    assert confidence.loss(logits_NC, labels_NC, progress, options).item() == pytest.approx(expected, abs=1e-9)


def test_confidence_of_three_classes_by_hand() -> None:
    # f = (1/4, 1/4, 1/2): half of ln 4 for the labels, half of ln 2 for the argmax
    logits_NC = torch.tensor([[0.0, 0.0, math.log(2)]], dtype=torch.float64)
    labels_NC = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    assert confidence.loss(logits_NC, labels_NC, 1.0, CONSTANT).item() == pytest.approx(1.0397207708, abs=1e-9)


@each_loss
@each_width
@pytest.mark.parametrize("seed", range(3))
def test_loss_is_the_equation(plugin_: Any, options: Any, a: float, classes: int, seed: int) -> None:
    logits_NC, labels_NC = batch(17, classes, seed)
    logits, labels = logits_NC.numpy(), labels_NC.numpy()
    expected = (1 - a) * numpy_cross_entropy(logits, labels) + a * numpy_cross_entropy(logits, numpy_target(logits, labels))
    assert plugin_.loss(logits_NC, labels_NC, HALFWAY, options).item() == pytest.approx(expected, rel=1e-12)


@each_loss
@pytest.mark.parametrize("classes", [2, 5])
def test_gradient_agrees_with_differences(plugin_: Any, options: Any, a: float, classes: int) -> None:
    logits_NC, labels_NC = batch(6, classes)
    assert torch.autograd.gradcheck(
        lambda logits: plugin_.loss(logits, labels_NC, HALFWAY, options), (logits_NC.requires_grad_(),)
    )


@each_loss
@each_width
def test_target_is_a_constant_to_the_gradient(plugin_: Any, options: Any, a: float, classes: int) -> None:
    logits_NC, labels_NC = batch(9, classes)
    target_NC = torch.from_numpy(numpy_target(logits_NC.numpy(), labels_NC.numpy()))
    expected_NC = (logits_NC.softmax(dim=-1) - (1 - a) * labels_NC - a * target_NC) / 9
    plugin_.loss(logits_NC.requires_grad_(), labels_NC, HALFWAY, options).backward()
    torch.testing.assert_close(logits_NC.grad, expected_NC)
    assert not confidence.hardened(logits_NC, labels_NC).requires_grad


@each_loss
@pytest.mark.parametrize("classes", [2, 768])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(plugin_: Any, options: Any, a: float, classes: int, dtype: torch.dtype) -> None:
    logits_NC, labels_NC = batch(32, classes, dtype=dtype)
    logits_NC = (logits_NC.sign() * 1e4).requires_grad_()
    value = plugin_.loss(logits_NC, labels_NC, HALFWAY, options)
    value.backward()
    assert torch.isfinite(value) and value > 0
    assert logits_NC.grad is not None and torch.isfinite(logits_NC.grad).all()


@each_loss
@each_width
def test_order_of_rows_does_not_matter(plugin_: Any, options: Any, a: float, classes: int) -> None:
    logits_NC, labels_NC = batch(20, classes)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    before, after = (
        plugin_.loss(*rows, HALFWAY, options) for rows in ((logits_NC, labels_NC), (logits_NC[order], labels_NC[order]))
    )
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


def test_cross_entropy_is_the_mean_of_its_rows_whatever_the_progress() -> None:
    logits_NC, labels_NC = batch(8, 3)
    options = cross_entropy.Options()
    alone = [cross_entropy.loss(logits_NC[n : n + 1], labels_NC[n : n + 1], 0.0, options).item() for n in range(8)]
    assert cross_entropy.loss(logits_NC, labels_NC, 0.9, options).item() == pytest.approx(np.mean(alone), rel=1e-12)


@pytest.mark.parametrize("name", plugins("losses"))
def test_a_loss_says_whether_it_is_the_mean_of_its_rows(name: str) -> None:
    """Training passes each micro-batch through the model once only if it is."""
    plugin_ = plugin("losses", name, "--loss")
    options = losses.resolve(plugin_.Options(), large=True)
    logits_NC, labels_NC = batch(40, 2)
    alone = [plugin_.loss(logits_NC[n : n + 1], labels_NC[n : n + 1], HALFWAY, options).item() for n in range(40)]
    whole = plugin_.loss(logits_NC, labels_NC, HALFWAY, options).item()
    assert math.isclose(whole, np.mean(alone), rel_tol=1e-9) is plugin_.PER_EXAMPLE


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("warmup", [0.05, 0.2, 1.0])
def test_ramp_is_continuous_and_ends_at_alpha(alpha: float, warmup: float) -> None:
    options = confidence.Options(alpha=alpha, warmup=warmup)
    step = 1e-4
    weights = [losses.weight(progress, options) for progress in np.arange(0.0, 1.0 + step / 2, step)]
    jumps = np.diff(weights)
    assert jumps.min() >= 0 and jumps.max() <= alpha * step / warmup + 1e-12
    assert weights[0] == 0 and weights[-1] == alpha and losses.weight(warmup, options) == alpha
    assert losses.weight(warmup / 2, options) == pytest.approx(alpha / 2)


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 1.0])
def test_without_warmup_the_weight_is_constant(progress: float) -> None:
    assert losses.weight(progress, confidence.Options(alpha=0.6, warmup=0.0)) == 0.6


@settings(slow_machine, max_examples=100)
@given(st.lists(st.integers(0, 64), min_size=1, max_size=64), st.randoms(use_true_random=False))
def test_as_many_rows_are_positive_as_the_labels_say(sixty_fourths: list[int], random: Any) -> None:
    margins = [float(margin) for margin in range(len(sixty_fourths))]
    random.shuffle(margins)
    expected = round(Fraction(sum(sixty_fourths), 64))
    assert sum(positives(margins, [label / 64 for label in sixty_fourths])) == expected


@settings(slow_machine, max_examples=100)
@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=1, max_size=24))
def test_a_tie_at_the_cut_goes_wholly_negative(rows: list[tuple[int, bool]]) -> None:
    margins, labels = [float(margin) for margin, _ in rows], [float(label) for _, label in rows]
    found, k = positives(margins, labels), round(sum(labels))
    assert found == [sum(other >= margin for other in margins) <= k for margin in margins]


@pytest.mark.parametrize(("k", "expected"), [(0, 0), (1, 0), (5, 0), (9, 0), (10, 10)])
def test_equal_logits_are_positive_only_if_all_are(k: int, expected: int) -> None:
    assert sum(positives([0.7] * 10, [1.0] * k + [0.0] * (10 - k))) == expected


@pytest.mark.parametrize(("k", "expected"), [(0, 0), (6, 6)])
def test_none_and_all_rows_positive(k: int, expected: int) -> None:
    assert sum(positives([3.0, -1.0, 3.0, 0.0, 2.0, -5.0], [1.0] * k + [0.0] * (6 - k))) == expected


@settings(slow_machine, max_examples=50)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 8)), min_size=1, max_size=24), st.randoms(use_true_random=False))
def test_permuting_rows_permutes_the_target(rows: list[tuple[int, int]], random: Any) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)
    margins, labels = [float(margin) for margin, _ in rows], [label / 8 for _, label in rows]
    before = positives(margins, labels)
    assert positives([margins[n] for n in order], [labels[n] for n in order]) == [before[n] for n in order]


def test_rows_whose_probability_saturates_keep_their_order() -> None:
    assert positives([100.0, 300.0, 200.0], [1.0, 0.0, 0.0]) == [False, True, False]


@pytest.mark.parametrize("margin", [-5.0, 0.0, 5.0])
@pytest.mark.parametrize("label", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_a_row_alone_is_neither_hardened_nor_confirmed(margin: float, label: float, progress: float) -> None:
    """One row has no rank: its loss is the cross-entropy with the weak label, whatever the student predicts."""
    logits_NC, labels_NC = of_margins([margin], [label])
    logits_NC.requires_grad_()
    value = confidence.loss(logits_NC, labels_NC, progress, confidence.Options(alpha=0.75))
    assert value.item() == pytest.approx(-label * math.log(sigmoid(margin)) - (1 - label) * math.log(sigmoid(-margin)))
    value.backward()  # type: ignore[no-untyped-call]
    assert logits_NC.grad is not None and logits_NC.grad[0, 1].item() == pytest.approx(sigmoid(margin) - label)


def test_two_rows_are_told_apart_by_the_student() -> None:
    # k = round(.6 + .6) = 1: the student's larger margin is positive, CE(f, f_hat) = ln(1 + e^-1) for both rows
    logits_NC, labels_NC = of_margins([1.0, -1.0], [0.6, 0.6])
    value = confidence.loss(logits_NC, labels_NC, 1.0, confidence.Options(alpha=1.0))
    assert value.item() == pytest.approx(0.3132616875)


def test_a_row_alone_of_three_classes_takes_the_argmax() -> None:
    logits_NC, labels_NC = batch(1, 3)
    value = confidence.loss(logits_NC, labels_NC, 1.0, confidence.Options(alpha=1.0))
    assert value.item() == pytest.approx(-logits_NC.log_softmax(dim=-1).max().item())


@pytest.mark.parametrize("classes", [3, 768])
def test_more_than_two_classes_take_the_argmax_whatever_the_labels(classes: int) -> None:
    logits_NC, labels_NC = batch(12, classes)
    found_NC = confidence.hardened(logits_NC, labels_NC)
    assert torch.equal(found_NC.argmax(dim=-1), logits_NC.argmax(dim=-1))
    assert torch.equal(found_NC.sum(dim=-1), torch.ones(12, dtype=torch.float64))
    assert torch.equal(found_NC, confidence.hardened(logits_NC, labels_NC.flip(0)))


@pytest.mark.parametrize("name", ["alpha", "warmup"])
@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan, math.inf])
def test_a_weight_outside_the_unit_interval_is_refused(name: str, value: float) -> None:
    rule = r"in \[0, 1\]" if math.isfinite(value) else "finite"
    with pytest.raises(ConfigError, match=f"^--{name} must be {rule}, got {value}$"):
        confidence.Options(**{name: value})


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_ends_of_the_unit_interval_are_legal(value: float) -> None:
    found = confidence.Options(alpha=value, warmup=value)
    assert (found.alpha, found.warmup) == (value, value)


def test_by_default_the_weight_is_the_tiers_and_grows_over_a_fifth_of_the_training() -> None:
    assert (confidence.Options().alpha, confidence.Options().warmup) == (None, 0.2)


def test_resolve_gives_alpha_by_the_tier_of_the_model() -> None:
    unset = confidence.Options(warmup=0.3)
    assert losses.resolve(unset, large=True) == confidence.Options(alpha=0.75, warmup=0.3)
    assert losses.resolve(unset, large=False) == confidence.Options(alpha=0.5, warmup=0.3)


@pytest.mark.parametrize("options", [confidence.Options(alpha=0.0), confidence.Options(alpha=0.9), cross_entropy.Options()])
def test_resolve_leaves_what_is_given(options: Any) -> None:
    assert losses.resolve(options, large=True) == options


def test_cross_entropy_has_no_options() -> None:
    with pytest.raises(ConfigError, match="'--alpha'"):
        cross_entropy.Options(alpha=0.5)  # type: ignore[call-arg]


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"^--loss must be one of .*, got 'confidense' \(did you mean confidence\?\)$"):
        plugin("losses", "confidense", "--loss")
