"""Where the error of a LOLA meta-gradient comes from, along training: each source's share of bias and variance."""

import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

import attribution_report
import attribution_sources
import gm_envs_ipd as envs
import gm_estimators as estimators
import gm_exact
import gm_lab
import tabular
from attribution_sources import METRICS, SOURCES, Source
from gm_estimators import Adam
from gm_estimators.decomposition import Role
from gm_estimators.games import joint_log_policy
from lola_offpolicy import warm_up
from lola_problem import Curve, Game, LookAhead, Sample, pairs
from lola_training import Training

KEY = (*attribution_sources.KEY, "seed")


@dataclass(frozen=True)
class Settings(gm_lab.RunSettings):
    """How much of a LOLA learner's error has each of its sources, and how does it change with training?

    Without a flag: three estimators in the iterated prisoner's dilemma, 128 trajectories a role, after 0 to 50 updates.
    """

    game: str = Game.game
    """ipd, stag-hunt, chicken, matching-pennies or battle-of-the-sexes."""
    horizon: int = Game.horizon
    """T, rounds of a trajectory; the truth has an infinite horizon."""
    discount: float = Game.discount
    """γ."""
    inner_steps: int = Game.inner_steps
    """K, the steps that a learner looks ahead."""
    inner_lr: float = Game.inner_lr
    """α, the size of a step in the look-ahead."""
    outer_lr: float = Game.outer_lr
    """Learning rate of Adam for the policies."""
    critic_lr: float = Game.critic_lr
    """Learning rate of Adam for the critics."""
    critic: Literal["reward", "return", "none"] = Game.critic
    """critic: what it predicts in practice, the immediate reward as in the paper's experiments, the return, or nothing;
    ideal are the values of the present policies."""
    estimators: tuple[str, ...] = ("dice", "loaded_dice", "lvc")
    """ad, dice, loaded_dice, lvc, or your own as package.module:function."""
    sample_sizes: tuple[int, ...] = (128,)
    """Trajectories for each role and step."""
    points: tuple[int, ...] = (0, 10, 20, 30, 50)
    """After how many updates to measure."""
    path: Literal["exact", "sampled"] = "exact"
    """What was followed up to there: exact meta-gradients, or the estimates that are measured."""
    sources: tuple[Source, ...] = SOURCES
    """What is as in practice, sampled or learnt; all else is exact or left out."""
    clip_norm: float = 1.0
    """clipping: the longest that a learner's estimate may be, in units of its exact meta-gradient's length."""
    seeds: int = 10
    """Independent runs; the intervals are over these."""
    repeats: int = 16
    """Independent estimates at each point of a run, from which bias and variance are told apart."""


@dataclass(frozen=True)
class Cell:
    """Some runs at one point of training."""

    seed: int
    runs: tuple[int, ...]
    game: Game
    estimators: tuple[str, ...]
    sample_sizes: tuple[int, ...]
    path: str
    sources: tuple[str, ...]
    clip_norm: float
    repeats: int

    def generator(self, *labels: str | int) -> np.random.Generator:
        """The random numbers of these runs for some purpose."""
        return np.random.Generator(np.random.SFC64(gm_lab.seed_of(self.seed, "lola_attribution", *self.runs, *labels)))


class Run(Training):
    """A run that keeps the gradients that it follows: exact ones where the look-ahead is exact."""

    def __init__(self, game: Game, curve: Curve, seeds: int, rng: np.random.Generator) -> None:
        super().__init__(game, curve, seeds, rng)
        self.followed: list[Tensor] = []

    def _estimate(self, problem: LookAhead) -> dict[str, Tensor]:
        found = super()._estimate(problem)
        if self.curve.inner is None:  # the outer gradient is sampled for the critics only
            found["estimate"] = self.truth(self.params)
        self.followed.append(found["estimate"])
        return found


class CommonNumbers(LookAhead):
    """A look-ahead whose every role and step has random numbers of its own, the same for every set of sources."""

    def __init__(self, training: Training, size: int, generator: Callable[[str, int], np.random.Generator]) -> None:
        super().__init__(training)
        self._size, self._generator = size, generator
        self._latest: dict[tuple[Role, int], tuple[Tensor, Sample]] = {}

    def draw(self, role: Role, step: int, params: Tensor, _size: int) -> Sample:
        """Trajectories at (φ, θ); I and II read the same ones where they share them."""
        if role == "hessian" and self._t.curve.shared:
            role = "inner"
        at, sample = self._latest.get((role, step), (None, None))
        if at is not params or sample is None:
            policies = pairs(self.meta_params, params)
            numbers = envs.draws(self._generator(role, step), policies.shape[:2], self._size, self._t.game.horizon)
            sample = Sample(envs.rollout(envs.joint_view(policies), numbers))
            self._latest[role, step] = params, sample
        return sample


def cells(settings: Settings) -> list[Cell]:
    """One cell for each block of runs and point.

    Raises:
        BadInput: if a flag is out of range.
    """
    for name, least in (("horizon", 1), ("inner_steps", 1), ("seeds", 1), ("repeats", 2)):
        gm_lab.require(settings, name, f"an integer of at least {least}", getattr(settings, name) >= least)
    for name in ("inner_lr", "outer_lr", "critic_lr"):
        gm_lab.require(settings, name, "a positive number", getattr(settings, name) > 0)
    gm_lab.require(settings, "discount", "0 ≤ γ < 1", 0 <= settings.discount < 1)
    gm_lab.require(settings, "sample_sizes", "integers of at least 1", min(settings.sample_sizes) >= 1)
    for name in ("estimators", "sample_sizes"):
        values = getattr(settings, name)
        gm_lab.require(settings, name, "different values", len(set(values)) == len(values))
    attribution_sources.check(settings)
    try:
        envs.game(settings.game)
        for name in settings.estimators:
            estimators.load(name, suffixes=False)
    except ValueError as error:
        raise gm_lab.BadInput(f"--{'' if str(error).startswith('game:') else 'estimators: '}{error}") from error
    game = Game(**{f.name: getattr(settings, f.name) for f in fields(Game) if hasattr(settings, f.name)})
    blocks = [
        tuple(range(first, min(first + tabular.BLOCK, settings.seeds)))
        for first in range(0, settings.seeds, tabular.BLOCK)
    ]
    return [
        Cell(
            settings.seed, block, replace(game, updates=point), settings.estimators, settings.sample_sizes,
            settings.path, settings.sources, settings.clip_norm, settings.repeats,
        )
        for point in sorted(settings.points, reverse=True)
        for block in blocks
    ]  # fmt: skip


def trained(cell: Cell, name: str, size: int) -> Run:
    """The runs after all their updates."""
    own = None if cell.path == "exact" else size
    curve = Curve("", inner=own, hessian=own, outer=size, shared="shared_batch" in cell.sources)
    run = Run(replace(cell.game, estimator=name), curve, len(cell.runs), cell.generator("run"))
    deque(run.updates(), maxlen=0)
    return run


def state_values(game: Game, params: Tensor) -> Tensor:
    """V of both players in each state of player 1's, `[*batch, player, state]`: the joint policy's in an MDP."""
    transition = torch.eye(5, dtype=params.dtype)[1:].expand(5, 4, 5)
    joint = joint_log_policy(params).unsqueeze(-3)
    reward = game.matrix_game().tensor().flatten(-2).unsqueeze(-2).expand(2, 5, 4)
    return gm_exact.state_values(gm_exact.TabularMDP(transition, reward, 0, game.discount), joint)


def _sampled(cell: Cell, run: Run, size: int) -> Callable[[frozenset[str]], dict[str, Tensor]]:
    """What of critic and shared batch is as in practice ↦ the estimates `[run, learner, repeat, state]`."""
    wanted = attribution_sources.permutations(cell.sources)
    exact = state_values(run.game, run.params)

    def sampled(practice: frozenset[str]) -> dict[str, Tensor]:
        curve = Curve("", shared="shared_batch" in practice)
        # with either critic there are values to be read
        game = replace(run.game, critic="reward")
        training = Training(game, curve, len(run.params) * cell.repeats, cell.generator())
        training.params = run.params.repeat_interleave(cell.repeats, 0)
        training.values = (run.values if "critic" in practice else exact).repeat_interleave(cell.repeats, 0)
        found = estimators.decompose(
            CommonNumbers(training, size, lambda role, step: cell.generator(cell.game.updates, role, step)),
            [run.estimator],
            permutations=wanted,
            sample_sizes=[size],
            inner_steps=run.game.inner_steps,
            inner_lr=run.game.inner_lr,
        )
        return {
            permutation: estimate.reshape(-1, cell.repeats, *estimate.shape[1:]).transpose(1, 2)
            for (_, permutation, _), estimate in found.items()
        }

    return sampled


def run_cell(cell: Cell) -> list[gm_lab.Row]:
    """The rows of results.csv of some runs at one point of training.

    Raises:
        BadInput: if a user's estimator fails, or there is no exact meta-gradient to measure by.
    """
    rows: list[gm_lab.Row] = []
    for name in cell.estimators:
        for size in cell.sample_sizes:
            with tabular.estimators_are_input():
                run = trained(cell, name, size)
                truth = run.truth(run.params)
                tabular.require_truth(truth, "seed", cell.runs, cell.game.updates)
                adam = Adam.after(run.followed, truth)
                estimate = attribution_sources.in_practice(_sampled(cell, run, size), adam, cell.clip_norm)
                rows += attribution_sources.rows(
                    estimate, cell.sources, adam.truth, "seed", cell.runs,
                    figure="attribution", algorithm="lola", estimator=name, permutation="SSS", sample_size=size,
                    inner_steps=cell.game.inner_steps, inner_lr=cell.game.inner_lr, updates=cell.game.updates,
                )  # fmt: skip
    return rows


EXPERIMENT = gm_lab.Experiment(
    name="lola_attribution",
    settings=Settings,
    columns=(*KEY, *METRICS),
    key=KEY,
    cells=cells,
    run_cell=run_cell,
    figures=lambda _settings, frame: attribution_report.figures(frame),
    claims=lambda _settings, _frame: [],
    summary=lambda _settings, frame: attribution_report.summary(frame),
    warm_up=warm_up,
    curves=(attribution_sources.curves("seed"),),
)

if __name__ == "__main__":
    sys.exit(gm_lab.main(EXPERIMENT))
