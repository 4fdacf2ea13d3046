"""Which loaded modules are somebody's own files rather than installed."""

import sys
from collections.abc import Sequence
from pathlib import Path


def imported_from(folders: Sequence[Path]) -> dict[str, Path]:
    """The loaded modules that were found in these folders, by name."""
    found = {}
    for name, module in list(sys.modules.items()):
        # a few modules name a file that there isn't
        file = Path(getattr(module, "__file__", None) or "none").resolve()
        for folder in folders:
            # what is installed below a folder has another path than its name
            place = folder.joinpath(*name.split("."))
            if file in (place.with_name(f"{place.name}.py"), place / "__init__.py") and file.is_file():
                found[name] = file
    return found
