"""LOLA with any estimator of the look-ahead: two learners, all seeds at once (paper, Sections 5.2 and G.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from gm_estimators import Sizes, decompose
from gm_estimators.decomposition import Objective, Path
from gm_estimators.off_policy import effective_sample_size
from gm_estimators.returns import returns_to_go
from gm_experiments.lola.arena import Arena, JointTrajectories, Rng, Start
from gm_experiments.lola.problem import LookAhead, SampledObjective, Silenced, exact_meta_gradients, signals
from gm_experiments.lola.settings import Arm, Game, estimator_of

F64 = torch.float64


class TableAdam:
    """Steps of α m̂ / (√v̂ + ε) (Kingma and Ba 2015), in few operations since ten numbers are all there is to move."""

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self._lr, self._betas, self._eps = lr, betas, eps
        self._mean: Tensor | float = 0.0
        self._square: Tensor | float = 0.0
        self._count = 0

    def step(self, gradient: Tensor) -> Tensor:
        """Returns what to add to the parameters to ascend."""
        first, second = self._betas
        self._count += 1
        self._mean = first * self._mean + (1 - first) * gradient
        self._square = second * self._square + (1 - second) * gradient.square()
        mean, square = self._mean / (1 - first**self._count), self._square / (1 - second**self._count)
        return self._lr * mean / (square.sqrt() + self._eps)


class Estimates(NamedTuple):
    """What was estimated at the present policies.

    `outer_exact`, with an exact outer gradient, is `None` if I and II are exact, too; `sampled_step`, with an exact
    Hessian besides, if I is; `effective_size`, of the weights, if nothing is replayed; and `outer` if there are no
    outer trajectories.
    """

    gradient: Float[Tensor, "seed learner=2 5"]
    outer_exact: Float[Tensor, "seed learner=2 5"] | None = None
    sampled_step: Float[Tensor, "seed learner=2 5"] | None = None
    effective_size: Float[Tensor, "seed"] | None = None
    outer: SampledObjective | None = None


@dataclass(frozen=True, eq=False)
class Update:
    """One update of both players; it counts each joint outcome 2 a¹ + a² in the evaluation of the policies after."""

    before: Float[Tensor, "seed player=2 5"]
    estimates: Estimates
    after: Float[Tensor, "seed player=2 5"]
    counts: Int32[Tensor, "seed outcome=4"]


class Learner:
    """Two players who learn by meta-gradients, all seeds at once."""

    def __init__(self, game: Game, curve: Arm, seeds: int, rng: Rng, dtype: torch.dtype = torch.float32) -> None:
        self.game, self.curve, self._dtype = game, curve, dtype
        self.estimator = estimator_of(game, curve)
        self.policies: Float[Tensor, "seed player=2 5"] = torch.zeros(seeds, 2, 5, dtype=F64)
        self.critics: Float[Tensor, "seed player=2 5"] = torch.zeros(seeds, 2, 5, dtype=F64)
        self._policy_optimiser, self._critic_optimiser = TableAdam(game.outer_lr), TableAdam(game.critic_lr)
        self._reward = game.matrix_game().tensor().flatten(-2)
        self._arena = Arena(game, curve, self.policies, rng)

    def updates(self) -> Iterator[Update]:
        """Learns; yields every update after its evaluation, in one time loop with the start of the next look-ahead."""
        start = self.start()
        for left in reversed(range(self.game.updates)):
            before, estimates = self.policies, self._learn(start)
            start = self.start(looks_ahead=left > 0)
            yield Update(before, estimates, self.policies, _counts(start.evaluation))

    def _learn(self, start: Start) -> Estimates:
        """Moves critics and policies one step; returns the estimates without the trajectories, megabytes of them."""
        estimates = self.estimate(start)
        if estimates.outer is not None and self.game.critic != "none":
            self.critics = self.critics + self._critic_optimiser.step(self._critics_gradient(estimates.outer))
        self.policies = self.policies + self._policy_optimiser.step(estimates.gradient)
        return estimates._replace(outer=None)

    def start(self, *, looks_ahead: bool = True) -> Start:
        """Plays at the present policies: the start of a look-ahead, if there is to be one, and the evaluation."""
        return self._arena.start(self.policies, looks_ahead=looks_ahead)

    def look_ahead(self, start: Start) -> LookAhead:
        """Returns the two-level problem at the present policies."""
        of_roles = signals(self.game, self.curve, self.estimator, self.critics)
        return LookAhead(self.game, self.policies, of_roles, start.samples, self._arena, self._dtype)

    def sizes(self, start: Start) -> Sizes:
        """Returns how many trajectories each role reads; of a role that is exact the number is not asked for."""
        read = self.curve.drawn() | {role: sample.size for role, sample in start.samples.items()}
        size = next(iter(read.values()))
        inner = read.get("inner", size)
        hessian = inner if self.curve.shared else read.get("hessian", size)
        return Sizes(inner, hessian, read.get("outer", size), shared=self.curve.shared)

    def estimate(self, start: Start) -> Estimates:
        """Estimates the meta-gradient at the present policies; raises `ValueError` if it is not finite."""
        permutation = self.curve.permutation()
        outer_exact, sampled_step = permutation[:2] + "E", permutation[:1] + "EE"
        wanted = sorted({permutation, outer_exact, sampled_step} - {"EEE"})
        if not wanted:
            truth = exact_meta_gradients(self.game, self.policies)
            return Estimates(truth, truth)
        size = self.sizes(start)
        estimates = decompose(
            self.look_ahead(start), [self.estimator], permutations=wanted, sizes=[size],
            inner_steps=self.game.inner_steps, inner_lr=self.game.inner_lr, keep_paths=True,
        )  # fmt: skip
        name = self.estimator.name
        gradient = estimates[name, permutation, size]
        if not bool(gradient.isfinite().all()):
            raise ValueError("expected a finite meta-gradient, got infinity or NaN")
        path = estimates.paths[name, permutation[0], size]
        outer = path.outer if isinstance(path.outer, SampledObjective) else None
        parts = estimates.get((name, outer_exact, size)), estimates.get((name, sampled_step, size))
        return Estimates(gradient, parts[0], parts[1], _effective_size(path), outer)

    def _critics_gradient(self, outer: SampledObjective) -> Float[Tensor, "seed player=2 5"]:
        """The way of each critic towards the mean reward or return of every state in the outer trajectories."""
        visits = outer.sums.visits()
        target = (visits * self._reward.unsqueeze(-2)).sum(-1)
        if self.game.critic == "return":
            target = self._mean_returns(outer.sample)
        error = target - visits.sum(-1) * self.critics
        return 2 / self.game.horizon * error

    def _mean_returns(self, sample: JointTrajectories) -> Float[Tensor, "seed learner=2 5"]:
        """The returns that follow each state, summed over a trajectory, on average."""
        outcome = sample.outcome
        reward = torch.stack([self._reward[i][outcome[:, i].long()] for i in (0, 1)], 1)
        state = torch.nn.functional.pad(outcome[..., :-1].long() + 1, (1, 0))
        to_go = returns_to_go(reward, self.game.discount)
        total = reward.new_zeros(*outcome.shape[:2], 5)
        return total.scatter_add_(-1, state.flatten(-2), to_go.flatten(-2)) / sample.size


def _effective_size(path: Path[Any]) -> Float[Tensor, "seed"] | None:
    """The effective size of the first trajectories that were replayed."""
    first = [*path.inner[:1], *(steps[0] for steps in path.hessian.values())]
    weights = [weight for weight in map(_weight, first) if weight is not None]
    return effective_sample_size(weights[0].to(F64)).mean(-1) if weights else None


def _weight(objective: Objective) -> Tensor | None:
    """The cumulative ratios of what an objective was estimated from."""
    whole = objective.objective if isinstance(objective, Silenced) else objective
    return whole.sums.weight if isinstance(whole, SampledObjective) else None


def _counts(outcome: UInt8[Tensor, "seed trajectory time"]) -> Int32[Tensor, "seed outcome=4"]:
    # an update keeps it: made after what it is made of, it leaves a hole of megabytes in the heap
    counts = torch.empty(len(outcome), 4, dtype=torch.int32)
    rounds = outcome.movedim(-1, 0).reshape(outcome.shape[-1], len(outcome), -1).numpy(force=True)
    for o in range(4):
        np.add.reduce(rounds == o, (0, 2), dtype=np.int32, out=counts.numpy()[:, o])
    return counts
