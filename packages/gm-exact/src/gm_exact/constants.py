"""The constants of Assumption 4.1 for tabular softmax policies: proved for all θ, or the largest found on a path."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gm_exact.bounds import Constants
from gm_exact.evaluation import evaluate
from gm_exact.tabular import TabularMDP


def global_constants(
    mdp: TabularMDP, intrinsic_reward: Float[Tensor, "*#batch state action"] | None = None
) -> Constants:
    """Constants that hold for every θ ∈ R^{S×A}, every start and every transition (derived in docs/theory.md).

    With D = max r − min r, the range of the reward, and g = 1 / (1 − γ),

        m₂ = D g² / (2√2),   c₂ = μ₂ = D g³ / 2,   ρ₂ = D g² (7√2/8 + 3γg/(2√2) + 3γg²/(2√2)),
        c₁ = g² / 2,   λ₂ = g³ / √2

    c₂ is 16 times smaller than the usual 8g³ for rewards in [0, 1] (Agarwal et al. 2021, "On the Theory of Policy
    Gradient Methods", Lemma D.4; Mei et al. 2020, "On the Global Convergence Rates of Softmax Policy Gradient Methods",
    Lemma 7): scores are centred, so that only the range of the values counts.

    The horizon is infinite, or any finite one without terminal values. With an intrinsic reward φ the inner loop has
    the reward r + φ; None is for φ = θ⁰, where c₁ = λ₂ = 0.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, global_constants
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> global_constants(mdp).c2
        tensor(4.)
    """
    if not mdp.discount < 1:
        raise ValueError(f"discount: expected less than 1, got {mdp.discount}")
    g, gamma = 1 / (1 - mdp.discount), mdp.discount
    outer = _range(mdp.reward)
    inner = outer if intrinsic_reward is None else _range(mdp.reward + intrinsic_reward)
    mixed = intrinsic_reward is not None
    return Constants(
        m2=outer * g**2 / 8**0.5,
        mu2=outer * g**3 / 2,
        c2=inner * g**3 / 2,
        rho2=inner * g**2 * (7 * 2**0.5 / 8 + 3 * gamma * g / 8**0.5 + 3 * gamma * g**2 / 8**0.5),
        c1=g**2 / 2 * mixed,
        lambda2=g**3 / 2**0.5 * mixed,
    )


def local_c2(
    mdp: TabularMDP,
    exact_path: Sequence[Float[Tensor, "*batch 1 state action"]],
    sampled_path: Sequence[Float[Tensor, "*batch sample state action"]],
) -> Float[Tensor, "*batch"]:
    """c₂ as Lemma 4.4 needs it, without a Hessian at each sample.

    The largest of ‖∇²J(θⁱ)‖ and ‖∇J(θ̂ⁱ) − ∇J(θⁱ)‖ / ‖θ̂ⁱ − θⁱ‖, i = 0 … K−1. The MDP is that of the inner loop; its
    last batch axis has size 1, for the samples, and the result has no such axis.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, inner_path, local_c2
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> path = inner_path(mdp, torch.zeros(1, 1, 2), inner_lr=1.0, inner_steps=2)
        >>> local_c2(mdp, path, path).shape
        torch.Size([])
    """
    found = []
    for theta, theta_hat in zip(exact_path[:-1], sampled_path[:-1], strict=True):
        gradient, hessian, _ = _derivatives(mdp, theta)
        change = _norm(evaluate(mdp, theta_hat).gradient - gradient)
        found += [_spectral(hessian).amax(-1), _quotient(change, _norm(_difference(theta_hat, theta))).amax(-1)]
    return torch.stack(found).amax(0)


def local_constants(
    mdp: TabularMDP,
    exact_path: Sequence[Float[Tensor, "*batch 1 state action"]],
    sampled_path: Sequence[Float[Tensor, "*batch sample state action"]] | None = None,
    intrinsic_reward: Float[Tensor, "*#batch 1 state action"] | None = None,
) -> Constants:
    """The largest constants found along θ⁰ … θᴷ and between the exact and the sampled θ̂⁰ … θ̂ᴷ.

    A Lipschitz constant is the larger of the derivative's norm at the points and of the difference quotient between θ̂ⁱ
    and θⁱ. The proof of Theorem 4.5 uses it nowhere else, so that its bounds hold with these constants, too.

    MDP and result have axes as in `local_c2`, the intrinsic reward is as in `global_constants`. Without a sampled path
    the inner gradient is exact. Two paths have the same length, of at least one step.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, inner_path, local_constants
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> path = inner_path(mdp, torch.zeros(1, 1, 2), inner_lr=1.0, inner_steps=2)
        >>> local_constants(mdp, path).m2.shape
        torch.Size([])
    """
    sampled = list(exact_path if sampled_path is None else sampled_path)
    if len(sampled) != len(exact_path) or len(sampled) < 2:
        raise ValueError(f"paths: expected the same 2 or more points, got {len(exact_path)} and {len(sampled)}")
    inner_mdp = mdp if intrinsic_reward is None else mdp.with_reward(mdp.reward + intrinsic_reward)
    found: dict[str, list[Tensor]] = {name: [] for name in ("m2", "mu2", "c2", "rho2", "c1", "lambda2")}

    def note(name: str, values: Tensor) -> None:
        found[name].append(values.amax(-1))

    for theta, theta_hat in zip(exact_path[:-1], sampled[:-1], strict=True):
        exact, estimate = (_derivatives(inner_mdp, point) for point in (theta, theta_hat))
        distance = _norm(_difference(theta_hat, theta))
        for at in (exact, estimate):
            note("c2", _spectral(at[1]))
        note("c2", _quotient(_norm(estimate[0] - exact[0]), distance))
        note("rho2", _quotient(_spectral(estimate[1] - exact[1]), distance))
        if intrinsic_reward is not None:
            note("c1", _spectral(exact[2], symmetric=False))
            note("c1", _spectral(estimate[2], symmetric=False))
            note("lambda2", _quotient(_spectral(estimate[2] - exact[2], symmetric=False), distance))
    outer, outer_hat = (evaluate(mdp, path[-1]).gradient for path in (exact_path, sampled))
    note("m2", torch.maximum(_norm(outer), _norm(outer_hat)))
    note("mu2", _quotient(_norm(outer_hat - outer), _norm(_difference(sampled[-1], exact_path[-1]))))
    zero = torch.zeros_like(found["m2"][0])
    return Constants(**{name: torch.stack([*values, zero]).amax(0) for name, values in found.items()})


def _derivatives(mdp: TabularMDP, params: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """∇θ J, and the matrices ∇²θ J and ∇r∇θ J, all at once."""
    evaluation = evaluate(mdp, params)
    tangent = evaluation.every_tangent()
    hessian, mixed = (columns.movedim(0, -1).flatten(-3, -2) for columns in (tangent.gradient, tangent.occupancy))
    return evaluation.gradient, hessian, mixed


def _spectral(matrix: Tensor, symmetric: bool = True) -> Tensor:
    eigenvalues: Tensor = torch.linalg.eigvalsh(matrix if symmetric else matrix.mT @ matrix)
    largest = eigenvalues.abs().amax(-1)
    return largest if symmetric else largest.sqrt()


def _quotient(numerator: Tensor, distance: Tensor) -> Tensor:
    """The difference quotient, 0 between points that are one and the same."""
    return torch.where(distance > 0, numerator / distance, torch.zeros_like(numerator))


def _difference(x: Tensor, y: Tensor) -> Tensor:
    """The difference of parameters, zero where both are −∞."""
    return (x - y).where(x != y, 0)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1))
    return norm


def _range(reward: Tensor) -> Tensor:
    return reward.amax((-2, -1)) - reward.amin((-2, -1))
