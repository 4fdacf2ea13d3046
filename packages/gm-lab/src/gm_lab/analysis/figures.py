"""Figures for people: a finding as title, intervals as bands, words where lines end, files that don't change."""

import contextlib
import io
import json
import multiprocessing
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gm_lab.analysis import layout
from gm_lab.analysis.palette import Style, styles
from gm_lab.analysis.statistics import mean_interval
from gm_lab.run.interruption import become_worker, held_back
from gm_lab.run.settings import usable_cores
from gm_lab.run.store import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH = 8.3
"""Inches that every picture is wide: shown with 830 pixels, a point is 100/72 pixels."""
DPI = 160
MOST = 4
"""Panels in one picture."""
MARGIN = 0.08
FINDING, CAPTION, TITLE, TEXT, SMALL = 10.5, 8.0, 9.0, 8.0, 7.5
"""Sizes of text in points."""
BESIDE = 1.25
"""Inches that a label at the end of a line takes at most."""
BESIDES = 12
"""Lines of text at the right of a panel; names that take more of them are listed beneath."""
HANDLE = 6.0
"""What a legend's line and the room around it take, in sizes of its text."""
GREY = "#595959"
LEADING = 1.25
PNG_HEADER = 33  # bytes of signature and header
PNG_WORDS = b"tEXtDescription\0"
RC: Any = {
    "axes.axisbelow": True, "axes.grid": True, "axes.labelsize": TEXT, "axes.spines.right": False,
    "axes.spines.top": False, "figure.dpi": DPI, "font.size": TEXT, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "legend.fontsize": TEXT, "legend.frameon": False, "lines.linewidth": 1.6, "lines.markersize": 4.5,
    "svg.hashsalt": "gm-lab", "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
}  # fmt: skip


def panels(titles: Sequence[str], rows: int = 1, height: float = 2.6, share_y: bool = True) -> "Figure":
    """Makes rows of panels in the common style, a title for each, row by row; they are `figure.axes`.

    The picture is `WIDTH` inches wide, a row `height` inches high. Raises ValueError if there are more than four panels
    or if they don't fill the rows.

    Examples:
        >>> from gm_lab.analysis import panels
        >>> figure = panels(["accuracy", "variance"])
        >>> len(figure.axes)
        2
        >>> float(figure.get_figwidth())
        8.3
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns = len(titles) // rows
    if not (0 < len(titles) <= MOST and columns * rows == len(titles)):
        raise ValueError(f"expected 1 to {MOST} panels that fill {rows} rows, got {len(titles)}")
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, height * rows), layout=layout.layout()(w_pad=0.06, h_pad=0.05))
        grid = figure.subplots(rows, columns, squeeze=False, sharex="col", sharey="row" if share_y else "none")
        for axes, title in zip(grid.flat, titles, strict=True):
            room = WIDTH / columns - 0.5
            axes.set_title(layout.wrapped(title, room, TITLE), fontsize=TITLE, loc="left", parse_math=False)
    return figure


def entitle(figure: "Figure", finding: str, caption: str) -> None:
    """Puts what was found above a picture and what is drawn beneath it, wrapped; the panels keep their height.

    Examples:
        >>> from gm_lab.analysis import entitle, finding_of, panels
        >>> figure = panels(["accuracy"])
        >>> entitle(figure, "LVC is most accurate", "Bands are 95% intervals over 10 MDPs.")
        >>> finding_of(figure)
        'LVC is most accurate'
    """
    width, height = figure.get_size_inches()
    room = 0.97 * (width - 2 * MARGIN)  # letters are wider in some resolutions
    above, beneath = layout.balanced(finding, room, FINDING, "bold"), layout.wrapped(caption, room, CAPTION)
    before = _height(figure.get_suptitle(), FINDING) + _height(figure.get_supxlabel(), CAPTION)
    added = _height(above, FINDING) + _height(beneath, CAPTION) - before
    figure.set_size_inches(width, height + added)
    left = {"x": MARGIN / width, "horizontalalignment": "left", "parse_math": False}
    figure.suptitle(above, fontsize=FINDING, fontweight="bold", linespacing=LEADING, **left)
    figure.supxlabel(beneath, fontsize=CAPTION, color=GREY, linespacing=LEADING, **left)


def _height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * size * LEADING / 72 if text else 0.0


def finding_of(figure: "Figure") -> str:
    """What a picture shows, in a sentence; empty if nobody has said so.

    Examples:
        >>> from gm_lab.analysis import finding_of, panels
        >>> finding_of(panels(["accuracy"]))
        ''
    """
    return " ".join(figure.get_suptitle().split())


def caption_of(figure: "Figure") -> str:
    """What is drawn in a picture; empty if nobody has said so.

    Examples:
        >>> from gm_lab.analysis import caption_of, entitle, panels
        >>> figure = panels(["accuracy"])
        >>> entitle(figure, "LVC is most accurate", "Bands are 95% intervals over 10 MDPs.")
        >>> caption_of(figure)
        'Bands are 95% intervals over 10 MDPs.'
    """
    return " ".join(figure.get_supxlabel().split())


def lines(
    axes: "Axes", frame: "pd.DataFrame", x: str, y: str, by: str, over: str, *, x_label: str | None = None,
    y_label: str | None = None, names: Sequence[str] | None = None, labels: Mapping[str, str] | None = None,
    x_scale: Literal["linear", "log", "log2"] = "linear", y_scale: Literal["linear", "log"] = "linear",
    marks: bool = True, direct: bool = False, looks: Mapping[str, Style] | None = None, geometric: bool = False,
    root: bool = False, within: tuple[float, float] | None = None,
) -> None:  # fmt: skip
    """Draws, for each value of `by`, the mean of `y` over units against `x`, with its 95% t interval as a band.

    Rows of one unit, which the column `over` names, are averaged first. `names` orders the lines, which `labels` word,
    in a legend or, if `direct`, where they end; `looks` are those of `styles` unless given. "log2" suits powers of two,
    which are then written out; `marks` shows the points, better not on long curves. A `geometric` mean suits what
    differs between units by orders of magnitude: mean and interval of the logarithm; it is left out where a unit's
    value isn't positive. `root` shows the root of the mean, for squares, and zero where that is negative. Bands end
    where values are no longer possible, at the ends of `within`. Raises ValueError if the frame lacks a column.

    Examples:
        >>> import pandas as pd
        >>> columns = {"estimator": ["lvc", "lvc", "ad", "ad"], "mdp": [0, 1, 0, 1], "accuracy": [0.9, 0.8, 0.5, 0.6]}
        >>> frame = pd.DataFrame(columns)
        >>> from gm_lab.analysis import lines, panels
        >>> (axes,) = panels(["accuracy"]).axes
        >>> lines(axes, frame.assign(size=4), "size", "accuracy", by="estimator", over="mdp")
        >>> [line.get_label() for line in axes.get_lines()]
        ['lvc', 'ad']
    """
    if missing := [column for column in (x, y, by, over) if column not in frame.columns]:
        raise ValueError(f"expected columns {x}, {y}, {by}, {over}; missing: {', '.join(missing)}")
    order = [str(name) for name in (frame[by].unique() if names is None else names)]
    crowded = direct and _lines_of(order, labels or {}) > BESIDES
    for rank, (name, look) in enumerate((styles(order) if looks is None else {n: looks[n] for n in order}).items()):
        of_name = frame[frame[by].astype(str) == name]
        if of_name.empty:
            continue
        where, mean, low, high = _averaged(of_name, x, y, over, geometric, root)
        # a single unit has an unbounded interval: no band is more honest than none of width zero
        bounded = np.isfinite(low) & np.isfinite(high)
        low, high = (np.clip(end, *(within or (None, None))) for end in (low, high))
        axes.fill_between(
            where, np.where(bounded, low, mean), np.where(bounded, high, mean), where=bounded.tolist(),
            color=look.colour, alpha=0.18, linewidth=0, zorder=2 + 0.01 * rank,
        )  # fmt: skip
        label = (labels or {}).get(name, name)
        axes.plot(
            where, mean, label=_listed(label), zorder=3 + 0.01 * rank,
            color=look.colour, linestyle=look.dash,
            marker=look.marker if marks else "", markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
        if direct and not crowded:
            end_label(axes, mean, label, look.colour)
    if crowded:
        _listed_beneath(axes.figure.figure)
    _scales(axes, frame[x], x_scale, y_scale)
    # labels at the outer edge only where inner panels share the scale
    place = axes.get_subplotspec()
    if place is None or place.is_last_row() or len(axes.get_shared_x_axes().get_siblings(axes)) == 1:
        axes.set_xlabel(x if x_label is None else x_label, parse_math=False)
    if place is None or place.is_first_col() or (
        y_label is not None and len(axes.get_shared_y_axes().get_siblings(axes)) == 1
    ):  # fmt: skip
        axes.set_ylabel(y if y_label is None else y_label, parse_math=False)


def _lines_of(names: Sequence[str], labels: Mapping[str, str]) -> int:
    """Lines of text that names take at the right of a panel."""
    return sum(layout.wrapped(labels.get(name, name), BESIDE, TEXT).count("\n") + 1 for name in names)


def _listed_beneath(figure: "Figure") -> None:
    """A legend for lines too many for labels at their ends; the panels keep their height."""
    if figure.legends:
        return
    shared_legend(figure)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + figure.legends[0].get_window_extent().height / figure.dpi)


def _averaged(frame: "pd.DataFrame", x: str, y: str, over: str, geometric: bool, root: bool) -> Any:
    """Where one line's points are, their means and the ends of the intervals."""
    per_unit = frame.groupby([x, over], sort=True)[y].mean()
    if geometric:
        per_unit = np.log(per_unit.where(per_unit > 0))
    points = [(at, mean_interval(values.to_numpy())) for at, values in per_unit.groupby(level=0, sort=True)]
    where = np.array([at for at, _ in points], dtype=np.float64)
    of_points = [
        np.array([getattr(interval, part) for _, interval in points], dtype=np.float64)
        for part in ("mean", "low", "high")
    ]
    shown = np.exp if geometric else (lambda part: np.sqrt(np.maximum(part, 0))) if root else np.asarray
    return where, *(shown(part) for part in of_points)


def end_label(axes: "Axes", values: "np.ndarray[Any, Any]", label: str, colour: str) -> None:
    """Writes a line's name at the right of its panel, as high as its last value; labels keep apart when it is drawn."""
    known = values[np.isfinite(values)]
    if len(known):
        place: Any = {"xy": (1, known[-1]), "xycoords": axes.get_yaxis_transform(which="grid")}
        beside: Any = {"xytext": (5, 0), "textcoords": "offset points", "verticalalignment": "center"}
        text = layout.wrapped(label, BESIDE, TEXT)
        look: Any = {"color": colour, "fontsize": TEXT, "parse_math": False, "annotation_clip": False, "clip_on": False}
        axes.add_artist(layout.end_label()(text, **place, **beside, **look))


def _scales(axes: "Axes", at: "pd.Series[Any]", x_scale: str, y_scale: str) -> None:
    if x_scale == "log2":
        axes.set_xscale("log", base=2)
        columns = axes.get_subplotspec().get_gridspec().ncols if axes.get_subplotspec() else 1  # type: ignore[union-attr]
        if not any(np.isfinite(line.get_ydata()).any() for line in axes.get_lines()):
            axes.set_xlim(at.min() / 2, at.max() * 2)
        layout.written_out(axes.xaxis, at.astype(float).tolist(), WIDTH / columns - 1, SMALL)
    elif x_scale == "log":
        axes.set_xscale("log")
        layout.logarithmic(axes.xaxis)
    drawn = np.concatenate(
        [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.get_lines()] or [np.zeros(0)]
    )
    if y_scale == "log" and (np.isfinite(drawn) & (drawn > 0)).any():
        axes.set_yscale("log")
        layout.logarithmic(axes.yaxis)


def _listed(label: str) -> str:
    """A label that the legend shows as it is: Matplotlib leaves out what begins with _ and sets $…$ as maths."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def shared_legend(figure: "Figure", title: str | None = None, columns: int = 8) -> None:
    """One legend for all panels, beneath them, where it hides no data.

    Examples:
        >>> import pandas as pd
        >>> columns = {"estimator": ["lvc", "lvc", "ad", "ad"], "mdp": [0, 1, 0, 1], "accuracy": [0.9, 0.8, 0.5, 0.6]}
        >>> frame = pd.DataFrame(columns)
        >>> from gm_lab.analysis import lines, panels, shared_legend
        >>> figure = panels(["accuracy"])
        >>> lines(figure.axes[0], frame.assign(size=4), "size", "accuracy", by="estimator", over="mdp")
        >>> shared_legend(figure)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['lvc', 'ad']
    """
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        # a space at the beginning is there for a reason: see _listed
        names = [" " * label.startswith(" ") + layout.wrapped(label, BESIDE * 2, TEXT) for label in entries]
        widest = max(layout.width_of(line, TEXT) for name in names for line in name.split("\n"))
        fitting = int((WIDTH - 2 * MARGIN) / (widest + HANDLE * TEXT / 72))
        figure.legend(
            list(entries.values()), names, title=title, loc="lower center", bbox_to_anchor=(0.5, 0),
            borderaxespad=0.2,
            ncols=max(1, min(len(entries), columns, fitting)), frameon=False, handlelength=3.2, fontsize=TEXT,
        )  # fmt: skip


def save(figure: "Figure", stem: Path, svg: bool = False) -> list[Path]:
    """Writes a figure as PNG, and as SVG if asked or if there is one already; the same figure gives the same bytes.

    `stem` is a path without an extension. It returns the files, the PNG first, or raises BadInput if it can't write.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from gm_lab.analysis import panels, save
        >>> [path.name for path in save(panels(["accuracy"]), Path(tempfile.mkdtemp(), "accuracy"))]
        ['accuracy.png']
    """
    import matplotlib

    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in metadata]
    files = files if svg or files[1].exists() else files[:1]
    with matplotlib.rc_context(RC):
        for file, kind in zip(files, metadata, strict=False):
            content = io.BytesIO()
            figure.savefig(content, format=kind, metadata=metadata[kind], dpi=DPI)
            write_atomically(file, content.getvalue() if kind == "svg" else _described(content.getvalue(), figure))
    return files


def _described(picture: bytes, figure: "Figure") -> bytes:
    """A PNG whose header is followed by the words of its figure, for those who can't see it."""
    from matplotlib.text import Text

    texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    chunk = PNG_WORDS + json.dumps(words(texts)).encode()
    framed = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return picture[:PNG_HEADER] + framed + picture[PNG_HEADER:]


def words(texts: Sequence[str]) -> list[str]:
    """Those texts of a figure that are words, without the signs of formulas, each once."""
    plain = [re.sub(r"[${}\\]|mathdefault", "", text).strip() for text in texts]
    return [text for text in dict.fromkeys(plain) if re.search(r"[^\W\d]{2,}", text)]


@contextlib.contextmanager
def saving(
    figures: Mapping[str, "Figure"], folder: Path, svg: bool = False, apart: bool = True
) -> Iterator[list[Path]]:
    """Writes figures while the block runs, in processes of their own if it may fork (`apart`), else at its end.

    It yields the PNG files, which are complete at the end of the block, and raises BadInput if it can't write.
    """
    stems = [folder / name for name in figures]
    drawn = list(zip(figures.values(), stems, strict=True))
    count = min(len(drawn), usable_cores()) if apart and sys.platform == "linux" else 0
    shares = [drawn[first::count] for first in range(count)]
    fork: Any = multiprocessing.get_context("fork" if count else None)
    processes: list[Any] = []
    try:
        for share in shares:
            process = fork.Process(target=_save_share, args=(share, svg, os.getpid()), daemon=True)
            with held_back():
                process.start()
                processes.append(process)
        yield [stem.with_name(f"{stem.name}.png") for stem in stems]
        for process in processes:
            process.join()
        undone = [share for process, share in zip(processes, shares, strict=True) if process.exitcode != 0]
        for share in undone if count else [drawn]:
            for figure, stem in share:
                save(figure, stem, svg)  # says what is wrong
    finally:
        for process in processes:
            process.kill()
            process.join()


def _save_share(share: Sequence[tuple["Figure", Path]], svg: bool, driver: int) -> None:
    become_worker(driver)
    try:
        for figure, stem in share:
            save(figure, stem, svg)
    except Exception:
        os._exit(1)  # the driver tries, too, and says why not
