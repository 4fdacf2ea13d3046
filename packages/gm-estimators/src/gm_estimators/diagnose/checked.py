"""What is asked of a loop before anything is measured, each refused in one line."""

from collections.abc import Sequence
from dataclasses import fields

import torch

from gm_estimators.decomposition.problem import Role
from gm_estimators.diagnose.loop import Loop, seed_of
from gm_estimators.estimator import Estimator
from gm_estimators.parameters import Params, as_dict, like
from gm_estimators.surrogates import Trajectories


def checked(loop: Loop, estimators: Sequence[Estimator], seed: int) -> Loop:
    """The loop itself, once its first batch was drawn twice and read.

    Raises:
        ValueError: if numbers are out of range, two batches of one seed differ, or what is seen does not fit.
    """
    _require(loop.inner_steps >= 1, "inner_steps", "at least 1", loop.inner_steps)
    lam = loop.gae_lambda
    _require(lam is None or 0 <= lam <= 1, "gae_lambda", "a number from 0 to 1, or None", lam)
    for name, count in (("tasks", loop.tasks), ("lanes", loop.lanes)):
        _require(count is None or count >= 1, name, "at least 1, or None", count)
    names = [each.name for each in estimators]
    _require(len(set(names)) == len(names) > 0, "surrogate", "one or more different estimators", names)
    for name, replaced in loop.ideals.items():
        unknown = set(replaced) - {field.name for field in fields(Loop)}
        _require(not unknown, f"ideals[{name!r}]", "fields of Loop such as see or update", sorted(unknown))
    for role in ("inner", "outer"):
        _require_same(loop, role, seed)
    return loop


def _require(holds: bool, name: str, expected: str, came: object) -> None:
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {came}")


def _require_same(loop: Loop, role: Role, seed: int) -> None:
    """Two batches of one seed are read alike, and as they should be."""
    start = loop.start(loop.phi)
    theta = like(start, {name: x.detach().clone().requires_grad_() for name, x in as_dict(start).items()})
    step = 0 if role == "inner" else loop.inner_steps
    first, second = (_seen(loop, role, step, theta, seed_of(seed, "check", role)) for _ in range(2))
    if not first.log_prob.requires_grad:
        raise ValueError("see: expected log_prob with a graph to the parameters that it is given, got a constant")
    leading = tuple(count for count in (loop.lanes, loop.tasks) if count is not None)
    expected = (*leading, loop.sizes.of(role))
    if tuple(first.log_prob.shape[:-1]) != expected:
        raise ValueError(
            f"see: expected log_prob of shape {(*expected, 'time')}, lanes and tasks first, if there are any, "
            f"then trajectories, got {tuple(first.log_prob.shape)}"
        )
    for name in ("log_prob", "reward", "value", "advantage"):
        one, other = getattr(first, name), getattr(second, name)
        if not bool(one.isfinite().all()):
            raise ValueError(f"see: expected finite numbers, got NaN or infinity in {name}")
        if one.shape != other.shape or not torch.equal(one, other):
            raise ValueError(
                f"draw: expected the same trajectories for the same seed, got other {name} the second time; "
                "seed every generator and environment from the seed that draw is given"
            )


def _seen(loop: Loop, role: Role, step: int, theta: Params, seed: int) -> Trajectories:
    at = like(theta, {name: x.detach() for name, x in as_dict(theta).items()})
    batch = loop.draw(role, step, at, loop.sizes.of(role), seed)
    return loop.seen(batch, theta, loop.gae_lambda, loop.phi)
