"""Alternatives and ranges as parts of sentences."""

from collections.abc import Sequence

from gm_experiments.common.findings import two_digits


def either(names: Sequence[str]) -> str:
    """A, B or C."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last


def span(numbers: Sequence[float]) -> str:
    """From the least to the most of some numbers, or the number if they read alike."""
    least, most = two_digits(min(numbers)), two_digits(max(numbers))
    return least if least == most else f"{least} to {most}"
