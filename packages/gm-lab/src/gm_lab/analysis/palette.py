"""Who looks how: one colour, marker and dash per estimator in every picture, other looks for everything else."""

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gm_lab.run.output import encoded


@dataclass(frozen=True)
class Style:
    """How one name looks in every figure; marker and dash tell it apart in grey, too."""

    colour: str
    marker: str
    dash: Any


# blue, vermilion and green are M. Okabe and K. Ito's ("Color Universal Design", 2008), wine is P. Tol's ("Colour
# Schemes", 2021); every colour here has a contrast of at least 3:1 on white
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#882255")
MARKERS = ("o", "s", "^", "D")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (5, 1, 1, 1)))
VARIANT_MARKERS = ("v", "P", "X", "*")
VARIANT_DASHES: tuple[Any, ...] = ((0, (7, 2)), (0, (1, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 1, 1, 1)))
OWN_COLOURS = ("#8A6A00", "#CC2F87", "#4D4D4D", "#6A51A3", "#007F8F")
OWN_MARKERS = ("X", "P", "v", "p", "*")
OWN_DASHES: tuple[Any, ...] = ((0, (7, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)), (0, (8, 1, 1, 1)), (0, (4, 1)))
CATEGORY_COLOURS = ("#3F4AA5", "#B8860B", "#00818A", "#7B4B2A", "#C2458E", "#5C6670", "#6B8E00", "#111111")
CATEGORY_MARKERS = ("<", ">", "h", "d", "*", "8", "H", "p")
CATEGORY_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (6, 1, 1, 1)), (0, (8, 2)), (0, (2, 2)))

ESTIMATORS = ("lvc", "ad", "loaded_dice", "dice")
"""The names of the house's estimators, each with the looks at its place."""
PERMUTATIONS = ("SSS", "SSE", "SES", "SEE", "ESS", "ESE", "EES")
"""What is sampled: a category whose names keep their places."""


def style_of(name: str) -> Style:
    """The looks of an estimator: the same in every figure, run and process.

    `lvc`, `ad`, `loaded_dice` and `dice` have their own. A name that goes on after one of them, as `lvc+jackknife` or
    "LVC, jackknife" do, has that colour with another marker and dash. Any other has a colour that none of these has.

    Examples:
        >>> from gm_lab.analysis import style_of
        >>> style_of("lvc").colour == style_of("lvc+jackknife").colour
        True
        >>> style_of("lvc").colour == style_of("ad").colour
        False
    """
    return category_style(name) if name in PERMUTATIONS else _choices(name)[0]


def styles(names: Sequence[str]) -> dict[str, Style]:
    """Gives the looks of the names of one picture, in any order; a name without a place steps aside for the others.

    Examples:
        >>> from gm_lab.analysis import styles
        >>> looks = styles(["lvc", "mine:first", "mine:second"])
        >>> len({look.colour for look in looks.values()})
        3
    """
    fixed = {*ESTIMATORS, *PERMUTATIONS}
    looks = {name: style_of(name) for name in names if name in fixed}
    for name in sorted(set(names) - fixed):
        taken = list(looks.values())
        looks[name] = min(_choices(name), key=lambda look: _clashes(look, taken))
    return {name: looks[name] for name in names}


def category_style(name: str | int) -> Style:
    """The looks of what is no estimator, a permutation, a source, a curve: by its place, or else by its letters.

    Examples:
        >>> from gm_lab.analysis import category_style, style_of
        >>> category_style("SSE") == category_style("SSE")
        True
        >>> category_style("SSE").colour == style_of("lvc").colour
        False
    """
    if isinstance(name, str):
        name = PERMUTATIONS.index(name) if name in PERMUTATIONS else zlib.crc32(encoded(name))
    colour, marker, dash = CATEGORY_COLOURS, CATEGORY_MARKERS, CATEGORY_DASHES
    return Style(colour[name % len(colour)], marker[name % len(marker)], dash[name % len(dash)])


def _choices(name: str) -> tuple[Style, ...]:
    """The looks that an estimator may have, its favourite first."""
    if name in ESTIMATORS:
        place = ESTIMATORS.index(name)
        return (Style(COLOURS[place], MARKERS[place], DASHES[place]),)
    first, estimator = zlib.crc32(encoded(name)), _variant_of(name)
    if estimator is not None:
        colour = COLOURS[ESTIMATORS.index(estimator)]
        places = [(first + step) % len(VARIANT_MARKERS) for step in range(len(VARIANT_MARKERS))]
        return tuple(Style(colour, VARIANT_MARKERS[place], VARIANT_DASHES[place]) for place in places)
    count = len(OWN_COLOURS)
    pairs = [
        ((first + step) % count, (first + step + shift) % count) for shift in range(count) for step in range(count)
    ]
    return tuple(Style(OWN_COLOURS[one], OWN_MARKERS[other], OWN_DASHES[other]) for one, other in pairs)


def _variant_of(name: str) -> str | None:
    """Which of the house's estimators a name begins with, as a whole word."""
    found = re.match(r"(lvc|ad|loaded_dice|dice)(?=[+@, (/|])", name.lower().replace("-", "_"))
    return found.group(1) if found else None


def _clashes(look: Style, taken: Iterable[Style]) -> int:
    return sum((look.colour == other.colour) + (look.marker == other.marker) + (look == other) for other in taken)
