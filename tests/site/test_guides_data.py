"""The docs' blocks of commands on data sets run as they stand, on generated miniatures of the sets that they name."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from launch.medpair import main
from shards import demo
from tests.shards.layout import cohorts
from tests.site import data_places as at
from tests.site.guides import commands, the

pytestmark = pytest.mark.slow

PLACES: dict[str, tuple[at.Place, dict[str, str]]] = {
    "data.md: python -m shards pack manifest.csv --out data/nsclc --stratify": (at.manifest, {}),
    "data.md: python -m shards pack manifest.csv --out data/nih": (at.lists, {}),
    "data.md: python -m shards source tcga_nsclc --features FEATURES --expression TABLE --labels": (at.tcga, at.TCGA),
    "data.md: python -m shards source tcga_nsclc --features FEATURES --expression TABLE --survival": (at.tcga, at.TCGA),
    "data.md: python -m shards source lgg_mri": (at.kaggle, {"TABLE": "fpkm.tsv"}),
    "data.md: python -m shards source cxr_reports --csv notes.csv --label-columns": (
        at.several(at.notes, at.mimic, at.published.chexpert, at.below("DIR", cohorts.mimic)), {},
    ),
    "data.md: python -m shards source cxr_reports --csv notes.csv --per study": (at.several(at.examinations, at.mimic), {}),
    "data.md: python -m shards source fundus_genotypes": (at.several(at.eyes("labels.csv"), at.below("DIR", cohorts.ukb)), {}),
    "data.md: python -m shards source glioma": (at.several(at.glioma, at.below("DIR", cohorts.glioma)), {}),
    "data.md: python -m shards index DIR": (at.adoptable, {"117": "001"}),
    "data.md: python -m shards pack manifest.csv --out data/nsclc --meaning": (at.old, {}),
    "data.md: python -m shards split DIR": (at.packed(), {}),
    "data.md: python -m shards tokenizer DIR": (at.packed(), {}),
    "data.md: python -m shards triplets DIR": (at.packed(), {}),
    "data.md: python -m shards pack manifest.csv --out data/films": (at.manifest, {}),
    "data.md: python -m shards lint DIR": (at.reference, {"N": "2", "TEXT": "internal", "yes|no|unknown": "no"}),
    "data.md: python -m shards seal DIR": (at.packed(), {}),
    "data.md: python -m shards demo DIR": (lambda folder: None, {}),
    "layouts.md: python -m shards source rsna_pneumonia": (at.downloads, {}),
    "examples/eyes-genotypes.md: medpair shards source": (at.eyes("photographs.csv"), {}),
    "examples/films-reports.md: medpair shards source": (at.mimic, {}),
    "examples/mri-expression.md: medpair shards source": (at.kaggle, {}),
    "examples/slides-rna.md: medpair shards pack": (at.manifest, {}),
    "methods/medklip.md: python -m shards source": (at.notes, {}),
}  # fmt: skip
"""By the beginning of a block's name: what lies there, and what stands for the reader's own names."""


@pytest.mark.parametrize("name", PLACES)
def test_the_block_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PATIENTS", 60)
    place, names = PLACES[name]
    place(tmp_path)
    with contextlib.chdir(tmp_path):
        for command in commands(the(name), names):
            words = list(command.words)
            if "--out" in words and words[1] in ("source", "pack"):
                # Lines that write to one place are alternatives.
                for left in ("", "-work"):
                    shutil.rmtree(words[words.index("--out") + 1] + left, ignore_errors=True)
            assert main(words) == 0, words
