"""How good the meta-gradient of one window is: bias, variance and direction beside a many-window average."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators import accuracy, bias_sq, variance
from gm_mgrl_atari.learner import Learner, Point
from gm_mgrl_atari.network import Network, Params
from gm_mgrl_atari.objectives import Batch, policy_estimator
from gm_mgrl_atari.optimiser import adam, clipped_ascent, linear_decay
from gm_mgrl_atari.rollouts import Collector
from gm_mgrl_atari.settings import Training


@dataclass(frozen=True)
class Variant:
    """One way to compute a window's meta-gradient.

    Attributes:
        name: as in tables.
        estimator: of the policy term.
        inner_steps: K; that of the run if `None`.
        adam: whether the inner rule is Adam, or else plain ascent.
        detach_clip: whether the clipping coefficient counts as a constant.
        shared_batch: whether one batch serves all inner steps and the outer objective.
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
    Variant("loaded_dice", "loaded_dice"),
    Variant("lvc", "lvc"),
    Variant("ad", "ad"),
    Variant("lvc, K=1", "lvc", inner_steps=1),
    Variant("ad, K=1", "ad", inner_steps=1),
    Variant("lvc, clipping differentiated", "lvc", detach_clip=False),
    Variant("lvc, one batch for all", "lvc", shared_batch=True),
    Variant("lvc, plain ascent", "lvc", adam=False),
)


@dataclass(frozen=True)
class Quality:
    """What a variant's meta-gradients are like.

    Attributes:
        accuracy: mean cosine of one window's with the mean of the reference over the other windows (paper, Eq. 63).
        bias_sq: ‖E[x − reference]‖² on the same windows, without the share of variance.
        variance: trace of the covariance over windows.
        mean: over windows, for the four logits.
        distance: largest ‖x − y‖ / ‖y‖ to AD's of the same K on the same window.
    """

    accuracy: float
    bias_sq: float
    variance: float
    mean: tuple[float, float, float, float]
    distance: float


def windows(
    variant: Variant,
    training: Training,
    network: Network,
    point: Point,
    logits: Float[Tensor, "4"],
    drawn: Sequence[Sequence[Batch]],
) -> Float[Tensor, "window 4"]:
    """A variant's meta-gradients on windows that were drawn before."""
    learner, steps = _learner(variant, training, network), variant.inner_steps or training.inner_steps

    def one(batches: Sequence[Batch]) -> Tensor:
        used = [batches[0]] * (steps + 1) if variant.shared_batch else batches
        return learner.window(point, logits, lambda _, i: used[i], steps).meta_gradient

    return torch.stack([one(batches) for batches in drawn])


def measure(
    training: Training,
    network: Network,
    point: Point,
    logits: Float[Tensor, "4"],
    collector: Collector,
    *,
    count: int,
    variants: Sequence[Variant] = VARIANTS,
) -> dict[str, Quality]:
    """The quality of every variant's meta-gradient at one point of a run.

    Variants whose inner steps have the same values share their windows. Plain ascent draws windows of its own, with
    the same learning rate.

    Args:
        training: K, rates and clipping.
        network: π and V.
        point: θ⁰ and Adam's state.
        logits: φ.
        collector: draws batches on policy.
        count: windows.
        variants: the first is the reference.

    Raises:
        ValueError: if there are fewer than two windows, too few for a variance.
    """
    if count < 2:
        raise ValueError(f"count: expected at least 2 windows, got {count}")
    paths: dict[bool, list[list[Batch]]] = {}

    def drawn(variant: Variant) -> list[list[Batch]]:
        if variant.adam not in paths:
            learner = _learner(variant, training, network)
            paths[variant.adam] = [_draw(learner, point, logits, collector, training.inner_steps) for _ in range(count)]
        return paths[variant.adam]

    estimates = {v.name: windows(v, training, network, point, logits, drawn(v)).double().cpu() for v in variants}
    reference = estimates[variants[0].name]
    others = (reference.sum(0) - reference) / (count - 1)
    plain = {v.inner_steps: estimates[v.name] for v in variants if v.estimator == "ad"}
    return {
        v.name: Quality(
            float(accuracy(estimates[v.name], others).mean()),
            float(bias_sq(estimates[v.name] - reference, torch.zeros(4, dtype=torch.float64))),
            float(variance(estimates[v.name])),
            tuple(estimates[v.name].mean(0).tolist()),
            _distance(estimates[v.name], plain.get(v.inner_steps)),
        )
        for v in variants
    }


def _draw(learner: Learner, point: Point, logits: Tensor, collector: Collector, inner_steps: int) -> list[Batch]:
    """K inner batches and an outer one, each drawn by the policy that K updates pass through."""

    def batch_at(params: Params, _step: int) -> Batch:
        return collector.collect(params)

    # without what was computed on the way, which is a hundred times as large
    return [replace(batch, activations=None) for batch in learner.window(point, logits, batch_at, inner_steps).batches]


def _learner(variant: Variant, training: Training, network: Network) -> Learner:
    max_norm, detach = training.max_grad_norm, variant.detach_clip
    if variant.adam:
        rate = linear_decay(training.inner_lr, training.updates)
        rule = adam(rate, eps=training.adam_eps, max_norm=max_norm, detach_clip=detach)
    else:
        rule = clipped_ascent(training.inner_lr, max_norm=max_norm, detach_clip=detach)
    return Learner(network, policy_estimator(variant.estimator), rule)


def _distance(estimates: Tensor, plain: Tensor | None) -> float:
    if plain is None:
        return float("nan")
    return float(((estimates - plain).norm(dim=-1) / plain.norm(dim=-1)).max())
