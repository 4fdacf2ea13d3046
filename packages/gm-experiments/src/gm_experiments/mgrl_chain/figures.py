"""results.csv becomes figures and the closing table."""

from typing import TYPE_CHECKING

from gm_experiments.common.findings import intervals
from gm_experiments.common.labels import short
from gm_experiments.mgrl_chain import findings
from gm_experiments.mgrl_chain.findings import CRITICS
from gm_experiments.mgrl_chain.settings import FIXED, INNER, MEASURED, META, TARGET, Settings
from gm_lab import analysis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

RETURN, GAMMA = "return", "γ"
TITLES = {critic: f"{words} in the outer objective" for critic, words in CRITICS.items()}
UPDATES = "updates of an agent"


def figures(_settings: Settings, frame: "pd.DataFrame") -> "dict[str, Figure]":
    """Draws returns and γ along learning, and what LVC changes in γ's path where it and AD were measured."""
    rows = with_lines(frame)
    drawn = {"chain": _chain(rows)}
    both = rows[rows["line"].isin(["ad", "lvc"])]
    return drawn | ({"lvc": _effect(both)} if both["line"].nunique() == 2 else {})


def with_lines(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Names the line that each row belongs to, which is the same whatever critic the outer objective has.

    Meta-gradients come first, AD before all others, and fixed discounts last.
    """
    target = "target " + frame["estimator"].astype(str)
    line = frame["curve"].where(frame["method"] == FIXED, target)
    line = line.where(frame["method"] != META, frame["estimator"])
    place = frame["method"].map({META: 0, TARGET: 1, FIXED: 2})
    rows = frame.assign(line=line, place=place)
    ordered: pd.DataFrame = rows.sort_values(["place", "line", "critic", "seed", "update"]).drop(columns="place")
    return ordered


def labels_of(rows: "pd.DataFrame") -> dict[str, str]:
    """Says what lines are called."""
    called = short(rows.loc[rows["method"] != FIXED, "estimator"].unique())
    targets = [line for line in rows["line"].unique() if line.startswith("target ")]
    named = {line: f"target, {called[line.removeprefix('target ')]}" for line in targets}
    fixed = {line: line for line in rows.loc[rows["method"] == FIXED, "line"].unique()}
    return called | (dict.fromkeys(targets, "bootstrapped") if len(targets) == 1 else named) | fixed


def _looks(rows: "pd.DataFrame") -> dict[str, analysis.Style]:
    """Estimators have their own looks; targets and fixed discounts those of their places."""
    learnt = [str(line) for line in rows.loc[rows["method"] == META, "line"].unique()]
    others = [str(line) for line in rows["line"].unique() if line not in learnt]
    return analysis.styles(learnt) | {line: analysis.category_style(place) for place, line in enumerate(others)}


def _chain(rows: "pd.DataFrame") -> "Figure":
    """A column for each critic of the outer objective, returns above γ; fixed discounts are in all of them."""
    critics = [critic for critic in CRITICS if critic in set(rows["critic"])] or [INNER]
    learnt = bool((rows["method"] != FIXED).any())
    titles = [TITLES[critic] if learnt else "" for critic in critics]
    figure = analysis.panels([*titles, *("" for _ in titles)], rows=2, height=2.2)
    called, looks = labels_of(rows), _looks(rows)
    for place, axes in enumerate(figure.axes):
        critic, below = critics[place % len(critics)], place >= len(critics)
        chosen = rows[((rows["critic"] == critic) | (rows["method"] == FIXED)) & (rows["update"] > 0)]
        # dashes are drawn over what is solid, as AD's over LVC's
        names = [str(line) for line in chosen["line"].unique()][::-1]
        analysis.lines(
            axes, chosen, "update", MEASURED[below], by="line", over="seed", names=names, labels=called, looks=looks,
            marks=False, direct=not below and critic == critics[-1], x_scale="log", x_label=UPDATES,
            y_label=GAMMA if below else RETURN,
        )  # fmt: skip
    caption = (
        "bsuite's discounting chain: a reward of 1 after 1, 3, 10 or 100 steps, of 1.1 after 30. Above: the policy's "
        "expected return; below: its discount. Published ends: 1.00 and 0.90 with the inner critic, 1.078 and 1 with "
        f"another. {intervals('Bands', rows['seed'].nunique(), 'seeds')}"
    )
    analysis.entitle(figure, findings.chain(rows, called), caption)
    return figure


def _effect(rows: "pd.DataFrame") -> "Figure":
    """γ of LVC less that of AD, seed by seed, a panel for each critic of the outer objective."""
    critics = [critic for critic in CRITICS if critic in set(rows["critic"])]
    later = rows[rows["update"] > 0]
    table = later.pivot_table(index=["critic", "seed", "update"], columns="line", values="gamma")
    less = (table["lvc"] - table["ad"]).rename("less").reset_index().assign(line="lvc")
    figure = analysis.panels([TITLES[critic] for critic in critics], height=2.4)
    for axes, critic in zip(figure.axes, critics, strict=True):
        axes.axhline(0, color="#808080", linewidth=0.8, zorder=1)
        analysis.lines(
            axes, less[less["critic"] == critic], "update", "less", by="line", over="seed", marks=False, x_scale="log",
            x_label=UPDATES, y_label="γ of LVC − γ of AD", labels=short(["lvc"]),
        )  # fmt: skip
    caption = (
        "Paired by seed: both estimators draw by the same random numbers. "
        f"{intervals('Bands', rows['seed'].nunique(), 'seeds')}"
    )
    analysis.entitle(figure, findings.effect(rows), caption)
    return figure


def summary(_settings: Settings, frame: "pd.DataFrame") -> "pd.DataFrame":
    """Returns the means over seeds at the end of learning, by curve."""
    rows = with_lines(frame)
    last, order = rows[rows["update"] == rows["update"].max()], list(dict.fromkeys(rows["curve"]))
    table = last.groupby("curve")[list(MEASURED)].mean().reindex(order).reset_index()
    names = {"curve": "at the end", "episode_return": RETURN, "gamma": GAMMA, "best_arm": "P(best chain)"}
    renamed: pd.DataFrame = table.rename(columns=names)
    return renamed
