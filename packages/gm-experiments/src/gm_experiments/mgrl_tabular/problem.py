"""MGRL in tabular MDPs as a two-level problem: an actor-critic's updates, exact and sampled, and their derivatives.

θ is `[*batch, state, action + 1]`: the policy's logits, and the critic's values in the last column. φ is `[*batch, 5]`:
the logits of γ, λ, c_v and c_e, as in the paper (G.3.1), and log α.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

import gm_exact
from gm_estimators import Estimator, Trajectories
from gm_estimators.decomposition import Objective, Role, Rows
from gm_estimators.estimator import CATALOGUE
from gm_estimators.names import load
from gm_estimators.returns import discounts, gae, returns_to_go, reverse_cumsum
from gm_exact import ActorCritic, MetaParams
from gm_experiments.common.problem import SoftmaxObjective, flat, look_up, scattered
from gm_experiments.mgrl_tabular.settings import CORRECTED, Mgrl

Draw = Callable[[str, int, Tensor, Rows], tuple[Tensor, Tensor]]
"""Role, step, policy and numbers of trajectories ↦ their states and actions."""
COMPOSED = 1.0
"""The inner learning rate of `decompose`: α is a part of φ, and of the objectives."""


def estimator_of(name: str) -> Estimator:
    """An estimator by name; the corrected one has AD's surrogate, and more than that in its derivative."""
    return replace(CATALOGUE["ad"], name=CORRECTED) if name == CORRECTED else load(name, suffixes=False)


def initial_phi(mgrl: Mgrl) -> Float[Tensor, "5"]:
    """φ where it begins."""
    inside = torch.tensor([mgrl.gamma, mgrl.gae_lambda, mgrl.value_coef, mgrl.entropy_coef], dtype=torch.float64)
    return torch.cat([inside.logit(), torch.tensor([mgrl.inner_lr], dtype=torch.float64).log()])


def meta_params(phi: Float[Tensor, "*batch 5"]) -> MetaParams:
    """What φ stands for: (γ, λ, c_v, c_e, α)."""
    discount, gae_lambda, value_coef, entropy_coef = phi[..., :4].sigmoid().unbind(-1)
    return MetaParams(discount, gae_lambda, value_coef, entropy_coef, phi[..., 4].exp())


def slopes(phi: Float[Tensor, "*batch 5"]) -> Float[Tensor, "*batch 5"]:
    """The derivative of each of `meta_params` in its own entry of φ."""
    inside = phi[..., :4].sigmoid()
    return torch.cat([inside * (1 - inside), phi[..., 4:].exp()], -1)


def split(params: Float[Tensor, "*batch state column"]) -> ActorCritic:
    """θ as logits and values."""
    return ActorCritic(params[..., :-1], params[..., -1])


def joined(parts: ActorCritic) -> Float[Tensor, "*batch state column"]:
    """Logits and values as θ."""
    return torch.cat([parts.logits, parts.values.unsqueeze(-1)], -1)


def exact_meta_gradient(
    mdp: gm_exact.TabularMDP, params: Tensor, phi: Tensor, inner_steps: int, horizon: int,
    dependence: gm_exact.Dependence | None = None,
) -> Float[Tensor, "*batch 5"]:  # fmt: skip
    """∇φ J(θᴷ), or its expectation by an estimator that knows no more than a `dependence`."""
    found = gm_exact.mgrl_meta_gradient(
        mdp, split(params), meta_params(phi), inner_steps=inner_steps, horizon=horizon,
        dependence=dependence or gm_exact.Dependence(),
    )  # fmt: skip
    return torch.stack(found, -1) * slopes(phi)


def exact_path(mdp: gm_exact.TabularMDP, params: Tensor, phi: Tensor, inner_steps: int, horizon: int) -> Tensor:
    """θ after so many exact updates."""
    with torch.no_grad():
        path = gm_exact.actor_critic_path(
            mdp, split(params), meta_params(phi), inner_steps=inner_steps, horizon=horizon
        )
        return joined(path[-1])


@dataclass(frozen=True)
class Sample:
    """Trajectories with what an actor-critic makes of them.

    `cell` and `place` are the indices of (batch element, s_t, a_t) and (batch element, s_t) in flattened tables. The
    last two are ∂A_t/∂γ and ∂A_t/∂λ.
    """

    state: Tensor
    action: Tensor
    cell: Tensor
    place: Tensor
    read: Trajectories
    by_discount: Tensor
    by_lambda: Tensor

    def select(self, rows: Rows) -> "Sample":
        """The trajectories of those numbers."""
        if isinstance(rows, slice) and rows == slice(self.cell.shape[-2]):
            return self
        names = ("state", "action", "cell", "place", "by_discount", "by_lambda")
        columns = (self.read.log_prob, self.read.reward, self.read.value, self.read.advantage)
        log_prob, reward, value, advantage = (column[..., rows, :] for column in columns)
        kept = {name: getattr(self, name)[..., rows, :] for name in names}
        return Sample(read=Trajectories(log_prob, reward, value, advantage, self.read.discount), **kept)


class MgrlProblem:
    """K updates of an actor-critic, and the value of the policy that they lead to.

    `first` is a rollout at θ⁰ that the first inner step reads instead of one of its own.
    """

    meta_is_params = False

    def __init__(
        self, mdp: gm_exact.TabularMDP, params: Tensor, phi: Tensor, mgrl: Mgrl, draw: Draw,
        first: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.mdp, self.params, self.phi, self.mgrl, self.rollout, self.first = mdp, params, phi, mgrl, draw, first
        self.meta_params = meta_params(phi)

    def at(self, params: Tensor) -> "MgrlPoint":
        """What there is at θ."""
        return MgrlPoint(self, params)


class MgrlPoint:
    """One θ of MGRL; where it is the same for all repeats, their axis has length one."""

    def __init__(self, problem: MgrlProblem, params: Tensor) -> None:
        self._problem, self._params = problem, params

    @cached_property
    def _spread(self) -> ActorCritic:
        """θ with an axis of the repeats, for which samples differ."""
        *batch, _ = self._problem.phi.shape[:-1]
        axes = (*batch, self._problem.mgrl.repeats)
        return split(self._params.expand(*axes, *self._params.shape[-2:]).contiguous())

    def exact(self, role: Role) -> Objective:
        """The exact update, or the value of the policy."""
        problem = self._problem
        if role == "outer":
            return ExactValue(gm_exact.evaluate(problem.mdp, split(self._params).logits))
        return ExactUpdate(problem, self._params)

    def draw(self, step: int, rows: Mapping[Role, Rows]) -> Mapping[Role, Sample]:
        """Trajectories of each role, with the advantages that it reads."""
        return {role: self._drawn(role, step, some) for role, some in rows.items()}

    def _drawn(self, role: Role, step: int, rows: Rows) -> Sample:
        problem, (logits, values) = self._problem, self._spread
        if step == 0 and role == "inner" and problem.first is not None:
            state, action = (x[..., rows, :] for x in problem.first)
        else:
            state, action = problem.rollout(role, step, logits.softmax(-1), rows)
        phi = problem.meta_params
        discount, decay, weights = phi.discount, phi.gae_lambda, torch.ones(action.shape[-1] + 1, dtype=values.dtype)
        if role == "outer":
            discount, decay = (torch.full_like(discount, x) for x in (problem.mdp.discount, problem.mgrl.outer_lambda))
            weights = discounts(float(problem.mdp.discount), action.shape[-1] + 1)
        return seen(problem.mdp, self._spread, state, action, discount, decay, weights.to(values.device))

    def sampled(self, role: Role, estimator: Estimator, sample: Sample) -> Objective:
        """The update, or the outer gradient, as an estimator sees it in a sample."""
        derivatives = estimator.derivatives(sample.read)
        policy = SoftmaxObjective(self._spread.logits.softmax(-1), sample.cell, derivatives, sample.read)
        if role == "outer":
            return SampledOuter(policy, sample)
        kind = CorrectedUpdate if estimator.name == CORRECTED else SampledUpdate
        return kind(self._spread, self._problem, sample, policy, derivatives.mixed)


def seen(
    mdp: gm_exact.TabularMDP, params: ActorCritic, state: Tensor, action: Tensor, discount: Tensor, decay: Tensor,
    weights: Tensor,
) -> Sample:  # fmt: skip
    """What an actor-critic makes of trajectories, A_t = δ_t + γλ A_{t+1} and its derivatives.

    ∂A_t/∂γ = V(s_{t+1}) + λ A_{t+1} + γλ ∂A_{t+1}/∂γ,   ∂A_t/∂λ = γ A_{t+1} + γλ ∂A_{t+1}/∂λ
    """
    *batch, states, actions = params.logits.shape
    problem = torch.arange(params.values.numel() // states, device=state.device).reshape(*batch, 1, 1)
    place = problem * states + state
    cell = place[..., :-1] * actions + action
    reward = look_up(mdp.reward.expand(*batch, states, actions).reshape(-1), cell)
    value = look_up(params.values.reshape(-1), place)
    log_prob = look_up(params.logits.log_softmax(-1).reshape(-1), cell)
    discount, decay = (x[..., None, None].expand(*batch, 1, 1) for x in (discount, decay))
    advantage = gae(reward, value, discount, decay)
    next_advantage = torch.nn.functional.pad(advantage[..., 1:], (0, 1))
    by_discount = returns_to_go(value[..., 1:] + decay * next_advantage, discount * decay)
    by_lambda = returns_to_go(discount * next_advantage, discount * decay)
    read = Trajectories(log_prob, reward, value, advantage, weights)
    return Sample(state, action, cell, place, read, by_discount, by_lambda)


class ExactValue:
    """J of a policy, which has no part in the values and none of φ."""

    meta_gradient = None

    def __init__(self, evaluation: gm_exact.PolicyEvaluation) -> None:
        self.value, self._evaluation = evaluation.value, evaluation

    @cached_property
    def gradient(self) -> Tensor:
        """∇θ J."""
        return torch.nn.functional.pad(self._evaluation.gradient, (0, 1))

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, None]:
        """(∇²θ J λ, None)."""
        return torch.nn.functional.pad(self._evaluation.hessian_vector_product(cotangent[..., :-1]), (0, 1)), None


class ExactUpdate:
    """The expected update, α included, and the transposes of its Jacobians; it is the gradient of no function."""

    meta_gradient = None

    def __init__(self, problem: MgrlProblem, params: Tensor) -> None:
        self._problem, self._params = problem, params

    def _update(self, params: Tensor, phi: Tensor) -> Tensor:
        problem = self._problem
        step = gm_exact.actor_critic_step(problem.mdp, split(params), meta_params(phi), problem.mgrl.horizon)
        return joined(step) - params

    @cached_property
    def gradient(self) -> Tensor:
        """u(θ, φ)."""
        with torch.no_grad():
            return self._update(self._params, self._problem.phi)

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """((∂u/∂θ)ᵀ λ, (∂u/∂φ)ᵀ λ)."""
        axes = cotangent.shape[1:-2]
        with torch.enable_grad():
            params = self._params.detach().expand(*axes, *self._params.shape[-2:]).clone().requires_grad_()
            phi = self._problem.phi.detach().expand(*axes, self._problem.phi.shape[-1]).clone().requires_grad_()
            update = self._update(params, phi)
            found = [torch.autograd.grad(update, (params, phi), vector, retain_graph=True) for vector in cotangent]
        of_params, of_phi = (torch.stack(parts) for parts in zip(*found, strict=True))
        return of_params, of_phi


class SampledOuter:
    """The policy's term at θᴷ, Σ_t γ'ᵗ A'_t ∇log π(a_t|s_t), with the critic that the agent has."""

    meta_gradient = None

    def __init__(self, policy: SoftmaxObjective, sample: Sample) -> None:
        self._policy, self.sample = policy, sample

    @cached_property
    def gradient(self) -> Tensor:
        """∇θ J as estimated."""
        return torch.nn.functional.pad(self._policy.gradient, (0, 1))

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, None]:
        """(∇²θ J λ, None)."""
        return torch.nn.functional.pad(self._policy.vjp(cotangent[..., :-1])[0], (0, 1)), None


class SampledUpdate:
    """The update of a batch, as paper, Eq. 14, has it, and the derivatives that an estimator sees of it.

        u = α/T · mean_n Σ_t [w_t ∇log π_t + 2 c_v A_t ∇V(s_t) + c_e ∇H(π(·|s_t))]

    w and its derivatives in the log-probabilities and the advantages are the estimator's own. Critic and entropy are
    differentiated as they stand: values in advantages and targets are constants, and so is where the batch came from.
    """

    meta_gradient = None

    def __init__(
        self, params: ActorCritic, problem: MgrlProblem, sample: Sample, policy: SoftmaxObjective, mixed: object
    ) -> None:
        self._values, self._problem, self._sample, self._policy = params.values, problem, sample, policy
        self._log_pi, self._mixed = params.logits.log_softmax(-1), mixed
        phi = problem.meta_params
        self._phi = MetaParams(*(x.expand(params.values.shape[:-1]) for x in phi))
        self._count = self._per_state(torch.ones_like(sample.read.reward))
        self._error = self._per_state(sample.read.advantage)

    @property
    def _scale(self) -> Tensor:
        """α / T."""
        return self._phi.inner_lr / self._sample.cell.shape[-1]

    def _per_state(self, weights: Tensor) -> Tensor:
        """(1/n) Σ over the trajectories' steps in each state."""
        place = flat(self._sample.place[..., :-1])
        return scattered(flat(weights), place, self._values) / self._sample.cell.shape[-2]

    @cached_property
    def _entropy_slope(self) -> Tensor:
        """∇H(π(·|s)) = −π (log π + H)."""
        pi = self._log_pi.exp()
        return -pi * (self._log_pi - (pi * self._log_pi).sum(-1, keepdim=True))

    @cached_property
    def _unscaled(self) -> Tensor:
        """U T / α."""
        entropy = self._phi.entropy_coef[..., None, None] * self._count.unsqueeze(-1) * self._entropy_slope
        critic = 2 * self._phi.value_coef[..., None] * self._error
        return joined(ActorCritic(self._policy.gradient + entropy, critic))

    @cached_property
    def gradient(self) -> Tensor:
        """U."""
        return self._scale[..., None, None] * self._unscaled

    def vjp(self, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        """((∂u/∂θ)ᵀ λ, (∂u/∂φ)ᵀ λ) as the estimator sees them."""
        found = [self._of_vector(vector) for vector in cotangent]
        of_params, of_phi = (torch.stack(parts) for parts in zip(*found, strict=True))
        return of_params, of_phi

    def _of_vector(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        of_logits, of_values = split(vector)
        score, critic = self._along(of_logits, of_values)
        through_policy = self._policy.vjp(of_logits.expand_as(self._log_pi).unsqueeze(0))[0][0]
        logits = through_policy + self._entropy_curvature(of_logits) + self._through_sampling(of_logits, score, critic)
        found = joined(ActorCritic(logits, self._through_values(score, critic)))
        return self._scale[..., None, None] * found, self._of_phi(vector, score, critic)

    def _along(self, of_logits: Tensor, of_values: Tensor) -> tuple[Tensor, Tensor]:
        """∇log π_tᵀ λ, and 2 c_v λ(s_t) of the values, at each step."""
        pi = self._log_pi.exp()
        centred = of_logits - (pi * of_logits).sum(-1, keepdim=True)
        score = look_up(centred.expand_as(pi).reshape(-1), self._sample.cell)
        weights = 2 * self._phi.value_coef[..., None] * of_values
        return score, look_up(weights.reshape(-1), self._sample.place[..., :-1])

    def _entropy_curvature(self, of_logits: Tensor) -> Tensor:
        """c_e Σ_t ∇²H λ."""
        pi = self._log_pi.exp()
        centred = of_logits - (pi * of_logits).sum(-1, keepdim=True)
        change = (self._entropy_slope * of_logits).sum(-1, keepdim=True)
        curvature = self._entropy_slope * centred - pi * (centred + change)
        return self._phi.entropy_coef[..., None, None] * self._count.unsqueeze(-1) * curvature

    def _of_phi(self, vector: Tensor, score: Tensor, critic: Tensor) -> Tensor:
        """(∂u/∂φ)ᵀ λ: γ and λ enter through the advantages, the others as factors."""
        advantage = self._mixed(score).advantage if callable(self._mixed) else None
        weights = critic if advantage is None else critic + advantage
        by = [(weights * x).sum(-1).mean(-1) for x in (self._sample.by_discount, self._sample.by_lambda)]
        of_logits, of_values = split(vector)
        by.append(2 * (self._error * of_values).sum(-1))
        by.append((self._count.unsqueeze(-1) * self._entropy_slope * of_logits).sum((-1, -2)))
        inside = [self._scale * x for x in by]
        alpha = (self._unscaled * vector).sum((-1, -2)) / self._sample.cell.shape[-1]
        return torch.stack([*inside, alpha], -1) * slopes(self._problem.phi)

    def _through_values(self, _score: Tensor, critic: Tensor) -> Tensor:
        """−2 c_v Σ_t λ(s_t) [s_t = s]: V(s_t) itself counts, as opposed to that in its target."""
        return -self._per_state(critic)

    def _through_sampling(self, _of_logits: Tensor, _score: Tensor, _critic: Tensor) -> Tensor | float:
        """What follows from where the batch came from; nothing here."""
        return 0.0


class CorrectedUpdate(SampledUpdate):
    """The update of a batch whose derivative takes account of every way in which it depends on θ, without bias.

    With d_t = (∇log π_t + 2 c_v ∇V(s_t))ᵀ λ, which A_t is multiplied with, and its trace e_t = d_t + γλ e_{t−1}, the
    score of the action at u gets all that follows, the part of earlier advantages that it decides, and the entropy:

        Σ_u ∇log π_u [Σ_{t≥u} A_t d_t + A_u (e_u − d_u) + c_e Σ_{t>u} ∇H(s_t)ᵀ λ],   ∂/∂V(s_t): γ e_{t−1} − e_t

    The policy's own term is AD's, which has none of these.
    """

    def _decay(self) -> Tensor:
        phi = self._phi
        return (phi.discount * phi.gae_lambda)[..., None, None]

    def _trace(self, along: Tensor) -> Tensor:
        """e_t = d_t + γλ e_{t−1}."""
        return returns_to_go(along.flip(-1), self._decay()).flip(-1)

    def _through_values(self, score: Tensor, critic: Tensor) -> Tensor:
        trace, sample = self._trace(score + critic), self._sample
        before = torch.nn.functional.pad(trace, (1, 0)) * self._phi.discount[..., None, None]
        weights = before - torch.nn.functional.pad(trace, (0, 1))
        return scattered(flat(weights), flat(sample.place), self._values) / sample.cell.shape[-2]

    def _through_sampling(self, of_logits: Tensor, score: Tensor, critic: Tensor) -> Tensor:
        sample, along = self._sample, score + critic
        slope = (self._entropy_slope * of_logits).sum(-1) * self._phi.entropy_coef[..., None]
        entropy = look_up(slope.reshape(-1), sample.place[..., :-1])
        advantage = sample.read.advantage
        weight = reverse_cumsum(advantage * along + entropy) - entropy + advantage * (self._trace(along) - along)
        table = scattered(flat(weight), flat(sample.cell), self._log_pi) / sample.cell.shape[-2]
        return table - self._log_pi.exp() * table.sum(-1, keepdim=True)
