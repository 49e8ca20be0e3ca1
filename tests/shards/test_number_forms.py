"""Numbers in unusual forms: the other byte order, columns first, half precision, sparse, quantised; read rightly or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders import npy, write_tar

from shards.check.lint import lint
from shards.errors import DataError
from shards.format.npy import read_array
from shards.pack.adopt import adopt
from shards.pack.options import PackOptions
from shards.pack.pack import pack
from shards.read.dataset import Dataset

WHOLE = np.array([[887, -3, 12], [1000, 2, 31000]])
FRACTION = np.random.default_rng(0).normal(size=(6, 3)) + 4.4


def packed(folder: Path, cells: list[str], name: str = "patches", options: PackOptions | None = None) -> Path:
    lines = [f"s{i},p{i},{'train' if i else 'test'},{c}" for i, c in enumerate(cells)]
    (folder / "m.csv").write_text(f"sample,patient,split,field:{name}\n" + "\n".join(lines) + "\n")
    pack(folder / "m.csv", folder / "out", options or PackOptions(overwrite=True))
    return folder / "out"


def refused(folder: Path, cell: str) -> str:
    with pytest.raises(DataError) as caught:
        packed(folder, [cell])
    assert not (folder / "out").exists()
    return str(caught.value)


def as_npz(folder: Path, x: np.ndarray) -> str:
    np.savez_compressed(folder / "a.npz", x=x)
    return "a.npz#x"


def as_rows(folder: Path, x: np.ndarray) -> str:
    np.savez_compressed(folder / "b.npz", x=np.concatenate([x[:1], x, x[:1]]))
    return f"b.npz#x[1:{1 + len(x)}]"


def as_npy(folder: Path, x: np.ndarray) -> str:
    np.save(folder / "a.npy", x)
    return "a.npy"


def as_h5(folder: Path, x: np.ndarray) -> str:
    with h5py.File(folder / "a.h5", "w") as f:
        f["x"] = x
    return "a.h5#x"


@pytest.mark.parametrize("form", [as_npz, as_rows, as_npy, as_h5])
@pytest.mark.parametrize("dtype", [">i2", ">i4", ">u2", ">f4", ">f8", ">f2", "<f4", "|u1"])
def test_either_byte_order_is_read(tmp_path: Path, form: Callable[[Path, np.ndarray], str], dtype: str) -> None:
    values = FRACTION if "f" in dtype else np.abs(WHOLE) % 200 if dtype == "|u1" else np.abs(WHOLE)
    cell = form(tmp_path, values.astype(dtype))
    wide = "float32" if "f" in dtype else "int32"
    with Dataset.open(
        packed(tmp_path, [cell], options=PackOptions(dtypes={"patches": wide}, fractions={"train": 1.0}))
    ) as data:
        stored = data[0].read("patches")
    assert stored.dtype == wide
    np.testing.assert_array_equal(stored, values.astype(dtype).astype(wide))
    np.testing.assert_allclose(stored, values, rtol=2e-3)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", ">f8", ">i2", "<i2", ">f2"])
def test_statistics_are_those_of_the_reader(tmp_path: Path, dtype: str) -> None:
    """In tars that somebody else made, members keep their byte order."""
    rows = (FRACTION * (1 if "f" in dtype else 100)).astype(dtype)
    members = []
    for i, row in enumerate(rows):
        members += [(f"s{i}.rna.npy", npy(row)), (f"s{i}.meta.json", json.dumps({"patient": f"p{i}"}).encode())]
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "a.tar", members)
    adopt(tmp_path / "tars")
    with Dataset.open(tmp_path / "tars") as data:
        read = np.stack([rec.read("rna") for rec in data]).astype(np.float64)
        stats = data.stats()
    np.testing.assert_array_equal(read, rows.astype(np.float64))
    np.testing.assert_allclose(stats["rna.mean"], read.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["rna.std"], read.std(0), rtol=1e-5)
    assert not lint(tmp_path / "tars").problems


def test_a_vector_s_dtype_is_chosen_by_its_numbers(tmp_path: Path) -> None:
    cells = []
    for i, row in enumerate(np.array([[1, 0, 2], [2, 2, 1], [0, 1, 0]], ">i2")):
        np.save(tmp_path / f"{i}.npy", row)
        cells.append(f"{i}.npy")
    with Dataset.open(packed(tmp_path, cells, "codes")) as data:
        assert data.info.fields["codes"].dtype == "int8"
        assert data[1].read("codes").tolist() == [2, 2, 1]


@pytest.mark.parametrize("form", [as_npz, as_npy])
def test_columns_first_is_read_whole(tmp_path: Path, form: Callable[[Path, np.ndarray], str]) -> None:
    cell = form(tmp_path, np.asfortranarray(FRACTION.astype(np.float32)))
    options = PackOptions(dtypes={"patches": "float32"})
    with Dataset.open(packed(tmp_path, [cell, cell], options=options)) as data:
        np.testing.assert_array_equal(data[0].read("patches"), FRACTION.astype(np.float32))
        np.testing.assert_array_equal(data[0].rows("patches", 1, 3), FRACTION[1:3].astype(np.float32))


def test_rows_of_columns_first_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.asfortranarray(FRACTION))
    assert "is in Fortran order, so no rows can be read alone: store np.ascontiguousarray" in refused(
        tmp_path, "a.npz#x[0:2]"
    )


def test_columns_first_in_tars_names_its_remedy(tmp_path: Path) -> None:
    members = [("s.patches.npy", npy(np.asfortranarray(FRACTION))), ("s.meta.json", b'{"patient": "p"}')]
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"Fortran order, .* Fix: store np.ascontiguousarray of it"):
        adopt(tmp_path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 2), ">c8"), "no complex ones: store what you need of them"),
        (np.array([[1, None]], object), "neither objects nor text nor records"),
        (np.array([["a"]]), "neither objects nor text nor records"),
        (np.ones((2, 2), np.longdouble), "long doubles differ from machine to machine"),
        (np.full((2, 2), np.inf, np.float16), "4 values are NaN or infinite"),
        (np.full((2, 2), 70_000, ">f4"), "over the range of float16"),
    ],
)
@pytest.mark.parametrize("form", [as_npz, as_npy])
def test_what_is_no_plain_number_is_refused(
    tmp_path: Path, array: np.ndarray, message: str, form: Callable[[Path, np.ndarray], str]
) -> None:
    assert message in refused(tmp_path, form(tmp_path, array))


def test_complex_numbers_in_hdf5(tmp_path: Path) -> None:
    assert "no complex ones" in refused(tmp_path, as_h5(tmp_path, np.ones((2, 2), np.complex64)))


# ---------------------------------------------------------------------------------------------------------- files of torch.save


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(3, 2).requires_grad_(),
        torch.nn.Parameter(torch.arange(6.0).reshape(3, 2)),
        torch.arange(6).reshape(3, 2).bfloat16(),
        torch.arange(6).reshape(3, 2).half(),
        torch.arange(6).reshape(2, 3).T,
        torch.arange(12).reshape(6, 2)[::2],
        torch.complex(torch.zeros(3, 2), torch.arange(6.0).reshape(3, 2)).conj().imag,
    ],
    ids=["grad", "parameter", "bfloat16", "float16", "transposed", "strided", "negated view"],
)
def test_tensors_of_every_plain_kind(tmp_path: Path, tensor: torch.Tensor) -> None:
    torch.save(tensor, tmp_path / "a.pt")
    with Dataset.open(packed(tmp_path, ["a.pt", "a.pt"])) as data:
        np.testing.assert_array_equal(data[0].read("patches"), tensor.detach().double().numpy())


def test_old_files_of_torch(tmp_path: Path) -> None:
    torch.save(torch.ones(3, 2), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with Dataset.open(packed(tmp_path, ["a.pt", "a.pt"])) as data:
        assert data[0].read("patches").tolist() == [[1, 1]] * 3


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (torch.eye(3).to_sparse(), r"a sparse tensor .* Fix: store it dense: torch.save\(x.to_dense\(\)"),
        (torch.quantize_per_tensor(torch.ones(3, 2), 0.1, 0, torch.qint8), "a quantised tensor .*dequantize"),
        (torch.ones(3, 2, dtype=torch.complex64), "complex numbers .*x.abs"),
        (torch.ones(3, 2).to(torch.float8_e4m3fn), "mean nothing without their scale"),
        ([torch.ones(3, 2)], "holds a list, not a tensor"),
        ({"a": 1}, "holds a dict without a tensor"),
        ({"a": torch.ones(3, 2), "b": torch.ones(1)}, r"holds a dictionary \(a, b\). Fix: name the tensor: a.pt#a"),
        (torch.full((3, 2), torch.inf), "6 values are NaN or infinite"),
    ],
    ids=["sparse", "quantised", "complex", "float8", "list", "numbers", "dictionary", "infinite"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_array(tmp_path: Path, saved: object, message: str) -> None:
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(DataError, match=message):
        packed(tmp_path, ["a.pt"])


def test_a_tensor_of_a_dictionary_by_name(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3, 2), "feats": torch.arange(6.0).reshape(3, 2)}, tmp_path / "a.pt")
    with Dataset.open(packed(tmp_path, ["a.pt#feats", "a.pt#feats[1:3]"])) as data:
        assert data[0].read("patches").tolist() == [[0, 1], [2, 3], [4, 5]]
        assert data[1].read("patches").tolist() == [[2, 3], [4, 5]]
    with pytest.raises(DataError, match="has no member 'b'; it has a, feats"):
        packed(tmp_path, ["a.pt#b"])


def test_dtypes_of_a_field_differ_until_one_is_asked_for(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FRACTION.astype(np.float32))
    np.save(tmp_path / "b.npy", FRACTION.astype(np.float16))
    with pytest.raises(
        DataError, match=r"differing dtypes: float32 \(first in 's0', a.npy\), float16 \(first in 's1', b.npy\)"
    ):
        packed(tmp_path, ["a.npy", "b.npy"])
    out = packed(tmp_path, ["a.npy", "b.npy"], options=PackOptions(dtypes={"patches": "float16"}))
    assert Dataset.open(out).info.fields["patches"].dtype == "float16"


def test_both_orders_are_one_dtype(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FRACTION.astype("<f4"))
    np.save(tmp_path / "b.npy", FRACTION.astype(">f4"))
    with Dataset.open(packed(tmp_path, ["a.npy", "b.npy"])) as data:
        np.testing.assert_array_equal(data[0].read("patches"), data[1].read("patches"))


def test_an_empty_shape_or_a_lie_about_it(tmp_path: Path) -> None:
    whole = npy(FRACTION.astype(">f4"))
    (tmp_path / "cut.npy").write_bytes(whole[:-4])
    assert "the header claims >f4 [6, 3]" in refused(tmp_path, "cut.npy")
    assert read_array(whole).dtype == np.float32
