"""Any network in any vector environment: what a trainer takes, refuses, writes and goes on from."""

import csv
import dataclasses
import gc
import weakref

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from gm_mgrl_atari import (
    ActorCritic,
    Categorical,
    CheckpointError,
    GymnasiumGames,
    Network,
    Normal,
    Trainer,
    Training,
    functional,
)
from gm_mgrl_atari.actor_critic import described

SMALL = Training(algorithm="mgrl-lvc", schedule="online", inner_steps=2, envs=3, steps=4, updates=8)


class Policy(torch.nn.Module):
    """A hidden layer, a policy's outputs and a value."""

    def __init__(self, inputs=4, outputs=2, hidden=8):
        super().__init__()
        self.hidden = torch.nn.Linear(inputs, hidden)
        self.actor, self.critic = torch.nn.Linear(hidden, outputs), torch.nn.Linear(hidden, 1)

    def forward(self, observation):
        features = self.hidden(observation).tanh()
        return self.actor(features), self.critic(features)


def module(**sizes):
    torch.manual_seed(0)
    return Policy(**sizes)


def cart_poles(envs=3, **options):
    return gymnasium.make_vec("CartPole-v1", num_envs=envs, **options)


def pendulums(envs=3):
    return gymnasium.make_vec("Pendulum-v1", num_envs=envs)


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first | second)


@pytest.mark.parametrize("algorithm", ["a2c", "mgrl", "mgrl-lvc"])
@pytest.mark.parametrize(("made", "sizes"), [(cart_poles, {}), (pendulums, {"inputs": 3})])
def test_a_plain_module_trains(algorithm, made, sizes):
    training, network = dataclasses.replace(SMALL, algorithm=algorithm), module(**sizes)
    trainer = Trainer(training, made(), network=network)
    rows = trainer.run(log_every=8)
    assert rows[-1]["env_steps"] == 3 * 4 * 8
    moved = trainer.progress.point.params
    assert all(not torch.equal(moved[name], value) for name, value in network.named_parameters())
    assert (rows[-1]["gamma"] == pytest.approx(0.99005, abs=1e-5)) == (algorithm == "a2c")


def test_returns_and_lengths_in_the_log_are_those_of_whole_episodes():
    """In CartPole every step pays 1, also with two groups; an episode of an untrained policy is short."""
    training = dataclasses.replace(SMALL, envs=5, steps=32)
    rows = Trainer(training, [cart_poles(2), cart_poles(3)], network=module()).run(log_every=4)
    assert rows[-1]["episodes"] > 10
    assert all(row["episode_return"] == row["episode_length"] for row in rows)
    assert 8 < rows[-1]["episode_return"] < 60


def test_the_groups_play_other_episodes_than_each_other():
    def sync(envs):
        return cart_poles(envs, vectorization_mode="sync")

    trainer = Trainer(dataclasses.replace(SMALL, envs=4), [sync(2), sync(2)], network=module(), seed=5)
    first, second = trainer._collector.observation
    assert not torch.equal(first, second)
    alone = GymnasiumGames(sync(4), seed=5).reset()
    assert np.concatenate([first, second]).tolist() == alone.tolist()


def test_a_function_and_its_parameters_are_a_network():
    """Logits that don't look at the state, and a value that does."""

    def apply(params, observation, discount):
        return params["logits"].expand(len(observation), 2), observation @ params["critic"] * discount

    network = functional(apply, {"logits": torch.zeros(2), "critic": torch.ones(4)})
    assert isinstance(network, ActorCritic)
    trainer = Trainer(SMALL, cart_poles(), network=network)
    trainer.run()
    assert (trainer.progress.point.params["logits"] != 0).all()
    assert (network.params["logits"] == 0).all()


@pytest.mark.parametrize("keeps", [False, True])
def test_a_network_may_have_an_actor_of_its_own(keeps):
    """Acting asks it alone; what it keeps, if anything, comes back in learning at the same parameters."""
    known_then = []

    class Actor:
        def init(self, generator, *, device="cpu"):
            return {"actor": torch.zeros(4, 2), "critic": torch.ones(4)}

        def policy(self, params, observation, keep=None):
            if keeps:
                keep.append(observation @ params["actor"])
            return observation @ params["actor"]

        def __call__(self, params, observation, discount, known=None):
            known_then.append(None if known is None else [tuple(layer.shape) for layer in known])
            return observation @ params["actor"], observation @ params["critic"]

    Trainer(dataclasses.replace(SMALL, algorithm="a2c"), cart_poles(), network=Actor()).step()
    # at the start, in learning, and of the states after the last step
    assert known_then == [None, [(12, 2)] if keeps else None, None]


class Told(Policy):
    """A critic that is γ itself."""

    def forward(self, observation, discount):
        logits, value = super().forward(observation)
        return logits, 0 * value + discount


def test_a_module_may_ask_for_the_discount():
    network = functional(Told())
    gamma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    _, value = network(network.params, torch.zeros(2, 4), gamma)
    assert value.tolist() == [0.5, 0.5]
    (by_gamma,) = torch.autograd.grad(value.sum() + 0 * gamma, gamma)
    assert by_gamma == 0


def test_dropout_and_batch_statistics_are_off_and_the_module_is_left_alone():
    layers = torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)
    body = torch.nn.Sequential(*layers)

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body

        def forward(self, observation):
            both = self.body(observation)
            return both[:, :2], both[:, 2]

    noisy = Noisy()
    before = {name: value.clone() for name, value in noisy.state_dict().items()}
    network = functional(noisy)
    seen = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    first, again = (network(network.params, seen, torch.tensor(0.9))[0] for _ in range(2))
    assert torch.equal(first, again)
    assert same(noisy.state_dict(), before)
    assert noisy.training


class Tied(torch.nn.Module):
    """One matrix in two places, a buffer, a parametrised layer and no bias."""

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 4, bias=False)
        self.second = torch.nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.last = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3))
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, observation):
        both = self.last(self.second(self.first(observation + self.shift).tanh()))
        return both[:, :2], both[:, 2]


class Recurrent(torch.nn.Module):
    """A module that keeps its parameters in a list of its own."""

    def __init__(self):
        super().__init__()
        self.cell = torch.nn.GRU(4, 3, batch_first=True)

    def forward(self, observation):
        both = self.cell(observation.unsqueeze(1))[0].squeeze(1)
        return both[:, :2], both[:, 2]


@pytest.mark.parametrize("kind", [Policy, Tied, Recurrent])
def test_a_module_is_the_function_that_torch_makes_of_it(kind):
    """In values and derivatives, at other parameters than its own; called again it holds none of them."""
    torch.manual_seed(0)
    own = kind().double()
    network, seen = functional(own), torch.randn(5, 4, dtype=torch.float64)
    params = {name: torch.randn_like(value).requires_grad_() for name, value in own.named_parameters()}
    assert set(network.params) == set(params)

    def derivatives(outputs, value):
        (outputs.square().sum() + value.squeeze().pow(3).sum()).backward()
        return {name: value.grad.clone() for name, value in params.items() if value.grad is not None}

    ours = network(params, seen, torch.tensor(0.9))
    theirs = torch.func.functional_call(own, params, (seen,))
    torch.testing.assert_close(ours, (theirs[0], theirs[1].reshape(5)))
    found = derivatives(*ours)
    for value in params.values():
        value.grad = None
    torch.testing.assert_close(found, derivatives(*theirs))
    assert set(found) == set(params)
    again = network(network.params, seen, torch.tensor(0.9))
    assert not again[0].requires_grad
    torch.testing.assert_close(again[0], own(seen)[0].detach())


def test_a_call_keeps_none_of_the_parameters_it_was_given():
    """Else the graph of a window's last update would outlive it."""
    network = functional(module())
    params = {name: value.clone().requires_grad_() for name, value in network.params.items()}
    given = [weakref.ref(value) for value in params.values()]
    network(params, torch.zeros(2, 4), torch.tensor(0.9))
    del params
    gc.collect()
    assert [ref() for ref in given] == [None] * len(given)


@pytest.mark.parametrize("observed", [np.uint8, np.int32, np.float64, bool])
def test_observations_come_in_the_type_of_the_parameters(observed):
    seen = torch.from_numpy(np.ones((2, 4), dtype=observed))
    for kind in (torch.float32, torch.float64):
        network = functional(module().to(kind))
        outputs, value = network(network.params, seen, torch.tensor(0.9))
        assert outputs.dtype == value.dtype == kind


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ((torch.nn.Tanh(),), ValueError, "network: expected a module with parameters, got one without any"),
        ((Policy(), {"x": torch.ones(1)}), TypeError, "params: expected none beside a module, which has its own"),
        ((len,), TypeError, "expected a torch.nn.Module, or a function and its params, got a .* without params"),
        ((len, {}), ValueError, "params: expected at least one tensor, got none"),
    ],
)
def test_what_is_no_network(given, kind, message):
    with pytest.raises(kind, match=message):
        functional(*given)


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (
            cart_poles,
            {"network": Policy(inputs=3)},
            r"network: expected one that takes observations of shape \(4,\) and type torch.float32, got RuntimeError: ",
        ),
        (
            cart_poles,
            {},
            r"network: expected one that takes observations of shape \(4,\) and type torch.float32, got ",
        ),
        (
            cart_poles,
            {"network": Policy(outputs=3)},
            r"network: expected outputs of shape \(3, 2\) for Categorical\(.*\) of 3 states, got \(3, 3\)",
        ),
        (
            pendulums,
            {"network": Policy(inputs=3, outputs=1)},
            r"network: expected outputs of shape \(3, 2\) for Normal\(\) of 3 states, got \(3, 1\)",
        ),
        (
            pendulums,
            {"network": Policy(inputs=3), "distribution": Categorical()},
            r"distribution: expected one of continuous actions, such as Normal\(\), as the environment has, got Categ",
        ),
        (
            pendulums,
            {"network": functional(Policy(inputs=3), distribution=Categorical())},
            r"distribution: expected one of continuous actions, such as Normal\(\), as the environment has, got Categ",
        ),
        (
            cart_poles,
            {"network": Policy(), "distribution": Normal()},
            r"distribution: expected one of numbered actions, such as Categorical\(\), as the environment has, got Nor",
        ),
        (lambda: cart_poles(2), {"network": Policy()}, "environments: expected 3 in all, got 2"),
        (list, {"network": Policy()}, "environments: expected at least one group, got none"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_a_line(made, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        Trainer(SMALL, made(), **options)
    assert "\n" not in str(caught.value)


def test_the_value_has_one_number_for_each_state():
    class Doubled:
        def init(self, generator, *, device="cpu"):
            return {"x": torch.ones(1)}

        def __call__(self, params, observation, discount):
            return observation[:, :2] * params["x"], observation[:, :2] * params["x"]

    with pytest.raises(ValueError, match=r"network: expected values of shape \(3,\), one of each state, got \(3, 2\)"):
        Trainer(SMALL, cart_poles(), network=Doubled())


class Counter(gymnasium.Env):
    """Shows how many steps were made in all, so that it needn't be saved to go on: episodes of four steps."""

    observation_space, action_space = spaces.Box(-1, 1, (4,)), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._seen(), {}

    def _seen(self):
        return np.array([np.sin(self.time), np.cos(self.time), 0.1 * self.time, 1], dtype=np.float32)

    def step(self, action):
        self.time += 1
        return self._seen(), float(action), self.time == 3, False, {}


def counters():
    """With a step for the reset an episode takes four steps, as many as an update."""
    return SyncVectorEnv([Counter] * 3)


@pytest.mark.parametrize("settings", [{"algorithm": "a2c"}, {"schedule": "discard"}, {}])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, settings):
    """Where every update begins an episode, as resuming does, nothing is another; online draws one batch anew."""
    training = dataclasses.replace(SMALL, **settings)
    whole = Trainer(training, counters(), network=module())
    whole.run()
    first = Trainer(training, counters(), network=module(), folder=tmp_path)
    while first.progress.updates < 4:
        first.step()
    first.save()
    second = Trainer(training, counters(), network=module(), folder=tmp_path)
    assert same(second.progress.point.params, first.progress.point.params)
    assert second.progress.updates == 4
    second.run()
    online = settings == {}
    assert same(second.progress.point.params, whole.progress.point.params) != online
    assert torch.equal(second.progress.logits, whole.progress.logits) != online


def test_the_log_of_a_resumed_run(tmp_path):
    first = Trainer(SMALL, cart_poles(), network=module(), folder=tmp_path)
    first.run(log_every=2)
    again = Trainer(SMALL, cart_poles(), network=module(), folder=tmp_path)
    assert again.run(log_every=2) == list(first.progress.rows)
    with (tmp_path / "log.csv").open() as file:
        assert [int(row["updates"]) for row in csv.DictReader(file)] == [2, 4, 6, 8]


class Wider(Policy):
    """With a layer more."""

    def __init__(self):
        super().__init__()
        self.more = torch.nn.Linear(1, 1)


class Other(Policy):
    """The same parameters, another function."""

    def forward(self, observation):
        features = self.hidden(observation).relu()
        return self.actor(features), self.critic(features)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (Policy(), Policy(hidden=9), "network: expected '.*out_features=9.*', got '.*out_features=8"),
        (Policy(), Other(), r"network: expected \"Functional\(name='Other.*, got \"Functional\(name='Policy"),
        (Wider(), Policy(), r"network: expected \"Functional\(name='Policy.*, got \"Functional\(name='Wider"),
    ],
)
def test_another_networks_checkpoint_is_refused(tmp_path, before, after, message):
    Trainer(SMALL, cart_poles(), network=before, folder=tmp_path).save()
    with pytest.raises(CheckpointError, match=message) as caught:
        Trainer(SMALL, cart_poles(), network=after, folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert len(list(tmp_path.glob("*.pt"))) == 1


def test_parameters_that_are_too_many_are_refused(tmp_path):
    """Of functions that say the same of themselves."""

    def apply(params, observation, discount):
        return observation[:, :2] * params["x"], observation[:, 0]

    x = torch.ones(1)
    Trainer(SMALL, cart_poles(), network=functional(apply, {"x": x, "y": x}), folder=tmp_path).save()
    with pytest.raises(CheckpointError, match=r"params: expected x alone, got \['y'\] as well"):
        Trainer(SMALL, cart_poles(), network=functional(apply, {"x": x}), folder=tmp_path)


def test_a_network_is_described_without_where_it_lies_in_memory():
    assert "0x" in repr(object())
    assert "0x" not in described(object())


def test_images_with_channels_last_are_those_with_channels_first():
    """Truths or numbers; `frames_last` moves the axis, and `scale` is what a number is divided by."""
    draw = torch.Generator().manual_seed(0)
    first = Network(3, frames=4, size=10, layers=((8, 3, 1),), hidden=8, embedding=2, scale=1.0)
    last = dataclasses.replace(first, frames_last=True)
    seen = torch.rand((5, 2, 4, 10, 10), generator=draw) > 0.5
    for memory_format in (torch.channels_last, torch.contiguous_format):
        params = first.init(torch.Generator().manual_seed(1), dtype=torch.float64, memory_format=memory_format)
        expected = first(params, seen, torch.tensor(0.9))
        torch.testing.assert_close(last(params, seen.movedim(-3, -1), torch.tensor(0.9)), expected)
        grey = dataclasses.replace(first, scale=255.0)
        torch.testing.assert_close(grey(params, 255 * seen.byte(), torch.tensor(0.9)), expected)
        assert expected[0].std() > 0


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_activations_that_are_kept_make_no_difference_to_images_with_channels_last(memory_format):
    space = spaces.Box(0, 1, (10, 10, 2), bool)

    class Blinking(Counter):
        observation_space = space

        def _seen(self):
            rows = np.arange(200).reshape(10, 10, 2) % (self.time + 2)
            return rows == 0

    network = Network(2, frames=2, size=10, layers=((4, 3, 1),), hidden=8, embedding=2, scale=1.0, frames_last=True)
    runs = [
        Trainer(
            SMALL, SyncVectorEnv([Blinking] * 3), network=network, keep_activations=keep, memory_format=memory_format
        )
        for keep in (True, False)
    ]
    for run in runs:
        run.run()
    for kept, again in zip(*(run.progress.point.params.values() for run in runs), strict=True):
        torch.testing.assert_close(kept, again, rtol=1e-4, atol=1e-6)
