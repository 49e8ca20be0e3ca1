"""What has to lie in a folder before the docs' blocks on runs run there: data sets, runs of one step, tables of people."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from shards import demo
from shards.__main__ import main
from tests.real.campaign import _films as films
from tests.shards import test_fundus_genotypes as fundus
from tests.shards import test_lgg_mri
from tests.shards.layout import cohorts
from tests.shards.manifests import sources
from tests.trainer.downstream.conftest import SHORT, pretraining
from tests.trainer.forking import ROOT, Forks

ONE_STEP = ("steps=1", "global_batch=4", "epochs=null", "log.tensorboard=false", "data.workers=1", "data.val_split=''")
SHORTER = {
    "pretrain": ONE_STEP, "finetune": SHORT, "gwas": ("--components=2",), "sweep": ("--dry-run",), "compare": ("--draws=100",),
}  # fmt: skip
"""What is put behind the words of a command, so that a run takes a step; a sweep is planned, with all that it would refuse."""


@dataclass
class Bench:
    """A folder where a page's commands run, with an eighth of the demo cohort under `data/demo`."""

    folder: Path
    cohort: Path
    forks: Forks

    def ran(self, *words: str, world: int = 1) -> str:
        """The output of a command, which ended well."""
        inside = [str(self.folder), *words]
        if world > 1:
            ended = self.forks.launch(world, inside, program="tests.site.inside")
            assert ended.codes == [0] * world, ended.text
            return str(ended.text)
        code, text = self.forks.command("tests.site.inside", inside)
        assert code == 0, text
        return text

    def pretrained(self, method: str, out: str, data: str = "data/demo", *words: str) -> None:
        """A run of one step of every stage."""
        self.ran("pretrain", *pretraining(method, self.folder / data, Path(out), *words))

    def tuned(
        self, out: str, *words: str, task: str = "demo_subtype", method: str = "mgi", data: str = "data/demo"
    ) -> None:
        """A fine-tune from nothing of two steps."""
        first = ("--task", task, "--method", method, "--recipe", "demo", "--init", "scratch")
        self.ran("finetune", *first, *SHORT, f"data.path={data}", f"out={out}", *words)

    def called(self, name: str) -> None:
        """The demo cohort under another name."""
        if not (self.folder / name).exists():
            (self.folder / name).symlink_to(self.cohort)

    def others(self, name: str) -> None:
        """Patients of the demo cohort whom its eighth does not have."""
        mine = [r for r in demo.samples() if 60 <= r[1].patient < 84]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(demo, "samples", lambda: mine)
            demo.generate(self.folder / name)


Place = Callable[[Bench], object]


def nothing(bench: Bench) -> None:
    """The demo cohort is enough."""


def runs(*methods: str, data: str = "data/demo") -> Place:
    """Finished runs of methods, as runs/METHOD, on the demo cohort under this name."""

    def made(bench: Bench) -> None:
        bench.called(data)
        for method in methods:
            bench.pretrained(method, f"runs/{method}", data)

    return made


def slides(bench: Bench, name: str = "data/mine", label: str = "label") -> None:
    """Slides with genes of 60 patients, half of them for testing, and the subtype under the name that the task reads."""
    made = sources(bench.folder / "raw", 60)
    for i, row in enumerate(made.rows):
        del row["label:subtype"]
        kinds = ("LUAD", "LUSC") if label == "label" else ("B", "M", "b9", "unclear")
        row |= {"split": ("train", "test", "val", "test")[i % 4], f"label:{label}": kinds[i // 4 % len(kinds)]}
    made.write()
    terms = ["--licence", "internal", "--commercial", "no", "--citation", "none"]
    assert main(["pack", str(made.manifest), "--out", str(bench.folder / name), *terms]) == 0


def strangers(bench: Bench, name: str, label: str = "") -> None:
    """Twelve patients of whom `slides` has none."""
    made = sources(bench.folder / "strangers", 72, seed=1)
    for i, row in enumerate(made.rows):
        kind = {f"label:{label}": ("B", "M", "b9", "unclear")[i % 4]} if label else {}
        row |= {"patient": f"n{i}", "sample": f"n{i}", "split": "test", **kind}
        del row["label:subtype"]
    made.rows = made.rows[60:]
    made.write()
    assert main(["pack", str(made.manifest), "--out", str(bench.folder / name)]) == 0


def of_people(folder: Path, people: Sequence[str], path: str = "chip.bed") -> None:
    """Genotypes and covariates of these people."""
    rng, names = np.random.default_rng(0), [f"rs{i}" for i in range(40)]
    fundus.plink(folder / path, rng.integers(0, 3, (len(people), 40)), list(people), ["1"] * 20 + ["2"] * 20, names)
    rows = [[who, *rng.normal(60, 8, 1).round(1), "FM"[k % 2]] for k, who in enumerate(people)]
    cohorts.packed(folder / "covariates.csv", ["IID", "age", "sex"], rows)
    (folder / "king.kin0").write_text("#IID1\tIID2\tKINSHIP\n" + f"{people[0]}\t{people[1]}\t0.01\n")


def tested(data: Path) -> list[str]:
    with open(data / "splits.csv", newline="") as f:
        return sorted({r["patient"] for r in csv.DictReader(f) if r["split"] == "test"})


SWEEP = """\
command: finetune
words: [--task, nsclc_subtype, --method, gimp, --init, runs/mine, data.path=data/mine]
grid: {--mode: [linear, knn]}
"""


def fine_tunes(bench: Bench) -> None:
    """All that README's second block starts from."""
    slides(bench)
    bench.pretrained("gimp", "runs/mine", "data/mine")
    bench.tuned("runs/tuned", task="nsclc_subtype", method="abmil", data="data/mine")
    (bench.folder / "sweep.yaml").write_text(SWEEP)
    of_people(bench.folder, tested(bench.folder / "data/mine"))
    strangers(bench, "data/new")


def two_methods(bench: Bench) -> None:
    """Runs on slides and on the demo cohort."""
    slides(bench, "data/nsclc")
    bench.pretrained("gimp", "runs/gimp", "data/nsclc")
    bench.pretrained("mgi", "runs/mgi")


def two_hospitals(bench: Bench) -> None:
    """The demo cohort, and patients whom it does not have."""
    bench.called("data/a")
    bench.others("data/b")


def study(bench: Bench) -> None:
    """A run, and genotypes of the people whom it did not learn from."""
    bench.pretrained("simclr", "RUN")
    of_people(bench.folder, tested(bench.cohort))


def slices(bench: Bench) -> None:
    """MRI with masks and expression, and a run to start from."""
    raw = test_lgg_mri.kaggle(bench.folder / "raw")
    words = ["--images", str(raw), "--expression", str(raw / "fpkm.tsv"), "--expression-transform", "log2p1"]
    more = ["--split-fractions", "0.4,0.2,0.4", "--out", str(bench.folder / "data/lgg")]
    assert main(["source", "lgg_mri", *words, *more]) == 0
    bench.pretrained("mgi", "runs/mgi", "data/lgg", "global_batch=2")


def two_results(bench: Bench) -> None:
    """Fine-tunes as runs/a and runs/b."""
    for name in ("a", "b"):
        bench.tuned(f"runs/{name}", f"protocol.lr={len(name)}e-3", f"seeds={'ab'.index(name)}")


def deployed(bench: Bench) -> None:
    """A fine-tune, and another hospital's patients with and without their labels being asked for."""
    bench.tuned("RUN")
    for name in ("NEW", "OTHER"):
        bench.others(name)


TASK = """\
kind: binary
label: diagnosis
classes: {benign: [B], malignant: [M]}
positive: malignant
leave_out: [b9, unclear]
metric: auc
"""


def coded(bench: Bench) -> None:
    """A fine-tune on one hospital's codes, and another hospital with codes of its own."""
    slides(bench, label="diagnosis")
    (bench.folder / "task.yaml").write_text(TASK)
    bench.tuned("RUN", task="task.yaml", method="abmil", data="data/mine")
    strangers(bench, "OTHER", "diagnosis")


def table(bench: Bench) -> None:
    """A published table's sweep cut down to one column, and its data."""
    whole = yaml.safe_load((ROOT / "configs/sweep/mrm-relation-table1.yaml").read_text())
    whole["columns"] = {"APTOS": whole["columns"]["APTOS"]}
    for row in whole["rows"].values():
        row["printed"] = {"APTOS": row["printed"]["APTOS"]}
    (bench.folder / "TABLE.yaml").write_text(yaml.safe_dump(whole))
    for name in ("eyes", "aptos"):
        bench.called(f"data/{name}")


def for_packing(bench: Bench) -> None:
    """What a manifest names."""
    sources(bench.folder, 24).write()


def real(bench: Bench) -> None:
    """The table of both sets of films that docs/results/tables.md tells of."""
    films(Path(os.environ["MEDPAIR_REAL_DATA"]) / "mrm_cxr", bench.folder / "cxr.csv")


def words(bench: Bench) -> None:
    """Reports without images as a manifest, and films with reports as a data set."""
    made = sources(bench.folder, 24)
    kept = ("sample", "patient", "text:report")
    with_images = [{k: v for k, v in row.items() if k in (*kept, "field:image")} for row in made.rows]
    made.rows = with_images
    made.write()
    assert main(["pack", str(made.manifest), "--out", str(bench.folder / "data/films")]) == 0
    made.rows = [{k: row[k] for k in kept} for row in with_images]
    made.write().rename(bench.folder / "reports.csv")


def gene_sets(bench: Bench) -> None:
    """Slides with genes, and sets of genes by their names."""
    slides(bench, "DIR")
    lines = ["\t".join([f"SET{k}", "", *(f"GENE{g}" for g in range(5 * k, 5 * k + 5))]) for k in range(4)]
    (bench.folder / "SETS.gmt").write_text("\n".join(lines) + "\n")
