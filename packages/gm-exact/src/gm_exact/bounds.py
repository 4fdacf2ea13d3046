"""Lemma 4.4 and Theorem 4.5 of the paper as numbers, with the slips of its appendices D and E put right.

Everything follows from one recursion along the steps i = 0 … K−1 (docs/theory.md has the proofs). Write B = 1 + αc₂,
C = B + αΔ_H, s = σ_In |τ|^{−½}, ι = 1 if φ = θ⁰ (MAML) and 0 if not. The adjoint λ_K = ∇θ J_Out,
λ_i = (I + αH_i) λ_{i+1} runs back through the steps, so that ∇φ Jᴷ = ∇φ J_Out + α Σ_i ∇φ∇θ J_In(θⁱ) λ_{i+1} + ι λ₀.

Vectors have the Euclidean norm and matrices the spectral one; ‖I + αH‖ ≤ 1 + αc₂ is false in the Frobenius norm that
Definition F.1 suggests. Variances of matrices may be taken in either norm, as the Frobenius norm is the larger.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gm_exact.tabular import Count, check_count

Number = float | Tensor


@dataclass(frozen=True)
class Constants:
    """The Lipschitz constants of Assumption 4.1, one number or one per problem.

    Args:
        m2: of J_Out in θ, a bound of ‖∇θ J_Out‖.
        mu2: of ∇θ J_Out in θ.
        c2: of ∇θ J_In in θ, a bound of ‖∇²θ J_In‖.
        rho2: of ∇²θ J_In in θ.
        c1: of ∇θ J_In in φ, a bound of ‖∇φ∇θ J_In‖; 0 if φ = θ⁰.
        lambda2: of ∇φ∇θ J_In in θ, which the paper uses in Eq. 41 and does not define.
        m1: of J_Out in φ; 0 if J_Out does not depend on φ directly. It enters no bound.
        mu1: of ∇φ J_Out in θ (the assumption says in φ, Eq. 33 needs θ); 0 as above.
    """

    m2: Number
    mu2: Number
    c2: Number
    rho2: Number
    c1: Number = 0.0
    lambda2: Number = 0.0
    m1: Number = 0.0
    mu1: Number = 0.0


@dataclass(frozen=True)
class Errors:
    """How far the estimates are off at one point of the path: zero where a quantity is exact.

    The standard deviations are those of an estimate from |τ| trajectories, so that errors which the trajectories share
    may be counted.

    Args:
        inner_std: s = σ_In |τ|^{−½}, root mean square error of ∇θ J_In given the point.
        hessian_bias: Δ_H = ‖E[Ĥ] − ∇²θ J_In‖.
        hessian_std: σ_H = √E‖Ĥ − E[Ĥ]‖².
        jacobian_bias: Δ_J = ‖E[Ĵ] − ∇φ∇θ J_In‖.
        jacobian_std: σ_J = √E‖Ĵ − E[Ĵ]‖².
        outer_std: σ₂, of ∇θ J_Out.
        outer_meta_std: σ₁, of ∇φ J_Out.
    """

    inner_std: Number = 0.0
    hessian_bias: Number = 0.0
    hessian_std: Number = 0.0
    jacobian_bias: Number = 0.0
    jacobian_std: Number = 0.0
    outer_std: Number = 0.0
    outer_meta_std: Number = 0.0


def eq6_compositional_bias(
    c2: Number, inner_std: Number, *, inner_lr: Number, inner_steps: Count
) -> Float[Tensor, "*b"]:
    """Lemma 4.4: how far sampled inner steps lead away from exact ones.

    E‖θ̂ᴷ − θᴷ‖ ≤ √E‖θ̂ᴷ − θᴷ‖² ≤ ((1 + αc₂)ᴷ − 1) s / c₂ = α s Σ_{i<K} (1 + αc₂)ⁱ   (paper Eq. 6)

    c₂ is the Lipschitz constant of ∇θ J_In in θ; σ_In is taken at θ̂ⁱ, as Eq. 23 has it, not at θⁱ. With the root mean
    square *error* in its place the lemma needs no Assumption 4.2.

    Examples:
        >>> from gm_exact import eq6_compositional_bias
        >>> print(f"{eq6_compositional_bias(1.0, 0.1, inner_lr=0.1, inner_steps=2):.4f}")
        0.0210
    """
    inner_steps = check_count("inner_steps", inner_steps, "an integer of at least 0", least=0)
    growth = 1 + _tensor(inner_lr) * c2
    return sum((growth**i for i in range(inner_steps)), torch.zeros_like(growth)) * inner_lr * inner_std


def eq44_bias(
    constants: Constants, errors: Errors, *, inner_lr: Number, inner_steps: Count, meta_is_params: bool
) -> Float[Tensor, "*b"]:
    """Theorem 4.5: the bias of the meta-gradient estimate, explicitly.

    With e_i = `eq6_compositional_bias` at i and a_i a bound of E‖E[λ̂_i | path] − λ_i‖, a_K = μ₂ e_K,

        a_i = C a_{i+1} + α (Δ_H + ρ₂ e_i) m₂ B^{K−1−i}
        ‖E[∇φ Ĵᴷ] − ∇φ Jᴷ‖ ≤ μ₁ e_K + α Σ_{i<K} (c₁ a_{i+1} + (Δ_J + λ₂ e_i) m₂ C^{K−1−i}) + ι a₀

    (paper Eq. 44 corrected). For Δ_J = s = ι = 0 it is α c₁ m₂ Σ_i (C^{K−1−i} − B^{K−1−i}): of degree K − 1 in Δ_H.

    Args:
        constants: of the problem.
        errors: of the estimates; II has to be drawn independently of I.
        inner_lr: α.
        inner_steps: K, 1 or more.
        meta_is_params: whether φ = θ⁰.

    Examples:
        >>> from gm_exact import Constants, Errors, eq44_bias
        >>> constants = Constants(m2=1.0, mu1=0.0, mu2=1.0, c1=0.0, c2=1.0, rho2=1.0, lambda2=0.0)
        >>> errors = Errors(inner_std=0.1, hessian_bias=0.1, hessian_std=0.1)
        >>> print(f"{eq44_bias(constants, errors, inner_lr=0.1, inner_steps=2, meta_is_params=True):.4f}")
        0.0491
    """
    inner_steps = check_count("inner_steps", inner_steps, "an integer of at least 1")
    k, e = constants, errors
    plain = 1 + _tensor(inner_lr) * k.c2
    biased = plain + inner_lr * e.hessian_bias
    distance = [
        eq6_compositional_bias(k.c2, e.inner_std, inner_lr=inner_lr, inner_steps=i) for i in range(inner_steps + 1)
    ]
    adjoint = k.mu2 * distance[-1]
    total = k.mu1 * distance[-1]
    for i in reversed(range(inner_steps)):
        later = inner_steps - 1 - i
        jacobian = (e.jacobian_bias + k.lambda2 * distance[i]) * k.m2 * biased**later
        total = total + inner_lr * (k.c1 * adjoint + jacobian)
        step = inner_lr * (e.hessian_bias + k.rho2 * distance[i])
        adjoint = biased * adjoint + step * k.m2 * plain**later
    return total + adjoint if meta_is_params else total


def eq9_bias(
    constants: Constants, errors: Errors, *, inner_lr: Number, inner_steps: Count, meta_is_params: bool
) -> Float[Tensor, "*b"]:
    """Theorem 4.5: the bias in the form of the O(·), with its constant; looser than `eq44_bias`.

    b C^{K−1+ι} (e_K + Δ_J + K − 1 + ι), where (paper Eq. 9, whose Δ_H lacks its α)

        b = max(μ₁ + αK (c₁μ₂ + λ₂m₂) + ½ α² c₁ρ₂m₂ K(K−1) + ι (μ₂ + αρ₂m₂K),  αKm₂,  αc₁m₂ + ιm₂)

    Arguments as in `eq44_bias`. Because of its K − 1 + ι it does not vanish with the errors.

    Examples:
        >>> from gm_exact import Constants, Errors, eq9_bias
        >>> constants = Constants(m2=1.0, mu1=0.0, mu2=1.0, c1=0.0, c2=1.0, rho2=1.0, lambda2=0.0)
        >>> errors = Errors(inner_std=0.1, hessian_bias=0.1, hessian_std=0.1)
        >>> print(f"{eq9_bias(constants, errors, inner_lr=0.1, inner_steps=2, meta_is_params=True):.4f}")
        2.9881
    """
    inner_steps = check_count("inner_steps", inner_steps, "an integer of at least 1")
    k, steps, own, alpha = constants, inner_steps, int(meta_is_params), _tensor(inner_lr)
    composition = k.mu1 + alpha * steps * (k.c1 * k.mu2 + k.lambda2 * k.m2)
    composition = composition + alpha**2 * k.c1 * k.rho2 * k.m2 * steps * (steps - 1) / 2
    composition = composition + own * (k.mu2 + alpha * k.rho2 * k.m2 * steps)
    hessian = alpha * k.c1 * k.m2 + own * k.m2
    b = torch.maximum(torch.maximum(composition, alpha * steps * k.m2 + 0 * composition), hessian + 0 * composition)
    distance = eq6_compositional_bias(k.c2, errors.inner_std, inner_lr=inner_lr, inner_steps=steps)
    biased = 1 + alpha * (k.c2 + errors.hessian_bias)
    return b * biased ** (steps - 1 + own) * (distance + errors.jacobian_bias + (steps - 1 + own))


def eq57_variance(
    constants: Constants, errors: Errors, *, inner_lr: Number, inner_steps: Count, meta_is_params: bool
) -> Float[Tensor, "*b"]:
    """Theorem 4.5: the variance E‖x − E[x]‖² of the meta-gradient estimate x = ∇φ Ĵᴷ, explicitly.

    By the law of total variance it is at most (`eq44_bias`)² for the path, plus, for the samples given the path,

        (σ₁ + α Σ_{i<K} √((c₁ + Δ_J)² v_{i+1} + σ_J² w_{i+1}) + ι √v₀)²
        w_i = (m₂² + σ₂²) (C² + α²σ_H²)^{K−i},   v_i = w_i − m₂² C^{2(K−i)}

    where w_i bounds E‖λ̂_i‖² and v_i the variance of λ̂_i (paper Eqs. 46, 49 and 57 corrected).

    Arguments as in `eq44_bias`; I, II and III and the steps of II have to be drawn independently of each other.

    Examples:
        >>> from gm_exact import Constants, Errors, eq57_variance
        >>> constants = Constants(m2=1.0, mu1=0.0, mu2=1.0, c1=0.0, c2=1.0, rho2=1.0, lambda2=0.0)
        >>> errors = Errors(inner_std=0.1, hessian_bias=0.1, hessian_std=0.1)
        >>> print(f"{eq57_variance(constants, errors, inner_lr=0.1, inner_steps=2, meta_is_params=True):.4f}")
        0.0027
    """
    inner_steps = check_count("inner_steps", inner_steps, "an integer of at least 1")
    k, e = constants, errors
    path = eq44_bias(k, e, inner_lr=inner_lr, inner_steps=inner_steps, meta_is_params=meta_is_params)
    deviation = e.outer_meta_std + torch.zeros_like(path)
    for i in range(inner_steps):
        second, spread = _adjoint_moments(k, e, inner_lr, inner_steps - 1 - i)
        jacobian = (k.c1 + e.jacobian_bias) ** 2 * spread + e.jacobian_std**2 * second
        deviation = deviation + inner_lr * jacobian.sqrt()
    if meta_is_params:
        deviation = deviation + _adjoint_moments(k, e, inner_lr, inner_steps)[1].sqrt()
    return path**2 + deviation**2


def eq10_variance(
    constants: Constants, errors: Errors, *, inner_lr: Number, inner_steps: Count, meta_is_params: bool
) -> Float[Tensor, "*b"]:
    """Theorem 4.5: the variance in the form of the O(·), with its constants; looser than `eq57_variance`.

    (`eq9_bias`)² + 3σ₁² + 3α²K² ((c₁ + Δ_J)² v₁ + σ_J² w₁) + 3ι v₀, with v and w as in `eq57_variance`

    (paper Eq. 10, corrected: as printed, σ_H and σ₂ have no effect where Δ_J = σ_J = 0, because the c₁² of Eq. 57 got
    lost beside Δ_J² + σ_J², and V₂ has m₁ for m₂).

    Examples:
        >>> from gm_exact import Constants, Errors, eq10_variance
        >>> constants = Constants(m2=1.0, mu1=0.0, mu2=1.0, c1=0.0, c2=1.0, rho2=1.0, lambda2=0.0)
        >>> errors = Errors(inner_std=0.1, hessian_bias=0.1, hessian_std=0.1)
        >>> print(f"{eq10_variance(constants, errors, inner_lr=0.1, inner_steps=2, meta_is_params=True):.4f}")
        8.9294
    """
    inner_steps = check_count("inner_steps", inner_steps, "an integer of at least 1")
    k, e = constants, errors
    path = eq9_bias(k, e, inner_lr=inner_lr, inner_steps=inner_steps, meta_is_params=meta_is_params)
    second, spread = _adjoint_moments(k, e, inner_lr, inner_steps - 1)
    jacobian = (k.c1 + e.jacobian_bias) ** 2 * spread + e.jacobian_std**2 * second
    own = _adjoint_moments(k, e, inner_lr, inner_steps)[1] if meta_is_params else 0.0
    return path**2 + 3 * (_tensor(e.outer_meta_std) ** 2 + (inner_lr * inner_steps) ** 2 * jacobian + own)


def _adjoint_moments(k: Constants, e: Errors, inner_lr: Number, steps: int) -> tuple[Tensor, Tensor]:
    """(w_i, v_i) of `eq57_variance` for K − i = `steps`, by recursion, as their difference would lose a small v_i."""
    noise = (_tensor(inner_lr) * e.hessian_std) ** 2
    growth = (1 + inner_lr * (k.c2 + e.hessian_bias)) ** 2
    mean_sq, spread = _tensor(k.m2) ** 2 + 0 * noise, _tensor(e.outer_std) ** 2 + 0 * noise
    for _ in range(steps):
        mean_sq, spread = growth * mean_sq, (growth + noise) * spread + noise * mean_sq
    return mean_sq + spread, spread


def _tensor(x: Number) -> Tensor:
    return x if isinstance(x, Tensor) else torch.as_tensor(x, dtype=torch.float64)
