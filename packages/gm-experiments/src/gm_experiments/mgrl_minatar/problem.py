"""MinAtar's games as vector environments of Gymnasium, and the network that plays them."""

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

import gm_mgrl_atari as mgrl
from gm_experiments.mgrl_minatar.settings import GAMES

ENTRY_POINT = "minatar.gym:BaseEnv"
"""What `minatar.gym.register_envs` registers; Gymnasium imports it."""
SIDE, FILTERS, HIDDEN = 10, ((16, 3, 1),), 128


def environments(game: str, envs: int, seed: int) -> mgrl.GymnasiumGames:
    """Environments of a game with the actions that do something in it, and MinAtar's own sticky actions.

    An episode's end and the next one's beginning are one step, so that none is lost.
    """
    options = {"game": GAMES[game], "use_minimal_action_set": True}
    # neither check nor order is looked after at every step: the environments are few and known
    spec = EnvSpec(
        f"MinAtar/{game}-v1", entry_point=ENTRY_POINT, kwargs=options, disable_env_checker=True, order_enforce=False
    )
    at_once = {"copy": False, "autoreset_mode": AutoresetMode.SAME_STEP}
    made = gymnasium.make_vec(spec, num_envs=envs, vectorization_mode="sync", vector_kwargs=at_once)
    return mgrl.GymnasiumGames(made, seed)


def network(games: mgrl.GymnasiumGames, *, conditioned: bool) -> mgrl.Network:
    """One convolution of 16 filters and 128 units (Young and Tian 2019), and Atari's critic that is told γ."""
    return mgrl.Network(
        games.actions, frames=games.reset().shape[-1], size=SIDE, layers=FILTERS, hidden=HIDDEN, scale=1.0,
        frames_last=True, conditioned=conditioned,
    )  # fmt: skip
