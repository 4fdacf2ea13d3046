"""Updates of A2C and meta-gradients of MGRL, from batches of experience."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators import Estimator, meta_gradient
from gm_estimators.optimisers import AdamState, Update, global_norm
from gm_estimators.parameters import Params as AnyParams
from gm_estimators.parameters import as_dict, detached, gradient
from gm_mgrl_atari.laps import Laps
from gm_mgrl_atari.network import Network, Params
from gm_mgrl_atari.objectives import Batch, Coefficients, Terms, coefficients, combined, fixed_coefficients, terms

OUTER = fixed_coefficients()


class NotFiniteError(ArithmeticError):
    """NaN or infinity where training needs numbers; the message names the tensors."""


@dataclass(frozen=True)
class Point:
    """Where training is.

    Attributes:
        params: θ.
        optimiser: the state of the inner rule; an `AdamState` if that is Adam.
    """

    params: Params
    optimiser: object


@dataclass(frozen=True)
class Window:
    """What K inner updates and an outer batch give.

    Attributes:
        meta_gradient: ∇φ J_Out(θᴷ).
        path: the points after 1 … K updates, without history.
        terms: of the objective at θ⁰.
        batches: the K inner batches and the outer one.
    """

    meta_gradient: Float[Tensor, "4"]
    path: list[Point]
    terms: Terms
    batches: list[Batch]


@dataclass(frozen=True)
class Learner:
    """A2C with a rule that updates θ.

    Attributes:
        network: π and V.
        estimator: of the policy term in inner updates.
        rule: the inner optimiser.
        outer: coefficients of the outer objective.
        lap: told when a part of the work is done.
    """

    network: Network
    estimator: Estimator
    rule: Update
    outer: Coefficients = OUTER
    lap: Laps = field(default_factory=Laps)

    def update(self, point: Point, batch: Batch, fixed: Coefficients) -> tuple[Point, Terms]:
        """One A2C update, θ′ = rule(θ, ∇θ J(θ)).

        Raises:
            NotFiniteError: the objective, a gradient or a new parameter is NaN or infinite.
        """
        leaves = {name: value.detach().requires_grad_() for name, value in point.params.items()}
        parts = terms(self.network, leaves, batch, fixed, self.estimator)
        grads = gradient(combined(parts, fixed), leaves)
        self.lap("inner losses and gradients")
        with torch.no_grad():
            params, state = self.rule(point.params, grads, point.optimiser)
        require_finite(_named(parts), grads, params)
        self.lap("optimisers")
        return Point(params, state), Terms(*(part.detach() for part in parts))

    def window(
        self, point: Point, logits: Float[Tensor, "4"], batch_at: Callable[[Params, int], Batch], inner_steps: int
    ) -> Window:
        """∇φ J_Out(θᴷ), with θ¹ … θᴷ by K updates from θ⁰ (paper, Eq. 15, and Eq. 8 for K > 1).

            θ^{i+1} = rule(θ^i, ∇θ J(σ(φ), θ^i; b_i)),   J_Out = policy term of b_K at θᴷ

        Args:
            point: θ⁰ and the optimiser's state.
            logits: φ.
            batch_at: (θ^i, i) to b_i, i = 0 … K; the last is the outer batch.
            inner_steps: K.

        Raises:
            NotFiniteError: an objective, a gradient, a parameter or the meta-gradient is NaN or infinite.
        """
        batches: list[Batch] = []
        seen: list[Terms] = []
        path: list[Point] = []

        def next_batch(params: Params) -> Batch:
            batches.append(batch_at(detached(params), len(batches)))
            return batches[-1]

        def inner(meta: AnyParams, params: AnyParams, step: int) -> Tensor:
            learnt, theta = coefficients(as_dict(meta)[""]), as_dict(params)
            # φ doesn't move θ⁰
            network = replace(self.network, first_order=True) if step == 0 else self.network
            parts = terms(network, theta, next_batch(theta), learnt, self.estimator)
            seen.append(Terms(*(part.detach() for part in parts)))
            return combined(parts, learnt)

        def outer(_meta: AnyParams, params: AnyParams) -> Tensor:
            theta = as_dict(params)
            parts = terms(self.network, theta, next_batch(theta), self.outer, self.estimator)
            return combined(parts, self.outer)

        def recorded(params: Params, grads: Params, state: object) -> tuple[Params, object]:
            self.lap("inner losses and gradients")
            slopes = detached(grads)
            params, state = self.rule(params, grads, state)
            require_finite(_named(seen[-1]), slopes, detached(params))
            kept = state.detached() if isinstance(state, AdamState) else state
            path.append(Point(detached(params), kept))
            self.lap("optimisers")
            return params, state

        gradients = meta_gradient(
            logits,
            point.params,
            inner=inner,
            outer=outer,
            inner_steps=inner_steps,
            update=recorded,
            state=point.optimiser,
        )
        meta = as_dict(gradients)[""]
        require_finite({"meta-gradient": meta})
        self.lap("outer loss and meta-gradient")
        return Window(meta, path, seen[0], batches)


def require_finite(values: dict[str, Tensor], gradients: Params | None = None, params: Params | None = None) -> None:
    """Stops at NaN or infinity; one transfer from the device where all is well.

    Args:
        values: tensors by name.
        gradients: of parameters, by the parameters' names; their common norm must be finite, too.
        params: more tensors by name.

    Raises:
        NotFiniteError: with the names of the tensors.
    """
    norm = {"the gradient norm": global_norm(gradients)} if gradients else {}
    quick = (*values.values(), *norm.values(), *(params or {}).values())
    if math.isfinite(float(torch.stack([x.sum() for x in quick]).sum())):
        return
    slopes = {f"gradient of {name}": g for name, g in (gradients or {}).items()}
    named = {**values, **slopes, **(params or {})}
    # a sum may overflow where no entry does
    bad = [name for name, tensor in named.items() if not bool(tensor.isfinite().all())]
    if bad := bad or [name for name, tensor in norm.items() if not bool(tensor.isfinite())]:
        raise NotFiniteError(f"expected finite numbers, got NaN or infinity in {', '.join(bad)}")


def _named(parts: Terms) -> dict[str, Tensor]:
    return {f"{name} term": value.detach() for name, value in parts._asdict().items()}
