import pytest

from gm_lab.analysis import caption_of, diagnosis_figure, finding_of
from gm_lab.analysis.diagnosis import in_percent


def rows(*given):
    names = ("estimator", "measure", "source", "value", "low", "high")
    return [dict(zip(names, row, strict=True)) for row in given]


AD = ("ad", "bias_sq", "", 0.5, 0.4, 0.6)
LVC = ("lvc", "bias_sq", "", 0.02, -0.01, 0.05)
SHORT = ("lvc", "along", "", -0.13, -0.2, -0.06)
SHARE = ("ad", "bias_sq", "hessian", 0.5, 0.4, 0.6)


def bars(axes):
    return [round(bar.get_width(), 6) for bar in axes.patches]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((SHARE, ("ad", "bias_sq", "shared_batch", 0.1, 0.05, 0.15)), "its largest source the Hessian"),
        ((("ad", "bias_sq", "outer", 0.3, 0.2, 0.4), ("ad", "bias_sq", "shared_batch", 0.2, 0.1, 0.3)),
         "one of its sources the outer gradient"),
        ((("ad", "bias_sq", "shared_batch", 0.3, 0.2, 0.4), ("ad", "bias_sq", "mine", 0.2, -0.1, 0.5)),
         "one of its sources shared batch"),
        ((("ad", "bias_sq", "hessian", 0.3, -0.2, 0.8),), "its sources not told apart"),
    ],
)  # fmt: skip
def test_the_title_says_what_intervals_tell(shares, said):
    found = finding_of(diagnosis_figure(rows(AD, LVC, *shares)))
    assert found == f"AD: squared bias of 50% [40, 60] of ‖g‖², {said}; LVC not told apart from 0"


def test_what_is_told_along_g_alone_is_said():
    found = finding_of(diagnosis_figure(rows(AD, LVC, SHORT, ("lvc", "bias_sq", "hessian", 0.3, 0.2, 0.4))))
    assert found.endswith("; along g LVC is off by −13% [−20, −6]")
    alone = finding_of(diagnosis_figure(rows(LVC, SHORT, ("lvc", "bias_sq", "hessian", 0.3, 0.2, 0.4))))
    assert alone == "No squared bias is told apart from 0; along g LVC is off by −13% [−20, −6]"


def test_nothing_told_apart_is_said():
    figure = diagnosis_figure(rows(LVC, ("lvc", "bias_sq", "hessian", 0.3, 0.2, 0.4)), caption="CartPole.")
    assert finding_of(figure) == "No squared bias is told apart from 0"
    assert caption_of(figure).startswith("CartPole. Above each panel the squared bias.")


def test_each_estimator_has_a_panel_with_a_bar_for_each_number():
    figure = diagnosis_figure(rows(AD, SHARE, LVC, SHORT, ("lvc", "variance", "", 0.3, 0.2, 0.4)))
    assert [axes.get_title("left") for axes in figure.axes] == ["AD: 50% [40, 60]", "LVC: 2.0% [−1.0, 5.0]"]
    assert [bars(axes) for axes in figure.axes] == [[50, 50], [2, -13, 30]]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == [
        "Hessian", "squared bias", "bias along g", "variance"
    ]  # fmt: skip


def test_a_bar_is_pale_where_its_interval_holds_0():
    figure = diagnosis_figure(rows(AD, SHARE, LVC))
    assert [axes.patches[0].get_alpha() for axes in figure.axes] == [1, 0.3]


def test_what_is_beyond_the_axis_is_cut_off_beside_its_number():
    figure = diagnosis_figure(rows(AD, SHARE, ("ad", "variance", "", 12.0, 10.0, 15.0)))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["50%", "50%", "12× »"]
    assert axes.get_xlim()[1] < 100


def test_what_has_no_bounds_has_no_bar_and_no_number():
    infinite = float("inf")
    figure = diagnosis_figure(rows(AD, ("ad", "bias_sq", "hessian", 0.3, -infinite, infinite)))
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["50%", "not told"]
    assert sorted(bars(axes)) == [0, 50]


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.5, 0.4, 0.61, "50% [40, 61]"), (-0.0002, -0.012, 0.0002, "0.0% [−1.2, 0.0]"), (12.4, 9, 20, "12× [9, 20]"),
        (0.5, 0.4, float("inf"), "not told"), (float("nan"), 0, 1, "not told"),
    ],
)  # fmt: skip
def test_a_number_is_as_precise_as_its_interval_is_worth(value, low, high, said):
    assert in_percent({"value": value, "low": low, "high": high}) == said


def test_estimators_for_which_there_is_no_room_are_named():
    names = [f"mine_{i}" for i in range(6)]
    figure = diagnosis_figure(rows(*((name, *row[1:]) for name in names for row in (AD, SHARE))))
    assert [axes.get_title("left") for axes in figure.axes] == [f"{name}\n50% [40, 60]" for name in names[:4]]
    assert caption_of(figure).endswith("Not shown: mine_4 and mine_5.")


def test_rows_without_a_source_are_refused():
    with pytest.raises(ValueError, match="rows: expected some with a source, got none"):
        diagnosis_figure(rows(AD))
