"""Lint: every kind of damage is planted in a good data set and must be found, named and given a remedy."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from manifests import png, rewrite_tar, snapshot, sources, tar_of
from PIL import Image

from shards.check.lint import Report, lint
from shards.check.lint_counts import counts
from shards.errors import DataError
from shards.format.indexes import open_index
from shards.format.info import load_info, save_info
from shards.format.seal import hash_files, read_rows
from shards.pack.adopt import Titles, adopt
from shards.pack.options import PackOptions
from shards.pack.write import npy_bytes


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("lint")
    return sources(base / "in", count=20).pack(base / "out", PackOptions(shard_samples=8))


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    for name, data in snapshot(good).items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    return tmp_path / "set"


def expect(folder: Path, *patterns: str, **options: dict) -> Report:
    """Lint finds exactly as many problems as there are patterns, each of them, and changes nothing."""
    before = snapshot(folder)
    report = lint(folder, **options)  # type: ignore[arg-type]
    text = str(report)
    for pattern in patterns:
        assert re.search(pattern, text), f"{pattern!r} is not in:\n{text}"
    assert len(report.problems) == len(patterns), text
    assert all(p.fix and p.where for p in report.problems)
    assert snapshot(folder) == before
    return report


def resealed(folder: Path, change: Callable[[str, bytes], list[tuple[str, bytes]]]) -> None:
    """Damages members of the first shard in a way that hashes and index agree with: as if it had been packed so."""
    from shards.format import index
    from shards.format.info import sha256_of

    tar = folder / "shard-000000.tar"
    rewrite_tar(tar, change)
    built = index.build(tar)
    index.save(tar, built)
    info = load_info(folder)
    update = {"bytes": tar.stat().st_size, "sha256": sha256_of(tar), "index_sha256": index.seal_of(built)}
    first = info.shards[0].model_copy(update=update)
    save_info(folder, info.model_copy(update={"shards": (first, *info.shards[1:])}))


def replaced(name: str, data: bytes) -> Callable[[str, bytes], list[tuple[str, bytes]]]:
    return lambda n, old: [(n, data if n == name else old)]


def edit(folder: Path, name: str, old: str, new: str, count: int = 1) -> None:
    """Edits a side file and seals the change."""
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new, count))
    info = load_info(folder)
    save_info(folder, info.model_copy(update={"files": hash_files(folder)}))


def test_clean(folder: Path) -> None:
    report = expect(folder)
    assert re.search(r"set: clean, 1 warning; 20 samples, 100 members, [\d.]+ MB read", str(report))
    assert "field 'patches': encoder, magnification, patch_size not stored" in str(report)


def test_truncated_tar(folder: Path) -> None:
    tar = folder / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:-3000])
    report = lint(folder)
    assert re.search(r"shard-000001.tar: truncated: \d+ of \d+ bytes. Fix: copy it again", str(report))


def test_flipped_byte_names_the_member(folder: Path) -> None:
    tar = folder / "shard-000000.tar"
    row = open_index(tar)[12]
    data = bytearray(tar.read_bytes())
    data[int(row["offset"]) + 20] ^= 1
    tar.write_bytes(bytes(data))
    name = f"{row['key'].decode()}.{row['field'].decode()}.{row['ext'].decode()}"
    report = lint(folder)
    assert re.search(
        rf"shard-000000.tar: {name}: bytes changed since packing \(crc32\). Fix: copy the shard again", str(report)
    )


def test_flipped_byte_between_members(folder: Path) -> None:
    tar = folder / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    tar.write_bytes(bytes(data))
    expect(folder, r"bytes changed since it was sealed \(sha256\), outside of all members")


def test_missing_and_extra_member(folder: Path) -> None:
    rewrite_tar(folder / "shard-000000.tar", lambda n, d: [] if n == "s01.rna.npy" else [(n, d)])
    rewrite_tar(
        folder / "shard-000001.tar", lambda n, d: [(n, d), ("s08.zzz.txt", b"new")] if n == "s08.rna.npy" else [(n, d)]
    )
    text = str(lint(folder))
    assert "shard-000000.tar: s01.rna.npy: missing member: in the index but not in the tar" in text
    assert "shard-000001.tar: s08.zzz.txt: extra member: in the tar but not in the index" in text


def test_missing_and_unknown_shards(folder: Path) -> None:
    (folder / "shard-000001.tar").rename(folder / "shard-000009.tar")
    text = str(lint(folder))
    assert "shard-000001.tar: missing. Fix:" in text
    assert "shard-000009.tar: a shard that dataset.json does not list" in text
    assert lint(folder).problems


def test_duplicate_key(folder: Path) -> None:
    rewrite_tar(folder / "shard-000000.tar", lambda n, d: [(n.replace("s03.", "s01."), d)])
    assert re.search(r"shard-000000.tar.*'s01'.*Fix: give every sample a key of its own", str(lint(folder)))


@pytest.mark.parametrize("name", ["../../etc/passwd.rna.npy", "/abs.rna.npy", "s01/../../x.rna.npy"])
def test_climbing_member_name(folder: Path, name: str) -> None:
    rewrite_tar(folder / "shard-000000.tar", lambda n, d: [(name if n == "s01.rna.npy" else n, d)])
    text = str(lint(folder))
    assert "the name leaves the folder" in text
    assert repr(name) in text


def test_pickle_members_and_object_arrays(folder: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (trap,))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    rewrite_tar(
        folder / "shard-000001.tar",
        lambda n, d: [(n, d), ("s08.model.pickle", pickle.dumps(Evil()))] if n == "s08.rna.npy" else [(n, d)],
    )
    resealed(folder, replaced("s01.rna.npy", buffer.getvalue()))
    text = str(lint(folder))
    assert re.search(r"s08.model.pickle'?: the kind can carry code and is never read", text)
    assert re.search(r"shard-000000.tar: s01.rna.npy: array of '\|O': only numbers are allowed", text)
    assert not trap.exists()


def bomb_png() -> bytes:
    data = bytearray(png(0))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    return bytes(data)


def bomb_npy() -> bytes:
    data = npy_bytes(np.zeros(20, np.float16))
    return data.replace(b"(20,)", b"(2**40,)".replace(b"2**40", b"1099511627776")[:14].ljust(5), 1)


def test_decompression_bombs(folder: Path) -> None:
    resealed(folder, lambda n, d: [(n, {"s01.image.png": bomb_png(), "s02.rna.npy": bomb_npy()}.get(n, d))])
    expect(folder, r"s01.image.png: .*50000 x 50000 pixels", r"s02.rna.npy: ")


def test_nan_genes_and_wrong_width(folder: Path) -> None:
    sick = np.ones(20, np.float16)
    sick[3] = np.nan
    sick[4] = np.inf
    bodies = {"s01.rna.npy": npy_bytes(sick), "s02.rna.npy": npy_bytes(np.ones(19, np.float16))}
    resealed(folder, lambda n, d: [(n, bodies.get(n, d))])
    expect(
        folder,
        r"s01.rna.npy: 2 of 20 values are NaN or infinite. Fix: mend the source, or pack with --impute rna=mean",
        r"s02.rna.npy: wrong width: \[19\], the field is \[20\]",
        r"field 'rna': differing widths: 20 \(first in 's00'\), 19 \(first in 's02'\)",
    )


def test_undecodable_image_bad_text_and_empty_text(folder: Path) -> None:
    bodies = {
        "s00.image.png": png(1)[:300],
        "s01.report.txt": b"caf\xe9",
        "s02.report.txt": b"  \n",
        "s03.meta.json": b"{",
    }
    resealed(folder, lambda n, d: [(n, bodies.get(n, d))])
    expect(
        folder,
        r"s00.image.png: cannot be decoded as png",
        r"s01.report.txt: cannot be decoded as txt: 'utf-8' codec",
        r"s02.report.txt: empty text. Fix: drop the member",
        r"s03.meta.json: cannot be decoded as json",
    )


def test_gene_names(folder: Path, tmp_path: Path) -> None:
    edit(folder, "vocab/rna.txt", "GENE4\n", "GENE5\n")
    (tmp_path / "known.txt").write_text("\n".join(f"GENE{i}" for i in range(18)))
    expect(
        folder,
        "vocabulary of 'rna': 1 names stand twice: GENE5",
        "vocab/rna.txt: vocabulary hash mismatch: not the names that 'rna' was packed with",
        "vocabulary of 'rna': 2 of 20 names are unknown to known.txt: GENE18, GENE19",
        reference={"rna": tmp_path / "known.txt"},
    )


def test_vocabulary_of_another_width(folder: Path) -> None:
    (folder / "vocab/rna.txt").write_text("GENE0\nGENE1\n")
    expect(
        folder,
        "vocab/rna.txt: vocabulary hash mismatch: changed since the data set was sealed",
        "vocab/rna.txt: 2 names for 20 columns of 'rna'",
        "not the names that 'rna' was packed with",
    )


def test_patient_in_two_splits(folder: Path) -> None:
    text = (folder / "splits.csv").read_text()
    train = re.search(r"(s\d+),(p\d+),train", text)
    test = re.search(r"(s\d+),(p\d+),test", text)
    assert train
    assert test
    edit(folder, "splits.csv", test[0], f"{test[1]},{train[2]},test")
    expect(
        folder,
        f"splits: patient '{train[2]}' is in test and train",
        "dataset.json: says 20 patients, splits.csv has 19",
        f"{test[1]}.meta.json: patient '{test[2]}', splits.csv says '{train[2]}'",
    )


def test_empty_split_and_unknown_split(folder: Path) -> None:
    edit(folder, "splits.csv", ",test\n", ",holdout\n", 1)
    edit(folder, "splits.csv", ",test\n", ",val\n", -1)
    expect(
        folder,
        "split 'holdout'. Fix: one of train, val, test",
        "split 'test' is empty. Fix: run `python -m shards split`",
        "split 'val' has 3 samples, dataset.json says 2",
    )


def test_edited_side_file(folder: Path) -> None:
    path = folder / "splits.csv"
    path.write_text(path.read_text() + "\n")
    expect(
        folder,
        r"splits.csv: hash mismatch: changed since the data set was sealed. Fix: restore it; if the change is meant",
    )


def test_splits_that_list_other_samples(folder: Path) -> None:
    edit(folder, "splits.csv", "s05,", "x05,")
    expect(
        folder,
        r"does not list the samples of the shards: 1 not in it, 1 in no shard \(s05, x05\)",
        "labels.csv: lists other samples than splits.csv",
    )


def test_label_outside_its_classes(folder: Path) -> None:
    edit(folder, "labels.csv", "LUAD", "11")
    edit(folder, "labels.csv", "\ns04,54,", "\ns04,old,")
    expect(
        folder,
        "label 'subtype' is '11', not one of its classes LUAD, LUSC",
        "sample 's04': label 'age' is 'old', not a number",
    )


def test_a_class_that_no_sample_has(folder: Path) -> None:
    info = load_info(folder)
    name, label = next((n, one) for n, one in info.labels.items() if one.classes)
    rows, wider = read_rows(folder, info.labels), label.model_copy(update={"classes": (*label.classes, "never")})
    assert not [*counts(info, rows, True)]
    problems = counts(info.model_copy(update={"labels": info.labels | {name: wider}}), rows, True)
    assert [p.what for p in problems] == [f"lists classes of label '{name}' without a sample: never"]


def test_label_that_contradicts_meta(folder: Path) -> None:
    edit(folder, "labels.csv", "\ns04,54,", "\ns04,55,")
    expect(folder, r"s04.meta.json: label 'age' is '54.0', labels.csv says '55'")


def test_edited_dataset_json_still_reports_bad_tars(folder: Path) -> None:
    path = folder / "dataset.json"
    path.write_text(path.read_text().replace('"samples": 20', '"samples": 21'))
    tar = folder / "shard-000002.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    expect(folder, "the fingerprint is not that of the content", "shard-000002.tar.*truncated")


def test_no_data_set_at_all(tmp_path: Path) -> None:
    expect(tmp_path, "no dataset.json. Fix: give the folder")


def test_constant_genes_are_a_warning_and_twins_a_problem(tmp_path: Path) -> None:
    made = sources(tmp_path / "in", count=12)
    for values in made.expression.values():
        values[7] = "1.5"
    for i, row in enumerate(made.rows):
        row["split"] = "test" if i > 8 else "train"
    made.rows[10]["field:image"] = "p2.png"
    made.rows[4]["field:image"] = "p3.png"  # both for training: no leak
    twins = r"1 x the same 'image' under different patients in different splits: s02 \(p02, train\) = s10 \(p10, test\)"
    report = expect(made.pack(tmp_path / "set"), twins)
    text = "\n".join(map(str, report.warnings))
    assert "field 'rna': 1 of 20 features are constant over the training split" in text
    assert "no val split" in text


@pytest.mark.parametrize(("drawn", "twins"), [(0, False), (1, True)])
def test_masks_with_nothing_on_them_are_no_twins(tmp_path: Path, drawn: int, twins: bool) -> None:
    made = sources(tmp_path / "in", count=12)
    mask = np.zeros((16, 16), np.uint8)
    mask[2:5, 3:6] = drawn
    Image.fromarray(mask).save(made.manifest.parent / "mask.png")
    for i, row in enumerate(made.rows):
        row["split"] = "test" if i > 8 else "train"
        row["field:mask"] = "mask.png" if i in (1, 10) and row["field:image"] else ""
    report = expect(made.pack(tmp_path / "set"))
    assert ("have the same 'mask'" in "\n".join(map(str, report.warnings))) == twins


def yes_no(folder: Path, width: int, patients: int, seed: int, twin: bool) -> str:
    """Warnings for vectors of yes and no, one a patient, drawn at random; `twin`: the first and the last have the same."""
    rng = np.random.default_rng(seed)
    drawn_ND = rng.random((patients, width)) < rng.uniform(0.05, 0.5, width)
    if twin:
        drawn_ND[-1] = drawn_ND[0]
        drawn_ND[0, 0], drawn_ND[-1, 0] = True, True
    members = []
    for i, row in enumerate(drawn_ND.astype(np.int8)):
        meta = json.dumps({"patient": f"p{i}"}).encode()
        members += [(f"k{i}.meta.json", meta), (f"k{i}.burden.npy", npy_bytes(row))]
    folder.mkdir()
    tar_of(folder / "x.tar", members)
    splits = [f"k{i},p{i},{'test' if i % 4 == 3 else 'train'}" for i in range(patients)]
    (folder / "splits.csv").write_text("\n".join(["sample,patient,split", *splits]) + "\n")
    adopt(folder)
    return str(lint(folder))


@pytest.mark.parametrize("width", [2, 3, 8, 16])
def test_equal_vectors_that_are_narrow_are_no_twins(tmp_path: Path, width: int) -> None:
    for seed in range(3):
        assert "have the same" not in yes_no(tmp_path / str(seed), width, 60, seed, twin=False)


def test_equal_vectors_that_are_wide_are_twins(tmp_path: Path) -> None:
    for seed in range(3):
        text = yes_no(tmp_path / str(seed), 80, 60, seed, twin=True)
        assert "1 pairs of patients in different splits have the same 'burden', such as k0 and k59" in text


def test_everything_is_found_in_one_pass(folder: Path) -> None:
    edit(folder, "labels.csv", "LUAD", "11")
    edit(folder, "splits.csv", "s05,", "x05,")
    resealed(folder, replaced("s02.report.txt", b""))
    (folder / "shard-000002.tar").unlink()
    (folder / "vocab/rna.txt").write_text("GENE0\n")
    text = str(lint(folder))
    for part in (
        "not one of its classes",
        "does not list the samples",
        "empty text",
        "shard-000002.tar: missing",
        "hash mismatch",
        "1 names for 20",
    ):
        assert part in text


# ------------------------------------------------------------------------------------------------------ adopting tars


def foreign(folder: Path, patients: bool = True) -> Path:
    folder.mkdir()
    for part in range(2):
        members = []
        for i in range(part * 4, part * 4 + 4):
            meta = {"labels": {"y": "ab"[i % 2], "age": 40 + i}} | ({"patient": f"p{i}"} if patients else {})
            members += [
                (f"k{i}.rna.npy", npy_bytes(np.full(5, i, np.float16))),
                (f"k{i}.image.png", png(i)),
                (f"k{i}.meta.json", json.dumps(meta).encode()),
            ]
        tar_of(folder / f"part-{part}.tar", members)
    return folder


def test_adopted_tars_are_not_rewritten_and_lint_clean(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs")
    before = snapshot(folder)
    info = adopt(folder, titles=Titles(licence="CC0"))
    assert {n: d for n, d in snapshot(folder).items() if n in before} == before
    assert (info.samples, info.patients, info.splits) == (8, 8, {"train": 8})
    assert info.labels["y"].classes == ("a", "b")
    report = expect(folder)
    assert any("no val and no test split" in str(w) for w in report.warnings)
    assert adopt(folder).model_dump() == info.model_dump()


def test_adoption_keeps_splits_and_refuses_ones_that_do_not_fit(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs")
    lines = [f"k{i},p{i},{'test' if i > 5 else 'train'}" for i in range(8)]
    (folder / "splits.csv").write_text("\n".join(["sample,patient,split", *lines]) + "\n")
    assert adopt(folder).splits == {"train": 6, "test": 2}
    (folder / "splits.csv").write_text("\n".join(["sample,patient,split", *lines[:-1], "k9,p9,test"]) + "\n")
    with pytest.raises(
        DataError, match=r"1 samples of the shards are not in it: k7[\s\S]*1 of its samples are in no shard: k9"
    ):
        adopt(folder)


def test_adoption_needs_patients(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs", patients=False)
    before = snapshot(folder)
    with pytest.raises(
        DataError,
        match=r"8 problems of 1 kind .*:[\s\S]*part-0.tar: k0.meta.json: sample 'k0' has no patient. Fix: .*--patient-from-key",
    ):
        adopt(folder)
    assert snapshot(folder) == before
    assert adopt(folder, patient_from_key=True).patients == 8


def test_adoption_finds_the_same_key_in_two_shards(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "theirs")
    (folder / "part-2.tar").write_bytes((folder / "part-0.tar").read_bytes())
    with pytest.raises(DataError, match=r"part-2.tar: key 'k0' is also in part-0.tar"):
        adopt(folder)
