"""Everything a study leaves in its folder; the summary last.

Shape letters: N people, P phenotypes, M variants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.gwas.bed import FileSet
from trainer.gwas.clumping import Clump, Rules, regions
from trainer.gwas.linear import ERRCODES
from trainer.gwas.plots import manhattan, qq
from trainer.gwas.scan import Chromosome
from trainer.gwas.student import genomic_inflation
from trainer.gwas.tables import (
    ASSOCIATIONS,
    CLUMP_COLUMNS,
    CLUMPS,
    PEOPLE,
    clump_rows,
    merged,
    write_associations,
    write_rows,
)
from trainer.state.files import write_atomic
from trainer.state.run_folder import versions
from trainer.sweep.rows import STUDY as SUMMARY

RARE = 0.01
NO_INTERVAL = (
    "people cannot be resampled for a count of clumps: a person drawn twice is a relative. Compare with the controls"
)


@dataclass(frozen=True)
class Phenotypes:
    """What was tested: y_NP of `people`, a column for each of `names`."""

    names: Sequence[str]
    people: Sequence[str]
    y_NP: np.ndarray


def write_results(
    out: Path,
    files: FileSet,
    tested: Phenotypes,
    found: Mapping[str, Chromosome],
    clumps: Mapping[str, Sequence[Clump]],
    rules: Rules,
    context: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes associations.tsv.gz, clumps.tsv, people.tsv, manhattan.png, qq.png and, last, gwas.json, which it returns."""
    phenotypes, people = tested.names, tested.people
    log10_p_PM = np.concatenate([c.log10_p_PM for c in found.values()], 1)
    inflation = [genomic_inflation(row_M) for row_M in log10_p_PM]
    rows = clump_rows(files, found, clumps)
    summary = {
        **context,
        "people": len(people),
        "variants": log10_p_PM.shape[1],
        "not_estimated": _not_estimated(files, found),
        "phenotypes": list(phenotypes),
        "genomic_inflation": dict(zip(phenotypes, inflation, strict=True)),
        "clumps": len(rows),
        "regions_1mb": regions([(str(r["CHR"]), int(str(r["BP"]))) for r in rows]),
        "clumps_of_rare_variants": sum(
            bool(min(f := found[name].frequency_M[c.index], 1 - f) < RARE) for name, own in clumps.items() for c in own
        ),
        "interval": NO_INTERVAL,
        "versions": versions(),
    }
    write_associations(out / ASSOCIATIONS, files, found, phenotypes)
    write_rows(out / CLUMPS, CLUMP_COLUMNS, rows)
    write_rows(out / PEOPLE, ("IID", *phenotypes), [
        {"IID": n, **dict(zip(phenotypes, map(repr, y_P.tolist()), strict=True))}
        for n, y_P in zip(people, tested.y_NP, strict=True)
    ])  # fmt: skip
    places = {n: (files.variants.positions[files.by_chromosome[n]], merged(c.log10_p_PM)) for n, c in found.items()}
    manhattan(out / "manhattan.png", places, rules.p1, {n: [c.index for c in own] for n, own in clumps.items()})
    qq(out / "qq.png", log10_p_PM, phenotypes, inflation)
    write_atomic(out / SUMMARY, json.dumps(summary, indent=1).encode())
    return summary


def _not_estimated(files: FileSet, found: Mapping[str, Chromosome]) -> dict[str, dict[str, Any]]:
    """By reason the number of variants without an estimate for some phenotype, and the first of them."""
    said: dict[str, dict[str, Any]] = {}
    for code, reason in enumerate(ERRCODES[1:], 1):
        ids = [i for n, c in found.items() for i in files.describe(files.by_chromosome[n][(c.code_PM == code).any(0)])]
        if ids:
            said[reason] = {"variants": len(ids), "such_as": ids[:3]}
    return said


def lines(summary: Mapping[str, Any], out: Path) -> list[str]:
    """The summary, for a person."""
    said = summary["genomic_inflation"]
    worst = max(said, key=lambda n: abs(said[n] - 1) if said[n] == said[n] else 0.0)
    rules = summary["rules"]
    control = f" [CONTROL: {summary['control']}]" if summary["control"] else ""
    return [
        f"{summary['clumps']} clumps in {summary['regions_1mb']} regions{control}: {summary['variants']} variants, "
        f"{summary['people']} people, {len(summary['phenotypes'])} components, P times their number at most {rules['p1']:g}",
        *[f"  {summary['clumps_of_rare_variants']} of them around a variant rarer than {RARE:.0%}"]
        * bool(summary["clumps_of_rare_variants"]),
        f"  genomic inflation {said[worst]:.3f} at its worst ({worst})",
        *(
            f"  {v['variants']} variants without an estimate: {k} ({', '.join(v['such_as'])})"
            for k, v in summary["not_estimated"].items()
        ),
        f"  {out / ASSOCIATIONS}, {CLUMPS}, {PEOPLE}, manhattan.png, qq.png, {SUMMARY}",
    ]
