"""Bags of patch features as their owner has them (arrays, files of TRIDENT, CLAM and others) -> rows as the run's data set stored them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import h5py
import numpy as np

from models.contract import Field
from shards.errors import bad
from shards.format.bags import bag_shape
from shards.format.describe import HeaderError
from shards.format.meaning import disagreements
from shards.pack.dtypes import array_dtype, convert
from shards.pack.reference import Reader, parse

Bag: TypeAlias = "str | Path | np.ndarray"
FEATURES = "features"
"""The member of a file of several arrays that writers of patch features agree on."""


def rows_of(given: object, field: Field, where: str) -> np.ndarray:
    """Patch features [N, F] in the type in which the run's data set holds them.

    Raises:
        DataError: no such bag, numbers that are not finite, another width, another patch encoder than the run's.
    """
    if isinstance(given, str | Path):
        x = _of_file(str(given), field)
    else:
        x = np.asarray(given)
    if x.dtype.kind not in "fiu" or x.dtype.itemsize > 8:
        what = f"{type(given).__name__} of {x.dtype}" if x.ndim else f"a {type(given).__name__}"
        raise bad(f"{what} is no bag", where, "give an array of numbers [patches, features], or a file of one")
    return _checked(x.reshape(bag_shape(field.name, x.shape)), field, where)


def _checked(x_NF: np.ndarray, field: Field, where: str) -> np.ndarray:
    if x_NF.ndim != 2 or x_NF.shape[1] != field.width:
        what = f"an array of shape {list(x_NF.shape)}; the encoder was trained on bags [patches, {field.width}]"
        raise bad(
            what, where, f"give features [patches, {field.width}] of the patch encoder that the run was trained on"
        )
    if not len(x_NF):
        raise bad("a bag without a patch", where, "leave it out: it has nothing to encode")
    finite_N = np.isfinite(x_NF).all(1)
    if not finite_N.all():
        first, count = int(np.argmin(finite_N)), int((~finite_N).sum())
        what = f"{count} of {len(x_NF)} patches hold NaN or infinity (the first is row {first})"
        raise bad(what, where, "make these features again, or leave the rows out: bag[numpy.isfinite(bag).all(1)]")
    try:
        return np.ascontiguousarray(convert(x_NF, field.dtype or array_dtype(field.name, x_NF.dtype.name)))
    except HeaderError as e:
        raise bad(str(e), where, "give features of the patch encoder that the run was trained on") from e


def _of_file(text: str, field: Field) -> np.ndarray:
    name = text.partition("#")[0]
    if not Path(name).is_file():
        raise bad("no such file", name, "give the path of a bag, such as 'slide.h5' or 'slides.npz#NAME'")
    try:
        ref = parse(text if "#" in text else f"{text}{_member(Path(text))}", Path())
        with Reader() as reader:
            said = {k: v for one in reader.told(field.name, ref) for k, v in one.items()}
            x = reader.array(ref)
    except HeaderError as e:
        raise bad(
            str(e), name, "name what to read: 'FILE.h5#DATASET', 'FILE.npz#NAME', or give a .npy or .pt file"
        ) from e
    other = disagreements({field.name: field.meaning}, "the run", {field.name: said}, name)
    if other:
        raise bad("; ".join(p.what for p in other), name, "give the features that the run was trained on")
    return x


def _member(path: Path) -> str:
    """`#NAME` of the array to read of a file that may hold several: `features`, or the only one there is."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        try:
            with h5py.File(path, "r") as file:
                names = [n for n, v in file.items() if isinstance(v, h5py.Dataset)]
        except OSError as e:
            raise HeaderError(f"cannot be read ({e})") from e
    elif path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays.files)
    else:
        return ""
    if FEATURES not in names and len(names) != 1:
        raise HeaderError(f"holds {', '.join(names[:8]) or 'nothing'}, and none of them is called '{FEATURES}'")
    return f"#{FEATURES if FEATURES in names else names[0]}"
