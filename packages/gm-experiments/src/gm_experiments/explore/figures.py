"""The page and the closing table that the explorer makes of results.csv."""

from typing import TYPE_CHECKING

from gm_experiments.common.labels import ORDER
from gm_experiments.explore import page, points
from gm_experiments.explore.settings import Settings
from gm_lab import analysis, pages, run

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def figures(settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Writes explorer.html, and explorer.json with its data, beside results.csv; the page has all the pictures."""
    if settings.run_dir is None:
        return {}
    found = points.points(settings, frame)
    data = page.data_of(found, analysis.styles(found["axes"]["estimator"]))
    run.write_atomically(settings.run_dir / "explorer.json", run.output.encoded(pages.embedded(data)))
    run.write_atomically(settings.run_dir / "explorer.html", run.output.encoded(page.rendered(data)))
    print(f"page: {settings.run_dir / 'explorer.html'}")
    return {}


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Mean accuracy with the most trajectories over all α and K, by estimator and what is sampled."""
    most = frame["sample_size"].max()
    rows = frame[frame["sample_size"] == most]
    table: pd.DataFrame = rows.pivot_table(index="estimator", columns="permutation", values="accuracy").reset_index()
    head = f"accuracy at {most} trajectories"
    return table[["estimator", *(p for p in ORDER if p in table)]].rename(columns={"estimator": head})
