import inspect

import pytest
import torch

from gm_exact import TabularMDP, evaluate, value

TRANSITION = torch.full((3, 2, 3), 1 / 3, dtype=torch.float64)
REWARD = torch.ones(3, 2, dtype=torch.float64)
PARAMS = torch.zeros(3, 2, dtype=torch.float64)
GOOD = {"transition": TRANSITION, "reward": REWARD, "start": 0, "discount": 0.9}


def with_entry(tensor, index, entry):
    changed = tensor.clone()
    changed[index] = entry
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transition": TRANSITION[:2]}, r"transition: expected shape \[..., state, action, state\], got \(2, 2, 3\)"),
        ({"transition": TRANSITION[:, :0]}, r"transition: expected at least one state and one action, got .*3, 0, 3"),
        ({"reward": REWARD.T}, r"reward: expected shape \[..., 3, 2\], got \(2, 3\)"),
        ({"reward": REWARD.float()}, r"reward: expected the transition's floating dtype, got torch.float32"),
        ({"reward": REWARD * torch.nan}, r"reward: expected finite numbers, got 6 that are not"),
        ({"start": 3}, r"start: expected a distribution or a state in 0..2, got 3"),
        ({"start": -1}, r"start: expected a distribution or a state in 0..2, got -1"),
        ({"start": torch.full((2,), 0.5).double()}, r"start: expected shape \[..., 3\], got \(2,\)"),
        ({"start": torch.full((3,), 0.5).double()}, r"start: expected rows that sum to 1, got one that is off by 0.5"),
        ({"transition": with_entry(TRANSITION, (0, 0, 0), -0.1)}, r"expected probabilities of at least 0, got -0.1"),
        ({"transition": with_entry(TRANSITION, (2, 1, 0), 0.3)}, r"rows that sum to 1, got one that is off by 0.0333"),
        ({"transition": with_entry(TRANSITION, (2, 1, 0), torch.inf)}, r"transition: expected finite numbers, got 1"),
        ({"discount": 1.1}, r"discount: expected a number in \[0, 1\], got 1.1"),
        ({"discount": float("nan")}, r"discount: expected a number in \[0, 1\], got nan"),
        (
            {"transition": TRANSITION.expand(2, 3, 2, 3), "reward": REWARD.expand(5, 3, 2)},
            r"batch axes: expected shapes that broadcast, got transition \(2, 3, 2, 3\), reward \(5, 3, 2\)",
        ),
    ],
)
def test_a_bad_mdp_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TabularMDP(**(GOOD | change))


@pytest.mark.parametrize(
    ("params", "request_", "discount", "message"),
    [
        (torch.zeros(2, 2).double(), {}, 0.9, r"params: expected shape \[..., 3, 2\], got \(2, 2\)"),
        (PARAMS.float(), {}, 0.9, r"params: expected torch.float64 on cpu, as the MDP, got torch.float32 on cpu"),
        (PARAMS, {}, 1.0, r"discount: expected less than 1 for an infinite horizon, got 1.0"),
        (PARAMS, {"horizon": 0}, 0.9, r"horizon: expected a positive integer or None, got 0"),
        (PARAMS, {"horizon": True}, 0.9, r"horizon: expected a positive integer or None, got True"),
        (PARAMS, {"terminal_value": torch.zeros(3)}, 0.9, r"horizon: expected a number of steps with terminal_value"),
        (PARAMS, {"horizon": 2, "terminal_value": torch.zeros(2)}, 0.9, r"terminal_value: expected shape \[..., 3\]"),
    ],
)
def test_a_bad_request_is_refused(params, request_, discount, message):
    with pytest.raises(ValueError, match=message):
        # unwrapped: beartype, which the tests have and a user has not, would speak first
        inspect.unwrap(evaluate)(TabularMDP(**(GOOD | {"discount": discount})), params, **request_)


def test_a_vector_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"vector: expected shape \[..., 3, 2\], got \(2, 3\)"):
        evaluate(TabularMDP(**GOOD), PARAMS).tangent(torch.zeros(2, 3).double())


def test_rounding_of_float32_rows_is_accepted():
    rows = torch.rand(200, 5, 200, generator=torch.Generator().manual_seed(0))
    TabularMDP(rows / rows.sum(-1, keepdim=True), torch.zeros(200, 5), 0, 0.9)


def test_unchecked_skips_the_checks_and_nothing_else():
    assert TabularMDP.unchecked(TRANSITION * 2, REWARD, 0, 0.9).discount == 0.9
    checked, unchecked = TabularMDP(**GOOD), TabularMDP.unchecked(**GOOD)
    assert value(checked, PARAMS) == value(unchecked, PARAMS)


def test_a_start_state_is_a_distribution_with_one_entry():
    assert TabularMDP(**(GOOD | {"start": 2})).start_distribution.tolist() == [0, 0, 1]
