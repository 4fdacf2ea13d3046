"""Looks that never change, bands that are the intervals, files that are the same bytes."""

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

from gm_lab import lines, mean_interval, panels, shared_legend, style_of
from gm_lab.analysis.figures import save, saving
from gm_lab.analysis.palette import ESTIMATORS, PERMUTATIONS, styles
from gm_lab.run import BadInput


def test_looks_within_a_group_differ_in_colour_and_marker():
    for group in (ESTIMATORS, PERMUTATIONS):
        assert len({style_of(name).colour for name in group}) == len(group)
        assert len({style_of(name).marker for name in group}) == len(group)


def test_looks_of_a_plug_in_are_its_own_and_depend_on_no_order():
    names = ["mine.module:first", "lvc", "ad", "mine.module:second"]
    looks = styles(names)
    assert list(looks) == names
    assert looks == styles(names[::-1])
    assert len({look.colour for look in looks.values()}) == 4
    assert looks["lvc"] == style_of("lvc") == styles(["lvc"])["lvc"]


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
