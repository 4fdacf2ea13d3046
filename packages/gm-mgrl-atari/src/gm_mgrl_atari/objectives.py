"""What A2C ascends on a batch of experience, as a function of the network's and of the meta-parameters."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer, Shaped
from torch import Tensor

from gm_estimators import Estimator, EstimatorError, Trajectories, load
from gm_estimators.returns import gae
from gm_estimators.surrogates import mean_surrogate
from gm_mgrl_atari.actor_critic import ActorCritic
from gm_mgrl_atari.distributions import Categorical, Distribution
from gm_mgrl_atari.network import Activations, Network, Params

NAMES = ("gamma", "gae_lambda", "value_coef", "entropy_coef")
INITIAL_LOGITS = (4.6, 2.944, 0.0, -4.6)
"""Through the sigmoid: 0.99, 0.95, 0.5, 0.01."""


class Coefficients(NamedTuple):
    """What the meta-parameters stand for, each a scalar in (0, 1): γ, λ, and the weights c_v and c_e."""

    discount: Tensor
    gae_lambda: Tensor
    value_coef: Tensor
    entropy_coef: Tensor


def coefficients(logits: Float[Tensor, "4"]) -> Coefficients:
    """σ(φ): (γ, λ, c_v, c_e) (paper, G.3.1).

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import INITIAL_LOGITS, coefficients
        >>> [round(float(value), 2) for value in coefficients(torch.tensor(INITIAL_LOGITS))]
        [0.99, 0.95, 0.5, 0.01]
    """
    return Coefficients(*logits.sigmoid().unbind())


def fixed_coefficients(
    discount: float = 0.99, gae_lambda: float = 0.95, value_coef: float = 0.0, entropy_coef: float = 0.0
) -> Coefficients:
    """Coefficients that nothing learns; by default those of the outer objective, the policy term alone.

    Examples:
        >>> from gm_mgrl_atari import fixed_coefficients
        >>> [float(value) for value in fixed_coefficients()]
        [0.99, 0.95, 0.0, 0.0]
    """
    values = torch.tensor((discount, gae_lambda, value_coef, entropy_coef), dtype=torch.float64)
    return Coefficients(*values.unbind())


CATEGORICAL = Categorical()


class Final(NamedTuple):
    """The last states s_{t+1} of episodes that a time limit ended, where the batch has the next episode's first."""

    env: Integer[Tensor, "final"]
    time: Integer[Tensor, "final"]
    observation: Shaped[Tensor, "final *observation"]


@dataclass(frozen=True)
class Batch:
    """T steps of n environments, as learning sees them.

    Nothing follows a terminated step, V(s_{t+1}) a truncated one, with s_{t+1} of `final` if it is there; an
    environment that was being reset isn't `valid`. The activations are what the network computed at s_0 … s_{T−1} when
    it acted, if that was kept; the distribution is that of the actions, by the network's outputs.
    """

    observation: Shaped[Tensor, "env time_plus_1 *observation"]
    action: Shaped[Tensor, "env time *action"]
    reward: Float[Tensor, "env time"]
    terminated: Bool[Tensor, "env time"]
    truncated: Bool[Tensor, "env time"]
    valid: Bool[Tensor, "env time"]
    activations: Activations | None = None
    final: Final | None = None
    distribution: Distribution = CATEGORICAL


class Terms(NamedTuple):
    """The parts of the A2C objective: means of surrogate, critic's squared error, and entropy of the policy in nat."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


def advantages(
    batch: Batch, value: Float[Tensor, "env time_plus_1"], coefficients: Coefficients,
    final_value: Float[Tensor, "final"] | None = None,
) -> Float[Tensor, "env time"]:  # fmt: skip
    """A_t of `gm_estimators.returns.gae` across episode ends, differentiable in γ and λ.

        δ_t = r_t + γ_t V(s_{t+1}) − V(s_t),   A_t = δ_t + γ_t λ_t A_{t+1}

    γ_t is zero after termination; λ_t is zero after either kind of end, so that a truncated episode bootstraps, with
    the value of its `final` state where the batch has one.

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import Batch, advantages, fixed_coefficients
        >>> never, reward = torch.zeros(1, 2, dtype=torch.bool), torch.tensor([[1.0, 2.0]])
        >>> batch = Batch(torch.zeros(1, 3, 4), torch.zeros(1, 2), reward, never, never, ~never)
        >>> advantages(batch, torch.zeros(1, 3), fixed_coefficients(0.5, 1.0))
        tensor([[2., 2.]])
    """
    going_on = (~batch.terminated).to(value)
    same_episode = (~(batch.terminated | batch.truncated)).to(value)
    discount = coefficients.discount.to(value) * going_on
    reward = batch.reward.to(value)
    if batch.final is not None and final_value is not None:
        at = (batch.final.env, batch.final.time)
        # r_t + γ_t (V(final) − V(s′)) + γ_t V(s′), s′ the next episode's first state
        instead = torch.zeros_like(reward).index_put(at, final_value.to(value) - value[:, 1:][at])
        reward = reward + discount * instead
    return gae(reward, value, discount, coefficients.gae_lambda.to(value) * same_episode)


def terms(
    network: ActorCritic, params: Params, batch: Batch, coefficients: Coefficients, estimator: Estimator
) -> Terms:
    """The three parts of the A2C objective (Mnih et al. 2016; paper, Eq. 14 and Section 5.3).

        policy = mean_t f(log π, ⊥A), for instance ⊥A_t log π_t (AD) or ⊥A_t π_t/⊥π_t (LVC)
        value = mean_t (V(s_t) − (⊥A_t + ⊥V(s_t)))²,   entropy = mean_t H(π(·|s_t))

    ⊥ stops the gradient to θ alone: A_t stays differentiable in γ and λ. Means are over valid steps. π is a density
    where actions are continuous.

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import Batch, fixed_coefficients, functional, policy_estimator, terms
        >>> def apply(params, observation, discount):
        ...     return params["logits"].expand(len(observation), 2), observation[:, 0]
        >>> network = functional(apply, {"logits": torch.zeros(2)})
        >>> never, action = torch.zeros(1, 2, dtype=torch.bool), torch.tensor([[0, 1]])
        >>> batch = Batch(torch.zeros(1, 3, 4), action, torch.ones(1, 2), never, never, ~never)
        >>> found = terms(network, network.params, batch, fixed_coefficients(0.5, 1.0), policy_estimator("ad"))
        >>> print(f"{found.policy:.3f} {found.value:.3f} {found.entropy:.3f}")  # A = 1.5, 1 and log ½
        -0.866 1.625 0.693
    """
    known = None if batch.activations is None else batch.activations.at(params)
    outputs, value = _evaluated(network, params, batch.observation[:, :-1], coefficients.discount, known)
    with torch.no_grad():
        last, final = _bootstraps(network, params, batch, coefficients.discount)
    values = torch.cat([value.detach(), last.unsqueeze(-1)], dim=-1)
    advantage = advantages(batch, values, coefficients, final)
    weight = batch.valid.to(value)
    count = weight.sum().clamp(min=1)
    log_prob = batch.distribution.log_prob(outputs, batch.action)
    trajectories = Trajectories(
        log_prob=log_prob * weight, reward=batch.reward.to(value) * weight, value=values, advantage=advantage * weight,
        discount=values.new_ones(values.shape[-1]),
    )  # fmt: skip
    policy = mean_surrogate(estimator.surrogate, trajectories) * (len(weight) / count)
    error = (value - (advantage + values[:, :-1])).square()
    entropy = batch.distribution.entropy(outputs)
    return Terms(policy, (error * weight).sum() / count, (entropy * weight).sum() / count)


def _evaluated(
    network: ActorCritic, params: Params, observation: Tensor, discount: Tensor, known: tuple[Tensor, ...] | None
) -> tuple[Tensor, Tensor]:
    """A network at states of two batch axes; those of the package take any number, so that nothing is copied."""
    if isinstance(network, Network):
        return network(params, observation, discount, known)
    axes = observation.shape[:2]
    given = {} if known is None else {"known": known}
    outputs, value = network(params, observation.flatten(0, 1), discount.detach(), **given)
    return outputs.reshape(*axes, -1), value.reshape(axes)


def _bootstraps(
    network: ActorCritic, params: Params, batch: Batch, discount: Tensor
) -> tuple[Float[Tensor, "env"], Float[Tensor, "final"] | None]:
    """Values of the states after the last step, and of those that episodes ended in by a time limit."""
    after = batch.observation[:, -1]
    if batch.final is None:
        return network(params, after, discount.detach())[1], None
    _, value = network(params, torch.cat([after, batch.final.observation]), discount.detach())
    return value[: len(after)], value[len(after) :]


def combined(parts: Terms, coefficients: Coefficients) -> Float[Tensor, ""]:
    """J = policy − c_v value + c_e entropy.

    Examples:
        >>> import torch
        >>> from gm_mgrl_atari import Terms, combined, fixed_coefficients
        >>> parts = Terms(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0))
        >>> combined(parts, fixed_coefficients(value_coef=0.25, entropy_coef=0.5))
        tensor(2.5000)
    """
    value_coef, entropy_coef = (c.to(parts.policy) for c in (coefficients.value_coef, coefficients.entropy_coef))
    return parts.policy - value_coef * parts.value + entropy_coef * parts.entropy


def policy_estimator(name: str) -> Estimator:
    """`gm_estimators.load`; raises `EstimatorError` at one that reads no advantages, as DiCE and TMAML, in A2C.

    Examples:
        >>> from gm_mgrl_atari import policy_estimator
        >>> policy_estimator("lvc").name
        'lvc'
    """
    estimator = load(name, suffixes=False)
    if estimator.reads != "advantages" or not estimator.takes_values:
        raise EstimatorError(
            f"expected an estimator that uses advantages, such as ad, lvc or loaded_dice, got {name!r}, which doesn't"
        )
    return estimator
