"""results.csv as a data frame, and small data frames as tables for the terminal."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gm_lab.run.output import own_file

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table


def read_results(path: Path) -> "pd.DataFrame":
    """Reads results.csv: every number exactly as it was written, and text such as "NA" or "None" as text."""
    import pandas as pd

    # pandas 3 reads floats exactly by default and deprecates saying so
    exact: Any = {"float_precision": "round_trip"} if pd.__version__.startswith("2.") else {}
    with open(path, encoding="utf-8", newline="", opener=own_file) as file:
        frame: pd.DataFrame = pd.read_csv(file, keep_default_na=False, na_values=["nan", ""], **exact)
    return frame


def summary_table(frame: "pd.DataFrame") -> "Table":
    """A small data frame as a table; numbers with three significant digits."""
    from rich.table import Table

    table = Table()
    for column in frame.columns:
        text = is_text(frame, column)
        table.add_column(str(column), justify="left" if text else "right", no_wrap=text and len(frame.columns) < 9)
    for row in frame.itertuples(index=False):
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row))
    return table


def headline(summary: "pd.DataFrame") -> dict[str, float]:
    """The numbers of a small table, each named by the text in its row and by its column: "lvc/SSE/accuracy"."""
    texts = [column for column in summary.columns if is_text(summary, column)]
    return {
        "/".join([*(str(row[text]) for text in texts), str(column)]): float(row[column])
        for _, row in summary.iterrows()
        for column in summary.columns
        if column not in texts
    }


def is_text(frame: "pd.DataFrame", column: str) -> bool:
    """Whether a column holds anything but numbers."""
    return frame[column].dtype.kind not in "iuf"
