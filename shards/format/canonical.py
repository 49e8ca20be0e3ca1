"""One spelling of a word that says what numbers mean, so that 20X and 20.0x, hg38 and GRCh38 are the same."""

from __future__ import annotations

import math
import re

_BUILDS = {
    "hg18": "NCBI36", "ncbi36": "NCBI36", "b36": "NCBI36",
    "hg19": "GRCh37", "grch37": "GRCh37", "b37": "GRCh37", "hs37d5": "GRCh37",
    "hg38": "GRCh38", "grch38": "GRCh38", "b38": "GRCh38",
    "t2t": "T2T-CHM13", "chm13": "T2T-CHM13", "t2tchm13": "T2T-CHM13", "hs1": "T2T-CHM13",
}  # fmt: skip
_TRANSFORMS = {
    "log2+1": "log2p1", "log2plus1": "log2p1", "z-score": "z", "zscore": "z", "z-scores": "z", "identity": "none", "raw": "none",
}  # fmt: skip
# log2(x + 1), log2(TPM+1), ln(1 + FPKM); a `log` without its base stays what it is.
_LOGARITHM = re.compile(r"(log2|ln|log10)\((?:\w*\+1|1\+\w*)\)")
_LOGARITHMS = {"log2": "log2p1", "ln": "log1p", "log10": "log10p1"}
_SQUARE = re.compile(r"(\d+)[x\u00d7]\1(?:px)?")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*(?:x|px|pixels?|bits?|um|mpp)?", re.IGNORECASE)


def canonical(key: str, value: str) -> str:
    """One spelling of a value: 20X, 20.0 and `20 x` are 20x; hg38 is GRCh38; log2(x + 1) is log2p1."""
    text = " ".join(str(value).split())
    plain = text.lower().replace(" ", "")
    if key == "build":
        return _BUILDS.get(re.sub(r"[^a-z0-9]", "", re.sub(r"\.p\d+$", "", plain)), text)
    if key == "transform":
        found = _LOGARITHM.fullmatch(plain)
        return _LOGARITHMS[found[1]] if found else _TRANSFORMS.get(plain, plain)
    if key == "patch_size" and (square := _SQUARE.fullmatch(plain)):
        return square[1]
    if key in ("magnification", "patch_size", "patch_level", "mpp", "bits") and (found := _NUMBER.fullmatch(text)):
        return f"{float(found[1]):g}" + "x" * (key == "magnification")
    return text


def same(key: str, one: str, other: str) -> bool:
    """Whether two values say the same of a key."""
    one, other = canonical(key, one), canonical(key, other)
    if key == "mpp" and all(_NUMBER.fullmatch(v) for v in (one, other)):
        return math.isclose(float(one), float(other), rel_tol=0.02)  # scanners differ by as much
    if key == "encoder":  # CONCH v1.5, conch_v15 and conch-v1.5
        one, other = (re.sub(r"[^a-z0-9]", "", v.lower()) for v in (one, other))
    return one.lower() == other.lower()
