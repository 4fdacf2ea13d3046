"""Titles of MGRL's pictures say what intervals tell apart, and nothing where they don't."""

import pandas as pd

from gm_experiments.mgrl import findings as mgrl
from gm_experiments.mgrl.settings import NAMES, PARTS, SECONDS


def returns(finals, seeds=5, steps=1000):
    rows = [
        {"game": "Qbert", "algorithm": name, "seed": seed, "env_steps": steps, "episode_return": final + seed % 3}
        for name, final in finals.items() for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_returns_say_what_runs_can_tell():
    told = returns({"a2c": 100, "mgrl": 300, "mgrl-lvc": 300})
    assert mgrl.returns(told) == "MGRL ends above A2C in Qbert"
    assert (
        mgrl.returns(told[told["seed"] == 0]) == "One run each of 1,000 environment steps cannot tell algorithms apart"
    )
    assert mgrl.returns(returns({"a2c": 100, "mgrl": 100})) == (
        "5 runs of 1,000 environment steps tell no two algorithms apart"
    )


def test_meta_parameters_and_time_are_said_with_their_numbers():
    path = [{"game": "Qbert", "algorithm": "mgrl", "seed": 0, "env_steps": steps} | dict.fromkeys(NAMES, 0.5)
            for steps in (0, 1000)]  # fmt: skip
    log = pd.DataFrame(path)
    assert mgrl.meta_parameters(log).endswith("no meta-parameter moves")
    log.loc[1, NAMES[3]] = 0.25
    assert mgrl.meta_parameters(log) == "In 1,000 environment steps the entropy coefficient moves most, by up to 50%"
    spent = pd.DataFrame([{"algorithm": "mgrl"} | dict.fromkeys(SECONDS, 1.0) | {SECONDS[3]: 15.0}])
    assert mgrl.time(spent) == f"{PARTS[3][:1].upper()}{PARTS[3][1:]}: 75% of the time in MGRL"


def test_the_meta_gradient_has_a_direction_if_its_intervals_say_so():
    rows = pd.DataFrame([
        {"game": "Qbert", "updates": 0, "windows": 24, "variant": name, "accuracy_low": low, "bias_sq_low": -1.0}
        for name, low in {"lvc": 0.1, "ad, K=1": -0.1}.items()
    ])  # fmt: skip
    assert mgrl.gradient(rows) == "24 windows tell the direction of the meta-gradient from noise for LVC"
    assert mgrl.gradient(rows.assign(accuracy_low=-1.0)).startswith("24 windows do not tell the direction of any")
    assert mgrl.gradient(rows.assign(bias_sq_low=1.0)).endswith("and find a bias in LVC and AD, K = 1")
