"""Whether values of expression are what is said of them: counts, or logarithms of them. What looks odd is said, nothing is guessed."""

from __future__ import annotations

from shards.errors import Problem
from shards.pack.dtypes import VectorProfile

# log2 of the largest count that a sequencing run can give a gene is under 30.
LARGEST_LOG = 30.0
EXPRESSION = ("rna", "mrna", "mirna", "expression")


def no_logarithm(name: str, profile: VectorProfile, transform: str) -> Problem | None:
    """Expression that is said to be logarithms (stated, or by what lies beside its table) and cannot be."""
    if name.split("_")[0] not in EXPRESSION or not transform.startswith("log") or profile.high <= LARGEST_LOG:
        return None
    what = f"values are said to be {transform}, and reach {profile.high:.3g}: no count has such a logarithm"
    fix = f"bring logarithms; for values before that --transform {name}=log2p1, and no other statement of it"
    return Problem(what, f"field '{name}'", fix)


def looks(name: str, profile: VectorProfile, transform: str) -> list[str]:
    """What is said where values look like something else than the transform makes of them; nothing is guessed."""
    if name.split("_")[0] not in EXPRESSION and transform == "none":
        return []
    low, high = profile.low, profile.high
    if transform == "log2p1":
        before = 2.0**high - 1
        if before > LARGEST_LOG:
            return []
        return [
            f"{name}: values reached {before:.3g} before log2p1: if they were logarithms already, pack without --transform and "
            f"state it: --meaning {name}.transform=log2p1"
        ]
    kind = (
        "counts, FPKM or TPM"
        if low >= 0 and high > LARGEST_LOG
        else "logarithms"
        if low >= 0
        else "logarithms or z-scores"
    )
    remedy = (
        f"--transform {name}=log2p1 makes logarithms of them"
        if kind.startswith("counts")
        else f"state what was done: --meaning {name}.transform=log2p1 (or z, ...)"
    )
    return [
        f"{name}: values from {low:.3g} to {high:.3g} are taken as they are (transform none); they look like {kind}: {remedy}"
    ]
