"""What a diagnosis differentiates is what `meta_gradient` differentiates, on the same trajectories."""

from dataclasses import replace

import pytest
import torch

from gm_estimators import Sizes, Trajectories, load, meta_gradient
from gm_estimators.diagnose import diagnose
from gm_estimators.diagnose.first_order import named
from gm_estimators.diagnose.loop import Loop, Rates, origins, seed_of
from gm_estimators.diagnose.repeat import Repeat
from gm_estimators.diagnose.sources import along, config_of, sources_of
from gm_estimators.inner_loop import inner_loop
from gm_estimators.off_policy import OffPolicyTrajectories, off_policy
from gm_estimators.optimisers import adam, ascent
from gm_estimators.surrogates import mean_surrogate

TASKS, N, TIME = 2, 3, 4
GOALS = torch.tensor([0.5, -1.0], dtype=torch.float64)
ESTIMATORS = ("ad", "lvc", "loaded_dice", "first_order")
UPDATES = {
    "ascent": ascent(0.3), "clipped": ascent(0.3, max_norm=0.2), "clipping differentiated":
    ascent(0.3, max_norm=0.2, detach_clip=False), "adam": adam(0.2, eps=1e-2),
}  # fmt: skip


def draw(role, step, params, n, seed):
    noise = torch.randn(TIME, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    state, states, actions = torch.zeros_like(params["bias"] + noise[0]), [], []
    for shock in noise:
        states.append(state)
        actions.append(params["bias"] + params["slope"] * state + shock)
        state = 0.5 * state + 0.3 * actions[-1]
    return role, torch.stack(states, -1), torch.stack(actions, -1)


def read(batch, params, gae_lambda, scale):
    """Rewards that φ scales in inner steps; the second trajectory ends early."""
    role, state, action = batch
    scale = 1.0 if role == "outer" else scale
    mean = params["bias"].unsqueeze(-1) + params["slope"].unsqueeze(-1) * state
    reward = -scale * (action - GOALS.view(TASKS, 1, 1)).square()
    advantage = reward * (gae_lambda or 1.0)
    discount = 0.9 ** torch.arange(TIME + 1).double().expand(N, TIME + 1)
    discount = torch.where((torch.arange(TIME + 1) > 2) & (torch.arange(N) == 1).unsqueeze(-1), 0.0, discount)
    value = torch.zeros(*reward.shape[:-1], TIME + 1, dtype=torch.float64)
    return Trajectories(-0.5 * (action - mean).square(), reward, value, advantage, discount)


START = {name: torch.tensor([x], dtype=torch.float64) for name, x in (("bias", 0.2), ("slope", -0.4))}
SCALE = {"scale": torch.tensor(1.3, dtype=torch.float64)}


def learnt(batch, params, gae_lambda, phi):
    return read(batch, params, gae_lambda, phi["scale"])


def fixed(batch, params, gae_lambda):
    return read(batch, params, gae_lambda, 1.0)


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(
    ("name", "meta_params"),
    [(name, phi) for name in ESTIMATORS for phi in (None, SCALE) if not (phi and name == "first_order")],
)
def test_an_estimate_is_the_meta_gradient_of_its_trajectories(name, update, meta_params):
    estimator, steps = named(name), 2
    see = fixed if meta_params is None else learnt
    loop = Loop(
        draw, see, START, Sizes(N, N, N, shared=True), steps, UPDATES[update], None, 0.7, TASKS, None, meta_params
    )
    found = along(Repeat(loop, 5), config_of(loop, estimator, (*sources_of(loop, estimator), "clipping")), (0,))

    def objective(phi, params, role, step):
        at = {key: x.detach() for key, x in params.items()}
        batch = draw(role, step, at, N, seed_of(5, role, step, 0))
        seen = see(batch, params, 0.7, *([] if meta_params is None else [phi]))
        return mean_surrogate(estimator.surrogate, seen)

    expected = meta_gradient(
        START if meta_params is None else SCALE, None if meta_params is None else START,
        inner=lambda phi, params, step: objective(phi, params, "inner", step),
        outer=lambda phi, params: objective(phi, params, "outer", steps),
        inner_steps=steps, update=UPDATES[update], tasks=TASKS, first_order=name == "first_order",
    )  # fmt: skip
    assert torch.allclose(found[0], torch.cat([x.flatten() for x in expected.values()]), rtol=1e-9)
    assert found.abs().max() > 1e-9


RATES = {"of bias": torch.tensor([0.2], dtype=torch.float64), "of slope": torch.tensor(0.4, dtype=torch.float64)}


@pytest.mark.parametrize("lanes", [None, 3])
@pytest.mark.parametrize("name", ["lvc", "first_order"])
def test_an_estimate_of_a_learnt_start_and_learnt_rates_is_the_meta_gradient_of_its_trajectories(name, lanes):
    """Meta-SGD; here every lane plays the same trajectories."""
    learnt, estimator = START | RATES, named(name)
    loop = Loop(
        draw, lambda batch, params, lam, phi: fixed(batch, params, lam), start_of, Sizes(N, N, N, shared=True), 2,
        Rates(rates_of), None, 0.7, TASKS, lanes, learnt,
    )  # fmt: skip
    found = along(Repeat(loop, 5), config_of(loop, estimator, sources_of(loop, estimator)), (0,))

    def objective(params, role, step):
        at = {key: x.detach() for key, x in params.items()}
        seen = fixed(draw(role, step, at, N, seed_of(5, role, step, 0)), params, 0.7)
        return mean_surrogate(estimator.surrogate, seen)

    phi = {key: x.clone().requires_grad_() for key, x in learnt.items()}
    last = inner_loop(
        lambda phi, params, step: objective(params, "inner", step),
        phi, {key: x.expand(TASKS, *x.shape) for key, x in start_of(phi).items()},
        inner_steps=2, inner_lr=rates_of, first_order=name == "first_order",
    )  # fmt: skip
    expected = torch.autograd.grad(objective(last, "outer", 2).mean(), list(phi.values()))
    expected = torch.cat([x.flatten() for x in expected])
    assert found.shape == (lanes or 1, 4)
    assert torch.allclose(found, expected.expand_as(found), rtol=1e-9)
    assert expected.abs().min() > 1e-9


def start_of(phi):
    return {key: phi[key] for key in START}


def rates_of(phi):
    return {key: phi[f"of {key}"] for key in START}


BATCHES = [0, (0, 1), 0, 3, (2, 1), 3]


def weighted(batch, params, gae_lambda):
    """With the policy that drew it beside the batch."""
    seen = fixed(batch[:3], params, gae_lambda)
    return OffPolicyTrajectories(**vars(seen), behaviour_log_prob=batch[3])


def draw_weighted(role, step, params, n, seed):
    batch = draw(role, step, params, n, seed)
    return *batch, fixed(batch, params, None).log_prob.detach()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("estimator", [load("ad"), load("loaded_dice"), off_policy(load("lvc")), named("first_order")])
def test_an_estimate_with_batches_of_earlier_steps_is_the_meta_gradient_of_its_trajectories(estimator, shared):
    """Each batch is drawn once, of the policy at that step."""
    steps, drawn = len(BATCHES), []

    def looked(role, step, params, n, seed):
        drawn.append((role, step, seed))
        return draw_weighted(role, step, params, n, seed)

    loop = Loop(
        looked, weighted, START, Sizes(N, N, N, shared=shared), steps, ascent(0.05), None, 0.7, TASKS,
        batch_of=origins(BATCHES, steps),
    )  # fmt: skip
    found = along(Repeat(loop, 5), config_of(loop, estimator, sources_of(loop, estimator)), (0,))
    roles = {"inner"} | ({"hessian"} if not shared and estimator.name != "first_order" else set())
    assert len(drawn) == len(set(drawn)) == 4 * len(roles) + 1
    assert loop.batches == 4
    kept, path = {}, {}

    def objective(params, role, step, origin):
        """The path is that of inner gradients."""
        path.setdefault(step, {key: x.detach() for key, x in params.items()})
        by, number = origin
        if (role, *origin) not in kept:
            seed = seed_of(5, role, by, 0, *([number] if number else []))
            kept[role, *origin] = draw_weighted(role, by, path[by], N, seed)
        return mean_surrogate(estimator.surrogate, weighted(kept[role, *origin], params, 0.7))

    def inner(role):
        return lambda phi, params, step: objective(params, role, step, origins(BATCHES, steps)[step])

    expected = meta_gradient(
        START, inner=inner("inner"), hessian=inner("hessian") if len(roles) == 2 else None,
        outer=lambda phi, params: objective(params, "outer", steps, (steps, 0)),
        inner_steps=steps, inner_lr=0.05, tasks=TASKS, first_order=estimator.name == "first_order",
    )  # fmt: skip
    assert torch.allclose(found[0], torch.cat([x.flatten() for x in expected.values()]), rtol=1e-9)
    assert found.abs().max() > 1e-9


def test_rewards_of_the_outer_batch_that_depend_on_the_meta_parameters_are_refused():
    """What a surrogate's derivative in φ is then, is not the objective's."""
    given = {"draw": draw, "params": START, "sizes": N, "inner_lr": 0.1, "tasks": TASKS, "meta_params": SCALE}

    def everywhere(batch, params, gae_lambda, phi):
        return read(("inner", *batch[1:]), params, gae_lambda, phi["scale"])

    with pytest.raises(ValueError, match="see: expected reward that is constant in the meta-parameters in the outer"):
        diagnose(see=everywhere, **given, budget=1)
    assert diagnose(see=learnt, **given, budget=1, surrogate="lvc", blocks=8).repeats == 8


def test_meta_parameters_that_enter_inner_gradients_alone_are_nothing_to_a_loop_without_jacobians():
    given = {"draw": draw, "params": START, "sizes": N, "inner_lr": 0.1, "tasks": TASKS, "meta_params": SCALE}
    with pytest.raises(ValueError, match="first_order: expected meta-parameters that enter θ⁰ or the outer batch, got"):
        diagnose(see=learnt, **given, budget=1, surrogate="first_order")


def test_the_outer_gradient_of_ones_own_surrogate_is_a_source_and_that_of_dice_has_its_own_variance():
    mine = replace(load("ad"), name="mine", gradient_family="mine")
    loop = Loop(draw, fixed, START, Sizes.each(N), 2, ascent(0.3))
    assert sources_of(loop, mine) == ("composition", "hessian", "outer")
    assert sources_of(loop, load("dice")) == ("composition", "hessian")
    assert config_of(loop, mine, ("hessian",)).end.name == "ad"
    assert config_of(loop, load("dice"), ("hessian",)).end.name == "dice"
