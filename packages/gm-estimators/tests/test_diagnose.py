"""A diagnosis of a loop whose truth has a closed form: one action a ~ N(θ, 1) with reward −½ (a − c)².

J(θ) = −½ ((θ − c)² + 1), so that a step goes to c + (1 − α) (θ − c) and g = −(1 − α)² (θ − c), or its mean over c.
"""

import math

import jaxtyping
import pytest
import torch

from gm_estimators import Sizes, Trajectories
from gm_estimators.diagnose import diagnose
from gm_estimators.diagnose.loop import LONGEST, kept
from gm_estimators.diagnose.pairs import inner, mean
from gm_estimators.optimisers import adam, ascent


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Checking shapes would take half of the time; test_diagnose_engine.py has them checked."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


RATE, TARGETS = 0.3, torch.tensor([1.0, 2.5])


def draw(role, step, params, n, seed):
    mean = params["mean"]
    noise = torch.randn(*mean.shape[:-1], n, generator=torch.Generator().manual_seed(seed))
    return mean + noise


def reader(targets):
    def see(actions, params, gae_lambda):
        log_prob = -0.5 * (actions - params["mean"]).square()
        reward = -0.5 * (actions - targets).square()
        zero = torch.zeros_like(reward)
        advantage = 0.5 * reward if gae_lambda == 0.5 else reward
        return Trajectories(
            log_prob.unsqueeze(-1), reward.unsqueeze(-1), torch.stack([zero, zero], -1), advantage.unsqueeze(-1),
            torch.ones(2),
        )  # fmt: skip

    return see


def diagnosed(**changes):
    options = {
        "draw": draw, "see": reader(TARGETS[:1]), "params": {"mean": torch.tensor([0.0])},
        "sizes": Sizes(8, 8, 8, shared=True), "inner_lr": RATE, "lanes": 64, "budget": 1, "surrogate": "lvc",
    }  # fmt: skip
    return diagnose(**(options | changes))


def truth(targets):
    return float(((1 - RATE) ** 2 * targets).mean())


def within(report, expected, errors=4):
    mean = report.sampled.reference.mean(0)
    error = report.sampled.reference.std(0) / len(report.sampled.reference) ** 0.5
    return bool(((mean - expected).abs() < errors * error).all())


def test_the_reference_is_the_closed_form():
    report = diagnosed(lanes=4096)
    assert within(report, truth(TARGETS[:1]))
    assert not within(report, truth(TARGETS[:1]) * 1.1)


def test_tasks_share_what_is_adapted():
    report = diagnosed(see=reader(TARGETS.unsqueeze(-1)), tasks=2, lanes=4096)
    assert within(report, truth(TARGETS))


def test_one_lane_after_the_other_is_without_an_axis():
    shapes = set()

    def looked(role, step, params, n, seed):
        shapes.add(tuple(params["mean"].shape))
        return draw(role, step, params, n, seed)

    report = diagnosed(draw=looked, lanes=None)
    assert shapes == {(1,)}
    assert report.repeats == 8
    assert report.verdicts["lvc"].variance.value > 0


def test_half_advantages_halve_every_gradient():
    """λ = 0.5 reads half the reward, in inner and outer gradient and in the Jacobian."""
    report = diagnosed(gae_lambda=0.5, sizes=Sizes(8, 8, 8), lanes=8192)
    halved = (1 - RATE / 2) ** 2 / 2 / (1 - RATE) ** 2 - 1
    found = report.verdicts["lvc"].along
    assert found.low < halved < found.high
    assert found.high - found.low < 0.1
    assert set(report.verdicts["lvc"].shares) == {"composition", "hessian", "outer", "gae_lambda"}


def test_one_batch_for_inner_gradient_and_jacobian_is_a_source():
    """E[H g] − E[H] E[g] = Cov / n, which all of composition, Hessian and shared batch have to be there for."""
    found = diagnosed(lanes=8192).verdicts["lvc"]
    assert found.along_shares["shared_batch"].low > 0
    assert {name for name, share in found.along_shares.items() if share.low > 0} == set(found.along_shares)
    assert diagnosed(sizes=Sizes(8, 8, 8), lanes=8192).verdicts["lvc"].along.low < 0


def test_a_seed_decides_everything_and_more_goes_on():
    once, again, other = diagnosed(), diagnosed(), diagnosed(seed=1)
    assert torch.equal(once.sampled.reference, again.sampled.reference)
    assert not torch.equal(once.sampled.reference, other.sampled.reference)
    longer = diagnosed(budget=2 * once.env_steps)
    assert longer.rounds == 2
    assert torch.equal(once.more(budget=1).sampled.reference, longer.sampled.reference)
    assert once.more(budget=1).verdicts["lvc"] == longer.verdicts["lvc"]


def test_it_stops_at_its_budget_and_tells_progress():
    told = []
    report = diagnosed(budget=100_000, progress=lambda repeats, steps: told.append((repeats, steps)))
    each = report.env_steps // report.rounds
    assert 100_000 - each < report.env_steps <= 100_000
    assert told[-1] == (report.repeats, report.env_steps)
    assert len(told) == report.rounds


def test_environment_steps_are_those_that_were_drawn():
    counted = []

    def counting(role, step, params, n, seed):
        batch = draw(role, step, params, n, seed)
        counted.append(batch.numel())
        return batch

    report = diagnosed(draw=counting, lanes=8)
    checks = 4 * 64  # two batches of two roles, of 8 trajectories in 8 lanes
    assert report.env_steps == sum(counted) - checks


def test_a_clipping_that_is_held_constant_is_a_source():
    report = diagnosed(inner_lr=None, optimiser=ascent(RATE, max_norm=0.5), lanes=2048)
    assert "clipping" in report.verdicts["lvc"].shares
    assert report.verdicts["lvc"].shares["clipping"].low > 0
    kept = diagnosed(inner_lr=None, optimiser=ascent(RATE, max_norm=0.5, detach_clip=False))
    assert "clipping" not in kept.verdicts["lvc"].shares


def test_adam_needs_no_state_and_its_truth_is_that_of_many_trajectories():
    """A first step goes by α against the sign, whatever the gradient's length, where it is long beside ε."""
    report = diagnosed(inner_lr=None, optimiser=adam(0.3), lanes=2048)
    assert within(report, float(TARGETS[0]) - 0.3)


def adapted_truth(n):
    """∇ E[J(θ + α ĝ)] with ĝ the mean of n r(a) (a − θ): −(1 − α)² δ − α² (δ³ + 7 δ) / (2 n), δ = θ − c.

    E[ĝ] = −δ and Var[ĝ] = ((δ⁴ + 18 δ² + 15) / 4 − δ²) / n.
    """
    delta = -float(TARGETS[0])
    return -((1 - RATE) ** 2) * delta - RATE**2 * (delta**3 + 7 * delta) / (2 * n)


def test_the_gain_of_adapting_with_few_trajectories_is_another_truth():
    report = diagnosed(estimand="adapted", sizes=Sizes(2, 2, 8, shared=True), surrogate=["ad", "lvc"], lanes=8192)
    assert within(report, adapted_truth(2))
    assert not within(report, truth(TARGETS[:1]))
    # AD leaves out that trajectories are drawn from what is adapted: −E[(1 − α r̄) (δ + α ĝ)] = 0.775 for 0.67
    assert adapted_truth(2) == pytest.approx(0.67)
    found = report.verdicts["ad"].along
    assert max(found.low, 0.1) < 0.775 / 0.67 - 1 < min(found.high, 0.2)
    assert set(report.verdicts["ad"].shares) == {"hessian"}
    other = diagnosed(estimand="adapted", gae_lambda=0.5)  # the outer gradient reads half of the reward
    assert other.verdicts["lvc"].along_shares["outer"].high < -0.2
    assert "g is that of adapting with 2 trajectories a step." in str(report)
    with pytest.raises(ValueError, match="advise: expected the estimand 'exact'"):
        report.advise(trajectories=10)


def test_a_source_of_ones_own():
    """Rewards that are half as large in practice: E[d] is (1 − α/2)² / 2 / (1 − α)² of g."""

    def wrong(actions, params, gae_lambda):
        seen = reader(TARGETS[:1])(actions, params, gae_lambda)
        return Trajectories(seen.log_prob, seen.reward, seen.value, seen.advantage / 2, seen.discount)

    report = diagnosed(see=wrong, ideals={"rewards": {"see": reader(TARGETS[:1])}}, sizes=Sizes(8, 8, 8), lanes=4096)
    found = report.verdicts["lvc"].along_shares
    assert found["rewards"].low < (1 - RATE / 2) ** 2 / 2 / (1 - RATE) ** 2 - 1 < found["rewards"].high
    assert abs(found["composition"].value) < 0.1
    assert within(report, truth(TARGETS[:1]))


def test_vectors_of_many_parameters_are_kept_as_sketches(monkeypatch):
    """Inner products are right within their error; on a line of few places they are not."""
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 100_000, generator=draw) + 0.5
    exact = vectors.double() @ vectors.double().mT
    found = kept(vectors)
    assert found.shape == (3, LONGEST)
    error = (2 / LONGEST) ** 0.5
    assert torch.allclose(found @ found.mT, exact, rtol=0, atol=4 * error * float(exact.max()))
    monkeypatch.setattr("gm_estimators.diagnose.loop.LONGEST", 16)
    few = kept(vectors)
    assert not torch.allclose(few @ few.mT, exact, rtol=0, atol=4 * error * float(exact.max()))
    assert torch.equal(kept(vectors[:, :16]), vectors[:, :16].double())


def test_a_terminal_is_told_how_far_it_is(monkeypatch, capsys):
    diagnosed()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    report = diagnosed()
    said = capsys.readouterr().err
    assert f"\rdiagnose: {report.repeats} repeats, {report.env_steps:,} environment steps, " in said
    assert max(len(line) for line in said.split("\r")) <= 79


def test_too_few_repeats_have_no_bounds_and_say_so():
    report = diagnosed(lanes=8)
    assert "not told apart from 0" in str(report) or "of ‖g‖²" in str(report)
    hidden = diagnosed(params={"mean": TARGETS[:1].clone()}, lanes=16)  # g is 0 there
    assert "not told apart from 0" in str(hidden)
    assert "It cannot be told with fewer than " in str(hidden)
    assert math.isinf(hidden.verdicts["lvc"].bias_sq.high)


def test_the_table_fits_a_terminal():
    report = diagnosed(surrogate=["ad", "lvc", "loaded_dice"], gae_lambda=0.5, lanes=2048)
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert "shared_batch" in str(report)
    rows = report.rows()
    assert {row["measure"] for row in rows} == {"bias_sq", "along", "variance", "mse"}
    assert len(rows) == 3 * (4 + 2 * 5)


def test_advice_ranks_what_it_measures():
    report = diagnosed(surrogate=["ad", "lvc"], gae_lambda=0.5, lanes=512)
    advice = report.advise(trajectories=12, budget=1)
    errors = [choice.mse for choice in advice.choices]
    assert errors == sorted(errors)
    assert advice.choices[0].beyond == (0, 0, 0)
    assert all(choice.sizes.inner + choice.sizes.outer <= 12 for choice in advice.choices)
    assert {choice.gae_lambda for choice in advice.choices} == {0.5, 0.8, 0.95, 1.0}
    assert max(map(len, str(advice).splitlines())) <= 80
    with pytest.raises(ValueError, match="trajectories: expected at least 2, got 1"):
        report.advise(trajectories=1)


def moved(params, batch):
    params["mean"] += 1
    return batch


def with_advantage(batch, params, advantage):
    seen = reader(TARGETS[:1])(batch, params, None)
    return Trajectories(seen.log_prob, seen.reward, seen.value, seen.advantage * advantage.unsqueeze(-1), seen.discount)


def test_advice_ranks_errors_also_where_their_unit_is_unknown():
    """The estimate of ‖g‖² can be negative where g is 0; most trajectories for the outer gradient are best then."""
    for seed in range(9):
        report = diagnosed(params={"mean": TARGETS[:1].clone()}, lanes=16, seed=seed)
        if mean(inner(report.sampled.reference, report.sampled.reference)) < 0:
            break
    advice = report.advise(trajectories=32, budget=1)
    assert math.isnan(advice.choices[0].mse)
    assert advice.choices[0].sizes.outer > advice.choices[-1].sizes.outer
    assert "have no unit" in str(advice)


def test_choices_that_are_clearly_worse_are_left_out_of_further_repeats():
    """So that more of the budget is spent on what is hard to tell apart; all are ranked in the end."""
    report = diagnosed(surrogate=["ad", "lvc"], gae_lambda=0.5, lanes=64)
    short, long = (report.advise(trajectories=12, budget=budget) for budget in (1, 150_000))
    assert long.repeats > 2 * short.repeats
    assert len(long.choices) == len(short.choices)
    each = short.env_steps / short.repeats
    assert long.env_steps < 0.9 * each * long.repeats
    assert long.choices[-1].beyond.low > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draw": lambda role, step, params, n, seed: params["mean"] + torch.randn(64, n)},
         "draw: expected the same trajectories for the same seed, got other"),
        ({"see": lambda batch, params, lam: reader(TARGETS[:1])(batch, {"mean": params["mean"].detach()}, lam)},
         "see: expected log_prob with a graph to the parameters"),
        ({"draw": lambda *a: draw(*a)[:, :2]},
         r"see: expected log_prob of shape \(64, 8, time\), .*got \(64, 2, 1\)"),
        ({"see": lambda batch, params, lam: batch}, "see: expected Trajectories, got a Tensor"),
        ({"inner_steps": 0}, "inner_steps: expected at least 1, got 0"),
        ({"gae_lambda": 2.0}, "gae_lambda: expected a number from 0 to 1, or None, got 2.0"),
        ({"blocks": 12}, "blocks: expected a multiple of 8, got 12"),
        ({"surrogate": ["lvc", "lvc"]}, "surrogate: expected one or more different estimators"),
        ({"optimiser": ascent(0.1)}, "inner_lr, optimiser: expected exactly one of the two"),
        ({"ideals": {"x": {"sea": 1}}}, r"ideals\['x'\]: expected fields of Loop such as see or update, got \['sea'\]"),
        ({"ideals": 3}, "ideals: expected a dictionary by name, got 3"),
        ({"inner_steps": 1.5}, "inner_steps: expected an integer, got 1.5"),
        ({"sizes": "8"}, "sizes: expected an integer, got '8'"),
        ({"seed": None}, "seed: expected an integer, got None"),
        ({"see": 3}, r"see: expected a function of \(batch, params, gae_lambda\), got 3"),
        ({"inner_lr": None, "optimiser": torch.optim.SGD([torch.zeros(1, requires_grad=True)])},
         "optimiser: expected an update such as .* got a SGD"),
        ({"budget": -5}, "budget: expected a positive number, got -5"),
        ({"seconds": math.nan}, "seconds: expected a positive number, got nan"),
        ({"inner_lr": math.inf}, "inner_lr: expected a finite number, got inf"),
        ({"lanes": 0}, "lanes: expected at least 1, got 0"),
        ({"draw": lambda n: n}, r"draw: expected a function of \(role, step, params, n, seed\), got one of \(n\)"),
        ({"draw": lambda role, step, params, n, seed: moved(params, draw(role, step, params, n, seed))},
         "draw: expected parameters to stay as they are"),
        ({"see": lambda batch, params, lam: with_advantage(batch, params, params["mean"])},
         r"see: expected advantage that is constant in the parameters, .* detach\(\) it"),
        ({"inner_steps": 2, "draw": lambda role, step, params, n, seed:
            draw(role, step, params, n, seed) / (1 - step)},
         "see: expected finite numbers, got NaN or infinity in log_prob of inner step 1"),
        ({"inner_steps": 2, "draw": lambda role, step, params, n, seed:
            draw(role, step, params, n, seed) if step == 0 else params["mean"] + torch.randn(64, n)},
         "draw: expected the same trajectories for the same seed"),
        ({"params": {"mean": torch.tensor([math.nan])}},
         "see: expected finite numbers, got NaN or infinity in log_prob"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_a_line(changes, said):
    with pytest.raises((ValueError, TypeError), match=said) as caught:
        diagnosed(**changes)
    assert "\n" not in str(caught.value)
