"""What the packages compute in batches is what the plain loops of docs/reading/ compute; LOLA's is in test_lola.py."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import gm_mgrl_atari
from gm_estimators import ascent, decompose, load
from gm_estimators.estimator import CATALOGUE
from gm_exact import PolicyEvaluation, state_values
from gm_experiments.lirpg.problem import LirpgProblem
from reading import lirpg, maml, mgrl
from reading.mdp import MDP

F64 = torch.float64
SIZE, REPEAT, GAE_LAMBDA = 4, 1, 0.9
PAGES = sorted((Path(__file__).parents[1] / "docs" / "reading").glob("*.py"))


@pytest.fixture(scope="module")
def wiring(make_mdp, wire):
    """One MDP, two repeats at a random θ⁰."""
    mdp = make_mdp(states=6, actions=3, concentration=0.2, discount=0.8, seed=3)
    params = torch.randn(2, 6, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    return wire(mdp, params, horizon=5, size=SIZE, seed=11)


def plain_inputs(wiring):
    """The problem of one repeat for a plain loop: its MDP, θ⁰, and its random numbers for each role and step."""

    def random(role: str, step: int) -> maml.Randomness:
        return maml.Randomness(wiring.uniforms(role, step)[REPEAT].tolist(), wiring.critic_noise(role, step)[REPEAT])

    mdp = MDP(wiring.mdp.transition[0], wiring.mdp.reward[0], wiring.mdp.discount)
    return mdp, wiring.params[REPEAT], random


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("estimator", list(CATALOGUE))
def test_the_batched_path_is_the_plain_loop_of_maml(wiring, estimator, inner_steps):
    terms = {"inner_steps": inner_steps, "inner_lr": 3.0}
    estimates = decompose(wiring.problem, [load(estimator)], sizes=[SIZE], **terms)
    mdp, theta, random = plain_inputs(wiring)
    for (_, permutation, _), estimate in estimates.items():
        plain = maml.meta_gradient(mdp, theta, random, estimator=estimator, permutation=permutation, **terms)
        assert_close(estimate[REPEAT], plain, rtol=1e-10, atol=1e-12)


class KnownError(LirpgProblem):
    """LIRPG whose critic's error is that of a critic which does not know φ."""

    def critic(self, role: str, step: int, params: Tensor, _evaluation: PolicyEvaluation) -> Tensor:
        plain = state_values(self.mdp, params)
        judged = plain if role == "outer" else state_values(self._judged, params)
        return judged + self.numbers.critic_error(role, step, plain)


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("estimator", list(CATALOGUE))
def test_the_batched_path_is_the_plain_loop_of_lirpg(wiring, estimator, inner_steps):
    phi = torch.randn(wiring.params.shape, generator=torch.Generator().manual_seed(1), dtype=F64).requires_grad_()
    terms = {"inner_steps": inner_steps, "inner_lr": 3.0}
    problem = KnownError(wiring.mdp, wiring.params, wiring, phi, gae_lambda=GAE_LAMBDA)
    estimates = decompose(problem, [load(estimator)], sizes=[SIZE], **terms)
    mdp, theta, random = plain_inputs(wiring)
    for (_, permutation, _), estimate in estimates.items():
        named = {"estimator": estimator, "permutation": permutation, "gae_lambda": GAE_LAMBDA}
        plain = lirpg.meta_gradient(mdp, phi[REPEAT], theta, random, **named, **terms)
        assert_close(estimate[REPEAT], plain, rtol=1e-10, atol=1e-12)


def random_batch(network: gm_mgrl_atari.Network, seed: int) -> gm_mgrl_atari.Batch:
    """Random experience that has a lost life, a time limit and a reset step."""
    draw = torch.Generator().manual_seed(seed)
    flags = torch.zeros(3, 3, 4, dtype=torch.bool)
    flags[0, 0, 1] = flags[1, 1, 2] = flags[2, 1, 3] = True
    frames = (3, 5, network.frames, network.size, network.size)
    return gm_mgrl_atari.Batch(
        observation=torch.randint(0, 256, frames, generator=draw, dtype=torch.uint8),
        action=torch.randint(network.actions, (3, 4), generator=draw),
        reward=torch.randint(-1, 2, (3, 4), generator=draw).float(),
        terminated=flags[0],
        truncated=flags[1],
        valid=~flags[2],
    )


@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("estimator", ["ad", "lvc"])
def test_the_batched_path_is_the_plain_loop_of_mgrl(estimator, inner_steps):
    network = gm_mgrl_atari.Network(actions=3, frames=2, size=6, layers=((3, 3, 2),), hidden=4, embedding=2)
    draw = torch.Generator().manual_seed(0)
    params = {
        name: value + 0.3 * torch.randn(value.shape, generator=draw, dtype=F64)
        for name, value in network.init(draw, dtype=F64).items()
    }
    logits = torch.tensor(gm_mgrl_atari.INITIAL_LOGITS, dtype=F64)
    batches = [random_batch(network, seed) for seed in range(inner_steps + 1)]
    learner = gm_mgrl_atari.Learner(network, load(estimator), ascent(0.3))
    start = gm_mgrl_atari.Point(params, None)
    window = learner.window(start, logits, lambda _, step: batches[step], inner_steps)
    plain = mgrl.meta_gradient(network, params, logits, batches, estimator=estimator, inner_lr=0.3)
    assert plain.abs().min() > 1e-8, "a test that sees nothing of some meta-parameter"
    assert_close(window.meta_gradient, plain, rtol=1e-9, atol=1e-14)


def test_every_algorithm_fits_on_one_screen_and_is_shown():
    index = (PAGES[0].parent / "index.md").read_text()
    assert [page.stem for page in PAGES] == ["lirpg", "lola", "maml", "mdp", "mgrl"]
    for page in PAGES:
        assert len(page.read_text().splitlines()) <= 100, page.name
        assert f"]({page.name})" in index
        assert f"--8<--\ndocs/reading/{page.name}\n--8<--" in index
