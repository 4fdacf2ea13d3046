"""Vector environments of Gymnasium, in every autoreset mode, against a loop over plain environments."""

import math
from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch.testing import assert_close

from gm_estimators import load
from gm_mgrl_atari import (
    Batch,
    Collector,
    GymnasiumGames,
    NotFiniteError,
    advantages,
    fixed_coefficients,
    functional,
    terms,
)
from gm_mgrl_atari.rollouts import joined

F64 = torch.float64
MODES = list(AutoresetMode)
TWO = spaces.Discrete(2)
TOLD = fixed_coefficients(0.9, 0.8, 0.5, 0.01)


class Walk(gymnasium.Env):
    """Shows (place, step, episode); right or left by the action; ends at ±3, or is cut off after `limit` steps.

    Each episode begins elsewhere, so that its first state isn't that of another.
    """

    observation_space = spaces.Box(-100.0, 100.0, (3,), np.float64)
    action_space = spaces.Discrete(2, start=5)

    def __init__(self, number=0, limit=4):
        self.episode, self.number, self.limit = 10 * number, number, limit

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode += 1
        self.time, self.place = 0, self.episode % 3 - 1
        return self._seen(), {}

    def _seen(self):
        return np.array([self.place, self.time, self.episode], dtype=np.float64)

    def step(self, action):
        assert self.action_space.contains(action)
        self.time += 1
        self.place += 2 * (int(action) - 5) - 1
        ended, cut = abs(self.place) == 3, self.time == self.limit
        return self._seen(), self.place + 0.1 * self.time, ended, cut, {}


@dataclass(frozen=True)
class Scripted:
    """Actions that the network writes down, and a score in the place of log π; nothing is drawn."""

    def outputs(self, actions: int) -> int:
        return 2

    def sample(self, outputs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return outputs[..., 0].long()

    def log_prob(self, outputs: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return outputs[..., 1]

    def entropy(self, outputs: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(outputs[..., 0])


def act(seen):
    """Goes to and fro, and now and then far enough to end."""
    place, step, episode = seen
    return int(math.sin(1.3 * place + 0.7 * step + 2.1 * episode) > -0.2)


def score(seen):
    return math.cos(seen[0] + 0.5 * seen[1] + 0.3 * seen[2])


def critic(seen):
    return math.sin(0.4 * seen[0] - 0.2 * seen[1] + 0.1 * seen[2])


def written(params, observation, discount):
    rows = observation.double().tolist()
    outputs = torch.tensor([[act(row), score(row)] for row in rows], dtype=F64)
    value = torch.tensor([critic(row) for row in rows], dtype=F64)
    return params["one"] * outputs, params["one"] * value


NETWORK = functional(written, {"one": torch.ones((), dtype=F64)}, distribution=Scripted())


def vector(mode, envs=3, **options):
    return SyncVectorEnv([lambda i=i: Walk(i, 4 + i) for i in range(envs)], autoreset_mode=mode, **options)


def collector(mode, steps=7, **options):
    return Collector([GymnasiumGames(vector(mode, **options))], NETWORK, steps, torch.Generator())


class Plain:
    """One environment step by step: what is seen, what follows, and the advantages of a window."""

    def __init__(self, number, waits):
        self.env, self.waits = Walk(number, 4 + number), waits
        self.seen, _ = self.env.reset()
        self.over, self.total, self.length, self.ended = False, 0.0, 0, []

    def window(self, steps):
        slots = []
        for _ in range(steps):
            if self.over and self.waits:
                (self.seen, _), self.over = self.env.reset(), False
                slots.append(None)
                continue
            before, action = self.seen, act(self.seen)
            after, reward, terminated, truncated, _ = self.env.step(np.int64(5 + action))
            slots.append((before, action, reward, after, terminated, truncated and not terminated))
            self.total, self.length = self.total + reward, self.length + 1
            self.seen, self.over = after, terminated or truncated
            if self.over:
                self.ended.append((self.total, self.length))
                self.total, self.length = 0.0, 0
                if not self.waits:
                    self.seen, _ = self.env.reset()
        return slots


def plain_advantages(slots, gamma=0.9, lam=0.8):
    """By the definition: a sum over the rest of the episode or window."""
    found = []
    for t, slot in enumerate(slots):
        total, weight = 0.0, 1.0
        for step in slots[t:] if slot else ():
            before, _, reward, after, terminated, truncated = step
            following = 0.0 if terminated else gamma * critic(after)
            total += weight * (reward + following - critic(before))
            weight *= gamma * lam
            if terminated or truncated:
                break
        found.append(total)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_trajectories_and_advantages_are_those_of_a_plain_loop(mode):
    """Three windows, so that episodes go on from one to the next, and ends of both kinds are in them."""
    drawing = collector(mode)
    plain = [Plain(number, mode == AutoresetMode.NEXT_STEP) for number in range(3)]
    kinds = set()
    for _ in range(3):
        batch = drawing.collect(NETWORK.params)
        windows = [loop.window(7) for loop in plain]
        for env, slots in enumerate(windows):
            assert batch.valid[env].tolist() == [slot is not None for slot in slots]
            for t, slot in enumerate(slots):
                if slot is None:
                    assert not (batch.terminated | batch.truncated)[env, t]
                    continue
                before, action, reward, _, terminated, truncated = slot
                assert batch.observation[env, t].tolist() == before.tolist()
                assert batch.action[env, t] == action
                assert batch.reward[env, t].item() == pytest.approx(reward)
                assert (batch.terminated[env, t], batch.truncated[env, t]) == (terminated, truncated)
                kinds |= {terminated and "terminated", truncated and "truncated"}
        expected = torch.tensor([plain_advantages(slots) for slots in windows], dtype=F64)
        value = written(NETWORK.params, batch.observation.flatten(0, 1), None)[1].reshape(3, 8)
        final = None if batch.final is None else written(NETWORK.params, batch.final.observation, None)[1]
        found = advantages(batch, value, TOLD, final)
        assert_close(found[batch.valid], expected[batch.valid], rtol=0, atol=1e-6)
        # and as learning uses them
        scores = torch.tensor([[score(slot[0]) if slot else 0.0 for slot in slots] for slots in windows], dtype=F64)
        parts = terms(NETWORK, NETWORK.params, batch, TOLD, load("ad"))
        assert_close(parts.policy, (scores * expected).sum() / batch.valid.sum(), rtol=0, atol=1e-6)
        assert_close(parts.value, expected.square().sum() / batch.valid.sum(), rtol=0, atol=1e-5)
    assert kinds >= {"terminated", "truncated"}, "a test that meets no ends"
    returns, lengths = drawing.finished()
    ended = [pair for loop in plain for pair in loop.ended]
    assert sorted(lengths) == sorted(length for _, length in ended)
    assert sorted(returns) == pytest.approx(sorted(total for total, _ in ended), abs=1e-5)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_where_the_next_episode_is_shown_the_last_state_is_kept_apart(mode):
    batch = collector(mode).collect(NETWORK.params)
    assert batch.valid.all()
    at = list(zip(batch.final.env.tolist(), batch.final.time.tolist(), strict=True))
    assert sorted(map(list, at)) == batch.truncated.nonzero().tolist()
    for (env, t), last in zip(at, batch.final.observation, strict=True):
        before, after = batch.observation[env, t], batch.observation[env, t + 1]
        assert last[1:].tolist() == [before[1] + 1, before[2]]  # the next step of the same episode
        assert after[1:].tolist() == [0, before[2] + 1]


def test_the_last_states_of_several_groups_are_told_apart():
    """Two groups at once are what each of them is alone."""
    parts = [collector(AutoresetMode.SAME_STEP).collect(NETWORK.params) for _ in range(2)]
    one = joined(parts)
    count = len(parts[0].final.env)
    assert one.final.env.tolist() == [*parts[0].final.env.tolist(), *(parts[1].final.env + 3).tolist()]
    assert torch.equal(one.final.time, parts[0].final.time.repeat(2))
    assert len(one.final.observation) == 2 * count
    assert one.distribution == Scripted()
    ours, alone = (terms(NETWORK, NETWORK.params, batch, TOLD, load("ad")) for batch in (one, parts[0]))
    assert_close(ours, alone)


def test_a_derivative_by_the_discount_knows_the_last_state():
    """∂A/∂γ of a truncated step is V of its own last state, not of the next episode's first."""
    gamma = torch.tensor(0.9, dtype=F64, requires_grad=True)
    batch = collector(AutoresetMode.SAME_STEP).collect(NETWORK.params)
    value = written(NETWORK.params, batch.observation.flatten(0, 1), None)[1].reshape(3, 8)
    final = written(NETWORK.params, batch.final.observation, None)[1]
    env, time = batch.final.env[0], batch.final.time[0]
    found = advantages(batch, value, TOLD._replace(discount=gamma), final)[env, time]
    assert torch.autograd.grad(found, gamma)[0].item() == pytest.approx(final[0].item())


def test_environments_in_other_processes_are_the_same():
    games = [lambda i=i: Walk(i, 4 + i) for i in range(2)]
    batches = [
        Collector([GymnasiumGames(made)], NETWORK, 6, torch.Generator()).collect(NETWORK.params)
        for made in (SyncVectorEnv(games), AsyncVectorEnv(games))
    ]
    for name in ("observation", "action", "reward", "terminated", "truncated", "valid"):
        assert torch.equal(*(getattr(batch, name) for batch in batches))


def test_an_environment_that_writes_into_its_observations_changes_no_batch():
    """It hands out the same array in every step."""
    batches = []
    for shared in (False, True):
        made = shown(spaces.Box(0, 1, (3,)))
        held, step = np.zeros((2, 3), dtype=np.float32), made.step

        def stepping(action, shared=shared, held=held, step=step):
            seen, *rest = step(action)
            held[:] = seen
            return held if shared else seen, *rest

        made.step = stepping
        network = plain_network(seed=0)
        drawing = Collector([GymnasiumGames(made)], network, 4, torch.Generator().manual_seed(0))
        batches.append(drawing.collect(network.params))
    assert torch.equal(batches[0].observation, batches[1].observation)


class Shown(gymnasium.Env):
    """Has the spaces that it is given, and shows their samples."""

    def __init__(self, observation_space, action_space=TWO):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        self.played = action
        return self.observation_space.sample(), 0.0, False, False, {}


def shown(observation_space, action_space=TWO, envs=2):
    return SyncVectorEnv([lambda: Shown(observation_space, action_space)] * envs)


@pytest.mark.parametrize(
    ("space", "shape", "kind"),
    [
        (spaces.Box(0, 1, (2, 3, 4)), (2, 3, 4), np.float32),
        (spaces.Box(0, 1, (2,), np.float64), (2,), np.float32),
        (spaces.Box(0, 255, (4, 8, 8), np.uint8), (4, 8, 8), np.uint8),
        (spaces.Box(0, 1, (10, 10, 4), bool), (10, 10, 4), bool),
        (spaces.Box(-9, 9, (), np.int64), (), np.int64),
        (spaces.MultiBinary(5), (5,), np.int8),
        (spaces.Discrete(4, start=-2), (4,), np.float32),
        (spaces.MultiDiscrete([2, 3], start=[1, -1]), (5,), np.float32),
    ],
)
def test_observations(space, shape, kind):
    games = GymnasiumGames(shown(space))
    raw, _ = shown(space).reset(seed=0)
    seen = games.reset()
    assert (seen.shape, seen.dtype) == ((2, *shape), np.dtype(kind))
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        flat = np.stack([spaces.flatten(space, one) for one in raw])
        assert seen.tolist() == flat.tolist()
    else:
        assert_close(torch.from_numpy(seen), torch.from_numpy(raw.astype(kind)))
    games.send(np.array([0, 1]))
    assert games.receive().observation.shape == (2, *shape)


def test_continuous_actions_are_clipped_for_the_environment_alone():
    games = GymnasiumGames(shown(spaces.Box(0, 1, (1,)), spaces.Box(-2.0, 1.0, (1, 2))))
    assert (games.actions, games.continuous) == (2, True)
    games.reset()
    action = np.array([[0.5, 7.0], [-3.0, 0.0]], dtype=np.float64)
    games.send(action)
    games.receive()
    played = [env.unwrapped.played for env in games._env.envs]
    assert np.stack(played).tolist() == [[[0.5, 1.0]], [[-2.0, 0.0]]]
    assert played[0].dtype == np.float32
    assert action.tolist() == [[0.5, 7.0], [-3.0, 0.0]]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: shown(spaces.Dict(a=spaces.Discrete(2))), "environments: expected observations of a Box, Discrete, "),
        (
            lambda: shown(spaces.Box(0, 1, (1,)), spaces.MultiBinary(2)),
            r"environments: expected actions of a Discrete space or of a Box of floats, got MultiBinary\(2\)",
        ),
        (
            lambda: gymnasium.make("CartPole-v1"),
            "expected a gymnasium.vector.VectorEnv, as gymnasium.make_vec makes it, got TimeLimit",
        ),
    ],
)
def test_what_is_not_supported_is_refused_in_a_line(made, message):
    # as outside of tests, where no annotation is enforced
    with pytest.raises(ValueError, match=message) as caught:
        GymnasiumGames.__init__.__wrapped__(GymnasiumGames.__new__(GymnasiumGames), made())
    assert "\n" not in str(caught.value)


def test_another_autoreset_mode_is_refused():
    made = shown(spaces.Box(0, 1, (1,)))
    made.metadata = {"autoreset_mode": "Sometimes"}
    with pytest.raises(ValueError, match="expected autoreset NextStep, SameStep or Disabled, got 'Sometimes'"):
        GymnasiumGames(made)


def test_a_last_observation_that_is_missing_is_told():
    made = vector(AutoresetMode.SAME_STEP)
    step = made.step

    def without(action):
        *answer, _ = step(action)
        return (*answer, {})

    made.step = without
    with pytest.raises(ValueError, match="expected the last observations of episodes as 'final_obs'"):
        Collector([GymnasiumGames(made)], NETWORK, 7, torch.Generator()).collect(NETWORK.params)


@pytest.mark.parametrize("name", ["CartPole-v7", "NoSuchGame-v0", "no name at all", "nowhere:Thing-v0"])
def test_an_environment_that_there_is_not(name):
    with pytest.raises(ValueError, match="environment: expected a name that Gymnasium knows, got") as caught:
        GymnasiumGames.make(name, envs=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("what", ["reward", "observation"])
def test_nan_from_an_environment_is_told_as_such(what):
    made = shown(spaces.Box(0, 1, (3,)))
    step = made.step

    def spoilt(action):
        seen, reward, *rest = step(action)
        (seen if what == "observation" else reward)[1] = math.nan
        return seen, reward, *rest

    made.step = spoilt
    where = "a reward of environment 1" if what == "reward" else "an observation"
    network = plain_network()
    drawing = Collector([GymnasiumGames(made)], network, 3, torch.Generator())
    with pytest.raises(NotFiniteError, match=f"expected finite numbers, got NaN or infinity in {where}"):
        drawing.collect(network.params)


class Two(torch.nn.Module):
    """Three numbers to two logits and a value."""

    def __init__(self):
        super().__init__()
        self.both = torch.nn.Linear(3, 3)

    def forward(self, observation):
        both = self.both(observation)
        return both[..., :2], both[..., 2]


def plain_network(seed=0):
    torch.manual_seed(seed)
    return functional(Two())


def test_the_batch_of_a_plain_module():
    network = plain_network()
    batch = Collector([GymnasiumGames(shown(spaces.Box(0, 1, (3,))))], network, 4, torch.Generator()).collect(
        network.params
    )
    assert isinstance(batch, Batch)
    assert (batch.observation.shape, batch.action.shape) == ((2, 5, 3), (2, 4))
    assert batch.activations is None
    assert batch.final is None
