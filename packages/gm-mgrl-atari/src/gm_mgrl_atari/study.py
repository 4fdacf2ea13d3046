"""How good the meta-gradient of one window is: bias, variance and direction beside a many-window average."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators import ascent
from gm_estimators.diagnose import Estimate, Quality, jackknife, qualities
from gm_estimators.metrics import variance
from gm_estimators.optimisers import AdamState, adam, linear_decay
from gm_mgrl_atari.actor_critic import ActorCritic
from gm_mgrl_atari.learner import Learner, Point, Training, all_of_float32
from gm_mgrl_atari.network import Params
from gm_mgrl_atari.objectives import Batch, policy_estimator
from gm_mgrl_atari.rollouts import Collector

__all__ = ["REFERENCE", "VARIANTS", "Variant", "WindowQuality", "last_point", "measure", "windows"]


@dataclass(frozen=True)
class Variant:
    """One way to compute a window's meta-gradient: the run's K if `None`, plain ascent without `adam`.

    `detach_clip` holds the clipping coefficient constant; `shared_batch` is one for all steps and the outer objective.
    """

    name: str
    estimator: str
    inner_steps: int | None = None
    adam: bool = True
    detach_clip: bool = True
    shared_batch: bool = False


REFERENCE = "loaded_dice"
"""All its derivatives are unbiased if the advantages are, so that its mean is what the others are compared with."""
VARIANTS = (
    Variant("loaded_dice", "loaded_dice"), Variant("lvc", "lvc"), Variant("ad", "ad"),
    Variant("lvc, K=1", "lvc", inner_steps=1), Variant("ad, K=1", "ad", inner_steps=1),
    Variant("lvc, clipping differentiated", "lvc", detach_clip=False),
    Variant("lvc, one batch for all", "lvc", shared_batch=True), Variant("lvc, plain ascent", "lvc", adam=False),
)  # fmt: skip
BASE = "lvc"
"""What the other variants differ from in one thing."""


@dataclass(frozen=True)
class WindowQuality(Quality):
    """A variant's `Quality` over windows, how far it is from AD, and what it is beside `BASE` window by window.

    Attributes:
        distance: largest ‖x − y‖ / ‖y‖ to AD's of the same K on the same window; NaN where AD isn't measured.
        same: mean cosine with `BASE`'s on the same window; NaN where that isn't measured or windows are others.
        spread: √(tr Cov x / tr Cov z) with z that of `BASE`, with the interval of its logarithm; NaN without it.
    """

    distance: float
    same: Estimate
    spread: Estimate


def last_point(training: Training) -> int:
    """N − K, the number of updates after which every step of a window still has a learning rate above 0.

    Examples:
        >>> from gm_mgrl_atari import Training, study
        >>> study.last_point(Training(updates=100, inner_steps=3))
        97
    """
    return training.updates - training.inner_steps


def windows(
    variant: Variant, training: Training, network: ActorCritic, point: Point, logits: Float[Tensor, "4"],
    drawn: Sequence[Sequence[Batch]],
) -> Float[Tensor, "window 4"]:  # fmt: skip
    """A variant's meta-gradients on windows that were drawn before."""
    learner, steps = _learner(variant, training, network), variant.inner_steps or training.inner_steps

    def one(batches: Sequence[Batch]) -> Tensor:
        used = [batches[0]] * (steps + 1) if variant.shared_batch else batches
        return learner.window(point, logits, lambda _, i: used[i], steps).meta_gradient

    return torch.stack([one(batches) for batches in drawn])


@all_of_float32()
def measure(
    training: Training, network: ActorCritic, point: Point, logits: Float[Tensor, "4"], collector: Collector, *,
    count: int, variants: Sequence[Variant] = VARIANTS, on_part: Callable[[float], None] = lambda _part: None,
) -> dict[str, WindowQuality]:  # fmt: skip
    """The quality of every variant's meta-gradient at a point up to `last_point`; the first variant is the reference.

    Variants share their windows, except that plain ascent, with the same learning rate, draws its own. `on_part` is
    told which part of all this is done.
    """
    if count < 2:
        raise ValueError(f"count: expected at least 2 windows, got {count}")
    if isinstance(point.optimiser, AdamState) and (at := point.optimiser.step) > last_point(training):
        raise ValueError(
            f"point: expected at most {last_point(training)} of {training.updates} updates, so that no step of a "
            f"window has learning rate 0, got {at}"
        )
    paths: dict[bool, list[list[Batch]]] = {}

    def drawn(variant: Variant) -> list[list[Batch]]:
        if variant.adam not in paths:
            learner = _learner(variant, training, network)
            paths[variant.adam] = [_draw(learner, point, logits, collector, training.inner_steps) for _ in range(count)]
        return paths[variant.adam]

    estimates: dict[str, Tensor] = {}
    for variant in variants:
        found = windows(variant, training, network, point, logits, drawn(variant))
        estimates[variant.name] = found.double().cpu()
        on_part(len(estimates) / len(variants))
    plain = {v.inner_steps: estimates[v.name] for v in variants if v.estimator == "ad"}
    of_each = qualities(estimates, reference=variants[0].name, base=BASE)
    shared = {v.name: v.adam for v in variants}
    base = estimates.get(BASE, torch.full_like(estimates[variants[0].name], math.nan))
    return {
        v.name: WindowQuality(
            **vars(of_each[v.name]), distance=_distance(estimates[v.name], plain.get(v.inner_steps)),
            same=_same(estimates[v.name], base if v.adam == shared.get(BASE) else torch.full_like(base, math.nan)),
            spread=_spread(estimates[v.name], base),
        ) for v in variants
    }  # fmt: skip


def _draw(learner: Learner, point: Point, logits: Tensor, collector: Collector, inner_steps: int) -> list[Batch]:
    """K inner batches and an outer one, each drawn by the policy that K updates pass through."""

    def batch_at(params: Params, _step: int) -> Batch:
        return collector.collect(params)

    # without what was computed on the way, which is a hundred times as large
    return [replace(batch, activations=None) for batch in learner.window(point, logits, batch_at, inner_steps).batches]


def _learner(variant: Variant, training: Training, network: ActorCritic) -> Learner:
    max_norm, detach = training.max_grad_norm, variant.detach_clip
    if variant.adam:
        rate = linear_decay(training.inner_lr, training.updates)
        rule = adam(rate, eps=training.adam_eps, max_norm=max_norm, detach_clip=detach)
    else:
        rule = ascent(training.inner_lr, max_norm=max_norm, detach_clip=detach)
    return Learner(network, policy_estimator(variant.estimator), rule)


def _distance(estimates: Tensor, plain: Tensor | None) -> float:
    if plain is None:
        return math.nan
    return float(((estimates - plain).norm(dim=-1) / plain.norm(dim=-1)).max())


def _same(x: Float[Tensor, "window size"], z: Float[Tensor, "window size"]) -> Estimate:
    """Mean cosine of the two over windows."""
    value, low, high = jackknife(torch.mean, torch.nn.functional.cosine_similarity(x, z, dim=-1))
    return Estimate(value, max(low, -1.0), min(high, 1.0))


def _spread(x: Float[Tensor, "window size"], z: Float[Tensor, "window size"]) -> Estimate:
    """√(tr Cov x / tr Cov z)."""

    def logarithm(pairs: Tensor) -> Tensor:
        return (variance(pairs[:, 0]) / variance(pairs[:, 1])).log() / 2

    return Estimate(*torch.tensor(jackknife(logarithm, torch.stack([x, z], 1)), dtype=torch.float64).exp().tolist())
