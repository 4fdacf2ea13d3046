"""The tabular experiments' rows against the K-step objective by automatic differentiation.

Who reads which random numbers, critics and rewards is written out here once more: every role and step has a stream of
its own for each MDP, from which come the critic's error and then the uniform numbers of the rollouts.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import gm_envs_tabular as envs
import gm_exact
import gm_lab
from gm_estimators import Trajectories, load, meta_gradient, metrics
from gm_estimators.critics import learnt_values
from gm_estimators.returns import discounts, gae
from gm_estimators.surrogates import mean_surrogate
from gm_experiments.common.mdps import RandomMDPs, measured
from gm_experiments.common.settings import Cell, Grid, Tabular
from gm_experiments.lirpg.problem import LirpgProblem
from gm_experiments.lirpg.run import run_cell as lirpg_cell
from gm_experiments.lirpg.settings import Lirpg
from gm_experiments.maml.problem import exact_training
from gm_experiments.maml.run import run_cell as maml_cell
from gm_experiments.maml.settings import Settings as MamlSettings
from gm_experiments.maml.settings import cells as maml_cells

F64 = torch.float64
ROLES = ("inner", "hessian", "outer")
SMALL = {"repeats": 3, "states": 4, "actions": 2, "horizon": 5, "discount": 0.7, "concentration": 0.5}
CONTEXT = gm_lab.Context(None, "cpu")


def cell_of(tabular, names=("lvc",), permutations=("SSS",), sizes=(2, 5)):
    return Cell(3, (4, 7), 2, 0.8, (("fig1", Grid(names, permutations, sizes)),), tabular)


class Reference:
    """The problem of a cell, `[mdp, repeat]`, with one objective for each role and letter."""

    def __init__(self, cell, *, phi=None):
        self.cell, self.tabular, self.phi = cell, cell.tabular, phi
        terms = {name: getattr(self.tabular, name) for name in ("states", "actions", "concentration")}
        drawn = [envs.random_mdp(self.stream(mdp, "mdp"), **terms) for mdp in cell.mdps]
        transition, self.reward = (torch.stack(x).unsqueeze(1) for x in zip(*drawn, strict=True))
        self.mdp = gm_exact.TabularMDP(transition, self.reward, 0, self.tabular.discount)
        self.most = max(cell.grids[0][1].sample_sizes)

    def stream(self, mdp, *labels):
        return np.random.default_rng(gm_lab.seed_of(self.cell.seed, mdp, *labels))

    def numbers(self, role, step):
        """The critic's errors `[mdp, repeat, state]` and uniform numbers `[mdp, repeat, trajectory, time]`."""
        normal, uniform = [], []
        for mdp in self.cell.mdps:
            rng = self.stream(mdp, role, step)
            normal.append(rng.standard_normal((self.tabular.repeats, self.tabular.states)))
            uniform.append(rng.random((self.most, self.tabular.horizon, self.tabular.repeats)).transpose(2, 0, 1))
        return torch.from_numpy(np.stack(normal)), torch.from_numpy(np.stack(uniform))

    def inside(self, role, phi):
        """The MDP of a role: φ is added to the reward inside."""
        return self.mdp if self.phi is None or role == "outer" else self.mdp.with_reward(self.reward + phi)

    def critic_of(self, estimator):
        if self.tabular.critic == "none":
            return False
        return True if self.tabular.critic == "all" and estimator.critic != "learnt" else estimator.critic

    def sampled(self, role, estimator, rows, phi, theta, step):
        at = theta.detach()
        source = "inner" if role == "hessian" and self.tabular.samples == "shared" else role
        normal, uniform = self.numbers(source, step)
        shape = (*at.shape, self.tabular.states)
        found = envs.successors(self.mdp.transition.expand(shape))
        state, action = envs.rollout(at.softmax(-1), found, uniform[..., rows, :])
        index = [axis[..., None, None] for axis in torch.meshgrid(*map(torch.arange, at.shape[:2]), indexing="ij")]
        detached = getattr(self.tabular, "intrinsic_critic", "") == "detached"
        judged = self.inside(role, phi.detach() if detached else phi)
        values = gm_exact.state_values(judged, at).expand(at.shape[:-1])
        size_of_error = values.detach().norm(dim=-1, keepdim=True) / self.tabular.states
        critic = values + self.tabular.critic_noise * size_of_error * normal
        reward = self.inside(role, phi).reward.expand(at.shape)[(*index, state[..., :-1], action)]
        gamma, kind = self.tabular.discount, self.critic_of(estimator)
        value = critic[(*index, state)] * bool(kind)
        if kind == "learnt":
            value = learnt_values(reward.detach(), state, gamma, self.tabular.states)
        own = getattr(self.tabular, "gae_lambda", 1.0)
        advantage = gae(reward, value, gamma, own if estimator.gae_lambda is None else estimator.gae_lambda)
        log_prob = theta.log_softmax(-1)[(*index, state[..., :-1], action)]
        powers = discounts(gamma, self.tabular.horizon + 1)
        return mean_surrogate(estimator.surrogate, Trajectories(log_prob, reward, value, advantage, powers))

    def estimate(self, name, permutation, size):
        estimator = load(name)
        if estimator.debias is None:
            return self.plain(estimator, permutation, slice(size))
        total = 0
        for weight, parts in estimator.debias.terms(size):
            total = total + weight * torch.stack([self.plain(estimator, permutation, part) for part in parts]).mean(0)
        return total

    def plain(self, estimator, permutation, rows):
        """The estimate from the trajectories of those numbers."""
        steps = self.cell.inner_steps

        def objective(role, letter):
            def number(phi, theta, step):
                if letter == "E":
                    return gm_exact.value(self.inside(role, phi), theta)
                return self.sampled(role, estimator, rows, phi, theta, step)

            return number

        inner, hessian, outer = (objective(role, letter) for role, letter in zip(ROLES, permutation, strict=True))
        start = torch.zeros(len(self.cell.mdps), self.tabular.repeats, *self.reward.shape[-2:], dtype=F64)
        return meta_gradient(
            start if self.phi is None else self.phi, None if self.phi is None else start, inner=inner, hessian=hessian,
            outer=lambda phi, theta: outer(phi, theta, steps), inner_steps=steps, inner_lr=self.cell.inner_lr,
        )  # fmt: skip

    def rows(self):
        """(estimator, permutation, size, MDP) ↦ metrics."""
        ((_, grid),), found = self.cell.grids, {}
        truth = self.estimate("ad", "EEE", 1)[:, 0].flatten(1)
        for name in grid.estimators:
            for permutation in grid.permutations:
                for size in grid.sample_sizes:
                    of = metrics.summary(self.estimate(name, permutation, size).flatten(2), truth)
                    for i, mdp in enumerate(self.cell.mdps):
                        found[name, permutation, size, mdp] = {metric: x[i].item() for metric, x in of.items()}
        return found


def assert_same(rows, expected):
    assert len(rows) == len(expected)
    for row in rows:
        key = row["estimator"], row["permutation"], row["sample_size"], row["mdp"]
        for metric, value in expected[key].items():
            assert row[metric] == pytest.approx(value, rel=1e-7, abs=1e-9), (key, metric)


MAML = {
    "paper": ({}, ("lvc",), ("SSS",), (2, 5)),
    "exact": ({}, ("dice",), ("ESE", "SEE", "EES"), (5,)),
    "shared": ({"samples": "shared"}, ("lvc",), ("SSS", "ESE"), (5,)),
    "all": ({"critic": "all", "critic_noise": 0.5}, ("dice", "lvc+learnt", "loaded_dice@0.5,0.3"), ("SSS",), (5,)),
    "none": ({"critic": "none"}, ("lvc",), ("SSS",), (5,)),
    "jackknife": ({}, ("lvc+jackknife",), ("SSS",), (4,)),
}


@pytest.mark.parametrize("case", MAML)
def test_the_rows_of_maml(case):
    changes, *grid = MAML[case]
    cell = cell_of(Tabular(**SMALL, **changes), *grid)
    assert_same(maml_cell(cell, CONTEXT), Reference(cell).rows())


LIRPG = {
    "paper": ({}, ("lvc",), ("ESE",), (2, 5)),
    "detached": ({"intrinsic_critic": "detached", "gae_lambda": 0.4}, ("lvc",), ("SSS",), (5,)),
    "shared": ({"samples": "shared"}, ("lvc",), ("SSS",), (5,)),
    "all": ({"critic": "all"}, ("dice",), ("ESE",), (5,)),
    "none": ({"critic": "none"}, ("lvc",), ("ESE",), (5,)),
}


@pytest.mark.parametrize("case", LIRPG)
def test_the_rows_of_lirpg(case):
    changes, *grid = LIRPG[case]
    cell = cell_of(Lirpg(**SMALL, **changes), *grid)
    assert_same(lirpg_cell(cell, CONTEXT), Reference(cell, phi=torch.zeros(2, 3, 4, 2, dtype=F64)).rows())


def test_an_intrinsic_reward_other_than_zero_counts_inside_alone():
    tabular = Lirpg(**SMALL)
    cell = cell_of(tabular, ("lvc",), ("SSS", "EES"), (5,))
    draw = torch.Generator().manual_seed(0)
    phi = torch.randn(2, 1, 4, 2, generator=draw, dtype=F64).expand(2, 3, 4, 2)
    mdps = RandomMDPs(cell, "cpu")
    problem = LirpgProblem(mdps.mdp, mdps.zeros(), mdps, phi.clone().requires_grad_(), gae_lambda=tabular.gae_lambda)
    assert_same(measured(problem, cell, "lirpg"), Reference(cell, phi=phi).rows())


def test_an_mdp_has_the_same_rows_whoever_else_is_in_its_cell():
    cell = cell_of(Tabular(**SMALL))
    alone = {row["mdp"]: row for mdp in cell.mdps for row in maml_cell(replace(cell, mdps=(mdp,)), CONTEXT)}
    for row in maml_cell(cell, CONTEXT):
        if row["sample_size"] == 5:
            assert row["variance"] == pytest.approx(alone[row["mdp"]]["variance"], rel=1e-12)


def test_exact_training_ascends():
    cell = cell_of(Tabular(**SMALL))
    mdps = RandomMDPs(cell, "cpu")
    path = exact_training(mdps, 0.5, inner_steps=2, inner_lr=0.8)
    (first, slope), (second, _) = next(path), next(path)
    assert_close(second, first + 0.5 * slope)

    def after(params):
        return gm_exact.value(mdps.mdp, gm_exact.inner_path(mdps.mdp, params, inner_lr=0.8, inner_steps=2)[-1])

    assert (after(second) > after(first)).all()


@pytest.mark.parametrize("mdps", [1, 5, 6, 12])
def test_every_mdp_is_in_one_cell_for_each_k_and_alpha(mdps):
    settings = MamlSettings(figure=("fig5",), mdps=mdps, inner_lrs=(1.0, 3.0), inner_steps=(1, 2))
    found = [(cell.inner_steps, cell.inner_lr, mdp) for cell in maml_cells(settings) for mdp in cell.mdps]
    assert sorted(found) == [(k, a, mdp) for k in (1, 2) for a in (1.0, 3.0) for mdp in range(mdps)]
