"""One policy in one MDP: its chain is factorised once, then values, gradient and Hessian products are cheap.

Notation: π = softmax(θ) per state, P_π[s, x] = Σₐ π(a|s) P(x|s, a), r_π(s) = Σₐ π(a|s) r(s, a). A finite horizon T has
values V_0 … V_T and visits d_0 … d_{T−1}. The infinite horizon is stored as one step that repeats: V_0 = V_1 = V and
d_0 = d, so that every formula below is written once, as a sum over t. The functions at the end give one answer each;
who needs several at the same θ calls `evaluate` once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gm_exact.tabular import Count, TabularMDP, broadcast, check_horizon, shape_of, warn_of_few_digits

StateAction = Float[Tensor, "*#batch state action"]
PerState = Float[Tensor, "*#batch state"]


@dataclass(frozen=True)
class Tangent:
    """Derivatives along a direction v in parameter space.

    Args:
        gradient: ∇²J v, the Hessian-vector product.
        occupancy: d/dε of the state-action occupancy Σ_t d_t(s) π(a|s) at θ + εv. As J is linear in the reward, it
            is also ∂/∂r ⟨∇θ J, v⟩: how the policy gradient along v answers to the reward.
    """

    gradient: Float[Tensor, "*batch state action"]
    occupancy: Float[Tensor, "*batch state action"]


@dataclass(frozen=True)
class _Chain:
    """Sums along the Markov chain of the policy: until the horizon by recursion, for ever by one factorisation."""

    step: Float[Tensor, "*batch state state"]  # γ P_π
    factors: tuple[Float[Tensor, "*batch state state"], Int[Tensor, "*batch state"]] | None  # LU of I − γ P_π

    def to_go(
        self, source_t: Float[Tensor, "*batch time state"], terminal: Float[Tensor, "*batch state"]
    ) -> Float[Tensor, "*batch time+1 state"]:
        """y_T = terminal, y_t = source_t + γ P_π y_{t+1}; for ever: y = (I − γ P_π)⁻¹ source."""
        if self.factors is not None:
            forever = torch.linalg.lu_solve(*self.factors, source_t.mT).squeeze(-1)
            return torch.stack([forever, forever], dim=-2)
        y = [terminal]
        for source in reversed(source_t.unbind(-2)):
            y.append(source + torch.einsum("...sx,...x->...s", self.step, y[-1]))
        return torch.stack(y[::-1], dim=-2)

    def arriving(
        self, initial: Float[Tensor, "*batch state"], inflow_t: Float[Tensor, "*batch time state"]
    ) -> Float[Tensor, "*batch time state"]:
        """y_0 = initial, y_{t+1} = inflow_t + γ P_πᵀ y_t; for ever: y = (I − γ P_π)⁻ᵀ (initial + inflow)."""
        if self.factors is not None:
            source = initial.unsqueeze(-2) + inflow_t
            forever = torch.linalg.lu_solve(*self.factors, source.mT, adjoint=True).squeeze(-1)
            return torch.stack([forever], dim=-2)
        y = [initial]
        for inflow in inflow_t.unbind(-2)[:-1]:
            y.append(inflow + torch.einsum("...sx,...s->...x", self.step, y[-1]))
        return torch.stack(y, dim=-2)


@dataclass(frozen=True)
class PolicyEvaluation:
    """What is known about one policy in one MDP; made by `evaluate`, which pays for the factorisation once.

    Attributes:
        mdp: the MDP.
        policy: π(a|s).
        chain: the policy's Markov chain.
        visits: d_t(s) = γᵗ Pr(s_t = s), t = 0 … T−1.
        values: V_t(s), t = 0 … T.
        weighted_advantage: Σ_t d_t(s) (Q_t(s, a) − V_t(s)).
    """

    mdp: TabularMDP
    policy: Float[Tensor, "*batch state action"]
    chain: _Chain
    visits: Float[Tensor, "*batch time state"]
    values: Float[Tensor, "*batch time+1 state"]
    weighted_advantage: Float[Tensor, "*batch state action"]

    @property
    def value(self) -> Float[Tensor, "*batch"]:
        """J = Σ_s start(s) V_0(s)."""
        expected: Tensor = (self.mdp.start_distribution * self.state_values).sum(-1)
        return expected

    @property
    def state_values(self) -> Float[Tensor, "*batch state"]:
        """V_0(s)."""
        return self.values[..., 0, :]

    @property
    def action_values(self) -> Float[Tensor, "*batch state action"]:
        """Q_0(s, a) = r(s, a) + γ Σₓ P(x|s, a) V_1(x)."""
        future = torch.einsum("...sax,...x->...sa", self.mdp.transition, self.values[..., 1, :])
        return self.mdp.reward + self.mdp.discount * future

    @property
    def occupancy(self) -> Float[Tensor, "*batch state"]:
        """Σ_t γᵗ Pr(s_t = s)."""
        return self.visits.sum(-2)

    @property
    def gradient(self) -> Float[Tensor, "*batch state action"]:
        """∂J/∂θ[s, a] = π(a|s) Σ_t d_t(s) (Q_t(s, a) − V_t(s))."""
        return self.policy * self.weighted_advantage

    def tangent(self, vector: StateAction) -> Tangent:
        """Derivatives of gradient and occupancy along a direction v, by two solves with the factorisation in hand.

        With a dot for d/dε at θ + εv: π̇ = π (v − Σₐ π v), V̇_t = ṙ_π + γ Ṗ_π V_{t+1} + γ P_π V̇_{t+1},
        ḋ_{t+1} = γ Ṗ_πᵀ d_t + γ P_πᵀ ḋ_t, and the product rule in π Σ_t d_t (r + γ P V_{t+1} − V_t). Further axes of v,
        in front of the batch axes, are as many directions at once.
        """
        mdp, policy, policy_dot = self.mdp, self.policy, self._policy_dot(vector)
        step_dot = mdp.discount * torch.einsum("...sa,...sax->...sx", policy_dot, mdp.transition)
        reward_dot = (policy_dot * mdp.reward).sum(-1)
        source = reward_dot.unsqueeze(-2) + torch.einsum("...sx,...tx->...ts", step_dot, self.values[..., 1:, :])
        inflow = torch.einsum("...sx,...ts->...tx", step_dot, self.visits)
        values_dot = self.chain.to_go(source, torch.zeros_like(reward_dot))
        visits_dot = self.chain.arriving(torch.zeros_like(reward_dot), inflow)

        occupancy_dot = visits_dot.sum(-2)
        flow, baseline = _products(visits_dot, self.values)
        flow_dot, baseline_dot = _products(self.visits, values_dot)
        weighted_advantage_dot = _weighted_advantage(mdp, occupancy_dot, flow + flow_dot, baseline + baseline_dot)
        return Tangent(
            gradient=policy_dot * self.weighted_advantage + policy * weighted_advantage_dot,
            occupancy=occupancy_dot.unsqueeze(-1) * policy + self.occupancy.unsqueeze(-1) * policy_dot,
        )

    def hessian_vector_product(self, vector: StateAction) -> StateAction:
        """∇²J v without the Hessian; see `tangent`."""
        return self.tangent(vector).gradient

    def local_hessian_vector_product(self, vector: StateAction) -> StateAction:
        """∇²L v, where L holds the occupancy and the advantages of this policy π fixed.

        L(θ) = Σ_s Σₐ π_θ(a|s) W(s, a) with the weighted advantages W = Σ_t d_t (Q_t − V_t) of π is, up to a constant,
        the local approximation of J (Schulman et al. 2015, "Trust Region Policy Optimization", Eq. 3). It has the
        gradient of J. As Σₐ π W = 0,

            ∇²L v = π̇ W − π Σₐ π̇ W,

        which lacks what a change of π in one state does to occupancy and advantages in others.
        """
        weighted = self._policy_dot(vector) * self.weighted_advantage
        return weighted - self.policy * weighted.sum(-1, keepdim=True)

    def _policy_dot(self, vector: Tensor) -> Tensor:
        """π̇ = π (v − Σₐ π v)."""
        policy = self.policy
        if vector.shape[-2:] != policy.shape[-2:]:
            expected = f"[..., {self.mdp.n_states}, {self.mdp.n_actions}]"
            raise ValueError(f"vector: expected shape {expected}, got {shape_of(vector)}")
        return policy * (vector - (policy * vector).sum(-1, keepdim=True))

    def every_tangent(self) -> Tangent:
        """The tangents along all S·A unit vectors, on an axis in front of the batch axes."""
        *batch, n_states, n_actions = self.policy.shape
        directions = torch.eye(n_states * n_actions, dtype=self.policy.dtype, device=self.policy.device)
        return self.tangent(directions.reshape(-1, *[1] * len(batch), n_states, n_actions))


def evaluate(
    mdp: TabularMDP, params: StateAction, horizon: Count | None = None, terminal_value: PerState | None = None
) -> PolicyEvaluation:
    """Evaluate a softmax policy; everything in the result is differentiable to any order.

    Infinite horizon: V = (I − γ P_π)⁻¹ r_π and d = (I − γ P_π)⁻ᵀ start, from one LU factorisation (Puterman, Markov
    Decision Processes, §6.1). Finite horizon: V_t = r_π + γ P_π V_{t+1} and d_{t+1} = γ P_πᵀ d_t.

    Args:
        mdp: the MDP.
        params: θ, one logit per state and action.
        horizon: T, the number of steps; None for ever.
        terminal_value: V_T(s), a constant reward γᵀ V_T(s_T) at the horizon; None for zero.

    Raises:
        ValueError: If the shapes, the dtypes or the devices of mdp and params differ, if the horizon is not a positive
            integer, if a terminal value comes without a horizon, or γ = 1 without a horizon.

    Warns:
        UserWarning: If the dtype has fewer than three digits at this horizon, as float32 from γ = 0.9999 on.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, evaluate
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> found = evaluate(mdp, torch.zeros(1, 2))
        >>> found.value, found.gradient
        (tensor(1.), tensor([[ 0.5000, -0.5000]]))
    """
    horizon = _check_request(mdp, params, horizon, terminal_value)
    terminal = params.new_zeros(mdp.n_states) if terminal_value is None else terminal_value
    batch = broadcast(mdp.batch_shape, params.shape[:-2], terminal.shape[:-1])
    n_steps = 1 if horizon is None else horizon
    pi = params.softmax(-1).expand(*batch, -1, -1)
    # einsum may return permuted strides, which every later product would have to copy
    step = mdp.discount * torch.einsum("...sa,...sax->...sx", pi, mdp.transition).contiguous()
    chain = _Chain(step, _factorise(step) if horizon is None else None)

    source = (pi * mdp.reward).sum(-1).unsqueeze(-2).expand(*batch, n_steps, -1)
    values = chain.to_go(source, terminal.expand(*batch, -1))
    start = mdp.start_distribution.expand(*batch, -1)
    visits = chain.arriving(start, torch.zeros_like(source))
    flow, baseline = _products(visits, values)
    weighted_advantage = _weighted_advantage(mdp, visits.sum(-2), flow, baseline)
    return PolicyEvaluation(mdp, pi, chain, visits, values, weighted_advantage)


def _factorise(step: Tensor) -> tuple[Tensor, Tensor]:
    """LU factors of I − γ P_π, which is never singular for γ < 1; unchecked, so that a GPU need not wait."""
    identity = torch.eye(step.shape[-1], dtype=step.dtype, device=step.device)
    factors, pivots, _ = torch.linalg.lu_factor_ex(identity - step)
    return factors, pivots


def _products(visits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_t d_t(s) V_{t+1}(x) and Σ_t d_t(s) V_t(s)."""
    flow = torch.einsum("...ts,...tx->...sx", visits, values[..., 1:, :])
    return flow, (visits * values[..., :-1, :]).sum(-2)


def _weighted_advantage(mdp: TabularMDP, occupancy: Tensor, flow: Tensor, baseline: Tensor) -> Tensor:
    """Σ_t d_t(s) (r(s, a) + γ Σₓ P(x|s, a) V_{t+1}(x) − V_t(s)), without an axis for t beside s and a."""
    future = torch.einsum("...sax,...sx->...sa", mdp.transition, flow)
    return occupancy.unsqueeze(-1) * mdp.reward + mdp.discount * future - baseline.unsqueeze(-1)


def _check_request(mdp: TabularMDP, params: Tensor, horizon: Count | None, terminal_value: Tensor | None) -> int | None:
    if params.shape[-2:] != (mdp.n_states, mdp.n_actions):
        raise ValueError(f"params: expected shape [..., {mdp.n_states}, {mdp.n_actions}], got {shape_of(params)}")
    if (params.dtype, params.device) != (mdp.transition.dtype, mdp.transition.device):
        expected = f"{mdp.transition.dtype} on {mdp.transition.device}, as the MDP"
        raise ValueError(f"params: expected {expected}, got {params.dtype} on {params.device}")
    steps = check_horizon(horizon)
    if steps is None:
        if mdp.discount >= 1:
            raise ValueError(f"discount: expected less than 1 for an infinite horizon, got {mdp.discount}")
        if terminal_value is not None:
            raise ValueError("horizon: expected a number of steps with terminal_value, got None")
    if terminal_value is not None and terminal_value.shape[-1:] != (mdp.n_states,):
        raise ValueError(f"terminal_value: expected shape [..., {mdp.n_states}], got {shape_of(terminal_value)}")
    warn_of_few_digits(params.dtype, mdp.discount, steps)
    return steps


def policy(params: StateAction) -> StateAction:
    """Softmax policy: π(a|s) = exp θ[s, a] / Σ_b exp θ[s, b].

    Examples:
        >>> import torch
        >>> from gm_exact import policy
        >>> policy(torch.tensor([[0.0, 0.0]]))
        tensor([[0.5000, 0.5000]])
    """
    return params.softmax(-1)


def value(
    mdp: TabularMDP, params: StateAction, horizon: Count | None = None, terminal_value: PerState | None = None
) -> Float[Tensor, "*#batch"]:
    """Expected discounted return: J(θ) = Σ_s start(s) V_0(s); arguments as in `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, value
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> value(mdp, torch.zeros(1, 2))  # ½ in each round, for ever
        tensor(1.)
    """
    return evaluate(mdp, params, horizon, terminal_value).value


def state_values(
    mdp: TabularMDP, params: StateAction, horizon: Count | None = None, terminal_value: PerState | None = None
) -> PerState:
    """State values: V_t = r_π + γ P_π V_{t+1}, at t = 0; arguments as in `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, state_values
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> state_values(mdp, torch.zeros(1, 2))
        tensor([1.])
    """
    return evaluate(mdp, params, horizon, terminal_value).state_values


def action_values(
    mdp: TabularMDP, params: StateAction, horizon: Count | None = None, terminal_value: PerState | None = None
) -> StateAction:
    """Action values: Q_t(s, a) = r(s, a) + γ Σₓ P(x|s, a) V_{t+1}(x), at t = 0; arguments as in `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, action_values
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> action_values(mdp, torch.zeros(1, 2))
        tensor([[1.5000, 0.5000]])
    """
    return evaluate(mdp, params, horizon, terminal_value).action_values


def occupancy(
    mdp: TabularMDP, params: StateAction, horizon: Count | None = None, terminal_value: PerState | None = None
) -> PerState:
    """Discounted visits: d(s) = Σ_t γᵗ Pr(s_t = s), for ever 1 / (1 − γ) in all; arguments as in `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, occupancy
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> occupancy(mdp, torch.zeros(1, 2), horizon=3)  # 1 + ½ + ¼
        tensor([1.7500])
    """
    return evaluate(mdp, params, horizon, terminal_value).occupancy


def gradient(
    mdp: TabularMDP, params: StateAction, horizon: Count | None = None, terminal_value: PerState | None = None
) -> StateAction:
    """Policy gradient: ∂J/∂θ[s, a] = Σ_t d_t(s) π(a|s) (Q_t(s, a) − V_t(s)) (Sutton et al. 2000, Theorem 1).

    Arguments as in `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, gradient
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> gradient(mdp, torch.zeros(1, 2))
        tensor([[ 0.5000, -0.5000]])
    """
    return evaluate(mdp, params, horizon, terminal_value).gradient


def hessian_vector_product(
    mdp: TabularMDP,
    params: StateAction,
    vector: StateAction,
    horizon: Count | None = None,
    terminal_value: PerState | None = None,
) -> StateAction:
    """∇²J v by two linear solves, the Hessian never formed; see `PolicyEvaluation.tangent` and `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, hessian_vector_product
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> hessian_vector_product(mdp, torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).shape
        torch.Size([1, 2])
    """
    return evaluate(mdp, params, horizon, terminal_value).hessian_vector_product(vector)


def hessian(
    mdp: TabularMDP, params: StateAction, horizon: Count | None = None, terminal_value: PerState | None = None
) -> Float[Tensor, "*#batch state action state action"]:
    """∂²J/∂θ[s, a]∂θ[s', a'], all S·A Hessian-vector products at once: memory for S·A times as many problems.

    Arguments as in `evaluate`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, hessian
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> hessian(mdp, torch.tensor([[1.0, 0.0]])).shape
        torch.Size([1, 2, 1, 2])
    """
    columns = evaluate(mdp, params, horizon, terminal_value).every_tangent().gradient
    return columns.movedim(0, -1).reshape(*columns.shape[1:], mdp.n_states, mdp.n_actions)
