"""Every trajectory of a tiny MDP at once, and with it the exact expectation of what a sampled estimator computes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.functional import hessian, jacobian

from gm_exact.tabular import Count, TabularMDP, check_count

MAX_TRAJECTORIES = 1_000_000


@dataclass(frozen=True)
class Trajectories:
    """All trajectories a_0 … a_{T−1}, s_0 … s_T and r(s_t, a_t) that the environment allows.

    The part of p(τ) that does not depend on θ is `environment_probability`, start(s_0) Π_t P(s_{t+1}|s_t, a_t).
    """

    actions: Int[Tensor, "n time"]
    states: Int[Tensor, "n time+1"]
    rewards: Float[Tensor, "n time"]
    environment_probability: Float[Tensor, "n"]

    def log_probs(self, params: Float[Tensor, "*batch state action"]) -> Float[Tensor, "*batch n time"]:
        """Log-probabilities of the actions taken, log π(a_t|s_t), differentiable in θ."""
        return params.log_softmax(-1)[..., self.states[:, :-1], self.actions]

    def probability(self, params: Float[Tensor, "*batch state action"]) -> Float[Tensor, "*batch n"]:
        """p(τ; θ) = start(s_0) Π_t π(a_t|s_t) P(s_{t+1}|s_t, a_t), differentiable in θ; sums to 1."""
        return self.environment_probability * self.log_probs(params).sum(-1).exp()

    def where(self, kept: Bool[Tensor, "n"]) -> "Trajectories":
        """Some of the trajectories."""
        if bool(kept.all()):
            return self
        return Trajectories(
            self.actions[kept], self.states[kept], self.rewards[kept], self.environment_probability[kept]
        )


@dataclass(frozen=True)
class Expectation:
    """A surrogate's value and derivatives on average over trajectories: E[f], E[∇θ f] and E[∇²θ f]."""

    value: Float[Tensor, ""]
    gradient: Float[Tensor, "state action"]
    hessian: Float[Tensor, "state action state action"]


def trajectories(mdp: TabularMDP, horizon: Count, *, max_trajectories: int = MAX_TRAJECTORIES) -> Trajectories:
    """Every trajectory of T steps with positive environment probability, grown from the possible first states.

    Raises `ValueError` if the MDP has batch axes, or there are more than `max_trajectories`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, trajectories
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> trajectories(mdp, horizon=2).actions.tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    if mdp.batch_shape:
        raise ValueError(f"mdp: expected no batch axes, got {tuple(mdp.batch_shape)}")
    horizon = check_count("horizon", horizon, "a positive integer")
    possible, start = mdp.transition > 0, mdp.start_distribution
    count = _count(possible, start > 0, horizon)
    if count > max_trajectories:
        raise ValueError(f"horizon: expected at most {max_trajectories} trajectories, got {count} in {horizon} steps")

    states = (start > 0).nonzero()
    actions = states[:, :0]
    for _ in range(horizon):
        parent, action, state_tp1 = possible[states[:, -1]].nonzero(as_tuple=True)
        states = torch.cat([states[parent], state_tp1.unsqueeze(-1)], dim=-1)
        actions = torch.cat([actions[parent], action.unsqueeze(-1)], dim=-1)
    steps = mdp.transition[states[:, :-1], actions, states[:, 1:]]
    return Trajectories(
        actions=actions,
        states=states,
        rewards=mdp.reward[states[:, :-1], actions],
        environment_probability=start[states[:, 0]] * steps.prod(-1),
    )


def expectation(
    surrogate: Callable[[Float[Tensor, "n time"], Trajectories], Float[Tensor, "n"]],
    mdp: TabularMDP,
    params: Float[Tensor, "state action"],
    horizon: Count,
    *,
    max_trajectories: int = MAX_TRAJECTORIES,
) -> Expectation:
    """Exact expectation of an estimator that differentiates a surrogate on sampled trajectories.

    E[∇ᵏf] = Σ_τ ⊥p(τ; θ) ∇ᵏθ f_τ(θ), k = 0, 1, 2. The weights are constants, because a sample does not know how
    likely it was: the surrogate alone has to account for it (Foerster et al. 2018, DiCE). Trajectories of probability
    zero, because of a logit of −∞, count nothing, and the surrogate is not asked about them.

    The surrogate f is called once per derivative with log π(a_t|s_t) and the trajectories, and returns one number per
    trajectory. The other arguments and errors are those of `trajectories`.

    Examples:
        >>> import torch
        >>> from gm_exact import TabularMDP, expectation
        >>> mdp = TabularMDP(torch.ones(1, 2, 1), torch.tensor([[1.0, 0.0]]), start=0, discount=0.5)  # two arms
        >>> found = expectation(lambda log_prob, every: every.rewards.sum(-1), mdp, torch.zeros(1, 2), horizon=2)
        >>> found.value
        tensor(1.)
    """
    every = trajectories(mdp, horizon, max_trajectories=max_trajectories)
    if params.shape != (mdp.n_states, mdp.n_actions):
        raise ValueError(f"params: expected shape {(mdp.n_states, mdp.n_actions)}, got {tuple(params.shape)}")
    params = params.detach()
    weight = every.probability(params)
    if bool(weight.isnan().any()):
        raise ValueError("params: expected logits without NaN or +∞ and in every state one above −∞, got others")
    every, weight = every.where(weight > 0), weight[weight > 0]

    def mean(theta: Tensor) -> Tensor:
        per_trajectory = surrogate(every.log_probs(theta), every)
        if per_trajectory.shape != weight.shape:
            raise ValueError(f"surrogate: expected shape {tuple(weight.shape)}, got {tuple(per_trajectory.shape)}")
        return (weight * per_trajectory).sum()

    return Expectation(
        value=mean(params),
        gradient=jacobian(mean, params),  # type: ignore[no-untyped-call]
        hessian=hessian(mean, params),  # type: ignore[no-untyped-call]
    )


def _count(possible: Tensor, first: Tensor, horizon: int) -> int:
    """Number of trajectories: n_T(s) = 1, n_t(s) = Σ_{a, x: P(x|s, a) > 0} n_{t+1}(x), in exact integers."""
    successors = possible.sum(-2).tolist()
    n_t = [1] * len(successors)
    for _ in range(horizon):
        n_t = [sum(ways * n for ways, n in zip(row, n_t, strict=True)) for row in successors]
    return sum(n for n, starts in zip(n_t, first.tolist(), strict=True) if starts)
