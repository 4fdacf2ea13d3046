"""MGRL as one would write it first: A2C's own coefficients are learnt while it learns (Xu et al. 2018).

    θ^{i+1} = θ^i + α ∇θ J(σ(φ), θ^i; b_i),  i = 0 … K−1,      the meta-gradient is ∇φ J_Out(θᴷ; b_K)  (paper, Eq. 15)

σ(φ) = (γ, λ, c_v, c_e) are the discount, GAE's λ, and the weights of the value loss and the entropy; b_i is a batch of
T steps of several environments. The outer objective J_Out is the same with fixed coefficients.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Params = dict[str, Tensor]
Network = Callable[[Params, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(θ, observations, γ) ↦ log π(·|s_t) and V(s_t) of every environment and step t = 0 … T."""


def meta_gradient(
    network: Network,
    params: Params,
    logits: Tensor,
    batches: Sequence[Any],
    *,
    estimator: str,
    inner_lr: float,
    outer: Sequence[float] = (0.99, 0.95, 0.0, 0.0),
) -> Tensor:
    """The meta-gradient at φ = `logits` of K steps from θ⁰ = `params`; K batches move θ, the last one judges."""
    phi = logits.detach().requires_grad_()
    theta = {name: value.detach().requires_grad_() for name, value in params.items()}
    for batch in batches[:-1]:
        inner = objective(network, theta, batch, phi.sigmoid(), estimator)
        gradients = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
        theta = {name: theta[name] + inner_lr * g for name, g in zip(theta, gradients, strict=True)}
    judged = objective(network, theta, batches[-1], torch.tensor(outer, dtype=phi.dtype), estimator)
    return torch.autograd.grad(judged, phi)[0]


def objective(network: Network, theta: Params, batch: Any, coefficients: Tensor, estimator: str) -> Tensor:
    """A2C ascends the mean over valid steps of policy term − c_v · value loss + c_e · entropy.

    A_t = δ_t + γ λ A_{t+1},   δ_t = r_t + γ V(s_{t+1}) − V(s_t); critic values in it are constants, γ and λ are not.
    """
    gamma, gae_lambda, value_coef, entropy_coef = coefficients.unbind()
    log_probs, value = network(theta, batch.observation, gamma)
    critic = value.detach()
    total = torch.zeros((), dtype=value.dtype)
    for env in range(len(batch.action)):
        advantage = torch.zeros((), dtype=value.dtype)
        for t in reversed(range(batch.action.shape[1])):
            dies, ends = bool(batch.terminated[env, t]), bool(batch.terminated[env, t] | batch.truncated[env, t])
            delta = batch.reward[env, t] + (0 if dies else gamma * critic[env, t + 1]) - critic[env, t]
            advantage = delta + (0 if ends else gamma * gae_lambda * advantage)
            if not batch.valid[env, t]:
                continue
            log_prob = log_probs[env, t, batch.action[env, t]]
            policy = advantage * (log_prob if estimator == "ad" else torch.exp(log_prob - log_prob.detach()))  # or LVC
            entropy = -(log_probs[env, t].exp() * log_probs[env, t]).sum()
            error = (value[env, t] - (advantage + critic[env, t])) ** 2
            total = total + policy - value_coef * error + entropy_coef * entropy
    return total / int(batch.valid.sum())
