"""LOLA learners at any point of training, with what is as in practice chosen source by source."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

import gm_envs_ipd as envs
import gm_exact
import gm_lab
from gm_estimators import Sizes, decompose
from gm_estimators.attribution import SHARED_BATCH, permutations_of
from gm_estimators.decomposition import Role
from gm_experiments.attribution.lola.settings import Cell
from gm_experiments.lola.arena import JointTrajectories, Start
from gm_experiments.lola.learner import Estimates, Learner
from gm_experiments.lola.objectives import joint_log_policy
from gm_experiments.lola.problem import LookAhead, exact_meta_gradients, pairs, signals
from gm_experiments.lola.settings import Arm, Game


class ExactPath(Learner):
    """A learner that follows exact meta-gradients: outer trajectories teach its critics only."""

    def estimate(self, start: Start) -> Estimates:
        """Returns what it follows in the place of the estimate."""
        return super().estimate(start)._replace(gradient=exact_meta_gradients(self.game, self.policies))


class CommonNumbers:
    """Plays every role and step with random numbers of its own, the same for every set of sources."""

    def __init__(self, cell: Cell, size: int) -> None:
        self._cell, self._size = cell, size

    def play(self, step: int, roles: Sequence[Role], policies: Tensor) -> dict[Role, JointTrajectories]:
        """Plays for some roles."""
        return {role: self._played(role, step, policies) for role in roles}

    def _played(self, role: Role, step: int, policies: Tensor) -> JointTrajectories:
        rng, game = generator(self._cell, self._cell.game.updates, role, step), self._cell.game
        numbers = envs.draws(rng, tuple(policies.shape[:2]), self._size, game.horizon)
        return JointTrajectories(envs.rollout(envs.joint_view(policies), numbers))


def generator(cell: Cell, *labels: str | int) -> np.random.Generator:
    """Returns the random numbers of a cell's runs for some purpose."""
    return np.random.Generator(np.random.SFC64(gm_lab.seed_of(cell.seed, "lola_attribution", *cell.runs, *labels)))


def trained(cell: Cell, name: str, size: int) -> tuple[Learner, list[Tensor]]:
    """Returns the runs after all their updates, and the gradients that they followed."""
    kind, own = (ExactPath, None) if cell.path == "exact" else (Learner, size)
    arm = Arm("", inner=own, hessian=own, outer=size, shared=SHARED_BATCH in cell.sources)
    learner = kind(replace(cell.game, estimator=name), arm, len(cell.runs), generator(cell, "run"))
    return learner, [update.estimates.gradient for update in learner.updates()]


def look_ahead(cell: Cell, learner: Learner, critics: Tensor, size: int, *, shared: bool) -> LookAhead:
    """Returns the two-level problem of a trained learner, `repeats` times over."""
    game = replace(learner.game, critic="reward")  # whichever the critics are, there are values to be read
    policies, values = (table.repeat_interleave(cell.repeats, 0) for table in (learner.policies, critics))
    player = CommonNumbers(cell, size)
    start = player.play(0, ("inner",) if shared else ("inner", "hessian"), pairs(policies, policies.flip(1)))
    return LookAhead(game, policies, signals(game, Arm(""), learner.estimator, values), start, player)


def estimates(cell: Cell, learner: Learner, size: int) -> Callable[[frozenset[str]], dict[str, Tensor]]:
    """Returns what of critic and shared batch is as in practice ↦ the estimates `[run, learner, repeat, state]`."""
    exact = state_values(learner.game, learner.policies)

    def sampled(practice: frozenset[str]) -> dict[str, Tensor]:
        shared = SHARED_BATCH in practice
        by_permutation = decompose(
            look_ahead(cell, learner, learner.critics if "critic" in practice else exact, size, shared=shared),
            [learner.estimator], permutations=permutations_of(cell.sources), sizes=[Sizes.each(size, shared=shared)],
            inner_steps=learner.game.inner_steps, inner_lr=learner.game.inner_lr,
        )  # fmt: skip
        return {permutation: estimate.reshape(-1, cell.repeats, *estimate.shape[1:]).transpose(1, 2)
                for (_, permutation, _), estimate in by_permutation.items()}  # fmt: skip

    return sampled


def state_values(game: Game, policies: Tensor) -> Tensor:
    """Returns V of both players in each state of player 1's, `[*batch, player, state]`: a joint policy's in an MDP."""
    transition = torch.eye(5, dtype=policies.dtype)[1:].expand(5, 4, 5)
    joint = joint_log_policy(policies).unsqueeze(-3)
    reward = game.matrix_game().tensor().flatten(-2).unsqueeze(-2).expand(2, 5, 4)
    return gm_exact.state_values(gm_exact.TabularMDP(transition, reward, 0, game.discount), joint)
