"""What we say about LIRPG beside the paper, as docs/claims.toml says it is decided."""

from collections.abc import Iterator

from gm_experiments.common.claims import SHARE, Claim, Evidence
from gm_experiments.lirpg.settings import LOW
from gm_lab.analysis import Comparison, Metric, above, more_often

RANKS = Metric("rank correlation", delta=0.1, reach=3.0)
HALVES = Metric("share of all MDPs", delta=SHARE.delta / 2, reach=0.0)
"""Of the MDPs in one half, it is twice as much."""


def follows_entropy(at: Evidence) -> Iterator[Comparison]:
    """LVC's accuracy from infinitely many trajectories grows with the path's entropy, and is low below its median.

    The rank correlation (Spearman 1904) is the mean of 12 (R − ½)(Q − ½) over MDPs, R and Q their ranks in (0, 1).
    """
    entropy, accuracy = (at("lvc", "ESE", 256, 5, metric=metric) for metric in ("entropy", "expected_accuracy"))
    order, quality = ((x.rank(na_option="keep") - 0.5) / max(len(x), 1) - 0.5 for x in (entropy, accuracy))
    agreement = 12 * order * quality
    yield above("rank correlation at K = 5 > 0", agreement, 0 * agreement, RANKS)
    low = (accuracy < LOW).where(accuracy.notna()).astype(float)
    below, beyond = (low.where(half, 0.0) for half in (order < 0, order >= 0))
    counts = f"{below.sum():g} and {beyond.sum():g} of {len(low)} MDPs"
    yield more_often(
        f"below {LOW} more often below the median of entropy than above it ({counts})", below, beyond, HALVES
    )


OWN: tuple[Claim[Evidence], ...] = (
    Claim("LIRPG-OWN-1", "K = 5: LVC's bias leaves the less accuracy the more deterministic the exact path is",
        (follows_entropy,)),
)  # fmt: skip
