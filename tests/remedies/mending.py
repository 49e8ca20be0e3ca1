"""Remedies for data sets that lie there: `lint`, `index`, `seal`, `split`, `meaning`, `tokenizer`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from shards.format.info import load_info, save_info
from tests.remedies import packing
from tests.remedies.scenario import Command, Place, remedy, run

INDEX, SPLIT, SEAL = {"index": "index {folder}/d"}, {"split": "split {folder}/d"}, {"seal": "seal {folder}/d"}
TYPED_INDEX, TYPED_SPLIT = r"run `(python -m shards index)` on", r"run `(python -m shards split)` on"
TYPED_SEAL = r"run `(python -m shards seal)` on"


def made(place: Place, *more: str, patients: int = packing.ROWS) -> Path:
    """A sound data set, `d`, of which everything is stated."""
    bags = packing.vectors(place, packing.RNG(0).normal(size=(packing.ROWS, 5, 8)).astype(np.float32))
    names, rows = packing.genes(packing.GENES)
    known = ["patches.encoder=uni_v1", "patches.magnification=20x", "patches.patch_size=256", "rna.transform=none"]
    stated = [w for m in known for w in ("--meaning", m)]
    kinds, genes = ["a", "b"] * (packing.ROWS // 2), packing.table(place, names, rows)
    command = packing.pack(
        place, *stated, "--split-fractions", "0.5,0.25,0.25", *more, "--out", str(place.folder / "d"),
        patients=patients, label_kind=kinds, field_patches=bags, field_rna=genes,
    )  # fmt: skip
    status, said = run(command)
    assert status == 0, said
    return place.folder / "d"


def lint(folder: Path) -> Command:
    return Command("shards", ["lint", str(folder)])


def info(folder: Path) -> Command:
    return Command("shards", ["info", str(folder)])


def edited(folder: Path, **changes: object) -> None:
    """dataset.json with other values, sealed."""
    save_info(folder, load_info(folder).model_copy(update=changes))


def meant(folder: Path, field: str, meaning: dict[str, str], **more: object) -> None:
    fields = dict(load_info(folder).fields)
    edited(folder, fields={**fields, field: fields[field].model_copy(update={"meaning": meaning, **more})})


# --------------------------------------------------------------------------------------------------------- dataset.json


@remedy("the file was edited: run `python -m shards index`", TYPED_INDEX, INDEX)
def edited_by_hand(place: Place) -> Command:
    path = made(place) / "dataset.json"
    path.write_text(path.read_text().replace('"patients": 12', '"patients": 11'))
    return info(path.parent)


@remedy("or adopt tars with `python -m shards index DIR`", r"`(python -m shards index DIR)`", {"DIR": "{folder}/d"})
def tars_alone(place: Place) -> Command:
    (made(place) / "dataset.json").unlink()
    return info(place.folder / "d")


@remedy("run `python -m shards index ", r"`(python -m shards index [^`]+)`")
def no_index_in_a_folder_with_a_blank(place: Place) -> Command:
    folder = made(place).rename(place.folder / "my set")
    for path in folder.glob("*.idx.npy"):
        path.unlink()
    return Command("shards", ["preview", str(folder), "--out", str(place.folder / "look.png")])


@remedy("it gives it its name back", r"run `(python -m shards seal [^`]+)`")
def killed_while_replacing(place: Place) -> Command:
    made(place).rename(place.folder / ".d.old")
    return info(place.folder / "d")


@remedy("the data stay as they are, the fingerprint changes", TYPED_SEAL, SEAL, status=0)
def of_an_earlier_version(place: Place) -> Command:
    folder = made(place)
    shards = tuple(s.model_copy(update={"index_sha256": None}) for s in load_info(folder).shards)
    edited(folder, shards=shards)
    return lint(folder)


@remedy("pack again, or run `python -m shards index` on the folder", TYPED_INDEX, INDEX)
def another_count_of_patients(place: Place) -> Command:
    folder = made(place)
    edited(folder, patients=3)
    return lint(folder)


# ---------------------------------------------------------------------------------------------------------- its side files


@remedy("it builds indexes anew from tars that are as they were sealed", TYPED_SEAL, SEAL)
def a_damaged_index(place: Place) -> Command:
    folder = made(place)
    path = next(folder.glob("*.idx.npy"))
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    return lint(folder)


@remedy("run `python -m shards index ", r"run `(python -m shards index [^`]+)`")
def no_index(place: Place) -> Command:
    folder = made(place)
    next(folder.glob("*.idx.npy")).unlink()
    return lint(folder)


@remedy("or run `python -m shards split` to seal a new one", r"`(python -m shards split)` to", SPLIT)
def edited_splits(place: Place) -> Command:
    folder = made(place)
    (folder / "splits.csv").write_text((folder / "splits.csv").read_text().replace(",test", ",val", 1))
    return info(folder)


@remedy("or run `python -m shards split`", r"or run `(python -m shards split)`", SPLIT)
def a_patient_in_two_splits(place: Place) -> Command:
    folder, path = made(place, patients=6), place.folder / "d" / "splits.csv"
    first = path.read_text().splitlines()[1]
    path.write_text(
        path.read_text().replace(first, first.rpartition(",")[0] + (",val" if "train" in first else ",train"))
    )
    sealed_again(folder)
    return lint(folder)


@remedy("run `python -m shards split` on the folder", TYPED_SPLIT, SPLIT)
def an_empty_split(place: Place) -> Command:
    folder = made(place)
    (folder / "splits.csv").write_text((folder / "splits.csv").read_text().replace(",test", ",val"))
    sealed_again(folder)
    return lint(folder)


@remedy("they are fitted anew, the splits stay as they are", TYPED_SEAL, SEAL)
def no_statistics(place: Place) -> Command:
    folder = made(place)
    (folder / "stats.npz").unlink()
    edited(folder, files={n: h for n, h in load_info(folder).files.items() if n != "stats.npz"})
    return lint(folder)


@remedy("they are fitted anew, the splits stay as they are", TYPED_SEAL, SEAL)
def statistics_of_another_split(place: Place) -> Command:
    folder = made(place)
    np.savez(folder / "stats.npz", **{"rna.mean": np.ones(8, np.float32), "rna.std": np.ones(8, np.float32)})
    sealed_again(folder)
    return lint(folder)


@remedy("splits.csv and labels.csv list different samples", TYPED_INDEX, INDEX)
def tables_of_different_samples(place: Place) -> Command:
    folder = made(place)
    lines = (folder / "labels.csv").read_text().splitlines(keepends=True)
    (folder / "labels.csv").write_text("".join(lines[:-1]))
    sealed_again(folder)
    return Command("shards", ["split", str(folder)])


@remedy(
    "save it in UTF-8, or remove it and run",
    r"run `(python -m shards index)`",
    {"index": "index {folder}/d"},
    first="rm {folder}/d/labels.csv",
)
def labels_in_another_encoding(place: Place) -> Command:
    return in_another_encoding(made(place), "labels.csv")


@remedy(
    "save it in UTF-8, or remove it and run",
    r"run `(python -m shards index)` and `python -m shards split` on",
    {"index": "index {folder}/d"},
    first="rm {folder}/d/splits.csv",
)
def splits_in_another_encoding(place: Place) -> Command:
    return in_another_encoding(made(place), "splits.csv")


def in_another_encoding(folder: Path, name: str) -> Command:
    (folder / name).write_bytes((folder / name).read_bytes().replace(b"p1", b"p\xe4", 1).replace(b",a", b",\xe4", 1))
    sealed_again(folder)
    return Command("shards", ["seal", str(folder)])


@remedy("if the change is meant, run `python -m shards split`", r"run `(python -m shards split)`", SPLIT)
@remedy(
    "if the change is meant, run `python -m shards split`",
    r"run `(python -m shards )split",
    {"shards ": "shards index {folder}/d"},
)
def sealing_edited_splits(place: Place) -> Command:
    return Command("shards", ["seal", edited_splits(place).words[1]])


def sealed_again(folder: Path) -> None:
    """dataset.json with the hashes of the side files that are there."""
    from shards.format.info import sha256_of

    files = load_info(folder).files
    edited(folder, files={n: sha256_of(folder / n) for n in files})


@remedy("nothing can be evaluated on it; run `python -m shards split`", TYPED_SPLIT, SPLIT, status=0)
def no_test_split(place: Place) -> Command:
    return lint(made(place, "--split-fractions", "1"))


@remedy("ask for fewer splits (", r"\((--fractions 1)\)")
def too_few_patients_for_the_splits(place: Place) -> Command:
    made(place, "--split-fractions", "0.5,0.5", patients=2)
    return Command("shards", ["split", str(place.folder / "d")])


# ---------------------------------------------------------------------------------------------------------------- meaning


@remedy("give --overwrite if what is stored is wrong", r"give (--overwrite)")
def another_meaning_is_stored(place: Place) -> Command:
    meant(made(place), "patches", {"encoder": "uni_v1"})
    return Command("shards", ["meaning", str(place.folder / "d"), "patches.encoder=conch_v15"])


@remedy(
    "state it: python -m shards meaning DIR rna",
    r"(python -m shards meaning DIR rna.transform=VALUE)",
    {"DIR": "{folder}/d", "VALUE": "none"},
    status=0,
)
def a_meaning_is_not_stored(place: Place) -> Command:
    folder = made(place)
    meant(folder, "rna", {})
    return lint(folder)


@remedy(
    "not stored: ",
    r"(python -m shards meaning DIR rna.transform=VALUE)",
    {"DIR": "{folder}/d", "VALUE": "none"},
    status=0,
)
def info_says_what_is_not_stored(place: Place) -> Command:
    return info(Path(a_meaning_is_not_stored(place).words[1]))


@remedy(
    "if that is right; until then no method reads them",
    r"(python -m shards meaning DIR image.bits=12)",
    {"DIR": "{folder}/set"},
)
def films_of_unknown_bits(place: Place) -> Command:
    films = packing.images(place, np.random.default_rng(0).integers(0, 4096, (16, 16)).astype(np.uint16))
    assert run(packing.pack(place, field_image=films))[0] == 0
    meant(place.folder / "set", "image", {})
    return lint(place.folder / "set")


@remedy(
    "which looks at all of them, or state it", r"run `(python -m shards index)` on", {"index": "index {folder}/set"}
)
@remedy(
    "which looks at all of them, or state it",
    r"state it: (python -m shards meaning DIR image.bits=12)",
    {"DIR": "{folder}/set"},
)
def previewing_films_of_unknown_bits(place: Place) -> Command:
    return Command("shards", ["preview", films_of_unknown_bits(place).words[1], "--out", str(place.folder / "p.png")])


@remedy(
    "on the folder to have them turned", r"run `(python -m shards index)` on", {"index": "index {folder}/set"}, status=0
)
@remedy(
    "on the folder to have them turned",
    r"or (python -m shards meaning DIR image.orientation=stored)",
    {"DIR": "{folder}/set"},
    status=0,
)
def photographs_of_an_earlier_version(place: Place) -> Command:
    assert run(_photographs(place))[0] == 0
    meant(place.folder / "set", "image", {}, shape=(16, 24, 3))
    return lint(place.folder / "set")


@remedy("(--keep-orientation leaves them as stored)", r"\((--keep-orientation)", status=0)
def _photographs(place: Place) -> Command:
    picture, exif = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 24, 3), np.uint8)), Image.Exif()
    exif[0x0112] = 6
    for i in range(packing.ROWS):
        picture.save(place.folder / f"f{i}.jpg", exif=exif)
    return packing.pack(place, "--overwrite", field_image=[f"f{i}.jpg" for i in range(packing.ROWS)])


@remedy("holds the values", TYPED_INDEX, {"index": "index {folder}/set"})
def masks_with_other_values(place: Place) -> Command:
    mask = np.zeros((16, 16), np.uint8)
    mask[:4] = 1
    assert run(packing.pack(place, field_mask=packing.images(place, mask)))[0] == 0
    meant(place.folder / "set", "mask", {"values": "0 7"})
    return lint(place.folder / "set")


@remedy("give --out NAME.png (or", r"give (--out NAME.png)", {"NAME": "{folder}/p"})
def a_preview_of_another_kind(place: Place) -> Command:
    return Command("shards", ["preview", str(made(place)), "--out", str(place.folder / "p.bmp")])


# -------------------------------------------------------------------------------------------------------------- tokenizer


@remedy("give --overwrite to replace it (weights", r"give (--overwrite)")
@remedy("give --overwrite to replace it (weights", r"or (--out FILE)", {"FILE": "{folder}/words.txt"})
def a_vocabulary_is_there(place: Place) -> Command:
    command = Command("shards", ["tokenizer", str(made(place))])
    assert run(command)[0] == 0
    return command


@remedy("tokens are too few for their", r"(--size \d+) or more")
def too_few_tokens(place: Place) -> Command:
    return Command("shards", ["tokenizer", str(made(place)), "--size", "5"])


@remedy("name one with --field", r"name one with (--field)", {"--field": "--field report"})
def no_such_text(place: Place) -> Command:
    return Command("shards", ["tokenizer", str(made(place)), "--field", "letter"])


@remedy("such as {}".format("--label-fractions 0.01,0.1"), r"such as (--label-fractions 0.01,0.1)")
def no_list_of_shares(place: Place) -> Command:
    return Command("shards", ["split", str(made(place)), "--label-fractions", "one,two"])


# --------------------------------------------------------------------------------------------- of data as they were packed


@remedy("run `python -m shards split` with fractions that fill it", r"`(python -m shards split)` with", SPLIT)
def training_on_an_empty_split(place: Place) -> Command:
    data = shutil.copytree(place.demo, place.folder / "d")
    assert run(Command("shards", ["split", str(data), "--fractions", "0.8,0.2,0"]))[0] == 0
    words = ["--method", "gimp", "--recipe", "demo", "--dry-run", f"data.path={data}", "data.split=test"]
    return Command("pretrain", [*words, "data.val_split=", "out=run"])


@remedy("not ['sample', 'kind']", TYPED_INDEX, INDEX)
def columns_in_another_order(place: Place) -> Command:
    path = made(place) / "labels.csv"
    path.write_text("".join(",".join(["note", *line.split(",")]) for line in path.read_text().splitlines(True)))
    sealed_again(path.parent)
    return lint(path.parent)


@remedy(
    "if a stored word is wrong: python -m shards meaning DIR",
    r"(python -m shards meaning DIR \S+=VALUE --overwrite)",
    {"DIR": "{folder}/d", "VALUE": "log2p1"},
)
def sets_that_mean_something_else(place: Place) -> Command:
    data = shutil.copytree(place.demo, place.folder / "d")
    known = load_info(place.demo).fields["rna"].meaning
    meant(data, "rna", {"transform": "z"})
    meant(Path(shutil.copytree(place.demo, place.folder / "e")), "rna", {**known, "transform": "log2p1"})
    both = f"data.path=[{{path: {data}}},{{path: {place.folder / 'e'}}}]"
    return Command("pretrain", ["--method", "mrm_record", "--recipe", "demo", "--dry-run", both, "out=run"])


@remedy(
    "so nothing can be compared; state it",
    r"(python -m shards meaning DIR \S+=VALUE)",
    {"DIR": "{folder}/d", "VALUE": "log2p1"},
    status=0,
)
def sets_of_which_one_says_nothing(place: Place) -> Command:
    command = sets_that_mean_something_else(place)
    meant(place.folder / "d", "rna", {})
    return command


@remedy("no column kind (it has", TYPED_INDEX, INDEX)
def a_column_that_is_gone(place: Place) -> Command:
    path = made(place) / "labels.csv"
    path.write_text("".join(line.split(",")[0] + "\n" for line in path.read_text().splitlines()))
    sealed_again(path.parent)
    return Command("shards", ["preview", str(path.parent), "--out", str(place.folder / "p.png")])


@remedy("patients stand in two splits", TYPED_SPLIT, SPLIT)
def previewing_a_patient_in_two_splits(place: Place) -> Command:
    folder = Path(a_patient_in_two_splits(place).words[1])
    return Command("shards", ["preview", str(folder), "--out", str(place.folder / "p.png")])


@remedy("give --licence TERMS, --commercial yes", r"give (--licence TERMS)", {"TERMS": "CC-BY-4.0"})
def no_terms(place: Place) -> Command:
    return Command("shards", ["terms", str(made(place))])
