"""LPG's lifetimes and meta-training, and the experiment end to end: files, refusals, a run that was cut, verdicts."""

import json
import sys
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

import gm_lab
from gm_experiments.lpg import EXPERIMENT, claims, lifetimes
from gm_experiments.lpg import run as lpg_run
from gm_experiments.lpg.problem import POLICY, new_agent
from gm_experiments.lpg.settings import Lpg, LpgCell, Settings, Tuning, cells, completed, further_cells
from gm_experiments.lpg.training import MetaTraining

TINY = "--meta-updates 4 --lifetime 10 --tasks 8 --side 3 --held-out 2 --held-out-side 4 --tuning-tasks 2 --hidden 4"
QUICK = (
    "--rules 2 --inner-lrs 1 3 --critic-lrs 1 --gae-lambdas 0.9 --mdps 2 --repeats 2 --sample-sizes 4 --inner-steps 1 2"
)
SMALL = [*TINY.split(), *QUICK.split(), "--horizon", "8", "--wandb", "disabled"]


@pytest.fixture
def app(run_app):
    return partial(run_app, EXPERIMENT, *SMALL)


def small(**changes):
    base = Lpg(side=3, horizon=8, lifetime=20, hidden=8, tasks=16, meta_updates=30, outer_trajectories=4)
    return replace(base, **changes)


def training(seed=0, **changes):
    return MetaTraining(small(**changes), np.random.default_rng(seed))


def test_scores_are_zero_for_the_uniform_policy_and_at_most_one():
    for kind in lifetimes.KINDS:
        tasks = lifetimes.draw_tasks(np.random.default_rng(0), kind, 3, 4, 0.9, 8)
        agent = new_agent((4,), 10, 4, 2, torch.float32)
        assert tasks.score(agent).abs().max() < 1e-12
        agent[POLICY] = torch.randn(4, 10, 4, generator=torch.Generator().manual_seed(0)) * 5
        assert tasks.score(agent).max() <= 1


def test_samples_are_of_the_task_and_end_where_it_does():
    tasks = lifetimes.draw_tasks(np.random.default_rng(0), "grid", 3, 4, 0.9, 30)
    sample = tasks.sample(new_agent((4,), 10, 4, 2, torch.float64), 5, np.random.default_rng(1))
    for task in range(4):
        expected = tasks.mdp.reward[task, sample.state[task, :, :-1], sample.action[task]]
        torch.testing.assert_close(sample.reward[task], expected)
    assert torch.equal(sample.termination == 1, sample.state[..., 1:] == 9)
    assert sample.termination.mean() > 0.1


@pytest.mark.parametrize("rule", ["policy_gradient", "actor_critic"])
def test_hand_made_rules_learn(rule):
    tasks = lifetimes.draw_tasks(np.random.default_rng(0), "grid", 3, 8, 0.9, 8)
    ((_, new),) = lifetimes.hand_made_trials(Tuning((2.0,), (), (0.3,), (0.9,)), rule, 0.9)
    scores = lifetimes.live(tasks, new(), 40, 4, 2, np.random.default_rng(1)).mean(1)
    assert scores[-1] > 0.4


def test_agents_go_on_from_the_end_of_a_window_until_their_lives_end():
    """Of 8 pairs of tasks (one of each kind) two begin anew after each window, as a life is four windows long."""
    run = training(lifetime=20, window=5, tasks=16)
    for _ in range(4):
        run.step()
        ended = [i for i in range(16) if (i // 2) % 4 == run.windows % 4]
        for table in run.agent.values():
            moved = table.abs().amax((-1, -2)) > 0
            assert moved.tolist() == [i not in ended for i in range(16)]


def test_one_long_window_moves_agents_as_two_short_ones_do(monkeypatch):
    """Windows cut the meta-gradient, not the lives: with a rule that stays as it is, agents don't notice."""
    monkeypatch.setattr(MetaTraining, "_begin_anew", lambda self: None)
    monkeypatch.setattr(
        MetaTraining,
        "_outer",
        lambda self, agent, sample, kept: agent["policy"].sum((-1, -2)) * 0 + agent["policy"].sum(),
    )
    long, short = (training(window=k, outer_trajectories=1) for k in (4, 2))
    for run in (long, short):
        run._optimiser.step = lambda: None
        draws = iter(np.random.SeedSequence(0).spawn(100))
        sample = run.tasks.sample

        def numbered(agent, trajectories, _rng, sample=sample, draws=draws):
            rng = np.random.default_rng(0) if trajectories == 1 else np.random.default_rng(next(draws))
            return sample(agent, trajectories, rng)

        run.tasks.sample = numbered
    long.step()
    short.step()
    short.step()
    torch.testing.assert_close(long.agent, short.agent)
    assert long.agent["policy"].abs().max() > 1e-3


def test_a_restored_training_goes_on_as_if_nothing_had_happened():
    whole, first, second = training(), training(), training(seed=5)
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second.restore(first.state())
    for _ in range(2):
        second.step()
    assert second.scores == whole.scores
    for found, expected in ((second.agent, whole.agent), (second.weights, whole.weights)):
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(second.tasks.mdp.transition, whole.tasks.mdp.transition)


def test_meta_training_learns():
    """Thirty windows at a tiny budget: agents of all ages score higher at the end than at the beginning."""
    run = training(tasks=32, meta_updates=60, meta_lr=1e-2, horizon=6, discount=0.9)
    while run.windows < 60:
        run.step()
    assert np.mean(run.scores[-10:]) > np.mean(run.scores[4:10])


def test_a_run_leaves_what_it_promises(app, tmp_path):
    status, error = app("--run-dir", "run")
    assert status == 0, error
    frame = pd.read_csv(tmp_path / "run" / "results.csv", keep_default_na=False, na_values=["nan"])
    counts = frame["figure"].value_counts().to_dict()
    assert counts["learning"] == (2 * 2 + 4) * 2 * 2 * 3  # rules, kinds, tasks, updates 0, 5, 10
    assert counts["tuning"] == 2 * 2 * (2 + 2 + 2 * 7)  # criteria, kinds, settings of hand-made and of two learnt rules
    tuned = frame[frame["figure"] == "tuning"]
    best = tuned.loc[tuned.groupby(names := ["rule", "seed", "kind"])["score"].idxmax()].set_index(names)["lr"]
    used = frame[frame["figure"] == "learning"].groupby(names)["lr"].unique()
    assert {key: list(values) for key, values in used.items()} == {key: [value] for key, value in best.items()}
    assert counts["gradient"] == 5 * 2 * 2 * 2  # estimators, permutations, K, MDPs
    assert counts["meta"] == 2 * 4
    assert np.isfinite(frame[frame["figure"] != "gradient"]["score"]).all()
    for figure in ("learning", "meta", "gradient"):
        assert (tmp_path / "run" / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    verdicts = json.loads((tmp_path / "run" / "claims.json").read_text())
    assert [verdict["id"] for verdict in verdicts] == [f"LPG-{i}" for i in range(1, 5)]


@pytest.fixture
def plug_in(tmp_path, monkeypatch):
    body = "return (t.discount[..., :-1] * t.advantage * (t.log_prob - t.log_prob.detach()).exp()).sum(-1)"
    (tmp_path / "my_lpg.py").write_text(f"def right(t):\n    {body}\n\ndef wrong(t):\n    return t.log_prob\n")
    monkeypatch.delitem(sys.modules, "my_lpg", raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_users_estimator_joins_study_and_training(app, plug_in, tmp_path):
    """One's own LVC is LVC, in the study and in meta-training."""
    study = ["--figure", "gradient", "--estimators", "lvc", "my_lpg:right"]
    assert app("--run-dir", "study", *study)[0] == 0
    frame = pd.read_csv(tmp_path / "study" / "results.csv").set_index(["permutation", "inner_steps", "mdp"])
    measured = ["accuracy", "variance", "bias_sq", "expected_bias_sq"]
    by_name = [frame[frame["estimator"] == name][measured].sort_index() for name in ("lvc", "my_lpg:right")]
    pd.testing.assert_frame_equal(*by_name, rtol=1e-9, atol=1e-12)
    runs = [training(estimator=name) for name in ("lvc", "my_lpg:right")]
    for run in runs:
        run.step()
    torch.testing.assert_close(runs[0].agent, runs[1].agent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--figure fig1", "--figure: expected one of learning, gradient, got 'fig1'"),
        ("--window 3", "--lifetime: expected a multiple of the window, 3, got 10"),
        ("--side 1", "--side: expected an integer of at least 2, got 1"),
        ("--discount 1", "--discount: expected 0 ≤ γ < 1, got 1.0"),
        ("--trajectories 0", "--trajectories: expected an integer of at least 1, got 0"),
        ("--inner-lrs 1 0", "--inner-lrs: expected numbers above 0 and up to 1e30, got (1.0, 0.0)"),
        ("--estimator corrected", "--estimator: expected one of ad,"),
        ("--estimators ad lvc+jackknife", "--estimators: expected an estimator without +jackknife, which only"),
        ("--estimators ad none", "--estimators: expected one of ad,"),
        ("--device cuda", "--device: expected auto or cpu, since this app computes on the CPU, got cuda"),
        ("--figure gradient --estimators my_lpg:wrong", "estimator my_lpg:wrong: surrogate: expected one number"),
        ("--figure learning --estimator my_lpg:wrong", "estimator my_lpg:wrong: surrogate: expected one number"),
    ],
)
def test_bad_input_is_one_line_and_status_2(app, plug_in, arguments, message):
    status, error = app(*arguments.split())
    assert status == 2
    assert error.splitlines()[-1].startswith(f"lpg_tabular: {message}")


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_with_the_same_rows(monkeypatch, tmp_path):
    """Windows that have a checkpoint are not computed again, and one that is damaged costs time only."""
    lpg = small(meta_updates=7, lifetime=10, tasks=4)
    cell = LpgCell(0, "lpg", 0, lpg, (2, 3), Tuning((1.0,), (3.0,), (1.0,), (0.9,)), 2)
    monkeypatch.setattr(lpg_run, "CHECKPOINT_WINDOWS", 3)
    undisturbed = lpg_run.run_cell(cell, gm_lab.Context())

    class Killed(BaseException):
        """The end of the process."""

    computed, step = [], MetaTraining.step

    def counted(training):
        if len(computed) == 5:
            computed.clear()
            raise Killed
        computed.append(training.windows)
        step(training)

    monkeypatch.setattr(MetaTraining, "step", counted)
    context = gm_lab.Context(tmp_path)
    with pytest.raises(Killed):
        lpg_run.run_cell(cell, context)
    (checkpoint,) = tmp_path.glob("training/*.pt")
    assert torch.load(checkpoint, weights_only=True)["windows"] == 3
    assert same(lpg_run.run_cell(cell, context), undisturbed)
    assert computed == [3, 4, 5, 6]


def test_a_damaged_checkpoint_costs_time_only(tmp_path, capsys):
    lpg = small(meta_updates=2, lifetime=5, tasks=4)
    cell = LpgCell(0, "lpg", 0, lpg, (1, 2), Tuning((1.0,), (3.0,), (1.0,), (0.9,)), 1)
    whole = lpg_run.meta_trained(cell, gm_lab.Context())
    checkpoint = tmp_path / "training" / f"rule-{gm_lab.cell_id(cell)}.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(whole.state()[:1000])
    anew = lpg_run.meta_trained(cell, gm_lab.Context(tmp_path))
    assert f"{checkpoint.name} is damaged" in capsys.readouterr().err
    assert anew.scores == whole.scores
    assert all(torch.equal(anew.weights[name], weight) for name, weight in whole.weights.items())


def same(rows, others):
    """Whether tables have the same text, NaN included."""
    return [*map(repr, rows)] == [*map(repr, others)]


def results_that_hold():
    """results.csv where every claim holds with room to spare: ten learnt rules, each hand-made one once."""
    rng, rows = np.random.default_rng(0), []
    scores = {"lpg": 0.9, "policy_gradient": 0.4, "actor_critic": 0.3}
    scores |= {f"{rule}_for_the_mean": score for rule, score in scores.items()}
    for kind in ("random", "grid"):
        for task in range(20):
            luck = 0.1 * rng.random()
            for rule, score in scores.items():
                for seed, update in product(range(10 if rule.startswith("lpg") else 1), (0, 100)):
                    here = {"kind": kind, "task": f"{kind} {task:03d}", "update": update}
                    end = (score - luck + 0.01 * rng.random()) * update / 100
                    rows.append({"figure": "learning", "rule": rule, "seed": seed, **here, "score": end})
    for steps in (1, 2, 3):
        for mdp in range(20):
            for name, bias in {"ad": 0.4, "lvc": 0.01}.items():
                value = bias * (steps - 1) * (1 + 0.1 * rng.random())
                point = {"estimator": name, "permutation": "ESE", "sample_size": 16, "inner_steps": steps, "mdp": mdp}
                rows.append({"figure": "gradient", **point, "expected_bias_sq": value})
    return pd.DataFrame([completed(row) for row in rows])


def verdicts(frame):
    return {verdict.id: verdict for verdict in claims.claims(Settings(), frame)}


@pytest.mark.claim("LPG-1", "LPG-2", "LPG-3", "LPG-4")
def test_claims():
    found = verdicts(results_that_hold())
    assert {name: v.measured for name, v in found.items() if v.verdict != "supported"} == {}


# claim ↦ rows to spoil, the column, and what to add
SPOILT = {
    "LPG-1": ("rule == 'lpg' and kind == 'grid' and update == 100", "score", -0.9),
    "LPG-2": ("rule == 'actor_critic_for_the_mean' and update == 100", "score", 1.0),
    "LPG-3": ("estimator == 'lvc' and inner_steps == 1", "expected_bias_sq", 1e-6),
    "LPG-4": ("estimator == 'lvc' and inner_steps == 3", "expected_bias_sq", 2.0),
}


@pytest.mark.parametrize("claim", SPOILT)
def test_a_claim_that_does_not_hold_is_reported(claim):
    frame = results_that_hold()
    where, column, change = SPOILT[claim]
    frame.loc[frame.eval(where), column] += change
    assert verdicts(frame)[claim].verdict == "contradicted"


def test_rules_that_differ_leave_a_claim_open_however_many_tasks_agree():
    """Half of the rules lead and half trail: the mean is above, and so it is in every task; another rule may trail."""
    frame = results_that_hold()
    trailing = frame.eval("rule == 'lpg' and update == 100 and seed % 2 == 0")
    frame.loc[trailing, "score"] -= 0.5
    (first, *_) = verdicts(frame)["LPG-1"].comparisons
    by_task = first.comparison.values.mean(axis=0)
    assert (by_task > 0).all()
    assert (first.outcome, first.interval.count) == ("undecided", 10)


def test_a_hand_made_rule_is_the_same_for_every_learnt_one():
    lives = results_that_hold().query("figure == 'learning' and update == 100")
    ours, theirs = claims.beside(lives, "lpg", "actor_critic")
    assert ours.shape == theirs.shape == (10, 40)
    assert (theirs.nunique() == 1).all()
    one = lives.query("rule == 'actor_critic'").set_index("task")["score"]
    assert theirs.loc[3].to_dict() == one.to_dict()
    some, reference = claims.beside(lives.query("rule != 'lpg' or task != 'grid 003'"), "lpg", "actor_critic")
    assert list(some.columns) == list(reference.columns) == list(ours.columns)
    assert some["grid 003"].isna().all()  # a task that one side lacks is not left out


@pytest.mark.parametrize("where", ["rule == 'policy_gradient'", "rule == 'lpg' and task == 'grid 003' and seed == 9"])
def test_what_is_nan_or_missing_is_not_measured(where):
    frame = results_that_hold()
    spoilt = frame.eval(where)
    for changed in (frame[~spoilt], frame.assign(score=frame["score"].mask(spoilt))):
        outcomes = {item.comparison.label: item.outcome for item in verdicts(changed)["LPG-1"].comparisons}
        assert outcomes["all tasks, against policy gradient"] == "not measured"
        assert outcomes["random MDPs, against actor critic"] == "supported"


def test_a_claim_without_its_rows_is_not_decided():
    frame = results_that_hold()
    found = verdicts(frame[frame["figure"] == "learning"])
    expected = ["supported", "supported", "not measured", "not measured"]
    assert [found[f"LPG-{i}"].verdict for i in range(1, 5)] == expected


def test_an_mdp_has_its_rows_however_many_there_are(rows_of):
    """Of the study: also beyond the ten that the rule is learnt on."""
    flags = ["--figure", "gradient", "--repeats", "2", "--sample-sizes", "4", "--inner-steps", "2", "--mdps"]
    fewer, more = (rows_of(EXPERIMENT, *flags, str(mdps)) for mdps in (2, 12))
    same_mdps = more[more["mdp"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(fewer, same_mdps, check_exact=True)
    assert more.groupby("mdp")["variance"].sum().nunique() == 12


def test_more_rules_go_on_from_fewer(app, tmp_path, capsys):
    """Each rule has random numbers of its own."""
    rows = []
    for rules in ("1", "2"):
        assert app("--figure", "learning", "--run-dir", "run", "--rules", rules)[0] == 0
        frame = pd.read_csv(tmp_path / "run" / "results.csv", keep_default_na=False)
        rows.append(frame[frame["seed"].astype(float) == 0].reset_index(drop=True))
    pd.testing.assert_frame_equal(*rows)


def test_open_claims_get_more_of_what_they_are_about():
    settings = Settings(rules=10, mdps=10, inner_steps=(2,), until_decided=True)
    rules = further_cells(settings, range(10, 20), frozenset({"learning"}))
    assert [(cell.part, cell.index) for cell in rules] == [("lpg", index) for index in range(10, 20)]
    assert {cell.part for cell in cells(settings)} > {cell.part for cell in rules}
    (study,) = further_cells(settings, range(10, 20), frozenset({"gradient"}))
    assert study.study is not None
    assert study.study[2] == tuple(range(10, 20))
    assert cells(replace(settings, rules=20, mdps=20, figure=("gradient",)))[1] == study
