"""benchmarks/wandb_cost.py: what its exit status says of what it measured."""

import pytest
import wandb_cost

GOOD = {
    "disabled": 0.0,
    wandb_cost.CONTROL: -0.01,
    "unreachable": 0.019,
    "slow": -0.05,
    "refusing": 0.0,
    "online": 0.0199,
}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({}, ""),
        ({"slow": 0.021, "online": 0.5}, "expected at most +2% of computing time, got slow +2.1%, online +50.0%"),
        (
            {wandb_cost.CONTROL: -0.03},
            "expected a machine that repeats itself within 2%, got -3.0% without W&B; more rounds",
        ),
    ],
)
def test_more_than_two_percent_is_exit_status_1(monkeypatch, capsys, changed, complaint):
    slower = GOOD | changed
    monkeypatch.setattr(wandb_cost, "seconds", lambda mode, _path: (10 * (1 + slower[mode]), 1.0, 1.0))
    assert wandb_cost.main(["2"]) == int(bool(complaint))
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(wandb_cost.MODES)
    assert printed.err == (f"wandb_cost: {complaint}\n" if complaint else "")


def test_the_stand_in_answers_in_modes_that_are_online():
    assert set(wandb_cost.MODES) == set(GOOD)
