"""Titles of pictures say what intervals tell apart, and nothing where they don't; pictures of small runs are whole."""

import importlib.util
from importlib import import_module
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from gm_experiments.attribution import findings as attribution
from gm_experiments.frontier import findings as frontier
from gm_experiments.frontier.choices import PLACE
from gm_experiments.lpg import findings as lpg
from gm_experiments.maml import estimator_pictures
from gm_lab import analysis
from gm_lab.run import parse

SPEC = importlib.util.spec_from_file_location("picture_faults", Path(__file__).with_name("picture_faults.py"))
picture_faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(picture_faults)
faults = picture_faults.faults
MDPS = range(10)


def choices(errors, figure="frontier", size=256, rate=10.0, updates=0):
    """Rows of the frontier: `errors` by estimator, split and debias."""
    place = {"figure": figure, "inner_steps": 1, "inner_lr": rate, "sample_size": size, "updates": updates}
    return [
        place | {"estimator": name, "gae_lambda": 1.0, "split": split, "debias": debias, "mdp": mdp}
        | {"mse": error * (1 + 0.1 * ((mdp * 7 + len(name + split + debias)) % 5)), "truth_sq": 1.0}
        for (name, split, debias), error in errors.items()
        for mdp in MDPS
    ]  # fmt: skip


def costs(ad=1.0, separate=1.0, jackknife=1.0):
    kinds = product(("ad", "lvc", "loaded_dice"), ("1:1", "1:1:1"), ("none", "jackknife"))
    return {
        kind: (ad if kind[0] == "ad" else 1) * (separate if kind[1] == "1:1:1" else 1)
        * (jackknife if kind[2] != "none" else 1) for kind in kinds
    }  # fmt: skip


def test_the_frontier_advises_what_is_never_told_apart_as_worse():
    rows = pd.DataFrame(choices(costs(ad=4, separate=2, jackknife=3)) + choices(costs(ad=4, jackknife=3), updates=50))
    said = frontier.frontier(rows)
    assert said.startswith("256 trajectories, K = 1: use ")
    advice, _, costly = said.removeprefix("256 trajectories, K = 1: use ").partition(". ")
    assert set(advice.split(", ")[0].split(" or ")) == {"LVC", "Loaded-DiCE"}
    assert advice.split(", ")[1:] == ["one batch for I and II", "no jackknife"]
    assert costly.startswith("AD costs ")
    assert "separate batches up to " in costly


def test_the_frontier_is_neutral_where_nothing_is_told_apart():
    alike = pd.DataFrame(choices(costs()))
    assert frontier.frontier(alike).endswith("is told apart from the best")
    single = pd.DataFrame(choices(costs(ad=4, jackknife=3)))
    assert frontier.frontier(single[single["mdp"] == 0]).endswith("is told apart from the best")


def test_budgets_name_who_is_never_beaten():
    """AD with few trajectories, LVC with many; α at which nothing is told apart changes nothing."""
    kinds = ("1:1", "none")
    few, many = ({("ad", *kinds): 1.0, ("lvc", *kinds): 3.0}, {("ad", *kinds): 3.0, ("lvc", *kinds): 1.0})
    alike = {("ad", *kinds): 1.0, ("lvc", *kinds): 1.0}
    rows = choices(few, "budgets", 16) + choices(many, "budgets", 1024) + choices(alike, "budgets", 16, rate=3.0)
    assert frontier.budgets(frontier.of_estimators(pd.DataFrame(rows))) == (
        "Never told to be worse than another: AD with 16 trajectories, LVC with 1,024"
    )
    own = pd.DataFrame(rows).replace({"estimator": {"lvc": "a_users.module:own"}})
    assert frontier.budgets(frontier.of_estimators(own)).endswith("AD with 16 trajectories, own with 1,024")
    neutral = frontier.of_estimators(pd.DataFrame(choices(alike, "budgets", 16)))
    assert frontier.budgets(neutral) == "No estimator is told apart as the better one with any number of trajectories"


def training(gaps):
    """The end of training: `gaps` by estimator and debias; units differ by ±0.02."""
    place = dict.fromkeys(PLACE, 1) | {"updates": 50, "gae_lambda": 1.0, "split": "1:1"}
    rows = [
        place | {"estimator": name, "debias": debias, "mdp": mdp, "value": 3 + gap + 0.02 * (-1) ** mdp}
        for (name, debias), gap in gaps.items() for mdp in MDPS
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(gap=frame["value"] - 3, choice=frame["estimator"] + frame["debias"].replace("none", ""))


def test_training_says_who_ends_where():
    told = training({("lvc", "none"): -0.1, ("lvc", "jackknife"): -0.1, ("ad", "none"): 0.003})
    assert frontier.training(told) == (
        "After 50 updates lvc ends 0.10 below exact training; ad is not told apart from it; "
        "a jackknife changes nothing that is told apart"
    )
    assert frontier.training(training({("lvc", "none"): 0.003})) == (
        "After 50 updates no training on estimates is told apart from exact training"
    )
    changed = training({("lvc", "none"): -0.1, ("lvc", "jackknife"): -0.05})
    changed["value"] += 0.01 * (changed["mdp"] % 3) * (changed["debias"] == "none")
    assert frontier.training(changed).endswith("a jackknife changes it by up to 0.041")


def errors(shares, updates=0, name="lvc", spread=0.1):
    """Rows of one estimator's sources, the same for bias and variance; `all` is their sum."""
    rows = []
    for mdp, (source, share) in product(MDPS, {**shares, "all": sum(shares.values())}.items()):
        value = share * (1 + spread * ((mdp * 3 + len(source)) % 5))
        rows.append({"estimator": name, "updates": updates, "source": source, "mdp": mdp, "truth_sq": 1.0}
                    | {"bias_sq": value, "variance": value})  # fmt: skip
    return pd.DataFrame(rows)


def test_the_largest_source_is_named_if_it_is_told_apart():
    first = errors({"composition": 0.1, "hessian": 1.0, "adam": 0.2})
    last = errors({"composition": 0.1, "hessian": 1.0, "adam": -0.9}, updates=30)
    assert attribution.finding(pd.concat([first, last])) == (
        "At the start the Hessian (II) adds most to the squared bias of LVC; after 30 updates Adam hides error"
    )
    alike = errors({"composition": 1.0, "hessian": 1.0, "adam": 1.0})
    assert attribution.finding(alike) == "No source of the error is told apart from the others"


def lives(scores):
    """Scores at the end of a lifetime, by rule and kind of task."""
    rows = [
        {"rule": rule, "kind": kind, "task": f"{kind} {task}", "seed": 0, "update": 100, "score": score + 0.01 * task}
        for (rule, kind), score in scores.items() for task in range(5)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(score=frame["score"] + 0.02 * ((frame.index * 7) % 5))


def test_lpg_is_set_beside_hand_made_rules():
    ahead = {("lpg", "random"): 0.9, ("policy_gradient", "random"): 0.5, ("actor_critic", "random"): 0.4}
    behind = {("lpg", "grid"): 0.2, ("policy_gradient", "grid"): 0.5, ("actor_critic", "grid"): 0.4}
    assert lpg.learning(lives(ahead | behind)) == (
        "In held-out tasks LPG ends above policy gradient and actor-critic in random MDPs but below both in grid worlds"
    )
    level = {("lpg", "grid"): 0.5, ("policy_gradient", "grid"): 0.5}
    assert lpg.learning(lives(level)) == "In held-out tasks LPG ends not told apart from policy gradient in grid worlds"


def test_the_most_biased_estimator_of_lpg_is_named_if_it_is_told_apart():
    rows = [
        {"estimator": name, "permutation": "ESE", "inner_steps": 5, "mdp": mdp}
        | {"expected_bias_sq": scale * 2.0 ** (mdp % 3 * (1 if name == "ad" else 2))}
        for name, scale in {"ad": 1.0, "lvc": 0.01, "corrected": 0.0}.items() for mdp in MDPS
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    assert lpg.gradient(frame).startswith("With 5 inner steps AD's squared bias is ")
    assert lpg.gradient(frame).endswith(" times that of LVC")
    assert lpg.gradient(frame[frame["mdp"] == 0]).endswith("is told apart as the most biased")
    assert lpg.gradient(frame[frame["estimator"] == "corrected"]).endswith("no estimator biases LPG's meta-gradient")


def estimates(bias, deviation):
    rows = [
        {"figure": "fig4", "permutation": "SSS", "sample_size": size, "inner_steps": 1, "inner_lr": 10.0, "mdp": mdp}
        | {"estimator": name, "bias_sq": bias[name] + 0.01 * (-1) ** mdp, "truth_sq": 1.0}
        | {"variance": deviation[name] ** 2 * (1 + 0.1 * (mdp % 3))}
        for name in bias for size in (2, 4) for mdp in MDPS
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_users_estimators_are_in_the_pictures_of_the_others():
    own = "some_module:_my$own_estimator"
    drawn = estimator_pictures.estimator_pictures(estimates({"ad": 0.25, own: 0.0}, {"ad": 1.0, own: 2.0}))
    assert list(drawn) == ["estimator_ad"]
    assert faults(drawn["estimator_ad"]) == []
    texts = [text.get_text() for axes in drawn["estimator_ad"].axes for text in axes.texts]
    assert any("_my$own_estimator" in text for text in texts)


def test_an_estimators_picture_says_its_bias_and_its_rank():
    rows = estimates({"ad": 0.25, "lvc": 0.0}, {"ad": 1.0, "lvc": 2.0})
    drawn = estimator_pictures.estimator_pictures(rows)
    assert {name: analysis.finding_of(figure) for name, figure in drawn.items()} == {
        "estimator_ad": "AD, 4 trajectories: a bias of 0.50 ‖g‖; the smallest standard deviation, 1.0 ‖g‖",
        "estimator_lvc": "LVC, 4 trajectories: no bias told apart from 0; the largest standard deviation, 2.1 ‖g‖",
    }
    colours = {line.get_color() for line in drawn["estimator_ad"].axes[0].lines}
    assert colours == {analysis.style_of("ad").colour, estimator_pictures.OTHERS}
    for figure in drawn.values():
        assert faults(figure) == []
    alike = estimator_pictures.estimator_pictures(estimates({"ad": 0.25, "lvc": 0.0}, {"ad": 1.0, "lvc": 1.0}))
    assert "a standard deviation of" in analysis.finding_of(alike["estimator_ad"])


TABULAR = "--mdps 2 --repeats 3 --states 4 --actions 2 --horizon 4"
LIVES = "--rules 1 --meta-updates 2 --lifetime 5 --tasks 4 --side 2 --held-out 2 --held-out-side 2 --tuning-tasks 1"
RULES = "--hidden 2 --horizon 3 --inner-lrs 1 --critic-lrs 1 --gae-lambdas 0.9 --lr-scales 1"
SMALL = [
    ("frontier", f"{TABULAR} --estimators lvc --splits 1:1 --debias none --sample-sizes 24 --inner-steps 1 --points 0"),
    ("frontier", f"{TABULAR} --sample-sizes 24 --inner-steps 1 --points 0 1 2 3 4"),
    ("frontier", f"{TABULAR} --figure budgets --estimators ad lvc --sample-sizes 24 --points 0"),
    ("frontier", f"{TABULAR} --figure training --sample-sizes 24 48 --inner-lrs 1 2 3 --updates 1"),
    ("attribution", f"{TABULAR} --sample-sizes 3 --points 2 --estimators lvc ad dice loaded_dice"),
    ("attribution.lola", "--points 0 2 --horizon 4 --seeds 1 --sample-sizes 4 --repeats 2 --estimators lvc"),
    ("lpg", "--figure gradient --mdps 1 --repeats 2 --sample-sizes 4 --estimators lvc"),
    ("lpg", f"--figure learning {LIVES} {RULES}"),
    ("mgrl_chain", "--updates 20 --inner-steps 1 --trajectories 4 --seeds 2"),
    (
        "mgrl_chain",
        "--updates 21 --trajectories 4 --seeds 1 --methods fixed bootstrapped --targets ad lvc --critics outer",
    ),
]


@pytest.mark.parametrize(("name", "line"), SMALL, ids=[f"{name} {place}" for place, (name, _) in enumerate(SMALL)])
def test_pictures_of_small_runs_are_whole(rows_of, name, line):
    """None has a fault, with a user's own estimator, too."""
    experiment = import_module(f"gm_experiments.{name}").EXPERIMENT
    settings = parse(experiment.settings, experiment.name, line.split())
    frame = rows_of(experiment, *line.split())
    own = frame["estimator"].replace({"lvc": "some_module:_my$own_estimator"})
    for rows in (frame, frame.assign(estimator=own)):
        figures = experiment.figures(settings, rows)
        assert figures
        for figure in figures.values():
            assert faults(figure) == []


def test_an_estimator_without_any_spread_is_drawn_without_a_warning(recwarn):
    still = estimates({"ad": 0.25, "module:none": 1.0}, {"ad": 1.0, "module:none": 0.0})
    finding = analysis.finding_of(estimator_pictures.estimator_pictures(still)["estimator_ad"])
    assert finding.startswith("AD, ")
    assert "nan" not in finding
    assert [str(warning.message) for warning in recwarn] == []
