"""Iterated 2×2 matrix games: payoffs, two-player rollouts, replay, known strategies and a PettingZoo environment."""

from gm_envs_ipd.games import GAMES, MatrixGame, game, game_from_payoffs
from gm_envs_ipd.replay import Replayed, ReplayRing, log_policy, log_probs
from gm_envs_ipd.rollout import Draws, draws, rollout
from gm_envs_ipd.strategies import STRATEGIES, strategy_logits, strategy_values
from gm_envs_ipd.views import STATES, SWAP, actions, joint_view, other_view, states

__all__ = [
    "GAMES", "STATES", "STRATEGIES", "SWAP", "Draws", "MatrixGame", "ReplayRing", "Replayed", "actions", "draws",
    "game", "game_from_payoffs", "joint_view", "log_policy", "log_probs", "other_view", "rollout", "states",
    "strategy_logits", "strategy_values",
]  # fmt: skip
