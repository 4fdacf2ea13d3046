"""The same page as a W&B Report: verdicts, figures, curves, and how to reproduce."""

import contextlib
import io
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from gm_lab.analysis.report import MARKS, Run, titles
from gm_lab.run.errors import BadInput
from gm_lab.track.connection import chosen_mode, destination
from gm_lab.track.curves import Curves


def blocks(runs: Sequence[Run], entity: str) -> list[Any]:
    """Returns a section for each run; the entity's projects, WANDB_PROJECT or the apps' names, hold them."""
    wr = _workspaces()
    parts: list[Any] = [wr.TableOfContents()]
    for run, title in zip(runs, titles(runs), strict=True):
        parts.append(wr.H1(text=title))
        if not run.finished:
            of = f" of {run.cells}" if run.cells else ""
            parts.append(wr.P(text=f"Unfinished: {run.done}{of} cells are computed."))
        if run.claims:
            parts += [wr.H2(text="Claims"), wr.MarkdownBlock(text=claims_table(run.claims))]
        place = destination(run.app, run.run_id)
        group = str(place["group"]).replace("'", "")
        filters = f"Metric('Group') == '{group}'"
        runset = wr.Runset(entity=entity, project=place["project"], name=run.path.name, filters=filters)
        panels: list[Any] = [wr.MediaBrowser(title=f.name, media_keys=[f"figures/{f.name}"]) for f in run.figures]
        for kind in map(Curves.of, run.begun.get("curves", [])):
            panels += [wr.LinePlot(x=kind.x, y=[column], title=f"{column} over {kind.x}") for column in kind.y]
        if panels:
            parts += [wr.H2(text="Figures and curves"), wr.PanelGrid(runsets=[runset], panels=panels)]
        parts.append(wr.H2(text="How to reproduce"))
        commit = run.begun.get("git_commit")
        lines = [f"git checkout {commit}"] * bool(commit) + [run.begun.get("command", "the command was not recorded")]
        parts.append(wr.MarkdownBlock(text="\n".join(["```sh", *lines, "```"])))
        if untracked := run.begun.get("untracked"):
            parts.append(wr.P(text=f"In no commit: {', '.join(untracked)}."))
        seconds = "; ".join(f"{part['computed']} cells in {part['seconds']:.1f} s" for part in run.computed)
        parts.append(wr.P(text=f"Computed: {seconds or 'not recorded'}."))
    return parts


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
