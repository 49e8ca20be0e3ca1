"""Mutated data sets and sources against our own readers: `python tests/fuzz/readers.py --cases 10000 --seed 0 [--only shards]`.

Each case changes one file of a small set that this script writes. What must come of it:
- a packed data set: a named error (when opened, read or linted), or lint clean and every sample as it was;
- a source (manifest, table, bag, genotypes, image): a named error, or a packed set that lint calls clean; where only the form of a table
  was changed, the same set as before.
Never: another exception, a run over the time limit, a file written outside the case's folder.
Files of other libraries' formats (HDF5, PyTorch) are changed through those libraries, never byte by byte.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.fuzz import mutations as m  # noqa: E402
from tests.shards.builders import npy  # noqa: E402

LIMIT = 20  # seconds of a case; a reader that trusts a number it read would take longer or more memory
Rng = np.random.Generator
Change = Callable[[Path, Rng], tuple[str, bool]]


class Failed(AssertionError):
    """What must not happen."""


@dataclass
class Outcomes:
    """How many cases ended how, and those that must not have."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@contextmanager
def time_limit() -> Iterator[None]:
    def over(*_: object) -> None:
        raise Failed(f"over {LIMIT} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ------------------------------------------------------------------------------------------------------- what a set holds


def content(folder: Path) -> dict[str, Any]:
    """Everything that a training could take from a data set; raises what the reader raises."""
    from shards.read.dataset import Dataset

    out: dict[str, Any] = {}
    with Dataset.open(folder) as data:
        for i in range(len(data)):
            record = data[i]
            fields = {n: record.read(n) for n in data.info.fields if record.has(n)}
            plain = {
                n: (v.dtype.str, v.shape, v.tobytes()) if isinstance(v, np.ndarray) else v for n, v in fields.items()
            }
            split = int(data.splits.split_codes[i]) if hasattr(data, "splits") else None
            out[record.key] = (record.patient, dict(record.labels), split, plain)
    return out


def problems_of(folder: Path) -> list[Any]:
    from shards.check.lint import lint

    return list(lint(folder).problems)


def named(problems: list[Any]) -> None:
    for p in problems:
        if not (p.what.strip() and str(p.where).strip() and p.fix.strip()):
            raise Failed(f"a problem without what, where or fix: {p!r}")


# ------------------------------------------------------------------------------------------------------------- packed sets


def shard_case(base: Path, work: Path, rng: Rng, before: Any) -> tuple[str, str]:
    """Mutates one file of a packed set; (what was done, outcome)."""
    from shards.errors import DataError
    from shards.format.info import DatasetInfo, fingerprint_of

    folder = work / "set"
    shutil.copytree(base, folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    weight = np.array([4.0 if p.suffix == ".tar" else 3.0 if p.name.endswith(".idx.npy") else 2.0 for p in files])
    path = files[int(rng.choice(len(files), p=weight / weight.sum()))]
    if path.name == "dataset.json" and rng.random() < 0.7:
        done, data = m.odd_json(path.read_bytes(), rng)
        if rng.random() < 0.6:  # as somebody who seals it again would leave it
            try:
                info = DatasetInfo.model_validate_json(data)
                data, done = (
                    json.dumps({**json.loads(data), "fingerprint": fingerprint_of(info)}).encode(),
                    f"{done}, sealed",
                )
            except Exception:
                done += ", not to be sealed"
    else:
        done, data = m.any_bytes(path.read_bytes(), rng)
    path.write_bytes(data)
    done = f"{path.relative_to(folder)}: {done}"
    try:
        now: dict[str, Any] | None = content(folder)
    except DataError as e:
        named(e.problems)
        now = None
    found = problems_of(folder)
    named(found)
    if now is None and not found:
        raise Failed(f"{done}: the reader refuses what lint calls clean")
    if found:
        return done, "refused" if now is None else "named by lint alone"
    if now != before and not done.endswith("sealed"):
        raise Failed(f"{done}: lint is clean and samples changed")
    return done, "harmless"


# ------------------------------------------------------------------------------------------------------------------ sources


def packed(manifest: Path, out: Path) -> None:
    from shards.pack.options import PackOptions
    from shards.pack.pack import pack

    pack(manifest, out, PackOptions(fractions={"train": 0.6, "val": 0.2, "test": 0.2}, shard_samples=3, name="set"))


def source_case(
    change: Callable[[Path, Rng], tuple[str, bool]], base: Path, work: Path, rng: Rng, before: dict[str, Any]
) -> tuple[str, str]:
    """Mutates a file of a source and packs it; `change` returns what it did and whether only the form changed."""
    from shards.errors import DataError

    folder, out = work / "in", work / "out"
    shutil.copytree(base, folder)
    done, same_form = change(folder, rng)
    try:
        packed(folder / "manifest.csv", out)
    except DataError as e:
        named(e.problems)
        if out.exists():
            raise Failed(f"{done}: refused, and a folder was left") from e
        if same_form:
            raise Failed(f"{done}: only the form changed, and it is refused: {e}") from e
        return done, "refused"
    if found := problems_of(out):
        raise Failed(f"{done}: packed, and lint finds {found[0]}")
    now = content(out)
    if same_form and now != before:
        raise Failed(f"{done}: only the form changed, and samples did too")
    return done, "the same" if now == before else "another set, lint clean"


def change_table(name: str) -> Change:
    def change(folder: Path, rng: Rng) -> tuple[str, bool]:
        path = folder / name
        text, form = path.read_text(), rng.random() < 0.3
        if not form and rng.random() < 0.3:
            done, data = m.any_bytes(text.encode(), rng)
        else:
            done, data = m.other_form(text, rng) if form else m.other_text(text, rng)
        path.write_bytes(data)
        return f"{name}: {done}", form

    return change


def change_bag(folder: Path, rng: Rng) -> tuple[str, bool]:
    """A bag of another form: what libraries write, not what they would refuse to."""
    paths = sorted((folder / "bags").iterdir())
    path = paths[int(rng.integers(len(paths)))]
    if path.suffix == ".npy":
        done, data = m.any_bytes(path.read_bytes(), rng)
        path.write_bytes(data)
        return f"{path.name}: {done}", False
    shapes: list[Any] = [(0, 6), (5,), (1, 4, 6), (2, 4, 6), (4, 7), (), (4, 6)]
    shape = shapes[int(rng.integers(len(shapes)))]
    dtype = str(rng.choice(["<f4", ">f4", "<f2", "<f8", "<i4", ">i2", "<u1", "?", "<c8"]))
    array = (rng.normal(size=shape) * 3).astype(dtype)
    if array.size and array.dtype.kind == "f" and rng.random() < 0.3:
        array.flat[0] = [np.nan, np.inf][int(rng.integers(2))]
    member = str(rng.choice(["features", "feats", "x"]))
    if path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as f:
            f[member] = array
    elif path.suffix == ".npz":
        np.savez(path, **{member: array})
    else:
        import torch

        odd = dtype not in ("<f4", "<f2", "<f8", "<i4", "<u1", "?", "<c8")
        tensor = torch.from_numpy(np.array(array.astype("<f4") if odd else array))
        torch.save(tensor if rng.random() < 0.5 else {member: tensor}, path)
    return f"{path.name}: {member} {dtype} {shape}", False


def change_image(folder: Path, rng: Rng) -> tuple[str, bool]:
    paths = sorted((folder / "images").iterdir())
    path = paths[int(rng.integers(len(paths)))]
    if rng.random() < 0.5:
        done, data = m.any_bytes(path.read_bytes(), rng)
        path.write_bytes(data)
        return f"{path.name}: {done}", False
    mode = str(rng.choice(["L", "LA", "RGB", "RGBA", "P", "1", "I;16", "CMYK" if path.suffix == ".jpg" else "L"]))
    grey = np.random.default_rng(1).integers(0, 256, (14, 18), np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 17) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(1, 9))
    kind = "JPEG" if path.suffix == ".jpg" else "PNG"
    if kind == "JPEG" and mode in ("LA", "RGBA", "P", "1", "I;16"):
        image = Image.fromarray(grey)
    image.save(out, kind, exif=exif)
    path.write_bytes(out.getvalue())
    return f"{path.name}: {mode}, orientation {exif[0x0112]}", False


def genotype_case(base: Path, work: Path, rng: Rng, before: Any) -> tuple[str, str]:
    """Mutates a PLINK file set of our own and reads it."""
    from shards.errors import DataError
    from shards.sources._genotypes import read_genotypes

    folder = work / "plink"
    shutil.copytree(base, folder)
    name = str(rng.choice(["x.bed", "x.bim", "x.bim", "x.fam"]))
    path = folder / name
    if name == "x.bed":
        done, data = m.any_bytes(path.read_bytes(), rng)
    else:
        text = path.read_text().replace("\t", ",")
        done, changed = m.other_text(text, rng)
        data = changed.replace(b",", b"\t")
    path.write_bytes(data)
    try:
        found = read_genotypes(folder / "x.bed", 1)
    except DataError as e:
        named(e.problems)
        return f"{name}: {done}", "refused"
    if not set(np.unique(found.codes)) <= {-1, 0, 1, 2} or found.codes.shape != (len(found.people), len(found.snps)):
        raise Failed(f"{name}: {done}: codes {np.unique(found.codes)} of shape {found.codes.shape}")
    if len(set(found.people)) < len(found.people) or len(set(found.snps)) < len(found.snps):
        raise Failed(f"{name}: {done}: a person or SNP stands twice")
    return f"{name}: {done}", "read"


# --------------------------------------------------------------------------------------------------------------- bases


def make_source(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    (folder / "bags").mkdir(parents=True)
    (folder / "images").mkdir()
    genes = ["GENE" + c for c in "ABCDE"]
    rows, table = (
        ["sample,patient,label:stage,label:age,field:patches,field:image,field:rna"],
        ["case," + ",".join(genes)],
    )
    for i in range(8):
        suffix = (".npy", ".npz#features", ".h5#features", ".pt")[i % 4]
        path = folder / "bags" / f"b{i}{suffix.partition('#')[0]}"
        bag = rng.normal(size=(4 + i % 3, 6)).astype(np.float32)
        if suffix == ".npy":
            path.write_bytes(npy(bag))
        elif suffix.startswith(".npz"):
            np.savez(path, features=bag)
        elif suffix.startswith(".h5"):
            import h5py

            with h5py.File(path, "w") as f:
                f["features"] = bag
        else:
            import torch

            torch.save(torch.from_numpy(bag), path)
        kind = "jpg" if i % 2 else "png"
        image = Image.fromarray(rng.integers(0, 256, (14, 18, 3), np.uint8))
        image.save(folder / "images" / f"i{i}.{kind}")
        rows.append(f"s{i},p{i},{('I', 'II')[i % 2]},{40 + i},bags/b{i}{suffix},images/i{i}.{kind},rna.csv#c{i}")
        table.append(f"c{i}," + ",".join(f"{v:.3f}" for v in rng.gamma(2, 2, 5)))
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "rna.csv").write_text("\n".join(table) + "\n")
    return folder


def make_plink(folder: Path) -> Path:
    from bed_reader import to_bed

    folder.mkdir(parents=True)
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 3, (9, 12)).astype(np.int8)
    to_bed(
        folder / "x.bed", codes,
        properties={
            "iid": [f"p{i}" for i in range(9)], "fid": [f"f{i}" for i in range(9)], "sid": [f"rs{j}" for j in range(12)],
            "chromosome": ["1"] * 6 + ["2"] * 6, "bp_position": list(range(100, 112)), "allele_1": ["A"] * 12, "allele_2": ["G"] * 12,
        },
    )  # fmt: skip
    return folder


Case = Callable[[Path, Path, Rng, Any], tuple[str, str]]


def species(bases: Path) -> dict[str, tuple[Case, Path, Any]]:
    """Name -> (case, base folder, what the base holds)."""
    source, made = make_source(bases / "source"), bases / "packed"
    packed(source / "manifest.csv", made)
    if found := problems_of(made):
        raise Failed(f"the base is not clean: {found}")
    whole = content(made)

    def of(change: Change) -> Case:
        return lambda base, work, rng, before: source_case(change, base, work, rng, before)

    return {
        "shards": (shard_case, made, whole),
        "manifests": (of(change_table("manifest.csv")), source, whole),
        "tables": (of(change_table("rna.csv")), source, whole),
        "bags": (of(change_bag), source, whole),
        "images": (of(change_image), source, whole),
        "genotypes": (genotype_case, make_plink(bases / "plink"), None),
    }


SHARE = {"shards": 0.4, "manifests": 0.12, "tables": 0.12, "bags": 0.12, "images": 0.12, "genotypes": 0.12}


def campaign(cases: int, seed: int, only: str | None = None) -> dict[str, Outcomes]:
    """Runs the cases; a case is a function of (seed, species, number)."""
    out: dict[str, Outcomes] = {}
    with tempfile.TemporaryDirectory(prefix="medpair-fuzz-") as t:
        bases = Path(t) / "bases"
        bases.mkdir()
        kinds = species(bases)
        for number, (name, (case, base, before)) in enumerate(kinds.items()):
            if only and name != only:
                continue
            out[name] = Outcomes()
            for i in range(cases if only else round(cases * SHARE[name])):
                one(
                    case,
                    base,
                    before,
                    Path(t) / "case",
                    np.random.default_rng([seed, number, i]),
                    f"{name} {i}",
                    out[name],
                )
    return out


def one(case: Case, base: Path, before: Any, work: Path, rng: Rng, title: str, out: Outcomes) -> None:
    """One case in a folder of its own, which is removed; anything beside it that changes is a failure."""
    work.mkdir()
    beside = sorted(p.name for p in work.parent.iterdir())
    try:
        with time_limit():
            done, outcome = case(base, work, rng, before)
        if sorted(p.name for p in work.parent.iterdir()) != beside:
            raise Failed(f"{done}: a file was written outside the folder")
        out.counts[outcome] += 1
    except Failed as e:
        out.counts["FAILED"] += 1
        out.failures.append(f"{title}: {e}")
    except Exception as e:
        out.counts["FAILED"] += 1
        place = traceback.extract_tb(e.__traceback__)[-1]
        out.failures.append(f"{title}: {type(e).__name__}: {str(e)[:200]} ({Path(place.filename).name}:{place.lineno})")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def table(found: dict[str, Outcomes]) -> str:
    lines = [f"{name:<12}" + ", ".join(f"{k} {n}" for k, n in sorted(o.counts.items())) for name, o in found.items()]
    return "\n".join(lines)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--cases", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", choices=list(SHARE))
    args = p.parse_args()
    began = time.monotonic()
    found = campaign(args.cases, args.seed, args.only)
    print(table(found))
    failures = [f for o in found.values() for f in o.failures]
    print(
        f"{sum(sum(o.counts.values()) for o in found.values())} cases in {time.monotonic() - began:.0f} s, {len(failures)} failed"
    )
    print("\n".join(failures[:60]))
    return min(len(failures), 99)


if __name__ == "__main__":
    sys.exit(main())
