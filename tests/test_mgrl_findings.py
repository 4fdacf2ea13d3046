"""Titles of MGRL's pictures say what intervals tell apart, and nothing where they don't."""

import numpy as np
import pandas as pd
import pytest

from gm_experiments.common import coincide
from gm_experiments.mgrl import figures
from gm_experiments.mgrl import findings as mgrl
from gm_experiments.mgrl.settings import PARTS, SECONDS, Settings, completed
from gm_experiments.mgrl.training import NAMES
from gm_lab.analysis import caption_of, finding_of, panels


def returns(finals, seeds=5, steps=3_000_000):
    rows = [
        {"game": "Qbert", "algorithm": name, "seed": seed, "env_steps": steps, "episode_return": final + seed % 3}
        for name, final in finals.items() for seed in range(seeds)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_returns_say_what_runs_can_tell():
    told = returns({"a2c": 100, "mgrl": 300, "mgrl-lvc": 300})
    assert mgrl.returns(told) == "MGRL ends above A2C in Qbert"
    one = told[told["seed"] == 0]
    assert mgrl.returns(one) == "One run each of 3 million environment steps cannot tell algorithms apart"
    alike = returns({"a2c": 100, "mgrl": 100})
    assert mgrl.returns(alike) == "5 runs of 3 million environment steps tell no two algorithms apart"


def test_returns_of_a_few_steps_say_that_nothing_is_learnt_unless_they_tell_algorithms_apart():
    short = returns({"a2c": 100, "mgrl": 100}, steps=3200)
    assert mgrl.returns(short) == "3,200 environment steps are too few to learn to play"
    assert mgrl.returns(short[short["seed"] == 0]) == "3,200 environment steps are too few to learn to play"
    assert mgrl.returns(returns({"a2c": 100, "mgrl": 300}, steps=3200)) == "MGRL ends above A2C in Qbert"


def test_meta_parameters_and_time_are_said_with_their_numbers():
    path = [{"game": "Qbert", "algorithm": "mgrl", "seed": 0, "env_steps": steps} | dict.fromkeys(NAMES, 0.5)
            for steps in (0, 1000)]  # fmt: skip
    log = pd.DataFrame(path)
    assert mgrl.meta_parameters(log).endswith("no meta-parameter moves")
    log.loc[1, NAMES[3]] = 0.25
    assert mgrl.meta_parameters(log) == "In 1,000 environment steps the entropy coefficient moves most, by up to 50%"
    spent = pd.DataFrame([{"algorithm": "mgrl"} | dict.fromkeys(SECONDS, 1.0) | {SECONDS[3]: 15.0}])
    assert mgrl.time(spent) == f"{PARTS[3][:1].upper()}{PARTS[3][1:]}: 75% of the time in MGRL"


def test_a_run_resumed_after_its_last_update_has_no_part_in_the_picture_of_time():
    row = {"figure": "throughput", "game": "Qbert", "algorithm": "mgrl"}
    frame = pd.DataFrame(map(completed, [row | dict.fromkeys(SECONDS, 1.0), row | dict.fromkeys(SECONDS, 0.0)]))
    frame.loc[1, "algorithm"] = "mgrl-lvc"
    drawn = figures.figures(Settings(), frame)["time"]
    assert "nan" not in finding_of(drawn)
    assert "LVC" not in finding_of(drawn)
    assert "time" not in figures.figures(Settings(), frame.loc[1:])


def test_the_meta_gradient_has_a_direction_if_its_intervals_say_so():
    rows = pd.DataFrame([
        {"game": "Qbert", "updates": 0, "windows": 24, "variant": name, "accuracy_low": low, "bias_sq_low": -1.0}
        for name, low in {"lvc": 0.1, "ad, K=1": -0.1}.items()
    ])  # fmt: skip
    assert mgrl.gradient(rows) == "24 windows tell the direction of the meta-gradient from noise for LVC"
    assert mgrl.gradient(rows.assign(accuracy_low=-1.0)).startswith("24 windows do not tell the direction of any")
    assert mgrl.gradient(rows.assign(bias_sq_low=1.0)).endswith("and find a bias in LVC and AD, K = 1")


def studied(**ends):
    """Rows of a study at two points, with the interval of the cosine with LVC's and of the spread by variant."""
    rows = [
        {"figure": "gradient", "game": "Qbert", "algorithm": "mgrl-lvc", "seed": 0, "updates": updates, "windows": 24,
         "variant": name.replace("_K1", ", K=1"), "same": (low + high) / 2, "same_low": low, "same_high": high,
         "spread": 2.0, "spread_low": 1.5 if updates else 0.5, "spread_high": 2.5, "accuracy_low": -1.0,
         "bias_sq_low": -1.0}
        for updates in (0, 40) for name, (low, high) in ends.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_which_variants_agree_on_a_window_is_said_where_intervals_are_clear_of_nine_tenths():
    rows = studied(loaded_dice=(0.95, 1.0), lvc=(1.0, 1.0), ad=(0.95, 1.0), lvc_K1=(-0.3, 0.4), ad_K1=(-0.3, 0.4))
    agreed = "On one window LVC, Loaded-DiCE and AD give meta-gradients of one direction"
    assert mgrl.gradient(rows) == f"{agreed}, which changes with K = 1"
    rows.loc[(rows["variant"] == "ad") & (rows["updates"] == 40), "same_low"] = 0.89
    assert mgrl.gradient(rows).startswith("On one window LVC and Loaded-DiCE give")
    rows.loc[rows["variant"].str.contains("K=1"), "same_high"] = 0.91
    rows.loc[rows["variant"] == "loaded_dice", "same_low"] = np.nan
    assert mgrl.gradient(rows) == "24 windows do not tell the direction of any variant's meta-gradient from noise"


def test_spreads_of_estimators_are_said_with_their_intervals_where_these_leave_out_one():
    rows = studied(lvc=(1.0, 1.0), ad=(0.95, 1.0), ad_K1=(-0.3, 0.4))
    expected = "Beside LVC's, the deviation of one window's meta-gradient is 2 [1.5, 2.5] by AD after 40 updates"
    assert mgrl.spread(rows) == expected
    assert mgrl.spread(rows.assign(spread_low=0.5)) == ""
    assert mgrl.conclusion(None, rows)[0] == expected
    assert mgrl.conclusion(None, rows[:0]) == []


@pytest.mark.parametrize(("distance", "said"), [(0.0, True), (0.005, True), (0.02, False)])
def test_curves_that_coincide_are_said_to(distance, said):
    """Those nowhere farther apart than a hundredth of the panel's height."""
    figure = panels(["left", "right"])
    x, y = np.arange(5), np.linspace(0, 1, 5)
    for axes, shift in zip(figure.axes, (0.0, distance), strict=True):
        axes.plot(x, y, label="A")
        axes.plot(x, y + shift, label="B")
        axes.plot(x, y[::-1], label="C")
        axes.set_ylim(0, 1)
    assert coincide.said(figure.axes) == ("A and B coincide in every panel." if said else "A and B coincide in left.")
    assert coincide.said(figure.axes[:1]) == "A and B coincide."
    figure.axes[0].lines[1].set_data(x[:3] + 0.5, y[:3])  # nowhere where A is
    assert coincide.said(figure.axes[:1]) == ""


@pytest.mark.parametrize(
    ("steps", "unit", "at", "tick"),
    [(3_200, "", 3e3, "3,000"), (400_000, ", thousands", 3e5, "300"), (40_000_000, ", millions", 3e7, "30")],
)
def test_the_axis_of_steps_has_units_that_can_be_read(steps, unit, at, tick):
    """And what two algorithms have in common is said beneath the picture."""
    rows = [
        completed({"figure": "returns", "game": "Qbert", "algorithm": name, "seed": 0, "updates": n, "env_steps": n,
                   "episode_return": 100.0 * n} | dict.fromkeys(NAMES, 0.5 + 0.1 * n / steps))
        for name in ("a2c", "mgrl", "mgrl-lvc") for n in (steps // 2, steps)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.loc[frame["algorithm"] == "a2c", "episode_return"] = 0.0
    drawn = figures.figures(Settings(), frame)
    axes = drawn["meta_parameters"].axes[-1]
    assert axes.get_xlabel() == f"environment steps{unit}"
    assert axes.xaxis.get_major_formatter()(at, 0) == tick
    assert "MGRL and MGRL + LVC coincide in every panel." in caption_of(drawn["meta_parameters"])
    assert "MGRL and MGRL + LVC coincide." in caption_of(drawn["returns"])
