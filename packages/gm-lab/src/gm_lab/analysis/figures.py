"""Figures for people: one colour, marker and dash per name everywhere, intervals as bands, files that don't change."""

import contextlib
import io
import json
import multiprocessing
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gm_lab.analysis.statistics import mean_interval
from gm_lab.run.interruption import become_worker
from gm_lab.run.output import encoded
from gm_lab.run.settings import usable_cores
from gm_lab.run.store import write_atomically

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Style:
    """How one name looks in every figure; marker and dash tell it apart in grey, too."""

    colour: str
    marker: str
    dash: Any


# M. Okabe and K. Ito, "Color Universal Design", 2008, ordered so that neighbours also differ in lightness
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)))

# a name keeps its place in its group, and so its looks; any other name gets looks derived from its letters
GROUPS: tuple[tuple[str, ...], ...] = (
    ("lvc", "ad", "loaded_dice", "dice"), ("SSS", "SSE", "SES", "SEE", "ESS", "ESE", "EES"),
)  # fmt: skip
DPI = 160
PNG_HEADER = 33  # bytes of signature and header
PNG_WORDS = b"tEXtDescription\0"
RC: Any = {
    "axes.grid": True, "axes.spines.right": False, "axes.spines.top": False, "figure.dpi": DPI, "font.size": 9,
    "grid.alpha": 0.25, "grid.linewidth": 0.6, "legend.frameon": False, "lines.linewidth": 1.6,
    "lines.markersize": 4.5, "svg.hashsalt": "gm-lab",
}  # fmt: skip


def style_of(name: str) -> Style:
    """The looks of `name`: the same in every figure, run and process."""
    place = next((group.index(name) for group in GROUPS if name in group), None)
    if place is not None:
        return Style(COLOURS[place], MARKERS[place], DASHES[place % len(DASHES)])
    code = zlib.crc32(encoded(name))
    return Style(COLOURS[code % len(COLOURS)], MARKERS[code // 7 % len(MARKERS)], DASHES[code // 49 % len(DASHES)])


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Gives the looks of the names of one panel, in any order; an unknown name steps aside where a colour is taken."""
    known = [name for name in names if any(name in group for group in GROUPS)]
    looks = {name: style_of(name) for name in known}
    for name in sorted(set(names) - set(known)):
        first = zlib.crc32(encoded(name))
        taken = {look.colour for look in looks.values()}
        step = next((step for step in range(len(COLOURS)) if COLOURS[(first + step) % len(COLOURS)] not in taken), 0)
        own = style_of(name)
        looks[name] = Style(COLOURS[(first + step) % len(COLOURS)], own.marker, own.dash)
    return {name: looks[name] for name in names}


def panels(
    titles: Sequence[str], width: float = 3.2, height: float = 2.9, rows: int = 1, share_y: bool = True
) -> "Figure":
    """Makes rows of panels in the common style, sized in inches, with one title per column; they are `figure.axes`."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(width * len(titles), height * rows), layout="constrained")
        grid = figure.subplots(rows, len(titles), squeeze=False, sharex="col", sharey="row" if share_y else "none")
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=10, loc="left", parse_math=False)
    return figure


def lines(
    axes: "Axes", frame: "pd.DataFrame", x: str, y: str, by: str, over: str, *, x_label: str | None = None,
    y_label: str | None = None, names: Sequence[str] | None = None, labels: Mapping[str, str] | None = None,
    x_scale: Literal["linear", "log2"] = "linear", y_scale: Literal["linear", "log"] = "linear", marks: bool = True,
) -> None:  # fmt: skip
    """Draws, for each value of `by`, the mean of `y` over units against `x`, with its 95% t interval as a band.

    Rows of one unit, which the column `over` names, are averaged first. `names` orders the legend, which `labels` word;
    "log2" suits powers of two, which are then written out; `marks` shows the points, better not on long curves. Raises
    ValueError if the frame lacks a column.
    """
    if missing := [column for column in (x, y, by, over) if column not in frame.columns]:
        raise ValueError(f"expected columns {x}, {y}, {by}, {over}; missing: {', '.join(missing)}")
    order = [str(name) for name in (frame[by].unique() if names is None else names)]
    for rank, (name, look) in enumerate(styles(order).items()):
        of_name = frame[frame[by].astype(str) == name]
        if of_name.empty:
            continue
        per_unit = of_name.groupby([x, over], sort=True)[y].mean().groupby(level=0, sort=True)
        points = [(at, mean_interval(values.to_numpy())) for at, values in per_unit]
        where = np.array([at for at, _ in points], dtype=np.float64)
        mean, low, high = (
            np.array([getattr(interval, part) for _, interval in points]) for part in ("mean", "low", "high")
        )
        # a single unit has an unbounded interval: no band is more honest than none of width zero
        bounded = np.isfinite(low) & np.isfinite(high)
        axes.fill_between(
            where, np.where(bounded, low, mean), np.where(bounded, high, mean), where=bounded.tolist(),
            color=look.colour, alpha=0.18, linewidth=0, zorder=2 + 0.01 * rank,
        )  # fmt: skip
        axes.plot(
            where, mean, label=_listed((labels or {}).get(name, name)), zorder=3 + 0.01 * rank,
            color=look.colour, linestyle=look.dash,
            marker=look.marker if marks else "", markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
    if x_scale == "log2":
        axes.set_xscale("log", base=2)
        ticks = sorted(set(frame[x].astype(float)))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    axes.set_yscale(y_scale)
    # labels at the outer edge only: inner panels share the scale
    if axes.get_subplotspec() is None or axes.get_subplotspec().is_last_row():  # type: ignore[union-attr]
        axes.set_xlabel(x if x_label is None else x_label, parse_math=False)
    if axes.get_subplotspec() is None or axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
        axes.set_ylabel(y if y_label is None else y_label, parse_math=False)


def _listed(label: str) -> str:
    """A label that the legend shows as it is: Matplotlib leaves out what begins with _ and sets $…$ as maths."""
    label = label.replace("$", r"\$")
    return f" {label}" if label.startswith("_") else label


def shared_legend(figure: "Figure", title: str | None = None, columns: int = 8) -> None:
    """One legend for all panels, beneath them, where it hides no data."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            list(entries.values()), list(entries), title=title, loc="outside lower center",
            ncols=min(len(entries), columns), frameon=False, handlelength=3.2, fontsize=9,
        )  # fmt: skip


def save(figure: "Figure", stem: Path, svg: bool = False) -> list[Path]:
    """Writes a figure as PNG, and as SVG if asked or if there is one already; the same figure gives the same bytes.

    `stem` is a path without an extension. It returns the files, the PNG first, or raises BadInput if it can't write.
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
