"""Exact K-step meta-gradients: Eq. 3 of the paper by reverse accumulation of Hessian-vector products.

θ⁰ … θᴷ is the path of exact inner gradient steps. Its Jacobians I + αH(θⁱ) are symmetric, so the product of Eq. 3 is
applied to ∇J(θᴷ) from the last step to the first, and no Hessian is formed.
"""

from torch import Tensor

from gm_exact.evaluation import PerState, PolicyEvaluation, StateAction, evaluate
from gm_exact.tabular import Count, TabularMDP, check_count


def inner_path(
    mdp: TabularMDP,
    params: StateAction,
    *,
    inner_lr: float | Tensor,
    inner_steps: Count,
    horizon: Count | None = None,
    terminal_value: PerState | None = None,
) -> list[StateAction]:
    """Exact inner path [θ⁰, …, θᴷ]: θⁱ⁺¹ = θⁱ + α ∇J(θⁱ), i = 0 … K−1 (paper Eq. 1).

    Args:
        mdp: the inner MDP.
        params: θ⁰.
        inner_lr: α, a number or a tensor that broadcasts against params.
        inner_steps: K, 0 or more.
        horizon: T; None for ever.
        terminal_value: as in `evaluate`, whose errors it raises, too.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, inner_path
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> [params.tolist() for params in inner_path(mdp, torch.zeros(1, 2), inner_lr=1.0, inner_steps=1)]
        [[[0.0, 0.0]], [[0.5, -0.5]]]
    """
    return _ascend(mdp, params, inner_lr, inner_steps, horizon, terminal_value)[0]


def maml_meta_gradient(
    mdp: TabularMDP,
    params: StateAction,
    *,
    inner_lr: float | Tensor,
    inner_steps: Count,
    outer_mdp: TabularMDP | None = None,
    horizon: Count | None = None,
    terminal_value: PerState | None = None,
) -> StateAction:
    """Exact MAML meta-gradient, where the meta-parameters are φ = θ⁰.

    ∇φ J(θᴷ) = (I + αH(θ⁰)) … (I + αH(θᴷ⁻¹)) ∇J(θᴷ), H = ∇²J (paper Eq. 3 with ∇φθ⁰ = I).

    Arguments and errors are those of `inner_path`; both objectives have the same horizon and terminal value. Without an
    outer MDP the inner one serves both; K = 0 gives the policy gradient.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, maml_meta_gradient
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> found = maml_meta_gradient(mdp, torch.zeros(1, 2), inner_lr=1.0, inner_steps=1)
        >>> print([round(x, 3) for x in found.flatten().tolist()])
        [0.393, -0.393]
    """
    path, evaluations = _ascend(mdp, params, inner_lr, inner_steps, horizon, terminal_value)
    adjoint = evaluate(outer_mdp or mdp, path[-1], horizon, terminal_value).gradient
    for evaluation in reversed(evaluations):
        adjoint = adjoint + inner_lr * evaluation.hessian_vector_product(adjoint)
    return adjoint


def lirpg_meta_gradient(
    mdp: TabularMDP,
    params: StateAction,
    intrinsic_reward: StateAction,
    *,
    inner_lr: float | Tensor,
    inner_steps: Count,
    horizon: Count | None = None,
    terminal_value: PerState | None = None,
) -> StateAction:
    """Exact LIRPG meta-gradient, where the meta-parameters φ are an intrinsic reward that only the inner loop sees.

    ∇φ J(θᴷ; R) = α Σᵢ (∇φ∇θ J(θⁱ; R + φ))ᵀ λⁱ⁺¹, λᴷ = ∇J(θᴷ; R), λⁱ = (I + α∇²J(θⁱ; R + φ)) λⁱ⁺¹, i = K−1 … 0
    (paper Eq. 3 with ∇φθ⁰ = 0, §5.1; Zheng et al. 2018, On Learning Intrinsic Rewards for Policy Gradient Methods). J
    is linear in the reward, so the first factor is the derivative of the state-action occupancy along λⁱ⁺¹.

    The MDP has the extrinsic reward R. Arguments and errors are those of `maml_meta_gradient`; K = 0 gives zero.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, lirpg_meta_gradient
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> found = lirpg_meta_gradient(mdp, torch.zeros(1, 2), torch.zeros(1, 2), inner_lr=1.0, inner_steps=1)
        >>> print([round(x, 3) for x in found.flatten().tolist()])
        [0.393, -0.393]
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
    inner_steps: Count,
    horizon: Count | None,
    terminal_value: Tensor | None,
) -> tuple[list[Tensor], list[PolicyEvaluation]]:
    """The path θ⁰ … θᴷ and the evaluations of θ⁰ … θᴷ⁻¹."""
    path, evaluations = [params], []
    for _ in range(check_count("inner_steps", inner_steps, "an integer of at least 0", least=0)):
        evaluations.append(evaluate(mdp, path[-1], horizon, terminal_value))
        path.append(path[-1] + inner_lr * evaluations[-1].gradient)
    return path, evaluations
