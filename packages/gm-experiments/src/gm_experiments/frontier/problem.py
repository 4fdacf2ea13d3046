"""A budget of trajectories split between inner gradient, Hessian and outer gradient, with or without a jackknife."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import gm_estimators as estimators
import gm_lab
from gm_estimators.debias import trajectories_drawn
from gm_estimators.decomposition import ROLES, Role


@dataclass(frozen=True)
class Split:
    """How a budget is divided: a:b:c for inner gradient, Hessian and outer gradient, a:b if the first two share."""

    name: str
    weights: tuple[int, ...]

    @property
    def shares(self) -> tuple[int, ...]:
        """The weights without a common factor."""
        return tuple(weight // math.gcd(*self.weights) for weight in self.weights)

    @property
    def shared(self) -> bool:
        """Whether inner gradient and Hessian read one batch."""
        return len(self.weights) == 2


def split_of(name: str) -> Split:
    """The split of a name; raises `BadInput` if that is not two or three positive whole numbers between colons."""
    parts = name.split(":")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise gm_lab.BadInput(f"--splits: expected a:b:c, or a:b for a batch that I and II share, got {name!r}")
    return Split(name, tuple(int(part) for part in parts))


@dataclass(frozen=True)
class Allocation:
    """What each role gets of a budget."""

    sizes: estimators.Sizes
    """Trajectories of each role in a step."""
    drawn: int
    """Trajectories of all roles and steps, with those that a jackknife draws again; at most the budget."""

    @property
    def columns(self) -> dict[str, int]:
        """The same as columns of results.csv."""
        return {f"{role}_size": self.sizes.of(role) for role in ROLES} | {"drawn": self.drawn}


def allocate(budget: int, split: Split, debias: estimators.debias.Debias | None, inner_steps: int) -> Allocation:
    """The largest samples that a split with weights w has for a budget of B trajectories in all.

        n_r = blocks · ⌊B w_r / (Σ w · c_r)⌋,   c_I = c_II = d₀ + (K − 1) d,   c_III = d

    with d₀ and d as `trajectories_drawn` has them; raises `BadInput` if a role is left without a trajectory.
    """
    blocks = debias.blocks if isinstance(debias, estimators.debias.Jackknife) else 1
    first, later = trajectories_drawn(debias, blocks)
    inside = first + (inner_steps - 1) * later
    costs: dict[Role, int] = {"inner": inside, "hessian": inside, "outer": later}
    paid: tuple[Role, ...] = ("inner", "outer") if split.shared else ROLES
    weights, total = dict(zip(paid, split.weights, strict=True)), sum(split.weights)
    block: dict[Role, int] = {role: budget * weight // (total * costs[role]) for role, weight in weights.items()}
    if not all(block.values()):
        expected = f"enough for the split {split.name} at K = {inner_steps}"
        raise gm_lab.BadInput(f"--sample-sizes: expected {expected}, got {budget}")
    drawn = sum(block[role] * costs[role] for role in paid)
    inner, hessian, outer = (blocks * block.get(role, block["inner"]) for role in ROLES)
    return Allocation(estimators.Sizes(inner, hessian, outer, shared=split.shared), drawn)


def estimator_of(name: str, debias: str, gae_lambda: float | None = None) -> estimators.Estimator:
    """The estimator of a name with one of `--debias`, reading advantages of a λ of its own if there is one."""
    estimator = estimators.load(name if debias == "none" else f"{name}+{debias}")
    if gae_lambda is None:
        return estimator
    name, family = (f"{of} λ {gae_lambda}" for of in (estimator.name, estimator.gradient_family))
    return replace(estimator, name=name, gradient_family=family, gae_lambda=gae_lambda)


def debias_of(name: str) -> estimators.debias.Debias | None:
    """What a name of `--debias` stands for; raises `BadInput` if it is neither none nor a jackknife."""
    try:
        estimator = estimator_of("lvc", name)
    except ValueError as error:
        asked = gm_lab.got(name, () if name.startswith("jackknife") else ("none", "jackknife"))
        # of a jackknife's numbers it says what is wrong; of other names what may follow an estimator
        why = f": {error}" if name.startswith("jackknife") else ""
        raise gm_lab.BadInput(f"--debias: expected none or a jackknife, {asked}{why}") from error
    lvc = estimators.load("lvc")
    if estimator != replace(lvc, name=estimator.name, source=estimator.source, debias=estimator.debias):
        raise gm_lab.BadInput(f"--debias: expected none or a jackknife, got {name!r}")
    return estimator.debias


def require_plain(names: Sequence[str]) -> None:
    """Refuses estimators that choose for themselves what other flags vary."""
    for name in names:
        estimator = estimators.load(name)
        if estimator.debias is not None:
            raise gm_lab.BadInput(f"--estimators: expected plain ones beside --debias, got {name!r}")
        if estimator.gae_lambda is not None:
            raise gm_lab.BadInput(f"--estimators: expected ones without τ beside --gae-lambdas, got {name!r}")


def require_different(flag: str, meanings: Mapping[str, object]) -> None:
    """Refuses names that mean the same, which would be measured twice."""
    first: dict[object, str] = {}
    for name, meaning in meanings.items():
        if meaning in first:
            raise gm_lab.BadInput(f"--{flag}: expected different values, got {first[meaning]} and {name}")
        first[meaning] = name
