"""A diagnosis as one HTML page that needs nothing else: what was found, the picture, tables and advice."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gm_lab import pages
from gm_lab.analysis.diagnosis import (
    Row,
    diagnosis_figure,
    estimators_of,
    finding,
    in_percent,
    label_of,
    source_label,
    sources_of,
)
from gm_lab.analysis.figures import RC, entitle, words
from gm_lab.run.store import allowed_to, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURES = {
    "bias_sq": ("squared bias", "‖E[d] − g‖²"), "along": ("bias along g", "⟨E[d] − g, g⟩"),
    "variance": ("variance", "tr Cov[d]"), "mse": ("mean squared error", "E‖d − g‖²"),
}  # fmt: skip
FIRST = 12
"""Choices of an advice that are shown at once."""


class Seeded(Protocol):
    """What was diagnosed, and how."""

    @property
    def seed(self) -> int:
        """The root of all seeds."""


class Diagnosis(Protocol):
    """What a page tells of, such as `gm_estimators.diagnose.Report`."""

    @property
    def repeats(self) -> int:
        """How many independent repeats there are."""

    @property
    def env_steps(self) -> int:
        """Environment steps of all."""

    @property
    def plan(self) -> Seeded:
        """What was diagnosed, and how."""

    @property
    def estimand(self) -> str:
        """What g is, in a sentence."""

    @property
    def meanings(self) -> Mapping[str, str]:
        """What each source is, by its name."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences on the numbers."""

    def rows(self) -> Sequence[Row]:
        """The numbers, as `diagnosis_figure` takes them."""


class Advice(Protocol):
    """Ways to spend trajectories, from the best to the worst, such as `gm_estimators.diagnose.Advice`."""

    @property
    def trajectories(self) -> int:
        """Of all roles and steps together, for each task."""

    @property
    def repeats(self) -> int:
        """Independent ones, of every choice."""

    @property
    def env_steps(self) -> int:
        """What finding out took."""

    @property
    def choices(self) -> Sequence[Any]:
        """Each with estimator, gae_lambda, sizes, mse and beyond, the error above the best's with its interval.

        Where several K were tried, advice has `returns` by K, and each choice its `inner_steps`.
        """


def diagnosis_page(report: Diagnosis, path: str | Path, *, caption: str = "", advice: Advice | None = None) -> Path:
    """Writes a diagnosis as one HTML page: what was found, the picture, all numbers with intervals, and advice.

    Its headline is computed from the intervals. The page loads nothing, so that it can be sent on.

    Args:
        report: what `gm_estimators.diagnose.diagnose` returned, or anything with the same members.
        path: the file.
        caption: what the loop is, in a sentence or two.
        advice: what `report.advise` returned.

    Returns:
        The file.

    Raises:
        BadInput: if the file can't be written.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from types import SimpleNamespace
        >>> from gm_lab import diagnosis_page
        >>> whole = {"estimator": "ad", "measure": "bias_sq", "source": "", "value": 0.5, "low": 0.4, "high": 0.6}
        >>> report = SimpleNamespace(
        ...     repeats=8,
        ...     env_steps=1000,
        ...     plan=SimpleNamespace(seed=0),
        ...     estimand="g is the true one.",
        ...     meanings={"hessian": "the Jacobian"},
        ...     notes=(),
        ...     rows=lambda: [whole, {**whole, "source": "hessian"}],
        ... )
        >>> with TemporaryDirectory() as folder:
        ...     diagnosis_page(report, f"{folder}/bias.html").name
        'bias.html'
    """
    import jinja2

    rows, here = report.rows(), __package__
    figure = diagnosis_figure(rows)
    entitle(figure, "", "")  # the page says it
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    named = {
        "finding": _unbroken(finding(rows)), "caption": caption, "picture": _data(figure), "alt": _alt(figure),
        "report": report,
        "estimators": [label_of(name) for name in estimators_of(rows)], "whole": _whole(rows), "sources": _shares(rows),
        "along": _shares(rows, "along"), "meanings": {source_label(k): v for k, v in report.meanings.items()},
        "advice": advice, "choices": _choices(advice), "told": _told(advice), "first": FIRST,
        "earned": _earned(advice),
    }  # fmt: skip
    body = environment.from_string(pages.part("diagnosis.html.jinja", here)).render(named)
    text = pages.document(finding(rows), body, styles=[pages.part("diagnosis.css", here)])
    with allowed_to("write", Path(path)):
        write_atomically(Path(path), text.encode())
    return Path(path)


def _unbroken(text: str) -> str:
    """A text whose intervals stay in one line."""
    return re.sub(r"\[(\S+), (\S+)\]", "[\\1,\u00a0\\2]", text)


def _data(figure: "Figure") -> str:
    """A figure as the URL of a drawing; the same figure gives the same."""
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(content.getvalue()).decode()}"


def _alt(figure: "Figure") -> str:
    from matplotlib.text import Text

    texts = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    return f"Diagnosis: {'; '.join(words(texts))}"


def _whole(rows: Sequence[Row]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Measure and its formula ↦ each estimator's number and interval."""
    there = {(row["measure"], str(row["estimator"])): row for row in rows if not row["source"]}
    return {
        words: [_cell(there.get((measure, name))) for name in estimators_of(rows)]
        for measure, words in MEASURES.items()
    }


def _shares(rows: Sequence[Row], measure: str = "bias_sq") -> dict[str, list[tuple[str, str]]]:
    """Source ↦ each estimator's share of a measure, and its interval."""
    there = {(row["source"], str(row["estimator"])): row for row in rows if row["measure"] == measure}
    return {
        source_label(source): [_cell(there.get((source, name))) for name in estimators_of(rows)]
        for source in sources_of(rows)
    }


def _cell(row: Row | None) -> tuple[str, str]:
    """A number, and its interval."""
    number, _, interval = ("" if row is None else in_percent(row)).partition(" [")
    return number, f"[{interval}" if interval else ""


def _choices(advice: Advice | None) -> list[dict[str, str]]:
    """An advice's choices in words."""
    return [] if advice is None else [_choice(choice, _earned(advice)) for choice in advice.choices]


def _earned(advice: Advice | None) -> dict[int, str]:
    """K ↦ what the loop earns after so many steps, where several were tried."""
    returns = getattr(advice, "returns", {})
    said = {steps: f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]" for steps, found in returns.items()}
    return {steps: text.replace("-", "−") for steps, text in said.items()}


def _choice(choice: Any, earned: Mapping[int, str]) -> dict[str, str]:
    sizes, beyond = choice.sizes, {end: getattr(choice.beyond, end) for end in ("value", "low", "high")}
    jacobian = "for step and Jacobian together" if sizes.shared else f"for the step, {sizes.hessian} for its Jacobian"
    if getattr(choice, "first_order", False):
        jacobian = "for the step, without a Jacobian"
    return {
        "name": label_of(choice.estimator)
        + (f", K = {choice.inner_steps}" if earned else "")
        + ("" if choice.gae_lambda is None else f", λ = {choice.gae_lambda:g}"),
        "sizes": f"{sizes.inner} {jacobian}, {sizes.outer} for the outer gradient",
        "error": in_percent(dict.fromkeys(beyond, choice.mse)).partition(" [")[0],
        "beyond": "not told apart" if beyond["low"] <= 0 else in_percent(beyond),
    }


def _told(advice: Advice | None) -> str:
    """What an advice comes to: the best choice and those that can't be told from it."""
    if advice is None:
        return ""
    best = _choice(advice.choices[0], _earned(advice))
    alike = sum(choice.beyond.low <= 0 for choice in advice.choices[1:])
    others = f"; {alike} of the {len(advice.choices) - 1} others are not told apart from it" if alike else ""
    return f"Best as measured, with {advice.trajectories} trajectories: {best['name']}, {best['sizes']}{others}"
