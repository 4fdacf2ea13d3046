"""A two-level problem of one's own without an environment: linear-Gaussian policies in contexts that are given.

    a_t = θᵀs_t + ε_t,   log π = −(a_t − θᵀs_t)² / 2,   r_t = −(a_t − cᵀs_t)² / 2

φ enters the rewards inside, + φᵀs_t, and log π outside, − (1/2 − φᵀs_t)² / 2: a player whose action is always 1/2. What
an update reads is the mean of an estimator's surrogate, so that the meta-gradient is also had by plain automatic
differentiation of the K-step objective, `by_autograd`. Every role and step has random numbers of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gm_estimators import Estimator, Sizes, Trajectories, meta_gradient
from gm_estimators.corrections import credit
from gm_estimators.decomposition import ROLES, Problem, Role, Rows
from gm_estimators.returns import discounts, gae
from gm_estimators.surrogates import discounted_return, mean_surrogate

F64 = torch.float64
MOST, HORIZON, GAMMA, LAMBDA = 12, 3, 0.8, 0.7
WISH = torch.tensor([0.5, -1.0, 0.8], dtype=F64)
JUDGED = torch.tensor([0.2, 0.3, -0.4], dtype=F64)
CASES = {"maml": (True, False), "phi": (False, True), "both": (True, True)}
"""Whether φ = θ⁰, and whether objectives depend on φ directly."""


@dataclass(frozen=True)
class Contexts:
    """States s_t and actions a_t: a sample."""

    state: Tensor
    action: Tensor

    def select(self, rows: Rows) -> "Contexts":
        return Contexts(self.state[..., rows, :, :], self.action[..., rows, :])


class Objective:
    """J(φ, θ) as a function of two leaves; `ends` is J itself where that isn't the function's value."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], phi: Tensor, theta: Tensor, direct: bool) -> None:
        self._phi, self._theta = phi.detach().requires_grad_(), theta.detach().requires_grad_()
        self._direct = direct
        self.value = function(self._phi, self._theta).detach()
        self._slope, self._by_phi = self._derivatives(function(self._phi, self._theta))

    def _derivatives(self, number: Tensor, *, graph: bool = True) -> tuple[Tensor, Tensor]:
        return torch.autograd.grad(
            number.sum(), (self._theta, self._phi), create_graph=graph, retain_graph=True, materialize_grads=True,
            allow_unused=True,
        )  # fmt: skip

    @property
    def gradient(self) -> Tensor:
        return self._slope.detach()

    @property
    def meta_gradient(self) -> Tensor | None:
        return self._by_phi.detach() if self._direct else None

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor | None]:
        found = [self._derivatives(self._slope * vector, graph=False) for vector in cotangent]
        own, mixed = (torch.stack(each) for each in zip(*found, strict=True))
        return own, mixed if self._direct else None


@dataclass
class Toy:
    """The problem; `draws` notes what was drawn, `points` how many θ were looked at."""

    case: str = "phi"
    batch: tuple[int, ...] = (2,)
    critic_error: float = 0.0
    seed: int = 0
    draws: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    points: list[Tensor] = field(default_factory=list)
    rows: Mapping[Role, Tensor] | None = None

    def __post_init__(self) -> None:
        self.meta_is_params, self.direct = CASES[self.case]
        draw = torch.Generator().manual_seed(self.seed + 1)
        self.phi = torch.randn(*self.batch[:1], 3, generator=draw, dtype=F64) / 2
        self.phi = self.phi.reshape(*self.batch[:1], *[1] * (len(self.batch) - 1), 3).expand(*self.batch, 3)
        start = torch.tensor([0.3, 0.1, -0.2], dtype=F64).expand(*self.batch, 3)
        self.params = self.phi if self.meta_is_params else start

    def numbers(self, role: str, step: int) -> Tensor:
        """s_t and ε_t of every trajectory, `[*batch, trajectory, time, 4]`."""
        draw = torch.Generator().manual_seed(10_000 * self.seed + 100 * ROLES.index(role) + step)
        return torch.randn(*self.batch, MOST, HORIZON, 4, generator=draw, dtype=F64)

    def played(self, role: str, step: int, theta: Tensor, rows: Rows) -> Contexts:
        numbers = self.numbers(role, step)
        if self.rows is not None:  # parts along a new first axis
            numbers = numbers[..., self.rows[role], :, :].movedim(-4, 0)
        else:
            numbers = numbers[..., rows, :, :]
        state, noise = numbers[..., :3], numbers[..., 3]
        return Contexts(state, (state * theta[..., None, None, :]).sum(-1) + noise)

    def exact_value(self, role: str, phi: Tensor, theta: Tensor) -> Tensor:
        """Any smooth function, another inside and outside."""
        if role == "outer":
            number = (theta.sin() * theta.roll(1, -1)).sum(-1) - (theta - WISH).square().sum(-1) / 5
            return number + self.direct * (phi * theta.cos()).sum(-1) / 2
        number = -((theta - WISH).square() / 2 + theta.pow(4) / 20).sum(-1)
        return number + self.direct * (phi * theta.square()).sum(-1)

    def read(self, role: str, phi: Tensor, theta: Tensor, sample: Contexts, critic: object) -> Trajectories:
        log_prob = -(sample.action - (sample.state * theta[..., None, None, :]).sum(-1)).square() / 2
        reward = -(sample.action - sample.state @ WISH).square() / 2
        by_phi = self.direct * (sample.state * phi[..., None, None, :]).sum(-1)
        if role == "outer":
            log_prob = log_prob - self.direct * (0.5 - by_phi).square() / 2
        else:
            reward = reward + by_phi
        value = torch.nn.functional.pad(sample.state @ JUDGED, (0, 1), value=0.5) * bool(critic)
        value = value * (1 + self.critic_error)
        powers = discounts(GAMMA, HORIZON + 1)
        return Trajectories(log_prob, reward, value, gae(reward, value, GAMMA, LAMBDA), powers)

    def at(self, params: Tensor) -> "ToyPoint":
        self.points.append(params)
        return ToyPoint(self, params)


class ToyPoint:
    def __init__(self, toy: Toy, theta: Tensor) -> None:
        self._toy, self._theta = toy, theta
        self._phi = toy.phi if toy.rows is None else toy.phi.expand(theta.shape)

    def exact(self, role: Role) -> Objective:
        toy = self._toy
        return Objective(lambda phi, theta: toy.exact_value(role, phi, theta), self._phi, self._theta, toy.direct)

    def draw(self, step: int, rows: Mapping[Role, Rows]) -> dict[Role, Contexts]:
        count = {role: some.stop if isinstance(some, slice) else len(some) for role, some in rows.items()}
        self._toy.draws.append((step, count))
        return {role: self._toy.played(role, step, self._theta, some) for role, some in rows.items()}

    def sampled(self, role: Role, estimator: Estimator, sample: Contexts) -> Objective:
        toy = self._toy

        def number(phi: Tensor, theta: Tensor) -> Tensor:
            return mean_surrogate(estimator.surrogate, toy.read(role, phi, theta, sample, estimator.critic))

        found = Objective(number, self._phi, self._theta, toy.direct)
        found.value = discounted_return(toy.read(role, self._phi, self._theta, sample, estimator.critic)).mean(-1)
        return found


class Splitting(Toy):
    """The same, whose parts of a sample have a batch axis of their own."""

    def parts(self, rows: Sequence[Mapping[Role, Tensor]]) -> Sequence[Problem[Any]]:
        found = []
        for some in rows:
            part = replace(self, rows=some)
            part.params = self.params.expand(len(some["inner"]), *self.params.shape)
            found.append(part)
        return found


def by_autograd(
    toy: Toy,
    estimator: Estimator,
    permutation: str,
    size: Sizes | Mapping[str, Tensor],
    inner_steps: int,
    inner_lr: float,
) -> Tensor:
    """The meta-gradient by automatic differentiation of the K-step objective, the correction of each step included.

    `size` may also be the numbers of each role's trajectories.
    """
    numbers = size if isinstance(size, Mapping) else {role: torch.arange(size.of(role)) for role in ROLES}
    shared = isinstance(size, Sizes) and size.shared
    visited: dict[int, Tensor] = {}

    def sample(role: str, step: int, theta: Tensor) -> Contexts:
        return toy.played(role, step, theta.detach(), numbers[role])

    def objective(role: str, letter: str, estimated: Estimator = estimator) -> Callable[[Tensor, Tensor, int], Tensor]:
        def number(phi: Tensor, theta: Tensor, step: int) -> Tensor:
            if letter == "E":
                return toy.exact_value(role, phi, theta)
            source = "inner" if role == "hessian" and shared else role
            drawn = sample(source, step, theta)
            return mean_surrogate(estimated.surrogate, toy.read(role, phi, theta, drawn, estimated.critic))

        return number

    inner, hessian, outer = (objective(role, letter) for role, letter in zip(ROLES, permutation, strict=True))

    def moving(phi: Tensor, theta: Tensor, step: int) -> Tensor:
        visited[step] = theta
        return inner(phi, theta, step)

    def end(phi: Tensor, theta: Tensor) -> Tensor:
        total = outer(phi, theta, inner_steps)
        if not estimator.correction or permutation[:2] != "SS":
            return total
        value = toy.exact_value("outer", phi, theta)
        if permutation[2] == "S":
            drawn = sample("outer", inner_steps, theta)
            value = discounted_return(toy.read("outer", phi, theta, drawn, estimator.critic)).mean(-1)
        credited = objective("inner", "S", credit(estimator, value.detach()))
        return total + sum(credited(phi, theta_i, step) for step, theta_i in visited.items())

    start = None if toy.meta_is_params else toy.params
    found = meta_gradient(
        toy.phi, start, inner=moving, hessian=hessian, outer=end, inner_steps=inner_steps, inner_lr=inner_lr
    )
    assert isinstance(found, Tensor)
    return found
