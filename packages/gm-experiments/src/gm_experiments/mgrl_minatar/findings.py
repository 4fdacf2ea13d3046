"""What MinAtar's pictures find, in words that are true for the results they are computed from."""

from itertools import pairwise
from typing import TYPE_CHECKING

from gm_experiments.common.findings import joined, two_digits
from gm_experiments.mgrl.findings import LABELS, SYMBOLS, length
from gm_experiments.mgrl_minatar.scores import UNITS, final_returns, iqm_interval, scores
from gm_experiments.mgrl_minatar.settings import GAMES
from gm_lab.analysis import Interval, paired_difference

if TYPE_CHECKING:
    import pandas as pd

ERROR = 0.05
"""Of all that a title says together."""
__all__ = ["LABELS", "SYMBOLS", "gains", "over_games", "played", "returns"]


def played(log: "pd.DataFrame") -> list[str]:
    """Returns the games, in the order of the settings."""
    return [game for game in GAMES if (log["game"] == game).any()]


def algorithms(log: "pd.DataFrame") -> list[str]:
    """Returns the algorithms in the order in which they are shown."""
    return [name for name in LABELS if (log["algorithm"] == name).any()]


def returns(log: "pd.DataFrame") -> str:
    """Which algorithm is told apart from the one before it by its final returns; else what is learnt.

    What is said of all games holds together, by Bonferroni.
    """
    final, seeds, order = final_returns(log), log["seed"].nunique(), algorithms(log)
    confidence = 1 - ERROR / max(1, len(played(log)) * (len(order) - 1))
    told: dict[str, list[str]] = {}
    for game in played(log):
        for low, high in pairwise(order):
            if {(game, low), (game, high)} <= {*final}:
                both = final[[(game, low), (game, high)]].dropna()
                if len(both) > 1 and (words := _apart(both[game, low], both[game, high], confidence)):
                    told.setdefault(words.format(LABELS[high], LABELS[low]), []).append(game)
    if told:
        return "; ".join(f"{words} in {joined(games)}" for words, games in told.items())
    if seeds < 2:
        return f"One run each of {length(log)} cannot tell algorithms apart"
    return f"{seeds} runs of {length(log)} tell no two algorithms apart" + learnt(log)


def _apart(low: "pd.Series[float]", high: "pd.Series[float]", confidence: float) -> str:
    gain = paired_difference(high, low, confidence)
    side = "above" if gain.low > 0 else "below" if gain.high < 0 else ""
    return f"{{}} ends {side} {{}}" if side else ""


def learnt(log: "pd.DataFrame") -> str:
    """How far returns have come where a single game is played, if every algorithm's interval shows a rise."""
    games, order = played(log), algorithms(log)
    if len(games) > 1:
        return ""
    final = final_returns(log)[games[0]]
    ended = log[log["episodes"] > 0].sort_values("env_steps").groupby(["seed", "algorithm"])["episode_return"]
    first = ended.first().unstack("algorithm")
    rises = [paired_difference(final[name].dropna(), first[name].reindex(final[name].dropna().index)) for name in order]
    if not all(rise.low > 0 for rise in rises):
        return ""
    begins, ends = (two_digits(float(table[order].to_numpy().mean())) for table in (first, final))
    return f", but all learn: from {begins} to {ends}"


def gains(log: "pd.DataFrame") -> dict[str, Interval]:
    """By how much MGRL + LVC ends above MGRL in each game, in the game's unit, and in the interquartile mean.

    The intervals of the games hold together, by Bonferroni.
    """
    final, found = final_returns(log), {}
    confidence = 1 - ERROR / len(played(log))
    for game in played(log):
        if {(game, "mgrl"), (game, "mgrl-lvc")} <= {*final}:
            both = (final[game][["mgrl", "mgrl-lvc"]] / UNITS[game]).dropna()
            if len(both):
                found[game] = paired_difference(both["mgrl-lvc"], both["mgrl"], confidence)
    if len(found) > 1 and (pair := scores(log[log["algorithm"].isin(["mgrl", "mgrl-lvc"])]))["mgrl"].size:
        found["interquartile mean"] = iqm_interval(pair["mgrl-lvc"], pair["mgrl"])
    return found


def over_games(log: "pd.DataFrame") -> str:
    """Whether LVC ends above or below plain MGRL over the games, and in how many of them."""
    found = gains(log)
    whole = found.pop("interquartile mean", None)
    seeds = log["seed"].nunique()
    if whole is None or seeds < 2:
        return f"One run each of {length(log)} cannot tell MGRL + LVC from MGRL"
    above, below = (
        [game for game, gain in found.items() if (gain.low > 0 if up else gain.high < 0)] for up in (True, False)
    )
    side = "above" if whole.low > 0 else "below" if whole.high < 0 else ""
    first = f"over {len(found)} games MGRL + LVC ends {side} MGRL" if side else (
        f"over {len(found)} games {seeds} runs don't tell MGRL + LVC from MGRL"
    )  # fmt: skip
    rest = [f"it ends {word} in {joined(games)}" for word, games in (("above", above), ("below", below)) if games]
    return "; ".join([first[0].upper() + first[1:], *rest])
