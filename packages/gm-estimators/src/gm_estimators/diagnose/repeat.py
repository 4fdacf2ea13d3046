"""One independent repeat of a diagnosis: what it draws, and the meta-gradients that it makes of that.

The loop's n inner trajectories are one block of B: block paths take their inner gradients from one block each, ideal
ones from all B, half or a quarter of them. An estimate is a multilinear function of what is drawn for Jacobians and the
outer gradient, so that only the inner gradient needs many trajectories: with d(m) the meta-gradient by an inner
gradient of m blocks,

    E d(m) = g + c₁ / (m n) + O(1 / (m n)²),

of which a line over 1/m has the intercept g. All levels see the same trajectories, so that what is linear in them
cancels in differences.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.decomposition.problem import Role
from gm_estimators.diagnose.loop import Loop, Tensors, flat, seed_of
from gm_estimators.inner_loop import inner_loop
from gm_estimators.parameters import Params, as_dict, detached, gradient, like
from gm_estimators.surrogates import Surrogate, Trajectories, mean_surrogate


@dataclass(frozen=True)
class Path:
    """K steps whose inner gradients are the means of those of some blocks."""

    first_order: Surrogate
    gae_lambda: float | None
    blocks: tuple[int, ...]
    ideals: tuple[str, ...] = ()
    reused: bool = False


@dataclass(frozen=True)
class Curvature:
    """What the Jacobian of each step is from: trajectories of their own, or those of the inner gradient."""

    surrogate: Surrogate
    gae_lambda: float | None
    blocks: tuple[int, ...]
    shared: bool
    ideals: tuple[str, ...] = ()
    reused: bool = False


@dataclass(frozen=True)
class End:
    """What the outer gradient is from."""

    first_order: Surrogate
    gae_lambda: float | None
    blocks: tuple[int, ...]


class Repeat:
    """What one seed draws; what is asked for twice is drawn and differentiated once."""

    def __init__(self, loop: Loop, seed: int) -> None:
        self.loop, self._seed = loop, seed
        self.env_steps = 0
        self._batches: dict[tuple[object, ...], Any] = {}
        self._gradients: dict[tuple[object, ...], Tensors] = {}
        self._points: dict[Path, list[Params]] = {}
        self._ends: dict[tuple[Path, End], tuple[Tensors, Tensor | None]] = {}
        self._graph: tuple[object, Tensors, Params] | None = None

    def estimate(self, path: Path, curvature: Curvature | None, end: End) -> Float[Tensor, "lane size"]:
        """The meta-gradient along a path, a vector in the order of φ for each lane; `None` leaves Jacobians out.

        Raises:
            ValueError: if nothing but a Jacobian that is left out leads to φ.
        """
        phi, last = self._differentiable(path, curvature)
        slope, direct = self._outer(path, end)
        tasks = self.loop.tasks or 1
        total = torch.stack([(slope[name] * x).sum() for name, x in as_dict(last).items()]).sum() / tasks
        grads = torch.autograd.grad(total, list(phi.values()), retain_graph=True, allow_unused=True)
        found = flat(grads, phi, self.loop.lanes) + (0 if direct is None else direct)
        if curvature is None and all(grad is None for grad in grads) and not bool(found.any()):
            raise ValueError(
                "first_order: expected meta-parameters that enter θ⁰ or the outer batch, got some that enter "
                "inner gradients alone, of which nothing is left without Jacobians"
            )
        return found

    def gain(self, path: Path, end: End, baseline: Tensor) -> Float[Tensor, "lane size"]:
        """The gradient of what adapting with these trajectories gains, theirs of φ included (E-MAML).

            ∇φ E[J_Out(θᴷ)] = E[∇φ ⟨∇J_Out(θᴷ), θᴷ⟩ + (J_Out(θᴷ) − b) ∇φ Σ_i log p(τ_i; θ^i)]

        Al-Shedivat et al. 2018, "Continuous adaptation via meta-learning"; Stadie et al. 2018, "Some considerations on
        learning to explore via meta-reinforcement learning". Inner trajectories are held fixed in θᴷ, whose Jacobian
        is then that of the surrogate that is linear in log-probabilities. b is independent of the trajectories.
        """
        loop, scores = self._loop(path.ideals), []
        phi = {name: x.detach().requires_grad_() for name, x in as_dict(loop.phi).items()}

        def inner(meta: Params, params: Params, step: int) -> Tensor:
            values = []
            for block in path.blocks:
                seen = loop.seen(self._batch("inner", path, step, block, params), params, path.gae_lambda, meta)
                scores.append((seen.log_prob * (seen.discount[..., :-1] != 0)).sum((-2, -1)))
                values.append(mean_surrogate(linear(path.first_order), seen))
            return torch.stack(values).mean(0)

        visited: list[Params] = []
        self._points.setdefault(path, visited)
        last = inner_loop(
            inner, like(loop.phi, phi), loop.start(like(loop.phi, phi)), inner_steps=loop.inner_steps, **loop.rule,
            on_step=lambda _, params: visited.append(like(params, detached(as_dict(params)))),
        )  # fmt: skip
        slope, direct = self._outer(path, end)
        by_theta = torch.stack([(slope[name] * x).sum() for name, x in as_dict(last).items()]).sum()
        by_draws = ((self.outcome(path, end) - baseline) * torch.stack(scores).sum(0)).sum()
        total = (by_theta + by_draws) / (loop.tasks or 1)
        grads = torch.autograd.grad(total, list(phi.values()), allow_unused=True)
        found = flat(grads, phi, loop.lanes)
        return found if direct is None else found + direct

    def outcome(self, path: Path, end: End) -> Float[Tensor, "*task"]:
        """J_Out at θᴷ by the mean discounted return of the outer trajectories, in every lane for every task."""
        loop, params = self._loop(path.ideals), self.last(path)
        with torch.no_grad():
            phi = like(loop.phi, detached(as_dict(loop.phi)))
            returns = []
            for block in end.blocks:
                batch = self._batch("outer", path, loop.inner_steps, block, params)
                seen = loop.seen(batch, params, end.gae_lambda, phi)
                returns.append((seen.discount[..., :-1] * seen.reward).sum(-1).mean(-1))
        return torch.stack(returns).mean(0)

    def last(self, path: Path) -> Params:
        """θᴷ of a path."""
        if path not in self._points:
            points = self._points[path] = []
            with torch.no_grad():
                inner_loop(
                    lambda _meta, params, step: self._linear_in(path, step, params), self.loop.phi, self._start(),
                    inner_steps=self.loop.inner_steps, **self._loop(path.ideals).rule,
                    on_step=lambda _, params: points.append(like(params, detached(as_dict(params)))),
                )  # fmt: skip
        return self._points[path][-1]

    def _start(self) -> Params:
        start = self.loop.start(self.loop.phi)
        return like(start, detached(as_dict(start)))

    def _linear_in(self, path: Path, step: int, params: Params) -> Tensor:
        loop = self.loop
        return _linear(self._inner(path, step, params), params, (loop.lanes is not None) + (loop.tasks is not None))

    def _differentiable(self, path: Path, curvature: Curvature | None) -> tuple[Tensors, Params]:
        """(φ, θᴷ with its history); the last one asked for is kept."""
        if self._graph is not None and self._graph[0] == (path, curvature):
            return self._graph[1:]
        loop = self._loop(path.ideals)
        phi = {name: x.detach().requires_grad_() for name, x in as_dict(loop.phi).items()}
        self._graph = None

        def inner(_meta: Params, params: Params, step: int) -> Tensor:
            return self._linear_in(path, step, params)

        def hessian(meta: Params, params: Params, step: int) -> Tensor:
            assert curvature is not None  # or it is not asked for
            role: Role = "inner" if curvature.shared else "hessian"
            values = [
                mean_surrogate(curvature.surrogate, loop.seen(
                    self._batch(role, path, step, block, params, curvature.reused), params, curvature.gae_lambda, meta,
                )) for block in curvature.blocks
            ]  # fmt: skip
            return torch.stack(values).mean(0)

        visited: list[Params] = []
        self._points.setdefault(path, visited)  # as far as it got, for batches that are used again
        last = inner_loop(
            inner, like(loop.phi, phi), loop.start(like(loop.phi, phi)), inner_steps=loop.inner_steps,
            **(loop if curvature is None else self._loop(curvature.ideals)).rule,
            hessian=None if curvature is None else hessian, first_order=curvature is None,
            on_step=lambda _, params: visited.append(like(params, detached(as_dict(params)))),
        )  # fmt: skip
        self._graph = ((path, curvature), phi, last)
        return phi, last

    def _loop(self, ideals: Sequence[str]) -> Loop:
        """The loop with some of the user's own sources ideal."""
        loop = self.loop
        for name in ideals:
            loop = replace(loop, **loop.ideals[name])
        return loop

    def _inner(self, path: Path, step: int, params: Params) -> Tensors:
        """The mean of the blocks' inner gradients; at θ⁰ those of a block are the same on every path."""
        found = []
        for block in path.blocks:
            origin = self.loop.origin(step, path.reused)
            key = (path.first_order, path.gae_lambda, path.ideals, step, origin, block, *([path] if step else []))
            if key not in self._gradients:
                batch = self._batch("inner", path, step, block, params, path.reused)
                self._gradients[key] = self._gradient(batch, path, params)
            found.append(self._gradients[key])
        return {name: torch.stack([each[name] for each in found]).mean(0) for name in found[0]}

    def _gradient(self, batch: Any, path: Path, params: Params) -> Tensors:
        loop = self._loop(path.ideals)
        leaf = {name: x.detach().requires_grad_() for name, x in as_dict(params).items()}
        phi = like(loop.phi, detached(as_dict(loop.phi)))
        value = mean_surrogate(path.first_order, loop.seen(batch, like(params, leaf), path.gae_lambda, phi))
        return gradient(value, leaf)

    def _outer(self, path: Path, end: End) -> tuple[Tensors, Tensor | None]:
        """(∇θ J_Out at θᴷ, ∇φ J_Out) by the mean over blocks; the second `None` where φ = θ⁰."""
        if (path, end) not in self._ends:
            self._ends[path, end] = self._ascended(path, end)
        return self._ends[path, end]

    def _ascended(self, path: Path, end: End) -> tuple[Tensors, Tensor | None]:
        loop, params = self._loop(path.ideals), self._points[path][-1]
        slopes, directs = [], []
        for block in end.blocks:
            batch = self._batch("outer", path, loop.inner_steps, block, params)
            leaf = {name: x.detach().requires_grad_() for name, x in as_dict(params).items()}
            phi = {name: x.detach().requires_grad_() for name, x in as_dict(loop.phi).items()}
            seen = loop.seen(batch, like(params, leaf), end.gae_lambda, like(loop.phi, phi))
            value = mean_surrogate(end.first_order, seen).sum()
            wanted = [*leaf.values(), *(phi.values() if loop.meta_params is not None else ())]
            grads = torch.autograd.grad(value, wanted, allow_unused=True)
            slopes.append([torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaf.values(), strict=False)])
            directs.append(flat(grads[len(leaf) :], phi, loop.lanes) if loop.meta_params is not None else None)
        slope = {name: torch.stack(each).mean(0) for name, each in zip(leaf, zip(*slopes, strict=True), strict=True)}
        direct = [d for d in directs if d is not None]
        return slope, torch.stack(direct).mean(0) / (loop.tasks or 1) if direct else None

    def _batch(self, role: Role, path: Path, step: int, block: int, params: Params, reused: bool = False) -> Any:
        """A block's trajectories for a role at a step; those drawn at θ⁰ are the same on every path."""
        by, number = self.loop.origin(step, reused)
        key = (role, by, number, block, *([path] if by else []))
        if key not in self._batches:
            at = params if by == step else self._points[path][by - 1] if by else self._start()
            at = like(at, detached(as_dict(at)))
            size, which = self.loop.sizes.of(role), (role, by, block, *([number] if number else []))
            drawn = self.loop.draw(role, by, at, size, seed_of(self._seed, *which))
            self._batches[key] = drawn
            with torch.no_grad():
                phi = like(self.loop.phi, detached(as_dict(self.loop.phi)))
                seen = self.loop.seen(drawn, at, self.loop.gae_lambda, phi)
            self.loop.require_fitting(seen, role, by)
            self.env_steps += int((seen.discount[..., :-1] != 0).expand(seen.log_prob.shape).sum())
        return self._batches[key]


def linear(surrogate: Surrogate) -> Surrogate:
    """The surrogate with the same gradient that is linear in log-probabilities: automatic differentiation's."""

    def function(seen: Trajectories) -> Tensor:
        with torch.enable_grad():
            leaf = seen.log_prob.detach().requires_grad_()
            (weight,) = torch.autograd.grad(surrogate(replace(seen, log_prob=leaf)).sum(), leaf)
        return (weight * seen.log_prob).sum(-1)

    return function


def _linear(slope: Tensors, params: Params, axes: int) -> Tensor:
    """⟨c, θ⟩, of which c is the gradient, over all axes but the first."""
    terms = [(slope[name] * x).flatten(axes).sum(-1) for name, x in as_dict(params).items()]
    return torch.stack(terms).sum(0)
