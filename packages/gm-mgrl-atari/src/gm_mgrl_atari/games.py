"""Atari games in ALE's vector environment, preprocessed as in the paper, with true episode returns."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol, SupportsIndex, runtime_checkable

import ale_py
import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from numpy import ndarray

from gm_mgrl_atari.checks import EMULATOR_BYTES, integer, require_memory

PAPER_GAMES = ("Asteroids", "Qbert", "Tennis", "BeamRider", "Alien", "Assault", "DoubleDunk", "Seaquest")
MOST_NOOPS = 10_000


@dataclass(frozen=True)
class Step:
    """What n environments answer to one action each.

    Of Atari the reward is the sign of the game's, and a lost life terminates; a time limit truncates. `valid` is false
    where the environment was being reset, and the observation then of a new episode. Returns, undiscounted and
    unclipped, and lengths are those of the whole games that were found to have ended. Where a truncated episode's
    observation is the next one's first already, `final` has its own last, in the order of environments.
    """

    observation: Shaped[ndarray, "env *observation"]
    reward: Float[ndarray, "env"]
    terminated: Bool[ndarray, "env"]
    truncated: Bool[ndarray, "env"]
    valid: Bool[ndarray, "env"]
    returns: Float[ndarray, "ended"]
    lengths: Int[ndarray, "ended"]
    final: Shaped[ndarray, "truncated *observation"] | None = None


@runtime_checkable
class Games(Protocol):
    """n environments that step together.

    They may have more: `game`, their name; `seed`; `continuous`, true where actions are vectors; `distribution`, what
    actions are drawn from if the network doesn't say.
    """

    @property
    def envs(self) -> int:
        """How many."""

    @property
    def actions(self) -> int:
        """Number of actions, or of an action's dimensions."""

    def reset(self) -> Shaped[ndarray, "env *observation"]:
        """Starts every environment anew."""

    def send(self, action: Shaped[ndarray, "env *action"]) -> None:
        """Starts a step and returns at once."""

    def receive(self) -> Step:
        """Waits for the step."""


def rom_name(game: str) -> str:
    """ALE's name of a game: BeamRider, beam_rider, "Beam Rider" and ALE/BeamRider-v5 are all beam_rider.

    Of Gymnasium's names, also as old as BeamRiderNoFrameskip-v4, the game is taken alone; its preprocessing is always
    that of `AtariGames`. Raises `ValueError` for games that there aren't, and for those of more than one player, which
    ALE can't run: it would end the process.

    Examples:
        >>> from gm_mgrl_atari import rom_name
        >>> rom_name("BeamRiderNoFrameskip-v4")
        'beam_rider'
    """
    known = set(roms.get_all_rom_ids())
    named = re.fullmatch(r"(?:ALE/)?(.*?)(?:(?:NoFrameskip|Deterministic)?-v[0-9]+)?", str(game), re.IGNORECASE)
    asked = re.sub(r"[ _-]", "", named[1].lower()) if named else ""
    rom = {name.replace("_", ""): name for name in known}.get(asked)
    if rom is None:
        close = get_close_matches(asked, [name.replace("_", "") for name in sorted(known)], 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(
            f"expected {', '.join(PAPER_GAMES)} or another of ALE's {len(known)} games, got {game!r}{hint}"
        )
    try:
        path = roms.get_rom_path(rom)
    except OSError as error:
        raise ValueError(f"expected ALE's file of {game!r}, got {type(error).__name__}: {error}") from error
    if path is None or ale_py.ALEInterface.isSupportedROM(str(path)) is None:
        raise ValueError(f"expected a game for one player, such as {', '.join(PAPER_GAMES[:3])}, got {game!r}")
    return rom


def game_name(game: str) -> str:
    """The one way to write a game: beam_rider, BEAMRIDER and "Beam Rider" are all BeamRider, as in `PAPER_GAMES`.

    Examples:
        >>> from gm_mgrl_atari import game_name
        >>> game_name("beam rider")
        'BeamRider'
    """
    return "".join(word.capitalize() for word in rom_name(game).split("_"))


class AtariGames:
    """n environments of one game (paper, G.3; Mnih et al. 2015, "Human-Level Control …", Methods).

    Up to 30 no-ops and a fire at the start, each action repeated for 4 frames, maximum of the last two, 84 × 84 grey,
    4 frames stacked, no sticky actions. For learning an episode ends with a life and a reward is its sign; the game
    goes on until it is over, and its true return is reported then. Seeds count up from the first environment's, from 0
    to 2³¹ − 1, since ALE draws its own instead of one below 0; 0 threads are as many as there are cores.
    """

    def __init__(
        self, game: str, envs: SupportsIndex, seed: SupportsIndex, threads: SupportsIndex = 0,
        noops: SupportsIndex = 30,
    ) -> None:  # fmt: skip
        envs = integer("envs", envs)
        require_memory(envs, EMULATOR_BYTES)
        seed, threads = integer("seed", seed, 0, 2**31 - envs), integer("threads", threads, 0)
        noops = integer("noops", noops, 0, MOST_NOOPS)
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._env = AtariVectorEnv(
            rom_name(game),
            envs,
            num_threads=min(threads, envs),
            noop_max=noops,
            # life_loss_info: the game goes on after a lost life; episodic_life would begin a new one
            life_loss_info=True,
            # clipped here, so that true returns can be told
            reward_clipping=False,
            max_num_frames_per_episode=108_000,
        )
        self.game, self.seed = game_name(game), seed
        self.envs, self.actions = envs, len(self._env.ale.get_action_set())
        self._ended = np.zeros(envs, dtype=bool)
        self._frame = np.zeros(envs, dtype=np.int64)
        self._return = np.zeros(envs)
        self._length = np.zeros(envs, dtype=np.int64)

    def reset(self) -> UInt8[ndarray, "env frames side side"]:
        """Starts every game anew, with the seeds of the beginning."""
        observation: ndarray
        observation, info = self._env.reset(seed=self.seed)
        self._frame = info["episode_frame_number"].astype(np.int64)
        self._ended[:], self._return[:], self._length[:] = False, 0, 0
        return observation

    def send(self, action: Int[ndarray, "env"]) -> None:
        """Starts a step and returns at once."""
        self._env.send(action)

    def receive(self) -> Step:
        """Waits for the step."""
        observation, reward, terminated, truncated, info = self._env.recv()
        frame = info["episode_frame_number"].astype(np.int64)
        # ALE resets a game in the step after it is over and ignores that step's action. Lives don't tell: some games
        # have none, and after a lost life the game goes on with the action carried out.
        reset = self._ended & (frame < self._frame)
        returns, lengths = self._return[reset], self._length[reset]
        self._return[reset], self._length[reset] = 0, 0
        self._return += np.where(reset, 0, reward)
        self._length += ~reset
        self._frame, self._ended = frame, terminated | truncated
        return Step(
            observation, np.sign(reward).astype(np.float32) * ~reset, terminated & ~reset,
            truncated & ~terminated & ~reset, ~reset, returns, lengths,
        )  # fmt: skip
