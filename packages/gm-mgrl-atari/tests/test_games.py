"""Short real rollouts: preprocessing against Gymnasium's, true returns, lives and resets."""

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

from gm_mgrl_atari import PAPER_GAMES, AtariGames, Collector, Network, game_name, rom_name

gymnasium.register_envs(ale_py)


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
    answers = play(AtariGames("Tennis", 2, seed=0, threads=1), 1900)
    lengths = [int(n) for answer in answers for n in answer.lengths]
    assert lengths
    assert sum(answer.terminated.sum() for answer in answers) >= len(lengths)
    assert sum((~answer.valid).sum() for answer in answers) == len(lengths)
    assert all(value <= 0 for answer in answers for value in answer.returns)


def test_a_step_after_the_end_is_not_valid_and_pays_nothing():
    answers = play(AtariGames("Breakout", 4, seed=0, threads=1), 500)
    for before, answer in pairwise(answers):
        assert not (~answer.valid & ~(before.terminated | before.truncated)).any()
        assert not answer.reward[~answer.valid].any()
        assert not answer.terminated[~answer.valid].any()
    assert any((~answer.valid).any() for answer in answers)


def test_the_same_seed_and_any_number_of_threads_give_the_same_games():
    first, second = (play(AtariGames("Alien", 4, seed=2, threads=threads), 40) for threads in (1, 2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.observation, other.observation)
        assert np.array_equal(one.reward, other.reward)
    other = play(AtariGames("Alien", 4, seed=7, threads=1), 40)
    assert not np.array_equal(first[-1].observation, other[-1].observation)


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
    everything = roms.get_all_rom_ids()
    assert len({game_name(rom) for rom in everything}) == len(everything)


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
