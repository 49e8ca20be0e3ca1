"""Patients as numbers, for losses that must know which samples of a batch are of one person."""

from __future__ import annotations

import hashlib

import numpy as np


def patient_number(patient: str) -> np.ndarray:
    """A number a patient, int64 [], the same on every machine."""
    digest = hashlib.blake2b(patient.encode(), digest_size=8).digest()
    return np.array(int.from_bytes(digest, "little", signed=True), np.int64)
