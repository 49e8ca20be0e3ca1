"""What one cell of a table says: a number, or why it is none; the text of a typed value."""

from __future__ import annotations

import math
import re
import unicodedata

# Python's own `float` reads more than a table means: 3_3 as 33, digits of other scripts, inf, nan, blanks inside.
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
WITH_COMMA = re.compile(r"[+-]?[0-9]+(?:[.,' \u00a0\u202f][0-9]{3})*,[0-9]+(?:[eE][+-]?[0-9]+)?")
COMMA = "holds a comma where a number has its point (or thousands are set apart)"
COMMA_FIX = "write numbers as 61.5: in R `write.csv`, not `write.csv2`; in a spreadsheet set the language to English, then export"


def number(text: str) -> float | None:
    """The finite number that a cell holds, in ASCII digits with a decimal point, or None."""
    text = text.strip()
    if not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def has_comma(text: str) -> bool:
    """Whether a cell is a number written with a decimal comma, or with commas between thousands: one cannot tell which."""
    return WITH_COMMA.fullmatch(text.strip()) is not None


def unwritable(text: str) -> str | None:
    """Why a name (of a patient, a label, a class) cannot stand in a line of a table; None where it can."""
    for sign in text:
        if unicodedata.category(sign) in ("Cc", "Cs"):
            kind = "half of a character" if "\ud800" <= sign <= "\udfff" else "a control character"
            return f"has {kind} (U+{ord(sign):04X}) in it"
    return None


def text_of(value: object) -> str:
    """A typed cell (Parquet) as the text that a CSV would hold: whole numbers without a point, nothing for null and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def plain(name: str) -> str:
    """A column's name or a finding in one spelling: `Image Index`, `image_index` and `Image.Index` are one."""
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")
