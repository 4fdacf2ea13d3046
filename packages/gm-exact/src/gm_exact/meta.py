"""Exact K-step meta-gradients: Eq. 3 of the paper by reverse accumulation of Hessian-vector products.

θ⁰ … θᴷ is the path of exact inner gradient steps. Its Jacobians I + αH(θⁱ) are symmetric, so the product of Eq. 3 is
applied to ∇J(θᴷ) from the last step to the first, and no Hessian is formed.
"""

from jaxtyping import Float
from torch import Tensor

from gm_exact.evaluation import PolicyEvaluation, evaluate
from gm_exact.tabular import TabularMDP


def inner_path(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    *,
    inner_lr: float | Tensor,
    inner_steps: int,
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> list[Float[Tensor, "*#batch state action"]]:
    """Exact inner path: θⁱ⁺¹ = θⁱ + α ∇J(θⁱ), i = 0 … K−1 (paper Eq. 1).

    Args:
        mdp: the inner MDP.
        params: θ⁰.
        inner_lr: α, a number or a tensor that broadcasts against params.
        inner_steps: K.
        horizon: T; None for ever.
        terminal_value: constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        [θ⁰, …, θᴷ].

    Raises:
        ValueError: If K is negative or no integer, or as `evaluate` does.
    """
    return _ascend(mdp, params, inner_lr, inner_steps, horizon, terminal_value)[0]


def maml_meta_gradient(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    *,
    inner_lr: float | Tensor,
    inner_steps: int,
    outer_mdp: TabularMDP | None = None,
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state action"]:
    """Exact MAML meta-gradient, where the meta-parameters are φ = θ⁰.

    ∇φ J(θᴷ) = (I + αH(θ⁰)) … (I + αH(θᴷ⁻¹)) ∇J(θᴷ), H = ∇²J (paper Eq. 3 with ∇φθ⁰ = I).

    Args:
        mdp: the inner MDP.
        params: θ⁰ = φ.
        inner_lr: α, a number or a tensor that broadcasts against params.
        inner_steps: K; 0 gives the policy gradient.
        outer_mdp: the MDP of the outer objective; None for the inner one.
        horizon: T of both objectives; None for ever.
        terminal_value: constant reward γᵀ V_T(s_T) at the horizon, in both objectives; None for zero.

    Returns:
        ∇φ J(θᴷ).

    Raises:
        ValueError: If K is negative or no integer, or as `evaluate` does.
    """
    path, evaluations = _ascend(mdp, params, inner_lr, inner_steps, horizon, terminal_value)
    adjoint = evaluate(outer_mdp or mdp, path[-1], horizon, terminal_value).gradient
    for evaluation in reversed(evaluations):
        adjoint = adjoint + inner_lr * evaluation.hessian_vector_product(adjoint)
    return adjoint


def lirpg_meta_gradient(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    intrinsic_reward: Float[Tensor, "*#batch state action"],
    *,
    inner_lr: float | Tensor,
    inner_steps: int,
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state action"]:
    """Exact LIRPG meta-gradient, where the meta-parameters φ are an intrinsic reward that only the inner loop sees.

    ∇φ J(θᴷ; R) = α Σᵢ (∇φ∇θ J(θⁱ; R + φ))ᵀ λⁱ⁺¹, λᴷ = ∇J(θᴷ; R), λⁱ = (I + α∇²J(θⁱ; R + φ)) λⁱ⁺¹, i = K−1 … 0
    (paper Eq. 3 with ∇φθ⁰ = 0, §5.1; Zheng et al. 2018, On Learning Intrinsic Rewards for Policy Gradient Methods). J
    is linear in the reward, so the first factor is the derivative of the state-action occupancy along λⁱ⁺¹.

    Args:
        mdp: the MDP, with the extrinsic reward R.
        params: θ⁰, which does not depend on φ.
        intrinsic_reward: φ(s, a).
        inner_lr: α, a number or a tensor that broadcasts against params.
        inner_steps: K; 0 gives zero.
        horizon: T of both objectives; None for ever.
        terminal_value: constant reward γᵀ V_T(s_T) at the horizon, in both objectives; None for zero.

    Returns:
        ∇φ J(θᴷ; R).

    Raises:
        ValueError: If the intrinsic reward's last two axes are not (state, action), if K is negative or no integer, or
            as `evaluate` does.
    """
    if intrinsic_reward.shape[-2:] != mdp.reward.shape[-2:]:
        expected, got = tuple(mdp.reward.shape[-2:]), tuple(intrinsic_reward.shape)
        raise ValueError(f"intrinsic_reward: expected last two axes {expected}, got shape {got}")
    inner_mdp = mdp.with_reward(mdp.reward + intrinsic_reward)
    path, evaluations = _ascend(inner_mdp, params, inner_lr, inner_steps, horizon, terminal_value)
    adjoint = evaluate(mdp, path[-1], horizon, terminal_value).gradient
    meta_gradient = adjoint.new_zeros(adjoint.shape)
    for evaluation in reversed(evaluations):
        tangent = evaluation.tangent(inner_lr * adjoint)
        meta_gradient = meta_gradient + tangent.occupancy
        adjoint = adjoint + tangent.gradient
    return meta_gradient


def _ascend(
    mdp: TabularMDP,
    params: Tensor,
    inner_lr: float | Tensor,
    inner_steps: int,
    horizon: int | None,
    terminal_value: Tensor | None,
) -> tuple[list[Tensor], list[PolicyEvaluation]]:
    """The path θ⁰ … θᴷ and the evaluations of θ⁰ … θᴷ⁻¹."""
    if isinstance(inner_steps, bool) or not isinstance(inner_steps, int) or inner_steps < 0:
        raise ValueError(f"inner_steps: expected an integer of at least 0, got {inner_steps!r}")
    path, evaluations = [params], []
    for _ in range(inner_steps):
        evaluations.append(evaluate(mdp, path[-1], horizon, terminal_value))
        path.append(path[-1] + inner_lr * evaluations[-1].gradient)
    return path, evaluations
