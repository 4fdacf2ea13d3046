"""The figures as a page."""

from collections.abc import Mapping
from typing import Any


def page(figures: Mapping[str, Mapping[str, Any]], steps: Mapping[str, object]) -> str:
    """The figures as Markdown, a section for each step with what its function says of it."""
    lines = ["# On a GPU", ""]
    for name, found in figures.items():
        rows = {label: row for label, row in found.items() if label != "seconds"}
        lines += [f"## {name}", "", " ".join((steps[name].__doc__ or "").split("\n\n")[0].split()), ""]
        lines += [f"{found['seconds']:.0f} s." if "seconds" in found else "", ""]
        columns = list(dict.fromkeys(key for row in rows.values() if isinstance(row, dict) for key in row))
        lines += ["| | " + (" | ".join(columns) or "value") + " |", "|---|" + "---:|" * max(1, len(columns))]
        for label, row in rows.items():
            cells = [row.get(key, "") for key in columns] if isinstance(row, dict) else [row]
            lines.append(f"| {label} | " + " | ".join(map(shown, cells)) + " |")
        lines.append("")
    return "\n".join(lines)


def shown(value: object) -> str:
    """Three digits of a number, anything else as it is."""
    if not isinstance(value, float):
        return str(value).replace("|", "\\|")
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
