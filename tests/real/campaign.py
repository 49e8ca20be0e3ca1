"""All runs on the real samples that docs/results.md tells of, by one command.

    MEDPAIR_REAL_DATA=FOLDER OMP_NUM_THREADS=1 python tests/real/campaign.py OUT [--jobs 2] [--only WORD] [--dry-run]

packs the samples into OUT/data, pre-trains every method (OUT/pretrain/NAME), and fine-tunes each task from these weights and from
scratch, with all labels and with a tenth of them, three seeds each (OUT/finetune/TASK-NAME-START-PERCENT), and probes the frozen
encoders. What is finished is skipped, what was stopped goes on. OUT/jobs.csv notes seconds and CPU seconds of each job; logs are in
OUT/log. About an hour and a quarter of CPU time on one thread a job. Then:

    python tests/real/curves.py OUT/pretrain/*              held-back losses over steps
    python tests/real/held_back.py OUT/pretrain/NAME ...    against harder yardsticks than chance
    python tests/real/floors.py OUT                         plain baselines on the same test patients
    python launch/compare.py OUT/finetune --out OUT/report

One split for everything: 60 / 15 / 25 % of the patients, seed 0; pre-training learns from the 60 % alone. Sizes are small because the
samples and the machine are: none of these runs is a result about a paper.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SPLIT = ("--split-fractions", "0.6,0.15,0.25", "--split-seed", "0")
TILE = 64


@dataclass(frozen=True)
class Job:
    """A command, the file that says that it is done, and the jobs that come before it."""

    name: str
    words: tuple[str, ...]
    done: Path
    needs: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------------- packing


def tables(real: Path, out: Path) -> None:
    """Tables that the public layouts do not come with: films of both chest sets in one, and vessels as tiles of the photographs."""
    out.mkdir(parents=True, exist_ok=True)
    _films(real / "mrm_cxr", out / "cxr.csv")
    _vessel_tiles(real / "retina_vessels_chase", out / "chase-tiles", out / "chase.csv")


def _films(folder: Path, path: Path) -> None:
    """notes.csv with its reports, and children's films for the image term alone: their labels would tell age and place, not germs."""
    kinds = {"viral": "viral", "bacterial": "bacterial"}
    rows = [
        [r["image"], r["patient"], r["text"], r["is_covid"], kinds.get(r["kind"], ""), r["age"]]
        for r in _read(folder / "notes.csv")
    ]
    rows += [[r["image"], f"child-{r['patient']}", "", "", "", ""] for r in _read(folder / "kermany.csv")]
    _write(path, ["image", "patient", "text", "is_covid", "label", "age"], rows)


def _vessel_tiles(folder: Path, tiles: Path, path: Path) -> None:
    """Tiles of 64 pixels: shrunk to 96 pixels as a whole, a vessel would be thinner than a pixel; so it is about a patch wide."""
    tiles.mkdir(exist_ok=True)
    rows = []
    for file in sorted((folder / "images").iterdir()):
        pair = {"image": Image.open(file), "mask": Image.open(folder / "masks" / f"{file.stem}.png")}
        for row in range(pair["image"].height // TILE):
            for column in range(pair["image"].width // TILE):
                key = f"{file.stem}_{row}{column}"
                box = (column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
                for what, picture in pair.items():
                    picture.crop(box).save(tiles / f"{key}-{what}.png")
                cells = [str((tiles / f"{key}-{what}.png").resolve()) for what in pair]
                rows.append([key, f"child-{file.stem[6:8]}", *cells])
    _write(path, ["sample", "patient", "field:image", "field:mask"], rows)


def _read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([header, *rows])


def packing(real: Path, out: Path) -> list[Job]:
    lung, glioma, retina, films = (real / n for n in ("gimp_nsclc", "mrm_glioma", "mrm_retina", "mrm_cxr"))
    sources: dict[str, tuple[object, ...]] = {
        "nsclc": ("source", "tcga_nsclc", "--features", lung / "hipt_regions.npz", "--expression", lung / "rnaseq.csv.gz",
                  "--labels", lung / "labels.csv", *SPLIT),
        "glioma": ("source", "glioma", "--features", glioma / "hipt_regions.npz", "--omics", glioma / "rnaseq.csv.gz",
                   "--labels", glioma / "labels.csv", *SPLIT),
        "tiles": ("source", "glioma", "--tiles", glioma / "roi_tiles", "--omics", glioma / "rnaseq_roi.csv",
                  "--split-fractions", "0.5,0.5"),
        "lgg": ("source", "lgg_mri", "--images", real / "mgi_lgg_mri", *SPLIT),
        "retina": ("source", "fundus_genotypes", "--images", retina / "labels.csv", "--genotypes", retina / "snps_hapmap.npz",
                   "--pairing", retina / "pairing_synthetic.csv", "--pairing-column", "hapmap_random", *SPLIT),
        "cxr": ("source", "cxr_reports", "--csv", out / "cxr.csv", "--images", films, "--label-columns", "is_covid,label,age",
                "--stratify", "is_covid", *SPLIT),
        "chase": ("pack", out / "chase.csv", "--split-fractions", "0.5,0.2,0.3"),
    }  # fmt: skip
    jobs = []
    for name, words in sources.items():
        command = (sys.executable, "-m", "shards", *map(str, words), "--out", str(out / name), "--overwrite")
        jobs.append(Job(f"pack-{name}", command, out / name / "dataset.json"))
    words = (sys.executable, "-m", "shards", "tokenizer", str(out / "cxr"), "--size", "400", "--overwrite")
    jobs.append(Job("pack-words", words, out / "cxr" / "vocab" / "report.txt", ("pack-cxr",)))
    return jobs


# ------------------------------------------------------------------------------------------------------------ pre-training

VIT = "method.image.patch=8 method.image.dim=96 method.image.depth=4 optim.lr=1.0e-3"
RELATION = f"{VIT} method.image.image_size=96 method.genes.fragment=256"
GIMP = "stages.gene.epochs=10"
FILMS = (
    f"{VIT} method.image.image_size=112 method.target=norm_patch method.image_weight=1.0 method.mask_ratio=0.75 method.mlm_ratio=0.5 "
    "method.report_length=100 method.view.crop_scale=[0.5,1.0] method.view.pixel_mean=0.4978 method.view.pixel_std=0.2449"
)
# GiMP pre-trains by labels: `nsclc_rec` leaves them out, so that a tenth of the labels is a tenth.
# name: method, data set, words beside the method's demo recipe
PRETRAIN = {
    "nsclc_img": ("gimp", "nsclc", f"{GIMP} epochs=40 method.triplet_on=img"),
    "glioma_img": ("gimp", "glioma", "stages.gene.epochs=15 epochs=60 method.triplet_on=img"),
    "nsclc_rec": ("gimp", "nsclc", "stages.gene.epochs=0 epochs=40 method.triplet_weight=0.0"),
    "cxr": ("mrm_record", "cxr", f"{FILMS} steps=250"),
    "retina": ("mrm_relation", "retina", f"{RELATION} method.genetics=[snp] steps=120"),
    "retina_genes": (
        "mrm_relation",
        "retina",
        "method.image.patch=12 method.image.image_size=96 method.genes.fragment=64 method.genetics=[snp] optim.lr=2.0e-3 steps=90",
    ),
    "lgg_mgi": ("mgi", "lgg", f"{VIT} method.image.image_size=96 steps=120"),
    "lgg_relation": ("mrm_relation", "lgg", f"{RELATION} method.genetics=[rna] steps=100"),
    "tiles": ("mrm_relation", "tiles", f"{VIT} method.image.image_size=64 method.genetics=[rna] steps=60"),
    "nsclc_pair": ("gimp", "nsclc", f"{GIMP} epochs=10 method.triplet_on=pair"),
}


def pretraining(out: Path, data: Path) -> dict[str, list[Job]]:
    jobs = {}
    for name, (method, data_set, words) in PRETRAIN.items():
        folder = out / name
        command = (
            sys.executable, str(ROOT / "launch" / "pretrain.py"), "--method", method, "--recipe", "demo",
            f"data.path={data / data_set}", f"out={folder}", "log.tensorboard=false", "log.every=50", "checkpoint.every=1000",
            *words.split(),
        )  # fmt: skip
        needs = ("pack-words",) if data_set == "cxr" else (f"pack-{data_set}",)
        jobs[name] = [Job(name, command, folder / "weights.safetensors", needs)]
    return jobs


# ------------------------------------------------------------------------------------------------------------- fine-tuning

# Both starts get the same learning rates, and the encoder the head's own: a smaller one would hold the random start back.
FAIR = "protocol.encoder_lr_scale=1.0 protocol.layer_decay=1.0 protocol.evaluations=5 protocol.lr=1.0e-3"
SLIDES = f"{FAIR} protocol.epochs=6 protocol.min_steps=40"
FILM = f"{FAIR} protocol.epochs=8 protocol.min_steps=40"
# Multi-hot grades: with all photographs even 225 steps pass no threshold in most runs; the twice as long ones show what more would do.
GRADE = f"{FAIR} protocol.epochs=15 protocol.min_steps=120"
# One linear layer on the tokens learns within these few steps, where UPerNet at this size still draws nothing.
MASKS = f"{FAIR} protocol.steps=150 protocol.batch=8 protocol.evaluations=3 output.decoder=linear"
# Vessels are a few grey values darker than what is around them: a linear layer draws nothing, UPerNet after some hundred steps does.
VESSELS = f"{FAIR} protocol.steps=600 protocol.batch=8 protocol.lr=2.0e-3 output.width=16 augment.rotate=0"
# name: task, method, pre-training, data set, words; `-fused` reads genes too. An image task is run with each method that has an image
# encoder: of its own sample where that has what the method reads, else of another (`mgi` knows only brains, `mrm_record` only chests).
FINETUNE = {
    "subtype": ("nsclc_subtype", "gimp", "nsclc_img", "nsclc", SLIDES),
    "glioma": ("glioma_type", "gimp", "glioma_img", "glioma", SLIDES),
    "covid": ("covid_vs_other", "mrm_record", "cxr", "cxr", FILM),
    "dr": ("dr_grade", "mrm_relation", "retina", "retina", GRADE),
    "dr-long": ("dr_grade", "mrm_relation", "retina", "retina", f"{GRADE} protocol.epochs=30"),
    "dr-mgi-long": ("dr_grade", "mgi", "lgg_mgi", "retina", f"{GRADE} protocol.epochs=30"),
    "dr-record-long": ("dr_grade", "mrm_record", "cxr", "retina", f"{GRADE} protocol.epochs=30"),
    "dr-mgi": ("dr_grade", "mgi", "lgg_mgi", "retina", GRADE),
    "dr-record": ("dr_grade", "mrm_record", "cxr", "retina", GRADE),
    "covid-mgi": ("covid_vs_other", "mgi", "lgg_mgi", "cxr", FILM),
    "covid-relation": ("covid_vs_other", "mrm_relation", "retina", "cxr", FILM),
    "viral-mgi": ("viral_vs_bacterial", "mgi", "lgg_mgi", "cxr", FILM),
    "viral-relation": ("viral_vs_bacterial", "mrm_relation", "retina", "cxr", FILM),
    "age-films-mgi": ("age", "mgi", "lgg_mgi", "cxr", FILM),
    "age-films-relation": ("age", "mrm_relation", "retina", "cxr", FILM),
    "lgg": ("lgg_segmentation", "mgi", "lgg_mgi", "lgg", MASKS),
    "subtype-rec": ("nsclc_subtype", "gimp", "nsclc_rec", "nsclc", SLIDES),
    "survival": ("nsclc_survival", "gimp", "nsclc_img", "nsclc", SLIDES),
    "viral": ("viral_vs_bacterial", "mrm_record", "cxr", "cxr", FILM),
    "vessels": ("vessel_segmentation", "mrm_relation", "retina", "chase", f"{VESSELS} method.image.image_size=64"),
    "vessels-mgi": ("vessel_segmentation", "mgi", "lgg_mgi", "chase", f"{VESSELS} method.image.image_size=64"),
    "vessels-record": ("vessel_segmentation", "mrm_record", "cxr", "chase", f"{VESSELS} method.image.image_size=64"),
    "age-films": ("age", "mrm_record", "cxr", "cxr", FILM),
    "age-slides": ("age", "gimp", "nsclc_img", "nsclc", SLIDES),
    "subtype-fused": ("nsclc_subtype", "gimp", "nsclc_img", "nsclc", SLIDES),
    "lgg-relation": ("lgg_segmentation", "mrm_relation", "lgg_relation", "lgg", MASKS),
    "lgg-record": ("lgg_segmentation", "mrm_record", "cxr", "lgg", MASKS),
    "lgg-fused": ("lgg_segmentation", "mgi", "lgg_mgi", "lgg", f"{MASKS} output.decoder=two_way"),
}  # fmt: skip


# What tells most comes first, so that a campaign that is cut short is of use; probes of frozen encoders come last.
ORDER = (
    "nsclc_img", "glioma_img", "cxr", "retina", "lgg_mgi", "dr", "subtype", "survival", "glioma", "lgg", "covid", "retina_genes",
    "tiles", "nsclc_rec", "subtype-rec", "age-slides", "vessels", "nsclc_pair", "viral", "age-films", "subtype-fused", "lgg_relation",
    "lgg-relation", "lgg-record", "covid-mgi", "covid-relation", "dr-mgi", "dr-record", "vessels-mgi", "vessels-record", "viral-mgi",
    "viral-relation", "age-films-mgi", "age-films-relation", "lgg-fused", "probes",
    "dr-long", "dr-mgi-long", "dr-record-long",
)  # fmt: skip


def finetuning(out: Path, runs: Path, data: Path) -> dict[str, list[Job]]:
    """A job of a setting is all its starts and amounts of labels, one after the other in one process."""
    jobs: dict[str, list[Job]] = {}
    for name, (*_, words) in FINETUNE.items():
        given = [
            (f"{mode}-{percent}", (mode,), (*words.split(), f"protocol.fraction={percent / 100}"))
            for percent in (100, 10)
            for mode in ("finetune", "scratch")
            if (name, mode) != ("subtype-rec", "scratch")  # the same as subtype's
            if percent == 100 or not name.endswith("-long")
        ]
        jobs[name] = [_together(f"finetune-{name}", name, given, out, runs, data)]
    probes = [("linear-100", ("linear",), ()), ("linear_random-100", ("linear", "--random"), ())]
    names = [
        n
        for n, (task, *_) in FINETUNE.items()
        if "segmentation" not in task and n != "subtype-rec" and not n.endswith("-long")
    ]
    jobs["probes"] = [_together(f"probe-{n}", n, probes, out, runs, data) for n in names]
    return jobs


def _together(
    job: str,
    name: str,
    given: Sequence[tuple[str, tuple[str, ...], tuple[str, ...]]],
    out: Path,
    runs: Path,
    data: Path,
) -> Job:
    """given: of each run its tag, its mode (with flags), and its words."""
    task, method, run, data_set, _ = FINETUNE[name]
    words: list[str] = []
    for tag, mode, more in given:
        fused = ("inputs=multimodal",) if name.endswith("-fused") else ()
        words += ["--then"] * bool(words)
        words += [
            "--task",
            task,
            "--method",
            method,
            "--init",
            str(runs / run),
            "--mode",
            *mode,
            f"data.path={data / data_set}",
        ]
        words += [f"out={out / f'{name}-{tag}'}", "seeds=[0,1,2]", *fused, *more]
    done = out / f"{name}-{given[-1][0]}" / "result.json"
    command = (sys.executable, str(ROOT / "tests" / "real" / "several.py"), *words)
    return Job(job, command, done, (run, f"pack-{data_set}"))


# ----------------------------------------------------------------------------------------------------------------- running


class Pool:
    """Runs jobs in their order, so many at a time, each once those it needs are done. A job that is done by others is left out."""

    def __init__(self, jobs: Sequence[Job], out: Path):
        self.waiting = [j for j in jobs if not j.done.is_file()]
        self.done = {j.name for j in jobs if j.done.is_file()}
        self.known, self.failed, self.out = {j.name for j in jobs}, set[str](), out
        self.change = threading.Condition()

    def run(self, workers: int) -> int:
        (self.out / "log").mkdir(parents=True, exist_ok=True)
        threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return 1 if self.failed else 0

    def _work(self) -> None:
        while (job := self._next()) is not None:
            ok = job.done.is_file() or self._do(job)
            with self.change:
                (self.done if ok else self.failed).add(job.name)
                self.change.notify_all()

    def _next(self) -> Job | None:
        with self.change:
            while True:
                for job in [j for j in self.waiting if self.failed & set(j.needs)]:
                    self.waiting.remove(job)
                    self.failed.add(job.name)
                    print(f"{job.name}: left out, what it needs failed", flush=True)
                ready = [j for j in self.waiting if not (set(j.needs) & self.known) - self.done]
                if ready:
                    self.waiting.remove(ready[0])
                    return ready[0]
                if not self.waiting:
                    return None
                self.change.wait()

    def _do(self, job: Job) -> bool:
        began = time.monotonic()
        with open(self.out / "log" / f"{job.name}.log", "ab") as log:
            child = subprocess.Popen(job.words, cwd=ROOT, env=_environment(), stdout=log, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        wall, cpu = time.monotonic() - began, usage.ru_utime + usage.ru_stime
        with self.change, open(self.out / "jobs.csv", "a", encoding="utf-8") as f:
            f.write(f"{job.name},{child.returncode},{wall:.0f},{cpu:.0f}\n")
        print(f"{job.name}: exit {child.returncode}, {wall:.0f} s, {cpu:.0f} s of CPU", flush=True)
        return child.returncode == 0 and job.done.is_file()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}


def main() -> int:
    p = argparse.ArgumentParser(description="All runs on the real samples.")
    p.add_argument("out", type=Path)
    p.add_argument("--jobs", type=int, default=2, help="at a time")
    p.add_argument("--only", default="", help="jobs whose name contains this, and nothing that they need")
    p.add_argument("--dry-run", action="store_true", help="print the commands of what is not done yet")
    args = p.parse_args()
    real = os.environ.get("MEDPAIR_REAL_DATA")
    if not real or not Path(real).is_dir():
        p.error("MEDPAIR_REAL_DATA names no folder: the real samples are not part of the repository")
    out = args.out.resolve()
    data, runs = out / "data", out / "pretrain"
    groups = pretraining(runs, data) | finetuning(out / "finetune", runs, data)
    assert set(ORDER) == set(groups), "ORDER names every group of jobs"
    jobs = packing(Path(real).resolve(), data) + [j for name in ORDER for j in groups[name]]
    jobs = [j for j in jobs if args.only in j.name]
    if args.dry_run:
        print("\n".join(f"{j.name}: {' '.join(j.words)}" for j in jobs if not j.done.is_file()))
        return 0
    tables(Path(real), data)
    return Pool(jobs, out).run(args.jobs)


if __name__ == "__main__":
    raise SystemExit(main())
