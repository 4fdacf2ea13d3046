"""apps/mgrl_minatar.py end to end on short real rollouts: files, refusals, kill and resume, verdicts, the page."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import gm_lab
from gm_experiments.mgrl.training import NAMES
from gm_experiments.mgrl_minatar import EXPERIMENT, claims, figures, findings, problem, run, scores, tables
from gm_experiments.mgrl_minatar.settings import COLUMNS, GAMES, Settings, cells

ROOT = Path(__file__).parents[1]
SMALL = ["--wandb", "disabled", "--envs", "4", "--steps", "2"]
LONG = Settings(games=("all",), env_steps=1_000_000, seeds=10)
FAULTS = runpy.run_path(str(ROOT / "packages" / "gm-experiments" / "tests" / "picture_faults.py"))["faults"]


@pytest.fixture
def app(run_app):
    return partial(run_app, EXPERIMENT, *SMALL)


def test_a_run_leaves_what_it_promises(app, tmp_path):
    status, _ = app("--games", "space-invaders", "MinAtar/Breakout-v1", "--env-steps", "96", "--seeds", "2")
    assert status == 0
    (folder,) = (tmp_path / "runs" / "mgrl_minatar").iterdir()
    frame = pd.read_csv(folder / "results.csv")
    assert list(frame.columns) == list(COLUMNS)
    assert set(frame["game"]) == {"SpaceInvaders", "Breakout"}
    # online windows keep three updates, so that no step is drawn twice
    assert frame.groupby("algorithm")["updates"].max().to_dict() == dict.fromkeys(("a2c", "mgrl", "mgrl-lvc"), 12)
    assert frame.groupby("algorithm")["emulated_steps"].max().to_dict() == {"a2c": 96, "mgrl": 104, "mgrl-lvc": 104}
    learnt = frame[frame["algorithm"] == "mgrl"].groupby(["game", "seed"])["gamma"].nunique()
    assert (learnt > 1).all()
    assert frame[frame["algorithm"] == "a2c"]["gamma"].nunique() == 1
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {
        "returns", "over_games", "meta_parameters", "meta_parameters_2",
    }  # fmt: skip
    verdicts = {v["id"]: v["verdict"] for v in json.loads((folder / "claims.json").read_text())}
    assert verdicts == {"MINATAR-1": "not measured", "MINATAR-2": "not measured"}
    live = pd.concat(map(pd.read_csv, (folder / "live").glob("*.csv")))
    assert len(live) == len(frame)


def test_algorithms_begin_alike_and_seeds_do_not():
    """The same θ⁰ and the same first states, so that they are compared seed by seed."""
    made = cells(Settings(games=("Breakout",), seeds=2, envs=4, env_steps=400, algorithms=("a2c", "mgrl-lvc")))
    trainers = [run.trainer_of(cell, run.MinAtarContext(None)) for cell in made]
    weights = [trainer.progress.point.params["conv0.weight"] for trainer in trainers]
    assert (weights[0] == weights[1]).all()
    assert (weights[0] != weights[2]).any()
    assert [(cell.seed, cell.training.algorithm) for cell in made] == list(product((0, 1), ("a2c", "mgrl-lvc")))


def test_returns_are_those_of_a_plain_loop():
    """One environment at a time, with the same seeds and actions."""
    games = problem.environments("Breakout", 3, seed=5)
    games.reset()
    draw = np.random.default_rng(0)
    actions = draw.integers(0, games.actions, (200, 3))
    ours: list[list[float]] = [[] for _ in range(3)]
    for action in actions:
        games.send(action)
        step = games.receive()
        for env, total in zip(np.flatnonzero(step.terminated), step.returns, strict=True):
            ours[env].append(total)
    for env in range(3):
        alone, total, seen = problem.single("Breakout"), 0.0, []
        alone.reset(seed=5 + env)
        for action in actions[:, env]:
            _, reward, ended, _, _ = alone.step(int(action))
            total += float(reward)
            if ended:
                seen.append(total)
                total = 0.0
                alone.reset()
        assert ours[env] == seen
        assert len(seen) > 5


def test_gymnasium_alone_imports_the_games():
    """Their licence is the GPL; neither the package nor the flags touch them."""
    sources = [*(ROOT / "packages").glob("*/src/**/*.py"), *(ROOT / "apps").glob("*.py")]
    lines = [line.strip() for path in sources for line in path.read_text().splitlines()]
    assert not [line for line in lines if line.startswith(("import minatar", "from minatar"))]
    code = "import sys; from gm_experiments.mgrl_minatar import problem, run, settings; settings.cells("
    code += "settings.Settings()); assert 'minatar' not in sys.modules; problem.single('Breakout'); "
    code += "assert 'minatar' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--games Brekout", "--games: expected Breakout, Asterix, SpaceInvaders, Seaquest, Freeway, or all, got 'Brek"
         "out' (did you mean Breakout?)"),
        ("--games Pong", "--games: expected Breakout, Asterix, SpaceInvaders, Seaquest, Freeway, or all, got 'Pong'"),
        ("--inner-steps 0", "--inner-steps: expected an integer of at least 1, got 0"),
        ("--env-steps 7", "--env-steps: expected at least 8, the steps of one update, got 7"),
        ("--estimator ad", "--estimator: expected one of mgrl and mgrl-lvc beside it, which it makes the same, got ad"),
        ("--estimator dice --algorithm mgrl", "--estimator: expected an estimator that uses advantages"),
        ("--inner-lr 0", "--inner-lr: expected a finite number above 0, also in float32, got 0"),
        ("--checkpoint-minutes 0", "--checkpoint-minutes: expected a positive number, got 0"),
        ("--device cuda", "--device: expected auto or cpu, since this app computes on the CPU, got cuda"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(app, arguments, message):
    status, error = app(*arguments.split())
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith(f"mgrl_minatar: {message}")


@pytest.mark.parametrize("module", ["gm_mgrl_atari", "minatar"])
def test_a_run_without_the_extra_says_how_to_install_it(app, tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    status, error = app("--run-dir", "run")
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith(
        "mgrl_minatar: expected gm-experiments[minatar], the extra that has MinAtar's games (uv pip"
    )
    assert not (tmp_path / "run").exists()


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path):
    asked = Settings(algorithms=("mgrl-lvc",), seeds=1, envs=4, steps=2, env_steps=1200)
    (cell,), folder = cells(asked), tmp_path / "training" / "Breakout-mgrl-lvc-0"
    context = replace(run.prepare(asked), run_dir=tmp_path, checkpoint_seconds=0.01)
    child = os.fork()
    if child == 0:
        try:
            run.run_cell(cell, context)
        finally:
            os._exit(1)
    while not any(folder.glob("checkpoint-*.pt")):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it ended without a checkpoint"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL), "it came to its end"
    reached = max(int(path.stem.split("-")[1]) for path in folder.glob("checkpoint-*.pt"))
    assert 0 < reached < 150
    rows = run.run_cell(cell, context)
    assert [row["updates"] for row in rows] == list(range(3, 151, 3))
    assert pd.read_csv(folder / "log.csv")["updates"].tolist() == list(range(3, 151, 3))
    # the batches that two windows begin with, the first and that after the kill, are drawn for themselves
    assert rows[-1]["emulated_steps"] == 1200 + 2 * asked.envs * asked.steps


def results(ends=None, seeds=10, games=GAMES, noise=0.01, moved=0.0):
    """Rows of runs that end where `ends` says, in units of the game, by algorithm or by algorithm and game."""
    draw, rows = np.random.default_rng(0), []
    ends = {"a2c": 0.5, "mgrl": 0.6, "mgrl-lvc": 0.6} if ends is None else ends
    for game, algorithm, seed in product(games, ("a2c", "mgrl", "mgrl-lvc"), range(seeds)):
        level = (ends.get((algorithm, game), ends[algorithm]) + noise * draw.standard_normal()) * scores.UNITS[game]
        shift = moved * (algorithm == "mgrl-lvc") + 0.01 * draw.standard_normal()
        end = 1 / (1 + np.exp(-4.6 - shift))
        for part in range(1, 21):
            known = {"gamma": 0.99 + (end - 0.99) * part / 20, "gae_lambda": 0.95, "value_coef": 0.5}
            rows.append({
                "figure": "returns", "game": game, "algorithm": algorithm, "seed": seed, "updates": 156 * part,
                "env_steps": 50_000 * part, "episode_return": level * part / 20 if part < 19 else level,
                "episodes": 10.0, "steps_per_second": 10_000.0, "entropy_coef": 0.01, **known,
            })  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(frame, settings=LONG):
    return {verdict.id: verdict for verdict in claims.claims(settings, frame)}


@pytest.mark.claim("MINATAR-1", "MINATAR-2")
def test_claims():
    found = verdicts(results(moved=0.5))
    assert {name: verdict.verdict for name, verdict in found.items()} == dict.fromkeys(found, "supported")
    assert len(found["MINATAR-1"].comparisons) == len(GAMES) + 1
    assert "Freeway: logit of the discount γ 0.4" in found["MINATAR-2"].measured


@pytest.mark.claim("MINATAR-1", "MINATAR-2")
def test_a_claim_that_does_not_hold_is_reported():
    worse = {"a2c": 0.5, "mgrl": 0.6, "mgrl-lvc": 0.6, ("mgrl-lvc", "Asterix"): 0.4}
    found = verdicts(results(worse))
    assert {name: verdict.verdict for name, verdict in found.items()} == dict.fromkeys(found, "contradicted")
    outcomes = {item.comparison.label: item.outcome for item in found["MINATAR-1"].comparisons}
    assert outcomes["Asterix: MGRL + LVC less MGRL"] == "contradicted"
    assert outcomes["Breakout: MGRL + LVC less MGRL"] == "supported"


def test_few_seeds_decide_nothing_and_it_is_said_how_many_would():
    found = verdicts(results(seeds=5, moved=0.5))
    assert {verdict.verdict for verdict in found.values()} == {"undecided"}
    assert "about 10 seeds would decide it" in found["MINATAR-1"].measured
    assert "about 10 seeds would decide it" in found["MINATAR-2"].measured
    one = verdicts(results(seeds=1))
    needed = "needs 10 seeds of both algorithms in each game for a first look; there are 1 in Breakout, 1 in Asterix, "
    assert {(v.verdict, v.measured.startswith(needed)) for v in one.values()} == {("not measured", True)}


def test_runs_that_are_not_the_papers_are_not_judged():
    for settings, needed in (
        (replace(LONG, env_steps=300_000), "needs --env-steps 1_000_000, of all games"),
        (replace(LONG, inner_steps=1), "needs --inner-steps 3, of all games"),
        (replace(LONG, estimator="ad"), "needs no --estimator, of all games"),
    ):
        assert {(v.verdict, v.measured) for v in verdicts(results(), settings).values()} == {("not measured", needed)}
    some = verdicts(results(games=["Breakout", "Freeway"], moved=0.5))
    assert {name: v.verdict for name, v in some.items()} == dict.fromkeys(some, "not measured")
    assert some["MINATAR-1"].measured.endswith("0 in Seaquest and 10 in Freeway")


def test_final_returns_weigh_episodes_and_look_back_where_none_ended():
    frame = results(seeds=1, games=["Breakout"], noise=0.0)
    last = frame["env_steps"] > 900_000
    frame.loc[last, "episode_return"] = [1.0, 4.0] * 3
    frame.loc[last, "episodes"] = [10.0, 20.0] * 3
    assert scores.final_returns(frame)["Breakout", "a2c"].tolist() == [pytest.approx(3.0)]
    frame.loc[last, "episodes"] = 0.0
    before = 18 / 20 * 0.5 * scores.UNITS["Breakout"]
    assert scores.final_returns(frame)["Breakout", "a2c"].tolist() == [pytest.approx(before)]


def test_the_interquartile_mean_is_that_of_the_middle_half():
    values = np.array([[0.0, 2.0], [1.0, 3.0], [100.0, 4.0], [-50.0, 5.0]])
    assert scores.iqm(values) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert scores.iqm(np.stack([values, values + 1])).tolist() == [2.5, 3.5]
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((40, 5)))
    found = scores.iqm_interval(frame)
    assert found.low < found.mean < found.high
    # about that of 200 normal numbers, whose middle mean has a standard error of 1.1 / √200
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 1.1 / 200**0.5, rel=0.15)
    assert scores.iqm_interval(frame + 1, frame).low == pytest.approx(1.0)
    assert scores.iqm_interval(frame[:1]).high == np.inf


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (
            results({"a2c": 0.6, "mgrl": 0.6, "mgrl-lvc": 0.6}),
            "10 runs of 1 million environment steps tell no two algorithms apart",
        ),
        (results({"a2c": 0.3, "mgrl": 0.6, "mgrl-lvc": 0.4}), "MGRL ends above A2C in Breakout"),
        (results(seeds=1), "One run each of 1 million environment steps cannot tell algorithms apart"),
        (results({"a2c": 0.6, "mgrl": 0.6, "mgrl-lvc": 0.6}, games=["Breakout"]), "but all learn: from 0.30 to 6.0"),
    ],
)
def test_titles_say_what_intervals_tell(frame, said):
    assert said in findings.returns(frame)


def test_over_games_is_said_what_the_interval_says():
    assert "don't tell MGRL + LVC from MGRL" in findings.over_games(results(noise=0.3))
    assert findings.over_games(results(seeds=1)).startswith("One run each of 1 million environment steps cannot tell")
    better = findings.over_games(results({"a2c": 0.3, "mgrl": 0.4, "mgrl-lvc": 0.6}))
    assert better.startswith("Over 5 games MGRL + LVC ends above MGRL; it ends above in Breakout, Asterix, ")


@pytest.mark.parametrize("frame", [results(noise=0.3), results(seeds=1), results(games=["Freeway"])])
def test_pictures_are_as_they_should_be(frame):
    for name, figure in figures.figures(LONG, frame).items():
        assert FAULTS(figure) == [], name


def test_the_closing_table_has_a_row_for_each_game_and_algorithm():
    table = tables.summary(LONG, results())
    assert table["run"].tolist()[:3] == ["Breakout a2c", "Breakout mgrl", "Breakout mgrl-lvc"]
    assert len(table) == 15
    assert (table["low"] < table["return"]).all()
    assert table["γ"].between(0.98, 1).all()


def test_what_the_page_says_follows_from_the_results_beside_it():
    page = runpy.run_path(str(ROOT / "docs" / "minatar_picture.py"))
    kept = page["rows_of"]()
    assert set(kept["game"]) <= set(GAMES)
    assert kept[list(NAMES)].notna().all(axis=None)
    assert page["VERDICTS"].read_text() == page["verdicts"](kept)
    assert page["RETURNS"].read_text() == page["returns"](kept)


def test_parts_keep_returns_and_the_end(tmp_path):
    page = runpy.run_path(str(ROOT / "docs" / "minatar_picture.py"))
    (tmp_path / "cells").mkdir()
    of_run = {"figure": "returns", "game": "Breakout", "algorithm": "mgrl-lvc", "seed": 3}
    row = of_run | dict.fromkeys([*NAMES, "emulated_steps"], 0.5)
    log = [
        row | {"updates": n, "env_steps": 320 * n, "episode_return": back, "episodes": count, "steps_per_second": 10.0}
        for n, back, count in ((100, 1.0, 1), (150, 4.0, 2), (200, np.nan, 0), (312, 7.0, 1))
    ]
    (tmp_path / "cells" / "one.json").write_text(json.dumps({"rows": log}))
    (tmp_path / "cells" / "other.json").write_text(json.dumps({"rows": [r | {"algorithm": "mgrl"} for r in log]}))
    alone = [r | {"seed": 4, "algorithm": "a2c"} for r in log]  # of a seed whose other run is to come
    (tmp_path / "cells" / "late.json").write_text(json.dumps({"rows": alone}))
    kept = page["in_parts"](page["finished"](tmp_path))
    assert kept[["algorithm", "seed", "updates", "episodes", "episode_return"]].to_numpy().tolist() == [
        [name, 3, *part] for name in ("mgrl", "mgrl-lvc") for part in ((150, 3, 3.0), (312, 1, 7.0))
    ]


def test_the_app_names_its_flags(capsys):
    with pytest.raises(SystemExit):
        gm_lab.main(EXPERIMENT, ["--help"])
    assert "--schedule" in capsys.readouterr().out


def test_seeds_of_each_game_are_drawn_for_themselves():
    """Where the seeds of two games mirror each other, drawing them together would leave the mean as it is."""
    level = np.linspace(0, 1, 10)
    found = scores.iqm_interval(pd.DataFrame({"one": level, "other": 1 - level}))
    assert found.low < 0.49
    assert found.high > 0.51


def test_shorter_runs_are_not_judged():
    found = verdicts(results(moved=0.5), replace(LONG, env_steps=LONG.env_steps - 1))
    assert {verdict.verdict for verdict in found.values()} == {"not measured"}
    assert all("--env-steps 1_000_000" in verdict.measured for verdict in found.values())


def test_a_difference_that_one_interval_of_twenty_would_tell_is_not_told():
    """In Breakout logits differ by 3 standard errors: a 95% interval tells it, those that hold together do not."""
    said = verdicts(results(moved=0.012))["MINATAR-2"].measured
    mean, low, high = map(float, re.search(r"Breakout: .*? γ (\S+) \[(\S+), (\S+)\]", said).groups())
    assert low < 0 < mean < high
    assert mean > 2.262 * (high - mean) / 4.146  # Student's quantiles with 9 degrees of freedom, of 95% and of 99.75%
