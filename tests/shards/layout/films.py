"""DICOM films for tests, with headers full of what must not enter a data set."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, generate_uid

# What people's names, dates and numbers look like in a shard that should not hold them.
SECRETS = (
    b"Doe^Jane",
    b"19470203",
    b"MRN-77812",
    b"St. Mary",
    b"20210405",
    b"081530",
    b"Dr^House",
    b"ACC-4711",
    b"note to self",
)


def film(
    path: Path,
    stored_HW: np.ndarray,
    bits: int = 12,
    kind: str = "MONOCHROME2",
    syntax: UID = ExplicitVRLittleEndian,
    **header: object,
) -> Path:
    """Writes a film of stored values; `header` sets or replaces elements by keyword."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1")
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    meta.TransferSyntaxUID = syntax
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientBirthDate, data.PatientID = "Doe^Jane", "19470203", "MRN-77812"
    data.InstitutionName, data.StudyDate, data.StudyTime = "St. Mary", "20210405", "081530"
    data.ReferringPhysicianName, data.AccessionNumber, data.ImageComments = "Dr^House", "ACC-4711", "note to self"
    data.Modality, data.ViewPosition, data.PatientSex = "DX", "PA", "F"
    data.Rows, data.Columns = stored_HW.shape[:2]
    data.SamplesPerPixel = 1 if stored_HW.ndim == 2 else 3
    data.PhotometricInterpretation = kind
    data.BitsAllocated = 8 if stored_HW.dtype.itemsize == 1 else 16
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(stored_HW.dtype.kind == "i")
    data.PixelData = _coded(stored_HW, syntax)
    for keyword, value in header.items():
        setattr(data, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def _coded(stored_HW: np.ndarray, syntax: UID) -> bytes:
    if not syntax.is_compressed:
        return stored_HW.tobytes()
    out = io.BytesIO()
    if syntax == JPEGBaseline8Bit:
        Image.fromarray(stored_HW).save(out, "JPEG", quality=95)
    else:
        assert syntax == JPEG2000Lossless
        Image.fromarray(stored_HW).save(out, "JPEG2000", irreversible=False, no_jp2=True)
    return encapsulate([out.getvalue()])


def grey(seed: int, bits: int = 12, side: int = 16) -> np.ndarray:
    """Random stored values that use all of the bits."""
    values = np.random.default_rng(seed).integers(0, 1 << bits, (side, side))
    values[0, :2] = 0, (1 << bits) - 1
    return values.astype(np.uint8 if bits <= 8 else np.uint16)
