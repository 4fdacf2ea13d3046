"""A flag within a line of text is not broken after its hyphens."""

import re
from typing import Any

CODE = re.compile(r"<code>[^<]*</code>")
FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")


def unbroken(page: str) -> str:
    """A page's HTML whose inline code keeps each flag on one line."""
    kept = r'<span class="flag">\g<0></span>'
    return CODE.sub(lambda code: FLAG.sub(kept, code[0]), page)


def on_page_content(content: str, **_: Any) -> str:
    """What a page's Markdown has become."""
    return unbroken(content)
