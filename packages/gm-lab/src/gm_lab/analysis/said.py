"""What a run found, in words for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gm_lab.analysis.claims import Indented

if TYPE_CHECKING:
    from rich.console import RenderableType


def in_words(sentences: Sequence[str]) -> "RenderableType":
    """The sentences, each once, one below the other under a heading."""
    from rich.console import Group
    from rich.text import Text

    return Group(Text("In words", style="bold"), *(Indented(text, first="  - ") for text in dict.fromkeys(sentences)))
