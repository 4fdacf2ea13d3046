"""A network is the update rule (LPG), a table is the agent that it updates, and the two make an inner objective.

Oh et al. 2020, "Discovering Reinforcement Learning Algorithms"; the paper's Table 1 and Appendix A.4.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

import gm_estimators as estimators
from gm_estimators.estimator import said_by

Weights = dict[str, Tensor]
Agent = dict[str, Tensor]
POLICY, PREDICTION = "policy", "prediction"
FEATURES = 6
EMBEDDING = 16


class Experience(NamedTuple):
    """Agents leave these trajectories; after the end of an episode they stay in a state without reward.

    States are `[*batch, trajectory, T + 1]`, all else `[*batch, trajectory, T]`: `termination` is 1 if the episode is
    over after that step. `weight` `[*batch, trajectory]` is that of a trajectory in a mean, `None` for 1/n.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    termination: Tensor
    weight: Tensor | None = None


class Targets(NamedTuple):
    """The rule wants π̂_t `[*batch, trajectory, T]` and log ŷ_t `[*batch, trajectory, T, m]` of an agent at a step."""

    policy: Tensor
    log_prediction: Tensor


@dataclass(frozen=True)
class Inner:
    """The targets move an agent in this way.

    The estimator's surrogate gives the update and its derivative in θ; with `correction` that derivative knows that θ
    also decides which trajectories there are.
    """

    discount: float
    prediction_weight: float
    estimator: estimators.Estimator
    correction: bool = False

    def objective(
        self, weights: Weights, agent: Agent, sample: Experience, kept: list[Targets] | None = None
    ) -> Tensor:
        """Returns what `gm_estimators.inner_loop` ascends: its gradient is `direction`."""
        return directed(agent, self.direction(weights, agent, sample, kept))

    def direction(self, weights: Weights, agent: Agent, sample: Experience, kept: list[Targets] | None = None) -> Agent:
        """Returns the update of θ, for which the targets count as given (Oh et al. 2020).

            u(φ, θ) = 1/n Σ_n Σ_t [π̂_t ∇θ log π(a_t | s_t) − α_y ∇θ KL(y(s_t) ‖ ŷ_t)]

        The first term is the gradient of the estimator's surrogate with π̂_t as advantage and as reward to go, on which
        estimators agree; in ∂u/∂θ, where π̂ and ŷ are functions of θ, they differ. With `correction` the update of
        each trajectory is multiplied by □(Σ_t log π(a_t | s_t)), and the mean of ∂u/∂θ is the derivative of E[u].
        The weights φ have the batch axes of θ in front if every agent has a rule of its own; `kept` gets the targets.
        """
        targets = rule(weights, agent, sample, self.discount)
        if kept is not None:
            kept.append(targets)
        # a second name for θ, so that the first derivative does not see that the targets depend on it
        alias = {name: tensor.view_as(tensor) for name, tensor in agent.items()}
        log_prob = chosen_of(alias[POLICY].log_softmax(-1), sample)
        log_prediction = visited(alias[PREDICTION].log_softmax(-1), sample.state[..., :-1])
        divergence = (log_prediction.exp() * (log_prediction - targets.log_prediction)).sum((-1, -2))
        each = surrogate_of(self.estimator, log_prob, targets.policy) - self.prediction_weight * divergence
        weight = torch.full_like(each, 1 / each.shape[-1]) if sample.weight is None else sample.weight
        if self.correction:
            weight = weight * estimators.operators.magic_box(chosen_of(agent[POLICY].log_softmax(-1), sample).sum(-1))
        update = torch.autograd.grad((weight * each).sum(), list(alias.values()), create_graph=True)
        return dict(zip(alias, update, strict=True))


def new_rule(hidden: int, predictions: int, generator: torch.Generator, dtype: torch.dtype) -> Weights:
    """Draws φ⁰ uniformly within ±1/√(inputs) (LSTM: ±1/√hidden), so that the first targets are close to zero."""
    sizes = {
        "embed_1": (EMBEDDING, predictions, predictions),
        "embed_2": (1, EMBEDDING, EMBEDDING),
        "input": (4 * hidden, FEATURES, hidden),
        "recurrent": (4 * hidden, hidden, hidden),
        "policy": (1, hidden, hidden),
        "prediction": (predictions, hidden, hidden),
    }
    weights = {}
    for name, (outputs, inputs, scale) in sizes.items():
        drawn = torch.rand(outputs, inputs + (name != "recurrent"), generator=generator, dtype=torch.float64)
        weight = (2 * drawn - 1) / scale**0.5
        weights[name] = weight[:, :inputs].to(dtype).clone()
        if name != "recurrent":
            weights[f"{name}_bias"] = weight[:, inputs].to(dtype).clone()
    return weights


def rule(weights: Weights, agent: Agent, sample: Experience, discount: float) -> Targets:
    """Returns the targets of an LSTM that reads a trajectory backwards in time (Oh et al. 2020).

        (π̂_t, ŷ_t) = U_φ(x_t, x_{t+1}, …, x_{T−1}),   x_t = [r_t, d_t, γ, π(a_t | s_t), e(y(s_t)), e(y(s_{t+1}))]

    with y(s) the agent's prediction, a distribution over m outcomes without a meaning of their own, and e a small
    network that makes one number of it.
    """
    chosen = chosen_of(agent[POLICY].softmax(-1), sample)
    # embedded state by state, as there are fewer of them than steps
    embedded = linear(weights, "embed_2", linear(weights, "embed_1", agent[PREDICTION].softmax(-1)).tanh())
    place = sample.state.flatten(-2)
    seen = embedded.squeeze(-1).gather(-1, place).reshape(sample.state.shape)
    gamma = torch.full_like(chosen, discount)
    signals = [sample.reward, sample.termination, gamma, chosen, seen[..., :-1], seen[..., 1:]]
    hidden = backward_lstm(weights, torch.stack(signals, -1))
    policy, prediction = (linear(weights, name, hidden) for name in ("policy", "prediction"))
    return Targets(time_last(policy).squeeze(-1), time_last(prediction.log_softmax(-1)))


def backward_lstm(weights: Weights, inputs: Tensor) -> Tensor:
    """Returns an LSTM's states h_0 … h_{T−1} from the last step to the first (Hochreiter and Schmidhuber 1997).

        (i, f, g, o) = W x_t + U h_{t+1} + b,   c_t = σ(f) c_{t+1} + σ(i) tanh(g),   h_t = σ(o) tanh(c_t)

    The inputs x are `[*batch, trajectory, time, feature]`, the states `[time, *batch, trajectory, hidden]`.
    """
    driven = linear(weights, "input", inputs.movedim(-2, 0))
    recurrent = weights["recurrent"].mT
    hidden = driven.new_zeros(*driven.shape[1:-1], recurrent.shape[-2])
    memory = hidden
    hidden_states = []
    for drive in reversed(driven.unbind(0)):
        entry, keep, candidate, out = (drive + hidden @ recurrent).chunk(4, -1)
        memory = keep.sigmoid() * memory + entry.sigmoid() * candidate.tanh()
        hidden = out.sigmoid() * memory.tanh()
        hidden_states.append(hidden)
    return torch.stack(hidden_states[::-1])


def linear(weights: Weights, name: str, inputs: Tensor) -> Tensor:
    """Returns W x + b, the weights broadcast against the inputs' batch axes."""
    return inputs @ weights[name].mT + weights[f"{name}_bias"].unsqueeze(-2)


def surrogate_of(estimator: estimators.Estimator, log_prob: Tensor, advantage: Tensor) -> Tensor:
    """Returns the estimator's surrogate of each trajectory, for given advantages A_t and rewards A_t − A_{t+1}.

    Raises:
        EstimatorError: if it fails, or gives another shape than one number per trajectory.
    """
    following = torch.nn.functional.pad(advantage[..., 1:], (0, 1))
    value = advantage.new_zeros(()).expand(*advantage.shape[:-1], advantage.shape[-1] + 1)
    discount = advantage.new_ones(advantage.shape[-1] + 1)
    trajectories = estimators.Trajectories(log_prob, advantage - following, value, advantage, discount)
    each: list[Tensor] = []

    def noted(argument: estimators.Trajectories) -> Tensor:
        each.append(estimator.surrogate(argument))
        return each[0]

    try:
        mean = estimators.surrogates.mean_surrogate(noted, trajectories)  # which checks the shape
        if not mean.requires_grad:
            raise ValueError("surrogate: expected a differentiable function of trajectories.log_prob, got a constant")
    except Exception as error:
        detail = said_by(error) or type(error).__name__
        raise estimators.EstimatorError(f"estimator {estimator.name}: {detail}") from error
    return each[0]


class _Directed(torch.autograd.Function):
    """The gradient of ⟨θ, u⟩ in θ is u, also where u depends on θ."""

    @staticmethod
    def forward(ctx: Any, params: Tensor, direction: Tensor) -> Tensor:
        ctx.save_for_backward(direction)
        return (params * direction).sum()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        (direction,) = ctx.saved_tensors
        return cotangents[0] * direction, None


def directed(params: Agent, direction: Agent) -> Tensor:
    """Returns an objective whose gradient is a given direction u(φ, θ), be that the gradient of a function or not.

    That gradient's derivatives are ∂u/∂φ and ∂u/∂θ: `gm_estimators` takes a learnt update rule as an objective.
    """
    terms: list[Tensor] = [_Directed.apply(params[name], direction[name]) for name in params]
    return torch.stack(terms).sum()


def chosen_of(table: Tensor, sample: Experience) -> Tensor:
    """Returns the entries of a table over states and actions at (s_t, a_t)."""
    place = sample.state[..., :-1] * table.shape[-1] + sample.action
    return table.flatten(-2).gather(-1, place.flatten(-2)).reshape(place.shape)


def visited(table: Tensor, state: Tensor) -> Tensor:
    """Returns the rows of a table over states at s_t."""
    batch = table.shape[:-2]
    offset = (torch.arange(batch.numel(), device=table.device) * table.shape[-2]).reshape(*batch, 1, 1)
    return table.flatten(0, -2).index_select(0, (state + offset).flatten()).reshape(*state.shape, table.shape[-1])


def time_last(tensor: Tensor) -> Tensor:
    """Turns [time, *batch, trajectory, feature] into [*batch, trajectory, time, feature]."""
    return tensor.movedim(0, -2)


def new_agent(batch: tuple[int, ...], states: int, actions: int, predictions: int, dtype: torch.dtype) -> Agent:
    """Returns θ⁰, a uniform policy and a uniform prediction in every state."""
    return {
        POLICY: torch.zeros(*batch, states, actions, dtype=dtype),
        PREDICTION: torch.zeros(*batch, states, predictions, dtype=dtype),
    }
