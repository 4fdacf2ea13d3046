"""Tasks that share θ⁰, what comes with a meta-gradient, first-order MAML and learning rates that are learnt."""

from collections import OrderedDict

import pytest
import torch

from gm_estimators import meta_gradient
from gm_estimators.optimisers import adam, adam_state, constant

F64 = torch.float64
TARGETS = torch.tensor([[1.0, 0.0], [0.5, -1.0], [-2.0, 0.3]], dtype=F64)
PHI = {"weight": torch.tensor([0.2, -0.1], dtype=F64), "scale": torch.tensor(0.7, dtype=F64)}


def value(params, target):
    """A number for each task, whatever axes θ has in front."""
    error = params["weight"] * params["scale"].unsqueeze(-1) - target
    return -(error.square() + 0.1 * error**4).sum(-1)


def by_hand(targets, inner_steps, rate=0.1, first_order=False):
    """Plain autograd, one task after the other."""
    phi = {name: x.clone().requires_grad_() for name, x in PHI.items()}
    values = []
    for target in targets:
        theta = dict(phi)
        for _ in range(inner_steps):
            grads = torch.autograd.grad(value(theta, target), list(theta.values()), create_graph=not first_order)
            theta = {name: x + rate * g for (name, x), g in zip(theta.items(), grads, strict=True)}
        values.append(value(theta, target))
    return torch.autograd.grad(torch.stack(values).mean(), list(phi.values()))


def close(found, expected):
    return all(torch.allclose(x, y, rtol=1e-12) for x, y in zip(found.values(), expected, strict=True))


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_tasks_at_once_and_one_by_one_are_plain_autograd(steps, first_order):
    options = {"inner_steps": steps, "inner_lr": 0.1, "first_order": first_order, "parts": True}
    expected = by_hand(TARGETS, steps, first_order=first_order)
    once = meta_gradient(
        PHI, inner=lambda phi, theta, i: value(theta, TARGETS), outer=lambda phi, theta: value(theta, TARGETS),
        tasks=3, **options,
    )  # fmt: skip
    each = meta_gradient(
        PHI, inner=lambda phi, theta, i, target: value(theta, target),
        outer=lambda phi, theta, target: value(theta, target), tasks=list(TARGETS), **options,
    )  # fmt: skip
    assert close(once.gradient, expected)
    assert close(each.gradient, expected)
    assert once.outer.shape == each.outer.shape == (3,)
    assert torch.allclose(once.outer, each.outer, rtol=1e-12)
    assert len(once.path) == steps + 1
    assert once.path[-1]["weight"].shape == (3, 2)
    assert torch.equal(once.path[0]["weight"][1], PHI["weight"])
    assert torch.allclose(once.path[-1]["weight"][2], each.path[2][-1]["weight"], rtol=1e-12)
    assert torch.allclose(value(once.path[-1], TARGETS), once.outer, rtol=1e-12)


def test_a_first_order_meta_gradient_leaves_the_hessian_out():
    full, first = (by_hand(TARGETS, 2, first_order=flag) for flag in (False, True))
    assert not torch.allclose(full[0], first[0], rtol=1e-3)
    with pytest.raises(ValueError, match="first_order: expected no hessian beside it"):
        meta_gradient(
            PHI, inner=lambda *_: None, outer=lambda *_: None, hessian=lambda *_: None, first_order=True, inner_steps=1,
            inner_lr=0.1,
        )  # fmt: skip


def test_meta_sgd_learns_its_learning_rates():
    """α is part of φ: its meta-gradient is that of central differences."""
    phi = {"w": torch.tensor([0.3, -0.2], dtype=F64), "rate": torch.tensor([0.1, 0.3], dtype=F64)}

    def found(rate, parts=True):
        return meta_gradient(
            {**phi, "rate": rate}, {"w": phi["w"]}, inner=lambda phi, theta, i: -(theta["w"] - TARGETS[0]).pow(4).sum(),
            outer=lambda phi, theta: -(theta["w"] - TARGETS[1]).pow(2).sum() + phi["w"].sum(), inner_steps=2,
            inner_lr=lambda phi: {"w": phi["rate"]}, parts=parts,
        )  # fmt: skip

    for i in range(2):
        step = torch.zeros(2, dtype=F64)
        step[i] = 1e-5
        slope = (found(phi["rate"] + step).outer - found(phi["rate"] - step).outer) / 2e-5
        assert float(found(phi["rate"], parts=False)["rate"][i]) == pytest.approx(float(slope), rel=1e-7)


def test_learning_rates_by_name_are_for_every_tensor():
    with pytest.raises(ValueError, match="inner_lr: expected one for each of weight, scale, got weight"):
        meta_gradient(
            PHI, inner=lambda phi, theta, i: value(theta, TARGETS[0]), inner_steps=1,
            outer=lambda phi, theta: value(theta, TARGETS[0]), inner_lr=lambda phi: {"weight": 0.1},
        )  # fmt: skip


def test_adam_and_clipping_keep_tasks_apart():
    rule = adam(constant(0.1), max_norm=0.5)
    start = {name: x.expand(3, *x.shape) for name, x in PHI.items()}
    once = meta_gradient(
        PHI, inner=lambda phi, theta, i: value(theta, TARGETS), outer=lambda phi, theta: value(theta, TARGETS),
        inner_steps=2, update=rule, state=adam_state(start), tasks=3,
    )  # fmt: skip
    each = meta_gradient(
        PHI, inner=lambda phi, theta, i, target: value(theta, target),
        outer=lambda phi, theta, target: value(theta, target), inner_steps=2, update=rule, state=adam_state(PHI),
        tasks=list(TARGETS),
    )  # fmt: skip
    assert torch.allclose(once["weight"], each["weight"], rtol=1e-12)


def test_moments_of_one_task_are_those_of_all():
    rule, found = adam(constant(0.1)), []
    for start in (PHI, {name: x.expand(3, *x.shape) for name, x in PHI.items()}):
        found.append(meta_gradient(
            PHI, inner=lambda phi, theta, i: value(theta, TARGETS), outer=lambda phi, theta: value(theta, TARGETS),
            inner_steps=2, update=rule, state=adam_state(start), tasks=3,
        ))  # fmt: skip
    assert all(torch.equal(found[0][name], found[1][name]) for name in PHI)


def test_modules_and_ordered_dictionaries_are_parameters():
    module = torch.nn.Linear(2, 1, dtype=F64)

    def found(params):
        return meta_gradient(
            params, inner=lambda phi, theta, i: -(theta["weight"].sum() + theta["bias"].sum() - 1).square(),
            outer=lambda phi, theta: -theta["weight"].square().sum() - theta["bias"].sum(), inner_steps=1, inner_lr=0.1,
        )  # fmt: skip

    by_module, ordered = found(module), found(OrderedDict(module.named_parameters()))
    assert isinstance(by_module, dict)
    assert torch.equal(by_module["weight"], ordered["weight"])
    assert module.weight.grad is None


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (0, "tasks: expected at least one, got 0"),
        ((), "tasks: expected at least one, got none"),
        (3, r"outer: expected one number for each task, shape \(3,\), got \(\)"),
    ],
)
def test_what_does_not_fit_is_refused(tasks, said):
    with pytest.raises(ValueError, match=said):
        meta_gradient(
            PHI, inner=lambda phi, theta, i: value(theta, TARGETS), inner_steps=1, inner_lr=0.1, tasks=tasks,
            outer=lambda phi, theta: value(theta, TARGETS).sum(),
        )  # fmt: skip
