"""What the stored values of a DICOM film mean (PS3.3, C.11.1, C.11.2, C.7.6.3, C.7.5.1.1.2): modality, window or VOI table, padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shards.layout.drawn import Drawing

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass
class Pixels:
    """uint8 or uint16 [H, W]; `inverse`: dark is high, to be turned over when the bits of all films are known."""

    values_HW: np.ndarray
    windowed: bool
    inverse: bool = False
    padding_HW: np.ndarray | None = None


def pixels_of(data: Dataset, window: bool) -> Pixels:
    """The film as it is looked at, with its window or VOI table where `window` asks for it.

    Raises:
        Drawing: pixels that cannot be decoded or mean nothing that a grey picture can hold.
    """
    stored_HW = _decoded(data)
    values_HW = _by_modality(data, stored_HW)
    inverse = data.PhotometricInterpretation == "MONOCHROME1"
    padding_HW = _padding(data, stored_HW)
    known = values_HW if padding_HW is None else values_HW[~padding_HW]
    if window and has_window(data):
        bright_HW = _windowed(data, values_HW)
        shown = bright_HW if padding_HW is None else bright_HW[~padding_HW]
        if known.size and known.min() < known.max() and shown.min() == shown.max():
            raise Drawing("a window or VOI table that all values lie outside of (--window none leaves it out)")
        top = 255 if int(data.BitsStored) <= 8 else 65535
        bright_HW = np.round((1 - bright_HW if inverse else bright_HW) * top)
        return Pixels(bright_HW.astype(np.uint8 if top == 255 else np.uint16), True, padding_HW=padding_HW)
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if low < 0 or high > 65535 or (known != np.round(known)).any():
        why = "its window is left out" if has_window(data) else "no window in use"
        raise Drawing(f"values below 0, over 65535 or with fractions, and {why}")
    if int(data.BitsStored) < 8:
        raise Drawing("values of fewer than 8 bits (BitsStored), which 8 bits show too dark, and no window in use")
    dtype = np.uint8 if int(data.BitsStored) <= 8 and high <= 255 else np.uint16
    kept_HW = values_HW if padding_HW is None else np.where(padding_HW, 0, values_HW)
    return Pixels(kept_HW.astype(dtype), False, inverse, padding_HW)


def has_window(data: Dataset) -> bool:
    return bool(data.get("VOILUTSequence")) or data.get("WindowWidth") is not None


def _decoded(data: Dataset) -> np.ndarray:
    """Stored values [H, W], of the bits that the header says are stored."""
    from pydicom.pixels import pixel_array

    try:
        pixels_HW = np.asarray(pixel_array(data))
        if _is_deeper(data, pixels_HW):
            raise Drawing("values that need more bits than the header says are stored (BitsStored)")
    except Drawing:
        raise
    except Exception as e:  # decoders of several packages, each with errors of its own
        name = data.file_meta.TransferSyntaxUID.name
        raise Drawing(
            f"pixels that cannot be decoded ({name}): damaged, or of a form that no decoder here reads"
        ) from e
    if pixels_HW.ndim != 2:
        raise Drawing(f"pixels of shape {pixels_HW.shape}")
    return np.array(pixels_HW)


def _is_deeper(data: Dataset, pixels_HW: np.ndarray) -> bool:
    """Whether values need more bits than are stored: by the unused bits where all lie open, else by the values decoded."""
    from pydicom.pixels import pixel_array

    bits, signed = int(data.BitsStored), int(data.PixelRepresentation) == 1
    if data.file_meta.TransferSyntaxUID.is_compressed:
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return bool(pixels_HW.min() < low or pixels_HW.max() > high)
    if int(data.BitsAllocated) <= bits or any(e.tag.group & 0xFF00 == 0x6000 and e.tag.element == 0x0102 for e in data):
        return False
    whole_HW = pixel_array(data, correct_unused_bits=False)
    # Negative values are written with the bits above them all set, or none.
    return not np.array_equal(whole_HW, pixels_HW) and not (signed and not (whole_HW >> bits).any())


def _by_modality(data: Dataset, stored_HW: np.ndarray) -> np.ndarray:
    """Values by the modality's table, else by its rescaling (C.11.1.1)."""
    if data.get("ModalityLUTSequence"):
        return _looked_up(data, data.ModalityLUTSequence[0], stored_HW)
    if "RescaleSlope" in data and "RescaleIntercept" in data:
        return stored_HW * float(data.RescaleSlope) + float(data.RescaleIntercept)
    return stored_HW


def _looked_up(data: Dataset, table: Dataset, values_HW: np.ndarray) -> np.ndarray:
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


def _padding(data: Dataset, stored_HW: np.ndarray) -> np.ndarray | None:
    """Where the film is padded (C.7.5.1.1.2), by stored values; None where it is not said."""
    if (value := data.get("PixelPaddingValue")) is None:
        return None
    limit = data.get("PixelPaddingRangeLimit")
    low, high = sorted(_signed(data, int(v)) for v in (value, value if limit is None else limit))
    padding_HW = (stored_HW >= low) & (stored_HW <= high)
    return padding_HW if padding_HW.any() else None


def _signed(data: Dataset, value: int) -> int:
    """A padding value as the pixels have it: many programs write that of signed pixels without its sign."""
    over = int(data.PixelRepresentation) == 1 and value >= 1 << int(data.BitsAllocated) - 1
    return value - (1 << int(data.BitsAllocated)) if over else value


def _windowed(data: Dataset, values_HW: np.ndarray) -> np.ndarray:
    """float [H, W] from 0 to 1: the VOI table, else the window (C.11.2.1.2), the first where the header offers several."""
    if data.get("VOILUTSequence"):
        table = data.VOILUTSequence[0]
        return _looked_up(data, table, values_HW) / ((1 << int(table.LUTDescriptor[2])) - 1)
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


def windows_of(data: Dataset) -> int:
    """How many windows or VOI tables the header offers."""
    if data.get("VOILUTSequence"):
        return len(data.VOILUTSequence)
    return int(data["WindowWidth"].VM)


def _first(value: object) -> float | None:
    values = list(value) if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]  # type: ignore[call-overload]
    return float(str(values[0])) if values and values[0] is not None else None
