"""Every picture of the tabular experiments and of LOLA can be read: small runs draw none with a fault."""

import importlib.util
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gm_lab import caption_of, entitle, finding_of, panels
from gm_lab.run import parse

SPEC = importlib.util.spec_from_file_location("picture_faults", Path(__file__).with_name("picture_faults.py"))
picture_faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(picture_faults)
faults = picture_faults.faults
GAME = "--updates 2 --horizon 4 --evaluation-size 4"
RUNS = {
    "theory": ("maml", "--repeats 3 --states 4 --actions 2 --horizon 4 --mdps 2 --figure theory --sample-sizes 3 6 "
        "--inner-steps 2 --inner-lrs 3"),
    "lola": ("lola", f"--figure fig2a fig2b fig2c fig2d fig8 {GAME} --seeds 2"),
    "one seed": ("lola", f"--figure fig2d fig8 {GAME} --seeds 1"),
    "debias": ("lola", f"--figure debias {GAME} --seeds 2"),
}  # fmt: skip
"""Small runs: app and flags."""
ALL, EVERY = ("ad", "dice", "loaded_dice", "lvc"), ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
MANY = tuple(f"a_users.module:estimator_with_a_name_that_goes_on_and_on_{n}" for n in range(10))
POWERS = (2, 4, 8, 16, 32, 64, 128, 256)
MADE = {
    "maml": [("fig1", ("ad", "lvc"), ("SSE", "SEE", "ESE"), POWERS, (1,), (10.0,), 3),
        ("fig4", ALL, EVERY, POWERS, (1,), (10.0,), 3), ("fig5", ALL, EVERY, (32,), (5,), (1.0, 7.0, 13.0), 3),
        ("fig6", ALL, EVERY, (32,), (1, 2, 3), (10.0,), 3)],
    "many estimators": [("fig4", (*ALL, *MANY), ("SSS", "SES", "ESE", "ESS"), POWERS, (1,), (10.0,), 3)],
    "one of everything": [("fig4", ("lvc",), ("SSE",), (3,), (1,), (10.0,), 1),
        ("fig6", ("lvc",), ("SSE",), (3,), (1,), (10.0,), 1)],
    "lirpg": [(f, ("ad", "lvc"), ("ESE",), (16, 32, 64, 128, 256), (1, 2, 3), (10.0,), 3) for f in ("fig1", "fig7")],
    "permutations": [("fig1", ("ad", "lvc"), ("ESE", "SSE"), (16,), (1, 2), (10.0,), 2)],
    "entropy": [("entropy", ("loaded_dice", "lvc"), ("ESE",), (256,), (5,), (10.0,), 20)],
}  # fmt: skip
"""Made-up results: figure, estimators, permutations, trajectories, K, α, MDPs."""
AXES = ("figure", "estimator", "permutation", "sample_size", "inner_steps", "inner_lr", "mdp")


def made(name):
    random = np.random.default_rng(0)
    places = [place for figure, *axes, mdps in MADE[name] for place in product([figure], *axes, range(mdps))]
    frame = pd.DataFrame(places, columns=AXES)
    columns = ("accuracy", "variance", "std_sum", "bias_sq", "truth_sq", "entropy", "expected_accuracy")
    frame[list(columns)] = random.uniform(0.1, 0.9, (len(frame), len(columns)))
    return frame.assign(bias_sq=frame["bias_sq"] - 0.3, std_sum=10 ** (4 * frame["std_sum"] - 2))


@pytest.fixture
def drawn(rows_of):
    """The figures of a small run or of made-up results, perhaps after something was done to their rows."""

    def call(name, change=lambda frame: frame):
        app, line = RUNS.get(
            name, ("maml" if name in ("maml", "many estimators", "one of everything") else "lirpg", "")
        )
        experiment = import_module(f"gm_experiments.{app}").EXPERIMENT
        settings = parse(experiment.settings, experiment.name, line.split())
        return experiment.figures(settings, change(rows_of(experiment, *line.split()) if line else made(name)))

    return call


@pytest.mark.parametrize("name", [*RUNS, *MADE])
def test_pictures_have_no_fault(drawn, name):
    assert {picture: found for picture, figure in drawn(name).items() if (found := faults(figure))} == {}


def test_a_users_own_estimators_are_drawn_under_their_names(drawn):
    own = {"lvc": "mypackage.mymodule:my_estimator", "ad": "_mine.$module$:_f", "dice": "other.module:my_estimator"}
    pictures = drawn("maml", lambda frame: frame[frame["figure"] < "fig5"].replace({"estimator": own}))
    assert {picture: found for picture, figure in pictures.items() if (found := faults(figure))} == {}
    said = " ".join(finding_of(figure) for figure in pictures.values())
    assert "_f" in said
    assert "my_estimator" in said


def test_unknown_numbers_keep_nothing_from_being_drawn(drawn):
    unknown = {"accuracy": np.nan, "bias_sq": np.nan, "std_sum": 0.0, "truth_sq": 0.0}
    pictures = drawn("maml", lambda frame: frame[frame["figure"] < "fig5"].assign(**unknown))
    assert {"fig1", "fig4", "fig4_spread", "headline"} <= set(pictures)
    assert {picture: found for picture, figure in pictures.items() if (found := faults(figure))} == {}


def test_every_picture_says_over_how_many_units_its_intervals_are(drawn):
    assert "95% intervals over 3 MDPs" in caption_of(drawn("lirpg")["fig1"])
    alone = drawn("one of everything")
    assert "one MDP, so there are no intervals" in caption_of(alone["fig4"])
    assert "headline" not in alone


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda figure: figure.axes[0].set_title("tiny", fontsize=6), "6 pt: tiny"),
        (lambda figure: figure.axes[0].text(0.5, 0.5, "grey", color="0.7"), "pale: grey"),
        (lambda figure: figure.axes[0].plot([0, 1], label="x", color="#E69F00"), "pale line: x"),
        (lambda figure: figure.axes[0].scatter([0], [0], color="#FFFF00", label="x"), "pale points: x"),
        (lambda figure: figure.axes[0].plot([0, 1], label="AD", color="#0072B2"), "another's colour: AD"),
        (lambda figure: figure.axes[0].plot([0, 1], label="mine", color="#0072B2"), "the colour of LVC: mine"),
        (lambda figure: figure.text(0.99, 0.5, "far away"), "cut off: far away"),
        (lambda figure: [figure.axes[0].text(0.5, 0.5, text) for text in ("one", "two")],
         "on top of each other: 'one' and 'two'"),
        (lambda figure: figure.axes[0].fill_between([0, 1], [0, 0], [1, 1], color="#0072B2"),
         "bands without a word about intervals"),
        (lambda figure: figure.suptitle(""), "no finding"),
        (lambda figure: figure.supxlabel(""), "no caption"),
        (lambda figure: figure.set_size_inches(8, 3), "8.0 inches wide"),
        (lambda figure: [figure.add_axes((0.4, 0.4, 0.1, 0.1)).set_axis_off() for _ in range(4)], "5 panels"),
    ],
)  # fmt: skip
def test_each_fault_is_seen(spoil, fault):
    figure = panels(["a panel"])
    entitle(figure, "What was found", "What is drawn.")
    assert faults(figure) == []
    spoil(figure)
    assert fault in faults(figure)
