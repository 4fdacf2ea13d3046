"""Formulas of the site: LaTeX in the pages becomes MathML when the site is built, and Markdown leaves it alone.

A page writes `$…$` and `$$…$$`, which also shows on GitHub. Emphasis is written with asterisks around whole words, so
that no subscript and no product of a formula in plain characters, as docstrings have them, is eaten.
"""

import html
import re
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])</(?P=tag)>', re.DOTALL
)
WORDS = r"(?<![\w*])(\*{1,2})(?=[^\s*])(.+?)(?<=[^\s*])\1(?![\w*])"
SPACING = {  # the dictionary of MathML operators puts wide gaps around bars, slashes, ⊥ and names of functions
    re.compile(
        r"<mo(?: [^>]*)?>(&#x02016;|&#x0007C;)</mo>"
    ): r'<mo stretchy="false" lspace="0.05em" rspace="0.05em">\1</mo>',
    re.compile(r"<mo>(&#x0002F;|&#x022A5;)</mo>"): r'<mo lspace="0" rspace="0">\1</mo>',
    re.compile(r"<mo>([A-Za-z]{2,})</mo>"): r'<mo lspace="0" rspace="0.17em">\1</mo>',
    re.compile(r"<mi>(log|exp|max|min)</mi>"): r'<mo lspace="0.17em" rspace="0.17em">\1</mo>',
    # a prime is raised by itself, and too small to be read as an exponent
    re.compile(r"<msup>(<mi>[^<]*</mi>)<mi>(&#x0203[234];)</mi></msup>"): (
        r'<mrow>\1<mo lspace="0" rspace="0">\2</mo></mrow>'
    ),
}


class Emphasis(InlineProcessor):
    """Asterisks around whole words: one for `em`, two for `strong`."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:  # noqa: ARG002, N802 (their names)
        """An element whose text Markdown goes on reading."""
        element = Element("strong" if m[1] == "**" else "em")
        element.text = m[2]
        return element, m.start(0), m.end(0)


class NoFormulaIsEmphasis(Extension):
    """An underscore is an underscore, and an asterisk beside a letter is an asterisk."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 (their name)
        """Take the usual patterns of emphasis out, and put in that of whole words."""
        for name in ("em_strong", "em_strong2"):
            md.inlinePatterns.deregister(name, strict=False)
        md.inlinePatterns.register(Emphasis(WORDS), "em_strong", 60)


def mathml(latex: str, display: str) -> str:
    """A formula as MathML."""
    found = convert(html.unescape(latex).strip(), display=display)
    for gap, closed in SPACING.items():
        found = gap.sub(closed, found)
    return found


def with_mathml(page: str) -> str:
    """A page's HTML with MathML for what was LaTeX."""

    def formula(match: re.Match[str]) -> str:
        if match["block"] is not None:
            return f'<div class="formula">{mathml(match["block"], "block")}</div>'
        return mathml(match["inline"], "inline")

    return FORMULA.sub(formula, page)


def on_config(config: Any) -> Any:
    """Every page's Markdown, and that of docstrings, leaves formulas alone."""
    config["markdown_extensions"].append(NoFormulaIsEmphasis())
    return config


def on_page_content(content: str, **_: Any) -> str:
    """What a page's Markdown has become."""
    return with_mathml(content)
