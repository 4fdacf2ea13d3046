"""Tabular problems whose trajectories are given, for tests that go through every batch of a tiny MDP."""

from collections.abc import Callable
from types import SimpleNamespace

from torch import Tensor

from gm_exact import TabularMDP
from gm_experiments.common.problem import TabularProblem
from gm_experiments.lirpg.problem import LirpgProblem


def given_problem(
    mdp: TabularMDP,
    params: Tensor,
    rollout: Callable[..., tuple[Tensor, Tensor]],
    *,
    critic: Callable[[str, int, Tensor], Tensor] | None = None,
    intrinsic_reward: Tensor | None = None,
    **settings: object,
) -> TabularProblem:
    """MAML, or LIRPG if there is a φ, with those trajectories.

    Args:
        mdp: the MDP.
        params: θ⁰.
        rollout: (role, step, policy, rows) ↦ states and actions.
        critic: (role, step, exact V) ↦ V; zero if not given.
        intrinsic_reward: φ.
        settings: of the problem.
    """

    def critic_error(role: str, step: int, value: Tensor) -> Tensor:
        return -value if critic is None else critic(role, step, value) - value

    numbers = SimpleNamespace(rollout=rollout, critic_error=critic_error)
    if intrinsic_reward is None:
        return TabularProblem(mdp, params, numbers, **settings)
    return LirpgProblem(mdp, params, numbers, intrinsic_reward, **settings)
