"""The permutations of sampled and exact estimators.

A permutation such as "SSE" says for I (inner-loop gradient), II (Jacobian and Hessian) and III (outer gradient)
whether it is estimated from samples (S) or exact (E).
"""

PERMUTATIONS = ("SSS", "SES", "ESS", "EES", "SSE", "SEE", "ESE")
"""The seven permutations that estimate anything; EEE is the truth."""


def check_permutation(permutation: str) -> str:
    """Returns the permutation itself.

    Raises:
        ValueError: if it is not one of `PERMUTATIONS`.
    """
    if permutation not in PERMUTATIONS:
        raise ValueError(f"expected a permutation of {', '.join(PERMUTATIONS)}, got {permutation!r}")
    return permutation
