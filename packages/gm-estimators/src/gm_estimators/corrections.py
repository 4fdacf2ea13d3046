"""Terms of a meta-gradient that are no derivative of the inner steps."""

from jaxtyping import Float
from torch import Tensor


def sampling_correction(
    log_prob: Float[Tensor, "*batch trajectory time"],
    outer_value: Float[Tensor, "*batch"],
    *,
    coefficient: float = 1.0,
    baseline: float | Tensor = 0.0,
) -> Float[Tensor, "*batch"]:
    """C ⊥(J_Out − b) Σ_n Σ_t (log π − ⊥log π), to be added to the outer objective: E-MAML's credit for exploration.

    With a batch τ of n trajectories that θ⁰ = φ drew, the expected objective after adaptation has the gradient

        ∇φ E_τ[J(θ¹(φ, τ))] = E_τ[∇φ θ¹(φ, τ) ∇J(θ¹)] + E_τ[J(θ¹) Σ_n Σ_t ∇φ log π]

    whose second term is this one at c = 1 (Stadie et al. 2018, "Some considerations on learning to explore via
    meta-reinforcement learning"; Al-Shedivat et al. 2018, "Continuous adaptation via meta-learning"). It is unbiased
    with the derivative of the step that was taken, that of `ad`: correcting the Hessian as well, as DiCE does, counts
    twice. c trades the bias of c = 0 against a variance that grows with n (Vuorio et al. 2021; arXiv 2209.11303). What
    is estimated is the gain of adapting with n trajectories, not the limit of many that the exact meta-gradient is.

    Args:
        log_prob: of the inner trajectories under the parameters that drew them, differentiable in φ; for K steps, add
            one such term for each.
        outer_value: J_Out(θᴷ), exact or estimated.
        coefficient: c.
        baseline: b, independent of these trajectories.

    Returns:
        Zero, with the term's derivative.
    """
    score = (log_prob - log_prob.detach()).sum((-2, -1))
    return coefficient * (outer_value.detach() - baseline) * score
