"""A tabular MDP, and the discounting chain, as Gymnasium environments."""

from collections.abc import Sequence
from typing import Any, SupportsIndex

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gm_envs_tabular.chains import BONUS, DELAYS, chain_observations, chain_rewards
from gm_envs_tabular.checks import integer


class TabularEnv(gymnasium.Env[np.int64, np.int64]):
    """A Markov decision process given by its tables; an `MDP` unpacks into them: `TabularEnv(*mdp)`.

        s_{t+1} ~ p(· | s_t, a_t),   r_t = r(s_t, a_t),   truncated after T steps

    The state is the observation. Nothing terminates: an absorbing state is one that leads to itself. Gymnasium's seeded
    `np_random` is the only randomness, and one uniform number decides a step.

    Args:
        transition: p(s′ | s, a), array or CPU tensor of shape `[state, action, state]`, rows sum to one.
        reward: r(s, a), array or CPU tensor of shape `[state, action]`.
        start_state: the state after `reset()`.
        horizon: T, steps per episode.
        render_mode: None, the only one: there is nothing to show.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own type

    def __init__(
        self, transition: ArrayLike | Tensor, reward: ArrayLike | Tensor, start_state: SupportsIndex = 0,
        horizon: SupportsIndex = 20, render_mode: None = None,
    ) -> None:  # fmt: skip
        if render_mode is not None:
            raise ValueError(f"render_mode: expected None, the only one that there is, got {render_mode!r}")
        self._cdf = _row_cdf(_table(transition))
        self._reward = _table(reward).copy()
        states, actions, _ = self._cdf.shape
        if self._reward.shape != (states, actions) or not np.isfinite(self._reward).all():
            raise ValueError(
                f"reward: expected finite numbers of shape {(states, actions)} as the transitions have, "
                f"got shape {self._reward.shape}, {np.count_nonzero(~np.isfinite(self._reward))} not finite"
            )
        self.observation_space = Discrete(states)
        self.action_space = Discrete(actions)
        self.start_state = integer("state", start_state, 0, states - 1)
        self.horizon = integer("horizon", horizon)
        self._state = self.start_state
        self._time = self.horizon  # no episode runs before the first reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.int64, dict[str, Any]]:
        """Starts an episode, in state s instead of the start state with the options `{"state": s}`."""
        super().reset(seed=seed)
        chosen = dict(options or {})
        self._state = integer("state", chosen.pop("state", self.start_state), 0, self._cdf.shape[0] - 1)
        if chosen:
            raise ValueError(f"options: expected at most 'state', got {sorted(options or {})}")
        self._time = 0
        return np.int64(self._state), {}

    def step(self, action: SupportsIndex) -> tuple[np.int64, float, bool, bool, dict[str, Any]]:
        """Takes one action."""
        chosen = _running(self._time, self.horizon, action, self._cdf.shape[1])
        reward = float(self._reward[self._state, chosen])
        cdf = self._cdf[self._state, chosen]
        self._state = int(np.searchsorted(cdf, self.np_random.random(), side="right"))
        self._time += 1
        return np.int64(self._state), reward, False, self._time == self.horizon, {}


class DiscountingChainEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """The discounting chain as bsuite has it: the first action chooses a chain, whose reward comes when its time has.

        o_t = (chain, t / T), the chain −1 before it is chosen,   r_t = r_chain(t),   terminated after T steps

    Nothing is random. The chain's tables are `chains.discounting_chain`.

    Args:
        delays: steps until the reward of each chain; as many as there are actions.
        bonus: the chain that is worth 1.1 instead of 1, `mapping_seed` in bsuite.
        horizon: T, steps per episode.
        render_mode: None, the only one: there is nothing to show.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own type

    def __init__(
        self, delays: Sequence[int] = DELAYS, bonus: SupportsIndex = BONUS, horizon: SupportsIndex = 100,
        render_mode: None = None,
    ) -> None:  # fmt: skip
        if render_mode is not None:
            raise ValueError(f"render_mode: expected None, the only one that there is, got {render_mode!r}")
        self._reward = chain_rewards(delays=delays, bonus=bonus, horizon=horizon).numpy()
        chains, self.horizon = map(int, self._reward.shape)
        seen = chain_observations(chains, self.horizon).numpy().astype(np.float32)
        self._along = seen[1:-1].reshape(chains, self.horizon - 1, 2)
        self._start = seen[0]
        self.observation_space = Box(_pair(-1, 0), _pair(chains - 1, 1))
        self.action_space = Discrete(chains)
        self._chain, self._time = -1, self.horizon  # no episode runs before the first reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Starts an episode; there are no options."""
        super().reset(seed=seed)
        if options:
            raise ValueError(f"options: expected none, got {sorted(options)}")
        self._chain, self._time = -1, 0
        return self._start.copy(), {}

    def step(self, action: SupportsIndex) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Takes one action, of which only the first matters."""
        chosen = _running(self._time, self.horizon, action, len(self._reward))
        self._chain = chosen if self._time == 0 else self._chain
        reward = float(self._reward[self._chain, self._time])
        self._time += 1
        ended = self._time == self.horizon
        seen = _pair(self._chain, 1) if ended else self._along[self._chain, self._time - 1].copy()
        return seen, reward, ended, False, {}


def _pair(chain: float, time: float) -> NDArray[np.float32]:
    return np.array([chain, time], dtype=np.float32)


def _running(time: int, horizon: int, action: SupportsIndex, actions: int) -> int:
    """The action as an `int`; refused are steps of an episode that is over, and actions that there are not."""
    if time >= horizon:
        raise gymnasium.error.ResetNeeded("step: expected a running episode, got none; call reset() first")
    try:
        return integer("action", action, 0, actions - 1)
    except ValueError as error:
        raise gymnasium.error.InvalidAction(str(error)) from None


def _table(given: ArrayLike | Tensor) -> NDArray[np.float64]:
    return np.asarray(given.detach() if isinstance(given, Tensor) else given, dtype=np.float64)


def _row_cdf(transition: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cumulative rows that end in exactly one, so that a state of probability zero is never drawn."""
    if transition.ndim != 3 or transition.shape[0] != transition.shape[2] or 0 in transition.shape:
        raise ValueError(f"transition: expected shape [state, action, state], got {transition.shape}")
    sums = transition.sum(-1)
    if not (transition >= 0).all() or not np.allclose(sums, 1, rtol=0, atol=1e-5):
        raise ValueError(
            "transition: expected non-negative rows that sum to 1, got a smallest entry of "
            f"{transition.min():.3g} and row sums from {sums.min():.6g} to {sums.max():.6g}"
        )
    cdf = transition.cumsum(-1)
    return np.asarray(cdf / cdf[..., -1:])


gymnasium.register("gm_envs_tabular/Tabular-v0", entry_point="gm_envs_tabular.gym:TabularEnv")
gymnasium.register("gm_envs_tabular/DiscountingChain-v0", entry_point="gm_envs_tabular.gym:DiscountingChainEnv")
