"""A MDP so small that a browser goes over every trajectory of it, for bias without noise."""

from typing import Any

TRANSITION = (((0.7, 0.3), (0.5, 0.5)), ((0.5, 0.5), (0.9, 0.1)))
"""P(next state | state, action), two states and two actions."""
REWARD = ((0.0, 1.0), (2.0, -1.0))
"""r(state, action)."""
PARAMS = ((0.0, -1.0), (0.0, -1.0))
"""φ = θ⁰, the logits of the first policy, by state and action."""
START, DISCOUNT, HORIZON = 0, 0.8, 3
RATES = tuple(round(0.1 * step, 1) for step in range(1, 31))
"""The values of α that the slider has."""
MOST = 3
"""At most so many trajectories are averaged for one inner gradient: all ways to draw them are gone over."""


def as_data() -> dict[str, Any]:
    """The MDP and the slider's values as the page has them."""
    return {
        "transition": TRANSITION, "reward": REWARD, "params": PARAMS, "start": START, "discount": DISCOUNT,
        "horizon": HORIZON, "rates": RATES, "most": MOST,
    }  # fmt: skip
