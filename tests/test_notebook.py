"""The notebook of docs/notebooks: every cell runs, and its numbers are those of gm_exact and of plain sums."""

import importlib.util
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gm_exact import gradient, hessian, maml_meta_gradient, trajectories
from gm_lab.analysis import finding_of

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebooks" / "bias_in_five_minutes.py"
SLIDERS = {
    "alpha_slider": SimpleNamespace(value=3.0),
    "n_slider": SimpleNamespace(value=2),
    "sizes": [1, 2, 4, 8, 16, 32],
}


def app_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.app


@pytest.fixture(scope="module")
def app():
    return app_of(NOTEBOOK)


@pytest.fixture(scope="module")
def ran(app):
    """What is shown, and what the cells define; a cell that fails raises."""
    return app.run()


@pytest.fixture(scope="module")
def found(ran):
    return ran[1]


def test_every_cell_shows_what_it_has_to_say(ran):
    outputs, _ = ran
    shown = [output.text for output in outputs if hasattr(output, "text")]
    assert len(shown) >= 6
    assert not re.search(r"\bnan\b|\binf\b", " ".join(shown))


def test_the_truth_is_that_of_gm_exact(found):
    mdp, theta, horizon = found["mdp"], found["theta"], found["horizon"]
    truth = maml_meta_gradient(mdp, theta, inner_lr=1.0, inner_steps=1, horizon=horizon)
    torch.testing.assert_close(found["exact"], truth)
    torch.testing.assert_close(found["by_hand"], truth)
    assert float(found["probability"].sum()) == pytest.approx(1)


def test_the_hessians_are_as_it_says(found):
    """AD has none with a perfect critic, LVC lacks a part, DiCE has all of it."""
    truth = hessian(found["mdp"], found["theta"], found["horizon"])
    assert float(found["estimates"]["ad"].hessian.abs().max()) < 1e-12
    assert 0.1 < found["hessian_error"]["lvc"] < 0.9
    torch.testing.assert_close(found["estimates"]["dice"].hessian, truth)
    assert max(found["gradient_error"].values()) < 1e-12


def error_of_dice(found, alpha, n):
    """The mean over every ordered sample of n trajectories, one after the other."""
    mdp, theta, horizon = found["mdp"], found["theta"], found["horizon"]
    every = trajectories(mdp, horizon)
    probability = every.probability(theta)
    outer = torch.zeros_like(theta)
    for sample in itertools.product(range(len(probability)), repeat=n):
        step = found["per_trajectory"][list(sample)].mean(0)
        outer += probability[list(sample)].prod() * gradient(mdp, theta + alpha * step, horizon)
    truth = maml_meta_gradient(mdp, theta, inner_lr=alpha, inner_steps=1, horizon=horizon)
    curved = torch.einsum("saxb,xb->sa", hessian(mdp, theta, horizon), outer)
    return float((outer + alpha * curved - truth).norm() / truth.norm())


@pytest.mark.parametrize(("alpha", "n"), [(2.0, 1), (0.5, 2), (4.0, 3)])
def test_composition_is_the_mean_over_every_sample(found, alpha, n):
    assert found["bias"](alpha, n)["dice"] == pytest.approx(error_of_dice(found, alpha, n), rel=1e-9)


def test_one_trajectory_is_right_about_the_gradient_on_average(found):
    mean = torch.einsum("k,ksa->sa", found["probability"], found["per_trajectory"])
    torch.testing.assert_close(mean, gradient(found["mdp"], found["theta"], found["horizon"]))


def test_the_answers_are_true(found):
    one, many, tiny, small, fine = (found[name] for name in ("one", "many", "tiny", "small", "fine"))
    assert many["ad"] > 0.8 * one["ad"]
    assert small["dice"] / tiny["dice"] == pytest.approx(4, rel=0.05)  # as α²
    assert small["dice"] / fine["dice"] == pytest.approx(8, rel=0.05)  # as 1/n
    assert one["dice"] / many["dice"] > 8  # beyond small steps


def test_the_sliders_move_the_picture(app, found):
    _, moved = app.run(defs=SLIDERS)
    assert moved["here"] == found["bias"](3.0, 2)
    assert [axes.get_title(loc="left") for axes in moved["figure"].axes] == ["n = 2 trajectories", "α = 3"]
    assert finding_of(moved["figure"]) != finding_of(found["figure"])


@pytest.mark.parametrize("horizon", [1, 3])
def test_a_reader_may_change_the_horizon(horizon, tmp_path):
    """As the exercise about LVC asks: with one step it is right."""
    code = NOTEBOOK.read_text()
    assert code.count("horizon, discount = 2, 0.9") == 1
    changed = tmp_path / "changed.py"
    changed.write_text(code.replace("horizon, discount = 2, 0.9", f"horizon, discount = {horizon}, 0.9"))
    _, found = app_of(changed).run()
    assert (found["hessian_error"]["lvc"] < 1e-9) == (horizon == 1)
    assert found["sizes"][-1] == {1: 32, 3: 8}[horizon]
