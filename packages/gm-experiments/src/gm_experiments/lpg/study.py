"""LPG's meta-gradient is estimated in tiny MDPs, where every trajectory gives the exact one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from torch import Tensor

import gm_envs_tabular as envs
import gm_estimators as estimators
import gm_exact
import gm_lab
from gm_estimators.parameters import Params, as_dict, gradient
from gm_experiments.lpg import problem as lpg
from gm_experiments.lpg.problem import POLICY, PREDICTION, Agent, Experience, Inner, Weights
from gm_experiments.lpg.settings import CORRECTED

F64 = torch.float64
Stream = Callable[..., np.random.Generator]
"""Labels ↦ their random numbers, the same whatever else is drawn."""
LEARNT_ON = 10
"""The rule is learnt on the first MDPs, so many however many are measured."""


@dataclass(frozen=True)
class Tiny:
    """The tiny problems are small enough for every trajectory; a small rule is looked at in them."""

    states: int = 3
    actions: int = 2
    horizon: int = 3
    discount: float = 0.9
    hidden: int = 8
    predictions: int = 4
    prediction_weight: float = 0.5
    inner_lr: float = 2.0
    warm_up: int = 20
    """Steps of exact meta-training through two updates before the meta-gradient is looked at."""


class TinyProblem:
    """Agents are somewhere in their lives in tiny MDPs; meta-gradients of a rule there are exact or sampled.

    Each MDP and its agent have random numbers of their own; without weights the rule is new.
    """

    def __init__(self, tiny: Tiny, mdps: Sequence[int], stream: Stream, weights: Weights | None = None) -> None:
        self.tiny, self.numbers = tiny, mdps
        streams = [stream("mdp", mdp) for mdp in mdps]
        drawn = [envs.random_mdp(rng, states=tiny.states, actions=tiny.actions, concentration=1.0) for rng in streams]
        transition, reward = (torch.stack(tables) for tables in zip(*drawn, strict=True))
        # rewards that differ in sign, so that there is something to choose
        self.mdp = gm_exact.TabularMDP(transition, 2 * reward - 1, 0, tiny.discount)
        self._spread_mdp = gm_exact.TabularMDP.unchecked(
            transition.unsqueeze(1), self.mdp.reward.unsqueeze(1), 0, tiny.discount
        )
        self._next_states = envs.successors(self._spread_mdp.transition)
        every = [
            gm_exact.trajectories(gm_exact.TabularMDP(p, r, 0, tiny.discount), tiny.horizon)
            for p, r in zip(transition, self.mdp.reward, strict=True)
        ]
        state, action, reward_t, chance = (
            torch.stack([getattr(one, name) for one in every])
            for name in ("states", "actions", "rewards", "environment_probability")
        )
        self._every, self._chance = Experience(state, action, reward_t, torch.zeros_like(reward_t)), chance
        sizes = {POLICY: tiny.actions, PREDICTION: tiny.predictions}
        self.agent = {
            name: torch.from_numpy(np.stack([rng.normal(0, 0.5, (tiny.states, size)) for rng in streams]))
            for name, size in sizes.items()
        }
        generator = torch.Generator().manual_seed(int(stream("rule").integers(2**62)))
        self.weights = weights or lpg.new_rule(tiny.hidden, tiny.predictions, generator, F64)

    def inner(self, name: str) -> Inner:
        """Returns the rule's update under the name of an estimator."""
        estimator = estimators.load("ad" if name == CORRECTED else name, suffixes=False)
        return Inner(self.tiny.discount, self.tiny.prediction_weight, estimator, correction=name == CORRECTED)

    def expected(self, name: str, weights: Weights, agent: Agent) -> Tensor:
        """Returns the objective over all trajectories, each with its probability: E[u], with the E[∂u/∂θ] of a name.

        With the correction, ∂/∂θ of E[u] and E[∂u/∂θ] are the same, and this is the exact objective.
        """
        every, log_policy = self._every, agent[POLICY].detach().log_softmax(-1)
        place = every.state[..., :-1] * self.tiny.actions + every.action
        log_prob = log_policy.flatten(-2).gather(-1, place.flatten(-2)).reshape(place.shape)
        weight = self._chance * log_prob.sum(-1).exp()
        return self.inner(name).objective(weights, agent, every._replace(weight=weight))

    def outer(self, agent: Agent) -> Tensor:
        """Returns the exact J(θᴷ)."""
        return gm_exact.evaluate(self.mdp, agent[POLICY], self.tiny.horizon).value

    def expected_meta_gradient(self, name: str, weights: Weights, inner_steps: int) -> Weights:
        """Returns ∇φ J(θᴷ) of every MDP, from exact updates and the expected derivatives of an estimator.

        As samples of different steps are independent, it is the expectation of the estimate whose updates and outer
        gradient are exact; with the correction it is the truth. The weights φ have an axis for the MDPs in front.
        """

        def inner(phi: Params, theta: Params, _step: int) -> Tensor:
            return self.expected(name, as_dict(phi), as_dict(theta))

        def outer(_phi: Params, theta: Params) -> Tensor:
            return self.outer(as_dict(theta))

        meta_gradient = estimators.meta_gradient(
            weights,
            self.agent,
            inner=inner,
            outer=outer,
            inner_steps=inner_steps,
            inner_lr=self.tiny.inner_lr,
            allow_unused=True,
        )
        return as_dict(meta_gradient)

    def learn(self) -> None:
        """Follows the exact meta-gradient with Adam, so that the targets come to mean something."""
        optimiser = torch.optim.Adam(list(self.weights.values()), lr=1e-2)
        for _ in range(self.tiny.warm_up):
            each = self.expected_meta_gradient(CORRECTED, self.spread(), 2)
            for name, weight in self.weights.items():
                weight.grad = -each[name].mean(0)
            optimiser.step()

    def spread(self, *batch: int) -> Weights:
        """Returns φ with the axes of the MDPs and of others in front, so that each has a gradient of its own."""
        axes = (len(self._chance), *batch)
        return {name: weight.detach().expand(*axes, *weight.shape).clone() for name, weight in self.weights.items()}

    def updates(self, inner_steps: int) -> list[Agent]:
        """Returns E[u] at θ⁰ … θ^{K−1} of exact updates; an axis of length one stands for the repeats."""
        agent, weights, updates = self.agent, self.spread(), list[Agent]()
        for _ in range(inner_steps):
            theta = {name: tensor.detach().requires_grad_() for name, tensor in agent.items()}
            update = gradient(self.expected(CORRECTED, weights, theta), theta)
            updates.append({name: tensor.unsqueeze(1) for name, tensor in update.items()})
            agent = {name: tensor + self.tiny.inner_lr * update[name] for name, tensor in agent.items()}
        return updates

    def estimates(self, name: str, permutation: str, inner_steps: int, uniform: Callable[[str, int], Tensor]) -> Tensor:
        """Draws independent estimates of the meta-gradient, shape `[MDP, repeat, weight]`.

        Args:
            name: of an estimator, or `CORRECTED`.
            permutation: ESE, sampled derivatives of the updates alone, or SSS, where they share their trajectories with
                the updates and the outer gradient is sampled, too.
            inner_steps: K.
            uniform: random numbers `[MDP, repeat, trajectory, time]` of a role and step.
        """
        repeats = uniform("hessian", 0).shape[1]
        estimated = self.inner(name)

        def sampled(phi: Params, theta: Params, step: int) -> Tensor:
            agent = as_dict(theta)
            return estimated.objective(as_dict(phi), agent, self._draw(agent, uniform("hessian", step)))

        def outer(_phi: Params, params: Params) -> Tensor:
            theta = as_dict(params)
            if permutation[2] == "E":
                return gm_exact.evaluate(self._spread_mdp, theta[POLICY], self.tiny.horizon).value
            sample = self._draw(theta, uniform("outer", 0))
            to_go = estimators.returns.returns_to_go(sample.reward, self.tiny.discount)
            discount = self.tiny.discount ** torch.arange(self.tiny.horizon)
            return (lpg.chosen_of(theta[POLICY].log_softmax(-1), sample) * discount * to_go).sum(-1).mean(-1)

        exact = self.updates(inner_steps) if permutation[0] == "E" else []

        def given(_phi: Params, params: Params, step: int) -> Tensor:
            theta = as_dict(params)
            return lpg.directed(theta, {key: u.expand_as(theta[key]) for key, u in exact[step].items()})

        start = {key: t.unsqueeze(1).expand(-1, repeats, -1, -1).clone() for key, t in self.agent.items()}
        meta_gradient = estimators.meta_gradient(
            self.spread(repeats), start, inner=given if exact else sampled, hessian=sampled if exact else None,
            outer=outer, inner_steps=inner_steps, inner_lr=self.tiny.inner_lr, allow_unused=True,
        )  # fmt: skip
        return flat(as_dict(meta_gradient))

    def _draw(self, agent: Agent, uniform: Tensor) -> Experience:
        state, action = envs.rollout(agent[POLICY].detach().softmax(-1), self._next_states, uniform)
        place = state[..., :-1] * self.tiny.actions + action
        reward = self._spread_mdp.reward.flatten(-2).expand(*place.shape[:2], -1).gather(-1, place.flatten(-2))
        return Experience(state, action, reward.reshape(place.shape), torch.zeros(place.shape, dtype=F64))


def learnt_problem(tiny: Tiny, mdps: Sequence[int], stream: Stream) -> TinyProblem:
    """Returns the MDPs of those numbers, with a rule that was learnt on the first `LEARNT_ON`."""
    school = TinyProblem(tiny, range(LEARNT_ON), stream)
    school.learn()
    return TinyProblem(tiny, mdps, stream, school.weights)


def measurements(
    problem: TinyProblem, names: Sequence[str], sizes: Sequence[int], inner_steps: int, *, repeats: int, stream: Stream
) -> Iterator[gm_lab.Row]:
    """Measures how estimates differ from the exact meta-gradient at one K, squares in units of its own ‖g‖²."""
    tiny, mdps = problem.tiny, problem.numbers
    truth = flat(problem.expected_meta_gradient(CORRECTED, problem.spread(), inner_steps))
    square = truth.square().sum(-1)
    first = common_uniforms(stream, mdps, repeats, max(sizes), tiny)
    for name in names:
        expected = flat(problem.expected_meta_gradient(name, problem.spread(), inner_steps))
        exact = {
            "expected_accuracy": estimators.metrics.accuracy(expected, truth),
            "expected_bias_sq": (expected - truth).square().sum(-1) / square,
        }
        for size, permutation in product(sizes, ("ESE", "SSS")):
            estimates = problem.estimates(name, permutation, inner_steps, first(size))
            values = {
                "accuracy": estimators.metrics.accuracy(estimates, truth.unsqueeze(1)).mean(-1),
                "variance": estimators.metrics.variance(estimates) / square,
                "bias_sq": estimators.metrics.bias_sq(estimates, truth) / square,
                **{key: value if permutation == "ESE" else value * torch.nan for key, value in exact.items()},
            }
            label = dict[str, str | int | float](
                estimator=name, permutation=permutation, sample_size=size, inner_steps=inner_steps
            )
            for place, mdp in enumerate(mdps):
                yield {**label, "mdp": mdp, **{key: float(value[place]) for key, value in values.items()}}


def common_uniforms(
    stream: Stream, mdps: Sequence[int], repeats: int, size: int, tiny: Tiny
) -> Callable[[int], Callable[[str, int], Tensor]]:
    """Returns n ↦ the random numbers `[MDP, repeat, trajectory, time]` of the first n trajectories of a role and step.

    All who ask get the same, and each MDP has its own.
    """
    generators = [partial(stream, "study", mdp) for mdp in mdps]
    noise = envs.CommonNoise(generators, (repeats,), size, tiny.horizon, tiny.states)
    return lambda first: lambda role, step: noise.uniform(role, step)[..., :first, :]


def flat(weights: Weights) -> Tensor:
    """Joins all entries along one axis, after the batch axes; a bias has one axis less than a matrix."""
    parts = (t.flatten(-2) if not name.endswith("_bias") else t for name, t in sorted(weights.items()))
    return torch.cat(list(parts), dim=-1)
