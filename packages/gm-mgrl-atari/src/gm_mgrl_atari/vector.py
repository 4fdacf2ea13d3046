"""Any vector environment of Gymnasium as games: autoreset, time limits, observations and actions of most kinds."""

from collections.abc import Callable
from typing import Any, SupportsIndex

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, VectorEnv
from jaxtyping import Shaped
from numpy import ndarray

from gm_mgrl_atari.checks import integer
from gm_mgrl_atari.distributions import Categorical, Distribution, Normal
from gm_mgrl_atari.games import Step

MODES = ("NextStep", "SameStep", "Disabled")


class GymnasiumGames:
    """The environments of a `gymnasium.vector.VectorEnv`, such as `gymnasium.make_vec` makes.

    Rewards are learnt from as they are. In the step after an episode's end an environment with autoreset NextStep is
    reset and the step isn't `valid`; with SameStep, and with Disabled, where this class resets the environments that
    ended, every step is one, and `Step.final` has the last state of an episode that a time limit ended.

    Observations are those of a Box of any shape, floats as float32, other numbers as they are; of a Discrete or
    MultiDiscrete space ones and zeros ("one-hot"); of MultiBinary as they are. Actions are numbered from 0 for a
    Discrete space, whatever its start; for a Box they are vectors, which the environment gets clipped to its bounds.
    Seeds count up from the first environment's.

    Raises:
        ValueError: for an observation or action space of another kind, or an autoreset mode that isn't known.

    Examples:
        >>> import gymnasium
        >>> from gm_mgrl_atari import GymnasiumGames
        >>> games = GymnasiumGames(gymnasium.make_vec("CartPole-v1", num_envs=3), seed=0)
        >>> games.envs, games.actions, games.reset().shape
        (3, 2, (3, 4))
    """

    def __init__(self, environment: VectorEnv, seed: SupportsIndex = 0) -> None:
        if not isinstance(environment, VectorEnv):
            hint = ", as gymnasium.make_vec makes it" if isinstance(environment, gymnasium.Env) else ""
            raise ValueError(
                f"environments: expected a gymnasium.vector.VectorEnv{hint}, got {type(environment).__name__}"
            )
        self.envs = integer("envs", environment.num_envs)
        self.seed = integer("seed", seed, 0, 2**31 - self.envs)
        spec = environment.spec
        self.game = "" if spec is None else spec.id
        self._env, self._mode = environment, _autoreset(environment)
        self._observed = _observer(environment.single_observation_space)
        self.actions, self.continuous, self._played = _player(environment.single_action_space, self.envs)
        self.distribution: Distribution = Normal() if self.continuous else Categorical()
        self._ended = np.zeros(self.envs, dtype=bool)
        self._return = np.zeros(self.envs)
        self._length = np.zeros(self.envs, dtype=np.int64)
        self._action: ndarray | None = None
        # a wrapper of one steps as a whole
        self._asynchronous = environment if isinstance(environment, AsyncVectorEnv) else None

    @classmethod
    def make(cls, name: str, envs: SupportsIndex, seed: SupportsIndex = 0, **options: Any) -> "GymnasiumGames":
        """`gymnasium.make_vec` of a name; what that refuses is a `ValueError` of one line.

        Examples:
            >>> from gm_mgrl_atari import GymnasiumGames
            >>> GymnasiumGames.make("CartPole-v2", envs=4)
            Traceback (most recent call last):
            ...
            ValueError: environment: expected a name that Gymnasium knows, got 'CartPole-v2': ...
        """
        envs = integer("envs", envs)
        try:
            made = gymnasium.make_vec(name, num_envs=envs, **options)
        except (gymnasium.error.Error, ImportError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"environment: expected a name that Gymnasium knows, got {name!r}: {reason}") from error
        return cls(made, seed)

    def reset(self) -> Shaped[ndarray, "env *observation"]:
        """Starts every episode anew, with the seeds of the beginning."""
        observation, _ = self._env.reset(seed=self.seed)
        self._ended[:], self._return[:], self._length[:] = False, 0, 0
        return self._observed(observation)

    def send(self, action: Shaped[ndarray, "env *action"]) -> None:
        """Starts a step, in environments of other processes, and returns at once."""
        self._action = self._played(action)
        if self._asynchronous is not None:
            self._asynchronous.step_async(self._action)

    def receive(self) -> Step:
        """Waits for the step."""
        step = self._env.step(self._action) if self._asynchronous is None else self._asynchronous.step_wait()
        seen, reward, terminated, truncated, info = step
        observation = self._observed(seen)
        # copies, since an environment may write into its arrays again
        reward = np.array(reward, dtype=np.float32)
        terminated, truncated = np.array(terminated, dtype=bool), np.array(truncated, dtype=bool)
        if self._mode == "NextStep" and self._ended.any():
            valid = ~self._ended
            reward, terminated, truncated = reward * valid, terminated & valid, truncated & valid
        else:
            valid = np.ones(self.envs, dtype=bool)
        ended = terminated | truncated
        self._return += reward
        self._length += valid
        self._ended = ended
        if not ended.any():
            return Step(observation, reward, terminated, truncated, valid, _NONE, _NO_LENGTHS)
        truncated = truncated & ~terminated
        returns, lengths = self._return[ended], self._length[ended]
        self._return[ended], self._length[ended] = 0, 0
        observation, final = self._after(observation, ended, truncated, info)
        return Step(observation, reward, terminated, truncated, valid, returns, lengths, final)

    def _after(
        self, observation: ndarray, ended: ndarray, truncated: ndarray, info: dict[str, Any]
    ) -> tuple[ndarray, ndarray | None]:
        """The observation to go on from, and the last ones of truncated episodes if it doesn't have them."""
        if self._mode == "NextStep":
            return observation, None
        if self._mode == "Disabled":
            final = observation[truncated]
            fresh, _ = self._env.reset(options={"reset_mask": ended.copy()})
            return self._observed(fresh), final
        if not truncated.any():
            return observation, None
        if "final_obs" not in info:
            raise ValueError(
                "environments: expected the last observations of episodes as 'final_obs' in the step's information, "
                f"as autoreset SameStep has it, got {', '.join(map(repr, info)) or 'nothing'}"
            )
        last = [info["final_obs"][env] for env in np.flatnonzero(truncated)]
        return observation, self._observed(np.stack(last))


_NONE, _NO_LENGTHS = np.zeros(0), np.zeros(0, dtype=np.int64)


def _autoreset(environment: VectorEnv) -> str:
    """The environment's mode by name; those that don't say are as Gymnasium's first were."""
    mode = environment.metadata.get("autoreset_mode", "NextStep")
    name = str(getattr(mode, "value", mode))
    if name not in MODES:
        raise ValueError(f"environments: expected autoreset {', '.join(MODES[:2])} or {MODES[2]}, got {mode!r}")
    return name


def _observer(space: spaces.Space[Any]) -> Callable[[Any], ndarray]:
    """What makes arrays of its own of the environments' observations."""
    match space:
        case spaces.Box():
            kind = np.dtype(np.float32) if space.dtype.kind == "f" else space.dtype
            return lambda seen: np.array(seen, dtype=kind)
        case spaces.MultiBinary():
            return lambda seen: np.array(seen, dtype=np.int8)
        case spaces.Discrete():
            rows = np.eye(int(space.n), dtype=np.float32)
            return lambda seen: rows[np.asarray(seen) - space.start]
        case spaces.MultiDiscrete():
            return _one_hot(space)
    raise ValueError(
        f"environments: expected observations of a Box, Discrete, MultiDiscrete or MultiBinary space, got {space}; "
        "gymnasium.wrappers.FlattenObservation makes a Box of most"
    )


def _one_hot(space: spaces.MultiDiscrete) -> Callable[[Any], ndarray]:
    """Ones and zeros of several numbers, one after the other."""
    sizes, start = np.ravel(space.nvec), np.ravel(space.start)
    offset = np.concatenate([[0], np.cumsum(sizes)[:-1]]) - start

    def observed(seen: Any) -> ndarray:
        at = np.asarray(seen).reshape(len(seen), -1) + offset
        coded = np.zeros((len(at), int(sizes.sum())), dtype=np.float32)
        np.put_along_axis(coded, at, 1, axis=1)
        return coded

    return observed


def _player(space: spaces.Space[Any], envs: int) -> tuple[int, bool, Callable[[ndarray], ndarray]]:
    """How many actions or dimensions, whether they are continuous, and what makes the environments' actions of ours."""
    match space:
        case spaces.Discrete():
            start, kind = space.start, space.dtype
            return int(space.n), False, lambda action: (action + start).astype(kind, copy=False)
        case spaces.Box() if space.dtype.kind == "f":
            shape = (envs, *space.shape)
            return (
                int(np.prod(space.shape)),
                True,
                lambda action: np.clip(action.reshape(shape), space.low, space.high).astype(space.dtype, copy=False),
            )
    raise ValueError(f"environments: expected actions of a Discrete space or of a Box of floats, got {space}")
