"""Files of the repository's root that are pages of the site as well, with links that lead to the site's pages.

GitHub takes what is indented by three spaces as part of a numbered step; the site's Markdown asks for four.
"""

import re
from pathlib import Path
from typing import Any

SNIPPET = re.compile(r'^--8<-- "((?:CONTRIBUTING|CHANGELOG)\.md)"$', re.MULTILINE)
STEP = re.compile(r"^\d+\. .*\n(?:(?: {3}.*)?\n)*", re.MULTILINE)


def as_a_page(text: str) -> str:
    """A root file's text, where a link to `docs/x.md` is one to `x.md` beside it, and steps keep their numbers."""
    steps = STEP.sub(lambda step: re.sub(r"^ {3}", " " * 4, step[0], flags=re.MULTILINE), text)
    return steps.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changelog.md)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with the root files that it names."""
    return SNIPPET.sub(lambda name: as_a_page(Path(name[1]).read_text(encoding="utf-8")), markdown)
