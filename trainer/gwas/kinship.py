"""Relatives: of people who are tested, with people the encoder learned from, and among themselves.

The table is KING's, plink2 --make-king-table's or UK Biobank's: a line a pair, two columns of ids and one of the kinship coefficient.
A coefficient of 2^-4.5 = .0442 is the lower bound of third-degree relatives (Manichaikul et al. 2010, Bioinformatics 26).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import DataError, Problem
from shards.tables.cells import number
from shards.tables.identity import few, person
from shards.tables.keyed import Rows, read_rows

FLAG = "--kinship"
CUTOFF = 2**-4.5
PAIRS = (("iid1", "iid2"), ("id1", "id2"))


@dataclass(frozen=True)
class Relatives:
    """across: (tested person, relative whom the encoder or its choice saw). within: pairs of tested people. By their forms."""

    across: tuple[tuple[str, str], ...]
    within: tuple[tuple[str, str], ...]

    def problems(self, tested: dict[str, str], path: Path) -> list[str]:
        """What to refuse, with the remedy; none where there are none. tested: {form: name}."""
        where, found = f"{FLAG} {path}", []
        fix = "split the data set by family (python -m shards split DATA --group LABEL), or give --relatives drop, which leaves them out"
        if self.across:
            people = sorted({tested[a] for a, _ in self.across})
            shown = few([f"'{tested[a]}' and '{b}'" for a, b in self.across])
            found.append(
                f"{where}: {len(people)} tested people have relatives in other splits or in pre-training ({shown}); {fix}"
            )
        if self.within:
            shown = few([f"'{tested[a]}' and '{tested[b]}'" for a, b in self.within])
            found.append(f"{where}: {len(self.within)} pairs of tested people are relatives of each other ({shown}), and the linear "
                         "model takes everybody for unrelated; give --relatives drop, which keeps one of each family")  # fmt: skip
        return found

    def dropped(self) -> list[str]:
        """Whom to leave out, by form: all of `across`; of `within`, the person with most relatives until no pair is left."""
        out = dict.fromkeys(a for a, _ in self.across)
        pairs = [p for p in self.within if not out.keys() & set(p)]
        while pairs:
            degree = Counter(name for pair in pairs for name in pair)
            worst = max(degree, key=lambda n: (degree[n], n))
            out[worst] = None
            pairs = [p for p in pairs if worst not in p]
        return [*out]


def read_relatives(
    path: Path, tested: Collection[str], known: Collection[str], seen: Callable[[str], bool], cutoff: float
) -> Relatives:
    """Pairs of the table that touch a tested person.

    Args:
        tested: forms of people (`identity.person`).
        known: forms of all people of the genotypes and the data set, of whom the table may speak.
        seen: whether the encoder, or the choice of it, has seen the person of this name.

    Raises:
        DataError: no columns of a kinship table, cells that are no coefficients, or ids that are nobody's.
    """
    rows = read_rows(path)
    first, second, kinship = _columns(rows)
    across, within, wrong, anybody = dict[tuple[str, str], None](), dict[tuple[str, str], None](), list[str](), False
    for row in rows:
        value = number(row[kinship])
        if value is None:
            wrong.append(f"'{row[kinship]}' on {row.where}")
            continue
        pair = (person(row[first]), person(row[second]))
        anybody = anybody or bool(set(pair) & set(known))
        if value < cutoff or pair[0] == pair[1]:
            continue
        if all(p in tested for p in pair):
            within[min(pair), max(pair)] = None
        for (mine, theirs), name in ((pair, row[second]), (pair[::-1], row[first])):
            if mine in tested and theirs not in tested and seen(name):
                across[mine, name] = None
    if wrong:
        what = f"{len(wrong)} cells of '{kinship}' are no numbers ({few(wrong)})"
        raise DataError(
            Problem(what, str(path), "write the kinship coefficient, .25 for parent and child, or drop the line")
        )
    if not anybody:
        what = f"none of its people is known, such as '{rows.rows[0][first]}': it would show no relative whoever is one"
        raise DataError(Problem(what, f"{FLAG} {path}", "bring the table that was made from these genotypes"))
    return Relatives((*across,), (*within,))


def _columns(rows: Rows) -> tuple[str, str, str]:
    names = {c.lower().lstrip("#"): c for c in rows.columns}
    ids = next((p for p in PAIRS if all(n in names for n in p)), None)
    if ids is None or "kinship" not in names:
        has = ", ".join(rows.columns[:12])
        what = f"no columns ID1, ID2 (or IID1, IID2) and KINSHIP (it has: {has})"
        raise DataError(
            Problem(what, str(rows.path), "give the table of KING, of plink2's king table, or of UK Biobank")
        )
    return names[ids[0]], names[ids[1]], names["kinship"]


def without(names: Sequence[str], dropped: Collection[str]) -> list[int]:
    """Places of the people who stay."""
    gone = set(dropped)
    return [i for i, name in enumerate(names) if person(name) not in gone]
