"""A diagnosis as a page: it says what was found, has every number, and fits the screens of a phone and a desktop."""

import re
from types import SimpleNamespace

import pytest

from gm_lab import BadInput, diagnosis_page

NAMES = ("estimator", "measure", "source", "value", "low", "high")
ROWS = [
    ("ad", "bias_sq", "", 1.7, 1.3, 2.24), ("ad", "along", "", 1.3, 1.13, 1.49),
    ("ad", "variance", "", 0.56, 0.45, 0.7),
    ("ad", "mse", "", 2.3, 1.8, 2.9), ("ad", "bias_sq", "hessian", 1.8, 1.4, 2.3),
    ("ad", "bias_sq", "<b>mine", -0.1, -0.2, -0.05), ("ad", "along", "hessian", 1.4, 1.2, 1.6),
    ("lvc", "bias_sq", "", 0.016, -0.003, 0.031), ("lvc", "bias_sq", "hessian", -0.001, -0.012, 0.009),
]  # fmt: skip


def choice(estimator, mse, value, low, high, shared=True):
    sizes = SimpleNamespace(inner=8, hessian=7, outer=15, shared=shared)
    beyond = SimpleNamespace(value=value, low=low, high=high)
    return SimpleNamespace(estimator=estimator, gae_lambda=0.9, sizes=sizes, mse=mse, beyond=beyond)


class Report:
    repeats, env_steps, plan = 31, 2_976_000, SimpleNamespace(seed=7)
    meanings = {"hessian": "the Jacobian by the estimator", "<b>mine": "a source of your own"}  # noqa: RUF012
    estimand, notes = "g is what it is.", ("The reference itself is off by 0.1%.",)

    def rows(self):
        return [dict(zip(NAMES, row, strict=True)) for row in ROWS]

    def __str__(self):
        return "what is <printed>"


@pytest.fixture
def advice():
    choices = [choice("lvc", 0.08, 0, 0, 0), choice("loaded_dice", 0.1, 0.02, -0.01, 0.05)]
    choices.append(choice("ad", 3, 2.9, 2, 4, shared=False))
    return SimpleNamespace(trajectories=30, repeats=42, env_steps=1000, choices=choices)


def text_of(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("<main>")[1]).split())


def test_a_page_says_what_was_found_and_has_every_number_with_its_interval(tmp_path, advice):
    path = diagnosis_page(Report(), tmp_path / "page.html", caption="2D navigation & more.", advice=advice)
    page = path.read_text()
    found = "AD: squared bias of 170% [130, 224] of ‖g‖², its largest source the Hessian; LVC not told apart from 0"
    assert f"<title>{found}</title>" in page
    assert f"<h1>{found}</h1>" in page.replace("\u00a0", " ")
    assert "2D navigation &amp; more." in page
    assert "g is what it is." in page
    assert "31 independent repeats, 2,976,000 environment steps, seed 7." in page
    words = text_of(page)
    for said in ("180% [140, 230]", "−10% [−20, −5]", "−0.1% [−1.2, 0.9]", "56% [45, 70]", "140% [120, 160]",
                 "Hessian the Jacobian by the estimator", "&lt;b&gt;mine a source of your own", "off by 0.1%",
                 "what is &lt;printed&gt;"):  # fmt: skip
        assert said in words
    assert "<b>" not in page


def test_advice_names_the_best_choice_and_how_many_are_not_told_from_it(tmp_path, advice):
    words = text_of(diagnosis_page(Report(), tmp_path / "page.html", advice=advice).read_text())
    assert (
        "Best as measured, with 30 trajectories: LVC, λ = 0.9, 8 for step and Jacobian together, 15 for the outer "
        "gradient; 1 of the 2 others are not told apart from it."
    ) in words
    assert "AD, λ = 0.9 8 for the step, 7 for its Jacobian, 15 for the outer gradient 300% 290% [200, 400]" in words
    assert "What to change" not in diagnosis_page(Report(), tmp_path / "page.html").read_text()


@pytest.mark.parametrize("screen", ["phone", "desktop"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_page_shows_its_picture_asks_for_nothing_and_fits(browser, tmp_path, advice, screen, dark):
    page = diagnosis_page(Report(), tmp_path / "page.html", advice=advice)
    with browser.open(page.as_uri(), screen, dark=dark) as tab:
        tab.settle()
        assert tab.requests == [page.as_uri()]
        assert tab.complaints == []
        assert tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        assert tab.evaluate("document.images[0].naturalWidth") > 0


def test_a_folder_that_is_not_there_is_said_in_a_line(tmp_path):
    with pytest.raises(BadInput, match="missing"):
        diagnosis_page(Report(), tmp_path / "missing" / "page.html")
