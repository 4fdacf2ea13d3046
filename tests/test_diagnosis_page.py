"""A diagnosis by gm-estimators is what gm-lab's page and picture take."""

import html

import pytest
import torch

from gm_estimators import Sizes, Trajectories
from gm_estimators.diagnose import diagnose
from gm_lab import diagnosis_page, log_diagnosis
from gm_lab.analysis import caption_of, diagnosis_figure, finding_of


def draw(role, step, params, n, seed):
    return params + torch.randn(*params.shape[:-1], n, generator=torch.Generator().manual_seed(seed))


def see(action, params, gae_lambda):
    log_prob, reward = -0.5 * (action - params).square(), -0.5 * (action - 1).square()
    value = torch.zeros(*action.shape, 2)
    return Trajectories(log_prob[..., None], reward[..., None], value, reward[..., None], torch.ones(2))


def test_a_diagnosis_and_its_advice_become_a_page_and_a_folder(tmp_path):
    loop = {"draw": draw, "see": see, "params": torch.zeros(1), "sizes": Sizes(8, 8, 8), "inner_lr": 0.3, "lanes": 16}
    report = diagnose(**loop, surrogate=("ad", "lvc"), budget=1, seed=5)
    advice = report.advise(trajectories=8, lambdas=(), splits=(0.5,), budget=1)
    page = diagnosis_page(report, tmp_path / "page.html", advice=advice).read_text()
    assert "The return after K steps" not in page
    page, _, printed = page.partition("As printed in a terminal")
    assert str(report) in html.unescape(printed)
    for said in (report.estimand, *report.meanings.values(), *report.notes, f"{report.repeats} independent", "seed 5"):
        assert said in html.unescape(page)
    assert page.count("for the outer gradient") == len(advice.choices) + 1  # and the best once more
    advice = report.advise(trajectories=8, lambdas=(), splits=(0.5,), inner_steps=(1, 2), budget=1)
    steps = html.unescape(diagnosis_page(report, tmp_path / "steps.html", advice=advice).read_text())
    for k, earned in advice.returns.items():
        said = f"{earned.value:.4g} [{earned.low:.4g},\u00a0{earned.high:.4g}] for K = {k}"
        assert said.replace("-", "−") in steps
    assert "LVC, K = 2" in steps
    assert log_diagnosis(report, tmp_path / "logged") is None
    rows = (tmp_path / "logged" / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + len(report.rows())


def test_a_report_is_drawn_by_gm_lab_which_registers_itself(tmp_path, monkeypatch):
    loop = {"draw": draw, "see": see, "params": torch.zeros(1), "sizes": Sizes(8, 8, 8), "inner_lr": 0.3, "lanes": 8}
    report = diagnose(**loop, surrogate="lvc", budget=1)
    figure = report.plot(tmp_path / "bias.png", "One action.")
    assert finding_of(figure) == finding_of(diagnosis_figure(report.rows()))
    assert caption_of(figure).startswith("One action.")
    assert (tmp_path / "bias.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("gm_estimators.diagnose.diagnosis.PLOT", "nobody")
    with pytest.raises(ModuleNotFoundError, match=r"plot: expected gm-lab, .* pip install gm-lab") as seen:
        report.plot()
    assert "\n" not in str(seen.value)
