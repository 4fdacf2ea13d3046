"""LOLA with any estimator of the look-ahead: two learners, all seeds at once (paper, Sections 5.2 and G.2)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

import gm_envs_ipd as envs
import gm_estimators as estimators
import gm_exact
from gm_estimators.blocks import DiceBlocks
from gm_estimators.games import GameSignal, StepSums, joint_log_policy
from gm_exact.lola import learners_view
from lola_problem import F64, Curve, Game, LookAhead, Sample, blocks_of, estimator_of

MEASURED_AT_ONCE = 100
"""Updates whose exact meta-gradients are found together, at a seventh of what they cost one by one."""


class Adam:
    """Steps of α m̂ / (√v̂ + ε) (Kingma and Ba 2015), in few operations since ten numbers are all there is to move."""

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self._lr, self._betas, self._eps = lr, betas, eps
        self._mean: Tensor | float = 0.0
        self._square: Tensor | float = 0.0
        self._count = 0

    def step(self, gradient: Tensor) -> Tensor:
        """What to add to the parameters to ascend."""
        first, second = self._betas
        self._count += 1
        self._mean = first * self._mean + (1 - first) * gradient
        self._square = second * self._square + (1 - second) * gradient.square()
        mean, square = self._mean / (1 - first**self._count), self._square / (1 - second**self._count)
        return self._lr * mean / (square.sqrt() + self._eps)


def cooperation(share: Tensor, cooperative: int) -> Tensor:
    """How often the players cooperate, from the shares `[*batch, 4]` of the joint outcomes 2 a¹ + a²."""
    how_many = [((outcome >> 1 == cooperative) + (outcome & 1 == cooperative)) / 2 for outcome in range(4)]
    return share @ share.new_tensor(how_many)


class Training:
    """Two players who learn by meta-gradients, all seeds at once.

    Args:
        game: what is played and how it is learnt.
        curve: how gradients are estimated.
        seeds: how many runs.
        rng: source of randomness.
        dtype: of what is computed for every trajectory.
    """

    def __init__(
        self, game: Game, curve: Curve, seeds: int, rng: np.random.Generator, dtype: torch.dtype = torch.float32
    ) -> None:
        self.game, self.curve, self._rng, self._dtype = game, curve, rng, dtype
        payoffs = game.matrix_game().tensor()
        self.reward = payoffs.flatten(-2)
        self._payoffs = payoffs
        self.views, _ = learners_view(payoffs, torch.zeros(2, 5, dtype=F64))
        self.estimator = estimator_of(game, curve)
        self.blocks = blocks_of(self.estimator)
        self.params = torch.zeros(seeds, 2, 5, dtype=F64)
        self.values = torch.zeros(seeds, 2, 5, dtype=F64)
        self.mask = torch.tensor([[1.0], [0.0]], dtype=F64) if game.learners == "first" else None
        self._policy_optimiser, self._critic_optimiser = Adam(game.outer_lr), Adam(game.critic_lr)
        self._ring = None
        if curve.replay_inner or curve.replay_hessian:
            self._ring = envs.ReplayRing(game.replay_capacity, (seeds,), game.horizon)
            start = envs.draws(rng, (seeds,), game.replay_capacity, game.horizon)
            outcome = envs.rollout(self.params, start)
            for some in torch.split(outcome, self._initial_additions(), -2):
                self._ring.add(some, self.params)
        self._scored: Tensor | None = None

    def _initial_additions(self) -> list[int]:
        """The initial trajectories in parts, the remainder first: with a maximum age as large as all additions to come.

        Both learners then leave out equally many, however old these are.
        """
        game, curve = self.game, self.curve
        fresh = curve.inner if curve.replay_inner else curve.hessian
        if game.max_age is None or fresh is None:
            return [game.replay_capacity]
        whole, rest = divmod(game.replay_capacity, fresh)
        return [rest] * (rest > 0) + [fresh] * whole

    def play(self, policies: Tensor, sizes: list[int]) -> list[Tensor]:
        """Joint outcomes of each size, `[seed, learner, trajectory, time]`, in one time loop."""
        numbers = envs.draws(self._rng, tuple(policies.shape[:2]), sum(sizes), self.game.horizon)
        return list(torch.split(envs.rollout(envs.joint_view(policies), numbers), sizes, -2))

    def play_now(self, sizes: list[int]) -> list[Tensor]:
        """The same before any look-ahead, when both learners see the same policies; and the evaluation's, kept."""
        both = [2 * size for size in sizes]
        numbers = envs.draws(self._rng, (len(self.params),), sum(both) + self.game.evaluation_size, self.game.horizon)
        outcome = envs.rollout(envs.joint_view(self.params), numbers)
        *found, self._scored = torch.split(outcome, [*both, self.game.evaluation_size], -2)
        seeds, _, horizon = outcome.shape
        return [part.reshape(seeds, 2, -1, horizon) for part in found]

    def replay(self, outcome: Tensor, policies: Tensor) -> Sample:
        """Each learner adds its trajectories to the ring and reads all of it."""
        assert self._ring is not None  # made for every curve that replays
        outcomes, tables, groups = [], [], []
        for learner in (0, 1):
            self._ring.add(outcome[:, learner], envs.joint_view(policies[:, learner]))
            replayed = self._ring.replay(self.game.max_age)
            born, group = torch.unique(replayed.age, return_inverse=True)
            one_of_each = torch.zeros_like(born).scatter_(0, group, torch.arange(len(group)))
            outcomes.append(replayed.outcome.movedim(-1, 0).clone())
            tables.append(replayed._replace(behaviour=replayed.behaviour[:, one_of_each]).joint_table())
            groups.append(group)
        most = max(table.shape[1] for table in tables)
        padded = [torch.nn.functional.pad(table, (0, 0, 0, 0, 0, most - table.shape[1])) for table in tables]
        outcome = torch.stack(outcomes, 2).movedim(0, -1)
        return Sample(outcome, torch.stack(padded, 1), torch.stack(groups), self.blocks)

    def signal(self, outer: bool, *, baseline: bool) -> GameSignal:
        """Rewards and critic of the learners, or of their opponents."""
        values = self.values if baseline and self.game.critic != "none" else torch.zeros_like(self.values)
        reward = self.reward.expand(len(values), 2, 4)
        if not outer:
            reward, values = reward.flip(1), values.flip(1)
        return GameSignal(reward, values, self.game.discount)

    def sums(
        self, estimator: estimators.Estimator, sample: Sample, policies: Tensor, signal: GameSignal
    ) -> DiceBlocks | StepSums:
        """What the estimator makes of a sample: several rounds at a time for DiCE, round by round for any other."""
        table = joint_log_policy(policies)
        controlled = self.game.self_normalise or self.game.clip is not None
        if estimator.surrogate is estimators.dice and (sample.behaviour is None or not controlled):
            ratio = None if sample.behaviour is None else table.unsqueeze(-3) - sample.behaviour
            rounds = 2 if sample.outcome.shape[-2] < 512 or ratio is not None else 3
            return DiceBlocks(sample.outcome, signal, ratio, sample.group, rounds=rounds, dtype=self._dtype)
        behaviour = None
        if sample.behaviour is not None and sample.group is not None:
            group = sample.group.expand(*sample.outcome.shape[:-1])
            chosen = sample.behaviour.flatten(-2).take_along_dim(group.unsqueeze(-1), -2)
            behaviour = chosen.reshape(*group.shape, 5, 4)
        clip = float("inf") if self.game.clip is None else self.game.clip
        return StepSums(
            estimator, sample.outcome, table, signal, behaviour, clip=clip, self_normalise=self.game.self_normalise
        )

    def updates(self) -> Iterator[dict[str, Tensor]]:
        """Learns; after each update its measurements, each of shape `[seed]` or `[seed, …]`."""
        played: list[dict[str, Tensor]] = []
        for found in self._learn():
            played.append(found)
            if len(played) == MEASURED_AT_ONCE:
                yield from self._measure(played)
                played.clear()
        if played:
            yield from self._measure(played)

    def _learn(self) -> Iterator[dict[str, Tensor]]:
        """Learns; for each update where it was made, what was estimated there, and how the players fare after it."""
        found: dict[str, Tensor] = {}
        for update in range(self.game.updates + 1):
            problem = LookAhead(self)
            last = update == self.game.updates
            needed = self.curve.inner is not None or self.curve.hessian is not None
            if last or not needed:  # nobody else plays at θ
                self.play_now([])
            estimated = {} if last else self._estimate(problem)
            if update:
                assert self._scored is not None  # played just now
                yield found | {"played": self._counts(self._scored), "after": self.params}
            if last:
                return
            found = {"at": self.params, **estimated}
            self._learn_values(problem)
            self.params = self.params + self._policy_optimiser.step(found["estimate"])

    def _estimate(self, problem: LookAhead) -> dict[str, Tensor]:
        """The meta-gradient that the players follow, and the one with an exact outer gradient."""
        game, permutation = self.game, self.curve.permutation()
        outer_exact = permutation[:2] + "E"
        wanted = sorted({permutation, outer_exact} - {"EEE"})
        if not wanted:
            truth = self.truth(self.params)
            return {"estimate": truth, "outer_exact": truth}
        found = estimators.decompose(
            problem,
            [self.estimator],
            permutations=wanted,
            sample_sizes=(self.blocks,),
            inner_steps=game.inner_steps,
            inner_lr=game.inner_lr,
        )
        estimate = found[self.estimator.name, permutation, self.blocks]
        if not bool(estimate.isfinite().all()):
            raise ValueError("expected a finite meta-gradient, got infinity or NaN")
        known = {"estimate": estimate}
        if outer_exact != "EEE":
            known["outer_exact"] = found[self.estimator.name, outer_exact, self.blocks]
        weights = [s.sums.weight for s in problem.replayed if s.sums is not None and s.sums.weight is not None]
        if weights:
            known["effective_size"] = estimators.effective_sample_size(weights[0].to(F64)).mean(-1)
        return known

    def truth(self, params: Tensor) -> Tensor:
        """Exact meta-gradients of both learners at policies `[*batch, seed, player, state]` over player 1's states."""
        inner_lr: float | Tensor = self.game.inner_lr
        if self.mask is not None:  # who doesn't look ahead, looks zero far
            inner_lr = inner_lr * self.mask
        found = gm_exact.lola_meta_gradient(
            self._payoffs,
            envs.joint_view(params),
            discount=self.game.discount,
            inner_lr=inner_lr,
            inner_steps=self.game.inner_steps,
        )
        return envs.joint_view(found.gradient)

    def _counts(self, outcome: Tensor) -> Tensor:
        """How often each joint outcome occurs in `[seed, trajectory, time]`, shape `[seed, 4]`."""
        rounds = outcome.movedim(-1, 0).reshape(outcome.shape[-1], len(outcome), -1).numpy(force=True)
        return torch.from_numpy(np.stack([np.add.reduce(rounds == o, (0, 2), dtype=np.int32) for o in range(4)], -1))

    def _measure(self, played: list[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        """The measurements of several updates at once."""
        seen = {name: torch.stack([found[name] for found in played]) for name in played[0]}
        estimate, truth = seen["estimate"], self.truth(seen["at"])
        outer_exact = seen.get("outer_exact", truth)
        share = seen["played"].to(F64) / seen["played"].sum(-1, keepdim=True)
        score = share @ self.reward.T
        nothing = torch.full(score.shape[:-1], torch.nan, dtype=F64)
        measured = {
            "accuracy": estimators.accuracy(estimate, truth).mean(-1),
            "correlation": estimators.correlation(estimate, truth).mean(-1),
            "accuracy_outer_exact": estimators.accuracy(outer_exact, truth).mean(-1),
            "correlation_outer_exact": estimators.correlation(outer_exact, truth).mean(-1),
            "error_sq": (estimate - truth).square().sum(-1).mean(-1),
            "truth_sq": truth.square().sum(-1).mean(-1),
            "effective_size": seen.get("effective_size", nothing),
            "bias": estimators.relative_bias(estimate, truth).mean(-1),
            "bias_outer_exact": estimators.relative_bias(outer_exact, truth).mean(-1),
            "score": score.mean(-1),
            "scores": score,
            "cooperation": cooperation(share, self.game.matrix_game().cooperative),
            "action_0": envs.joint_view(seen["after"]).sigmoid(),
        }
        for index in range(len(played)):
            yield {name: value[index] for name, value in measured.items()}

    def _learn_values(self, problem: LookAhead) -> None:
        """One step of each critic towards the mean reward or return of every state in the outer trajectories."""
        sample = problem.outer_sample
        if self.game.critic == "none" or sample is None or sample.sums is None:
            return
        visits = sample.sums.visits()
        target = (visits * self.reward.unsqueeze(-2)).sum(-1)
        if self.game.critic == "return":
            target = self._returns(sample.outcome)
        error = target - visits.sum(-1) * self.values
        self.values = self.values + self._critic_optimiser.step(2 / self.game.horizon * error)

    def _returns(self, outcome: Tensor) -> Tensor:
        """The returns that follow each state, summed over a trajectory, on average: shape `[seed, learner, state]`."""
        reward = torch.stack([self.reward[i][outcome[:, i].long()] for i in (0, 1)], 1)
        state = torch.nn.functional.pad(outcome[..., :-1].long() + 1, (1, 0))
        to_go = estimators.returns_to_go(reward, self.game.discount)
        total = reward.new_zeros(*outcome.shape[:2], 5)
        return total.scatter_add_(-1, state.flatten(-2), to_go.flatten(-2)) / outcome.shape[-2]
