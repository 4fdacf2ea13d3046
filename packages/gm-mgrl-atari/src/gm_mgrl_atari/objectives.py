"""What A2C ascends on a batch of experience, as a function of the network's and of the meta-parameters."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from gm_estimators import Estimator, EstimatorError, Trajectories, load
from gm_estimators.returns import gae
from gm_estimators.surrogates import mean_surrogate
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
    """σ(φ): (γ, λ, c_v, c_e) (paper, G.3.1)."""
    return Coefficients(*logits.sigmoid().unbind())


def fixed_coefficients(
    discount: float = 0.99, gae_lambda: float = 0.95, value_coef: float = 0.0, entropy_coef: float = 0.0
) -> Coefficients:
    """Coefficients that nothing learns; by default those of the outer objective, the policy term alone."""
    values = torch.tensor((discount, gae_lambda, value_coef, entropy_coef), dtype=torch.float64)
    return Coefficients(*values.unbind())


@dataclass(frozen=True)
class Batch:
    """T steps of n environments, as learning sees them.

    Nothing follows a terminated step, V(s_{t+1}) a truncated one; an environment that was being reset isn't `valid`.
    The activations are what the network computed at s_0 … s_{T−1} when it acted, if that was kept.
    """

    observation: UInt8[Tensor, "env time_plus_1 frames side side"]
    action: Integer[Tensor, "env time"]
    reward: Float[Tensor, "env time"]
    terminated: Bool[Tensor, "env time"]
    truncated: Bool[Tensor, "env time"]
    valid: Bool[Tensor, "env time"]
    activations: Activations | None = None


class Terms(NamedTuple):
    """The parts of the A2C objective: means of surrogate, critic's squared error, and entropy of the policy in nat."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


def advantages(
    batch: Batch, value: Float[Tensor, "env time_plus_1"], coefficients: Coefficients
) -> Float[Tensor, "env time"]:
    """A_t of `gm_estimators.returns.gae` across episode ends, differentiable in γ and λ.

        δ_t = r_t + γ_t V(s_{t+1}) − V(s_t),   A_t = δ_t + γ_t λ_t A_{t+1}

    γ_t is zero after termination; λ_t is zero after either kind of end, so that a truncated episode bootstraps.
    """
    going_on = (~batch.terminated).to(value)
    same_episode = (~(batch.terminated | batch.truncated)).to(value)
    discount = coefficients.discount.to(value) * going_on
    return gae(batch.reward.to(value), value, discount, coefficients.gae_lambda.to(value) * same_episode)


def terms(network: Network, params: Params, batch: Batch, coefficients: Coefficients, estimator: Estimator) -> Terms:
    """The three parts of the A2C objective (Mnih et al. 2016; paper, Eq. 14 and Section 5.3).

        policy = mean_t f(log π, ⊥A), for instance ⊥A_t log π_t (AD) or ⊥A_t π_t/⊥π_t (LVC)
        value = mean_t (V(s_t) − (⊥A_t + ⊥V(s_t)))²,   entropy = mean_t H(π(·|s_t))

    ⊥ stops the gradient to θ alone: A_t stays differentiable in γ and λ. Means are over valid steps.
    """
    known = None if batch.activations is None else batch.activations.at(params)
    log_probs, value = network(params, batch.observation[:, :-1], coefficients.discount, known)
    with torch.no_grad():
        _, last = network(params, batch.observation[:, -1], coefficients.discount)
    values = torch.cat([value.detach(), last.unsqueeze(-1)], dim=-1)
    advantage = advantages(batch, values, coefficients)
    weight = batch.valid.to(value)
    count = weight.sum().clamp(min=1)
    log_prob = log_probs.gather(-1, batch.action.long().unsqueeze(-1)).squeeze(-1)
    trajectories = Trajectories(
        log_prob=log_prob * weight, reward=batch.reward.to(value) * weight, value=values, advantage=advantage * weight,
        discount=values.new_ones(values.shape[-1]),
    )  # fmt: skip
    policy = mean_surrogate(estimator.surrogate, trajectories) * (len(weight) / count)
    error = (value - (advantage + values[:, :-1])).square()
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return Terms(policy, (error * weight).sum() / count, (entropy * weight).sum() / count)


def combined(parts: Terms, coefficients: Coefficients) -> Float[Tensor, ""]:
    """J = policy − c_v value + c_e entropy."""
    value_coef, entropy_coef = (c.to(parts.policy) for c in (coefficients.value_coef, coefficients.entropy_coef))
    return parts.policy - value_coef * parts.value + entropy_coef * parts.entropy


def policy_estimator(name: str) -> Estimator:
    """`gm_estimators.load`; raises `EstimatorError` at one that reads no advantages, as DiCE and TMAML, in A2C."""
    estimator = load(name, suffixes=False)
    if estimator.reads != "advantages" or not estimator.takes_values:
        raise EstimatorError(
            f"expected an estimator that uses advantages, such as ad, lvc or loaded_dice, got {name!r}, which doesn't"
        )
    return estimator
