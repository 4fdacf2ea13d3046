"""Where the players meet: rollouts at any policies, the random numbers for them, and the ring of what was played."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

import gm_envs_ipd as envs
from gm_estimators.decomposition import Role, Rows
from gm_experiments.lola.settings import Arm, Game

Rng = np.random.Generator | Sequence[np.random.Generator]
"""One stream of random numbers for all seeds, or one for each."""


@dataclass(frozen=True, eq=False)
class JointTrajectories:
    """Trajectories of both learners; of earlier policies if there is a behaviour, joint log μ of each group."""

    outcome: UInt8[Tensor, "seed learner=2 trajectory time"]
    behaviour: Float[Tensor, "seed learner=2 group 5 4"] | None = None
    group: Int[Tensor, "learner=2 trajectory"] | None = None

    @property
    def size(self) -> int:
        """How many trajectories each learner has."""
        return self.outcome.shape[-2]

    def select(self, rows: Rows) -> "JointTrajectories":
        """Returns the trajectories of those numbers."""
        numbers = torch.arange(self.size)[rows]
        if len(numbers) == self.size:
            return self
        group = None if self.group is None else self.group[..., numbers]
        return JointTrajectories(self.outcome[..., numbers, :], self.behaviour, group)


class Start(NamedTuple):
    """What was played at the present policies: a look-ahead's samples by role, and outcomes to evaluate them by."""

    samples: Mapping[Role, JointTrajectories]
    evaluation: UInt8[Tensor, "seed trajectory time"]


@runtime_checkable
class Player(Protocol):
    """What a look-ahead asks for trajectories."""

    def play(
        self, step: int, roles: Sequence[Role], policies: Float[Tensor, "seed learner=2 2 5"], /
    ) -> Mapping[Role, JointTrajectories]:
        """Plays for some roles at the policies of (player 1, player 2) that each learner expects after some steps."""


class Arena:
    """Plays as an arm asks, and keeps trajectories for the roles that replay, at first of the policies given."""

    def __init__(self, game: Game, arm: Arm, policies: Float[Tensor, "seed player=2 5"], rng: Rng) -> None:
        self._game, self._arm, self._sizes, self._rng = game, arm, arm.drawn(), rng
        self._of_the_end: envs.Draws | None = None
        self._ring: envs.ReplayRing | None = None
        fresh = [size for role, size in self._sizes.items() if arm.replays(role)]
        if fresh:
            self._ring = envs.ReplayRing(game.replay_capacity, (len(policies),), game.horizon)
            outcome = envs.rollout(policies, self._numbers(len(policies), size=game.replay_capacity))
            for some in torch.split(outcome, _initial_additions(game, fresh[0]), -2):
                self._ring.add(some, policies)

    def start(self, policies: Float[Tensor, "seed player=2 5"], *, looks_ahead: bool = True) -> Start:
        """Plays at the present policies, where both learners see the same: a look-ahead's start and the evaluation."""
        seeds, evaluation_size = len(policies), self._game.evaluation_size
        roles = [role for role in self._sizes if looks_ahead and role != "outer"]
        if looks_ahead and self._arm.permutation() == "ESS":  # exact steps: their end is played before I or II is read
            self._of_the_end = self._numbers(seeds, 2, size=self._sizes["outer"])
        both = [2 * self._sizes[role] for role in roles]
        outcome = envs.rollout(envs.joint_view(policies), self._numbers(seeds, size=sum(both) + evaluation_size))
        *parts, evaluation = torch.split(outcome, [*both, evaluation_size], -2)
        views = policies.unsqueeze(1).expand(-1, 2, -1, -1)
        of_learners = [part.reshape(seeds, 2, -1, self._game.horizon) for part in parts]
        return Start(self._samples(roles, of_learners, views), evaluation)

    def play(
        self, _step: int, roles: Sequence[Role], policies: Float[Tensor, "seed learner=2 2 5"]
    ) -> dict[Role, JointTrajectories]:
        """Plays for some roles in one time loop."""
        sizes = [self._sizes[role] for role in roles]
        numbers = None
        if list(roles) == ["outer"]:
            numbers, self._of_the_end = self._of_the_end, None
        if numbers is None:
            numbers = self._numbers(*policies.shape[:2], size=sum(sizes))
        parts = torch.split(envs.rollout(envs.joint_view(policies), numbers), sizes, -2)
        return self._samples(roles, parts, policies)

    def replay(
        self, outcome: UInt8[Tensor, "seed learner=2 trajectory time"], policies: Float[Tensor, "seed learner=2 2 5"]
    ) -> JointTrajectories:
        """Adds each learner's trajectories to the ring, which that learner then reads."""
        assert self._ring is not None  # made for every arm that replays
        outcomes, tables, groups = [], [], []
        for learner in (0, 1):
            self._ring.add(outcome[:, learner], envs.joint_view(policies[:, learner]))
            replayed = self._ring.replay(self._game.max_age)
            born, group = torch.unique(replayed.age, return_inverse=True)
            one_of_each = torch.zeros_like(born).scatter_(0, group, torch.arange(len(group)))
            outcomes.append(replayed.outcome.movedim(-1, 0).clone())
            tables.append(replayed._replace(behaviour=replayed.behaviour[:, one_of_each]).joint_table())
            groups.append(group)
        most = max(table.shape[1] for table in tables)
        padded = [torch.nn.functional.pad(table, (0, 0, 0, 0, 0, most - table.shape[1])) for table in tables]
        return JointTrajectories(torch.stack(outcomes, 2).movedim(0, -1), torch.stack(padded, 1), torch.stack(groups))

    def _samples(
        self, roles: Sequence[Role], outcomes: Sequence[Tensor], policies: Tensor
    ) -> dict[Role, JointTrajectories]:
        return {
            role: self.replay(outcome, policies) if self._arm.replays(role) else JointTrajectories(outcome)
            for role, outcome in zip(roles, outcomes, strict=True)
        }

    def _numbers(self, *batch: int, size: int) -> envs.Draws:
        return envs.draws(self._rng, batch, size, self._game.horizon)


def _initial_additions(game: Game, fresh: int) -> list[int]:
    """Sizes of parts, the remainder first: both learners then leave out equally many, whatever the maximum age."""
    if game.max_age is None:
        return [game.replay_capacity]
    whole, rest = divmod(game.replay_capacity, fresh)
    return [rest] * (rest > 0) + [fresh] * whole
