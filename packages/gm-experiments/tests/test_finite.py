"""Results are finite, or a line says where they are not, however large the numbers on the command line are."""

import math
import types
from importlib import import_module
from typing import get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gm_lab
from gm_experiments.common.checks import require_finite, require_policy
from gm_experiments.theory.settings import COLUMNS
from gm_lab.run.settings import flag_of

TABULAR = "--mdps 2 --repeats 3 --states 4 --actions 2 --horizon 4"
LIVES = "--rules 1 --meta-updates 2 --lifetime 5 --tasks 4 --side 2 --held-out 1 --held-out-side 2 --tuning-tasks 1"
RULES = "--hidden 2 --horizon 3 --inner-lrs 1 --critic-lrs 1 --gae-lambdas 0.9 --lr-scales 1"
SMALL = [
    ("maml", f"{TABULAR} --figure fig1 --sample-sizes 3 --inner-steps 2"),
    ("maml", f"{TABULAR} --figure theory --sample-sizes 3 --inner-steps 2 --inner-lrs 3"),
    ("lirpg", f"{TABULAR} --figure fig1 --sample-sizes 3 --inner-steps 2"),
    ("explore", f"{TABULAR} --inner-lrs 3 --sample-sizes 3 --inner-steps 2"),
    ("frontier", f"{TABULAR} --sample-sizes 24 --inner-steps 2 --points 1 --splits 1:1"),
    ("frontier", f"{TABULAR} --figure training --sample-sizes 24 --splits 1:1 --updates 2"),
    ("attribution", f"{TABULAR} --sample-sizes 3 --points 2 --estimators lvc"),
    ("lola", "--figure fig2d --updates 2 --horizon 4 --seeds 2 --evaluation-size 4"),
    ("attribution.lola", "--points 2 --horizon 4 --seeds 2 --sample-sizes 4 --repeats 2 --estimators lvc"),
    ("lpg", "--figure gradient --mdps 1 --repeats 2 --sample-sizes 4 --inner-steps 2 --estimators ad"),
    ("lpg", f"--figure learning {LIVES} {RULES}"),
    ("mgrl_chain", "--updates 2 --inner-steps 1 --trajectories 4 --seeds 1"),
    ("mgrl_tabular", f"{TABULAR} --sample-sizes 3 --inner-steps 2 --points 1 --windows 2 --estimators lvc"),
]
EXPERIMENTS = {name: import_module(f"gm_experiments.{name}").EXPERIMENT for name, _ in SMALL}


def takes_numbers(kind):
    """Whether a flag is a number, several, or one that may be left out."""
    if isinstance(kind, types.UnionType):
        return any(takes_numbers(option) for option in get_args(kind))
    return kind is float or get_args(kind)[:1] == (float,)


CASES = [
    (name, line, field)
    for name, line in SMALL
    for field, kind in get_type_hints(EXPERIMENTS[name].settings).items()
    if takes_numbers(kind) and field not in get_type_hints(gm_lab.RunSettings)
]


@given(case=st.sampled_from(CASES), exponent=st.sampled_from([*range(-300, -20, 40), *range(20, 309, 12)]))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_measurements_are_finite_or_refused(rows_of, case, exponent):
    name, line, field = case
    values = [f"1e{exponent}"] * (8 if field == "payoffs" else 1)
    refusals = []
    try:
        frame = rows_of(EXPERIMENTS[name], *line.split(), flag_of(field), *values)
    except gm_lab.BadInput as error:
        refusals.append(str(error))
    assert all("expected" in line and "\n" not in line for line in refusals)
    if refusals:
        return
    numbers = frame.select_dtypes("number").drop(columns=[*COLUMNS], errors="ignore")
    assert not numbers.isin([math.inf, -math.inf]).any(axis=None)
    assert numbers.drop(columns=["mdp"], errors="ignore").notna().any(axis=None)


def row(**values):
    return {
        "figure": "fig1",
        "estimator": "lvc",
        "inner_lr": 1e308,
        "mdp": 3,
        "variance": 1.0,
        "accuracy": 0.5,
    } | values


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_line_says_where_and_what_keeps_it_finite(value):
    with pytest.raises(gm_lab.BadInput) as refused:
        require_finite([row(), row(variance=value)], ["variance"], "--inner-lrs", "--critic-noise")
    assert str(refused.value) == (
        f"expected finite measurements, got variance {value} at figure fig1, estimator lvc, inner_lr 1e+308, mdp 3; "
        "smaller --inner-lrs or --critic-noise keep numbers finite"
    )


def test_nan_stays_where_there_is_nothing_to_measure_and_infinity_where_there_is_no_bound():
    require_finite([row(accuracy=math.nan, bound=math.inf)], ["variance"], unbounded=["bound"])
    with pytest.raises(gm_lab.BadInput, match="got accuracy inf"):
        require_finite([row(accuracy=math.inf)], ["variance"])


def test_a_policy_of_nan_is_refused_before_anything_is_drawn():
    import torch

    require_policy(torch.ones(2) / 2, "step 0")
    with pytest.raises(gm_lab.BadInput, match="expected finite policies, got infinity or NaN at step 0; smaller --x"):
        require_policy(torch.tensor([0.5, math.nan]), "step 0", "--x")
