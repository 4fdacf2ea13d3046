"""What parameters may be, and that a batch's elements stay apart."""

import jaxtyping
import pytest
import torch
from torch.testing import assert_close

from gm_estimators import ascent, inner_loop, meta_gradient
from gm_estimators.optimisers import adam, adam_state, clip_coefficient, constant, global_norm
from gm_estimators.parameters import as_dict, gradient, read_params

F64 = torch.float64


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def model() -> torch.nn.Module:
    """A line, in float64."""
    made = torch.nn.Linear(2, 1, dtype=F64)
    with torch.no_grad():
        made.weight.copy_(drawn(1, 2))
    return made


def total(params) -> torch.Tensor:
    """Every entry has a part in it."""
    return torch.stack([(x**3).sum() for x in as_dict(params).values()]).sum()


@pytest.mark.parametrize("form", [lambda m: m, lambda m: m.named_parameters(), lambda m: dict(m.named_parameters())])
def test_a_module_and_its_named_parameters_are_read_by_name(form):
    made = model()
    settings = {"inner_steps": 2, "inner_lr": 0.1}
    found = meta_gradient(form(made), inner=lambda phi, t, i: total(t), outer=lambda phi, t: total(t), **settings)
    expected = meta_gradient(
        made.weight.detach(), inner=lambda phi, t, i: total(t), outer=lambda phi, t: total(t), **settings
    )
    assert set(found) == {"weight", "bias"}
    assert_close(found["weight"], expected)
    moved = inner_loop(lambda phi, t, i: total(t), form(made), form(made), **settings)
    assert set(moved) == {"weight", "bias"}
    assert made.weight.grad is None
    assert set(adam_state(form(made)).first) == {"weight", "bias"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([torch.zeros(2)], r"params: expected a tensor, or tensors by name as dict\(.*\), got a list"),
        ((torch.zeros(2), torch.zeros(2)), "got a tuple"),
        (torch.nn.Linear(2, 1).parameters(), "got a generator"),
        (3.0, "got a float"),
        (None, "got a NoneType"),
        ({"w": 3.0}, r"params\['w'\]: expected a tensor, got a float"),
        ({3: torch.zeros(2)}, "tensors by name .* got a dict"),
        (torch.zeros(2, dtype=torch.long), "params: expected a tensor of floating-point numbers, got torch.int64"),
    ],
)
def test_anything_else_is_refused(params, message):
    with pytest.raises(TypeError, match=message):
        read_params(params)


def test_lists_are_refused_at_the_door(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # outside of tests nothing else checks
    settings = {"inner": lambda p, t, i: t.sum(), "outer": lambda p, t: t.sum(), "inner_steps": 1, "inner_lr": 0.1}
    with pytest.raises(TypeError, match=r"meta_params: expected .* got a list"):
        meta_gradient([torch.zeros(2)], **settings)
    with pytest.raises(TypeError, match=r"params: expected .* got a list"):
        meta_gradient(torch.zeros(2), [torch.zeros(2)], **settings)


BATCHED = {"w": drawn(3, 2, 2), "b": drawn(3, seed=1)}


def cubes(phi, params, step) -> torch.Tensor:
    """A task's objective: its gradient's length differs from task to task."""
    return (params["w"] ** 3).sum((-2, -1)) + params["b"] ** 2


@pytest.mark.parametrize("detach_clip", [True, False])
@pytest.mark.parametrize("rule", ["ascent", "adam"])
def test_every_task_is_clipped_by_itself(rule, detach_clip):
    def moved(params):
        clipping = {"max_norm": 0.7, "detach_clip": detach_clip}
        update = ascent(0.3, **clipping) if rule == "ascent" else adam(constant(0.3), **clipping)
        state = adam_state(params) if rule == "adam" else None
        return inner_loop(cubes, {}, params, inner_steps=3, update=update, state=state)

    together = moved(BATCHED)
    slopes = torch.autograd.grad(sum(x.sin().sum() for x in together.values()), list(together.values()))
    assert len(slopes) == 2
    for task in range(3):
        alone = moved({name: x[task] for name, x in BATCHED.items()})
        for name, expected in alone.items():
            assert_close(together[name][task], expected, rtol=0, atol=1e-14)


def test_norms_of_a_batch_by_hand():
    tensors = {"a": torch.tensor([[3.0, 0.0], [0.0, 0.0]]), "b": torch.tensor([4.0, 0.0])}
    assert global_norm(tensors).item() == 5
    assert global_norm(tensors, 1).tolist() == [5, 0]
    assert clip_coefficient(tensors, 1.0, 1).tolist() == pytest.approx([0.2, 1], rel=1e-6)


def squares(*shape: int):
    """An objective of that shape beside parameters of any."""
    return lambda phi, params, *step: -(params - 1).square().sum() * torch.ones(shape, dtype=F64)


def test_tasks_that_share_parameters_are_refused():
    """An objective of 20 tasks would step on the sum over them."""
    settings = {"inner_steps": 1, "inner_lr": 0.1}
    expected = r"a shape that params has first, \(3,\), .* got \(20,\); take its mean or sum where they are shared"
    with pytest.raises(ValueError, match="the inner objective: expected a number, or " + expected):
        meta_gradient(drawn(3), inner=squares(20), outer=squares(), **settings)
    with pytest.raises(ValueError, match="hessian: expected a number, or " + expected):
        meta_gradient(drawn(3), inner=squares(), hessian=squares(20), outer=squares(), **settings)
    with pytest.raises(ValueError, match=r"outer: expected a number, or a shape that meta_params has first, \(3,\)"):
        meta_gradient(drawn(3), inner=squares(), outer=squares(20), **settings)
    with pytest.raises(ValueError, match=r"params\['b'\] has first, \(2,\)"):
        inner_loop(lambda p, t, i: t["w"].sum(-1), {}, {"w": drawn(3, 2), "b": drawn(2)}, **settings)
    one = meta_gradient(drawn(3), inner=squares(1), outer=squares(1, 1), **settings)
    assert_close(one, meta_gradient(drawn(3), inner=squares(), outer=squares(), **settings))


def test_meta_parameters_that_never_enter_are_refused():
    theta, settings = drawn(2), {"outer": lambda phi, t: t.sum(), "inner_steps": 2}
    rate = torch.tensor(0.1, dtype=F64)
    with pytest.raises(
        ValueError, match="meta_params: expected all to enter, but it has no part in the outer objective"
    ):
        meta_gradient(rate, theta, inner=lambda phi, t, i: (t**2).sum(), inner_lr=rate, **settings)

    def inner(phi, t, i):
        return (phi["w"] * t).sum()

    both = {"w": drawn(2, seed=1), "rate": rate}
    with pytest.raises(ValueError, match="but 'rate' has no part"):
        meta_gradient(both, theta, inner=inner, inner_lr=rate, **settings)
    found = meta_gradient(both, theta, inner=inner, inner_lr=rate, allow_unused=True, **settings)
    assert found["rate"].item() == 0
    assert_close(found["w"], torch.full((2,), 0.2, dtype=F64))
    # where it does enter: θ² = θ + 2 · rate · w
    entered = meta_gradient(both, theta, inner=lambda p, t, i: p["rate"] * inner(p, t, i), inner_lr=1.0, **settings)
    assert entered["rate"].item() == pytest.approx(2 * both["w"].sum().item())


def test_no_grad_changes_nothing_and_inference_mode_is_named():
    settings = {"inner": lambda p, t, i: (t**3).sum(), "inner_steps": 2, "inner_lr": 0.1}
    expected = meta_gradient(drawn(2), outer=lambda p, t: (t**2).sum(), **settings)
    moved = inner_loop(settings["inner"], {}, drawn(2), inner_steps=2, inner_lr=0.1)
    with torch.no_grad():
        assert_close(meta_gradient(drawn(2), outer=lambda p, t: (t**2).sum(), **settings), expected)
        without = inner_loop(settings["inner"], {}, drawn(2), inner_steps=2, inner_lr=0.1)
        slope = gradient(total(drawn(2)), drawn(2))
    assert not without.requires_grad
    assert_close(without, moved.detach())
    assert slope[""].tolist() == [0, 0]  # of what was computed without history
    with torch.inference_mode(), pytest.raises(ValueError, match=r"torch\.inference_mode: expected gradients"):
        meta_gradient(drawn(2), outer=lambda p, t: (t**2).sum(), **settings)
