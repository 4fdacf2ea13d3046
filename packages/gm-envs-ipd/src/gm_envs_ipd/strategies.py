"""Known memory-one strategies and the values of any two of them against each other, in closed form."""

import math
from typing import Literal, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from gm_envs_ipd.checks import integer
from gm_envs_ipd.games import MatrixGame
from gm_envs_ipd.views import START, SWAP

Strategy = Literal["ALLC", "ALLD", "TFT", "WSLS"]

_COOPERATES: dict[Strategy, tuple[bool, bool, bool, bool, bool]] = {
    # at the start, then after (own, other) = CC, CD, DC, DD
    "ALLC": (True, True, True, True, True),
    "ALLD": (False, False, False, False, False),
    "TFT": (True, True, False, True, False),
    "WSLS": (True, True, False, False, True),
}

STRATEGIES: tuple[Strategy, ...] = tuple(_COOPERATES)
"""Always cooperate, always defect, tit for tat, win-stay lose-shift."""


def _choices(strategy: Strategy, cooperative: int) -> list[int]:
    """The action in each of a player's states."""
    if strategy not in _COOPERATES:
        raise ValueError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {strategy!r}")
    start, *after = _COOPERATES[strategy]
    # state 1 + 2·own + other: whether each of the two cooperated is (action == cooperative)
    cooperates = [start] + [
        after[2 * (own != cooperative) + (other != cooperative)] for own in (0, 1) for other in (0, 1)
    ]
    return [cooperative if yes else 1 - cooperative for yes in cooperates]


def strategy_logits(
    strategy: Strategy, game: MatrixGame, sharpness: float = math.inf, dtype: torch.dtype = torch.float64
) -> Float[Tensor, "5"]:
    """θ = ±sharpness, the log-odds of action 0 in each of the player's states; infinite for the strategy itself.

    The game decides which action cooperates.

    Examples:
        >>> from gm_envs_ipd import game, strategy_logits
        >>> strategy_logits("TFT", game("ipd"), sharpness=4.0).tolist()
        [-4.0, 4.0, -4.0, 4.0, -4.0]
    """
    if not sharpness >= 0:  # NaN, too
        raise ValueError(f"sharpness: expected a number of at least 0, got {sharpness}")
    return torch.tensor(
        [sharpness if a == 0 else -sharpness for a in _choices(strategy, game.cooperative)], dtype=dtype
    )


def path(game: MatrixGame, first: Strategy, second: Strategy) -> tuple[list[int], list[int]]:
    """The joint outcomes 2·a¹ + a² of two strategies: those before the cycle, and the cycle."""
    mine, theirs = _choices(first, game.cooperative), _choices(second, game.cooperative)
    outcomes: list[int] = []
    state = START
    while True:
        outcome = 2 * mine[state] + theirs[SWAP[state]]
        if outcome in outcomes:
            start = outcomes.index(outcome)
            return outcomes[:start], outcomes[start:]
        outcomes.append(outcome)
        state = 1 + outcome


def strategy_values(
    game: MatrixGame, first: Strategy, second: Strategy, *, discount: float, horizon: SupportsIndex | None = None
) -> tuple[float, float]:
    """The discounted values of two strategies against each other: a path of k rounds, then a cycle of p for ever.

        V = Σ_{t<k} γᵗ r_t + γᵏ (Σ_{j<p} γʲ r_{k+j}) / (1 − γᵖ);   to the horizon T: V_T = V − γᵀ V(from T on)

    Without a horizon T the game goes on for ever, with γ below one.

    Examples:
        >>> from gm_envs_ipd import game, strategy_values
        >>> strategy_values(game("ipd"), "TFT", "ALLD", discount=0.5)
        (-5.0, -2.0)
    """
    rounds = None if horizon is None else integer("horizon", horizon)
    if not 0 <= discount <= 1 or (rounds is None and discount == 1):
        raise ValueError(f"discount: expected 0 ≤ γ ≤ 1, and γ < 1 for the infinite horizon, got {discount}")
    before, cycle = path(game, first, second)
    value_1, value_2 = (_path_value(before, cycle, sum(table, ()), discount, rounds) for table in game.payoffs)
    if not math.isfinite(value_1) or not math.isfinite(value_2):
        raise ValueError(f"payoffs: expected numbers whose values are finite, got {game.payoffs}")
    return value_1, value_2


def _path_value(
    before: list[int], cycle: list[int], reward: tuple[float, ...], discount: float, horizon: int | None
) -> float:
    if horizon is not None:
        before, rest = before[:horizon], max(0, horizon - len(before))
        rounds, partial = divmod(rest, len(cycle))
        repeats = float(rounds) if discount == 1 else _lost(discount, len(cycle) * rounds) / _lost(discount, len(cycle))
        tail = discount ** (len(cycle) * rounds) * _discounted(cycle[:partial], reward, discount)
    else:
        repeats, tail = 1 / _lost(discount, len(cycle)), 0.0
    after = _discounted(cycle, reward, discount) * repeats + tail
    return _discounted(before, reward, discount) + discount ** len(before) * after


def _lost(discount: float, rounds: int) -> float:
    """1 − γⁿ without cancellation where γ is close to 1."""
    return -math.expm1(rounds * math.log(discount)) if discount else float(rounds > 0)


def _discounted(outcomes: list[int], reward: tuple[float, ...], discount: float) -> float:
    return sum((discount**t * reward[outcome] for t, outcome in enumerate(outcomes)), 0.0)
