"""What titles of pictures say: what intervals tell apart is said, with its numbers; what they don't is not."""

import numpy as np
import pandas as pd
import pytest

from gm_experiments.common import findings, labels
from gm_experiments.lirpg import findings as lirpg
from gm_experiments.lola import findings as lola
from gm_experiments.maml import findings as maml
from gm_experiments.theory import findings as theory

WORDS = ("{} is best", "{} are best")
MDPS = 10


def around(mean, spread=0.01):
    """Ten numbers with a mean; with a large spread nothing is told from it."""
    noise = np.linspace(-1, 1, MDPS)
    return pd.Series(mean + spread * np.random.default_rng(int(1000 * abs(mean))).permutation(noise))


def tabular(means, metric="accuracy", spread=0.01, **columns):
    """Rows of one figure with a mean for each estimator."""
    parts = [pd.DataFrame({"estimator": name, "mdp": range(MDPS), metric: around(mean, spread)})
             for name, mean in means.items()]  # fmt: skip
    point = {"permutation": "SSS", "sample_size": 256, "inner_steps": 1, "inner_lr": 10.0}
    return pd.concat(parts, ignore_index=True).assign(**(point | columns))


def ranked(means, spread=0.01, **more):
    values = {name: around(mean, spread) for name, mean in means.items()}
    return findings.ranked(values, {name: name.upper() for name in means}, WORDS, "score", **more)


def test_a_ranking_names_who_is_told_apart_with_means():
    assert ranked({"b": 0.5, "a": 0.9, "c": 0.1}) == "A is best (0.90), then B (0.50), then C (0.10)"
    assert ranked({"b": 0.5, "a": 0.9}, largest=False) == "B is best (0.50), then A (0.90)"
    assert ranked({"a": 0.9, "b": 0.899, "c": 0.1}) == "A and B are best (0.90), then C (0.10)"
    assert ranked({"a": 0.9, "b": 0.5, "c": 0.1}, tiers_shown=1) == "A is best (0.90)"


def test_a_ranking_says_nothing_that_intervals_do_not_tell():
    assert ranked({"a": 0.9, "b": 0.5}, spread=9) == "A and B are not told apart in score (0.90 and 0.50)"
    assert ranked({"a": 0.9}) == "the score of A is 0.90"
    assert ranked({}) == "no score is known"
    alone = {name: pd.Series([mean]) for name, mean in {"a": 0.9, "b": 0.1}.items()}
    assert "not told apart" in findings.ranked(alone, {"a": "A", "b": "B"}, WORDS, "score")


def test_only_units_that_both_have_are_compared():
    first, second = pd.Series([1.0, 2.0, 9.0]), pd.Series([0.9, 1.9])
    found = findings.difference(first, second)
    assert (found.count, found.mean) == (2, pytest.approx(0.1))
    assert findings.difference(first, second.iloc[:1]) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0123, "0.012"),
        (1.26, "1.3"),
        (99.6, "100"),
        (1234, "1,200"),
        (-0.5, "−0.50"),
        (0, "0"),
        (2.5e14, "2.5e14"),
        (-3.14e-17, "−3.1e−17"),
        (1e-6, "0.000001"),
    ],
)
def test_two_digits_count(value, text):
    assert findings.two_digits(value) == text


def test_numbers_in_sentences_have_a_zero_and_a_sign():
    assert [findings.two_places(value) for value in (0.5, -0.001, -0.126)] == ["0.50", "0.00", "−0.13"]
    assert [findings.joined(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_permutations_are_said_in_words():
    assert labels.permutation("SSS") == "everything sampled"
    assert labels.permutation("EEE") == "everything exact"
    assert labels.permutation("ESE") == "only the Hessian sampled"
    assert labels.permutation("SSE") == "inner gradient and Hessian sampled"
    assert labels.permutation("mine") == "mine"
    assert labels.short(["lvc", "a.b:f", "c:f", "d:g"]) == {"lvc": "LVC", "a.b:f": "a.b:f", "c:f": "c:f", "d:g": "g"}


def test_a_bias_is_said_by_its_share_of_the_gradient_and_only_where_it_is_told_from_zero():
    rows = tabular({"ad": 0.16, "lvc": 0.04, "loaded_dice": 0.0001}, "bias", spread=0.003)
    assert maml.bias_left(rows) == (
        "Even 256 trajectories leave AD biased by 40% of the gradient and LVC by 20%; Loaded-DiCE by less than 4%"
    )
    assert maml.bias_left(rows.query("estimator == 'loaded_dice'")) == (
        "With 256 trajectories the gradient is biased in Loaded-DiCE by less than 4% of its length"
    )
    unknown = tabular({"dice": 0.1}, "bias", spread=9.0)
    assert maml.bias_left(unknown) == "With 256 trajectories no bias is told from zero"


def test_what_a_larger_k_or_rate_costs_is_said_of_those_whom_it_costs_something():
    before = tabular({"ad": 0.9, "lvc": 0.9})
    after = tabular({"ad": 0.5, "lvc": 0.9}, inner_steps=3)
    said = maml.at_most(pd.concat([before, after]), "inner_steps", "SSS", "accuracy")
    assert said == (
        "More inner steps cost AD accuracy; "
        "at K = 3, with everything sampled, LVC is most accurate (0.90), then AD (0.50)"
    )
    assert lirpg.at_most(pd.concat([before, after]), "accuracy") == (
        "More inner steps cost AD accuracy; at K = 3 with 256 trajectories, LVC is most accurate (0.90), then AD (0.50)"
    )
    same = pd.concat([before, before.assign(inner_steps=3)])
    assert "no estimator accuracy that intervals tell from none" in maml.at_most(same, "inner_steps", "SSS", "accuracy")


def test_spreads_are_compared_as_logarithms():
    rows = tabular({"lvc": 0.5, "dice": 40.0}, "std_sum")
    assert maml.at_most(rows, "sample_size", "SSS", "std_sum") == (
        "With everything sampled and 256 trajectories, LVC varies least (0.50), then DiCE (40)"
    )


def test_bounds_are_said_to_hold_only_if_they_do():
    rows = pd.DataFrame({"measured": [1.0, 2.0], "measured_low": [0.9, 1.9], "bound_local": [2.0, 20.0]})
    assert theory.composition(rows).startswith("Sampled inner steps never stray further than Lemma 4.4 allows")
    assert "10 times" in theory.composition(rows)
    broken = rows.assign(bound_local=[0.5, 20.0])
    assert theory.composition(broken) == "The inner path strays further than Lemma 4.4 allows in 1 of 2 points"


def test_how_a_bias_grows_is_said_where_its_exponent_is_told_from_zero():
    errors = np.array([0.5, 1.0, 2.0, 4.0])
    parts = [
        pd.DataFrame({"algorithm": "maml", "inner_steps": steps, "mdp": mdp, "hessian_error": errors,
            "measured": (1 + mdp) * errors ** (steps + 0.01 * mdp)})
        for steps in (1, 3) for mdp in range(4)
    ]  # fmt: skip
    rows = pd.concat(parts).assign(measured_low=0.0, bound_local=1e9)
    said = theory.hessian(rows)
    assert said == (
        "When the Hessian’s error doubles, MAML’s bias grows 2.0 times at K = 1 and 8.1 times at K = 3; "
        "it stays below the bound"
    )
    assert theory.hessian(rows.query("mdp == 0")) == "The bias of the meta-gradient stays below the bound"
    assert "it exceeds the bound in 32 of 32 points" in theory.hessian(rows.assign(measured_low=1e10))


def test_which_source_biases_more_is_said_estimator_by_estimator():
    more, less = (
        tabular({"ad": mean, "dice": 0.05}, "measured", permutation=p) for mean, p in ((0.2, "ESE"), (0.1, "SEE"))
    )
    said = theory.split(pd.concat([more, less]).assign(quantity="bias"))
    assert said == (
        "Of a sampled Hessian and a sampled inner gradient, the Hessian biases AD more; "
        "for DiCE the two are not told apart"
    )


def game(means, metric="score", spread=0.01, **columns):
    parts = [
        pd.DataFrame({"curve": name, "seed": range(MDPS), metric: around(mean, spread)}) for name, mean in means.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(**columns)


def test_lolas_curves_are_ranked_by_what_players_earn():
    rows = game({"a": -1.0, "b": -1.5})
    assert lola.rewards(rows, {"a": "A", "b": "B"}, 50) == (
        "In the last 50 updates players earn most with A (−1.00), then B (−1.50)"
    )
    accuracies = game({"inner=exact": 1.0}, "accuracy_outer_exact", spread=0.0)
    rows = pd.concat([game({"a": 0.9, lola.PLAIN: 0.4}, "accuracy_outer_exact"), accuracies])
    called = {"a": "A", lola.PLAIN: "128", "inner=exact": "exact"}
    assert lola.accuracies(rows, called) == (
        "Of look-aheads that are sampled, accuracy is highest with A (0.90); with 128 it is 0.40"
    )
    rows = game({"plain 1 + 1": 0.5, "jackknife 1 + 1": 0.5}, "cooperation", spread=1.0, budget=2)
    assert lola.cooperation(rows) == (
        "At 2 trajectories an update plain estimates and a jackknife are not told apart in cooperation (0.50)"
    )


def test_answers_in_kind_are_said_of_the_curves_that_have_them():
    kind = game({"a": 0.9, "b": 0.5}, "cooperate_1_CC").assign(cooperate_2_CC=0.9)
    rows = kind.assign(cooperate_1_CD=kind["cooperate_1_CC"] - 0.4 * (kind["curve"] == "a"), cooperate_2_CD=0.9)
    said = lola.in_kind(rows, {"a": "A", "b": "B"})
    assert said == "After the other’s defection players cooperate less with A; elsewhere that is not told from chance"
    assert lola.in_kind(rows.query("curve == 'a'"), {"a": "A"}).endswith("cooperate less in every curve")
    assert lola.in_kind(rows.query("curve == 'b'"), {"b": "B"}).startswith("No curve’s players are told")


def test_of_many_names_a_sentence_has_the_first_and_a_range_of_means():
    many = {chr(97 + place): 0.9 - 1e-4 * place for place in range(7)}
    assert ranked(many) == "A, B, C and 4 others are not told apart in score (0.90)"
    assert ranked({**many, "z": 0.1}) == "A, B, C and 4 others are best (0.90), then Z (0.10)"
    assert ranked({"a": 0.9, "b": 0.4, "c": 0.38}, spread=0.05) == "A is best (0.90), then B and C (0.40 and 0.38)"
    ranks = ranked({chr(97 + place): 0.9 - 0.1 * place for place in range(7)})
    assert ranks == "A is best (0.90), then B (0.80), then C (0.70), then D, E, F and G (0.60, 0.50, 0.40 and 0.30)"


def test_rounding_tells_nothing_apart():
    first = around(0.9)
    assert not findings.apart(first, first * (1 - 1e-15))
    assert findings.apart(first, first * (1 - 1e-6))


def test_one_update_is_not_several():
    rows = game({"a": -1.0, "b": -1.5})
    assert lola.rewards(rows, {"a": "A", "b": "B"}, 1).startswith("In the last update players")


def test_one_unit_has_no_intervals_to_speak_of():
    assert findings.intervals("Bands", 10, "MDPs") == "Bands: 95% intervals over 10 MDPs."
    assert findings.intervals("Band", 10, "meta-trainings") == "Band: 95% interval over 10 meta-trainings."
    assert findings.intervals("Bars", 1, "runs") == "One run, so there are no intervals."
