import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gm_envs_tabular import grid_world, random_mdp, sparse_dirichlet

CONCENTRATIONS = [1e-6, 0.001, 0.1, 1.0, 100.0]
OUTCOMES = 4


def rows(concentration: float, count: int = 4000, outcomes: int = OUTCOMES) -> np.ndarray:
    return sparse_dirichlet(np.random.default_rng(0), concentration, (count, outcomes))


def dirichlet_variance(concentration: float) -> float:
    """(1/S) (1 − 1/S) / (S c + 1)."""
    return (1 / OUTCOMES) * (1 - 1 / OUTCOMES) / (OUTCOMES * concentration + 1)


def largest_z(samples: np.ndarray, mean: float) -> float:
    """The largest |mean of a column − mean| in standard errors."""
    error = samples.std(0, ddof=1) / len(samples) ** 0.5
    return float((np.abs(samples.mean(0) - mean) / error).max())


@pytest.mark.parametrize("outcomes", [1, 2, 20, 2000])
@pytest.mark.parametrize("concentration", [5e-324, *CONCENTRATIONS, 1e16, 1e300, 1e308])
def test_rows_are_distributions_at_any_concentration_and_size(concentration, outcomes):
    p = rows(concentration, 50, outcomes)
    assert p.shape == (50, outcomes)
    assert p.dtype == np.float64
    assert np.isfinite(p).all()
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(-1), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("concentration", CONCENTRATIONS)
def test_the_moments_are_those_of_the_dirichlet_distribution(concentration):
    p = rows(concentration)
    # within 4 standard errors
    assert largest_z(p, 1 / OUTCOMES) < 4
    assert largest_z((p - 1 / OUTCOMES) ** 2, dirichlet_variance(concentration)) < 4


@pytest.mark.parametrize("concentration", [0.1, 1.0, 100.0])
def test_another_concentration_is_rejected(concentration):
    """The control: twice the concentration has the same mean and another variance."""
    assert largest_z((rows(concentration) - 1 / OUTCOMES) ** 2, dirichlet_variance(2 * concentration)) > 4


def test_a_biased_mean_is_rejected():
    p = rows(0.001)
    p[:200] = np.eye(OUTCOMES)[0]  # 5 % of the rows choose outcome 0
    assert largest_z(p, 1 / OUTCOMES) > 4


def test_at_the_papers_concentration_most_transitions_are_almost_deterministic():
    share = (rows(0.001, 4000, 20).max(-1) > 0.99).mean()
    assert 0.85 < share < 0.95


def test_a_random_mdp_has_the_papers_tables():
    mdp = random_mdp(np.random.default_rng(0))
    assert mdp.transition.shape == (20, 5, 20)
    assert mdp.reward.shape == (20, 5)
    assert mdp.transition.dtype == mdp.reward.dtype == torch.float64
    rewards = random_mdp(np.random.default_rng(0), states=100, actions=50).reward
    assert ((rewards >= 0) & (rewards < 1)).all()
    # uniform: mean 1/2, variance 1/12, 5000 rewards, 4 standard errors
    assert abs(rewards.mean().item() - 0.5) < 4 * (1 / 12 / 5000) ** 0.5


def test_the_seed_decides():
    first, same = (random_mdp(np.random.default_rng(7), states=4, actions=2) for _ in range(2))
    other = random_mdp(np.random.default_rng(8), states=4, actions=2)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first.reward, other.reward)
    assert not torch.equal(first.transition, other.transition)


@pytest.mark.parametrize("concentration", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bad_concentration_is_refused(concentration):
    with pytest.raises(ValueError, match=f"concentration: expected a positive finite number, got {concentration}"):
        random_mdp(np.random.default_rng(0), concentration=concentration)


def test_a_bad_size_is_refused():
    for states in (0, -1, True):
        with pytest.raises(ValueError, match=f"states: expected an integer of at least 1, got {states}"):
            random_mdp(np.random.default_rng(0), states=states)
    with pytest.raises(ValueError, match=r"shape: expected sizes of at least 1, got \(0, 5\)"):
        sparse_dirichlet(np.random.default_rng(0), 1.0, (0, 5))
    with pytest.raises(ValueError, match=r"shape: expected sizes of at least 1, got \(\)"):
        sparse_dirichlet(np.random.default_rng(0), 1.0, ())


@given(states=st.integers(10**6, 10**30), actions=st.integers(1, 10**9))
def test_tables_that_no_memory_holds_are_refused_before_they_are_made(states, actions):
    with pytest.raises(ValueError, match=r"states, actions: expected sizes that fit into the .* GB .* that need .* GB"):
        random_mdp(np.random.default_rng(0), states=states, actions=actions)
    with pytest.raises(ValueError, match=r"height, width: expected sizes that fit into the .* GB .* that need .* GB"):
        grid_world(np.random.default_rng(0), height=states, width=actions)


def test_integers_of_numpy_are_integers():
    assert random_mdp(np.random.default_rng(0), states=np.int64(3), actions=np.int8(2)).reward.shape == (3, 2)
