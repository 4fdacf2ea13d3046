"""What is asked of a loop before anything is measured, each refused in one line."""

import inspect
from collections.abc import Sequence
from dataclasses import fields

import torch

from gm_estimators.decomposition.problem import Role
from gm_estimators.diagnose.loop import Loop, Rates, seed_of
from gm_estimators.estimator import Estimator
from gm_estimators.optimisers import Update
from gm_estimators.parameters import Params, as_dict, like
from gm_estimators.surrogates import Trajectories

ALIKE = ("log_prob", "reward", "value", "advantage")


def checked(loop: Loop, estimators: Sequence[Estimator], seed: int) -> Loop:
    """The loop itself, once the first batch of each role and step was drawn twice and read.

    Raises:
        ValueError: if numbers are out of range, two batches of one seed differ, or what is seen does not fit.
        TypeError: if something is of another kind.
    """
    lam = loop.gae_lambda
    _require(
        lam is None or (isinstance(lam, int | float) and 0 <= lam <= 1),
        "gae_lambda",
        "a number from 0 to 1, or None",
        repr(lam),
    )
    names = [each.name for each in estimators]
    _require(len(set(names)) == len(names) > 0, "surrogate", "one or more different estimators", names)
    if not isinstance(loop.update, Update | Rates):
        came = type(loop.update).__name__
        raise TypeError(f"optimiser: expected an update such as ascent(0.1) or adam(0.01), got a {came}")
    _require_callable("draw", loop.draw, "role", "step", "params", "n", "seed")
    meta = () if loop.meta_params is None else ("meta_params",)
    _require_callable("see", loop.see, "batch", "params", "gae_lambda", *meta)
    if loop.adapted:
        alike = {each.gradient_family for each in estimators}
        _require(
            len(alike) == 1, "estimand", "estimators of the same inner gradient, which adapts, beside 'adapted'", names
        )
        _require(loop.batch_of is None, "batch_of", "None beside the estimand 'adapted'", list(loop.batch_of or ()))
    for name, replaced in loop.ideals.items():
        unknown = set(replaced) - {field.name for field in fields(Loop)}
        _require(not unknown, f"ideals[{name!r}]", "fields of Loop such as see or update", sorted(unknown))
    if isinstance(loop.update, Rates):
        finite = all(bool(rate.isfinite().all()) for rate in loop.rates(loop.phi).values())
        _require(finite, "inner_lr", "finite numbers", "NaN or infinity")
    for step in range(loop.inner_steps):
        _require_same(loop, "inner", step, seed)
        if not loop.sizes.shared:
            _require_same(loop, "hessian", step, seed)
    _require_same(loop, "outer", loop.inner_steps, seed)
    return loop


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {came}")


def limit(name: str, value: object) -> None:
    """Raises `ValueError` unless it is a positive number, or `None`."""
    _require(value is None or (isinstance(value, int | float) and value > 0), name, "a positive number", repr(value))


def _require_callable(name: str, function: object, *arguments: str) -> None:
    asked = f"{name}: expected a function of ({', '.join(arguments)})"
    if not callable(function):
        raise TypeError(f"{asked}, got {function!r}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a compiled one tells none
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise TypeError(f"{asked}, got one of {signature}") from None


def _require_same(loop: Loop, role: Role, step: int, seed: int) -> None:
    """Two batches of one seed are read alike, and as they should be."""
    start = loop.start(loop.phi)
    kept = {name: x.detach().clone() for name, x in as_dict(start).items()}
    theta = like(start, {name: x.clone().requires_grad_() for name, x in kept.items()})
    phi = like(loop.phi, {name: x.detach().clone().requires_grad_() for name, x in as_dict(loop.phi).items()})
    first, second = (_seen(loop, role, step, theta, phi, seed_of(seed, "check", role, step)) for _ in range(2))
    if any(not torch.equal(x, kept[name]) for name, x in as_dict(theta).items() if bool(kept[name].isfinite().all())):
        raise ValueError("draw: expected parameters to stay as they are, got other numbers in them afterwards")
    if not first.log_prob.requires_grad:
        raise ValueError("see: expected log_prob with a graph to the parameters that it is given, got a constant")
    for name in ALIKE[1:]:
        _require_constant(name, getattr(first, name), "the parameters", theta)
        if role == "outer":  # the derivative in φ of a surrogate with such advantages is not that of the objective
            _require_constant(name, getattr(first, name), "the meta-parameters in the outer batch", phi)
    for name in ALIKE:
        one, other = getattr(first, name), getattr(second, name)
        if one.shape != other.shape or not torch.equal(one, other):
            raise ValueError(
                f"draw: expected the same trajectories for the same seed, got other {name} the second time; "
                "seed every generator and environment from the seed that draw is given"
            )


def _require_constant(name: str, values: torch.Tensor, what: str, params: Params) -> None:
    """A critic that shares layers with the policy, say, is differentiated with it unless it is detached."""
    if not values.requires_grad:
        return
    leaves = list(as_dict(params).values())
    grads = torch.autograd.grad(values.sum(), leaves, retain_graph=True, allow_unused=True)
    if any(grad is not None and bool((grad != 0).any()) for grad in grads):
        raise ValueError(f"see: expected {name} that is constant in {what}, got a graph to them; detach() it")


def _seen(loop: Loop, role: Role, step: int, theta: Params, phi: Params, seed: int) -> Trajectories:
    at = like(theta, {name: x.detach() for name, x in as_dict(theta).items()})
    batch = loop.draw(role, step, at, loop.sizes.of(role), seed)
    seen = loop.seen(batch, theta, loop.gae_lambda, phi)
    loop.require_fitting(seen, role, step)
    return seen
