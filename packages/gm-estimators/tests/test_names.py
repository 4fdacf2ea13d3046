import sys

import pytest
import torch

from gm_estimators import EstimatorError, load
from gm_estimators.estimator import CATALOGUE, families

MODULE = """
import torch
from gm_estimators.surrogates import lvc
number = 3

def good(trajectories):
    return 2 * lvc(trajectories)

def blind(trajectories):
    return lvc(trajectories)
blind.critic = False

def raises(trajectories):
    raise RuntimeError("no such\\n  thing")

def shape(trajectories):
    return trajectories.log_prob

def constant(trajectories):
    return trajectories.reward.sum(-1)

def nan(trajectories):
    return (trajectories.log_prob * float("nan")).sum(-1)

class TextlessError(Exception):
    def __str__(self):
        raise ValueError("no text")

def textless(trajectories):
    raise TextlessError

def long(trajectories):
    raise RuntimeError("x" * 10**6)

def no_tensor(trajectories):
    return None
"""


@pytest.fixture
def users(tmp_path, monkeypatch):
    """A working directory with a user's modules; nothing of it is left on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "users_module.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "users_broken.py").write_text("1 / 0\n", encoding="utf-8")
    yield
    for name in ("users_module", "users_broken"):
        sys.modules.pop(name, None)


def test_names_lead_to_the_papers_estimators():
    assert list(CATALOGUE) == ["ad", "dice", "loaded_dice", "lvc"]
    for name, estimator in CATALOGUE.items():
        assert load(name) is estimator
        assert estimator.name == name
        assert estimator.surrogate.__name__ == name
        assert estimator.critic is (name != "dice")


def test_suffixes_say_what_is_added():
    assert load("ad").correction == 0
    assert load("ad").ratio_clip is None
    assert load("ad+correction").correction == 1
    assert load("lvc+learnt+correction@0.25").correction == 0.25
    assert load("lvc+correction+jackknife").correction == 1
    assert load("vtrace").ratio_clip == load("loaded_dice@0.5+vtrace").ratio_clip == 1
    assert load("lvc+vtrace@2.5").ratio_clip == 2.5
    assert load("lvc+vtrace").surrogate is CATALOGUE["lvc"].surrogate
    same = [load(name) for name in ("ad", "ad+correction", "lvc+vtrace", "vtrace")]
    assert families(same) == [same]  # their inner steps are shared


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ad+correct", r"expected one of \+learnt, .*\+correction\[@c\], .* at the end, got 'ad\+correct'"),
        ("ad+vtrace2", r"expected one of \+learnt, .* at the end, got 'ad\+vtrace2'"),
        ("ad+learnt@2", r"expected one of \+learnt, .* at the end, got 'ad\+learnt@2'"),
        ("ad+correction@", r"expected \+correction@c with a finite c of at least 0, got 'ad\+correction@'"),
        ("ad+correction@-1", r"expected \+correction@c with a finite c of at least 0, got 'ad\+correction@-1'"),
        ("ad+correction@inf", r"expected \+correction@c with a finite c of at least 0, got 'ad\+correction@inf'"),
        ("lvc+vtrace@0", r"expected \+vtrace@clip with a bound above 0, got 'lvc\+vtrace@0'"),
        ("lvc+vtrace@x", r"expected \+vtrace@clip with a bound above 0, got 'lvc\+vtrace@x'"),
        (
            "dice+vtrace",
            "estimator dice: V-trace weighs advantages, expected an estimator that reads these, as ad, lvc",
        ),
    ],
)
def test_a_suffix_that_makes_no_sense_is_refused(name, message):
    with pytest.raises(EstimatorError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("lvc+jackknife+jackknife3", "jackknife"),
        ("lvc+learnt+learnt", "learnt"),
        ("lvc+jackknife+learnt+jackknife", "jackknife"),
        ("ad+correction@0.1+correction", "correction"),
        ("vtrace+vtrace@0.8", "vtrace"),
        ("dice+selfnorm+selfnorm", "selfnorm"),
    ],
)
def test_an_ending_is_not_repeated(name, kind):
    with pytest.raises(EstimatorError) as caught:
        load(name)
    assert str(caught.value) == f"expected every ending at most once, got more than one +{kind} in '{name}'"


@pytest.mark.parametrize("name", ["lvc+vtrace+selfnorm", "lvc+selfnorm+vtrace", "vtrace+selfnorm"])
def test_v_trace_is_not_self_normalised(name):
    with pytest.raises(EstimatorError, match=r"expected \+vtrace, with ratios of single steps, or \+selfnorm, .* both"):
        load(name)


def test_a_source_is_that_of_the_name_and_its_endings():
    assert load("ad").source == "Finn et al. 2017"
    assert load("ad+correction").source == "Finn et al. 2017; Stadie et al. 2018"
    assert load("vtrace").source == load("ad+vtrace").source == "Finn et al. 2017; Espeholt et al. 2018"
    assert load("loaded_dice@0.5,0.9").source == "Farquhar et al. 2019"
    found = load("lvc+learnt+jackknife3+selfnorm")
    assert found.source == ("Rothfuss et al. 2019; Sutton and Barto 2018; Schucany, Gray and Owen 1971; Owen 2013")
    assert found.name == "lvc+learnt+jackknife3+selfnorm"


@pytest.mark.parametrize("name", ["ad+correction", "lvc+learnt+vtrace", "lvc+vtrace+jackknife"])
def test_without_a_critic_and_parts_only_off_policy_forms_are_to_be_had(name):
    assert load("lvc+vtrace@2", suffixes=False) == load("lvc+vtrace@2")
    assert load("lvc+selfnorm", suffixes=False).self_normalise
    with pytest.raises(EstimatorError, match="expected loaded_dice@λ without τ, which only the tabular problems have"):
        load("loaded_dice@1,0.5", suffixes=False)
    with pytest.raises(
        EstimatorError, match=r"loaded_dice@λ, each perhaps with \+vtrace\[@clip\], \+selfnorm, got 'x'"
    ):
        load("x", suffixes=False)
    with pytest.raises(
        EstimatorError, match=r"expected an estimator without \+.*, which only the tabular problems have"
    ):
        load(name, suffixes=False)


def test_what_an_estimator_reads_and_takes_is_said(users):
    names = {"ad": "advantages", "loaded_dice@0.5": "advantages", "dice+learnt": "rewards", "tmaml": "rewards"}
    assert {name: load(name).reads for name in names} == names
    assert all(load(name).takes_values for name in (*names, "dice", "users_module:good"))
    assert not load("users_module:blind").takes_values


def test_estimators_with_one_gradient_form_a_family():
    groups = families(CATALOGUE.values())
    assert [[estimator.name for estimator in group] for group in groups] == [["ad", "loaded_dice", "lvc"], ["dice"]]


def test_a_users_function_is_an_estimator(users, make_trajectories):
    estimator, read = load("users_module:good"), make_trajectories(2, 3)
    assert (estimator.name, estimator.critic) == ("users_module:good", True)
    torch.testing.assert_close(estimator.derivatives(read).first, 2 * CATALOGUE["lvc"].derivatives(read).first)
    assert load("users_module:blind").critic is False
    assert families([estimator, CATALOGUE["lvc"]]) == [[estimator], [CATALOGUE["lvc"]]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "lvcc",
            "expected one of ad, dice, loaded_dice, lvc or package.module:function, or of tmaml, vtrace, "
            r"loaded_dice@λ, loaded_dice@λ,τ, each perhaps with \+learnt, \+jackknife\[B\[.p\]\], \+correction\[@c\], "
            r"\+vtrace\[@clip\], \+selfnorm, got 'lvcc' \(did you mean lvc\?\)$",
        ),
        ("users_module:", "expected one of .* got 'users_module:'"),
        ("users_nowhere:f", "cannot import 'users_nowhere' of 'users_nowhere:f': ModuleNotFoundError: No module named"),
        ("users_broken:f", "cannot import 'users_broken' of 'users_broken:f': ZeroDivisionError: division by zero"),
        ("users_module:none", "expected a function 'none' in module 'users_module', got nothing"),
        ("users_module:number", "expected a function 'number' in module 'users_module', got a int"),
    ],
)
def test_what_cannot_be_found_is_refused(users, name, message):
    with pytest.raises(EstimatorError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("raises", "RuntimeError: no such thing"),
        ("textless", "TextlessError: TextlessError"),
        ("long", f"RuntimeError: {'x' * 499}…"),
        ("shape", "surrogate: expected one number per trajectory, shape (2,), got shape (2, 3)"),
        ("no_tensor", "surrogate: expected one number per trajectory, shape (2,), got a NoneType"),
        ("constant", "surrogate: expected a differentiable function of trajectories.log_prob, got a constant"),
        ("nan", "surrogate: expected a finite gradient in trajectories.log_prob, got NaN or infinity"),
    ],
)
def test_a_function_that_is_no_surrogate_is_refused_in_one_line(users, make_trajectories, function, message):
    estimator = load(f"users_module:{function}")
    with pytest.raises(EstimatorError) as caught:
        estimator.derivatives(make_trajectories(2, 3))
    assert str(caught.value) == f"estimator users_module:{function}: {message}"
