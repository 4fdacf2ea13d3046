"""What is measured of some updates: how good their meta-gradients were, and how the players fare after them."""

from collections.abc import Iterable, Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

import gm_envs_ipd as envs
import gm_lab
from gm_estimators.metrics import accuracy, correlation, relative_bias
from gm_experiments.lola.learner import Update
from gm_experiments.lola.problem import exact_meta_gradients
from gm_experiments.lola.settings import Game

AT_ONCE = 100
"""Updates whose exact meta-gradients are found together, at a seventh of what they cost one by one."""


def measurements_of(game: Game, updates: Iterable[Update]) -> dict[str, Float[Tensor, "update seed ..."]]:
    """Returns the measurements of a run's updates, at least one, by name; `AT_ONCE` of them are kept at a time."""
    every = iter(updates)
    parts: list[dict[str, Tensor]] = []
    for some in iter(lambda: list(islice(every, AT_ONCE)), []):
        parts.append(_of_some(game, some))
        gm_lab.progressed(len(parts) * AT_ONCE, game.updates)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def cooperation(share: Float[Tensor, "*batch outcome=4"], cooperative: int) -> Float[Tensor, "*batch"]:
    """Returns how often the action `cooperative` is taken, from the share of each joint outcome 2 a¹ + a²."""
    how_many = [((outcome >> 1 == cooperative) + (outcome & 1 == cooperative)) / 2 for outcome in range(4)]
    return share @ share.new_tensor(how_many)


def _of_some(game: Game, updates: Sequence[Update]) -> dict[str, Tensor]:
    truth = exact_meta_gradients(game, torch.stack([update.before for update in updates]))
    estimate = torch.stack([update.estimates.gradient for update in updates])
    outer_exact = _stacked([update.estimates.outer_exact for update in updates], truth)
    sampled_step = _stacked([update.estimates.sampled_step for update in updates], truth)
    counts = torch.stack([update.counts for update in updates])
    share = counts.to(truth) / counts.sum(-1, keepdim=True)
    score = share @ game.matrix_game().tensor().flatten(-2).T
    nothing = torch.full(score.shape[:-1], torch.nan, dtype=score.dtype)
    return {
        "accuracy": accuracy(estimate, truth).mean(-1),
        "correlation": correlation(estimate, truth).mean(-1),
        "accuracy_outer_exact": accuracy(outer_exact, truth).mean(-1),
        "correlation_outer_exact": correlation(outer_exact, truth).mean(-1),
        "error_sq": (estimate - truth).square().sum(-1).mean(-1),
        "hessian_error_sq": (outer_exact - sampled_step).square().sum(-1).mean(-1),
        "composition_error_sq": (sampled_step - truth).square().sum(-1).mean(-1),
        "truth_sq": truth.square().sum(-1).mean(-1),
        "effective_size": _stacked([update.estimates.effective_size for update in updates], nothing),
        "bias": relative_bias(estimate, truth).mean(-1),
        "bias_outer_exact": relative_bias(outer_exact, truth).mean(-1),
        "score": score.mean(-1),
        "score_1": score[..., 0],
        "score_2": score[..., 1],
        "cooperation": cooperation(share, game.matrix_game().cooperative),
        "action_0": envs.joint_view(torch.stack([update.after for update in updates])).sigmoid(),
    }


def _stacked(values: Sequence[Tensor | None], otherwise: Tensor) -> Tensor:
    """The values of all updates, or what stands for them where there is none."""
    present = [value for value in values if value is not None]
    return torch.stack(present) if present else otherwise
