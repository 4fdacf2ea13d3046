import numpy as np
import pytest
import torch

from gm_envs_tabular import CommonNoise, uniforms


def generator(problem: int):
    return lambda role, step: np.random.default_rng([problem, len(role), step])


def noise(*problems: int, size: int = 8) -> CommonNoise:
    return CommonNoise([generator(problem) for problem in problems], (2,), size, 5, 3)


def test_a_stream_gives_critic_noise_and_then_the_uniforms_of_a_rollout():
    found, rng = noise(0, 1), generator(1)("outer", 2)
    assert found.critic("outer", 2).shape == (2, 2, 3)
    assert found.uniform("outer", 2).shape == (2, 2, 8, 5)
    np.testing.assert_array_equal(found.critic("outer", 2)[1], rng.standard_normal((2, 3)))
    assert torch.equal(found.uniform("outer", 2)[1], uniforms(rng, (2,), 8, 5))


def test_numbers_do_not_depend_on_who_asks_first_or_what_is_beside():
    first, second = noise(0, 1), noise(1)
    first.uniform("inner", 0)
    for role, step in (("outer", 0), ("inner", 1), ("inner", 0)):
        assert torch.equal(first.uniform(role, step)[1:], second.uniform(role, step))
        assert torch.equal(first.critic(role, step)[1:], second.critic(role, step))
    assert torch.equal(first.uniform("inner", 0), first.uniform("inner", 0))


def test_roles_steps_problems_and_repeats_differ():
    found = noise(0, 1)
    streams = [found.uniform(*key) for key in (("inner", 0), ("inner", 1), ("hessian", 0))]
    everything = torch.stack(streams)
    assert everything.unique().numel() == everything.numel()


@pytest.mark.parametrize("size", [1, 3])
def test_a_smaller_size_is_a_part_of_a_larger_one(size):
    assert torch.equal(noise(0, size=size).uniform("inner", 0), noise(0).uniform("inner", 0)[..., :size, :])


def test_time_comes_first_in_memory():
    assert noise(0, 1).uniform("inner", 0).movedim((-1, -2), (0, 1)).is_contiguous()


@pytest.mark.parametrize(("name", "value"), [("size", 0), ("horizon", 0), ("states", -1), ("size", True)])
def test_sizes_that_are_none_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected an integer of at least 1, got {value}"):
        CommonNoise([generator(0)], (2,), **({"size": 8, "horizon": 5, "states": 3} | {name: value}))


def test_noise_is_of_at_least_one_problem():
    with pytest.raises(ValueError, match="generators: expected at least one problem's, got none"):
        noise()
