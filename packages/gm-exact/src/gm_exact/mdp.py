"""Values, gradients, Hessians and Hessian-vector products of tabular softmax policies, in closed form.

Every function solves one linear system for the infinite horizon, or runs one recursion for a horizon of T steps. Who
needs several of the answers at the same θ calls `evaluate` once and reads them from its result.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from gm_exact.evaluation import evaluate
from gm_exact.tabular import TabularMDP


def policy(params: Float[Tensor, "*batch state action"]) -> Float[Tensor, "*batch state action"]:
    """Softmax policy: π(a|s) = exp θ[s, a] / Σ_b exp θ[s, b].

    Args:
        params: θ, one logit per state and action.

    Returns:
        π(a|s).
    """
    return params.softmax(-1)


def value(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch"]:
    """Expected discounted return: J(θ) = Σ_s start(s) V_0(s).

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        J(θ), one number per problem.

    Raises:
        ValueError: As `evaluate` does.
    """
    return evaluate(mdp, params, horizon, terminal_value).value


def state_values(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state"]:
    """State values: V_t = r_π + γ P_π V_{t+1}, at t = 0.

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        V_0(s).

    Raises:
        ValueError: As `evaluate` does.
    """
    return evaluate(mdp, params, horizon, terminal_value).state_values


def action_values(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state action"]:
    """Action values: Q_t(s, a) = r(s, a) + γ Σₓ P(x|s, a) V_{t+1}(x), at t = 0.

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        Q_0(s, a).

    Raises:
        ValueError: As `evaluate` does.
    """
    return evaluate(mdp, params, horizon, terminal_value).action_values


def occupancy(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state"]:
    """Discounted state visitation: d(s) = Σ_t γᵗ Pr(s_t = s); its sum is 1 / (1 − γ) for an infinite horizon.

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        d(s), unnormalised.

    Raises:
        ValueError: As `evaluate` does.
    """
    return evaluate(mdp, params, horizon, terminal_value).occupancy


def gradient(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state action"]:
    """Policy gradient: ∂J/∂θ[s, a] = Σ_t d_t(s) π(a|s) (Q_t(s, a) − V_t(s)) (Sutton et al. 2000, Theorem 1).

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        ∇θ J.

    Raises:
        ValueError: As `evaluate` does.
    """
    return evaluate(mdp, params, horizon, terminal_value).gradient


def hessian_vector_product(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    vector: Float[Tensor, "*#batch state action"],
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state action"]:
    """Hessian-vector product ∇²J v by two linear solves, the Hessian never formed; see `PolicyEvaluation.tangent`.

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        vector: the direction v; it may have further axes in front of the batch axes.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        ∇²J v.

    Raises:
        ValueError: As `evaluate` does.
    """
    return evaluate(mdp, params, horizon, terminal_value).hessian_vector_product(vector)


def hessian(
    mdp: TabularMDP,
    params: Float[Tensor, "*#batch state action"],
    horizon: int | None = None,
    terminal_value: Float[Tensor, "*#batch state"] | None = None,
) -> Float[Tensor, "*#batch state action state action"]:
    """Hessian ∇²J, all S·A Hessian-vector products at once: memory for S·A times as many problems.

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Returns:
        ∂²J/∂θ[s, a]∂θ[s', a'].

    Raises:
        ValueError: As `evaluate` does.
    """
    evaluation = evaluate(mdp, params, horizon, terminal_value)
    n, batch_axes = mdp.n_states * mdp.n_actions, evaluation.policy.ndim - 2
    directions = torch.eye(n, dtype=params.dtype, device=params.device)
    directions = directions.reshape(n, *[1] * batch_axes, mdp.n_states, mdp.n_actions)
    columns = evaluation.hessian_vector_product(directions)
    return columns.movedim(0, -1).reshape(*columns.shape[1:], mdp.n_states, mdp.n_actions)
