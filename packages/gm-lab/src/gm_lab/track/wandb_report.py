"""The same page as a W&B Report: verdicts, figures, curves, and how to reproduce."""

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from gm_lab.analysis import read_results, styles
from gm_lab.analysis.report import MARKS, Run, titles
from gm_lab.run.errors import BadInput
from gm_lab.run.reading import Unreadable
from gm_lab.track.connection import chosen_mode, destination
from gm_lab.track.curves import BAND, Curve, Curves, curves_of, keyed, logarithmic, panels_of
from gm_lab.track.sender import Ledger

PANELS = 24
"""At most so many panels of curves for each figure."""
BANDS = "A solid line is a mean, the dotted ones of its colour are the ends of its 95% interval."


def blocks(runs: Sequence[Run], entity: str) -> list[Any]:
    """Returns a section for each run; the projects that the apps were told to send them to hold them."""
    wr = _workspaces()
    parts: list[Any] = [wr.TableOfContents()]
    for run, title in zip(runs, titles(runs), strict=True):
        parts.append(wr.H1(text=title))
        if not run.finished:
            of = f" of {run.cells}" if run.cells else ""
            parts.append(wr.P(text=f"Unfinished: {run.done}{of} cells are computed."))
        if run.claims:
            parts += [wr.H2(text="Claims"), wr.MarkdownBlock(text=claims_table(run.claims))]
        if run.figures:
            media = [wr.MediaBrowser(title=f.name, media_keys=[f"figures/{f.name}"]) for f in run.figures]
            parts += [wr.H2(text="Figures"), wr.PanelGrid(runsets=[_runset(run, entity, "experiment")], panels=media)]
        parts += _curves(run, entity)
        parts.append(wr.H2(text="How to reproduce"))
        commit = run.begun.get("git_commit")
        lines = [f"git checkout {commit}"] * bool(commit) + [run.begun.get("command", "the command was not recorded")]
        parts.append(wr.MarkdownBlock(text="\n".join(["```sh", *lines, "```"])))
        if untracked := run.begun.get("untracked"):
            parts.append(wr.P(text=f"In no commit: {', '.join(untracked)}."))
        seconds = "; ".join(f"{part['computed']} cells in {part['seconds']:.1f} s" for part in run.computed)
        parts.append(wr.P(text=f"Computed: {seconds or 'not recorded'}."))
    return parts


def _curves(run: Run, entity: str) -> list[Any]:
    """A heading and a grid of panels for each figure, and one for the units that are trained alone."""
    wr, kinds = _workspaces(), [Curves.of(kind) for kind in run.begun.get("curves", [])]
    found: dict[str, Curve] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, Unreadable):  # the run may not be that far
        found = keyed(curves_of(kinds, read_results(run.path / "results.csv")))
    figures: dict[str, list[Any]] = defaultdict(list)
    for figure, spec in panels(current_run(run), found):
        figures[figure].append(spec)
    parts: list[Any] = []
    for figure, specs in figures.items():
        grid = wr.PanelGrid(runsets=[_runset(run, entity, "experiment")], panels=specs[:PANELS])
        parts += [wr.H2(text=f"Curves: {figure}"), wr.P(text=BANDS), grid]
        if (more := len(specs) - PANELS) > 0:
            parts.append(wr.P(text=f"{more} more panels would show the other keys that begin with {figure}/."))
    for kind in (kind for kind in kinds if kind.alone):
        by = [f"curve.{column}" for column in kind.by]
        alone = _runset(run, entity, "curve", groupby=[f"config.{name}" for name in by])
        specs = [wr.LinePlot(x=kind.x, y=[y], title=y, groupby_rangefunc="minmax") for y in kind.y]
        parts += [wr.H2(text=f"Every {kind.alone}, as it was trained"), wr.PanelGrid(runsets=[alone], panels=specs)]
    return parts


def panels(run_id: str, curves: Mapping[str, Curve]) -> Iterator[tuple[str, Any]]:
    """Yields figure and specification of each panel; those of one figure and measure have the same kind of axis."""
    found = list(panels_of(curves))
    means: dict[tuple[str, str], list[float]] = defaultdict(list)
    for figure, column, lines in found:
        means[figure, column] += [row[column] for curve in lines.values() for row in curve.rows if column in row]
    for figure, column, lines in found:
        yield figure, _panel(run_id, column, lines, logarithmic(means[figure, column]))


def _panel(run_id: str, column: str, lines: Mapping[str, Curve], log_y: bool) -> Any:
    """One panel: a mean for each line, in its estimator's colour, and the ends of its band, thin and dotted."""
    wr = _workspaces()
    first = next(iter(lines.values()))
    looks = styles([curve.line for curve in lines.values()])
    shared = [part for part in next(iter(lines)).split("/")[1:] if part != first.line] if len(lines) else []
    means: list[str] = []
    ends: list[str] = []
    titles: dict[str, str] = {}
    colours: dict[str, str] = {}
    widths: dict[str, float] = {}
    marks: dict[str, str] = {}
    for key, curve in lines.items():
        look = looks[curve.line]
        for end in ("", *BAND):
            if not any(f"{column}{end}" in point for point in curve.rows):
                continue
            name = f"{key}/{column}{end}"
            (ends if end else means).append(name)
            series = f"{run_id}:{name}"
            titles[series] = f"{curve.line}{' band' * bool(end)}"
            colours[series], widths[series] = look.colour, 0.5 if end else 2.0
            marks[series] = "dotted" if end else "solid"
    return wr.LinePlot(
        title=" ".join([column, *shared]), x=first.kind.x, y=[*means, *ends], title_x=first.kind.x, title_y=column,
        log_x=logarithmic([point[first.kind.x] for curve in lines.values() for point in curve.rows]),
        log_y=log_y, smoothing_type="none", ignore_outliers=False,
        line_titles=titles, line_colors=colours, line_widths=widths, line_marks=marks,
    )  # fmt: skip


def current_run(run: Run) -> str:
    """The id of the W&B run that has a run directory's curves: another one since it has grown."""
    sending = Ledger(run.path / "wandb" / "sent.json", "online").curves
    return sending.run if sending and sending.run.startswith(run.run_id) else run.run_id


def _runset(run: Run, entity: str, kind: str, **more: Any) -> Any:
    tracked = [line for line in run.sessions if line.get("event") == "tracked"]
    place = tracked[-1] if tracked else destination(run.app, run.run_id)
    group = str(place["group"]).replace("'", "")
    which = f" and Metric('ID') == '{current_run(run)}'" if kind == "experiment" else ""
    return _workspaces().Runset(
        entity=place.get("entity") or entity, project=place["project"], name=run.path.name,
        filters=f"Metric('Group') == '{group}' and Metric('JobType') == '{kind}'{which}", **more,
    )  # fmt: skip


def claims_table(claims: Sequence[dict[str, str]]) -> str:
    """The verdicts as a Markdown table."""

    def cell(text: str) -> str:
        return " ".join(text.replace("|", "\\|").split())

    rows = [
        (claim["id"], claim["claim"], f"{MARKS.get(claim['verdict'], '')} {claim['verdict']}", claim["measured"])
        for claim in claims
    ]
    head = ["| claim | in words | verdict | measured |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(map(cell, row))} |" for row in rows)])


def published(runs: Sequence[Run], entity: str, project: str) -> str:
    """Saves the Report and returns its link; raises BadInput without wandb-workspaces, or if W&B refuses."""
    import wandb

    wr = _workspaces()

    def refuse(text: str) -> None:
        reason = text.removeprefix("--wandb online: ").removesuffix("; logging offline")
        raise BadInput(f"--entity, --project: {reason}; the page above needs neither")

    chosen_mode("online", wandb.setup().settings.base_url, refuse)
    try:
        title = ", ".join(dict.fromkeys(run.app for run in runs))
        report = wr.Report(
            entity=entity, project=project, title=title, description="Claims, figures and curves",
            blocks=blocks(runs, entity), width="fluid",
        )  # fmt: skip
        with contextlib.redirect_stderr(io.StringIO()):  # it prints the link, as our caller does
            report.save()
    except Exception as error:  # W&B's own kinds of errors have no common base
        text = " ".join(str(error).split())[:200]
        raise BadInput(f"--entity, --project: W&B: {type(error).__name__}: {text}") from error
    return str(report.url)


def _workspaces() -> Any:
    try:
        return import_module("wandb_workspaces.reports.v2")
    except ImportError:
        raise BadInput("--entity, --project: expected the extra gm-lab[reports], which isn't installed") from None
