"""The bounds number by number: the formulas of their docstrings in plain Python, with no constant and no error 0."""

from math import sqrt

import pytest
import torch

from gm_exact import Constants, Errors, eq6_compositional_bias, eq9_bias, eq10_variance, eq44_bias, eq57_variance

K = Constants(m2=1.3, mu2=0.7, c2=0.9, rho2=1.1, c1=0.6, lambda2=0.4, m1=5.0, mu1=0.3)
E = Errors(
    inner_std=0.2, hessian_bias=0.35, hessian_std=0.5, jacobian_bias=0.25, jacobian_std=0.45, outer_std=0.8,
    outer_meta_std=0.15,
)  # fmt: skip
ALPHA = 0.4
B = 1 + ALPHA * K.c2
C = B + ALPHA * E.hessian_bias
AT = [(steps, own) for steps in (1, 2, 3, 4) for own in (False, True)]


def e(i):
    """Lemma 4.4: α s Σ_{j<i} Bʲ, closed as ((1 + αc₂)ⁱ − 1) s / c₂."""
    return (B**i - 1) * E.inner_std / K.c2


def a(i, steps):
    """a_K = μ₂ e_K,   a_i = C a_{i+1} + α (Δ_H + ρ₂ e_i) m₂ B^{K−1−i}."""
    if i == steps:
        return K.mu2 * e(steps)
    return C * a(i + 1, steps) + ALPHA * (E.hessian_bias + K.rho2 * e(i)) * K.m2 * B ** (steps - 1 - i)


def eq44(steps, own):
    total = K.mu1 * e(steps)
    for i in range(steps):
        jacobian = (E.jacobian_bias + K.lambda2 * e(i)) * K.m2 * C ** (steps - 1 - i)
        total += ALPHA * (K.c1 * a(i + 1, steps) + jacobian)
    return total + own * a(0, steps)


def eq9(steps, own):
    b = max(
        K.mu1 + ALPHA * steps * (K.c1 * K.mu2 + K.lambda2 * K.m2)
        + ALPHA**2 * K.c1 * K.rho2 * K.m2 * steps * (steps - 1) / 2
        + own * (K.mu2 + ALPHA * K.rho2 * K.m2 * steps),
        ALPHA * steps * K.m2,
        ALPHA * K.c1 * K.m2 + own * K.m2,
    )  # fmt: skip
    return b * C ** (steps - 1 + own) * (e(steps) + E.jacobian_bias + steps - 1 + own)


def w(i, steps):
    """E‖λ̂_i‖² ≤ (m₂² + σ₂²) (C² + α²σ_H²)^{K−i}."""
    return (K.m2**2 + E.outer_std**2) * (C**2 + ALPHA**2 * E.hessian_std**2) ** (steps - i)


def v(i, steps):
    """The variance of λ̂_i is at most w_i − m₂² C^{2(K−i)}."""
    return w(i, steps) - K.m2**2 * C ** (2 * (steps - i))


def spread(i, steps):
    return (K.c1 + E.jacobian_bias) ** 2 * v(i, steps) + E.jacobian_std**2 * w(i, steps)


def eq57(steps, own):
    deviation = E.outer_meta_std + ALPHA * sum(sqrt(spread(i + 1, steps)) for i in range(steps))
    return eq44(steps, own) ** 2 + (deviation + own * sqrt(v(0, steps))) ** 2


def eq10(steps, own):
    own_part = 3 * own * v(0, steps)
    return eq9(steps, own) ** 2 + 3 * E.outer_meta_std**2 + 3 * (ALPHA * steps) ** 2 * spread(1, steps) + own_part


@pytest.mark.parametrize(("steps", "own"), AT)
@pytest.mark.parametrize(
    ("bound", "expected"),
    [(eq44_bias, eq44), (eq9_bias, eq9), (eq57_variance, eq57), (eq10_variance, eq10)],
    ids=["eq44", "eq9", "eq57", "eq10"],
)
def test_a_bound_is_the_formula_of_its_docstring(bound, expected, steps, own):
    found = bound(K, E, inner_lr=ALPHA, inner_steps=steps, meta_is_params=own)
    assert found.item() == pytest.approx(expected(steps, own), rel=1e-12)


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_lemma_4_4_is_a_geometric_sum(steps):
    found = eq6_compositional_bias(K.c2, E.inner_std, inner_lr=ALPHA, inner_steps=steps)
    assert found.item() == pytest.approx(e(steps), rel=1e-12)
    assert found.dtype == torch.float64


@pytest.mark.parametrize("name", ["m2", "mu2", "c2", "rho2", "c1", "lambda2", "mu1"])
@pytest.mark.parametrize("bound", [eq44_bias, eq9_bias], ids=["eq44", "eq9"])
def test_every_constant_counts(bound, name):
    """The control: one constant a tenth larger makes a bound larger, but m₁, which enters none."""

    def at(constants):
        return bound(constants, E, inner_lr=ALPHA, inner_steps=3, meta_is_params=True).item()

    larger = Constants(**(vars(K) | {name: 1.1 * getattr(K, name)}))
    assert at(larger) > at(K) * (1 + 1e-4)
    assert at(Constants(**(vars(K) | {"m1": 50.0}))) == at(K)
