"""The two-level problem of LOLA learners: each looks ahead along steps that it expects its opponent to take."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

import gm_envs_ipd as envs
import gm_exact
from gm_estimators import Estimator
from gm_estimators.decomposition import Objective, Role, Rows
from gm_estimators.surrogates import dice
from gm_experiments.lola.arena import JointTrajectories, Player
from gm_experiments.lola.blocks import DiceBlocks
from gm_experiments.lola.objectives import EntrySums, GameObjective, GameSignal, StepSums, joint_log_policy
from gm_experiments.lola.settings import Arm, Game

LEARNERS = torch.tensor((0, 1))


@dataclass(frozen=True, eq=False)
class LookAhead:
    """States one update's problem of both learners for `gm_estimators.decompose`.

    Policies are over player 1's states: φ the learners' own, θ their opponents'. `start` has the trajectories at θ⁰,
    `player` plays at later θ.
    """

    game: Game
    policies: Float[Tensor, "seed 2 5"]
    signals: Mapping[Role, GameSignal]
    start: Mapping[Role, JointTrajectories]
    player: Player
    dtype: torch.dtype = torch.float32
    meta_is_params = False

    @cached_property
    def params(self) -> Float[Tensor, "seed 2 5"]:
        """θ⁰: the opponents as they are."""
        return self.policies.flip(1)

    @cached_property
    def payoffs(self) -> Float[Tensor, "2 2 2 2"]:
        """The payoffs as each learner sees them, itself first."""
        payoffs = self.game.matrix_game().tensor()
        return torch.stack((payoffs, payoffs.flip(0).mT))

    @cached_property
    def mask(self) -> Float[Tensor, "2 1"] | None:
        """Who looks ahead; `None` if both do."""
        return who_looks_ahead(self.game)

    def at(self, params: Float[Tensor, "seed 2 5"]) -> "LookAheadPoint":
        """Returns what there is at θ."""
        return LookAheadPoint(self, params)


class LookAheadPoint:
    """One θ of a look-ahead."""

    def __init__(self, ahead: LookAhead, params: Float[Tensor, "seed 2 5"]) -> None:
        self._ahead, self._params = ahead, params
        self._policies = pairs(ahead.policies, params)

    @cached_property
    def _evaluation(self) -> gm_exact.GameEvaluation:
        """Both players' values, whose policies are over their own states in gm-exact."""
        own = torch.stack((envs.joint_view(self._ahead.policies), opponents_view(self._params)), -2)
        return gm_exact.evaluate_game(self._ahead.payoffs, own, discount=self._ahead.game.discount)

    def exact(self, role: Role) -> Objective:
        """Returns the exact objective of both learners."""
        return self._heard(role, ExactGameObjective(self._evaluation, whose=0 if role == "outer" else 1))

    def draw(self, step: int, rows: Mapping[Role, Rows]) -> dict[Role, JointTrajectories]:
        """Returns those trajectories of whole samples: all parts then read one stream of random numbers alike."""
        ahead = self._ahead
        drawn = ahead.start if step == 0 else ahead.player.play(step, tuple(rows), self._policies)
        return {role: drawn[role].select(numbers) for role, numbers in rows.items()}

    def sampled(self, role: Role, estimator: Estimator, sample: JointTrajectories) -> Objective:
        """Returns the objective of both learners as the estimator sees it."""
        ahead = self._ahead
        sums = _sums(estimator, sample, joint_log_policy(self._policies), ahead.signals[role], ahead.game, ahead.dtype)
        learners = LEARNERS.expand(self._params.shape[:-1])
        return self._heard(role, SampledObjective(ahead.policies, self._params, learners, sums, sample))

    def _heard(self, role: Role, objective: Objective) -> Objective:
        mask = self._ahead.mask
        return objective if role == "outer" or mask is None else Silenced(objective, mask)


class SampledObjective(GameObjective):
    """J_In or J_Out of both learners with the trajectories that it was estimated from."""

    def __init__(
        self, meta_params: Tensor, params: Tensor, learner: Tensor, sums: EntrySums, sample: JointTrajectories
    ) -> None:
        super().__init__(meta_params, params, learner, sums)
        self.sample = sample


class ExactGameObjective:
    """J_In (`whose` = 1, the opponent's) or J_Out (0, its own) of both learners, from gm-exact."""

    def __init__(self, evaluation: gm_exact.GameEvaluation, whose: int) -> None:
        self._evaluation, self._whose = evaluation, whose

    @property
    def gradient(self) -> Tensor:
        """∇θ J."""
        return opponents_view(self._evaluation.gradient[..., self._whose, 1, :])

    @property
    def meta_gradient(self) -> Tensor:
        """∇φ J."""
        return envs.joint_view(self._evaluation.gradient[..., self._whose, 0, :])

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (∇²θ J λ, ∇φ∇θ J λ)."""
        curvature = self._evaluation.hessian[..., self._whose, 1, :, :, :]
        mixed, own = torch.einsum("...xks,...x->...ks", curvature, opponents_view(cotangent)).unbind(-2)
        return opponents_view(own), envs.joint_view(mixed)


class Silenced:
    """An objective that counts where the mask is one: the other learners' opponents are not expected to move."""

    meta_gradient = None

    def __init__(self, objective: Objective, mask: Tensor) -> None:
        self.objective, self._mask = objective, mask

    @property
    def gradient(self) -> Tensor:
        """∇θ J."""
        return self.objective.gradient * self._mask

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns (∇²θ J λ, ∇φ∇θ J λ)."""
        own, mixed = self.objective.vjp(cotangent)
        return own * self._mask, None if mixed is None else mixed * self._mask


def who_looks_ahead(game: Game) -> Float[Tensor, "2 1"] | None:
    """Returns one for the learners that look ahead and zero for the others; `None` if both do."""
    return torch.tensor([[1.0], [0.0]], dtype=torch.float64) if game.learners == "first" else None


def exact_meta_gradients(game: Game, policies: Float[Tensor, "*batch 2 5"]) -> Float[Tensor, "*batch 2 5"]:
    """Returns the exact meta-gradients of both learners, over player 1's states as the policies are."""
    mask = who_looks_ahead(game)
    exact = gm_exact.lola_meta_gradient(
        game.matrix_game().tensor(),
        envs.joint_view(policies),
        discount=game.discount,
        inner_lr=game.inner_lr if mask is None else game.inner_lr * mask,  # who doesn't look ahead, looks zero far
        inner_steps=game.inner_steps,
    )
    return envs.joint_view(exact.gradient)


def signals(
    game: Game, arm: Arm, estimator: Estimator, critics: Float[Tensor, "seed learner=2 5"]
) -> dict[Role, GameSignal]:
    """Returns what each role's trajectories are judged by: the learners' rewards and critics, or their opponents'."""
    reward = game.matrix_game().tensor().flatten(-2).expand(len(critics), 2, 4)
    zeros = torch.zeros_like(critics)
    given = critics if game.critic != "none" and estimator.takes_values else zeros

    def of_opponents(role: Role) -> GameSignal:
        value = given if arm.baseline or arm.replays(role) else zeros
        return GameSignal(reward.flip(1), value.flip(1), game.discount)

    return {
        "inner": of_opponents("inner"),
        "hessian": of_opponents("hessian"),
        "outer": GameSignal(reward, given, game.discount),
    }


def opponents_view(params: Float[Tensor, "*batch learner=2 5"]) -> Float[Tensor, "*batch learner=2 5"]:
    """Returns `joint_view` of tables that belong to the learners' opponents."""
    return envs.joint_view(params.flip(-2)).flip(-2)


def pairs(
    meta_params: Float[Tensor, "seed learner=2 5"], params: Float[Tensor, "seed learner=2 5"]
) -> Float[Tensor, "seed learner=2 player=2 5"]:
    """Returns the policies of (player 1, player 2) as each learner sees them."""
    return torch.stack(
        (torch.stack((meta_params[:, 0], params[:, 0]), 1), torch.stack((params[:, 1], meta_params[:, 1]), 1)), 1
    )


def _sums(
    estimator: Estimator, sample: JointTrajectories, log_policy: Tensor, signal: GameSignal, game: Game,
    dtype: torch.dtype,
) -> EntrySums:  # fmt: skip
    """What the estimator makes of a sample: several rounds at a time for DiCE, round by round for any other."""
    controlled = game.self_normalise or game.clip is not None
    plain = estimator.surrogate is dice and not estimator.self_normalise
    if plain and (sample.behaviour is None or not controlled):
        ratio = None if sample.behaviour is None else log_policy.unsqueeze(-3) - sample.behaviour
        rounds = 2 if sample.size < 512 or ratio is not None else 3
        return DiceBlocks(sample.outcome, signal, ratio, sample.group, rounds=rounds, dtype=dtype)
    behaviour = None
    if sample.behaviour is not None and sample.group is not None:
        group = sample.group.expand(*sample.outcome.shape[:-1])
        chosen = sample.behaviour.flatten(-2).take_along_dim(group.unsqueeze(-1), -2)
        behaviour = chosen.reshape(*group.shape, 5, 4)
    clip = float("inf") if game.clip is None else game.clip
    return StepSums(
        estimator, sample.outcome, log_policy, signal, behaviour, clip=clip, self_normalise=game.self_normalise
    )
