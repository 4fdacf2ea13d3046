"""Short real rollouts: preprocessing against Gymnasium's, true returns, lives and resets."""

import functools
import re
import sys
from itertools import pairwise
from types import SimpleNamespace

import ale_py
import gymnasium
import numpy as np
import pytest
import torch
from ale_py import roms
from gymnasium.wrappers import AtariPreprocessing
from hypothesis import given
from hypothesis import strategies as st

from gm_mgrl_atari import PAPER_GAMES, AtariGames, Collector, Network, game_name, rom_name

gymnasium.register_envs(ale_py)
MULTIPLAYER = {"combat", "joust", "maze_craze", "warlords"}


@functools.cache
def area_weights(source, target):
    """The share of each source pixel in each target pixel: rows of overlaps that sum to one."""
    edges = np.arange(target + 1) * source / target
    low, high = np.arange(source), np.arange(source) + 1
    overlap = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.clip(overlap, 0, None) * target / source


def area_resize(image, size, interpolation):
    by_row, by_column = (area_weights(source, target) for source, target in zip(image.shape, size[::-1], strict=True))
    return np.round(by_row @ image @ by_column.T)


@pytest.fixture
def preprocessed(monkeypatch):
    """Gymnasium's preprocessing. Of OpenCV it needs area resampling alone, done here from its definition."""
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(resize=area_resize, INTER_AREA=3))

    def make(game):
        raw = gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0)
        return AtariPreprocessing(raw, noop_max=0)

    return make


@pytest.mark.parametrize(("game", "steps"), [("Breakout", 130), ("Qbert", 60), ("Seaquest", 60)])
def test_frames_rewards_and_lives_are_those_of_gymnasium(preprocessed, game, steps):
    """The same actions in both, from the first frame; grey levels agree up to one, from rounding in the resampling."""
    theirs, ours = preprocessed(game), AtariGames(game, 2, seed=0, threads=1, noops=0)
    assert ours.actions == theirs.action_space.n
    actions = np.random.default_rng(0).integers(0, ours.actions, steps)
    theirs.reset(seed=0)
    theirs.unwrapped.step(1)  # fire, for one frame
    lives = theirs.unwrapped.ale.lives()
    frame, rewards, lost = ours.reset()[0, -1], 0, 0
    for action in actions:
        previous = frame
        expected, reward, over, _, _ = theirs.step(action)
        ours.send(np.full(2, action))
        step = ours.receive()
        frame = step.observation[0, -1]
        assert np.abs(frame.astype(int) - expected.astype(int)).max() <= 1
        assert np.array_equal(step.observation[0, -2], previous)
        assert np.array_equal(step.observation[0], step.observation[1])
        assert step.reward.tolist() == [np.sign(reward)] * 2
        now = theirs.unwrapped.ale.lives()
        assert step.terminated.tolist() == [over or now < lives] * 2
        assert step.valid.all()
        lives, rewards, lost = now, rewards + reward, lost + bool(step.terminated[0])
        if over:
            break
    assert rewards > 0 or game != "Breakout"
    assert lost > 0 or game != "Breakout"


def play(games, steps, seed=0):
    draw = np.random.default_rng(seed)
    games.reset()
    answers = []
    for _ in range(steps):
        games.send(draw.integers(0, games.actions, games.envs))
        answers.append(games.receive())
    return answers


def test_true_returns_are_of_whole_games_unclipped():
    """Qbert pays 25 and more at a time; a whole game has several lives."""
    answers = play(AtariGames("Qbert", 4, seed=1, threads=1), 600)
    ended = [(r, n) for answer in answers for r, n in zip(answer.returns, answer.lengths, strict=True)]
    assert len(ended) >= 4
    assert all(value % 25 == 0 and value > 25 for value, _ in ended)
    lives = sum(answer.terminated.sum() for answer in answers)
    resets = sum((~answer.valid).sum() for answer in answers)
    assert resets == len(ended)
    assert lives > 2.5 * len(ended)
    assert set(np.unique([answer.reward for answer in answers])) <= {-1.0, 0.0, 1.0}
    # signs count the payments of all games, finished or not
    assert sum(answer.reward.sum() for answer in answers) < sum(value for value, _ in ended)
    assert all(n > 50 for _, n in ended)


def test_a_game_without_lives_ends_once():
    """Tennis has none, so that a life of 0 says nothing."""
    answers = play(AtariGames("Tennis", 1, seed=0, threads=1), 1650)
    lengths = [int(n) for answer in answers for n in answer.lengths]
    assert lengths
    assert sum(answer.terminated.sum() for answer in answers) >= len(lengths)
    assert sum((~answer.valid).sum() for answer in answers) == len(lengths)
    assert all(value <= 0 for answer in answers for value in answer.returns)


def test_a_step_after_the_end_is_not_valid_and_pays_nothing():
    answers = play(AtariGames("Breakout", 2, seed=0, threads=1), 250)
    for before, answer in pairwise(answers):
        assert not (~answer.valid & ~(before.terminated | before.truncated)).any()
        assert not answer.reward[~answer.valid].any()
        assert not answer.terminated[~answer.valid].any()
    assert any((~answer.valid).any() for answer in answers)


def test_the_same_seed_and_any_number_of_threads_give_the_same_games():
    first, second = (play(AtariGames("Alien", 3, seed=2, threads=threads), 40) for threads in (1, 2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.observation, other.observation)
        assert np.array_equal(one.reward, other.reward)
    other = play(AtariGames("Alien", 1, seed=7, threads=1), 40)
    assert not np.array_equal(first[-1].observation[:1], other[-1].observation)


def test_names():
    assert [rom_name(game) for game in PAPER_GAMES] == [
        *("asteroids", "qbert", "tennis", "beam_rider", "alien", "assault", "double_dunk", "seaquest")
    ]
    assert rom_name("ms_pacman") == rom_name("MsPacman") == rom_name("ms pacman") == "ms_pacman"
    with pytest.raises(ValueError, match=r"expected Asteroids, .* or another of ALE's \d+ games, got 'Chess'"):
        rom_name("Chess")
    for spelt in ("../../Qbert", "Qbert/..", "Qbert\n", ".qbert"):
        with pytest.raises(ValueError, match="games, got "):
            rom_name(spelt)


def test_one_name_for_a_game():
    """However it is asked for, so that its folder and its seeds are the same."""
    assert [game_name(rom_name(game)) for game in PAPER_GAMES] == [*PAPER_GAMES]
    assert {game_name(spelt) for spelt in ("qbert", "Qbert", "QBERT", "Q-bert")} == {"Qbert"}
    assert game_name("beam rider") == AtariGames("beam_rider", 1, 0, threads=1).game == "BeamRider"
    everything = [rom for rom in roms.get_all_rom_ids() if rom not in MULTIPLAYER]
    assert len({game_name(rom) for rom in everything}) == len(everything) == 104


@given(
    rom=st.sampled_from(roms.get_all_rom_ids()),
    prefix=st.sampled_from(["", "ALE/"]),
    suffix=st.sampled_from(["", "-v5", "-v0", "NoFrameskip-v4", "Deterministic-v0"]),
)
def test_every_name_of_gymnasium_is_understood_or_refused(rom, prefix, suffix):
    """ALE ends the process at the games for several players, which are refused under any name."""
    name = prefix + "".join(word.capitalize() for word in rom.split("_")) + suffix
    if rom in MULTIPLAYER:
        with pytest.raises(ValueError, match=f"expected a game for one player, such as .*, got '{re.escape(name)}'"):
            AtariGames(name, 1, 0)
    else:
        assert rom_name(name) == rom
        assert game_name(name) == game_name(rom)


@pytest.mark.parametrize(
    "name", ["Pong-ram-v5", "Pong-ramNoFrameskip-v4", "ALE/", "-v5", "", "ALE/ALE/Pong", "Pong-v", "Pong-v5\n"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="or another of ALE's 108 games, got "):
        rom_name(name)


def test_a_missing_file_of_a_game_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="expected ALE's file of 'Pong', got FileNotFoundError: "):
        rom_name("Pong")


@given(
    envs=st.one_of(
        st.integers(max_value=0), st.integers(10**7), st.booleans(), st.sampled_from([np.int64(-1), np.int8(0)])
    )
)
def test_numbers_of_environments_that_there_cannot_be(envs):
    with pytest.raises(
        ValueError,
        match=r"envs: expected (an integer of at least 1, got|at most \d+ environments, .* got \d+, which need)",
    ):
        AtariGames("Pong", envs, 0)


@given(seed=st.one_of(st.integers(max_value=-1), st.integers(2**31 - 1), st.booleans(), st.just(np.int64(2**40))))
def test_seeds_that_ale_would_not_keep_are_refused(seed):
    """With two environments the last seed of the first is 2³¹ − 2."""
    with pytest.raises(ValueError, match="seed: expected an integer from 0 to 2147483646, got"):
        AtariGames("Pong", 2, seed)


def test_integers_of_numpy_are_integers():
    games = AtariGames("ALE/Pong-v5", np.int64(2), np.int32(2**31 - 2), np.uint8(1), np.int64(0))
    assert (games.game, games.envs, games.seed) == ("Pong", 2, 2**31 - 2)
    assert games.reset().shape == (2, 4, 84, 84)


@pytest.mark.parametrize(("name", "value"), [("threads", -1), ("threads", True), ("noops", -1), ("noops", 10**6)])
def test_other_numbers_are_checked_before_a_game_starts(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected an integer .*, got {value}"):
        AtariGames("Pong", 1, 0, **{name: value})


def test_a_batch_is_what_the_environments_answered(which_side):
    network = Network(actions=3)
    params = network.init(torch.Generator().manual_seed(0))

    def collector(groups):
        return Collector(groups, network, 5, torch.Generator().manual_seed(1))

    batch = collector([which_side(2)]).collect(params)
    assert batch.observation.shape == (2, 6, 4, 84, 84)
    games = which_side(2)
    assert np.array_equal(batch.observation[:, 0], games.reset())
    for t in range(5):
        games.send(batch.action[:, t].numpy())
        step = games.receive()
        assert np.array_equal(batch.observation[:, t + 1], step.observation)
        for name in ("reward", "terminated", "truncated", "valid"):
            assert np.array_equal(getattr(batch, name)[:, t], getattr(step, name)), name
    two = collector([which_side(2), which_side(3, seed=1)])
    both = two.collect(params)
    assert both.action.shape == (5, 5)
    assert torch.equal(both.observation[:2, 0], batch.observation[:, 0])
    assert two.emulated == 25
    again = two.collect(params)
    assert torch.equal(again.observation[:, 0], both.observation[:, -1])


def test_finished_games_are_told_once(which_side):
    network = Network(actions=3)
    collector = Collector([which_side(4)], network, 20, torch.Generator().manual_seed(1))
    collector.collect(network.init(torch.Generator().manual_seed(0)))
    returns, lengths = collector.finished()
    assert len(returns) == len(lengths) >= 8
    assert set(lengths) == {8}
    assert collector.finished() == ([], [])
