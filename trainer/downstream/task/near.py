"""Test cases that look like what was learned from, under another patient: reported, never refused (shards/check/near.py).

Shape letters: M contents, W words of 64 bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from shards.check.near import Pair, Signatures, cost, near_pairs, signatures
from shards.read.dataset import Dataset

NAME = "near.npz"
MOST_FILMS, MOST_BYTES = 20_000, 4 << 30
SHOWN = 20


def looked_for(data: Dataset, samples: np.ndarray, wanted: bool | None) -> tuple[Signatures | None, str]:
    """What samples look like, or None and why nothing was looked for.

    Args:
        wanted: `leak.near`.
    """
    if wanted is False:
        return None, "leak.near=false"
    films, size = cost(data, samples) if wanted is None else (0, 0)
    if films > MOST_FILMS or size > MOST_BYTES:
        return None, f"there are {films} films and {size / 1e9:.1f} GB of bags; leak.near=true looks all the same"
    return signatures(data, samples), ""


def within(data: Dataset, found: Signatures, learned: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """The test cases of a task against its own training and validation cases."""
    pairs = near_pairs(found.of(test), found.of(learned), data.patient_codes)
    return report(data, pairs, [data.keys_of(np.array([p.theirs]))[0] for p in pairs])


def against(data: Dataset, test: np.ndarray, folder: Path, wanted: bool | None) -> dict[str, Any]:
    """Cases of another data set against what a run learned from and chose by, as it kept it."""
    theirs = read(folder / NAME)
    if theirs is None:
        return unlooked(f"the run in {folder} kept no hashes of its cases ({NAME})")
    mine, why = looked_for(data, test, wanted)
    return unlooked(why) if mine is None else report(data, near_pairs(mine, theirs))


def unlooked(why: str) -> dict[str, Any]:
    return {"looked": False, "note": f"near-equal films and bags were not looked for: {why}", "warnings": []}


def report(data: Dataset, pairs: Sequence[Pair], names: Sequence[str] = ()) -> dict[str, Any]:
    """What a result holds of them.

    Args:
        names: keys of the other samples; none where they are not known.
    """
    mine = [data.keys_of(np.array([p.mine]))[0] for p in pairs]
    rows = [
        {"case": key, "what": p.what, "how": p.how, **({"like": names[i]} if names else {})}
        for i, (key, p) in enumerate(zip(mine, pairs, strict=True))
    ]
    warnings = [line for what in ("film", "bag") if (line := _line(what, [r for r in rows if r["what"] == what]))]
    return {"looked": True, "pairs": rows[:SHOWN], "count": len(rows), "note": "", "warnings": warnings}


def _line(what: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    named = ", ".join(f"{r['case']} like {r.get('like', 'one of them')} ({_how(r)})" for r in rows[:3])
    means = "by a perceptual hash: no proof" if what == "film" else "patches of equal bytes"
    # A run keeps hashes without patients: of cases that it learned from, the patient may be the same.
    whose = " of another patient" if "like" in rows[0] else ""
    return (
        f"NEAR-EQUAL: {len(rows)} test cases have a {what} that looks like one{whose} in training or validation ({means}; look at them): "
        f"{named}{', ...' if len(rows) > 3 else ''}"
    )


def _how(row: Mapping[str, Any]) -> str:
    film = row["what"] == "film"
    return f"{row['how']} of 256 bits differ" if film else f"{row['how']} patches shared, of the 256 or fewer compared"


# ------------------------------------------------------------------------------------------------------------------- kept


def to_bytes(found: Signatures) -> bytes:
    """An .npz without names: hashes alone, and which of them are of one sample."""
    file = BytesIO()
    np.savez(file, film_MW=found.film_MW, film_M=found.film_M, row_M=found.row_M, bag_M=found.bag_M)
    return file.getvalue()


def read(path: Path) -> Signatures | None:
    try:
        with np.load(path, allow_pickle=False) as a:
            return Signatures(a["film_MW"], a["film_M"], a["row_M"], a["bag_M"])
    except (OSError, ValueError, KeyError, BadZipFile):
        return None
