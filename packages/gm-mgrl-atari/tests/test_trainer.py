import csv
import dataclasses
import functools
import gc
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gm_mgrl_atari import NAMES, AtariGames, Laps, Learner, Network, NotFiniteError, Trainer, Training

SMALL = Training(algorithm="a2c", envs=2, steps=3, updates=6)


def same(first, second):
    """Whether two points are equal bit for bit."""
    pairs = [(first.params, second.params)]
    pairs += [(getattr(first.optimiser, name), getattr(second.optimiser, name)) for name in ("first", "second")]
    return first.optimiser.step == second.optimiser.step and all(
        torch.equal(one[name], other[name]) for one, other in pairs for name in one
    )


@pytest.fixture
def trainer(which_side, small_network):
    def make(folder=None, *, seed=0, warn=print, **changes):
        training = dataclasses.replace(SMALL, **changes)
        return Trainer(training, [which_side(training.envs)], seed=seed, folder=folder, warn=warn)

    return make


@pytest.mark.parametrize(
    ("algorithm", "settings"), [("a2c", {}), ("mgrl-lvc", {"schedule": "online", "inner_steps": 2})]
)
def test_it_learns_a_task_of_pictures(which_side, monkeypatch, algorithm, settings):
    """Chance pays 2.7 a game, the best policy 8; a network of a tenth of the paper's learns it in seconds."""
    network = functools.partial(Network, layers=((16, 8, 4), (16, 4, 2)), hidden=64)
    monkeypatch.setattr("gm_mgrl_atari.trainer.Network", network)
    training = Training(algorithm=algorithm, envs=8, updates=48, inner_lr=5e-3, **settings)
    rows = Trainer(training, [which_side(8)]).run(log_every=12)
    assert rows[0]["episode_return"] < 4
    assert rows[-1]["episode_return"] > 6


def test_the_discard_schedule_keeps_what_one_a2c_update_gives(trainer):
    """The point after the first discarding window, whose batch A2C draws too."""
    plain, meta = trainer(), trainer(algorithm="mgrl-lvc", inner_steps=3)
    plain.step()
    meta.step()
    assert same(plain.progress.point, meta.progress.point)
    assert (plain.progress.updates, plain.progress.emulated) == (1, 6)
    assert (meta.progress.updates, meta.progress.emulated) == (1, 24)
    assert not torch.equal(meta.progress.logits, plain.progress.logits)


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_without_meta_learning_the_online_schedule_is_a2c_bit_for_bit(trainer, inner_steps):
    plain = trainer()
    meta = trainer(algorithm="mgrl", schedule="online", meta_lr=0.0, inner_steps=inner_steps)
    plain.run(log_every=3)
    meta.run(log_every=3)
    assert same(plain.progress.point, meta.progress.point)
    assert plain.progress.updates == meta.progress.updates == 6
    # one batch per update and the last outer one
    assert meta.progress.emulated == 6 * 7
    different = trainer(algorithm="mgrl", schedule="online", meta_lr=0.1, inner_steps=inner_steps)
    different.run()
    assert not same(plain.progress.point, different.progress.point)


def test_the_online_schedule_ends_on_the_last_update(trainer):
    meta = trainer(algorithm="mgrl", schedule="online", inner_steps=4)
    assert [row["updates"] for row in meta.run(log_every=1)] == [4, 6]


def test_no_graph_is_kept(trainer):
    """As many tensors after the sixth window as after the third, so that memory doesn't grow."""

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    meta = trainer(algorithm="mgrl-lvc")
    counts = []
    for window in range(6):
        meta.step()
        if window in (2, 5):  # counting takes longer than a step
            counts.append(tensors())
    assert counts[0] == counts[1]
    assert not any(value.requires_grad for value in meta.progress.point.optimiser.second.values())
    assert not meta.progress.logits.requires_grad


def test_the_log(trainer, tmp_path):
    told = []
    rows = trainer(tmp_path, algorithm="mgrl-lvc").run(log_every=2, on_row=told.append)
    assert told == rows
    assert [row["updates"] for row in rows] == [2, 4, 6]
    assert [row["env_steps"] for row in rows] == [12, 24, 36]
    assert [row["emulated_steps"] for row in rows] == [48, 96, 144]
    assert all(0 < row[name] < 1 for row in rows for name in NAMES)
    assert rows[0]["gamma"] != rows[-1]["gamma"]
    assert all(row["steps_per_second"] > 0 for row in rows)
    with (tmp_path / "log.csv").open() as file:
        assert [float(line["updates"]) for line in csv.DictReader(file)] == [2, 4, 6]


@pytest.mark.parametrize("algorithm", ["a2c", "mgrl-lvc"])
def test_the_parts_of_the_time_are_the_whole(which_side, small_network, tmp_path, monkeypatch, algorithm):
    """From the only start of the stopwatch to its last lap nothing is lost, however slow the machine is."""
    started = []
    start = Laps.start
    monkeypatch.setattr(Laps, "start", lambda self: (start(self), started.append(self._last)))
    slow = Trainer(dataclasses.replace(SMALL, algorithm=algorithm), [which_side(2, delay=0.002)], folder=tmp_path)
    slow.run(log_every=1)
    seconds = slow.lap.seconds
    (began,) = started
    assert sum(seconds.values()) == pytest.approx(slow.lap._last - began, abs=1e-6)
    windows = 4 if algorithm == "mgrl-lvc" else 1
    assert seconds["emulation"] > 0.002 * SMALL.steps * SMALL.updates * windows
    assert (seconds["outer loss and meta-gradient"] > 0) == (algorithm == "mgrl-lvc")
    assert all(seconds[part] > 0 for part in set(seconds) - {"outer loss and meta-gradient"})


class StopError(BaseException):
    """What a signal raises in the middle of an update."""


def interrupted(trainer, after, error, monkeypatch):
    """Runs until the update after some."""
    step = trainer.step

    def stepping():
        if trainer.progress.updates == after:
            raise error
        return step()

    monkeypatch.setattr(trainer, "step", stepping)
    with pytest.raises(type(error)):
        trainer.run(log_every=1)


@pytest.mark.parametrize("algorithm", ["a2c", "mgrl-lvc"])
def test_an_interrupted_run_goes_on_where_it_was(trainer, tmp_path, monkeypatch, algorithm):
    first = trainer(tmp_path, algorithm=algorithm)
    interrupted(first, 3, StopError(), monkeypatch)
    with (tmp_path / "log.csv").open("a") as file:
        file.write("4,12,12,")  # as a kill in the middle of a line leaves it
    second = trainer(tmp_path, algorithm=algorithm)
    assert same(first.progress.point, second.progress.point)
    assert torch.equal(first.progress.logits, second.progress.logits)
    assert same(*(type(first.progress.point)({}, t.progress.meta) for t in (first, second)))
    assert torch.equal(first._generator.get_state(), second._generator.get_state())
    assert (second.progress.updates, second.progress.emulated) == (3, first.progress.emulated)
    assert second.progress.point.params["conv0.weight"].is_contiguous(memory_format=torch.channels_last)
    rows = second.run(log_every=1)
    assert [row["updates"] for row in rows] == [1, 2, 3, 4, 5, 6]
    with (tmp_path / "log.csv").open() as file:
        assert [float(line["updates"]) for line in csv.DictReader(file)] == [1, 2, 3, 4, 5, 6]
    assert second.run(log_every=1) == rows


def test_nan_stops_the_run_and_keeps_the_last_good_checkpoint(trainer, tmp_path, monkeypatch):
    first = trainer(tmp_path)
    interrupted(first, 3, StopError(), monkeypatch)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")}
    second = trainer(tmp_path)
    update = Learner.update

    def spoilt(self, point, batch, fixed):
        if second.progress.updates == 4:
            batch.reward[0, 0] = math.nan
        return update(self, point, batch, fixed)

    monkeypatch.setattr(Learner, "update", spoilt)
    with pytest.raises(NotFiniteError) as caught:
        second.run(log_every=1)
    assert str(caught.value).startswith(
        "expected finite numbers, got NaN or infinity in policy term, value term, gradient of conv0.weight"
    )
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.pt")} == before
    assert trainer(tmp_path).progress.updates == 3


def test_checkpoints_by_the_clock_and_copies_for_good(trainer, tmp_path):
    trainer(tmp_path).run(checkpoint_seconds=0.0, keep_at=(0, 2, 5))
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        *("checkpoint-000000005.pt", "checkpoint-000000006.pt"),
        *("point-000000000.pt", "point-000000002.pt", "point-000000005.pt"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"inner_steps": 0}, "inner_steps: expected an integer of at least 1, got 0"),
        ({"updates": -1}, "updates: expected an integer of at least 1, got -1"),
        ({"algorithm": "ppo"}, "algorithm: expected one of a2c, mgrl, mgrl-lvc, got 'ppo'"),
        ({"inner_lr": math.nan}, "inner_lr: expected a finite number above 0, also in float32, got nan"),
        ({"meta_lr": -0.1}, "meta_lr: expected a finite number of at least 0, also in float32, got -0.1"),
        ({"adam_eps": 1e-50}, "adam_eps: expected a finite number above 0, also in float32, got 1e-50"),
        ({"adam_eps": 1e-37}, "adam_eps: expected a finite number above 0, also in float32, got 1e-37"),
        ({"inner_lr": 1e39}, "inner_lr: expected a finite number above 0, also in float32, got 1e\\+39"),
        ({"meta_lr": 1e39}, "meta_lr: expected a finite number of at least 0, also in float32, got 1e\\+39"),
        ({"envs": True}, "envs: expected an integer of at least 1, got True"),
        ({"estimator": "dice"}, "expected an estimator that uses advantages"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **settings).check()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("updates", 2.5, "updates: expected an integer of at least 1, got 2.5"),
        ("schedule", "onlin", "schedule: expected one of discard, online, got 'onlin'"),
        ("conditioned", 1, "conditioned: expected one of True, False, got 1"),
        ("inner_lr", "x", "inner_lr: expected a finite number above 0, also in float32, got x"),
        ("meta_lr", True, "meta_lr: expected a finite number of at least 0, also in float32, got True"),
    ],
)
def test_settings_of_another_type(name, value, message):
    """In tests every annotation is enforced; elsewhere `check` alone stands between a slip and another run."""
    settings = dataclasses.replace(SMALL)
    object.__setattr__(settings, name, value)
    with pytest.raises(ValueError, match=message):
        settings.check()


@given(envs=st.integers(10**6, 10**30), steps=st.integers(1, 10**6), inner_steps=st.integers(1, 10**12))
def test_memory_is_asked_for_before_it_is_taken(which_side, envs, steps, inner_steps):
    """The games say how many they are, and have none of it."""
    games = which_side(1)
    games.envs = envs
    settings = dataclasses.replace(SMALL, algorithm="mgrl", envs=envs, steps=steps, inner_steps=inner_steps)
    needed = envs * (2e6 + 350_000 * steps * (inner_steps + 1)) / 1e9
    with pytest.raises(
        ValueError, match=r"envs: expected at most \d+ environments, which fit into the [\d.]+ GB"
    ) as caught:
        Trainer(settings, [games])
    assert float(re.findall(r"which need ([\d.]+) GB", str(caught.value))[0]) == pytest.approx(
        needed, rel=1e-9, abs=0.06
    )


def test_the_log_and_checkpoints_are_of_whole_numbers_and_seconds(trainer):
    for log_every in (0, True):
        with pytest.raises(ValueError, match=f"log_every: expected an integer of at least 1, got {log_every}"):
            trainer().run(log_every=log_every)
    with pytest.raises(ValueError, match="checkpoint_seconds: expected a number of at least 0, got nan"):
        trainer().run(checkpoint_seconds=math.nan)  # none would ever be written


@pytest.mark.parametrize("seed", [True, 2**64, -(2**63) - 1])
def test_seeds_are_integers_of_64_bits(trainer, seed):
    with pytest.raises(ValueError, match=f"seed: expected an integer from -9223372036854775808 to .*, got {seed}"):
        trainer(seed=seed)


def test_groups_of_two_games_are_refused(which_side):
    first, second = which_side(1), which_side(1)
    second.actions = 4
    with pytest.raises(ValueError, match="environments: expected one game, got , 3 actions and , 4 actions"):
        Trainer(SMALL, [first, second])


def test_the_number_of_environments_must_be_the_settings(which_side):
    with pytest.raises(ValueError, match="environments: expected 2 in all, got 3"):
        Trainer(SMALL, [which_side(3)])


def test_a_short_run_on_a_game(small_network):
    training = Training(envs=4, updates=3, estimator="loaded_dice")
    trainer = Trainer(training, [AtariGames("Asteroids", 2, 0, threads=1), AtariGames("Asteroids", 2, 2, threads=1)])
    rows = trainer.run(log_every=1)
    assert len(rows) == 3
    assert np.isfinite([row["policy_term"] for row in rows]).all()
    assert rows[-1]["emulated_steps"] == 3 * 4 * 20


HOW_TORCH_IS_SET = [
    "pass",
    "torch.set_float32_matmul_precision('medium')",
    "torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    # names that older releases lack, where these make no difference
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
]
IN_A_PROCESS_EACH = """
import os, sys
import torch
from gm_mgrl_atari import all_of_float32

places = [torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul]
for how in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    exec(how)
    before = [getattr(place, "fp32_precision", None) for place in places]
    with all_of_float32():
        inside = {getattr(place, "fp32_precision", None) for place in places}
    after = [getattr(place, "fp32_precision", None) for place in places]
    print(inside & {"tf32", "bf16"} or "all", "as before" if before == after else after, flush=True)
    os._exit(0)
"""


def test_all_of_float32_however_torch_is_set():
    """Each in a process of its own, since torch lets nobody go back from its newer names."""
    call = [sys.executable, "-c", IN_A_PROCESS_EACH, *HOW_TORCH_IS_SET]
    found = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (found.stdout.splitlines(), found.stderr) == (["all as before"] * len(HOW_TORCH_IS_SET), "")


@pytest.mark.parametrize("allowed", [True, False])
def test_convolutions_keep_all_digits_of_float32_while_it_trains(trainer, monkeypatch, allowed):
    """TF32, torch's default on a GPU, moves a first meta-gradient by several times its size; what was set stays."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    seen = []
    train = trainer(algorithm="mgrl")
    window, act = train.learner.window, train._collector.collect
    watched = dataclasses.replace(train.learner)
    object.__setattr__(
        watched, "window", lambda *given: (seen.append(torch.backends.cudnn.allow_tf32), window(*given))[1]
    )
    train.learner = watched
    train._collector.collect = lambda params: (seen.append(torch.backends.cudnn.allow_tf32), act(params))[1]
    train.step()
    assert len(seen) > 1
    assert not any(seen)
    assert torch.backends.cudnn.allow_tf32 is allowed
    train._collector.collect = lambda _params: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train.step()
    assert torch.backends.cudnn.allow_tf32 is allowed
