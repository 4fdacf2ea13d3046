"""Who needs how many trajectories for the same accuracy, on curves whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from gm_experiments.maml.conclusion import conclusion, times_as_many

SIZES = (2, 4, 8, 16, 32, 64)


def frame(noise=0.0, mdps=10, **shifts):
    """Accuracies a + log₂(n) / 10, where a shift of 0.1 is worth a factor of 2 in n."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "estimator": name,
            "mdp": mdp,
            "sample_size": n,
            "accuracy": shift + np.log2(n) / 10 + noise * rng.normal(),
        }
        for name, shift in shifts.items()
        for mdp in range(mdps)
        for n in SIZES
    ]
    return pd.DataFrame(rows).assign(figure="fig4", permutation="SSS", inner_steps=1, inner_lr=10.0)


@pytest.mark.parametrize(
    ("wanted", "other", "ratios"),
    [
        ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3], [1, 1, 1]),
        ([0.2, 0.3, 0.4], [0.1, 0.2, 0.3], [2, 2, np.inf]),
        ([0.1, 0.15, 0.3], [0.1, 0.2, 0.3], [1, 2**-0.5, 1]),
        ([0.0, 0.1, 0.2], [0.1, 0.2, 0.3], [0, 0.5, 0.5]),
        # a curve that falls again has got there all the same
        ([0.2, 0.2, 0.2], [0.1, 0.2, 0.1], [2, 1, 0.5]),
    ],
)
def test_the_size_at_which_a_curve_first_has_a_value(wanted, other, ratios):
    np.testing.assert_allclose(times_as_many(*map(np.array, (wanted, other, SIZES[:3]))), ratios)


def test_a_factor_of_two_is_found():
    (said,) = conclusion(None, frame(lvc=0.1, loaded_dice=0.0))
    assert said == (
        "For the accuracy of LVC with 2 to 64 trajectories Loaded-DiCE needs 2.0 times as many or more than were ever "
        "drawn"
    )


def test_fewer_is_found_and_only_what_is_told_apart_is_said():
    (said,) = conclusion(None, frame(noise=0.001, lvc=0.0, loaded_dice=0.1))
    assert said.startswith("For the accuracy of LVC with 2 to 64 trajectories Loaded-DiCE needs 0.50 ")
    assert conclusion(None, frame(noise=0.5, lvc=0.0, loaded_dice=0.0)) == []


def test_little_data_concludes_nothing():
    assert conclusion(None, frame(mdps=4, lvc=0.1, loaded_dice=0.0)) == []
    assert conclusion(None, frame(lvc=0.1)) == []
    assert conclusion(None, frame(lvc=0.1, loaded_dice=0.0).assign(permutation="SSE")) == []
