"""Triplets of the reports of a data set as a file of matrices, one a sample, that a manifest can name as a field (MedKLIP).

By rules from the reports themselves, or from a table that somebody else made (RadGraph's, say). An entity or a position that MedKLIP does
not know is refused, not passed over.

Shape letters: P positions, E entities.
"""

from __future__ import annotations

import difflib
import io
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import DataError, Problem, bad
from shards.format.info import write_atomic
from shards.format.staging import disk_errors
from shards.tables.report_triplets import UNKNOWN, Mention, matrix, mentions, of_report
from shards.tables.report_words import ENTITIES, POSITIONS

if TYPE_CHECKING:
    from shards.read.dataset import Dataset
    from shards.tables.keyed import Row

STATES: dict[str, bool | None] = {"present": True, "absent": False, "uncertain": None}
"""What a table may say of a triplet."""
MAYBES = {"unknown": UNKNOWN, "absent": 0, "present": 1}
"""What an uncertain triplet may count as; the first is RadGraph's use in MedKLIP."""


def write_triplets(
    folder: Path,
    out: Path,
    field: str = "report",
    table: Path | None = None,
    maybe: str = "unknown",
    overwrite: bool = False,
) -> list[str]:
    """Writes OUT.npz with a member int8 [51, 75] for each sample that has a report (1 present, 0 absent, -1 not mentioned); what was found,
    a line an entity.

    Args:
        table: triplets of others, with the columns sample, entity, position, state; then no report is read.
        maybe: a key of `MAYBES`.

    Raises:
        DataError: no such text field; a file that exists; of a table every name that is unknown.
    """
    from shards.read.dataset import Dataset

    if out.suffix != ".npz":
        raise bad("it is a file of NumPy arrays", out, "give --out a name that ends in .npz")
    if out.exists() and not overwrite:
        raise bad("it exists", out, "give --overwrite to replace it, or another --out")
    with Dataset.open(folder) as data:
        said = by_rules(data, field) if table is None else from_table(table, data.keys)
        seen_3E, samples, content = np.zeros((3, len(ENTITIES)), int), 0, io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, found in said:
                found_PE = matrix(found, MAYBES[maybe])
                # Of a fixed time, so that the same reports make the same file.
                member = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w") as f:
                    np.lib.format.write_array(f, found_PE, allow_pickle=False)
                state_E, samples = of_report(found_PE), samples + 1
                seen_3E += np.stack([state_E == s for s in (1, 0, UNKNOWN)])
    with disk_errors(out, "nothing was written"):
        write_atomic(out, content.getvalue())
    return list(_told(seen_3E, samples, out))


def by_rules(data: Dataset, field: str) -> Iterator[tuple[str, list[Mention]]]:
    """What each report says, by the rules of `shards.tables.report_triplets`; a sample without a report is left out.

    Raises:
        DataError: no such text field.
    """
    known = data.info.fields.get(field)
    if known is None or known.kind != "text":
        has = ", ".join(n for n, f in data.info.fields.items() if f.kind == "text") or "none"
        raise bad(f"no text field '{field}' (text fields: {has})", data.path, "name one with --field")
    return ((r.key, list(mentions(r.read(field)))) for r in map(data.__getitem__, range(len(data))) if r.has(field))


def from_table(path: Path, samples: Iterable[str]) -> Iterator[tuple[str, list[Mention]]]:
    """The triplets of a table, sample by sample in the order of the data set; a sample that it does not name is left out.

    Raises:
        DataError: every sample, entity, position and state that is not known.
    """
    from shards.tables.keyed import read_rows

    rows = read_rows(path, ("sample", "entity", "position", "state"))
    entities, positions, keys = list(ENTITIES), list(POSITIONS), [str(s) for s in samples]
    known: dict[str, tuple[Collection[str], str]] = {
        "sample": (set(keys), "name samples by the keys of the data set (splits.csv), or take the line out"),
        "entity": (entities, "give one of MedKLIP's 75 names; other abnormal findings are tail_abnorm_obs"),
        "position": (positions, "give one of MedKLIP's 51 names; other places are other, none is unspecified"),
        "state": (STATES, f"say {', '.join(STATES)}"),
    }
    problems = [p for row in rows for column in known for p in _unknown(row, column, *known[column])]
    if problems:
        raise DataError(problems)
    found: dict[str, list[Mention]] = {}
    for row in rows:
        at = (positions.index(row["position"]),)
        found.setdefault(row["sample"], []).append(Mention(entities.index(row["entity"]), at, STATES[row["state"]]))
    return ((key, found[key]) for key in keys if key in found)


def _unknown(row: Row, column: str, names: Collection[str], fix: str) -> Iterator[Problem]:
    word = row[column]
    if word not in names:
        near = difflib.get_close_matches(word, list(names), n=1, cutoff=0.75) if column != "sample" else []
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        yield Problem(f"'{word}' is no {column} that is known{hint}", row.where, fix)


def _told(seen_3E: np.ndarray, samples: int, out: Path) -> Iterator[str]:
    yield f"{'entity':<18}{'present':>9}{'absent':>9}  of {samples} reports"
    for name, present, absent, _ in zip(ENTITIES, *seen_3E, strict=True):
        if present or absent:
            yield f"{name:<18}{present:>9}{absent:>9}"
    yield f"{out}: {samples} matrices [{len(POSITIONS)}, {len(ENTITIES)}]; in a manifest: field:triplets = {out.name}#SAMPLE"
