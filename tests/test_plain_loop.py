"""The batched path against the plain loop of benchmarks/: one trajectory and one step at a time."""

import plain_loop
import pytest
import torch

import gm_estimators


@pytest.mark.parametrize("inner_steps", [1, 2])
@pytest.mark.parametrize("estimator", list(gm_estimators.estimator.CATALOGUE))
def test_the_batched_path_is_the_plain_loop(make_mdp, wire, estimator, inner_steps):
    states, size, repeat = 6, 4, 1
    mdp = make_mdp(states=states, actions=3, concentration=0.2, discount=0.8, seed=3)
    params = torch.randn(2, states, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wiring = wire(mdp, params, horizon=5, size=size, seed=11)
    found = gm_estimators.decompose(
        wiring.problem,
        [gm_estimators.load(estimator)],
        sizes=[size],
        inner_steps=inner_steps,
        inner_lr=3.0,
    )

    def random(role, step):
        uniform = wiring.uniforms(role, step)[repeat]
        return plain_loop.Randomness(uniform.tolist(), wiring.critic_noise(role, step)[repeat])

    problem = plain_loop.Problem(mdp.transition[0], mdp.reward[0], mdp.discount)
    for (_, permutation, _), estimate in found.items():
        plain = plain_loop.meta_gradient(
            problem,
            params[repeat],
            random,
            estimator=estimator,
            permutation=permutation,
            inner_steps=inner_steps,
            inner_lr=3.0,
        )
        torch.testing.assert_close(estimate[repeat], plain, rtol=1e-10, atol=1e-12)
