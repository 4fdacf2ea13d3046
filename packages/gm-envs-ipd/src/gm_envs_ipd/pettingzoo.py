"""The iterated game as a PettingZoo environment; needs the extra `gm-envs-ipd[pettingzoo]`."""

from typing import Any, SupportsIndex

import numpy as np
from gymnasium.spaces import Discrete
from pettingzoo import ParallelEnv

from gm_envs_ipd.checks import integer
from gm_envs_ipd.games import GAMES, MatrixGame
from gm_envs_ipd.views import START, STATES, SWAP


class IteratedGameEnv(ParallelEnv):  # type: ignore[misc]
    """Two agents play a 2×2 game for a number of rounds; each observes its state, numbered as in `views.STATES`.

    After `horizon` rounds both agents are truncated. There is nothing to show: the one render mode is None.
    """

    metadata = {"name": "iterated_matrix_game_v0", "render_modes": []}  # noqa: RUF012 - PettingZoo's own type
    render_mode = None

    def __init__(self, game: MatrixGame = GAMES["ipd"], horizon: SupportsIndex = 100, render_mode: None = None) -> None:
        if not isinstance(game, MatrixGame):
            raise ValueError(f"game: expected a MatrixGame, such as GAMES['ipd'], got {game!r}")
        if render_mode is not None:
            raise ValueError(f"render_mode: expected None, the only one that there is, got {render_mode!r}")
        self.game, self.horizon = game, integer("horizon", horizon)
        self.possible_agents = ["player_1", "player_2"]
        self.agents: list[str] = []
        self._spaces = {agent: (Discrete(len(STATES)), Discrete(2)) for agent in self.possible_agents}
        self._round = 0

    def observation_space(self, agent: str) -> Discrete:
        """The five states."""
        return self._spaces[agent][0]

    def action_space(self, agent: str) -> Discrete:
        """The two actions."""
        return self._spaces[agent][1]

    def reset(
        self,
        seed: int | None = None,  # noqa: ARG002 - PettingZoo's signature
        options: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> tuple[dict[str, Any], ...]:
        """Starts an episode; the game itself has no randomness, so that seed and options change nothing."""
        self.agents = list(self.possible_agents)
        self._round = 0
        return self._observations(START), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        """Plays a round, with the action 0 or 1 of each agent."""
        if not self.agents:
            return {}, {}, {}, {}, {}
        own, other = (integer(f"action of {agent}", actions.get(agent), 0, 1) for agent in self.possible_agents)
        self._round += 1
        over = self._round == self.horizon
        agents = list(self.agents)
        if over:
            self.agents = []
        return (
            self._observations(1 + 2 * own + other),
            {agent: table[own][other] for agent, table in zip(agents, self.game.payoffs, strict=True)},
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {agent: {} for agent in agents},
        )

    def _observations(self, state: int) -> dict[str, np.int64]:
        return {agent: np.int64(view) for agent, view in zip(self.possible_agents, (state, SWAP[state]), strict=True)}
