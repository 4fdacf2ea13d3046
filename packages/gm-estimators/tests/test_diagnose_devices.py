"""A diagnosis says the same wherever its loop computes."""

import math

import pytest
import torch

from gm_estimators import Sizes, Trajectories
from gm_estimators.diagnose import diagnose
from gm_estimators.optimisers import adam
from gm_estimators.returns import gae

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LANES, TASKS, TIME = 8, 2, 3


def diagnosed(device):
    goal = torch.tensor([0.5, -0.3], dtype=torch.float64, device=device).unsqueeze(-1)

    def draw(role, step, params, n, seed):
        noise = torch.randn(LANES, TASKS, n, TIME, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return params["mean"].unsqueeze(-1) + noise.to(device)

    def see(action, params, gae_lambda):
        log_prob = -0.5 * (action - params["mean"].unsqueeze(-1)).square()
        reward = -(action - goal.unsqueeze(-1)).square()
        value = torch.zeros(*reward.shape[:-1], TIME + 1, dtype=torch.float64, device=device)
        discount = 0.9 ** torch.arange(TIME + 1, dtype=torch.float64, device=device)
        return Trajectories(log_prob, reward, value, gae(reward, value, 0.9, gae_lambda or 1.0), discount)

    params = {"mean": torch.zeros(1, dtype=torch.float64, device=device)}
    loop = {"draw": draw, "see": see, "params": params, "sizes": Sizes(8, 8, 4), "tasks": TASKS, "lanes": LANES}
    report = diagnose(**loop, optimiser=adam(0.1, eps=1e-2), surrogate="lvc", inner_steps=2, budget=1)
    advice = report.advise(trajectories=12, splits=(0.5,), budget=1)
    return report, advice


@pytest.fixture(scope="module")
def on_the_cpu():
    return diagnosed("cpu")


@pytest.mark.parametrize("device", DEVICES)
def test_a_diagnosis_says_the_same_on_every_device(device, on_the_cpu):
    (report, advice), (same, advised) = diagnosed(device), on_the_cpu
    for row, other in zip(report.rows(), same.rows(), strict=True):
        assert {**row, "value": 0, "low": 0, "high": 0} == {**other, "value": 0, "low": 0, "high": 0}
        for number in ("value", "low", "high"):
            assert math.isclose(row[number], other[number], rel_tol=1e-6, abs_tol=1e-9)
    for choice, other in zip(advice.choices, advised.choices, strict=True):
        assert (choice.estimator, choice.sizes) == (other.estimator, other.sizes)
        assert math.isclose(choice.mse, other.mse, rel_tol=1e-6)
