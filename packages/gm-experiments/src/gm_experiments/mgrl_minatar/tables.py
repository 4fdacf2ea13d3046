"""results.csv becomes the closing table."""

from typing import TYPE_CHECKING

from gm_experiments.mgrl.tables import LABELS
from gm_experiments.mgrl.training import NAMES
from gm_experiments.mgrl_minatar.findings import algorithms, played
from gm_experiments.mgrl_minatar.scores import final_returns, final_rows
from gm_experiments.mgrl_minatar.settings import Settings
from gm_lab.analysis import mean_interval

if TYPE_CHECKING:
    import pandas as pd


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns, per game and algorithm, final return with its interval, final meta-parameters, steps per second."""
    import pandas as pd

    final, ends = final_returns(frame), final_rows(frame)
    rows: list[dict[str, object]] = []
    for game in played(frame):
        for name in algorithms(frame):
            if (game, name) not in final or not len(known := final[game, name].dropna()):
                continue
            found, mine = mean_interval(known), frame[(frame["game"] == game) & (frame["algorithm"] == name)]
            end = ends.loc[ends.index.intersection(mine.index), list(NAMES)].mean()
            row = {"run": f"{game} {name}", "return": found.mean, "low": found.low, "high": found.high, **end}
            row["steps_per_second"] = mine["steps_per_second"].median()
            rows.append({LABELS.get(str(key), str(key)): value for key, value in row.items()})
    return pd.DataFrame(rows)
