"""Discounted sums, λ-returns and advantages along the last axis, differentiable in rewards, values, γ and λ.

`discount` is γ, or γ_t with a zero where an episode ends after step t. The results are stored time first, their other
axes as those of the rewards. What is no tensor of floating-point numbers is a TypeError, what does not fit a
ValueError.
"""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["discounts", "gae", "gae_adjoint", "lambda_returns", "returns_to_go", "reverse_cumsum"]


def discounts(discount: float | Tensor, horizon: int) -> Float[Tensor, "*batch time"]:
    """The powers γᵗ, t = 0 … T−1, are float64 unless γ is a tensor of another type.

    Examples:
        >>> from gm_estimators.returns import discounts
        >>> discounts(0.5, 4).tolist()
        [1.0, 0.5, 0.25, 0.125]
    """
    if horizon < 0:
        raise ValueError(f"horizon: expected at least 0, got {horizon}")
    steps = torch.arange(horizon, dtype=torch.float64)
    if isinstance(discount, Tensor):
        return discount[..., None] ** steps.to(discount)
    return torch.tensor(discount, dtype=torch.float64) ** steps


def reverse_cumsum(x: Float[Tensor, "*batch time"]) -> Float[Tensor, "*batch time"]:
    """The sum runs from each step to the end: y_t = Σ_{u ≥ t} x_u.

    Examples:
        >>> import torch
        >>> from gm_estimators.returns import reverse_cumsum
        >>> reverse_cumsum(torch.tensor([1.0, 2.0, 3.0]))
        tensor([6., 5., 3.])
    """
    return x.flip(-1).cumsum(-1).flip(-1)


def _backward_recursion(
    x: Float[Tensor, "*batch time"], decay: float | Tensor, last: float | Tensor = 0.0
) -> Float[Tensor, "*batch time"]:
    """y_t = x_t + decay_t y_{t+1} with y_T = last."""
    _require_steps("reward", x)
    if x.shape[-1] == 0:
        return x
    order = sorted(range(x.ndim - 1), key=x.stride, reverse=True)  # as in memory, so that nothing is copied later

    def steps(z: Tensor) -> tuple[Tensor, ...]:
        return _spread("discount", z, x.shape).permute(-1, *order).unbind(0)

    decays = steps(decay) if isinstance(decay, Tensor) else None
    xs = steps(x)
    if isinstance(last, Tensor):
        y = _spread("last_value", last, x.shape[:-1]).permute(order)
    else:
        y = torch.full_like(xs[-1], last)
    reversed_ys = []
    for t, x_t in reversed(list(enumerate(xs))):
        y = _plus_scaled(x_t, y, decay if decays is None else decays[t])
        reversed_ys.append(y)
    return torch.stack(reversed_ys[::-1]).permute(*(order.index(axis) + 1 for axis in range(x.ndim - 1)), 0)


def _require_steps(name: str, x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        came = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"{name}: expected a tensor of floating-point numbers, got {came}")
    if x.ndim == 0:
        raise ValueError(f"{name}: expected an axis of time, the last one, got a number")


def _spread(name: str, x: Tensor, shape: torch.Size) -> Tensor:
    try:
        return x.expand(shape)
    except RuntimeError:
        raise ValueError(f"{name}: expected a shape that broadcasts to {tuple(shape)}, got {tuple(x.shape)}") from None


def _plus_scaled(x: Tensor, y: Tensor, scale: float | Tensor) -> Tensor:
    """One pass where the scale is a number."""
    return x + scale * y if isinstance(scale, Tensor) else torch.add(x, y, alpha=scale)


def returns_to_go(
    reward: Float[Tensor, "*batch time"], discount: float | Tensor, last_value: Float[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch time"]:
    """The return that follows step t is G_t = r_t + γ_t G_{t+1}, with G_T = V(s_T), or 0 without one.

    Examples:
        >>> import torch
        >>> from gm_estimators.returns import returns_to_go
        >>> returns_to_go(torch.tensor([1.0, 1.0, 1.0]), discount=0.5)
        tensor([1.7500, 1.5000, 1.0000])
    """
    return _backward_recursion(reward, discount, 0.0 if last_value is None else last_value)


def gae(
    reward: Float[Tensor, "*batch time"],
    value: Float[Tensor, "*batch time_plus_1"],
    discount: float | Tensor,
    gae_lambda: float | Tensor = 1.0,
) -> Float[Tensor, "*batch time"]:
    """Generalised advantage estimation discounts temporal differences (Schulman et al. 2016, "High-Dimensional …").

        A_t = δ_t + γ_t λ A_{t+1},   δ_t = r_t + γ_t V(s_{t+1}) − V(s_t),   A_T = 0

    λ = 1 is the n-step return to the horizon, bootstrapped with V(s_T), minus V(s_t).

    Raises:
        ValueError: if there is not one more value than rewards.

    Examples:
        >>> import torch
        >>> from gm_estimators.returns import gae
        >>> gae(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0, 4.0]), discount=0.5, gae_lambda=0.5)
        tensor([2.2500, 1.0000])
    """
    _require_steps("reward", reward)
    _require_steps("value", value)
    if value.shape[-1] != reward.shape[-1] + 1:
        raise ValueError(
            f"value: expected {reward.shape[-1] + 1} time steps, one more than reward, got {value.shape[-1]}"
        )
    delta = _plus_scaled(reward, value[..., 1:], discount) - value[..., :-1]
    return _backward_recursion(delta, discount * gae_lambda)


def gae_adjoint(
    cotangent: Float[Tensor, "*batch time"], discount: float, gae_lambda: float
) -> tuple[Float[Tensor, "*batch time"], Float[Tensor, "*batch time_plus_1"]]:
    """The advantages of `gae` have the derivatives ∂ Σ_t c_t A_t / ∂(rewards, values).

        e_t = c_t + γ λ e_{t−1},   ∂/∂r_t = e_t,   ∂/∂V(s_t) = γ e_{t−1} − e_t,   e_{−1} = e_T = 0

    e is an eligibility trace.

    Examples:
        >>> import torch
        >>> from gm_estimators.returns import gae_adjoint
        >>> of_rewards, of_values = gae_adjoint(torch.tensor([1.0, 0.0]), discount=0.5, gae_lambda=0.5)
        >>> of_rewards, of_values
        (tensor([1.0000, 0.2500]), tensor([-1.0000,  0.2500,  0.1250]))
    """
    trace = _backward_recursion(cotangent.flip(-1), discount * gae_lambda).flip(-1)
    zero = trace.new_zeros(*trace.shape[:-1], 1)
    return trace, discount * torch.cat([zero, trace], dim=-1) - torch.cat([trace, zero], dim=-1)


def lambda_returns(
    reward: Float[Tensor, "*batch time"],
    value: Float[Tensor, "*batch time_plus_1"],
    discount: float | Tensor,
    gae_lambda: float | Tensor = 1.0,
) -> Float[Tensor, "*batch time"]:
    """The λ-return is G^λ_t = A_t + V(s_t) with the advantages of `gae`, whose arguments and errors it has.

    Examples:
        >>> import torch
        >>> from gm_estimators.returns import lambda_returns
        >>> lambda_returns(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0, 4.0]), discount=0.5, gae_lambda=0.0)
        tensor([2., 3.])
    """
    return gae(reward, value, discount, gae_lambda) + value[..., :-1]
