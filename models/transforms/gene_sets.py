"""Gene sets: from a file of named sets, or runs of consecutive genes.

Shape letters: G genes of a field.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.contract.errors import MethodError

SHOWN = 5
VERSION = re.compile(r"^(ENS[A-Z]*G\d+)\.\d+$")


def read_sets(path: str | Path) -> dict[str, list[str]]:
    """Sets by name, from `.gmt` (a line a set: name, description, genes; MSigDB's form) or `.json` ({name: [genes]}).

    Raises:
        MethodError: a file that is neither, a name that stands twice, or no set.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = _of_json(text) if path.suffix == ".json" else _of_lines(text)
    except (OSError, ValueError) as e:
        raise MethodError(
            [
                f"method.gene_sets: {path} is no file of gene sets ({e}); give a .gmt (name, description, genes) "
                "or a .json ({name: [genes]})"
            ]
        ) from e
    return found


def _once(pairs: Sequence[tuple[str, list[str]]]) -> dict[str, list[str]]:
    names = [name for name, _ in pairs]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ValueError(f"{', '.join(twice[:SHOWN])}: named twice")
    if not pairs:
        raise ValueError("it names no set")
    return dict(pairs)


def _of_json(text: str) -> dict[str, list[str]]:
    found = json.loads(text, object_pairs_hook=list)
    if not isinstance(found, list) or not all(isinstance(p, tuple) for p in found):
        raise ValueError("it is no mapping of names to lists of genes")
    if wrong := [n for n, genes in found if not isinstance(genes, list) or not all(isinstance(g, str) for g in genes)]:
        raise ValueError(f"{', '.join(wrong[:SHOWN])}: no list of names of genes")
    return _once(found)


def _of_lines(text: str) -> dict[str, list[str]]:
    rows = [line.rstrip("\t\r").split("\t") for line in text.split("\n") if line.strip()]
    if short := [i for i, row in enumerate(rows, 1) if len(row) < 3]:
        raise ValueError(f"line {short[0]} has no tab-separated name, description and genes")
    return _once([(row[0], [g for g in row[2:] if g]) for row in rows])


def joined(
    sets: Mapping[str, Sequence[str]], vocabulary: Sequence[str], unknown: str, where: str, source: str
) -> list[np.ndarray]:
    """Places of each set's genes in the vocabulary, rising; a gene in several sets stands in each.

    Genes are named as in the vocabulary; the version of an Ensembl id does not count.

    Args:
        unknown: "refuse" genes that the vocabulary lacks, or "leave_out".

    Raises:
        MethodError: a set without a gene in the vocabulary, a name that means several genes, or (`refuse`) unknown genes; all at once.
    """
    places: dict[str, list[int]] = {}
    for i, name in enumerate(vocabulary):
        places.setdefault(plain(name), []).append(i)
    problems, found, lacking = [], [], []
    for name, genes in sets.items():
        known = [g for g in dict.fromkeys(map(plain, genes)) if g in places]
        lacking += [(name, g) for g in dict.fromkeys(map(plain, genes)) if g not in places]
        several = [g for g in known if len(places[g]) > 1]
        if several:
            problems.append(
                f"method.gene_sets: {where}: set '{name}': {', '.join(several[:SHOWN])} mean several genes of {source}; "
                "name them by Ensembl id"
            )
        if not known:
            problems.append(
                f"method.gene_sets: {where}: set '{name}' has no gene in common with 'rna' of {source} (it names {_some(list(genes))}, "
                f"the data {_some(list(vocabulary))}); name genes as the data does, or take the set out"
            )
        found.append(np.array(sorted(places[g][0] for g in known), np.int64))
    if lacking and unknown == "refuse":
        problems.append(
            f"method.gene_sets: {where}: {len(lacking)} genes of {len({n for n, _ in lacking})} sets are not in 'rna' of {source} "
            f"({', '.join(f'{g} of {n}' for n, g in lacking[:SHOWN])}{', ...' if len(lacking) > SHOWN else ''}); mend the names, or set "
            "method.unknown_genes=leave_out"
        )
    if problems:
        raise MethodError(problems)
    return found


def plain(name: str) -> str:
    """A gene's name without the version of an Ensembl id."""
    found = VERSION.match(name.strip())
    return found[1] if found else name.strip()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "") if names else "none"


def contiguous(G: int, sets: int) -> list[np.ndarray]:
    """So many runs of consecutive genes, alike in length to one gene."""
    return list(np.array_split(np.arange(G), sets))
