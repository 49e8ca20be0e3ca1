"""What is black and what is white on a DICOM film: its VOI table or window, or all that its stored bits can hold.

DICOM PS3.3, C.11.1 (modality), C.11.2 (VOI).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shards.layout.drawn import Drawing

if TYPE_CHECKING:
    from pydicom import Dataset


def has_window(data: Dataset) -> bool:
    return bool(data.get("VOILUTSequence")) or data.get("WindowWidth") is not None


def windows(data: Dataset) -> int:
    """How many windows or VOI tables the header offers."""
    if data.get("VOILUTSequence"):
        return len(data.VOILUTSequence)
    return int(data["WindowWidth"].VM)


def by_window(data: Dataset, values_HW: np.ndarray) -> np.ndarray:
    """float [H, W] from 0 to 1: the VOI table, else the window (C.11.2.1.2), the first where the header offers several."""
    if data.get("VOILUTSequence"):
        table = data.VOILUTSequence[0]
        return looked_up(data, table, values_HW) / ((1 << int(table.LUTDescriptor[2])) - 1)
    centre, width = _first(data.get("WindowCenter")), _first(data.WindowWidth)
    form = str(data.get("VOILUTFunction") or "LINEAR").upper()
    if centre is None or width is None or width <= 0 or (form == "LINEAR" and width < 1):
        raise Drawing("a window without a centre or a width")
    if form == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values_HW - centre) / width))
    if form == "LINEAR":
        centre, width = centre - 0.5, width - 1
        if width == 0:
            return (values_HW > centre).astype(np.float64)
    elif form != "LINEAR_EXACT":
        raise Drawing(f"a window of the unknown form {form}")
    return np.clip((values_HW - centre) / width + 0.5, 0, 1)


def range_of(data: Dataset) -> tuple[float, float]:
    """The least and the largest value that the stored bits can mean, after the modality's table or rescaling."""
    if data.get("ModalityLUTSequence"):
        return 0.0, float((1 << int(data.ModalityLUTSequence[0].LUTDescriptor[2])) - 1)
    stored = int(data.BitsStored)
    least = -(1 << stored - 1) if int(data.get("PixelRepresentation", 0)) else 0
    slope, intercept = rescaling(data)
    low, high = sorted((least * slope + intercept, (least + (1 << stored) - 1) * slope + intercept))
    return low, high


def rescaling(data: Dataset) -> tuple[float, float]:
    """Slope and intercept (C.11.1.1.2); a header that has one without the other rescales nothing."""
    if "RescaleSlope" in data and "RescaleIntercept" in data:
        return float(data.RescaleSlope), float(data.RescaleIntercept)
    return 1.0, 0.0


def by_bits(data: Dataset, values_HW: np.ndarray) -> np.ndarray:
    """float [H, W] from 0 to 1, of all that the stored bits can mean."""
    low, high = range_of(data)
    if low == high:
        raise Drawing("a rescaling that makes all values one (RescaleSlope)")
    return np.clip((values_HW - low) / (high - low), 0, 1)


def looked_up(data: Dataset, table: Dataset, values_HW: np.ndarray) -> np.ndarray:
    """int64 [H, W] by a table of the header; values beyond its ends become its first or last entry (C.11.1.1.1, C.11.2.1.1).

    pydicom's own looks tables of 8 bits up by 8 bits, so that of 4,096 entries it reads 256.
    """
    count, first, bits = (int(v) for v in table.LUTDescriptor)
    count = count or 1 << 16
    first -= 1 << 16 if first >= 1 << 15 and values_HW.min() < 0 else 0  # written without its sign
    stored = table.LUTData
    if isinstance(stored, bytes):
        half = bits <= 8 and len(stored) < 2 * count  # a byte an entry
        word = "<u2" if data.file_meta.TransferSyntaxUID.is_little_endian else ">u2"
        entries_N = np.frombuffer(stored[: len(stored) // 2 * 2], np.uint8 if half else word)
    else:
        entries_N = np.atleast_1d(np.asarray(stored)) & 0xFFFF
    if len(entries_N) < count or entries_N[:count].max() >> bits:
        raise Drawing("a table that is shorter, or of more bits, than its LUTDescriptor says")
    place_HW = np.clip(np.round(values_HW).astype(np.int64) - first, 0, count - 1)
    return entries_N[place_HW].astype(np.int64)


def _first(value: object) -> float | None:
    values = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]  # type: ignore[call-overload]
    return float(str(values[0])) if values and values[0] is not None else None
