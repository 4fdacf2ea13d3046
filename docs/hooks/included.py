"""Files of the repository's root that are pages of the site as well, with links that lead to the site's pages."""

import re
from pathlib import Path
from typing import Any

SNIPPET = re.compile(r'^--8<-- "((?:CONTRIBUTING|CHANGELOG)\.md)"$', re.MULTILINE)


def as_a_page(text: str) -> str:
    """A root file's text, where a link to `docs/x.md` is one to `x.md` beside it."""
    return text.replace("](docs/", "](").replace("](CHANGELOG.md)", "](changelog.md)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with the root files that it names."""
    return SNIPPET.sub(lambda name: as_a_page(Path(name[1]).read_text(encoding="utf-8")), markdown)
