import pytest

from gm_lab.analysis import caption_of, diagnosis_figure, finding_of


def rows(*given):
    names = ("estimator", "measure", "source", "value", "low", "high")
    return [dict(zip(names, row, strict=True)) for row in given]


AD = ("ad", "bias_sq", "", 0.5, 0.4, 0.6)
LVC = ("lvc", "bias_sq", "", 0.02, -0.01, 0.05)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((("ad", "bias_sq", "hessian", 0.5, 0.4, 0.6), ("ad", "bias_sq", "shared_batch", 0.1, 0.05, 0.15)),
         "AD: a squared bias of 50% of ‖g‖², most of it from hessian"),
        ((("ad", "bias_sq", "hessian", 0.3, 0.2, 0.4), ("ad", "bias_sq", "shared_batch", 0.2, 0.1, 0.3)),
         "AD: a squared bias of 50% of ‖g‖², much of it from hessian"),
        ((("ad", "bias_sq", "hessian", 0.3, -0.2, 0.8),),
         "AD: a squared bias of 50% of ‖g‖², whose source is not told"),
    ],
)  # fmt: skip
def test_the_title_says_what_intervals_tell(shares, said):
    figure = diagnosis_figure(rows(AD, LVC, *shares))
    assert finding_of(figure) == said
    assert caption_of(figure) == "In % of ‖g‖². Bars: 95% intervals."


def test_nothing_told_apart_is_said():
    figure = diagnosis_figure(rows(LVC, ("lvc", "bias_sq", "hessian", 0.3, 0.2, 0.4)), caption="CartPole.")
    assert finding_of(figure) == "No squared bias is told apart from 0"
    assert caption_of(figure).startswith("CartPole. In %")


def test_every_number_is_a_dot_and_what_has_no_bounds_has_no_bar():
    infinite = float("inf")
    figure = diagnosis_figure(rows(AD, LVC, ("ad", "bias_sq", "hessian", 0.3, -infinite, infinite)))
    left, right = ([line for line in axes.lines if line.get_marker() not in ("", "None")] for axes in figure.axes)
    assert [float(line.get_xdata()[0]) for line in left] == [30]
    assert sorted(float(line.get_xdata()[0]) for line in right) == [2, 50]
    assert len(figure.axes[0].lines) == 2  # the dot, and where 0 is
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["AD", "LVC"]


def test_rows_without_a_source_are_refused():
    with pytest.raises(ValueError, match="rows: expected some with a source, got none"):
        diagnosis_figure(rows(AD))
