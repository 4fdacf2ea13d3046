"""The explorer in a real browser: what it shows is what results.csv and gm_exact have, and it asks nobody for it."""

import importlib.util
import json
import shlex
from pathlib import Path

import pytest
import torch

import explore
import gm_estimators
import gm_exact
import gm_lab
import maml_tabular
from gm_estimators import surrogates
from gm_experiments.common.labels import ESTIMATORS
from gm_experiments.explore import tiny
from gm_lab.analysis import mean_interval, read_results

SMALL = ["--mdps", "3", "--repeats", "3", "--states", "4", "--actions", "2", "--horizon", "4"]
GRID = ["--inner-lrs", "1", "10", "--inner-steps", "1", "2", "--sample-sizes", "2", "8"]
QUIET = ["--wandb", "disabled", "--workers", "1"]
RIGHT, LEFT = ("ArrowRight", 39), ("ArrowLeft", 37)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# the rows of a table: what a row is called, and its numbers with the intervals below them
TABLE = """Array.from(document.querySelectorAll("#%s tbody tr"), row => [row.querySelector("th").textContent,
    Array.from(row.querySelectorAll("td"), cell => cell.textContent)])"""
UNLABELLED = """Array.from(document.querySelectorAll("input, select, button"))
    .filter(control => !control.labels?.length && !control.textContent.trim()).length"""


def load(path):
    """A file of another package's tests as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    module = load(Path(__file__).parents[1] / "packages" / "gm-lab" / "tests" / "browser.py")
    with module.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    path = tmp_path_factory.mktemp("explored") / "run"
    assert gm_lab.main(explore.EXPERIMENT, [*SMALL, *GRID, *QUIET, "--run-dir", str(path)]) == 0
    return path


def shown(tab, table):
    """The numbers of a table of the page, by row."""
    return dict(tab.evaluate(TABLE % table))


def text(value):
    """A number as the page has it: three significant digits."""
    return f"{float(f'{value:.3g}'):.10g}".replace("-", "−")


def expected(frame, **place):
    """What the page says about the accuracy at a point, by estimator."""
    rows = frame[frame["permutation"] == "SSE"]
    for column, value in place.items():
        rows = rows[rows[column] == value]
    found = {ESTIMATORS[name]: mean_interval(of["accuracy"]) for name, of in rows.groupby("estimator")}
    return {name: f"{text(at.mean)}[{text(at.low)}, {text(at.high)}]" for name, at in found.items()}


@pytest.mark.parametrize("screen", ["phone", "desktop"])
def test_a_slider_that_moves_shows_the_numbers_of_results(browser, explored, screen):
    frame = read_results(explored / "results.csv")
    page = (explored / "explorer.html").as_uri()
    with browser.open(page, screen) as tab:
        tab.settle()
        assert {name: row[0] for name, row in shown(tab, "numbers").items()} == expected(
            frame, inner_lr=10, inner_steps=1, sample_size=8
        )
        tab.press(*LEFT, "#inner_lr")
        tab.press(*RIGHT, "#inner_steps")
        tab.press(*LEFT, "#sample_size")
        assert {name: row[0] for name, row in shown(tab, "numbers").items()} == expected(
            frame, inner_lr=1, inner_steps=2, sample_size=2
        )
        assert tab.evaluate("document.querySelector('#inner_steps').getAttribute('aria-valuetext')") == "2"
        assert tab.evaluate(OVERFLOW) == 0
        assert tab.evaluate(UNLABELLED) == 0
        assert tab.evaluate("document.querySelectorAll('#chart svg, #arrows svg, #curve svg').length") == 3
        assert tab.complaints == []
        assert tab.requests == [page]


def test_switches_and_boxes_choose_what_is_drawn(browser, explored):
    with browser.open((explored / "explorer.html").as_uri(), "desktop") as tab:
        tab.evaluate("document.querySelector('#names input[value=dice]').click()")
        tab.evaluate("document.querySelector('#exact2').click()")
        tab.settle()
        assert list(shown(tab, "numbers")) == ["AD", "Loaded-DiCE", "LVC"]
        assert "Everything is sampled" in tab.evaluate("document.querySelector('#sampled').textContent")
        assert "--permutations SSS " in tab.evaluate("document.querySelector('#command').textContent")
        for part in (0, 1, 2):
            tab.evaluate(f"document.querySelector('#exact{part}').click()")
        tab.settle()
        assert shown(tab, "numbers") == {}
        assert "Nothing is sampled" in tab.evaluate("document.querySelector('#sampled').textContent")
        tab.evaluate("document.querySelector('#exact1').click()")
        for control, value in (("metric", "error"), ("axis", "inner_lr")):
            tab.evaluate(f"document.querySelector('#{control}').value = '{value}'")
            tab.evaluate(f"document.querySelector('#{control}').dispatchEvent(new Event('change'))")
        tab.settle()
        titles = tab.evaluate("Array.from(document.querySelectorAll('#chart svg text'), text => text.textContent)")
        assert {"mean squared error", "step size α"} <= set(titles)
        assert tab.complaints == []


def test_the_command_that_is_shown_computes_the_number_that_is_shown(browser, explored, tmp_path):
    with browser.open((explored / "explorer.html").as_uri(), "desktop") as tab:
        tab.press(*RIGHT, "#inner_steps")
        seen = {name: row[0] for name, row in shown(tab, "numbers").items()}
        words = shlex.split(tab.evaluate("document.querySelector('#command').textContent"))
    assert words[:3] == ["uv", "run", "apps/maml_tabular.py"]
    assert gm_lab.main(maml_tabular.EXPERIMENT, [*words[3:], *QUIET, "--run-dir", str(tmp_path / "run")]) == 0
    assert seen == expected(read_results(tmp_path / "run" / "results.csv"))


# The tiny MDP


SURROGATES = {name: getattr(surrogates, name) for name in ESTIMATORS}


def tiny_mdp():
    tables = (torch.tensor(table, dtype=torch.float64) for table in (tiny.TRANSITION, tiny.REWARD))
    return gm_exact.TabularMDP(*tables, tiny.START, tiny.DISCOUNT), torch.tensor(tiny.PARAMS, dtype=torch.float64)


def seen_by(name, mdp, params):
    """What an estimator reads of every trajectory: exact values as baseline, none for DiCE; the rest is a surrogate."""
    steps = range(tiny.HORIZON)
    values = torch.stack([gm_exact.state_values(mdp, params, tiny.HORIZON - t) for t in steps] + [torch.zeros(2)])

    def surrogate(log_prob, every):
        value = torch.stack([values[t, every.states[:, t]] for t in (*steps, tiny.HORIZON)], dim=-1)
        value = torch.zeros_like(value) if name == "dice" else value
        discount = tiny.DISCOUNT ** torch.arange(tiny.HORIZON + 1, dtype=torch.float64)
        to_go = (discount[:-1] * every.rewards).flip(-1).cumsum(-1).flip(-1) / discount[:-1]
        read = gm_estimators.Trajectories(
            log_prob=log_prob, reward=every.rewards, value=value, advantage=to_go - value[:, :-1],
            discount=discount.expand_as(value),
        )  # fmt: skip
        return SURROGATES[name](read)

    return surrogate


def on_average(name, rate, count, inner, hessian):
    """E[x] of an estimator x of the meta-gradient with K = 1, over all ways to draw the inner gradient."""
    mdp, params = tiny_mdp()
    surrogate = seen_by(name, mdp, params)
    exact = gm_exact.gradient(mdp, params, tiny.HORIZON)
    every = gm_exact.trajectories(mdp, tiny.HORIZON)
    each = torch.autograd.functional.jacobian(lambda theta: surrogate(every.log_probs(theta), every), params)
    chance = every.probability(params)
    firsts, chances = each, chance
    for _ in range(count - 1):  # the sum of one more trajectory
        firsts = (firsts.unsqueeze(1) + each).flatten(0, 1)
        chances = (chances.unsqueeze(1) * chance).flatten()
    ends = params + rate * (firsts / count if inner else exact.expand_as(firsts))
    outer = (chances[:, None, None] * gm_exact.gradient(mdp, ends, tiny.HORIZON)).sum(0)
    second = gm_exact.expectation(surrogate, mdp, params, tiny.HORIZON).hessian
    true = gm_exact.hessian(mdp, params, tiny.HORIZON)
    chosen = (second if hessian else true).reshape(4, 4)
    bias = (second.reshape(4, 4) - true.reshape(4, 4)).norm() / true.norm()
    return (outer.flatten() + rate * chosen @ outer.flatten()).tolist(), float(bias)


@pytest.mark.parametrize("count", [1, 2])
def test_the_browser_enumerates_what_gm_exact_enumerates(browser, explored, count):
    mdp, params = tiny_mdp()
    script = """(() => {
        const prepared = tiny.prepare(charts.data().tiny, %s), names = Object.keys(prepared.of);
        const cases = [[true, true], [true, false], [false, true]];
        const each = of => Object.fromEntries(names.map(name => [name, of(name)]));
        return %s.map(rate => [
            tiny.metaGradient(prepared, rate),
            each(name => cases.map(([inner, hessian]) => tiny.expectation(prepared, name, rate, %d, {inner, hessian}))),
            each(name => tiny.hessianBias(prepared, name))]);
    })()"""
    rates = [0.3, 1.0, 2.7]
    with browser.open((explored / "explorer.html").as_uri(), "desktop") as tab:
        found = tab.evaluate(script % (json.dumps(list(ESTIMATORS)), json.dumps(rates), count))
    for rate, (truth, means, biases) in zip(rates, found, strict=True):
        exact = gm_exact.maml_meta_gradient(mdp, params, inner_steps=1, inner_lr=rate, horizon=tiny.HORIZON)
        assert truth == pytest.approx(exact.flatten().tolist(), abs=1e-12)
        for name in ESTIMATORS:
            cases = [(True, True), (True, False), (False, True)]
            expected = [on_average(name, rate, count, inner, hessian) for inner, hessian in cases]
            for seen, (mean, bias) in zip(means[name], expected, strict=True):
                assert seen == pytest.approx(mean, abs=1e-12)
                assert biases[name] == pytest.approx(bias, abs=1e-12)


def test_the_table_of_the_tiny_mdp_has_those_numbers(browser, explored):
    mdp, params = tiny_mdp()
    with browser.open((explored / "explorer.html").as_uri(), "phone") as tab:
        tab.press(*RIGHT, "#rate")
        tab.press(*RIGHT, "#few")
        rate = float(tab.evaluate("document.querySelector('output[for=rate]').textContent"))
        seen = shown(tab, "tiny-numbers")
    exact = gm_exact.maml_meta_gradient(mdp, params, inner_steps=1, inner_lr=rate, horizon=tiny.HORIZON).flatten()
    assert seen["true"][:2] == [text(exact[1]), text(exact[3])]
    for name, label in ESTIMATORS.items():
        mean, bias = on_average(name, rate, 2, inner=True, hessian=True)
        off = float((torch.tensor(mean) - exact).norm() / exact.norm())
        assert seen[label] == [text(mean[1]), text(mean[3]), text(off), text(bias if bias > 1e-12 else 0.0)]
