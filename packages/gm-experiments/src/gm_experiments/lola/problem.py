"""The two-level problem of LOLA learners: what is played, how it is estimated, and each update's look-ahead."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

import gm_envs_ipd as envs
import gm_estimators as estimators
import gm_exact
from gm_estimators.blocks import DiceBlocks
from gm_estimators.decomposition import Objective, Role
from gm_estimators.games import GameObjective, StepSums

if TYPE_CHECKING:
    from lola_training import Training

F64 = torch.float64
LEARNERS = torch.tensor((0, 1))


@dataclass(frozen=True)
class Game:
    """What is played, how long, and how it is learnt."""

    game: str = "ipd"
    """ipd, stag-hunt, chicken, matching-pennies or battle-of-the-sexes."""
    payoffs: tuple[float, ...] | None = None
    """Instead of a known game: 8 numbers, R¹[a¹][a²] row by row (action 0 first), then R²[a¹][a²]."""
    cooperative: Literal[0, 1] | None = None
    """With --payoffs: the action that columns and figures call cooperation; 1 if not given."""
    horizon: int = 100
    """T, rounds of a trajectory; the truth has an infinite horizon."""
    discount: float = 0.96
    """γ."""
    updates: int = 500
    """Meta-updates of both players."""
    inner_steps: int = 1
    """K, the steps that a learner looks ahead."""
    inner_lr: float = 0.3
    """α, the size of a step in the look-ahead."""
    outer_lr: float = 0.1
    """Learning rate of Adam for the policies."""
    critic_lr: float = 0.1
    """Learning rate of Adam for the critics."""
    critic: Literal["reward", "return", "none"] = "reward"
    """What the critics predict: the immediate reward as in the paper's experiments, the return, or nothing."""
    learners: Literal["both", "first"] = "both"
    """Who looks ahead: both players, or player 1 against a naive learner."""
    estimator: str = "dice"
    """ad, dice, loaded_dice, loaded_dice@λ, lvc, tmaml, vtrace, or your own as package.module:function; each perhaps
    with +jackknife or +selfnorm, those that read advantages with +vtrace or +vtrace@clip. Your own may carry critic =
    False to be given values of zero."""
    evaluation_size: int = 128
    """Trajectories from which the score is taken after every update."""
    replay_capacity: int = 1024
    """Trajectories that the replay ring holds."""
    max_age: int | None = None
    """Leave out replayed trajectories that are older, in additions to the ring."""
    clip: float | None = None
    """Upper bound of the cumulative importance ratio."""
    self_normalise: bool = False
    """Divide the importance ratios by their mean."""

    def matrix_game(self) -> envs.MatrixGame:
        """The game that is meant.

        Raises:
            ValueError: there is no such game, or its payoffs are not eight finite numbers.
        """
        if self.payoffs is None:
            return envs.game(self.game)
        return envs.game_from_payoffs(self.payoffs, cooperative=1 if self.cooperative is None else self.cooperative)


@dataclass(frozen=True)
class Curve:
    """How many trajectories the look-ahead's gradient (I), its Jacobian (II) and the outer gradient (III) are had from.

    Attributes:
        name: as in results.csv.
        inner: trajectories for I; `None` for exact.
        hessian: trajectories for II; `None` for exact.
        outer: trajectories for III; `None` for exact.
        shared: whether I and II read the same trajectories.
        replay_inner: whether I adds its trajectories to the ring and reads all of it.
        replay_hessian: the same for II.
        baseline: whether a look-ahead that does not replay has the critic's baseline.
        debias: what the estimator's name has at its end.
    """

    name: str
    inner: int | None = 128
    hessian: int | None = 128
    outer: int | None = 128
    shared: bool = False
    replay_inner: bool = False
    replay_hessian: bool = False
    baseline: bool = True
    debias: str = ""

    def permutation(self) -> str:
        """S or E for each of I, II, III."""
        return "".join("E" if size is None else "S" for size in (self.inner, self.hessian, self.outer))


@dataclass
class Sample:
    """Trajectories of both learners, perhaps of earlier policies.

    Attributes:
        outcome: joint outcomes, shape `[seed, learner, trajectory, time]`.
        behaviour: joint log μ of each group of trajectories in player 1's states; `None` on-policy.
        group: the group of each trajectory.
        blocks: as how many equal parts it can be divided.
        objectives: what was made of it so far, by role.
        parts: what was selected of it so far.
    """

    outcome: Tensor
    behaviour: Tensor | None = None
    group: Tensor | None = None
    blocks: int = 1
    objectives: dict[bool, GameObjective] = field(default_factory=dict)
    parts: dict[tuple[int, ...], "Sample"] = field(default_factory=dict)
    sums: DiceBlocks | StepSums | None = None

    def first(self, _size: int) -> "Sample":
        """Itself: a curve has one size for each role."""
        return self

    def select(self, numbers: Tensor) -> "Sample":
        """The blocks of these numbers: roles of different sizes have the same number of them."""
        wanted = tuple(numbers.tolist())
        if wanted == tuple(range(self.blocks)):
            return self
        if wanted not in self.parts:
            size = self.outcome.shape[-2]
            rows = torch.arange(size).reshape(self.blocks, -1)[numbers].flatten()
            group = None if self.group is None else self.group[..., rows]
            self.parts[wanted] = Sample(self.outcome[..., rows, :], self.behaviour, group)
        return self.parts[wanted]


def estimator_of(game: Game, curve: Curve) -> estimators.Estimator:
    """The estimator that a curve has in a game.

    Raises:
        EstimatorError: there is none of that name, or it needs what only the tabular problems have.
    """
    found = estimators.load(game.estimator + curve.debias)
    tabular = {"+learnt": found.critic == "learnt", "+correction": found.correction, "τ": found.gae_lambda is not None}
    for part, asked in tabular.items():
        if asked:
            raise estimators.EstimatorError(
                f"expected an estimator without {part}, which only the tabular problems have, got {found.name!r}"
            )
    return found


def blocks_of(estimator: estimators.Estimator) -> int:
    """Into how many parts the estimator divides its samples."""
    return estimator.debias.blocks if isinstance(estimator.debias, estimators.Jackknife) else 1


def reads_critic(estimator: estimators.Estimator) -> bool:
    """Whether it is given the critics' values: those of the catalogue all are, a user's own unless it asks not to be.

    The catalogue's `critic` is that of the tabular experiments, where DiCE has none.
    """
    return ":" not in estimator.name or bool(estimator.critic)


class ExactObjective:
    """J_In or J_Out of both learners, from gm-exact, whose policies are over own states, not over player 1's."""

    def __init__(self, payoffs: Tensor, meta_params: Tensor, params: Tensor, discount: float, outer: bool) -> None:
        own = torch.stack((envs.joint_view(meta_params), opponents_view(params)), -2)
        self._found = gm_exact.evaluate_game(payoffs, own, discount=discount)
        self._whose = 0 if outer else 1

    @property
    def gradient(self) -> Tensor:
        """∇θ J."""
        return opponents_view(self._found.gradient[..., self._whose, 1, :])

    @property
    def meta_gradient(self) -> Tensor:
        """∇φ J."""
        return envs.joint_view(self._found.gradient[..., self._whose, 0, :])

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """(∇²θ J λ, ∇φ∇θ J λ)."""
        curvature = self._found.hessian[..., self._whose, 1, :, :, :]
        mixed, own = torch.einsum("...xks,...x->...ks", curvature, opponents_view(cotangent)).unbind(-2)
        return opponents_view(own), envs.joint_view(mixed)


class Silenced:
    """An objective that counts for some learners only: the others' opponents are not expected to move."""

    def __init__(self, objective: Objective, mask: Tensor) -> None:
        self._objective, self._mask = objective, mask

    @property
    def gradient(self) -> Tensor:
        """∇θ J."""
        return self._objective.gradient * self._mask

    @property
    def meta_gradient(self) -> Tensor | None:
        """∇φ J."""
        return None

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor | None]:
        """(∇²θ J λ, ∇φ∇θ J λ)."""
        own, mixed = self._objective.vjp(cotangent)
        return own * self._mask, None if mixed is None else mixed * self._mask


def opponents_view(params: Tensor) -> Tensor:
    """`joint_view` of tables [..., learner, state] that belong to the learners' opponents."""
    return envs.joint_view(params.flip(-2)).flip(-2)


def pairs(meta_params: Tensor, params: Tensor) -> Tensor:
    """Policies of (player 1, player 2) as each learner sees them, [seed, learner, player, state]."""
    return torch.stack(
        (torch.stack((meta_params[:, 0], params[:, 0]), 1), torch.stack((params[:, 1], meta_params[:, 1]), 1)), 1
    )


class LookAhead:
    """One update's two-level problem of both learners, as `gm_estimators.decompose` asks for it.

    Policies are over player 1's states, shape `[seed, learner, state]`: φ the learners' own, θ their opponents'.
    """

    meta_is_params = False

    def __init__(self, training: "Training") -> None:
        self._t = training
        self.meta_params = training.params
        self.params = training.params.flip(1)
        self._drawn: dict[tuple[Role, int], Sample] = {}
        self._drawn_at: dict[tuple[Role, int], Tensor] = {}
        self._exact: dict[bool, ExactObjective] = {}
        self.outer_sample: Sample | None = None
        self.replayed: list[Sample] = []

    def exact(self, role: Role, params: Tensor) -> Objective:
        """The exact objective of both learners."""
        outer = role == "outer"
        if params is not self.params:
            return self._heard(self._new_exact(params, outer), outer)
        if outer not in self._exact:
            self._exact[outer] = self._new_exact(params, outer)
        return self._heard(self._exact[outer], outer)

    def _new_exact(self, params: Tensor, outer: bool) -> ExactObjective:
        return ExactObjective(self._t.views, self.meta_params, params, self._t.game.discount, outer)

    def _heard(self, objective: Objective, outer: bool) -> Objective:
        return objective if outer or self._t.mask is None else Silenced(objective, self._t.mask)

    def draw(self, role: Role, step: int, params: Tensor, _size: int) -> Sample:
        """Trajectories at (φ, θ), new ones for every θ; those of I and II at one point share a time loop."""
        curve, blocks = self._t.curve, self._t.blocks
        if role == "hessian" and curve.shared:
            role = "inner"
        if self._drawn_at.get((role, step)) is not params:
            sizes: dict[Role, int | None] = {"outer": curve.outer}
            if role != "outer":
                sizes = {"inner": curve.inner, "hessian": None if curve.shared else curve.hessian}
            wanted = {name: size for name, size in sizes.items() if size is not None}
            lengths = list(wanted.values())
            policies = pairs(self.meta_params, params)
            outcomes = self._t.play_now(lengths) if step == 0 else self._t.play(policies, lengths)
            for (name, _), outcome in zip(wanted.items(), outcomes, strict=True):
                replay = {"inner": curve.replay_inner, "hessian": curve.replay_hessian, "outer": False}[name]
                sample = self._t.replay(outcome, policies) if replay else Sample(outcome, blocks=blocks)
                self._drawn[name, step], self._drawn_at[name, step] = sample, params
                if replay:
                    self.replayed.append(sample)
        if role == "outer" and self.outer_sample is None:  # the first is that of all trajectories
            self.outer_sample = self._drawn[role, step]
        return self._drawn[role, step]

    def sampled(self, role: Role, estimator: estimators.Estimator, sample: Sample, params: Tensor) -> Objective:
        """The objective of both learners as the estimator sees it."""
        outer = role == "outer"
        if outer not in sample.objectives:
            t = self._t
            baseline = outer or sample.behaviour is not None or t.curve.baseline
            signal = t.signal(outer, baseline=baseline and reads_critic(estimator))
            sample.sums = t.sums(estimator, sample, pairs(self.meta_params, params), signal)
            sample.objectives[outer] = GameObjective(
                self.meta_params, params, LEARNERS.expand(params.shape[:-1]), sample.sums
            )
        return self._heard(sample.objectives[outer], outer)
