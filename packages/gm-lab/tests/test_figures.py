"""Looks that never change, bands that are the intervals, files that are the same bytes."""

import numpy as np
import pandas as pd
import pytest

from gm_lab import lines, mean_interval, panels, shared_legend, style_of
from gm_lab.figures import GROUPS, save, styles


def test_looks_within_a_group_differ_in_colour_and_marker():
    for group in GROUPS:
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


def test_files_are_the_same_bytes_each_time(frame, tmp_path):
    written = []
    for attempt in ("a", "b"):
        figure = panels(["one"])
        lines(figure.axes[0], frame, x="size", y="accuracy", by="name", over="mdp")
        (tmp_path / attempt).mkdir()
        written.append([path.read_bytes() for path in save(figure, tmp_path / attempt / "figure")])
    assert written[0] == written[1]
    assert written[0][0].startswith(b"\x89PNG")
    assert b"<svg" in written[0][1]
    assert b"date" not in written[0][1]
