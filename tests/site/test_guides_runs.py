"""The docs' blocks of commands on runs run as they stand on an eighth of the demo cohort, each training for a step or two."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.shards.test_cxr_reports import notes
from tests.site import run_places as at
from tests.site.guides import Command, commands, the
from tests.trainer.forking import Forks

pytestmark = pytest.mark.slow

PLACES: dict[str, tuple[at.Place, dict[str, str]]] = {
    "README.md: deepspeed launch/finetune.py": (at.fine_tunes, {}),
    "compare.md: python launch/compare.py": (at.two_results, {"runs/...": "runs"}),
    "examples/mri-expression.md: medpair finetune": (at.runs("mgi"), {}),
    "finetune.md: deepspeed launch/finetune.py": (at.two_methods, {}),
    "finetune.md: deepspeed launch/pretrain.py": (lambda b: b.tuned("runs/demo/point"), {}),
    "examples/compare.md: medpair sweep": (at.runs("mgi"), {}),
    "finetune.md: python launch/sweep.py configs/sweep/gimp-table1.yaml": (lambda b: at.slides(b, "data/nsclc"), {}),
    "finetune.md: python launch/sweep.py TABLE.yaml": (at.table, {}),
    "gwas.md: python launch/gwas.py": (at.study, {"DATA": "data/demo"}),
    "gwas.md: python -m shards demo": (at.nothing, {"2000": "60"}),
    "methods/biovil.md: python -m shards pack": (at.words, {}),
    "methods/biovil_omic.md: deepspeed": (lambda b: at.slides(b, "DIR"), {}),
    "methods/clam.md: deepspeed": (lambda b: at.slides(b, "DIR"), {}),
    "methods/mcat.md: deepspeed": (at.gene_sets, {}),
    "methods/mgca_omic.md: deepspeed": (lambda b: at.slides(b, "DIR"), {}),
    "methods/refers_omic.md: deepspeed": (lambda b: at.slides(b, "DIR"), {}),
    "methods/tangle.md: deepspeed": (lambda b: at.slides(b, "DIR"), {}),
    "methods/mrm_record.md: python -m shards": (lambda b: notes(b.folder).rename(b.folder / "TABLE.csv"), {}),
    "methods/mgi.md: deepspeed launch/finetune.py": (at.slices, {}),
    "predict.md: python launch/predict.py RUN data.path=NEW": (at.deployed, {}),
    "predict.md: python launch/predict.py RUN data.path=OTHER --evaluate label": (at.coded, {}),
    "predict.md: python launch/finetune.py": (at.two_hospitals, {}),
    "learning.md: python launch/sweep.py": (at.nothing, {}),
    "results/demo.md: python launch/pretrain.py": (at.nothing, {"S": "0", "N": "60", "simclr-S": "simclr-0"}),
    "results/tables.md: python launch/sweep.py configs/sweep/gimp-table2": (lambda b: at.slides(b, "data/nsclc"), {}),
    "sites.md: python launch/finetune.py --task TASK --method METHOD --init RUN site=hospital": (
        at.runs("mgi"), {"TASK": "demo_subtype", "METHOD": "mgi", "RUN": "runs/mgi", "hospital": "site"}),
    "sites.md: python launch/finetune.py --task TASK --method METHOD --init RUN site=hospital hold_out=north": (
        at.runs("mgi"), {"TASK": "demo_subtype", "METHOD": "mgi", "RUN": "runs/mgi", "hospital": "site", "north": "site0"}),
    "sites.md: python launch/finetune.py --task demo_subtype": (lambda b: (b.folder / "data/ab").symlink_to(b.cohort), {}),
    "training.md: medpair runs ls": (at.two_results, {}),
    "zeroshot.md: python launch/finetune.py --task demo_findings": (at.runs("convirt"), {}),
    "zeroshot.md: python launch/finetune.py --task report_retrieval": (at.runs("convirt", data="data/mine"), {}),
    "zeroshot.md: python launch/pretrain.py": (at.nothing, {}),
    "zeroshot.md: python launch/sweep.py": (at.nothing, {}),
}  # fmt: skip
"""By the beginning of a block's name: what lies there, and what stands for the reader's own names."""

ON_RANKS: dict[str, tuple[at.Place, dict[str, str]]] = {
    "README.md: python -m shards pack": (at.for_packing, {}),
    "finetune.md: deepspeed --num_gpus 2": (at.runs("mgi"), {}),
    "training.md: deepspeed launch/pretrain.py": (lambda b: at.slides(b, "DIR"), {}),
}
"""Those with commands for two ranks."""
ON_RANKS_AND_REAL_DATA: dict[str, tuple[at.Place, dict[str, str]]] = {
    "results/gimp.md: python -m shards source": (at.nothing, {}),
}
ON_REAL_DATA: dict[str, tuple[at.Place, dict[str, str]]] = {
    "results/tables.md: python -m shards source tcga_nsclc": (at.real, {}),
    "results/tables.md: python -m shards source lgg_mri": (at.nothing, {}),
    "results/tables.md: python -m shards source fundus_genotypes": (at.nothing, {}),
    "results/tables.md: python -m shards source cxr_reports": (at.real, {"films-S": "films-0"}),
}
"""Those with the real samples that MEDPAIR_REAL_DATA names."""


def shorter(command: Command) -> list[str]:
    """The words with those that make a run short behind them."""
    words = list(command.words)
    own = "--recipe" in words or ("--init" in words and words[words.index("--init") + 1] != "scratch")
    small = ["--recipe", "demo"] if words[0] in ("pretrain", "finetune") and not own else []
    given = {w.partition("=")[0] for w in words}
    more = [w for w in at.SHORTER.get(words[0], ()) if (w, "protocol.epochs" in given) != ("protocol.steps=2", True)]
    return [*words, *small, *more, *(["stages.gene.epochs=1"] if "stages.gene.epochs" in given else [])]


@pytest.fixture
def bench(cohort: Path, forks: Forks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> at.Bench:
    monkeypatch.setenv("MEDPAIR_CACHE", str(cohort.parent))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/demo").symlink_to(cohort)
    (tmp_path / "configs").symlink_to(at.ROOT / "configs")
    return at.Bench(tmp_path, cohort, Forks(cohort))


def run(name: str, of: dict[str, tuple[at.Place, dict[str, str]]], bench: at.Bench) -> None:
    place, names = of[name]
    place(bench)
    for command in commands(the(name), names):
        bench.ran(*shorter(command), world=command.world)


@pytest.fixture(autouse=True)
def samples_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block runs in a folder of its own, where a relative path to the real samples is none."""
    if folder := os.environ.get("MEDPAIR_REAL_DATA"):
        monkeypatch.setenv("MEDPAIR_REAL_DATA", str(Path(folder).resolve()))


@pytest.mark.parametrize("name", PLACES)
def test_the_block_runs(name: str, bench: at.Bench) -> None:
    run(name, PLACES, bench)


@pytest.mark.ranks
@pytest.mark.parametrize("name", ON_RANKS)
def test_the_block_runs_on_ranks(name: str, bench: at.Bench) -> None:
    run(name, ON_RANKS, bench)


@pytest.mark.ranks
@pytest.mark.real
@pytest.mark.parametrize("name", ON_RANKS_AND_REAL_DATA)
def test_the_block_runs_on_ranks_and_real_data(name: str, bench: at.Bench, real_data: Path) -> None:
    run(name, ON_RANKS_AND_REAL_DATA, bench)


@pytest.mark.real
@pytest.mark.parametrize("name", ON_REAL_DATA)
def test_the_block_runs_on_real_data(name: str, bench: at.Bench, real_data: Path) -> None:
    run(name, ON_REAL_DATA, bench)
