"""What the stored values of a DICOM film mean (PS3.3, C.11.1, C.11.2, C.7.6.3, C.7.5.1.1.2): modality, window or VOI table, padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shards.layout.drawn import Drawing
from shards.layout.film_window import by_bits, by_window, has_window, looked_up, rescaling

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER, STORED, NONE = "header", "stored", "none"
"""What makes black and white: each film's window or VOI table, the bits that it stores, or nothing: values as they are."""


@dataclass
class Pixels:
    """uint8 or uint16 [H, W]; `windowed`: spread by a window or by the stored bits; `inverse`: dark is high, to be turned over when the
    bits of all films are known."""

    values_HW: np.ndarray
    windowed: bool
    inverse: bool = False
    padding_HW: np.ndarray | None = None
    top: float = 0
    """The largest value that is no padding, before a window or bits spread it."""


def pixels_of(data: Dataset, window: str) -> Pixels:
    """The film as it is looked at: by its window where `window` is HEADER and it has one, by its stored bits where STORED.

    Raises:
        Drawing: pixels that cannot be decoded or mean nothing that a grey picture can hold.
    """
    stored_HW = _decoded(data)
    values_HW = _by_modality(data, stored_HW)
    inverse = data.PhotometricInterpretation == "MONOCHROME1"
    padding_HW = _padding(data, stored_HW)
    known = values_HW if padding_HW is None else values_HW[~padding_HW]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if window == STORED or (window == HEADER and has_window(data)):
        bright_HW = by_bits(data, values_HW) if window == STORED else by_window(data, values_HW)
        shown = bright_HW if padding_HW is None else bright_HW[~padding_HW]
        if window == HEADER and low < high and shown.min() == shown.max():
            raise Drawing("a window or VOI table that all values lie outside of (--window none leaves it out)")
        top = 255 if int(data.BitsStored) <= 8 else 65535
        bright_HW = np.round((1 - bright_HW if inverse else bright_HW) * top)
        return Pixels(bright_HW.astype(np.uint8 if top == 255 else np.uint16), True, False, padding_HW, high)
    if low < 0 or high > 65535 or (known != np.round(known)).any():
        why = "its window is left out" if has_window(data) else "no window in use"
        raise Drawing(f"values below 0, over 65535 or with fractions, and {why}")
    if int(data.BitsStored) < 8:
        raise Drawing("values of fewer than 8 bits (BitsStored), which 8 bits show too dark, and no window in use")
    dtype = np.uint8 if int(data.BitsStored) <= 8 and high <= 255 else np.uint16
    kept_HW = values_HW if padding_HW is None else np.where(padding_HW, 0, values_HW)
    return Pixels(kept_HW.astype(dtype), False, inverse, padding_HW, high)


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
        return looked_up(data, data.ModalityLUTSequence[0], stored_HW)
    slope, intercept = rescaling(data)
    return stored_HW if (slope, intercept) == (1.0, 0.0) else stored_HW * slope + intercept


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
