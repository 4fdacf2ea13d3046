"""Exact meta-gradients of MGRL: what an actor-critic learns from on average, and how that depends on γ, λ and the rest.

The critic is a table V, the policy the softmax of a table of logits. All is differentiable to any order, in float64 to
its last digits, and has any number of leading batch axes.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gm_exact.evaluation import evaluate
from gm_exact.tabular import Count, TabularMDP, check_count, check_horizon, shape_of

PerState = Float[Tensor, "*#batch state"]
StateAction = Float[Tensor, "*#batch state action"]
PerProblem = Float[Tensor, "*#batch"]


class ActorCritic(NamedTuple):
    """θ: the policy's logits `[*batch, state, action]` and the critic's values `[*batch, state]`."""

    logits: Tensor
    values: Tensor


class MetaParams(NamedTuple):
    """φ: γ and λ of the advantages, the weights c_v and c_e of the critic's and the entropy's terms, and α, the step.

    Each is `[*batch]`. Also a meta-gradient has this form.
    """

    discount: Tensor
    gae_lambda: Tensor
    value_coef: Tensor
    entropy_coef: Tensor
    inner_lr: Tensor


class Dependence(NamedTuple):
    """Which ways from θ into the expected update count in its derivative ∂/∂θ; its value is the same.

    What an estimator differentiates are updates of sampled trajectories, which do not know how likely they were. Always
    there are the derivatives of ∇log π, of the critic's own V(s_t) and of the entropy's slope. Of the rest, AD has
    nothing, LVC `action`, Loaded-DiCE also `earlier` and `later="undamped"`; the truth has all.

    Attributes:
        action: in the policy's term, how likely the action is that it is about.
        earlier: in the policy's term, how earlier actions lead to its state.
        later: in the policy's term, how its advantage averages over later actions; "undamped" counts these without the
            (γλ)^{u−t} with which A_t looks ahead to step u, as if A_u were all that the action at u did to A_t.
        values: V in the advantages and in the critic's targets.
        critic: in the critic's term, how likely its states and actions are.
        entropy: in the entropy's term, how likely its states are.
    """

    action: bool = True
    earlier: bool = True
    later: bool | Literal["undamped"] = True
    values: bool = True
    critic: bool = True
    entropy: bool = True


EVERYTHING = Dependence()
"""The truth's."""


def actor_critic_step(
    mdp: TabularMDP, params: ActorCritic, meta_params: MetaParams, horizon: Count, dependence: Dependence = EVERYTHING
) -> ActorCritic:
    """One expected update θ + α E[∇θ J(θ; τ)] of an actor-critic, differentiable in θ and φ.

        J(θ; τ) = 1/T Σ_t [⊥A_t log π(a_t|s_t) − c_v (V(s_t) − ⊥(A_t + V(s_t)))² + c_e H(π(·|s_t))]
        A_t = δ_t + γλ A_{t+1},   δ_t = r_t + γ V(s_{t+1}) − V(s_t),   A_T = 0

    (Mnih et al. 2016; Xu et al. 2018, Meta-Gradient Reinforcement Learning; paper, Eq. 14). τ has T steps from the
    first states of the MDP, whose own discount is not used. The mean of A_t given s_t = s and a_t = a is q_t(s, a) −
    V(s), with the expected λ-returns

        q_t(s, a) = r(s, a) + γ Σₓ P(x|s, a) [(1 − λ) V(x) + λ g_{t+1}(x)],   g_t = Σ_a π q_t,   g_T = V

    Args:
        mdp: where trajectories come from.
        params: θ.
        meta_params: φ.
        horizon: T, a positive integer.
        dependence: of what the derivative in θ takes account; what is left out makes it right to first order alone.

    Raises:
        ValueError: if shapes don't fit, or the horizon is no positive integer.

    Examples:
        >>> import torch
        >>> from gm_exact import ActorCritic, MetaParams, TabularMDP, actor_critic_step
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> params = ActorCritic(torch.zeros(1, 2), torch.zeros(1))
        >>> phi = MetaParams(*map(torch.tensor, (0.5, 1.0, 0.5, 0.0, 1.0)))
        >>> actor_critic_step(mdp, params, phi, horizon=1)
        ActorCritic(logits=tensor([[ 0.2500, -0.2500]]), values=tensor([0.5000]))
    """
    logits, values = _checked(mdp, params)
    steps = check_count("horizon", horizon, "a positive integer")
    log_policy = logits.log_softmax(-1)
    policy = log_policy.exp()
    visits = _visits(mdp, policy, steps)
    value = values if dependence.values else values.detach()
    seen = visits if dependence.earlier else visits.detach()
    chosen = policy if dependence.action else policy.detach()
    ahead = policy if dependence.later is True else policy.detach()
    advantage, error = _mean_advantages(mdp, ahead, value, meta_params, seen)
    if dependence.later == "undamped":
        advantage = advantage + _undamped(mdp, policy, value.detach(), meta_params, visits.detach())
    if not dependence.critic == dependence.earlier == (dependence.later is True):
        where = (policy, visits) if dependence.critic else (policy.detach(), visits.detach())
        _, error = _mean_advantages(mdp, where[0], value, meta_params, where[1])
    if not dependence.values:  # V(s_t) itself counts, whatever its target does
        error = error - _count(visits, dependence.critic) * (values - values.detach())
    entropy = -(policy * log_policy).sum(-1, keepdim=True)
    slope = -(policy * (log_policy + entropy)) * _count(visits, dependence.entropy).unsqueeze(-1)
    centred = chosen * advantage - policy * (chosen * advantage).sum(-1, keepdim=True)
    of_policy = (centred + _spread(meta_params.entropy_coef, 2) * slope) / steps
    of_critic = 2 * _spread(meta_params.value_coef, 1) * error / steps
    return ActorCritic(
        logits + _spread(meta_params.inner_lr, 2) * of_policy, values + _spread(meta_params.inner_lr, 1) * of_critic
    )


def actor_critic_path(
    mdp: TabularMDP, params: ActorCritic, meta_params: MetaParams, *, inner_steps: Count, horizon: Count,
    dependence: Dependence = EVERYTHING,
) -> list[ActorCritic]:  # fmt: skip
    """The path [θ⁰, …, θᴷ] of expected updates; arguments and errors are those of `actor_critic_step`.

    Examples:
        >>> import torch
        >>> from gm_exact import ActorCritic, MetaParams, TabularMDP, actor_critic_path
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> params = ActorCritic(torch.zeros(1, 2), torch.zeros(1))
        >>> phi = MetaParams(*map(torch.tensor, (0.5, 1.0, 0.5, 0.0, 1.0)))
        >>> len(actor_critic_path(mdp, params, phi, inner_steps=3, horizon=1))
        4
    """
    path = [params]
    for _ in range(check_count("inner_steps", inner_steps, "an integer of at least 0", least=0)):
        path.append(actor_critic_step(mdp, path[-1], meta_params, horizon, dependence))
    return path


def mgrl_meta_gradient(
    mdp: TabularMDP,
    params: ActorCritic,
    meta_params: MetaParams,
    *,
    inner_steps: Count,
    horizon: Count,
    outer_horizon: Count | None = None,
    dependence: Dependence = EVERYTHING,
) -> MetaParams:
    """The exact meta-gradient ∇φ J(θᴷ(φ)) of MGRL, through K expected updates of an actor-critic.

    θᴷ ends the path of `actor_critic_path`, all of whose dependence on φ counts: that of the advantages, and that of
    what is sampled and of the critic, at every later step, on the θ that φ has moved (paper, Eq. 8 with the expected
    update for f). J is the value of the policy in the MDP with the MDP's discount (Xu et al. 2018).

    With a part of the `dependence` it is the mean of an estimator that takes account of no more, if the steps and the
    outer gradient are exact, and its derivatives of a step come from samples of that step's own (paper, Eq. 4).

    Args:
        mdp: where trajectories come from; its discount is that of the outer objective.
        params: θ⁰, which φ doesn't move.
        meta_params: φ.
        inner_steps: K, 0 or more; 0 gives zeros.
        horizon: T of the inner trajectories.
        outer_horizon: that of the outer objective; None for ever.
        dependence: as in `actor_critic_step`.

    Raises:
        ValueError: as `actor_critic_step` and `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import ActorCritic, MetaParams, TabularMDP, mgrl_meta_gradient
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> params = ActorCritic(torch.zeros(1, 2), torch.zeros(1))
        >>> phi = MetaParams(*map(torch.tensor, (0.5, 1.0, 0.5, 0.0, 1.0)))
        >>> found = mgrl_meta_gradient(mdp, params, phi, inner_steps=1, horizon=1)
        >>> print(f"{found.inner_lr:.3f}")
        0.235
    """
    check_horizon(outer_horizon)
    with torch.enable_grad():
        start = ActorCritic(*(part.detach() for part in params))
        leaves = MetaParams(*(part.detach().requires_grad_() for part in meta_params))
        terms = {"inner_steps": inner_steps, "horizon": horizon}
        last = actor_critic_path(mdp, start, leaves, dependence=dependence, **terms)[-1]
        value = evaluate(mdp, last.logits, outer_horizon).value
        # φ has no part in θ⁰, and c_v none in the policy of θ¹
        grads = torch.autograd.grad(value.sum(), leaves, allow_unused=True) if value.requires_grad else (None,) * 5
    return MetaParams(*(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, grads, strict=True)))


def _visits(mdp: TabularMDP, policy: Tensor, steps: int) -> Float[Tensor, "*batch time state"]:
    """P(s_t = s), t = 0 … T−1."""
    flow = torch.einsum("...sa,...sax->...sx", policy, mdp.transition)
    at = [torch.zeros_like(policy[..., 0]) + mdp.start_distribution]
    for _ in range(steps - 1):
        at.append(torch.einsum("...s,...sx->...x", at[-1], flow))
    first, *_ = reversed(at)  # whose batch axes are all there are
    return torch.stack([visited.expand_as(first) for visited in at], -2)


def _mean_advantages(
    mdp: TabularMDP, policy: Tensor, values: Tensor, meta_params: MetaParams, visits: Tensor
) -> tuple[Tensor, Tensor]:
    """Σ_t P(s_t = s) (q_t(s, a) − V(s)) and Σ_t P(s_t = s) (g_t(s) − V(s)), from the last step to the first."""
    discount, decay = _spread(meta_params.discount, 2), _spread(meta_params.gae_lambda, 1)
    returns = values
    advantages = errors = torch.zeros((), dtype=values.dtype, device=values.device)
    for visited in reversed(visits.unbind(-2)):
        future = (1 - decay) * values + decay * returns
        action_values = mdp.reward + discount * torch.einsum("...sax,...x->...sa", mdp.transition, future)
        returns = (policy * action_values).sum(-1)
        advantages = advantages + visited.unsqueeze(-1) * (action_values - values.unsqueeze(-1))
        errors = errors + visited * (returns - values)
    return advantages, errors


def _undamped(
    mdp: TabularMDP, policy: Tensor, values: Tensor, meta_params: MetaParams, visits: Tensor
) -> Float[Tensor, "*batch state action"]:
    """Zero, with Σ_t P(s_t = s) Σ_{u>t} E[A_u ∇log π(a_u|s_u) | s_t = s, a_t = a] for derivative."""
    discount, decay = _spread(meta_params.discount.detach(), 2), _spread(meta_params.gae_lambda.detach(), 1)
    fixed, returns, after = policy.detach(), values, torch.zeros_like(values)
    total = torch.zeros((), dtype=values.dtype, device=values.device)
    for visited in reversed(visits.unbind(-2)):
        later = torch.einsum("...sax,...x->...sa", mdp.transition, after)
        future = (1 - decay) * values + decay * returns
        action_values = mdp.reward + discount * torch.einsum("...sax,...x->...sa", mdp.transition, future)
        returns = (fixed * action_values).sum(-1)
        after = ((policy - fixed) * action_values + fixed * later).sum(-1)
        total = total + visited.unsqueeze(-1) * later
    return total


def _count(visits: Tensor, live: bool) -> Float[Tensor, "*batch state"]:
    """Σ_t P(s_t = s), a constant or not."""
    return (visits if live else visits.detach()).sum(-2)


def _spread(number: Tensor, axes: int) -> Tensor:
    """A number for each problem with further axes, of state and action."""
    return number.reshape(*number.shape, *(1,) * axes)


def _checked(mdp: TabularMDP, params: ActorCritic) -> ActorCritic:
    pairs = (mdp.n_states, mdp.n_actions)
    if params.logits.shape[-2:] != pairs:
        raise ValueError(f"logits: expected shape [..., {pairs[0]}, {pairs[1]}], got {shape_of(params.logits)}")
    if params.values.shape[-1:] != pairs[:1]:
        raise ValueError(f"values: expected shape [..., {pairs[0]}], got {shape_of(params.values)}")
    return params
