"""What a TCGA barcode says of a tissue sample and of a slide.

Sample types: https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/ ; slides are DX (diagnostic, formalin-fixed) or frozen sections:
TS, MS, BS (top, middle, bottom of the portion that was sequenced).
"""

from __future__ import annotations

import re

CASE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}")
SAMPLE = re.compile(r"TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}-(\d{2})")
SECTION = re.compile(SAMPLE.pattern + r"[A-Z]?-\d{2}-(DX|TS|MS|BS)([0-9A-Z]*)")
TUMOURS = range(1, 10)  # 01-09; 10-19 are normal tissue, 20 and over controls
NORMAL = range(10, 20)


def sample_type(name: str) -> int | None:
    """01 of TCGA-05-4244-01Z-00-DX1; None where the name stops at the case."""
    found = SAMPLE.match(name)
    return int(found[1]) if found else None


def no_tumour(name: str) -> str | None:
    """Why a sample does not stand for its patient's tumour: no barcode, or of another tissue."""
    if not CASE.match(name):
        return "not a TCGA barcode"
    kind = sample_type(name)
    if kind is None or kind in TUMOURS:
        return None
    return "normal tissue, not tumour" if kind in NORMAL else f"sample type {kind:02d}, not tumour"


def section(name: str) -> tuple[str, int] | None:
    """('DX', 1) of a first diagnostic slide; numbers that are none come last."""
    found = SECTION.match(name)
    if not found:
        return None
    return found[2], int(found[3]) if found[3].isdecimal() else 99


def no_diagnostic_slide(name: str) -> str | None:
    """Why a slide is not one of the patient's diagnostic ones of the tumour."""
    if why := no_tumour(name):
        return why
    kind = section(name)
    return (
        f"frozen section ({kind[0]}), not a diagnostic slide (--frozen takes them)"
        if kind and kind[0] != "DX"
        else None
    )
