"""Loops with an exact truth that differ from MAML's: without Jacobians, with learnt rates, with batches used again.

One action a ~ N(θ, 1) with reward −½ (a − c)², as in test_diagnose.py: J(θ) = −½ (δ² + 1), δ = θ − c.
"""

from itertools import product

import jaxtyping
import pytest
import torch

from gm_estimators import Sizes, Trajectories, load, meta_gradient
from gm_estimators.attribution import subsets
from gm_estimators.diagnose import diagnose
from gm_estimators.diagnose.loop import Loop, origins
from gm_estimators.diagnose.repeat import Repeat
from gm_estimators.diagnose.sources import by_config, config_of, sources_of
from gm_estimators.off_policy import OffPolicyTrajectories, off_policy
from gm_estimators.optimisers import ascent

RATE, TARGET = 0.3, 1.0


def draw(role, step, params, n, seed):
    mean = params["mean"]
    return mean + torch.randn(*mean.shape[:-1], n, generator=torch.Generator().manual_seed(seed))


def see(actions, params, gae_lambda):
    log_prob, reward = -0.5 * (actions - params["mean"]).square(), -0.5 * (actions - TARGET).square()
    zero = torch.zeros_like(reward)
    value = torch.stack([zero, zero], -1)
    return Trajectories(log_prob[..., None], reward[..., None], value, reward[..., None], torch.ones(2))


def diagnosed(**changes):
    options = {
        "draw": draw, "see": see, "params": {"mean": torch.tensor([0.0])}, "sizes": Sizes(8, 8, 8), "inner_lr": RATE,
        "lanes": 64, "budget": 1, "surrogate": "lvc",
    }  # fmt: skip
    return diagnose(**(options | changes))


def within(report, expected):
    return near(report.sampled.reference, expected)


def near(vectors, expected, errors=4):
    """Whether the mean is what is expected, to some standard errors."""
    return bool(((vectors.mean(0) - expected).abs() < errors * vectors.std(0) / len(vectors) ** 0.5).all())


def recorded(drawn):
    """It plays as `draw` does and keeps (role, step)."""

    def looked(role, step, *others):
        drawn.append((role, step))
        return draw(role, step, *others)

    return looked


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Checking shapes would take half of the time; test_diagnose_engine.py has them checked."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.parametrize("steps", [1, 2])
def test_leaving_jacobians_out_makes_a_meta_gradient_too_long(steps):
    """E d = −(1 − α)ᴷ δ for g = −(1 − α)²ᴷ δ, by whatever inner gradients, so that all of it is the Jacobians'."""
    report = diagnosed(surrogate="first_order", inner_steps=steps, lanes=2048)
    expected, found = 1 / (1 - RATE) ** steps - 1, report.verdicts["first_order"]
    for estimate in (found.along, found.along_shares["hessian"]):
        assert estimate.low < expected < estimate.high
        assert estimate.high - estimate.low < 0.4
    assert found.bias_sq.low < expected**2 < found.bias_sq.high
    assert abs(found.along_shares["composition"].value) < 0.06
    assert "a step's Jacobian left out or by the estimator" in str(report)
    assert max(map(len, str(report).splitlines())) <= 80


def test_a_loop_without_jacobians_shares_no_batch_for_them_and_differentiates_no_clipping():
    clipped = {"inner_lr": None, "optimiser": ascent(RATE, max_norm=0.5), "sizes": Sizes(8, 8, 8, shared=True)}
    report = diagnosed(surrogate=["first_order", "lvc"], **clipped)
    left, kept = (set(report.verdicts[name].shares) for name in ("first_order", "lvc"))
    assert kept - left == {"shared_batch", "clipping"}
    assert left == {"composition", "hessian"}


def test_advice_counts_a_loop_without_jacobians_once_and_gives_these_no_trajectories():
    choices = diagnosed(surrogate=["first_order", "lvc"]).advise(trajectories=12, splits=(0.25, 0.75), budget=1).choices
    assert sorted(choice.estimator for choice in choices) == ["first_order"] * 2 + ["lvc"] * 4
    assert all(choice.first_order == (choice.estimator == "first_order") for choice in choices)
    drawn = []
    alone = diagnosed(surrogate="first_order", draw=recorded(drawn))
    drawn.clear()
    said = str(alone.advise(trajectories=12, budget=1))
    assert {role for role, _ in drawn} == {"inner", "outer"}
    assert " none " in said


def test_dice_has_a_first_order_loop_of_its_own():
    plan = diagnosed(surrogate=["first_order", "dice+first_order"], lanes=8).plan
    first, other = (config_of(plan.loop, each, sources_of(plan.loop, each)) for each in plan.estimators)
    assert (first.first_order.name, first.end.name) == ("ad", "ad")
    assert (other.first_order.name, other.end.name) == ("dice", "dice")
    assert first.curvature == other.curvature


LEARNT = {"mean": torch.tensor([0.0]), "rate": torch.tensor(RATE)}
OF_PHI = {"params": lambda phi: {"mean": phi["mean"]}, "meta_params": LEARNT, "inner_lr": lambda phi: phi["rate"]}


def spread(n):
    """Var ĝ, of the mean of n r(a) (a − θ), with δ = −1."""
    return ((1 + 18 + 15) / 4 - 1) / n


def meta_sgd(n=None):
    """∇ J(θ + α ĝ) in θ and α where δ = −1: ((1 − α)², 1 − α (1 + Var ĝ))."""
    return torch.tensor([(1 - RATE) ** 2, 1 - RATE * (1 + (spread(n) if n else 0))])


def test_a_rate_that_is_learnt_is_learnt_too_slowly_from_few_trajectories():
    """Its meta-gradient is E⟨ĝ, ∇J(θ + α ĝ)⟩, of which α Var ĝ is no part of the truth; that of θ⁰ has no bias."""
    report = diagnosed(see=lambda *given: see(*given[:3]), **OF_PHI, lanes=2048)
    g, found = meta_sgd(), report.verdicts["lvc"]
    assert within(report, g)
    assert not within(report, meta_sgd(8))
    off = meta_sgd(8) - g
    assert found.bias_sq.low < off @ off / (g @ g) < found.bias_sq.high
    for estimate in (found.along, found.along_shares["composition"]):
        assert estimate.low < off @ g / (g @ g) < estimate.high
        assert estimate.high - estimate.low < 0.3


def test_the_gain_of_adapting_with_a_learnt_rate():
    report = diagnosed(
        see=lambda *given: see(*given[:3]), **OF_PHI, lanes=2048, estimand="adapted", sizes=Sizes(2, 2, 8)
    )
    delta, n = -TARGET, 2
    of_start = -((1 - RATE) ** 2) * delta - RATE**2 * (delta**3 + 7 * delta) / (2 * n)
    assert within(report, torch.tensor([of_start, float(meta_sgd(2)[1])]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"meta_params": None}, "params: expected parameters, or beside a function of φ the meta_params that it is of"),
        ({"params": lambda phi: [phi["mean"]]}, "params: expected a tensor, or tensors by name .*, got a list"),
        ({"inner_lr": lambda phi: {"man": phi["rate"]}}, "inner_lr: expected one for each of mean, got man"),
        ({"inner_lr": lambda phi: phi["rate"].expand(3)},
         r"inner_lr: expected one that broadcasts to 'mean' of shape \(1,\), got shape \(3,\)"),
        ({"inner_lr": lambda phi: phi["rate"] / 0}, "inner_lr: expected finite numbers, got NaN or infinity"),
        ({"inner_lr": {"mean": 0.1}}, "inner_lr: expected a number, a tensor, or a function of φ that gives one, got "),
        ({"see": see}, r"see: expected a function of \(batch, params, gae_lambda, meta_params\), got one of "),
    ],
)  # fmt: skip
def test_a_start_and_rates_that_do_not_fit_are_refused_in_a_line(changes, said):
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        diagnosed(**({"see": lambda *given: see(*given[:3])} | OF_PHI | changes))
    assert "\n" not in str(caught.value)


PAYS, START, FAST = torch.tensor([1.0, -0.5]).double(), torch.tensor([0.2, -0.3]).double(), 2.0


def choose(role, step, params, n, seed):
    """One of two actions, with the log-probability of whom it was drawn by."""
    draw = torch.Generator().manual_seed(seed)
    log_policy = params.log_softmax(-1)
    action = (torch.rand(*params.shape[:-1], n, generator=draw, dtype=torch.float64) > log_policy[..., :1].exp()).long()
    return action, log_policy.gather(-1, action)


def weighted(batch, params, gae_lambda):
    """A baseline makes what a trajectory counts differ from what it pays."""
    action, behaviour = batch
    log_prob, reward = params.log_softmax(-1).gather(-1, action), PAYS[action]
    value = torch.stack([torch.full_like(reward, 0.4), torch.zeros_like(reward)], -1)
    return OffPolicyTrajectories(
        log_prob[..., None], reward[..., None], value, reward[..., None] - 0.4, torch.ones(2), behaviour[..., None]
    )


def exact(phi, params, *step):
    return params.softmax(-1) @ PAYS


def of_batch(estimator, actions, log_policy):
    """The mean surrogate of some actions that this policy drew."""
    batch = torch.tensor(actions), log_policy[list(actions)]
    return lambda params: estimator.surrogate(weighted(batch, params, None)).mean()


def of_many(estimator, log_policy):
    """The same of infinitely many actions of a policy, by default of the one that it is asked for."""

    def objective(params):
        by = params.log_softmax(-1).detach() if log_policy is None else log_policy
        return by.exp() @ estimator.surrogate(weighted((torch.tensor([0, 1]), by), params, None))

    return objective


def each_batch(estimator, log_policy):
    """Every pair of actions that it can draw: (probability, mean surrogate)."""
    for actions in product((0, 1), repeat=2):
        yield log_policy[list(actions)].sum().exp(), of_batch(estimator, actions, log_policy)


def inner_ways(estimator, practice):
    """What the inner gradients of two steps can be: (probability, an objective for each step)."""
    log_policy = START.log_softmax(-1)
    if "composition" not in practice:
        many = of_many(estimator, log_policy if "reuse" in practice else None)
        yield 1.0, (many if "reuse" in practice else lambda params: exact(None, params),) * 2
        return
    for first, objective in each_batch(estimator, log_policy):
        if "reuse" in practice:
            yield first, (objective, objective)
            continue
        leaf = START.clone().requires_grad_()
        (slope,) = torch.autograd.grad(objective(leaf), leaf)
        for second, other in each_batch(estimator, (START + FAST * slope).log_softmax(-1)):
            yield first * second, (objective, other)


def hessian_ways(estimator, practice, inner):
    """Likewise of their Jacobians; an estimate is linear in those of batches that are not used again."""
    log_policy = START.log_softmax(-1)
    if "hessian" not in practice:
        yield 1.0, (lambda params: exact(None, params),) * 2
    elif {"composition", "shared_batch"} <= set(practice):
        yield 1.0, inner
    elif {"composition", "reuse"} <= set(practice):
        for probability, objective in each_batch(estimator, log_policy):
            yield probability, (objective, objective)
    else:
        yield 1.0, (of_many(estimator, log_policy if "reuse" in practice else None),) * 2


def by_enumeration(estimator, practice):
    """The expectation of two steps, with these sources as in practice."""
    total = torch.zeros(2).double()
    for chance, inner in inner_ways(estimator, practice):
        for other, hessian in hessian_ways(estimator, practice, inner):
            total += chance * other * meta_gradient(
                START, inner=lambda phi, params, step, of=inner: of[step](params),
                hessian=lambda phi, params, step, of=hessian: of[step](params),
                outer=exact, inner_steps=2, inner_lr=FAST,
            )  # fmt: skip
    return total


@pytest.mark.parametrize("estimator", [load("ad"), off_policy(load("lvc"))])
def test_batches_that_are_used_again_have_the_expectation_that_enumeration_has(estimator):
    """With every set of sources. Weights make reuse alone nothing; without them it is not."""
    loop = Loop(
        choose, weighted, START, Sizes(2, 2, 4, shared=True), 2, ascent(FAST), lanes=600, batch_of=origins([0, 0], 2)
    )
    sources = sources_of(loop, estimator)
    assert sources == ("composition", "hessian", "shared_batch", "reuse")
    configs = {some: config_of(loop, estimator, some) for some in subsets(sources)}
    found = by_config(Repeat(loop, 0), set(configs.values()), tuple(range(16)))
    for some, config in configs.items():
        assert near(found[config].mean(0), by_enumeration(estimator, some)), some
    truth = meta_gradient(START, inner=exact, outer=exact, inner_steps=2, inner_lr=FAST)
    assert torch.allclose(by_enumeration(estimator, ()), truth)
    assert not near(found[configs[frozenset(sources)]].mean(0), truth)
    assert near(found[configs[frozenset({"reuse"})]].mean(0), truth) == estimator.name.startswith("off-policy")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_of": [0]}, "batch_of: expected a step for each of 2 inner steps, got 1"),
        ({"batch_of": [0, 2]}, r"batch_of: expected for step 1 one from 0 to 1, or \(it, number of minibatch\), got 2"),
        ({"batch_of": [(0, -1), 0]}, r"batch_of: expected for step 0 0, or \(it, number of minibatch\), got \(0, -1\)"),
        ({"batch_of": 2}, r"batch_of: expected a step for each inner step, such as \[0, 0, 2\], got 2"),
        ({"batch_of": [0, 0], "estimand": "adapted"}, "batch_of: expected None beside the estimand 'adapted', got "),
    ],
)
def test_batches_that_cannot_be_are_refused_in_a_line(changes, said):
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        diagnosed(inner_steps=2, **changes)
    assert "\n" not in str(caught.value)


def test_advice_counts_a_batch_that_is_used_again_once():
    report = diagnosed(inner_steps=3, batch_of=[0, (0, 1), 0], lanes=8)
    choices = report.advise(trajectories=12, splits=(0.5,), budget=1).choices
    assert {each.sizes for each in choices} == {Sizes(3, 3, 6, shared=True), Sizes(2, 1, 6)}
    assert set(report.verdicts["lvc"].shares) == {"composition", "hessian", "reuse"}
    own = diagnosed(inner_steps=2, batch_of=[0, 1], lanes=8)
    assert "reuse" not in own.verdicts["lvc"].shares


def test_a_name_that_is_longer_than_its_column_is_cut():
    report = diagnose(
        draw=choose, see=weighted, params=START, sizes=2, inner_lr=FAST, lanes=600, blocks=8, budget=1,
        surrogate=off_policy(load("loaded_dice")),
    )  # fmt: skip
    table = str(report).split("\n\n")[1:3]
    assert all("off-policy load" in part and max(map(len, part.splitlines())) <= 80 for part in table)
    assert "\noff-policy load… " in str(report)


def test_a_file_holds_loops_of_every_kind_and_tells_them_apart(tmp_path):
    given = {"see": lambda *each: see(*each[:3]), **OF_PHI, "lanes": 8, "inner_steps": 2, "batch_of": [0, 0]}
    given |= {"surrogate": ["first_order", "lvc"], "keep": tmp_path / "loop.pt"}
    once = diagnosed(**given)
    assert diagnosed(**given).verdicts == once.verdicts
    with pytest.raises(ValueError, match=r"keep: expected .* got batch_of \(\(0, 0\), \(0, 0\)\) in it and None here"):
        diagnosed(**given | {"batch_of": None})
    with pytest.raises(ValueError, match=r"keep: expected .* got params of 1 numbers"):
        diagnosed(**given | {"params": lambda phi: {"mean": phi["mean"] + 1}})


def test_advice_on_other_numbers_of_steps_has_no_batches_of_earlier_ones():
    report = diagnosed(inner_steps=2, batch_of=[0, 0], lanes=8)
    with pytest.raises(ValueError, match=r"inner_steps: expected the loop's own 2 beside batch_of, .* got \[1, 2\]"):
        report.advise(trajectories=12, inner_steps=(1, 2), budget=1)
