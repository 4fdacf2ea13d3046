"""Agents that learn in the chain, all seeds at once, with a discount that is fixed or learnt by meta-gradients."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

import gm_estimators as estimators
from gm_estimators.optimisers import AdamState, adam, adam_state, constant
from gm_estimators.parameters import Params
from gm_experiments.common.checks import require_policy
from gm_experiments.mgrl_chain.problem import DTYPE, STEPWISE, Batch, Chains
from gm_experiments.mgrl_chain.settings import FIXED, META, OUTER, Chain, Curve

Streams = Sequence[np.random.Generator]


class Learner:
    """One curve's agents: their policies θ, γ = least + (1 − least) σ(φ), and a critic for each objective."""

    def __init__(self, settings: Chain, curve: Curve, first: Streams, inner: Streams, outer: Streams) -> None:
        self.settings, self.curve, self.chains = settings, curve, Chains()
        self._inner_streams, self._outer_streams = inner, outer
        self._estimator = estimators.load(curve.estimator, suffixes=False)
        self._gradient = estimators.load("ad")  # of an outer objective the gradient counts, in which all agree
        self.weights = self.chains.new_policies(first)
        seeds = len(first)
        least, start = settings.least_discount, settings.discount
        self.phi: Tensor = torch.full((seeds,), (start - least) / (1 - least), dtype=DTYPE).logit()
        self.values = {critic: self.chains.new_values(seeds) for critic in ("inner", "outer")}
        self._outer_discount = torch.full((seeds,), settings.outer_discount, dtype=DTYPE)
        self._adam, self._moments = adam(constant(settings.meta_lr)), adam_state({"phi": self.phi})

    def discount(self, phi: Tensor) -> Tensor:
        """Returns γ of each seed."""
        if self.curve.discount is not None:
            return torch.full_like(phi, self.curve.discount)
        least = self.settings.least_discount
        return least + (1 - least) * phi.sigmoid()

    def windows(self) -> Iterator[int]:
        """Goes through windows of K updates, and yields how many updates there were after each."""
        s = self.settings
        for done in range(s.inner_steps, s.updates + 1, s.inner_steps):
            self._fixed() if self.curve.method == FIXED else self._learn()
            yield done

    def _fixed(self) -> None:
        """One window without a meta-gradient."""
        steps, lr = self.settings.inner_steps, self.settings.inner_lr
        with torch.no_grad():
            ended = estimators.inner_loop(self.inner_objective, self.phi, self.weights, inner_steps=steps, inner_lr=lr)
        self.weights = _tensor(ended)

    def _learn(self) -> None:
        """One window, after which Adam moves φ; agents go on from where the window ends."""
        gradient, self.weights = self.meta_gradient()
        moved, state = self._adam({"phi": self.phi}, {"phi": gradient}, self._moments)
        assert isinstance(state, AdamState)
        self.phi, self._moments = moved["phi"].detach(), state.detached()

    def meta_gradient(self) -> tuple[Tensor, Tensor]:
        """Looks through one window: the gradient in φ of what γ is learnt from, and θ where the window ends."""
        s, ended = self.settings, list[Tensor]()

        def outer(phi: Params, params: Params) -> Tensor:
            weights = _tensor(params)
            ended.append(weights.detach())
            if self.curve.method == META:
                return self.outer_objective(weights)
            return -self.distance(_tensor(phi).detach(), weights)

        gradient = estimators.meta_gradient(
            self.phi,
            self.weights,
            inner=self.inner_objective,
            outer=outer,
            inner_steps=s.inner_steps,
            inner_lr=s.inner_lr,
        )
        (weights,) = ended
        return _tensor(gradient), weights

    def inner_objective(self, phi: Params, params: Params, _step: int) -> Tensor:
        """The inner objective on a fresh batch, from which the critics learn afterwards."""
        gamma, log_policy = self.discount(_tensor(phi)), self.chains.log_policy(_tensor(params))
        batch = self._draw(log_policy, self._inner_streams)
        values = self._critic("inner", gamma, log_policy)
        found = self._objective(self._estimator, log_policy, batch, gamma, values)
        if self.settings.values == "learnt":
            for critic, discount in (("inner", gamma.detach()), ("outer", self._outer_discount)):
                learnt = self.chains.learnt_values(self.values[critic], discount, batch, self.settings.critic_lr)
                self.values[critic] = learnt
        return found

    def outer_objective(self, weights: Tensor) -> Tensor:
        """The outer objective on a fresh batch, with the critic of the curve."""
        log_policy = self.chains.log_policy(weights)
        batch = self._draw(log_policy, self._outer_streams)
        critic = "outer" if self.curve.critic == OUTER else "inner"
        discount = self._outer_discount if critic == "outer" else self.discount(self.phi)
        values = self._critic(critic, discount, log_policy)
        return self._objective(self._gradient, log_policy, batch, self._outer_discount, values)

    def distance(self, phi: Tensor, weights: Tensor) -> Tensor:
        """How far the policy's choice is from that of a target (Flennerhag et al. 2022, "Bootstrapped Meta-Learning").

            KL(π_target(· | s₀) ‖ π_θ(· | s₀)),   target = ⊥θ after L − 1 inner updates and one of the outer objective

        Only the first choice counts, as published, since nothing else matters in the chain.
        """
        s, start = self.settings, weights.detach()
        kept = dict(self.values)

        def objective(_phi: Params, params: Params, step: int) -> Tensor:
            if step == s.target_steps - 1:
                return self.outer_objective(_tensor(params))
            return self.inner_objective(phi, params, step)

        with torch.no_grad():
            target = estimators.inner_loop(objective, phi, start, inner_steps=s.target_steps, inner_lr=s.inner_lr)
        self.values = kept  # the target is thrown away, and what its critics learnt
        wanted = self.chains.log_policy(_tensor(target))[:, 0].detach()
        return (wanted.exp() * (wanted - self.chains.log_policy(weights)[:, 0])).sum(-1)

    def _draw(self, log_policy: Tensor, streams: Streams) -> Batch:
        require_policy(log_policy.exp(), f"curve {self.curve.name}", "--inner-lr", "--entropy")
        whole = streams is self._inner_streams and self._estimator.name not in STEPWISE
        return self.chains.draw(log_policy, self.settings.trajectories, streams, whole)

    def _critic(self, critic: str, discount: Tensor, log_policy: Tensor) -> Tensor:
        if self.settings.values == "exact":
            return self.chains.exact_values(discount.detach(), log_policy)
        return self.values[critic]

    def _objective(
        self, estimator: estimators.Estimator, log_policy: Tensor, batch: Batch, discount: Tensor, values: Tensor
    ) -> Tensor:
        advantage = self.chains.advantages(values, discount, self.settings.gae_lambda)
        return self.chains.objective(estimator, log_policy, batch, advantage, self.settings.entropy)


def _tensor(params: Params) -> Tensor:
    assert isinstance(params, Tensor)
    return params
