"""results.csv becomes figures and the closing table."""
from typing import Any
def figures(_settings: Any, frame: Any) -> Any:
    return {}
def summary(_settings: Any, frame: Any) -> Any:
    return frame.head(3)
