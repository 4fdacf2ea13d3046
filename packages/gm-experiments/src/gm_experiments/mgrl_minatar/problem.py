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
    """Environments of a game, as the trainer takes them."""
    return mgrl.GymnasiumGames(vector(game, envs), seed)


def vector(game: str, envs: int) -> gymnasium.vector.VectorEnv:
    """They step together; an episode's end and the next one's beginning are one step, so that none is lost."""
    at_once = {"copy": False, "autoreset_mode": AutoresetMode.SAME_STEP}
    return gymnasium.make_vec(spec_of(game), num_envs=envs, vectorization_mode="sync", vector_kwargs=at_once)


def single(game: str) -> gymnasium.Env:
    """One environment of a game."""
    return gymnasium.make(spec_of(game))


def spec_of(game: str) -> EnvSpec:
    """A game with the actions that do something in it, and MinAtar's own sticky actions.

    Neither form nor order of calls is checked at every step: the environments are few and known.
    """
    options = {"game": GAMES[game], "use_minimal_action_set": True}
    name = f"MinAtar/{game}-v1"
    return EnvSpec(name, entry_point=ENTRY_POINT, kwargs=options, disable_env_checker=True, order_enforce=False)


def network(games: mgrl.GymnasiumGames, *, conditioned: bool) -> mgrl.Network:
    """One convolution of 16 filters and 128 units (Young and Tian 2019), and Atari's critic that is told γ."""
    return mgrl.Network(
        games.actions, frames=games.reset().shape[-1], size=SIDE, layers=FILTERS, hidden=HIDDEN, scale=1.0,
        frames_last=True, conditioned=conditioned,
    )  # fmt: skip
