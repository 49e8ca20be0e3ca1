"""One spelling of a word that says what numbers mean, so that 20X and 20.0x, hg38 and GRCh38 are the same."""

from __future__ import annotations

import re

_BUILDS = {
    "hg18": "NCBI36", "ncbi36": "NCBI36", "b36": "NCBI36",
    "hg19": "GRCh37", "grch37": "GRCh37", "b37": "GRCh37", "hs37d5": "GRCh37",
    "hg38": "GRCh38", "grch38": "GRCh38", "b38": "GRCh38",
    "t2t": "T2T-CHM13", "chm13": "T2T-CHM13", "t2tchm13": "T2T-CHM13", "hs1": "T2T-CHM13",
}  # fmt: skip
_TRANSFORMS = {
    "log2(x+1)": "log2p1", "log2(1+x)": "log2p1", "log2+1": "log2p1", "log2plus1": "log2p1",
    "ln(x+1)": "log1p", "ln(1+x)": "log1p", "log(x+1)": "log1p", "z-score": "z", "zscore": "z", "identity": "none", "raw": "none",
}  # fmt: skip
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*(?:x|px|pixels?|bits?|um|mpp)?", re.IGNORECASE)


def canonical(key: str, value: str) -> str:
    """One spelling of a value: 20X, 20.0 and `20 x` are 20x; hg38 is GRCh38; log2(x + 1) is log2p1."""
    text = " ".join(str(value).split())
    plain = text.lower().replace(" ", "")
    if key == "build":
        return _BUILDS.get(re.sub(r"[^a-z0-9]", "", re.sub(r"\.p\d+$", "", plain)), text)
    if key == "transform":
        return _TRANSFORMS.get(plain, plain)
    if key in ("magnification", "patch_size", "mpp", "bits") and (found := _NUMBER.fullmatch(text)):
        return f"{float(found[1]):g}" + "x" * (key == "magnification")
    return text


def same(key: str, one: str, other: str) -> bool:
    """Whether two values say the same of a key."""
    one, other = canonical(key, one), canonical(key, other)
    if key == "encoder":  # CONCH v1.5, conch_v15 and conch-v1.5
        one, other = (re.sub(r"[^a-z0-9]", "", v.lower()) for v in (one, other))
    return one.lower() == other.lower()
