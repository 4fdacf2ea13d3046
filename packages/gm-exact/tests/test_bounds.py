"""Lemma 4.4 and Theorem 4.5 against expectations by enumeration of every outcome of small two-level problems."""

import inspect
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from gm_exact import bounds
from gm_exact.bounds import Constants, Errors

F64 = torch.float64
PROBLEMS, SIZE, WAVES = 200, 3, 4


class Waves:
    """J(φ, θ) = Σ_k a_k cos(w_kᵀθ + u_kᵀφ + b_k), whose Lipschitz constants of every order are sums of products."""

    def __init__(self, draw, phi_scale=1.0):
        def random(*shape):
            return torch.randn(PROBLEMS, WAVES, *shape, generator=draw, dtype=F64)

        self.a, self.b, self.w, self.u = random(), random(), random(SIZE), phi_scale * random(SIZE)

    def _terms(self, phi, theta, order, *directions):
        phase = (self.w * theta.unsqueeze(-2)).sum(-1) + (self.u * phi.unsqueeze(-2)).sum(-1) + self.b
        derivative = (phase + order * torch.pi / 2).cos()  # the order-th derivative of cos
        tensors = "".join(f",pk{i}" for i in "xy"[: len(directions)])
        return torch.einsum(f"pk,pk{tensors}->p{'xy'[: len(directions)]}", self.a, derivative, *directions)

    def theta(self, phi, theta):
        return self._terms(phi, theta, 1, self.w)

    def phi(self, phi, theta):
        return self._terms(phi, theta, 1, self.u)

    def theta_theta(self, phi, theta):
        return self._terms(phi, theta, 2, self.w, self.w)

    def phi_theta(self, phi, theta):
        return self._terms(phi, theta, 2, self.u, self.w)

    def constant(self, n_phi, n_theta):
        return (self.a.abs() * self.u.norm(dim=-1) ** n_phi * self.w.norm(dim=-1) ** n_theta).sum(-1)


def unit_matrix(draw, symmetric=True):
    x = torch.randn(PROBLEMS, SIZE, SIZE, generator=draw, dtype=F64)
    x = x + x.mT if symmetric else x
    return x / torch.linalg.matrix_norm(x, 2)[:, None, None]


def unit_vector(draw):
    x = torch.randn(PROBLEMS, SIZE, generator=draw, dtype=F64)
    return x / x.norm(dim=-1, keepdim=True)


class TwoLevel:
    """A two-level problem whose estimates are off by a fixed bias and by ± a fixed deviation with equal odds."""

    def __init__(self, seed, inner_steps, meta_is_params):
        draw = torch.Generator().manual_seed(seed)
        self.steps, self.own = inner_steps, meta_is_params
        self.inner, self.outer = Waves(draw), Waves(draw)
        self.phi = torch.randn(PROBLEMS, SIZE, generator=draw, dtype=F64)
        self.theta0 = self.phi if meta_is_params else torch.randn(PROBLEMS, SIZE, generator=draw, dtype=F64)
        self.lr = 10 ** (2 * torch.rand(PROBLEMS, generator=draw, dtype=F64) - 2)  # from 0.01 to 1
        scale = 3 * torch.rand(7, PROBLEMS, generator=draw, dtype=F64) ** 2
        scale = scale * (torch.rand(7, PROBLEMS, generator=draw) < 0.6)  # some errors are absent
        self.errors = Errors(*scale)
        self.noise = {name: unit_vector(draw) for name in ("inner", "outer", "outer_meta")}
        self.h_bias, self.h_noise = unit_matrix(draw), unit_matrix(draw)
        self.j_bias, self.j_noise = unit_matrix(draw, False), unit_matrix(draw, False)
        self.constants = Constants(
            m2=self.outer.constant(0, 1),
            mu2=self.outer.constant(0, 2),
            c2=self.inner.constant(0, 2),
            rho2=self.inner.constant(0, 3),
            c1=self.inner.constant(1, 1),
            lambda2=self.inner.constant(1, 2),
            m1=self.outer.constant(1, 0),
            mu1=self.outer.constant(1, 1),
        )

    def _path(self, signs):
        path = [self.theta0]
        for sign in signs:
            noise = sign * (self.errors.inner_std[:, None] * self.noise["inner"])
            path.append(path[-1] + self.lr[:, None] * (self.inner.theta(self.phi, path[-1]) + noise))
        return path

    def _backward(self, path, jacobians, hessians, adjoint, direct):
        lr, meta = self.lr[:, None], direct
        for jacobian, hessian in zip(reversed(jacobians), reversed(hessians), strict=True):
            meta = meta + lr * torch.einsum("pxy,py->px", jacobian, adjoint)
            adjoint = adjoint + lr * torch.einsum("pxy,py->px", hessian, adjoint)
        return meta + adjoint if self.own else meta

    def estimates(self):
        """(exact ∇φ Jᴷ, [estimates for every outcome], [‖θ̂ᴷ − θᴷ‖ for every path])."""
        e, phi = self.errors, self.phi
        exact = self._path([0] * self.steps)
        truth = self._backward(
            exact,
            [self.inner.phi_theta(phi, t) for t in exact[:-1]],
            [self.inner.theta_theta(phi, t) for t in exact[:-1]],
            self.outer.theta(phi, exact[-1]),
            self.outer.phi(phi, exact[-1]),
        )
        found, distances = [], []
        both = (-1, 1)
        for signs in product(both, repeat=self.steps):
            path = self._path(signs)
            distances.append((path[-1] - exact[-1]).norm(dim=-1))
            h = [self.inner.theta_theta(phi, t) + e.hessian_bias[:, None, None] * self.h_bias for t in path[:-1]]
            j = [self.inner.phi_theta(phi, t) + e.jacobian_bias[:, None, None] * self.j_bias for t in path[:-1]]
            gradient, direct = self.outer.theta(phi, path[-1]), self.outer.phi(phi, path[-1])
            h_noise = e.hessian_std[:, None, None] * self.h_noise
            j_noise = e.jacobian_std[:, None, None] * self.j_noise
            for *rest, third in product(both, repeat=2 * self.steps + 1):
                found.append(
                    self._backward(
                        path,
                        [x + s * j_noise for x, s in zip(j, rest[: self.steps], strict=True)],
                        [x + s * h_noise for x, s in zip(h, rest[self.steps :], strict=True)],
                        gradient + third * e.outer_std[:, None] * self.noise["outer"],
                        direct + third * e.outer_meta_std[:, None] * self.noise["outer_meta"],
                    )
                )
        return truth, torch.stack(found), torch.stack(distances)


@pytest.fixture(scope="module", params=[(k, own) for k in (1, 2, 3) for own in (False, True)], ids=str)
def case(request):
    steps, own = request.param
    problem = TwoLevel(10 * steps + own, steps, own)
    return problem, *problem.estimates()


def bound(function, problem, **changes):
    errors = replace(problem.errors, **changes)
    return function(
        problem.constants, errors, inner_lr=problem.lr, inner_steps=problem.steps, meta_is_params=problem.own
    )


def test_lemma_4_4_holds_on_random_problems(case):
    problem, _, _, distances = case
    limit = bounds.eq6_compositional_bias(
        problem.constants.c2, problem.errors.inner_std, inner_lr=problem.lr, inner_steps=problem.steps
    )
    root_mean_square = distances.square().mean(0).sqrt()
    assert (root_mean_square <= limit * (1 + 1e-12) + 1e-12).all()
    assert (distances.mean(0) <= root_mean_square * (1 + 1e-12)).all()
    if problem.steps == 1:
        assert_close(root_mean_square, limit)  # nothing is lost in one step


def test_the_bias_bounds_hold_on_random_problems(case):
    problem, truth, estimates, _ = case
    bias = (estimates.mean(0) - truth).norm(dim=-1)
    explicit, order = bound(bounds.eq44_bias, problem), bound(bounds.eq9_bias, problem)
    assert (bias <= explicit * (1 + 1e-12) + 1e-12).all()
    assert (explicit <= order * (1 + 1e-12)).all()
    assert (bias / explicit).nan_to_num().max() > 0.05  # not trivially large


def test_the_variance_bounds_hold_on_random_problems(case):
    problem, _, estimates, _ = case
    variance = estimates.var(0, correction=0).sum(-1)
    explicit, order = bound(bounds.eq57_variance, problem), bound(bounds.eq10_variance, problem)
    assert (variance <= explicit * (1 + 1e-12) + 1e-12).all()
    assert (explicit <= order * (1 + 1e-12)).all()
    assert (variance / explicit).nan_to_num().max() > 0.05


@pytest.mark.parametrize("name", ["inner_std", "hessian_bias", "jacobian_bias"])
@pytest.mark.parametrize("function", [bounds.eq44_bias, bounds.eq9_bias, bounds.eq57_variance, bounds.eq10_variance])
def test_the_bounds_grow_with_every_error_and_without_errors_the_explicit_ones_vanish(case, function, name):
    problem = case[0]
    base = bound(function, problem)
    more = bound(function, problem, **{name: getattr(problem.errors, name) + 0.5})
    one_step_without_hessian = name == "hessian_bias" and problem.steps == 1 and not problem.own
    assert (more >= base).all()
    assert (more > base).any() or one_step_without_hessian
    none = Errors()
    if function in (bounds.eq44_bias, bounds.eq57_variance):
        terms = {"inner_lr": problem.lr, "inner_steps": problem.steps, "meta_is_params": problem.own}
        assert function(problem.constants, none, **terms).abs().max() == 0


LINE = Constants(m2=1.0, mu2=0.0, c2=0.0, rho2=0.0, c1=1.0)
"""J_In = φθ and J_Out = θ on the line, with an estimate of the second derivative 0 that is off."""


def line(inner_lr, inner_steps, hessian_bias):
    """The bias of that problem: α Σ_i ((1 + αΔ)^{K−1−i} − 1), nothing left out."""
    return inner_lr * sum((1 + inner_lr * hessian_bias) ** i - 1 for i in range(inner_steps))


@pytest.mark.parametrize("inner_lr", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("inner_steps", [1, 2, 3, 5])
def test_the_bias_bound_is_attained(inner_lr, inner_steps):
    limit = bounds.eq44_bias(
        LINE, Errors(hessian_bias=2.0), inner_lr=inner_lr, inner_steps=inner_steps, meta_is_params=False
    )
    assert_close(limit.item(), line(inner_lr, inner_steps, 2.0))


def test_the_bias_is_a_polynomial_of_degree_k_minus_1_in_the_hessian_error():
    errors = Errors(hessian_bias=torch.arange(8, dtype=F64))
    for steps in (1, 2, 3, 4):
        limit = bounds.eq44_bias(LINE, errors, inner_lr=1.0, inner_steps=steps, meta_is_params=False)
        limit = limit.expand(8)
        differences = [limit.diff(n=n).abs().max().item() for n in (steps - 1, steps)]
        assert differences[0] > 0.5 or steps == 1
        assert differences[1] < 1e-9


# On the line with φ = 0 and steps of E[θ̂¹] = θ¹ ± αs each term is attained by a kink at θ¹: ∇θ J_Out = μ₂ |θ − θ¹| at
# K = 1, ∂φ∂θ J_In = λ₂ |θ − θ¹| at K = 2, ∂²θ J_In = ρ₂ |θ − θ¹| at K = 2; e₁ = αs = 2.5
KINKS = [
    (1, False, {"c1": 3.0, "mu2": 2.0}, 0.5 * 3 * 2 * 2.5),
    (1, True, {"mu2": 2.0}, 2 * 2.5),
    (2, False, {"m2": 3.0, "lambda2": 2.0}, 0.5 * 2 * 2.5 * 3),
    (2, False, {"m2": 3.0, "rho2": 2.0, "c1": 4.0}, 0.5 * 4 * (0.5 * 2 * 2.5) * 3),
    (2, True, {"m2": 3.0, "rho2": 2.0}, 0.5 * 2 * 2.5 * 3),
]


@pytest.mark.parametrize(("steps", "own", "constants", "attained"), KINKS)
def test_the_bias_of_a_composition_with_a_kink(steps, own, constants, attained):
    k = replace(Constants(m2=0.0, mu2=0.0, c2=0.0, rho2=0.0), **constants)
    limit = bounds.eq44_bias(k, Errors(inner_std=5.0), inner_lr=0.5, inner_steps=steps, meta_is_params=own)
    assert limit.item() == attained


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_order_bounds_are_looser_whatever_is_zero(steps, own):
    draw = torch.Generator().manual_seed(steps)

    def sparse(count):
        shape = (count, 4000)
        return (10 * torch.randn(shape, generator=draw, dtype=F64)).exp2() * (torch.rand(shape, generator=draw) < 0.5)

    constants, errors, lr = Constants(*sparse(8)), Errors(*sparse(7)), sparse(1)[0] + 0.01
    terms = {"inner_lr": lr, "inner_steps": steps, "meta_is_params": own}
    for tight, loose in ((bounds.eq44_bias, bounds.eq9_bias), (bounds.eq57_variance, bounds.eq10_variance)):
        assert (tight(constants, errors, **terms) <= loose(constants, errors, **terms) * (1 + 1e-9)).all()


def printed_eq44(k, e, alpha, steps):
    """The last line of Eq. 44 as the paper has it."""
    biased, plain = 1 + alpha * (k.c2 + e.hessian_bias), 1 + alpha * k.c2
    growth = (plain**steps - 1) / k.c2 if k.c2 else alpha * steps
    ratio = k.rho2 / k.c2 if k.c2 else 0.0
    return (
        (k.mu1 + alpha * (k.c1 * k.m2 * ratio + k.c1 * k.mu2 + k.m2 * k.lambda2))
        * growth
        * (biased ** (steps - 1) - 1)
        * e.inner_std
        + alpha * k.m2 * (biased ** (steps - 1) - 1) * e.jacobian_bias
        + alpha**2 * k.c1 * k.m2 * (biased ** (steps - 1) - plain ** (steps - 1))
    )


def printed_eq10(k, e, alpha, steps, distance_sq):
    """What Eq. 10 has inside the O(·)."""
    v1, v2 = (1 + alpha * k.c2) ** 2, 2 * alpha**2 * (k.m1**2 + 3 * e.outer_std**2)
    biased = (v1 + e.hessian_bias**2) ** (steps - 1)
    noisy = (v1 + e.hessian_bias**2 + e.hessian_std**2) ** (steps - 1)
    return biased * (distance_sq + steps - 1) + (v2 + noisy - biased) * (e.jacobian_bias**2 + e.jacobian_std**2)


def test_equation_44_as_printed_fails_at_one_step():
    """K = 1, J_In = φθ, J_Out = θ, and an estimate 2 of ∂φ∂θ J_In = 1: the bias is α, the printed bound is 0."""
    errors = Errors(jacobian_bias=1.0)
    assert printed_eq44(LINE, errors, 0.5, 1) == 0
    limit = bounds.eq44_bias(LINE, errors, inner_lr=0.5, inner_steps=1, meta_is_params=False)
    assert limit.item() == 0.5


def test_equation_44_as_printed_fails_at_two_steps_with_a_small_step_size():
    """K = 2, α = ½, Δ_H = 1: the bias is α²Δ_H = ¼, the printed bound α³Δ_H = ⅛."""
    errors = Errors(hessian_bias=1.0)
    assert line(0.5, 2, 1.0) == 0.25
    assert printed_eq44(LINE, errors, 0.5, 2) == 0.125


def test_equation_10_as_printed_does_not_see_the_variance_of_the_hessian():
    """K = 2, J_In = φθ, J_Out = θ, Ĥ = ± σ: the meta-gradient is α(1 + αĤ) + α with variance α⁴σ², for any σ."""
    for std in (1.0, 1e3):
        errors = Errors(hessian_std=std)
        limit = bounds.eq57_variance(LINE, errors, inner_lr=1.0, inner_steps=2, meta_is_params=False)
        assert printed_eq10(LINE, errors, 1.0, 2, 0.0) == 1.0
        assert limit.item() == pytest.approx(std**2)  # attained


def test_a_step_that_loses_nothing_when_c2_is_zero():
    limit = bounds.eq6_compositional_bias(torch.tensor([0.0, 1e-9, 2.0], dtype=F64), 3.0, inner_lr=0.5, inner_steps=4)
    assert_close(limit, torch.tensor([6.0, 6.0, ((1 + 1.0) ** 4 - 1) / 2 * 3], dtype=F64))


@pytest.mark.parametrize("function", [bounds.eq44_bias, bounds.eq9_bias, bounds.eq57_variance, bounds.eq10_variance])
@pytest.mark.parametrize("inner_steps", [0, True])
def test_a_bad_number_of_steps_is_refused(function, inner_steps):
    with pytest.raises(ValueError, match=f"inner_steps: expected an integer of at least 1, got {inner_steps}"):
        inspect.unwrap(function)(LINE, Errors(), inner_lr=1.0, inner_steps=inner_steps, meta_is_params=False)
