"""Terms of a meta-gradient that are no derivative of the inner steps."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gm_estimators.estimator import Estimator
from gm_estimators.surrogates import LogProbDerivatives, Trajectories, discounted_return

__all__ = ["credit", "sampling_correction"]


def sampling_correction(
    log_prob: Float[Tensor, "*batch trajectory time"],
    outer_value: Float[Tensor, "*batch"],
    *,
    coefficient: float = 1.0,
    baseline: float | Tensor = 0.0,
) -> Float[Tensor, "*batch"]:
    """E-MAML credits exploration by a term of the outer objective: c ⊥(J_Out − b) Σ_n Σ_t (log π − ⊥log π).

    With a batch τ of n trajectories that θ⁰ = φ drew, the expected objective after adaptation has the gradient

        ∇φ E_τ[J(θ¹(φ, τ))] = E_τ[∇φ θ¹(φ, τ) ∇J(θ¹)] + E_τ[J(θ¹) Σ_n Σ_t ∇φ log π]

    whose second term is this one at c = 1 (Stadie et al. 2018, "Some considerations on learning to explore via
    meta-reinforcement learning"; Al-Shedivat et al. 2018, "Continuous adaptation via meta-learning …"). It is unbiased
    with the derivative of the step that was taken, that of `ad`: correcting the Hessian as well, as DiCE does, counts
    twice. c trades the bias of c = 0 against a variance that grows with n (Vuorio et al. 2021, "No DICE: An
    investigation of the bias-variance tradeoff in meta-gradients"; paper, Appendix B). What is estimated is the gain of
    adapting with n trajectories, not the limit of many that the exact meta-gradient is. For `decompose` it is
    had by name, `ad+correction`.

    Args:
        log_prob: of the inner trajectories under the parameters that drew them, differentiable in φ; for K steps, add
            one such term for each.
        outer_value: J_Out(θᴷ), exact or estimated.
        coefficient: c.
        baseline: b, independent of these trajectories.

    Examples:
        >>> import torch
        >>> from gm_estimators.corrections import sampling_correction
        >>> log_prob = torch.tensor([[-0.5, -1.0]], requires_grad=True)
        >>> correction = sampling_correction(log_prob, torch.tensor(3.0))
        >>> correction.item(), torch.autograd.grad(correction.sum(), log_prob)[0].tolist()
        (0.0, [[3.0, 3.0]])
    """
    score = (log_prob - log_prob.detach()).sum((-2, -1))
    return coefficient * (outer_value.detach() - baseline) * score


def credit(estimator: Estimator, outer_value: Float[Tensor, "*batch"]) -> Estimator:
    """The sampling correction, c = `estimator.correction`, is an estimator, too, which reads an inner step's batch.

        f_j = c n (J_Out − b_j) Σ_t log π_t,   b_j = Σ_{i≠j} R_i / (n − 1),   R = Σ_t γᵗ r_t + γᵀ V(s_T)

    Without its own return a trajectory's baseline is independent of its actions; one trajectory alone has none.

    Examples:
        >>> import torch
        >>> from gm_estimators import load
        >>> from gm_estimators.corrections import credit
        >>> credit(load("ad+correction@0.1"), torch.tensor(3.0)).name
        'ad+correction@0.1'
    """

    def weight(trajectories: Trajectories) -> Float[Tensor, "*batch trajectory"]:
        returns = discounted_return(trajectories)
        size = returns.shape[-1]
        baseline = (returns.sum(-1, keepdim=True) - returns) / max(size - 1, 1)
        return estimator.correction * size * (outer_value.unsqueeze(-1) - baseline)

    def derivatives(trajectories: Trajectories) -> LogProbDerivatives:
        first = weight(trajectories).unsqueeze(-1).expand_as(trajectories.log_prob)
        return LogProbDerivatives(first, torch.zeros_like(first))

    return replace(
        estimator,
        surrogate=lambda trajectories: weight(trajectories) * trajectories.log_prob.sum(-1),
        gradient_family=f"credit {estimator.gradient_family}",
        closed_form=derivatives,
    )
