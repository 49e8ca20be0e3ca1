"""Packing: what comes out of a manifest, and everything that is refused before anything is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from manifests import GENES, WIDTH, Sources, png, sources

from shards.errors import DataError
from shards.format.describe import HeaderError
from shards.format.info import load_info
from shards.pack.dtypes import TOLERANCE, VectorProfile, convert
from shards.pack.options import PackOptions
from shards.pack.pack import pack
from shards.pack.reference import Reader, parse
from shards.read.dataset import Dataset
from shards.read.stats import Moments


@pytest.fixture
def made(tmp_path: Path) -> Sources:
    return sources(tmp_path / "in")


def refused(made: Sources, *expected: str, options: PackOptions | None = None) -> DataError:
    """Packing raises one error that matches every pattern, with a remedy for each problem, and writes nothing."""
    out = made.folder.parent / "out"
    with pytest.raises(DataError) as caught:
        made.pack(out, options)
    text = str(caught.value)
    for pattern in expected:
        assert re.search(pattern, text), f"{pattern!r} is not in:\n{text}"
    assert all(p.fix and p.where for p in caught.value.problems)
    assert not out.exists()
    assert [p.name for p in out.parent.iterdir()] == ["in"]
    return caught.value


def test_every_field_comes_back(made: Sources, tmp_path: Path) -> None:
    with Dataset.open(made.pack(tmp_path / "out")) as data, np.load(made.folder / "bags.npz") as bags:
        rec, row = data[3], made.rows[3]
        start, stop = map(int, re.findall(r"\d+", row["field:patches"]))
        assert np.array_equal(rec.read("patches"), bags["features"][start:stop].astype(np.float16))
        assert np.array_equal(rec.read("rna"), np.array(made.expression["case3"], np.float32).astype(np.float16))
        assert rec.read("report") == row["text:report"]
        assert rec.read("image").shape == (16, 16, 3)
        assert (rec.patient, rec.labels) == ("p03", {"subtype": "LUAD", "age": 53.0})
        assert rec.read("meta")["provenance"]["rna"] == "rna.csv.gz#case3"
        assert data.vocabulary("rna") == tuple(made.genes)
        info = data.info
        assert info.fields["patches"].shape == (None, WIDTH)
        assert info.fields["rna"].shape == (GENES,)
        assert info.labels["subtype"].classes == ("LUAD", "LUSC")


def test_statistics_are_those_of_the_training_split(made: Sources, tmp_path: Path) -> None:
    made.expression = {k: [*v[:-1], "2.5"] for k, v in made.expression.items()}
    with Dataset.open(made.pack(tmp_path / "out")) as data:
        train = np.stack([data[int(i)].read("rna") for i in data.subset("train").indices]).astype(np.float64)
        stats = data.stats()
    np.testing.assert_allclose(stats["rna.mean"], train.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["rna.std"][:-1], train.std(0)[:-1], rtol=1e-5)
    assert stats["rna.std"][-1] == 1.0
    assert stats["rna.constant"].tolist() == [False] * (GENES - 1) + [True]


def test_missing_modality_is_an_empty_cell(made: Sources, tmp_path: Path) -> None:
    made.rows[2]["field:rna"] = ""
    made.rows[4]["text:report"] = ""
    with Dataset.open(made.pack(tmp_path / "out")) as data:
        assert not data[2].has("rna")
        assert not data[4].has("report")
        assert data.info.fields["rna"].count == 11


def test_missing_label_is_an_empty_cell(made: Sources, tmp_path: Path) -> None:
    made.rows[0]["label:age"], made.rows[1]["label:subtype"] = "", "NA"
    info = load_info(made.pack(tmp_path / "out"))
    assert (info.labels["age"].missing, info.labels["subtype"].missing) == (1, 1)


def test_split_column_is_taken(made: Sources, tmp_path: Path) -> None:
    for i, row in enumerate(made.rows):
        row["split"] = "test" if i < 2 else "train"
    with Dataset.open(made.pack(tmp_path / "out")) as data:
        assert data.subset("test").indices.tolist() == [0, 1]


def test_parquet_manifest_and_table(made: Sources, tmp_path: Path) -> None:
    table = {
        "case": [*made.expression],
        **{g: [float(v[i]) for v in made.expression.values()] for i, g in enumerate(made.genes)},
    }
    pq.write_table(pa.table(table), made.folder / "rna.parquet")
    for row in made.rows:
        row["field:rna"] = row["field:rna"].replace("rna.csv.gz", "rna.parquet")
    columns = list(made.rows[0])
    pq.write_table(pa.table({c: [r[c] for r in made.rows] for c in columns}), made.folder / "manifest.parquet")
    made.write()
    from_parquet, _ = pack(made.folder / "manifest.parquet", tmp_path / "a", PackOptions(name="x"))
    from_csv, _ = pack(made.manifest, tmp_path / "b", PackOptions(name="x"))
    assert from_parquet.fingerprint == from_csv.fingerprint


def test_table_with_features_as_rows(made: Sources, tmp_path: Path) -> None:
    lines = [
        ["gene", *made.expression],
        *([g, *(v[i] for v in made.expression.values())] for i, g in enumerate(made.genes)),
    ]
    (made.folder / "wide.tsv").write_text("\n".join("\t".join(line) for line in lines))
    made.pack(tmp_path / "rows")
    for row in made.rows:
        row["field:rna"] = row["field:rna"].replace("rna.csv.gz#", "wide.tsv#column:")
    with Dataset.open(tmp_path / "rows") as a, Dataset.open(made.pack(tmp_path / "columns")) as b:
        assert a.vocabulary("rna") == b.vocabulary("rna")
        assert all(np.array_equal(x.read("rna"), y.read("rna")) for x, y in zip(a, b, strict=True))


def test_h5_pt_and_npy_bags(made: Sources, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    bag, coords = rng.normal(size=(5, WIDTH)).astype(np.float32), rng.integers(0, 200_000, (5, 2))
    with h5py.File(made.folder / "slide.h5", "w") as f:
        f["features"], f["coords"] = bag, coords
    torch.save(torch.from_numpy(bag), made.folder / "slide.pt")
    np.save(made.folder / "slide.npy", bag)
    for row, ref in zip(
        made.rows, ("slide.h5#features", "slide.pt", "slide.npy", "slide.h5#features[1:3]"), strict=False
    ):
        row["field:patches"] = ref
    made.rows[0]["field:coords"] = "slide.h5#coords"
    with Dataset.open(made.pack(tmp_path / "out")) as data:
        for i in range(3):
            assert np.array_equal(data[i].read("patches"), bag.astype(np.float16))
        assert np.array_equal(data[3].read("patches"), bag[1:3].astype(np.float16))
        assert data[0].read("coords").dtype == np.int32
        assert np.array_equal(data[0].read("coords"), coords)


def test_log2p1_and_ensembl_versions(made: Sources, tmp_path: Path) -> None:
    made.genes = [f"ENSG{i:011d}.{i % 3}" for i in range(GENES)]
    made.expression = {k: [f"{abs(float(x)) * 100:.3f}" for x in v] for k, v in made.expression.items()}
    folder = made.pack(tmp_path / "out", PackOptions(transforms={"rna": "log2p1"}, strip_version=["rna"]))
    with Dataset.open(folder) as data:
        expected = np.log2(np.array(made.expression["case0"], np.float32) + 1)
        np.testing.assert_allclose(data[0].read("rna"), expected, rtol=1e-3)
        assert data.vocabulary("rna")[3] == "ENSG00000000003"


# ---------------------------------------------------------------------------------------------------------------- dtypes


def test_whole_numbers_become_int8_and_offsets_float32(made: Sources, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i, row in enumerate(made.rows):
        np.save(made.folder / f"cnv{i}.npy", rng.integers(-2, 3, 7).astype(np.float64))
        np.save(made.folder / f"far{i}.npy", 1000 + 0.1 * rng.normal(size=7))
        row["field:cnv"], row["field:far"] = f"cnv{i}.npy", f"far{i}.npy"
    fields = load_info(made.pack(tmp_path / "out")).fields
    assert (fields["cnv"].dtype, fields["far"].dtype, fields["rna"].dtype) == ("int8", "float32", "float16")
    fields = load_info(made.pack(tmp_path / "out2", PackOptions(dtypes={"rna": "float32"}))).fields
    assert fields["rna"].dtype == "float32"


def test_notes_say_which_dtype_and_why(made: Sources, tmp_path: Path) -> None:
    _, notes = pack(made.write(), tmp_path / "out")
    assert any(
        re.match(r"rna: float16 \(rounding costs no feature more than 0\.0\d% of its standard deviation\)", n)
        for n in notes
    )


@given(st.floats(-1e4, 1e4), st.floats(1e-3, 1e3))
def test_float16_is_chosen_only_where_its_error_is_small(mean: float, std: float) -> None:
    x_ND = mean + std * np.random.default_rng(0).normal(size=(64, 3))
    profile = VectorProfile(3)
    for x_D in x_ND:
        profile.add(x_D, True)
    if profile.dtype()[0] != "float16":
        assert profile.float16_error > TOLERANCE or np.abs(x_ND).max() > 65504
        return
    kept = x_ND.astype(np.float16).astype(np.float64)
    assert (np.sqrt(((kept - x_ND) ** 2).mean(0)) / x_ND.std(0)).max() <= TOLERANCE * 1.001


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([300.0], "int8", "from 300 to 300, which int8 cannot"),
        ([0.5], "int32", "fractions"),
        ([1e6], "float16", "range of float16"),
    ],
)
def test_conversions_that_lose_are_refused(values: list[float], dtype: str, message: str) -> None:
    with pytest.raises(HeaderError, match=message):
        convert(np.array(values), dtype)


def test_patches_that_float16_would_spoil(made: Sources) -> None:
    np.save(made.folder / "big.npy", 30_000 + np.random.default_rng(0).normal(size=(4, WIDTH)))
    made.rows[0]["field:patches"] = "big.npy"
    refused(made, r"s00.*'patches', big.npy: float16 would cost .* Fix: --dtype patches=float32")


# ------------------------------------------------------------------------------------------------------------- bad input


def test_all_problems_come_at_once(made: Sources) -> None:
    made.rows[0]["field:image"] = "absent.png"
    made.rows[1]["patient"] = ""
    made.rows[2]["sample"] = "../climb"
    made.rows[3]["sample"] = "s00"
    made.rows[4]["label:age"] = "old"
    made.rows[5]["field:rna"] = "rna.csv.gz#nobody"
    made.expression["case6"][4] = ""
    (made.folder / "p7.png").write_bytes(png(7)[:200])
    bag = np.zeros((3, WIDTH), np.float32)
    bag[1, 2] = np.nan
    np.save(made.folder / "nan.npy", bag)
    made.rows[8]["field:patches"] = "nan.npy"
    np.save(made.folder / "narrow.npy", np.zeros((3, WIDTH - 1), np.float32))
    made.rows[9]["field:patches"] = "narrow.npy"
    (made.folder / "bad.txt").write_bytes(b"\xff\xfe caf\xe9")
    made.rows[10] |= {"text:report": "", "field:note": "bad.txt"}
    error = refused(
        made,
        r"manifest.csv line 2 \('s00'\), field 'image', absent.png: no such file. Fix: looked at",
        r"line 3: sample 's01' has no patient. Fix: fill the patient column",
        r"line 4: sample '../climb' is not a key. Fix: .*leaves the folder",
        r"line 5: sample 's00' stands twice \(first in manifest.csv line 2\)",
        r"line 6: label 'age' is 'old', not a number like the 11 others. Fix: .*label:age:class",
        r"line 7 .* the table has no row 'nobody'",
        r"line 8 \('s06'\), field 'rna', .*: 1 of 20 values are NaN or infinite \(GENE4\). Fix: .*--impute rna=mean",
        r"line 9 \('s07'\), field 'image', p7.png: cannot be decoded as png",
        r"line 10 .*nan.npy: 1 values are NaN or infinite",
        r"field 'patches': differing widths: 8 \(first in 's00', bags.npz#features\[0:8\]\), 7 \(first in 's09', narrow.npy\)",
        r"line 12 .*bad.txt: cannot be decoded as txt",
    )
    assert len(error.problems) == 11


def test_impute_by_training_mean(made: Sources, tmp_path: Path) -> None:
    for row in made.rows:
        row["split"] = "train"
    made.rows[0]["split"] = made.rows[1]["split"] = "test"
    made.expression["case0"][4] = "NA"
    made.expression["case1"][4] = "100"  # in the test split: must not count
    with Dataset.open(made.pack(tmp_path / "out", PackOptions(impute={"rna": "mean"}))) as data:
        expected = np.mean([float(made.expression[f"case{i}"][4]) for i in range(2, 12)])
        assert data[0].read("rna")[4] == pytest.approx(expected, rel=1e-3)
    with Dataset.open(made.pack(tmp_path / "out2", PackOptions(impute={"rna": "-9"}))) as data:
        assert data[0].read("rna")[4] == -9


def test_impute_a_gene_that_is_never_known(made: Sources) -> None:
    for values in made.expression.values():
        values[0] = ""
    refused(
        made,
        r"--impute rna=mean: 1 features have no value in the training split",
        options=PackOptions(impute={"rna": "mean"}),
    )


def test_cell_that_is_no_number(made: Sources) -> None:
    made.expression["case2"][3] = "high"
    refused(made, r"rna.csv.gz line 4 \('case2'\), column 'GENE3': 'high' is not a finite number")


def test_gene_named_twice(made: Sources) -> None:
    made.genes[5] = "GENE4"
    refused(
        made, r"rna.csv.gz: 1 names stand twice: GENE4 \(columns 5, 6\). Fix: --duplicates first, mean, max or drop"
    )


def test_tables_with_other_genes(made: Sources) -> None:
    (made.folder / "other.csv").write_text(
        "case," + ",".join(f"X{i}" for i in range(GENES)) + "\ncase1," + ",".join("1" * GENES) + "\n"
    )
    made.rows[1]["field:rna"] = "other.csv#case1"
    refused(made, r"other.csv#case1: this table's features are not those of the field's first table")


def test_object_arrays_and_pickles_never_load(made: Sources, tmp_path: Path) -> None:
    trap = tmp_path / "in" / "trap"

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (trap,))

    objects = np.array([Evil()], dtype=object)
    np.save(made.folder / "objects.npy", objects, allow_pickle=True)
    np.savez(made.folder / "objects.npz", features=objects)
    torch.save(Evil(), made.folder / "evil.pt")
    for row, ref in zip(made.rows, ("objects.npy", "objects.npz#features", "evil.pt"), strict=False):
        row["field:patches"] = ref
    (made.folder / "x.pkl").write_bytes(b"x")
    made.rows[3]["field:patches"] = "x.pkl"
    refused(
        made,
        r"objects.npy: array of '\|O'",
        r"objects.npz#features: array of '\|O'",
        r"evil.pt: is not a tensor that loads without running code",
        r"line 5, field 'patches': 'x.pkl' is not a reference",
    )
    assert not trap.exists()


def test_image_bomb(made: Sources) -> None:
    header = bytearray(png(0))
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    (made.folder / "p0.png").write_bytes(bytes(header))
    refused(made, r"p0.png: .*60000 x 60000 pixels")


def test_members_and_rows_that_do_not_exist(made: Sources) -> None:
    made.rows[0]["field:patches"] = "bags.npz#nothing"
    made.rows[1]["field:patches"] = "bags.npz#features[0:100000]"
    made.rows[2]["field:patches"] = "bags.npz#features[5:5]"
    (made.folder / "broken.npz").write_bytes(b"PK\3\4 not a zip")
    made.rows[3]["field:patches"] = "broken.npz#features"
    refused(
        made,
        "has no member 'nothing'; it has features",
        "goes past the end",
        "names no rows",
        r"broken.npz#features: cannot be read",
    )


def test_bag_and_coordinates_of_different_length(made: Sources) -> None:
    np.save(made.folder / "xy.npy", np.zeros((2, 2), np.int32))
    made.rows[0]["field:coords"] = "xy.npy"
    refused(made, r"\('s00'\): \d patches but 2 coordinates")


def test_patient_in_two_splits(made: Sources) -> None:
    for row in made.rows:
        row["split"] = "train"
    made.rows[5] |= {"patient": "p04", "split": "test"}
    refused(
        made,
        "line 7: patient 'p04' is in test here and in train in manifest.csv line 6. Fix: put all samples of a patient into one",
    )


def test_a_patient_of_two_splits_who_is_written_in_two_ways(made: Sources) -> None:
    for row in made.rows:
        row["split"] = "train"
    made.rows[5] |= {"patient": "P04", "split": "test"}
    refused(
        made, "line 7: patient 'P04' is in test here and in train as 'p04' in manifest.csv line 6. Fix: put all samples"
    )


def test_splits_that_would_be_empty(tmp_path: Path) -> None:
    refused(
        sources(tmp_path / "in", count=2),
        r"--split-fractions: 2 patients cannot fill 3 splits .* \(--split-fractions 1\)",
    )


def test_column_names_that_mean_nothing(made: Sources) -> None:
    for row in made.rows:
        row["patints"] = row["pages"] = "x"
    with pytest.raises(DataError) as caught:
        made.pack(made.folder.parent / "out")
    assert re.search(r"column 'patints' means nothing. Fix: did you mean 'patient'\?", str(caught.value))
    assert "column 'pages' means nothing. Fix: columns are" in str(caught.value)


def test_a_missing_column_hides_no_wrong_path(made: Sources) -> None:
    for row in made.rows:
        del row["patient"]
        row["field:image"] = f"wrong/{row['sample']}.png"
    error = refused(made, "no column 'patient'", r"wrong/s00.png: no such file", "12 of this kind")
    assert len(error.problems) == 1 + len(made.rows)


def test_options_for_fields_that_do_not_exist(made: Sources) -> None:
    options = PackOptions(dtypes={"rma": "float16", "rna": "float12"}, impute={"genes": "mean"})
    refused(
        made,
        "--dtype: no field 'rma'. Fix: fields of this manifest: image, patches, report, rna",
        "float12",
        "--impute: no field 'genes'",
        options=options,
    )


def test_empty_report(made: Sources) -> None:
    (made.folder / "blank.txt").write_text(" \n")
    made.rows[0] |= {"text:report": "", "field:note": "blank.txt"}
    refused(made, "blank.txt: is empty")


def test_vocabulary_of_another_width(made: Sources, tmp_path: Path) -> None:
    for i, row in enumerate(made.rows):
        np.save(made.folder / f"v{i}.npy", np.arange(4.0) + i)
        row["field:burden"] = f"v{i}.npy"
    (tmp_path / "in" / "names.txt").write_text("a\nb\nc\n")
    refused(
        made,
        "field 'burden': arrays are 4 wide but the vocabulary has 3 names",
        options=PackOptions(vocab={"burden": made.folder / "names.txt"}),
    )


def test_numbers_and_words_in_one_label_column_must_be_declared(made: Sources, tmp_path: Path) -> None:
    made.rows[0]["label:age"] = "young"
    refused(made, "label 'age' is 'young', not a number like the 11 others. Fix: .*--unknown 'young'")
    for row in made.rows:
        row["label:age:class"] = row.pop("label:age")
    assert load_info(made.pack(tmp_path / "out")).labels["age"].kind == "class"


# ------------------------------------------------------------------------------------------------------------ references


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), min_size=1, max_size=8), st.booleans())
def test_rows_of_packed_bags_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, int]], compressed: bool
) -> None:
    folder = tmp_path_factory.mktemp("npz")
    array = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    (np.savez_compressed if compressed else np.savez)(folder / "b.npz", x=array)
    with Reader() as reader:
        for start, size in cuts:
            ref = parse(f"b.npz#x[{start}:{start + size}]", folder)
            assert np.array_equal(reader.array(ref), array[start : start + size])


def test_reading_a_slice_does_not_hold_the_whole_member(tmp_path: Path) -> None:
    import tracemalloc

    np.savez(tmp_path / "b.npz", x=np.zeros((80_000, 256), np.float32))  # 82 MB
    with Reader() as reader:
        tracemalloc.start()
        reader.array(parse("b.npz#x[79990:80000]", tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 30e6


def test_many_files_do_not_run_out_of_descriptors(tmp_path: Path) -> None:
    import os

    with Reader() as reader:
        for i in range(80):
            with h5py.File(tmp_path / f"{i}.h5", "w") as f:
                f["features"] = np.full((2, 3), i, np.float32)
        before = len(os.listdir("/proc/self/fd"))
        for i in range(80):
            assert reader.array(parse(f"{i}.h5#features", tmp_path))[0, 0] == i
        assert len(os.listdir("/proc/self/fd")) - before <= 40


@given(st.integers(1, 50), st.integers(1, 5))
def test_moments_equal_numpy(count: int, width: int) -> None:
    x_ND = np.random.default_rng(count).normal(3, 2, (count, width))
    moments = Moments(width)
    for x_D in x_ND:
        moments.add(x_D)
    np.testing.assert_allclose(moments.mean_D, x_ND.mean(0), rtol=1e-9)
    np.testing.assert_allclose(moments.std_D, x_ND.std(0), rtol=1e-7, atol=1e-12)


def test_meta_is_plain_json(made: Sources, tmp_path: Path) -> None:
    with Dataset.open(made.pack(tmp_path / "out")) as data:
        meta = json.loads(data.raw(0, ["meta"])[0])
    assert meta["patient"] == "p00"
    assert meta["labels"] == {"age": 50.0, "subtype": "LUSC"}
