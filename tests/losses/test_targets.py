"""Product, window and entropy: hand-worked numbers, an independent numpy statement, and what distinguishes each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.losses.test_losses import batch, of_margins
from w2s_mlflow import losses
from w2s_mlflow.exceptions import ConfigError
from w2s_mlflow.losses import confidence, cross_entropy, distillation, entropy, product, window

HALFWAY = 0.1
RAMPED = entropy.Options(alpha=0.75, warmup=0.2)
"""Its weight at HALFWAY is .375."""


def numpy_product(f: Any, y: Any, weak: float = 1.0, own: float = 1.0) -> float:
    target = y**weak * f**own
    target = target / target.sum(axis=1, keepdims=True)
    return float(np.mean(-(target * np.log(f)).sum(axis=1)))


def numpy_window(f: Any, y: Any, radius: float = 0.15) -> float:
    rows = [-(label * np.log(row)).sum() for row, label in zip(f, y, strict=True) if row.max() < 0.5 + radius]
    return float(np.sum(rows)) / len(f)


def numpy_distillation(f: Any, y: Any, temperature: float = 2.0) -> float:
    f, y = (rows ** (1 / temperature) for rows in (f, y))
    f, y = (rows / rows.sum(axis=1, keepdims=True) for rows in (f, y))
    return float(temperature**2 * np.mean(-(y * np.log(f)).sum(axis=1)))


def numpy_entropy(f: Any, y: Any) -> float:
    return float(np.mean(-((0.625 * y + 0.375 * f) * np.log(f)).sum(axis=1)))


LOSSES: dict[str, tuple[Any, Any, Callable[[Any, Any], float]]] = {
    "product": (product, product.Options(), numpy_product),
    "product of powers": (
        product,
        product.Options(weak_power=0.5, own_power=2.0),
        lambda f, y: numpy_product(f, y, 0.5, 2.0),
    ),
    "window": (window, window.Options(), numpy_window),
    "wide window": (window, window.Options(radius=0.4), lambda f, y: numpy_window(f, y, 0.4)),
    "entropy": (entropy, RAMPED, numpy_entropy),
    "distillation": (distillation, distillation.Options(), numpy_distillation),
    "cold distillation": (
        distillation,
        distillation.Options(distillation_temperature=0.5),
        lambda f, y: numpy_distillation(f, y, 0.5),
    ),
}
each_loss = pytest.mark.parametrize(("plugin_", "options", "restated"), LOSSES.values(), ids=LOSSES.keys())
each_width = pytest.mark.parametrize("classes", [2, 3, 200])


@each_loss
@each_width
@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_loss_is_the_equation(plugin_: Any, options: Any, restated: Any, classes: int, scale: float) -> None:
    logits_NC, labels_NC = batch(23, classes)
    logits_NC = scale * logits_NC
    expected = restated(logits_NC.softmax(dim=-1).numpy(), labels_NC.numpy())
    assert plugin_.loss(logits_NC, labels_NC, HALFWAY, options).item() == pytest.approx(expected, rel=1e-10)


def test_product_by_hand() -> None:
    # f = (1/4, 3/4), y = (3/4, 1/4): the product is (3, 3) / 16, so t = (1/2, 1/2) and L = (ln 4 + ln 4/3) / 2
    logits_NC, labels_NC = of_margins([math.log(3)], [0.25])
    value = product.loss(logits_NC, labels_NC, 0.0, product.Options())
    assert value.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, abs=1e-12)


def test_window_by_hand() -> None:
    # f_1 = 1/2 and 3/4, both labelled 1: the second is sure, so L = ln 2 / 2
    logits_NC, labels_NC = of_margins([0.0, math.log(3)], [1.0, 1.0])
    assert window.loss(logits_NC, labels_NC, 0.0, window.Options()).item() == pytest.approx(math.log(2) / 2, abs=1e-12)
    both = (math.log(2) + math.log(4 / 3)) / 2
    assert window.loss(logits_NC, labels_NC, 0.0, window.Options(radius=0.3)).item() == pytest.approx(both, abs=1e-12)


def test_a_row_of_certainty_is_outside_the_widest_window() -> None:
    # f = (0, 1) in floating point, labelled 0: its cross-entropy of 1000 does not count
    logits_NC, labels_NC = of_margins([1000.0, 0.0], [0.0, 1.0])
    value = window.loss(logits_NC, labels_NC, 0.0, window.Options(radius=0.5))
    assert value.item() == pytest.approx(math.log(2) / 2, abs=1e-12)


def test_entropy_by_hand() -> None:
    # f = (1/4, 3/4): half of CE(f, (0, 1)) = ln 4/3, half of H(f) = ln 4 - 3/4 ln 3
    logits_NC, labels_NC = of_margins([math.log(3)], [1.0])
    expected = (math.log(4 / 3) + math.log(4) - 0.75 * math.log(3)) / 2
    value = entropy.loss(logits_NC, labels_NC, 1.0, entropy.Options(alpha=0.5))
    assert value.item() == pytest.approx(expected, abs=1e-12)


def gradient(plugin_: Any, options: Any, logits_NC: Tensor, labels_NC: Tensor) -> Tensor:
    logits_NC = logits_NC.clone().requires_grad_()
    plugin_.loss(logits_NC, labels_NC, 1.0, options).backward()
    assert logits_NC.grad is not None
    return logits_NC.grad


@each_width
def test_product_target_is_a_constant_to_the_gradient(classes: int) -> None:
    logits_NC, labels_NC = batch(9, classes)
    f_NC = logits_NC.softmax(dim=-1)
    target_NC = f_NC * labels_NC
    target_NC = target_NC / target_NC.sum(dim=-1, keepdim=True)
    found = gradient(product, product.Options(), logits_NC, labels_NC)
    torch.testing.assert_close(found, (f_NC - target_NC) / 9)


@pytest.mark.parametrize("classes", [2, 3])
def test_sure_rows_have_no_gradient(classes: int) -> None:
    logits_NC, labels_NC = batch(20, classes)
    sure_N = logits_NC.softmax(dim=-1).amax(dim=-1) >= 0.65
    found = gradient(window, window.Options(), logits_NC, labels_NC)
    assert (found[sure_N] == 0).all() and (found[~sure_N] != 0).any(dim=-1).all() and sure_N.any()


def test_entropy_makes_answers_surer() -> None:
    """The term has a gradient of its own: down a step of it alone, the entropy falls."""
    logits_NC, labels_NC = batch(20, 3)
    logits_NC = logits_NC / 3
    alone = entropy.Options(alpha=1.0, warmup=0.0)
    step = gradient(entropy, alone, logits_NC, labels_NC)
    assert step.abs().max() > 1e-3
    before, after = (entropy.loss(rows, labels_NC, 1.0, alone) for rows in (logits_NC, logits_NC - step))
    assert after < before
    assert torch.autograd.gradcheck(lambda rows: entropy.loss(rows, labels_NC, 1.0, RAMPED), (logits_NC.requires_grad_(),))


@pytest.mark.parametrize(
    ("plugin_", "options"),
    [
        (product, product.Options(own_power=0.0)),
        (window, window.Options(radius=0.5)),
        (entropy, entropy.Options(alpha=0.0)),
        (distillation, distillation.Options(distillation_temperature=1.0)),
    ],
)
def test_each_contains_cross_entropy(plugin_: Any, options: Any) -> None:
    logits_NC, labels_NC = batch(20, 3)
    expected = cross_entropy.loss(logits_NC, labels_NC, 1.0, cross_entropy.Options())
    assert plugin_.loss(logits_NC, labels_NC, 1.0, options).item() == pytest.approx(expected.item(), rel=1e-12)


def test_distillation_by_hand() -> None:
    # T = 2: y = (9, 1) / 10 becomes (3, 1) / 4, f = (1, 1) / 2 stays, and L = 4 ln 2
    logits_NC, labels_NC = of_margins([0.0], [0.1])
    options = distillation.Options(distillation_temperature=2.0)
    assert distillation.loss(logits_NC, labels_NC, 0.0, options).item() == pytest.approx(4 * math.log(2), rel=1e-12)
    # dL/dz = T (q - p) = 2 (1/2 - 3/4, 1/2 - 1/4)
    assert gradient(distillation, options, logits_NC, labels_NC)[0].tolist() == pytest.approx([-0.5, 0.5], rel=1e-12)


def test_distillation_at_a_high_temperature_matches_logits() -> None:
    """Hinton et al. 2015, eq. 4, times T^2: the gradient tends to (z - v) / C of centred logits, whatever T."""
    logits_NC, labels_NC = batch(9, 5)
    z_NC, v_NC = (rows - rows.mean(dim=-1, keepdim=True) for rows in (logits_NC, labels_NC.log()))
    found = gradient(distillation, distillation.Options(distillation_temperature=100.0), logits_NC, labels_NC)
    torch.testing.assert_close(found, (z_NC - v_NC) / 5 / 9, rtol=0, atol=2e-2 * float((z_NC - v_NC).abs().max()) / 45)


def test_distillation_is_least_where_the_student_is_its_teacher() -> None:
    _, labels_NC = batch(9, 4)
    options = distillation.Options(distillation_temperature=3.0)
    assert gradient(distillation, options, labels_NC.log() + 7.0, labels_NC).abs().max() < 1e-12


def test_entropy_is_the_confidence_loss_where_the_student_is_sure() -> None:
    logits_NC, labels_NC = batch(20, 3)
    sure = 1e4 * logits_NC
    hard, soft = (plugin_.loss(sure, labels_NC, 1.0, RAMPED).item() for plugin_ in (confidence, entropy))
    assert soft == pytest.approx(hard, rel=1e-6)


@each_loss
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_and_hard_labels_stay_finite(
    plugin_: Any, options: Any, restated: Any, hard: bool, dtype: torch.dtype
) -> None:
    logits_NC, labels_NC = batch(32, 4, dtype=dtype)
    if hard:
        labels_NC = torch.eye(4, dtype=dtype)[labels_NC.argmax(dim=-1)]
    logits_NC = (logits_NC.sign() * 1e4).requires_grad_()
    value = plugin_.loss(logits_NC, labels_NC, HALFWAY, options)
    value.backward()
    assert torch.isfinite(value) and value >= 0
    assert logits_NC.grad is not None and torch.isfinite(logits_NC.grad).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: product.Options(own_power=-1.0), "--own-power must be at least 0, got -1.0"),
        (lambda: product.Options(weak_power=-0.5), "--weak-power must be at least 0, got -0.5"),
        (lambda: product.Options(weak_power=math.nan), "--weak-power must be finite, got nan"),
        (lambda: window.Options(radius=0.0), r"--radius must be in \(0, 0.5\], got 0.0"),
        (lambda: window.Options(radius=0.6), r"--radius must be in \(0, 0.5\], got 0.6"),
        (lambda: entropy.Options(alpha=1.5), r"--alpha must be in \[0, 1\], got 1.5"),
        (
            lambda: distillation.Options(distillation_temperature=0.0),
            r"--distillation-temperature must be in \[0.01, 100\], got 0.0",
        ),
    ],
)
def test_options_out_of_range_are_named(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^{said}$"):
        make()


def test_a_high_power_of_the_weak_label_does_not_underflow() -> None:
    # .6^400 is 0 in float32, and so is .4^400; their ratio is not: the target is the label's most probable class.
    logits_NC, labels_NC = (rows.float() for rows in of_margins([math.log(3)], [0.6]))
    value = product.loss(logits_NC, labels_NC, 0.0, product.Options(weak_power=400.0))
    assert value.item() == pytest.approx(math.log(4 / 3))


def test_product_without_the_weak_label_reinforces_the_student() -> None:
    # t = f = (1/4, 3/4), whatever the label: L is the entropy of f
    logits_NC, labels_NC = of_margins([math.log(3)], [0.1])
    value = product.loss(logits_NC, labels_NC, 0.0, product.Options(weak_power=0.0))
    assert value.item() == pytest.approx(math.log(4) - 0.75 * math.log(3), abs=1e-12)


def test_defaults_are_those_of_the_published_code() -> None:
    assert (product.Options().weak_power, product.Options().own_power, window.Options().radius) == (1.0, 1.0, 0.15)


@pytest.mark.parametrize(("large", "alpha"), [(True, 0.75), (False, 0.5)])
def test_alpha_of_entropy_is_the_tiers(large: bool, alpha: float) -> None:
    assert losses.resolve(entropy.Options(), large=large).alpha == alpha
    assert losses.resolve(product.Options(), large=large) == product.Options()
