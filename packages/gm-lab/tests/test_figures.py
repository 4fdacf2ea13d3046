"""Looks that never change, bands that are the intervals, files that are the same bytes."""

from itertools import combinations, product

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from gm_lab import caption_of, entitle, finding_of, lines, mean_interval, panels, shared_legend, style_of
from gm_lab.analysis.figures import WIDTH, save, saving
from gm_lab.analysis.layout import apart, balanced, end_label, number, width_of, wrapped
from gm_lab.analysis.palette import (
    CATEGORY_COLOURS,
    CATEGORY_MARKERS,
    COLOURS,
    ESTIMATORS,
    MARKERS,
    OWN_COLOURS,
    OWN_MARKERS,
    PERMUTATIONS,
    category_style,
    styles,
)
from gm_lab.run import BadInput

# G. Machado, M. Oliveira, L. Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# IEEE Transactions on Visualization and Computer Graphics 15(6), 2009: the matrices of severity 1, on linear RGB
SEEN = {
    "by all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "with protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                        [-0.003882, -0.048116, 1.051998]],
    "with deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                          [-0.011820, 0.042940, 0.968881]],
    "with tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                        [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
DISTANT = 15
"""Between colours in CIELAB: a just noticeable difference is about 2.3, a line needs several."""
HOUSE = [style_of(name) for name in ESTIMATORS]
OWN = ["mine.module:first", "mine.module:second", "other:lvc", "lvc_of_mine:f", "adam", "a", "b", "c"]


def linear(colour):
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Lightness and hue of a linear colour in CIELAB, of D65."""
    x, y, z = (XYZ @ np.clip(rgb, 0, 1)) / (0.9505, 1, 1.089)
    x, y, z = (np.cbrt(part) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(colour):
    return 1.05 / (XYZ[1] @ linear(colour) + 0.05)


def test_the_arithmetic_of_colours_is_right():
    assert contrast("#000000") == pytest.approx(21)
    assert contrast("#FFFFFF") == pytest.approx(1)
    assert contrast("#767676") == pytest.approx(4.54, abs=0.01)  # the lightest grey that WCAG allows for small text
    assert lab(linear("#FF0000")) == pytest.approx([53.2, 80.1, 67.2], abs=0.2)
    for matrix in SEEN.values():  # who lacks a cone sees grey as it is
        assert np.array(matrix) @ np.ones(3) == pytest.approx(np.ones(3), abs=2e-3)


@pytest.mark.parametrize("colours", [COLOURS, OWN_COLOURS, CATEGORY_COLOURS], ids=["house", "own", "categories"])
def test_every_colour_stands_out_from_white(colours):
    assert min(map(contrast, colours)) >= 3


def test_no_colour_or_marker_of_one_palette_is_in_another():
    assert not set(COLOURS) & set(OWN_COLOURS) | set(COLOURS) & set(CATEGORY_COLOURS)
    assert not set(OWN_COLOURS) & set(CATEGORY_COLOURS)
    assert not set(MARKERS) & {*OWN_MARKERS, *CATEGORY_MARKERS}


@pytest.mark.parametrize("eyes", SEEN)
def test_estimators_are_told_apart_by_colour(eyes):
    seen = [lab(np.array(SEEN[eyes]) @ linear(look.colour)) for look in HOUSE]
    assert min(np.linalg.norm(one - other) for one, other in combinations(seen, 2)) > DISTANT


def test_estimators_are_told_apart_in_grey():
    for kind in ("marker", "dash"):
        assert len({str(getattr(look, kind)) for look in HOUSE}) == len(HOUSE)


def test_looks_of_permutations_are_a_categorys():
    looks = [style_of(name) for name in PERMUTATIONS]
    assert looks == [category_style(name) for name in PERMUTATIONS] == [category_style(i) for i in range(len(looks))]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(looks)
    assert category_style("a curve") == category_style("a curve")
    assert not {category_style(name).colour for name in map(str, range(50))} & set(COLOURS)


@pytest.mark.parametrize("name", ["lvc+jackknife", "LVC, jackknife", "lvc@0.9", "lvc (shared)"])
def test_a_variant_has_its_estimators_colour_and_looks_of_its_own(name):
    look, plain = style_of(name), style_of("lvc")
    assert look.colour == plain.colour
    assert look.marker not in MARKERS
    assert look.dash != plain.dash
    both = styles([name, "lvc+another", "lvc"])
    assert len({each.marker for each in both.values()}) == 3


@pytest.mark.parametrize("name", OWN)
def test_a_users_own_estimator_has_a_colour_of_no_other(name):
    assert style_of(name).colour in OWN_COLOURS
    assert style_of(name) == styles([name])[name]


def test_looks_of_a_plug_in_are_its_own_and_depend_on_no_order():
    names = ["mine.module:first", "lvc", "ad", "mine.module:second"]
    looks = styles(names)
    assert list(looks) == names
    assert looks == styles(names[::-1])
    assert len({look.colour for look in looks.values()}) == 4
    assert looks["lvc"] == style_of("lvc") == styles(["lvc"])["lvc"]
    assert len(set(styles(OWN[:5]).values())) == len({look.colour for look in styles(OWN[:5]).values()}) == 5


@pytest.fixture
def frame():
    random = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {"size": size, "mdp": mdp, "name": name, "accuracy": offset + 0.05 * random.normal() + 0.02 * np.log2(size)}
            for offset, name in ((0.6, "lvc"), (0.4, "ad"))
            for size in (2, 4, 8)
            for mdp in range(10)
        ]
    )


def test_a_line_is_the_mean_and_its_band_the_interval(frame):
    figure = panels(["one", "two"])
    axes = figure.axes[0]
    labels = {"x_label": "trajectories", "y_label": "accuracy"}
    lines(axes, frame, x="size", y="accuracy", by="name", over="mdp", x_scale="log2", **labels)
    expected = [
        mean_interval(frame[(frame["name"] == "ad") & (frame["size"] == size)]["accuracy"]) for size in (2, 4, 8)
    ]
    line = next(line for line in axes.lines if line.get_label() == "ad")
    assert line.get_xdata().tolist() == [2, 4, 8]
    assert line.get_ydata() == pytest.approx([interval.mean for interval in expected])
    assert line.get_color() == style_of("ad").colour
    band = axes.collections[1].get_paths()[0].vertices
    for size, interval in zip((2, 4, 8), expected, strict=True):
        edges = band[band[:, 0] == size][:, 1]
        assert [edges.min(), edges.max()] == pytest.approx([interval.low, interval.high])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "8"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trajectories", "accuracy")


def test_one_unit_has_a_line_and_no_band(frame):
    axes = panels(["one"]).axes[0]
    lines(axes, frame[frame["mdp"] == 0], x="size", y="accuracy", by="name", over="mdp", names=["ad", "absent"])
    assert [line.get_label() for line in axes.lines] == ["ad"]
    assert [len(band.get_paths()) for band in axes.collections] == [0]
    assert all(np.isfinite(axes.get_ylim()))


def test_one_legend_names_each_line_once(frame):
    figure = panels(["one", "two"])
    for axes in figure.axes:
        lines(axes, frame, x="size", y="accuracy", by="name", over="mdp")
    shared_legend(figure)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["lvc", "ad"]


def test_a_missing_column_is_named(frame):
    with pytest.raises(ValueError, match="columns") as error:
        lines(panels(["one"]).axes[0], frame, x="sizes", y="accuracy", by="name", over="mdp")
    assert str(error.value) == "expected columns sizes, accuracy, name, mdp; missing: sizes"


@pytest.fixture
def drawn(frame):
    """Draws the same figure each time it is called."""

    def call():
        figure = panels(["one"])
        lines(figure.axes[0], frame, x="size", y="accuracy", by="name", over="mdp")
        return figure

    return call


def test_files_are_the_same_bytes_each_time(drawn, tmp_path):
    (first, vectors), (again, _) = (save(drawn(), tmp_path / name, svg=True) for name in ("a", "b"))
    assert first.read_bytes() == again.read_bytes()
    assert vectors.read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in vectors.read_bytes()
    assert b"date" not in vectors.read_bytes()
    assert matplotlib.image.imread(first).shape[0] > 100  # with the words it is still a picture


def test_svg_is_written_where_it_is_asked_for_or_was_written_before(drawn, tmp_path):
    assert save(drawn(), tmp_path / "a") == [tmp_path / "a.png"]
    (tmp_path / "a.svg").write_text("old")
    assert save(drawn(), tmp_path / "a") == [tmp_path / "a.png", tmp_path / "a.svg"]
    assert "old" not in (tmp_path / "a.svg").read_text()


@pytest.mark.parametrize("apart", [True, False])
def test_figures_are_written_side_by_side(drawn, tmp_path, apart):
    alone = save(drawn(), tmp_path / "alone")[0].read_bytes()
    with saving({name: drawn() for name in "abc"}, tmp_path, apart=apart) as files:
        pass
    assert [file.name for file in files] == ["a.png", "b.png", "c.png"]
    assert {file.read_bytes() for file in files} == {alone}


def test_what_keeps_a_figure_from_being_written_is_said(drawn, tmp_path):
    (tmp_path / "b.png").mkdir()
    refusal = pytest.raises(BadInput, match=f"cannot write {tmp_path / 'b.png'}: Is a directory")
    with refusal, saving({name: drawn() for name in "ab"}, tmp_path):
        pass
    assert (tmp_path / "a.png").exists()


def test_a_picture_has_one_width_and_at_most_four_panels():
    figure = panels(["a", "b", "c", "d"], rows=2)
    assert figure.get_figwidth() == WIDTH
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c", "d"]
    for titles, rows in ((["a"] * 5, 1), (["a"] * 3, 2), ([], 1)):
        with pytest.raises(ValueError, match=f"expected 1 to 4 panels that fill {rows} rows, got {len(titles)}"):
            panels(titles, rows=rows)


def test_finding_and_caption_are_wrapped_kept_and_leave_the_panels_their_height():
    figure = panels(["a"], height=3)
    assert (finding_of(figure), caption_of(figure)) == ("", "")
    for finding, caption in (("First", "One"), ("a_b $c$ costs accuracy " * 9, "Bands are 95% intervals. " * 9)):
        entitle(figure, finding, caption)
        assert (finding_of(figure), caption_of(figure)) == (finding.strip(), caption.strip())
    above, beneath = figure.get_suptitle().count("\n") + 1, figure.get_supxlabel().count("\n") + 1
    assert (above, beneath) == (3, 2)
    added = 1.25 * (above * 10.5 + beneath * 8) / 72
    assert figure.get_figheight() == pytest.approx(3 + added)
    FigureCanvasAgg(figure).draw()
    assert figure.axes[0].get_window_extent().height / figure.dpi > 2.2


def test_labels_stand_where_lines_end_unless_others_are_there(frame):
    near = frame.assign(accuracy=frame["accuracy"].where(frame["name"] == "lvc", frame["accuracy"] + 0.21))
    for (rows, moved), scale in product(((frame, False), (near, True)), ("linear", "log")):
        figure = panels(["one"])
        axes = figure.axes[0]
        words = {"lvc": "the first", "ad": "the second"}
        lines(axes, rows, x="size", y="accuracy", by="name", over="mdp", labels=words, direct=True,
              y_scale=scale)  # fmt: skip
        FigureCanvasAgg(figure).draw()
        labels = [text for text in axes.texts if isinstance(text, end_label())]
        assert [label.get_text() for label in labels] == ["the first", "the second"]
        boxes = [label.get_window_extent() for label in labels]
        ends = [axes.transData.transform((0, line.get_ydata()[-1]))[1] for line in axes.get_lines()]
        shifts = [abs((box.y0 + box.y1) / 2 - end) for box, end in zip(boxes, ends, strict=True)]
        assert (max(shifts) > 3) == moved
        assert not boxes[0].overlaps(boxes[1])
        assert all(box.x1 <= figure.bbox.x1 for box in boxes)


def test_things_move_apart_as_little_as_they_must():
    assert apart(np.array([1.0, 5.0]), np.array([2.0, 2.0]), 0, 10) == pytest.approx([1, 5])
    assert apart(np.array([5.0, 5.0]), np.array([2.0, 2.0]), 0, 10) == pytest.approx([4, 6])
    assert apart(np.array([9.0, 0.0, 9.5]), np.array([2.0, 2.0, 2.0]), 0, 10) == pytest.approx([7, 1, 9])


def test_text_is_wrapped_between_words_and_within_those_that_are_too_long():
    text = "one two three four five six"
    assert wrapped(text, 100, 8) == text
    lines_of_it = wrapped(text, 0.6, 8).split("\n")
    assert " ".join(lines_of_it) == text
    assert len(lines_of_it) > 2
    assert max(width_of(line, 8) for line in lines_of_it) <= 0.6
    pieces = wrapped("x" * 100, 0.6, 8).split("\n")
    assert "".join(pieces) == "x" * 100
    assert max(width_of(piece, 8) for piece in pieces) <= 0.6
    assert wrapped("", 1, 8) == ""
    assert wrapped("more at K = 3", width_of("more at K", 8) * 1.01, 8) == "more at\nK = 3"
    width = width_of(text, 8) * 0.95
    assert wrapped(text, width, 8).split("\n")[-1] == "six"
    assert balanced(text, width, 8) == "one two three\nfour five six"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.001, "0.001"), (0.5, "0.5"), (1, "1"), (20, "20"), (1e5, "100,000"), (1e-6, "0.000001"), (1e-9, "1e−9"),
     (2e12, "2e12"), (0, "0")],
)  # fmt: skip
def test_ticks_are_plain_numbers(value, text):
    assert number(value) == text


def test_a_geometric_mean_is_that_of_logarithms_and_a_root_is_taken_of_the_mean(frame):
    rows = frame[frame["name"] == "lvc"].assign(
        spread=lambda f: 10 ** f["accuracy"], square=lambda f: f["accuracy"] - 0.6
    )
    drawn = {}
    for metric, how in (("spread", {"geometric": True, "y_scale": "log"}), ("square", {"root": True})):
        axes = panels(["one"]).axes[0]
        lines(axes, rows, x="size", y=metric, by="name", over="mdp", **how)
        drawn[metric] = axes.get_lines()[0].get_ydata()
    means = rows.groupby("size")["accuracy"].mean()
    assert drawn["spread"] == pytest.approx((10**means).to_numpy())
    assert drawn["square"] == pytest.approx(np.sqrt(np.maximum(means - 0.6, 0)).to_numpy())


def test_what_cannot_be_shown_on_a_logarithmic_axis_keeps_nothing_from_being_drawn(frame):
    for value in (0.0, -1.0, np.nan, np.inf):
        figure = panels(["one"])
        rows = frame.assign(accuracy=value)
        lines(figure.axes[0], rows, "size", "accuracy", "name", "mdp", x_scale="log2", y_scale="log", direct=True)
        FigureCanvasAgg(figure).draw()
        assert figure.axes[0].get_yscale() == "linear"


def test_names_too_many_for_the_edge_of_a_panel_are_listed_beneath(frame):
    names = [f"package.module:estimator_with_a_long_name_{place}" for place in range(12)]
    many = pd.concat([frame[frame["name"] == "ad"].assign(name=name) for name in names])
    figure = panels(["one", "two"])
    for axes in figure.axes:
        lines(axes, many, x="size", y="accuracy", by="name", over="mdp", direct=True)
    entitle(figure, "A finding", "A caption.")
    assert not any(isinstance(text, end_label()) for axes in figure.axes for text in axes.texts)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == len(names)
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert min(axes.bbox.height for axes in figure.axes) > 1.4 * figure.dpi


def test_a_band_ends_where_no_value_is_possible(frame):
    axes = panels(["one"]).axes[0]
    lines(axes, frame, x="size", y="accuracy", by="name", over="mdp", within=(0.45, 0.5))
    heights = np.concatenate([path.vertices[:, 1] for band in axes.collections for path in band.get_paths()])
    assert (heights.min(), heights.max()) == (0.45, 0.5)


def test_no_two_of_many_plug_ins_look_alike():
    looks = styles([f"m:f{place}" for place in range(20)])
    assert len(set(looks.values())) == 20
