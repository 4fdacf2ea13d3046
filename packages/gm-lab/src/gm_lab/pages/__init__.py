"""HTML pages of one file that ask nobody for anything, with charts by Vega-Lite that people can touch.

A page is safe whatever its data are: data are text to it, and the browser is told to run the scripts of this package
alone and to load nothing.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["document", "embedded", "library", "look", "part"]

BINDING = "window.vegaEmbed = vegaEmbed;"
MARKS = {
    "s": "square", "^": "triangle-up", "v": "triangle-down", "<": "triangle-left", ">": "triangle-right",
    "D": "diamond", "d": "diamond", "P": "cross",
}  # fmt: skip
"""Matplotlib's marks by the names that Vega has for them; all others are circles."""


def part(name: str, package: str = __name__) -> str:
    """The text of a file beside a package's modules: a style sheet, a script or a piece of HTML."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


@cache
def library() -> str:
    """The JavaScript of Vega, Vega-Lite and Vega-Embed, 0.9 MB, out of the package vl-convert-python."""
    import vl_convert

    script: str = vl_convert.javascript_bundle(BINDING)
    return script.replace("</script", r"<\/script")


def embedded(data: Any) -> str:
    """Plain data as JSON that may stand in a script element, whatever texts are in it; NaN and infinity are null."""
    text = json.dumps(_finite(data), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c")


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and (data != data or abs(data) == float("inf")) else data


def document(
    title: str, body: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), data: Any = None
) -> str:
    """The whole page: a body in HTML, and perhaps data with the scripts that read them as `charts.data()`.

    Pages with scripts have the library of charts and `charts.js` before them.
    """
    code = [library(), part("charts.js"), *scripts] if scripts else []
    held = f'<script type="application/json" id="data">{embedded(data)}</script>\n' if scripts else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(code)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{part('base.css')}{''.join(styles)}</style>\n</head>\n"
        f"<body>\n{body}\n{held}{''.join(f'<script>{script}</script>{chr(10)}' for script in code)}</body>\n</html>\n"
    )


def _policy(code: Sequence[str]) -> str:
    """Nothing is loaded, and of scripts these alone are run."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in code)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
    rest = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    return f"{rest}; script-src {allowed}"


def look(colour: str, marker: str, dash: Any) -> dict[str, Any]:
    """How the scripts draw a line, given its colour and Matplotlib's marker and dash."""
    strokes = dash[1] if isinstance(dash, tuple) else ()
    return {"colour": colour, "shape": MARKS.get(marker, "circle"), "dash": [round(2.2 * each, 1) for each in strokes]}
