"""Loops so small that every trajectory can be enumerated, handed over as if they were networks: `draw` and `see` alone.

MAML, a learnt reward (LIRPG) and LOLA in tables of states and actions. With ψ = (φ, θ) (or θ alone, where that is φ),
a step is ψ ↦ ψ + α P ∇ψ J, P the projection on θ, and a meta-gradient is a product of I + α (P ∇² J) with ∇ψ J_Out,
so that one recursion over all that a step can draw has the mean and the second moment of every estimate.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product
from typing import Any

import torch
from torch import Tensor

import gm_exact
from gm_estimators import Sizes, Trajectories, load
from gm_estimators.attribution import shapley, subsets
from gm_estimators.diagnose import Estimate, Report, Verdict, diagnose
from gm_estimators.diagnose.loop import Loop
from gm_estimators.diagnose.measured import Sampled
from gm_estimators.diagnose.sources import Config, config_of, sources_of
from gm_estimators.estimator import Estimator
from gm_estimators.returns import discounts, gae

Params = dict[str, Tensor]
Batch = tuple[bool, Tensor, Tensor]
MOST = 1 << 12
"""Points θ whose derivatives are enumerated at once."""


@dataclass(frozen=True)
class Known:
    """A loop of which everything is known.

    Attributes:
        name: what it is.
        theta: θ⁰.
        phi: φ; `None` for θ⁰.
        policy: (θ, φ) ↦ log π `[…, state, action]`.
        rewards: φ ↦ what inner and outer objective pay, `[…, state, action]` each.
        critics: of the inner and the outer objective, `[state]`, wrong on purpose.
        after: the next state by state and action.
        exact: K ↦ g.
        rate: α.
        inner: trajectories of an inner gradient, by K.
        outer: of an outer gradient.
        blocks: B, by K.
        gae_lambda: λ.
        discount: γ.
        horizon: T; the start is state 0.
    """

    name: str
    theta: Params
    phi: Params | None
    policy: Callable[[Params, Params | None], Tensor]
    rewards: Callable[[Params | None], tuple[Tensor, Tensor]]
    critics: tuple[Tensor, Tensor]
    after: Tensor
    exact: Callable[[int], Tensor]
    rate: float
    inner: Mapping[int, int]
    blocks: Mapping[int, int]
    outer: int = 4
    gae_lambda: float = 0.5
    discount: float = 0.9
    horizon: int = 2

    @property
    def actions(self) -> int:
        """How many there are in each state."""
        return self.after.shape[1]

    def every(self, outer: bool) -> Batch:
        """Every trajectory there is."""
        actions = torch.tensor(list(product(range(self.actions), repeat=self.horizon)))
        states = [torch.zeros(len(actions), dtype=torch.long)]
        for t in range(self.horizon):
            states.append(self.after[states[-1], actions[:, t]])
        return outer, torch.stack(states, -1), actions

    def draw(self, role: str, _step: int, params: Params, n: int, seed: int) -> Batch:
        """N trajectories of every lane."""
        lead = next(iter(params.values())).shape[: -self._axes]
        phi = None if self.phi is None else {name: x.expand(*lead, *x.shape) for name, x in self.phi.items()}
        upto = self.policy(params, phi).exp().cumsum(-1)
        number = torch.rand(*lead, n, self.horizon, 1, generator=_generator(seed), dtype=torch.float64)
        state, states, actions = torch.zeros(*lead, n, dtype=torch.long), [], []
        for t in range(self.horizon):
            there = upto.gather(-2, state.unsqueeze(-1).expand(*state.shape, self.actions))
            action = (number[..., t, :] > there[..., :-1]).sum(-1)
            states.append(state)
            actions.append(action)
            state = self.after[state, action]
        return role == "outer", torch.stack([*states, state], -1), torch.stack(actions, -1)

    def see(self, batch: Batch, params: Params, gae_lambda: float | None, *meta: Params) -> Trajectories:
        """What a surrogate reads; the critic knows that nothing follows the last step."""
        outer, states, actions = batch
        phi = meta[0] if meta else None
        log_prob = _at(self.policy(params, phi), states[..., :-1], actions)
        reward = _at(
            self.rewards(phi)[outer].expand(*log_prob.shape[:-2], *self.after.shape), states[..., :-1], actions
        )
        value = torch.cat([self.critics[outer][states[..., :-1]], torch.zeros_like(reward[..., :1])], -1)
        advantage = gae(reward, value, self.discount, 1.0 if gae_lambda is None else gae_lambda)
        return Trajectories(log_prob, reward, value, advantage, discounts(self.discount, self.horizon + 1))

    @property
    def _axes(self) -> int:
        """Of a tensor of parameters without lanes."""
        return next(iter(self.theta.values())).dim()

    def diagnosis(self, steps: int, lanes: int, **changes: Any) -> Report:
        """One repeat in every lane."""
        n = self.inner[steps]
        options: dict[str, Any] = {
            "sizes": Sizes(n, n, self.outer, shared=True), "blocks": self.blocks[steps], "budget": 1,
            "gae_lambda": self.gae_lambda,
        }  # fmt: skip
        return diagnose(
            draw=self.draw, see=self.see, params=self.theta, meta_params=self.phi, inner_steps=steps,
            inner_lr=self.rate, lanes=lanes, **(options | changes),
        )  # fmt: skip


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _at(table: Tensor, states: Tensor, actions: Tensor) -> Tensor:
    """A table `[…, state, action]` where a trajectory is, `[…, trajectory, time]`."""
    cell = table.shape[-1] * states + actions
    flat = table.flatten(-2).unsqueeze(-2)
    return flat.expand(*flat.shape[:-2], cell.shape[-2], flat.shape[-1]).gather(
        -1, cell.expand(*flat.shape[:-2], *cell.shape[-2:])
    )


def _logits(theta: Params, _phi: Params | None) -> Tensor:
    return theta["logits"].log_softmax(-1)


def _joint(theta: Params, phi: Params | None) -> Tensor:
    """Both players' log-probabilities, in the learner's states; his opponent sees (own, other) the other way round."""
    own, other = (phi or {})["own"], theta["opponent"][..., torch.tensor([0, 1, 3, 2, 4])]
    own, other = (torch.stack([x, -x], -1).sigmoid().log() for x in (own, other))
    return (own.unsqueeze(-1) + other.unsqueeze(-2)).flatten(-2)


def _table(*rows: Sequence[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


REWARD, THETA = _table([1.0, 0.2], [0.0, 2.0]), _table([0.3, -0.2], [0.1, 0.4])
LEARNT = _table([0.5, -0.3], [0.8, 0.2])
CRITIC = _table([0.6, -0.4])[0]
NEXT = torch.tensor([[0, 1], [0, 1]])
PAYOFFS = _table([2.0, 0.0, 3.0, 1.0], [2.0, 3.0, 0.0, 1.0])  # a prisoner's dilemma
OWN, OPPONENT = _table([0.2, 0.9, -0.4, 0.5, -0.8])[0], _table([-0.1, 0.7, -0.6, 0.3, -0.5])[0]


def transition(after: Tensor) -> Tensor:
    """Probabilities of what comes after."""
    return torch.nn.functional.one_hot(after, after.shape[0]).double()


def maml(
    reward: Tensor = REWARD, theta: Tensor = THETA, critic: Tensor = CRITIC, after: Tensor = NEXT, *,
    rate: float = 0.7, **changes: Any,
) -> Known:  # fmt: skip
    """MAML in a tabular MDP."""
    horizon, discount = changes.get("horizon", Known.horizon), changes.get("discount", Known.discount)
    mdp = gm_exact.TabularMDP(transition(after), reward, start=0, discount=discount)

    def exact(steps: int) -> Tensor:
        return gm_exact.maml_meta_gradient(mdp, theta, inner_lr=rate, inner_steps=steps, horizon=horizon).flatten()

    others: dict[str, Any] = {"name": "MAML", "inner": {1: 2, 3: 2}, "blocks": {1: 16, 3: 16}}
    return Known(
        theta={"logits": theta}, phi=None, policy=_logits, rewards=lambda _phi: (reward, reward),
        critics=(critic, critic), after=after, exact=exact, rate=rate, **(others | changes),
    )  # fmt: skip


def lirpg() -> Known:
    """A learnt reward φ, which the inner objective pays beside the MDP's own."""
    mdp, rate = gm_exact.TabularMDP(transition(NEXT), REWARD, start=0, discount=Known.discount), 0.7

    def exact(steps: int) -> Tensor:
        return gm_exact.lirpg_meta_gradient(
            mdp, THETA, LEARNT, inner_lr=rate, inner_steps=steps, horizon=Known.horizon
        ).flatten()

    return Known(
        "LIRPG", {"logits": THETA}, {"reward": LEARNT}, _logits,
        lambda phi: (REWARD + phi["reward"] if phi else REWARD, REWARD), (CRITIC, CRITIC), NEXT, exact, rate,
        {1: 2, 3: 2}, {1: 16, 3: 16},
    )  # fmt: skip


def lola() -> Known:
    """LOLA in the iterated prisoner's dilemma: the learner φ looks through its opponent's steps."""
    rate, both = 0.8, torch.stack([OWN, OPPONENT])

    def exact(steps: int) -> Tensor:
        found = gm_exact.lola_meta_gradient(
            PAYOFFS.unflatten(-1, (2, 2)), both, discount=Known.discount, inner_lr=rate, inner_steps=steps,
            horizon=Known.horizon,
        )  # fmt: skip
        return found.gradient[0]

    mine, others = (x.expand(5, 4) for x in PAYOFFS)
    critic = _table([0.5, -0.5, 0.8, 0.3, -0.2])[0]
    return Known(
        "LOLA", {"opponent": OPPONENT}, {"own": OWN}, _joint, lambda _phi: (others, mine), (critic, -critic),
        torch.arange(1, 5).expand(5, 4), exact, rate, {1: 2, 3: 1}, {1: 16, 3: 32},
    )  # fmt: skip


PROBLEMS: dict[str, Callable[[], Known]] = {"maml": maml, "lirpg": lirpg, "lola": lola}


def randomly(number: int) -> Known:
    """MAML in an MDP of 3 states whose rewards, policy, critic, λ and α are random, too."""
    rng = _generator(number)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    def one_of(*values: float) -> float:
        return values[int(torch.randint(len(values), (), generator=rng))]

    after = torch.randint(3, (3, 2), generator=rng)
    return maml(
        normal(3, 2), 0.5 * normal(3, 2), normal(3), after, rate=one_of(0.3, 0.6, 1.2),
        gae_lambda=one_of(0.3, 0.6, 0.9), outer=int(one_of(2, 4, 8)), name=f"random {number}",
    )  # fmt: skip


@dataclass(frozen=True)
class Enumerated:
    """The mean and second moments of estimates, by all that can be drawn; known ones are kept."""

    known: Known
    sizes: Sizes
    _found: dict[tuple[Config, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def moments(self, config: Config, steps: int) -> tuple[Tensor, Tensor]:
        """(E d, E d dᵀ)."""
        if (config, steps) not in self._found:
            mean, second = self._from(config, steps, self._start[None])
            kept = slice(None) if self.known.phi is None else slice(0, self._kept)
            self._found[config, steps] = mean[0, kept], second[0, kept, kept]
        return self._found[config, steps]

    def _from(self, config: Config, steps: int, psi: Tensor) -> tuple[Tensor, Tensor]:
        """Those of ∇ψ J_Out, from some points ψ on."""
        if steps == 0:
            p, slope = self._first(True, psi, config.end_lambda)
            mean = torch.einsum("bt,bti->bi", p, slope)
            square, outer = torch.einsum("bt,bti,btj->bij", p, slope, slope), mean[:, :, None] * mean[:, None]
            return mean, outer + (square - outer) / self.sizes.outer
        p, slope = self._first(False, psi, config.inner_lambda)
        through = self._through(psi, config.curvature_lambda, config.curvature.name)
        some = _drawn(p.shape[1], self.sizes.inner)
        if config.composition:
            weight, ascent = _ways(some) * p[:, some].prod(-1), slope[:, some].mean(2)
        else:
            weight, ascent = torch.ones_like(p[:, :1]), torch.einsum("bt,bti->bi", p, slope).unsqueeze(1)
        moved = psi.unsqueeze(1) + self.known.rate * torch.nn.functional.pad(
            ascent[..., -self._moved :], (self._kept, 0)
        )
        mean, second = (x.unflatten(0, moved.shape[:2]) for x in self._from(config, steps - 1, moved.flatten(0, 1)))
        if config.shared:
            jacobian = through[:, some].mean(2)
            return (
                torch.einsum("bc,bcij,bcj->bi", weight, jacobian, mean),
                torch.einsum("bc,bcij,bcjk,bclk->bil", weight, jacobian, second, jacobian),
            )
        mean, second = torch.einsum("bc,bci->bi", weight, mean), torch.einsum("bc,bcij->bij", weight, second)
        jacobian = torch.einsum("bt,btij->bij", p, through)
        off = through - jacobian.unsqueeze(1)
        spread = torch.einsum("bt,btij,bjk,btlk->bil", p, off, second, off) / self.sizes.hessian
        return torch.einsum("bij,bj->bi", jacobian, mean), jacobian @ second @ jacobian.mT + spread

    @property
    def _start(self) -> Tensor:
        parts = [*(self.known.phi or {}).values(), *self.known.theta.values()]
        return torch.cat([x.flatten() for x in parts])

    @property
    def _moved(self) -> int:
        """How many of ψ's numbers are θ's, which are the last ones."""
        return sum(x.numel() for x in self.known.theta.values())

    @property
    def _kept(self) -> int:
        return len(self._start) - self._moved

    def _seen(self, outer: bool, psi: Tensor, gae_lambda: float | None) -> Trajectories:
        """Every trajectory at one ψ."""
        named, begin = [], 0
        for given in (self.known.phi or {}, self.known.theta):
            named.append({})
            for name, x in given.items():
                named[-1][name] = psi[begin : begin + x.numel()].reshape(x.shape)
                begin += x.numel()
        phi, theta = named
        return self.known.see(self.known.every(outer), theta, gae_lambda, *([phi] if phi else []))

    def _first(self, outer: bool, psi: Tensor, gae_lambda: float | None) -> tuple[Tensor, Tensor]:
        """(p, ∇ψ f) of every trajectory, `[batch, trajectory]` and `[batch, trajectory, ψ]`."""

        def surrogate(x: Tensor) -> Tensor:
            return load("ad").surrogate(self._seen(outer, x, gae_lambda))

        def log_prob(x: Tensor) -> Tensor:
            return self._seen(outer, x, 1.0).log_prob.sum(-1)

        return _batched(log_prob, psi).exp(), _batched(torch.func.jacrev(surrogate), psi)

    def _through(self, psi: Tensor, gae_lambda: float | None, name: str) -> Tensor:
        """I + α (∇ψ∇θ f)ᵀ P of every trajectory, `[batch, trajectory, ψ, ψ]`."""

        def slope(x: Tensor) -> Tensor:
            fixed, theta = x[: self._kept], x[self._kept :]

            def surrogate(y: Tensor) -> Tensor:
                return load(name).surrogate(self._seen(False, torch.cat([fixed, y]), gae_lambda))

            return torch.func.jacrev(surrogate)(theta)

        curvature = _batched(torch.func.jacfwd(slope), psi)  # [batch, trajectory, θ, ψ]
        padded = torch.nn.functional.pad(curvature.mT, (self._kept, 0))
        return torch.eye(len(self._start), dtype=psi.dtype) + self.known.rate * padded


def _batched(function: Callable[[Tensor], Tensor], psi: Tensor) -> Tensor:
    return torch.cat([torch.func.vmap(function)(some) for some in psi.split(MOST)])


def _drawn(trajectories: int, n: int) -> Tensor:
    """Every n of them, without order."""
    return torch.tensor(list(combinations_with_replacement(range(trajectories), n)))


def _ways(some: Tensor) -> Tensor:
    """In how many orders each can be drawn."""
    orders = [
        math.factorial(len(row)) // math.prod(map(math.factorial, Counter(row).values())) for row in some.tolist()
    ]
    return torch.tensor(orders, dtype=torch.float64)


def truths(enumerated: Enumerated, loop: Loop, estimator: Estimator) -> dict[str, float]:
    """Every number that a `Verdict` has an interval for, in units of ‖g‖²."""
    steps, sources = loop.inner_steps, sources_of(loop, estimator)
    g = enumerated.known.exact(steps)
    found = {some: enumerated.moments(config_of(loop, estimator, some), steps) for some in subsets(sources) if some}
    errors = {some: found[some][0] - g if some else torch.zeros_like(g) for some in subsets(sources)}
    squares = {some: e @ e / (g @ g) for some, e in errors.items()}
    lengths = {some: e @ g / (g @ g) for some, e in errors.items()}
    whole = frozenset(sources)
    mean, second = found[whole]
    spread = (second.trace() - mean @ mean) / (g @ g)
    return {
        name: float(x)
        for name, x in {
            "squared bias": squares[whole], "bias along g": lengths[whole], "variance": spread,
            "mean squared error": squares[whole] + spread,
            **{f"share: {name}": x for name, x in shapley(squares, sources).items()},
            **{f"share along g: {name}": x for name, x in shapley(lengths, sources).items()},
        }.items()
    }  # fmt: skip


def error(known: Known, loop: Loop, estimator: Estimator) -> float:
    """E‖d − g‖² / ‖g‖²."""
    g = known.exact(loop.inner_steps)
    config = config_of(loop, estimator, sources_of(loop, estimator))
    mean, second = Enumerated(known, loop.sizes).moments(config, loop.inner_steps)
    return float((second.trace() - 2 * mean @ g) / (g @ g)) + 1


def numbers(found: Verdict) -> dict[str, Estimate]:
    """The intervals of a verdict, by the names that `truths` has."""
    return {
        "squared bias": found.bias_sq, "bias along g": found.along, "variance": found.variance,
        "mean squared error": found.mse,
        **{f"share: {name}": x for name, x in found.shares.items()},
        **{f"share along g: {name}": x for name, x in found.along_shares.items()},
    }  # fmt: skip


def part(sampled: Sampled, rows: slice) -> Sampled:
    """Some repeats alone."""
    return Sampled(
        sampled.reference[rows], sampled.coarser[rows], {config: x[rows] for config, x in sampled.estimates.items()},
        {config: x[rows] for config, x in sampled.variances.items()},
    )  # fmt: skip
