"""What the chain's pictures find, in words that are true for the results they are computed from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gm_experiments.common.findings import apart, capital, difference, joined, ranked, two_digits, two_places, values_of
from gm_experiments.mgrl_chain.settings import FIXED, INNER, OUTER
from gm_lab.analysis import mean_interval

if TYPE_CHECKING:
    import pandas as pd

CRITICS = {INNER: "the inner critic", OUTER: "a critic of its own"}
"""What the outer objective has."""


def chain(rows: "pd.DataFrame", labels: Mapping[str, str]) -> str:
    """Where the first way to learn γ leads with each critic, or else which fixed γ ends with the highest return."""
    learnt = rows[rows["method"] != FIXED]
    last = rows[rows["update"] == rows["update"].max()]
    if learnt.empty:
        values = values_of(last, "episode_return", "curve", "seed")
        return capital(
            ranked(values, {name: name for name in values}, ("the return is highest with {}",) * 2, "return")
        )
    line = learnt["line"].iloc[0]
    parts = [_led(learnt[(learnt["line"] == line) & (learnt["critic"] == critic)], critic) for critic in CRITICS]
    return capital(f"{labels[line]}: {'; '.join(part for part in parts if part)}")


def _led(rows: "pd.DataFrame", critic: str) -> str:
    """Where γ and the return go with one critic; nothing if it was not measured."""
    if rows.empty:
        return ""
    ends = {at: rows[rows["update"] == at].set_index("seed") for at in (rows["update"].min(), rows["update"].max())}
    first, last = ends.values()
    moved = mean_interval((last["gamma"] - first["gamma"]).to_numpy())
    verb = "rises to" if moved.low > 0 else "falls to" if moved.high < 0 else "is not told to move and is"
    gamma, worth = two_places(last["gamma"].mean()), two_places(last["episode_return"].mean())
    return f"with {CRITICS[critic]} γ {verb} {gamma} and the return is {worth}"


def effect(rows: "pd.DataFrame") -> str:
    """Whether LVC's γ differs from AD's on average over all updates, with each critic of the outer objective."""
    told, same = list[str](), list[str]()
    for critic, words in CRITICS.items():
        here = rows[(rows["critic"] == critic) & (rows["update"] > 0)]
        if here.empty:
            continue
        lvc, ad = (here[here["line"] == line].groupby("seed")["gamma"].mean() for line in ("lvc", "ad"))
        found = difference(lvc, ad)
        if found is None or not apart(lvc, ad):
            same.append(words)
            continue
        ends = " to ".join(two_digits(end) for end in sorted((abs(found.low), abs(found.high))))
        told.append(f"{ends} {'above' if found.mean > 0 else 'below'} it with {words}")
    above = joined(told).replace(" it ", " AD's ", 1)
    first = f"On average over all updates LVC's γ is {above}" if told else ""
    rest = f"with {joined(same)} LVC's γ is not told from AD's"
    return "; ".join([first, rest] if told and same else [first or capital(rest)])
