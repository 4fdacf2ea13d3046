"""What makes a meta-gradient wrong: each source as in practice or ideal."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.diagnose.first_order import FIRST_ORDER, FirstOrder
from gm_estimators.diagnose.loop import Loop, Rates, kept
from gm_estimators.diagnose.repeat import Curvature, End, Path, Repeat
from gm_estimators.estimator import CATALOGUE, FAMILY, Estimator, families
from gm_estimators.off_policy import off_policy
from gm_estimators.optimisers import clipped_in_derivatives

COMPOSITION, HESSIAN, OUTER, SHARED_BATCH = "composition", "hessian", "outer", "shared_batch"
GAE_LAMBDA, CLIPPING, REUSE = "gae_lambda", "clipping", "reuse"
MEANING = {
    COMPOSITION: "inner gradients of n trajectories, not of infinitely many",
    HESSIAN: "the Jacobian of a step by the estimator, not by Loaded-DiCE",
    OUTER: "the outer gradient from samples; biased by its advantages alone",
    SHARED_BATCH: "inner gradient and Jacobian from the same trajectories",
    GAE_LAMBDA: "advantages of the loop's λ, not of λ = 1",
    REUSE: "batches that earlier steps drew, not each step its own",
    CLIPPING: "the clipping coefficient held constant in derivatives",
}
"""What is said of each source: as in practice, not as ideal."""
ADAPTED = {
    HESSIAN: "the Jacobian of a step by the estimator, which trajectories' dependence on φ may not be part of",
    OUTER: "the outer gradient's advantages of the loop's λ, not of λ = 1",
}
"""What is said of the sources where the truth is that of adapting with n trajectories."""
LEFT_OUT = {HESSIAN: "a step's Jacobian left out or by the estimator, not by Loaded-DiCE"}
"""What is said where a loop is among those compared that has no Jacobians."""
IDEAL = CATALOGUE["loaded_dice"]
"""All its derivatives are unbiased where the advantages are."""
IDEAL_FIRST = CATALOGUE["ad"]
"""With the same first derivative, for less."""


@dataclass(frozen=True)
class Config:
    """An estimate's parts, each as in practice or ideal; what has the same expectation is the same config.

    Attributes:
        composition: whether inner gradients are from one block.
        first_order: of the inner gradient, whose family it stands for.
        inner_lambda: λ of the inner gradient's advantages.
        curvature: the estimator of the Jacobian; `FIRST_ORDER` if that is left out.
        curvature_lambda: λ of its advantages.
        shared: whether inner gradient and Jacobian are from the same trajectories.
        end: the estimator of the outer gradient, which stands for its family.
        end_lambda: λ of its advantages.
        ideals: which of the other sources are ideal.
        gain: whether it is the gradient of what adapting with a block gains, see `Repeat.gain`.
        reused: whether inner gradients read batches that earlier steps drew.
        curvature_reused: whether Jacobians do.
    """

    composition: bool
    first_order: Estimator
    inner_lambda: float | None
    curvature: Estimator
    curvature_lambda: float | None
    shared: bool
    end: Estimator
    end_lambda: float | None
    ideals: tuple[str, ...] = ()
    gain: bool = False
    reused: bool = False
    curvature_reused: bool = False


def sources_of(loop: Loop, estimator: Estimator) -> tuple[str, ...]:
    """The sources that the loop has, of those that can make a bias."""
    told = loop.gae_lambda is not None and loop.gae_lambda != 1 and estimator.reads == "advantages"
    outer = [OUTER] if told or not _has_known_first_derivative(estimator) else []
    left_out = isinstance(estimator, FirstOrder)
    if loop.adapted:
        return (HESSIAN, *outer)
    found = [COMPOSITION, HESSIAN, *outer, *([GAE_LAMBDA] if told else [])]
    if loop.sizes.shared and not left_out:
        found.append(SHARED_BATCH)
    if loop.batch_of is not None:
        found.append(REUSE)
    # a clipping coefficient is not differentiated where nothing is
    return (*found, *(name for name in loop.ideals if not (left_out and name == CLIPPING)))


def with_ideals(loop: Loop) -> Loop:
    """The loop with the ideal of clipping, if it has that source."""
    ideal = None if isinstance(loop.update, Rates) else clipped_in_derivatives(loop.update)
    return loop if ideal is None else replace(loop, ideals={**loop.ideals, CLIPPING: {"update": ideal}})


def config_of(loop: Loop, estimator: Estimator, practice: Collection[str]) -> Config:
    """The config in which those sources are as in practice, all others ideal."""
    first = _representative(estimator)
    exact = None if loop.gae_lambda is None else 1.0
    composition, hessian = COMPOSITION in practice, HESSIAN in practice
    outer = OUTER in practice or OUTER not in sources_of(loop, estimator)  # without a bias it has a variance still
    if loop.adapted:
        return _without_jacobian(Config(
            True, first, loop.gae_lambda, estimator if hessian else IDEAL, loop.gae_lambda, loop.sizes.shared,
            first if outer else IDEAL_FIRST, loop.gae_lambda if outer else exact, tuple(loop.ideals), gain=not hessian,
        ))  # fmt: skip
    lam, reused = loop.gae_lambda if GAE_LAMBDA in practice else exact, REUSE in practice
    return _without_jacobian(Config(
        composition, first if composition or reused else IDEAL_FIRST, lam if composition else exact,
        estimator if hessian else IDEAL, lam if hessian else exact,
        composition and hessian and SHARED_BATCH in practice,
        first if outer else IDEAL_FIRST, lam if outer else exact,
        tuple(name for name in loop.ideals if name not in practice),
        reused=reused, curvature_reused=reused and hessian,
    ))  # fmt: skip


def _without_jacobian(config: Config) -> Config:
    """What a Jacobian would be made of is said alike wherever it is left out."""
    if not isinstance(config.curvature, FirstOrder):
        return config
    return replace(config, curvature=FIRST_ORDER, curvature_lambda=None, shared=False, curvature_reused=False)


def by_config(
    repeat: Repeat, configs: Collection[Config], blocks: tuple[int, ...]
) -> dict[Config, Float[Tensor, "estimate lane size"]]:
    """The configs' estimates: one for each block, or an extrapolated one if inner gradients are ideal."""
    # what differs in its end alone stands together, so that its steps are made once
    ordered = sorted(configs, key=lambda config: repr(replace(config, end=IDEAL, end_lambda=None)))
    found: dict[Config, list[Tensor]] = {config: [] for config in ordered}
    for config in ordered:
        if config.gain:
            found[config] += gains(repeat, config, blocks).unbind()
    for block in blocks:
        for config in ordered:
            if config.composition and not config.gain:
                found[config].append(along(repeat, config, (block,)))
    for config in ordered:
        if not config.composition:
            found[config].append(extrapolated(repeat, config, blocks))
    return {config: kept(torch.stack(estimates)) for config, estimates in found.items()}


WEIGHTS = (1.0, 0.5, -0.5)
"""Of all blocks, halves and quarters: the intercept of the line through d(m) over 1/m, by least squares."""


def gains(repeat: Repeat, config: Config, blocks: tuple[int, ...]) -> Float[Tensor, "estimate lane size"]:
    """`Repeat.gain` of each block, with the mean outcome of the others as its baseline."""
    paths = [Path(config.first_order.surrogate, config.inner_lambda, (block,)) for block in blocks]
    ends = [End(config.end.surrogate, config.end_lambda, (block,)) for block in blocks]
    outcomes = torch.stack([repeat.outcome(path, end) for path, end in zip(paths, ends, strict=True)])
    others = (outcomes.sum(0) - outcomes) / (len(blocks) - 1)
    return torch.stack([repeat.gain(*each) for each in zip(paths, ends, others, strict=True)])


def parts(config: Config, blocks: tuple[int, ...]) -> tuple[Path, Curvature | None, End]:
    """What the config's estimate from the trajectories of some blocks alone is made of."""
    ideals = tuple(name for name in config.ideals if name != CLIPPING)  # which changes no step
    curvature = Curvature(
        config.curvature.surrogate, config.curvature_lambda, blocks, config.shared, config.ideals,
        config.curvature_reused,
    )  # fmt: skip
    return (
        Path(config.first_order.surrogate, config.inner_lambda, blocks, ideals, config.reused),
        None if isinstance(config.curvature, FirstOrder) else curvature,
        End(config.end.surrogate, config.end_lambda, blocks),
    )


def along(repeat: Repeat, config: Config, blocks: tuple[int, ...]) -> Tensor:
    """The config's estimate from the trajectories of some blocks alone."""
    return repeat.estimate(*parts(config, blocks))


def outcome(repeat: Repeat, config: Config, blocks: tuple[int, ...]) -> Tensor:
    """J_Out at the θᴷ that the config's steps lead to, by the same trajectories, in every lane for every task."""
    path, _, end = parts(config, blocks)
    return repeat.outcome(path, end)


def extrapolated(
    repeat: Repeat, config: Config, blocks: tuple[int, ...],
    measure: Callable[[Repeat, Config, tuple[int, ...]], Tensor] = along,
) -> Tensor:  # fmt: skip
    """d(B) + ½ d(B/2) − ½ d(B/4), each a mean over all that there are; B is a multiple of 4.

    Free of c₁ as 2 d(B) − d(B/2) is, with less than a third of the variance where levels are independent.
    """
    found = torch.zeros(())
    for level, weight in enumerate(WEIGHTS):
        size = len(blocks) >> level
        several = [measure(repeat, config, blocks[i : i + size]) for i in range(0, len(blocks), size)]
        found = found + weight * torch.stack(several).mean(0)
    return found


KNOWN = {
    group[0].gradient_family: group[0] for group in families([
        *CATALOGUE.values(), *FAMILY.values(), *(off_policy(each) for each in CATALOGUE.values()),
        *(off_policy(replace(each, self_normalise=True)) for each in CATALOGUE.values()),
    ])
}  # fmt: skip
"""One estimator for all that have the same first derivative, which is unbiased where their advantages are."""


def _has_known_first_derivative(estimator: Estimator) -> bool:
    return estimator.gradient_family in KNOWN


def _representative(estimator: Estimator) -> Estimator:
    """One estimator for all that have the same first derivative."""
    of = estimator.of if isinstance(estimator, FirstOrder) else estimator
    return KNOWN.get(of.gradient_family, of)
