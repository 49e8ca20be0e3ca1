"""One form for the name of a person, a sample and a chromosome, by which every join, split and leak check compares.

The same person is `p10000032` in a folder, `10000032` in a table, `10000032.0` where a data frame once had a gap, and `TCGA.05.4244.01A`
where R has been. Names are stored as they were written; they are compared in the form made here:

    blanks, width     Unicode NFKC; blanks around, runs of blanks inside, zero-width marks, typographic dashes
    case              not told apart
    file endings      case.svs, 1000.png: the name without
    barcodes          of TCGA, TARGET, GTEx and CPTAC: the part that names the person, dots and underscores as dashes
    numbers           with `p`, `patient`, `subject` or `sub` before them: without; leading zeros and `.0` cut

What a table makes of a form that two of its names share is said (people of a split) or refused (a key that decides a value).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

SHOWN = 3

# The first parts name the person: TCGA's case (https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/), TARGET's USI, GTEx's
# donor, CPTAC's case.
_BARCODES = (
    re.compile(r"(tcga)[-._ ]([a-z0-9]{2})[-._ ]([a-z0-9]{4})(?![a-z0-9])"),
    re.compile(r"(target)[-._ ](\d{2})[-._ ]([a-z0-9]{6})(?![a-z0-9])"),
    re.compile(r"(gtex)[-._ ]([a-z0-9]{4,5})(?![a-z0-9])"),
    re.compile(r"(c3[ln])[-._ ](\d{5})(?!\d)"),
)
_MARKS = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"))
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_ENDING = re.compile(r"\.(?:svs|ndpi|mrxs|scn|tiff?|jpe?g|png|bmp|dcm|nii|nii\.gz|h5|hdf5|pt|npy|npz|txt)$")
_NUMBER = re.compile(r"(?:(?:p|patient|subject|sub)[ _-]*)?(\d+)(?:\.0+)?")
_DECIMAL = re.compile(r"\d+\.0+")
_DATE = re.compile(r"\d{1,2}-(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)(?:-\d{2,4})?")
_SCIENTIFIC = re.compile(r"\d(?:\.\d+)?e\+\d+")
_TWICE = re.compile(r"(.+)_\1")


def written(name: object) -> str:
    """The name without what cannot be seen: blanks around, zero-width marks, forms of the same letter, kinds of dashes."""
    text = str(name)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_MARKS).translate(_DASHES)
    return " ".join(text.split())


# Names that are their own form, by far most of them: whole numbers, and words that begin with no prefix or barcode.
PLAIN = r"(?:[1-9][0-9]*|[abd-fh-oqru-z_][a-z0-9_-]*)"
_PLAIN = re.compile(PLAIN)
APART = (PLAIN, r"p[1-9][0-9]*", r"TCGA-[0-9A-Z]{2}-[0-9A-Z]{4}")
"""Patterns of which each makes people of one spelling alone: names that all match the same one are as many people."""


def person(name: str) -> str:
    """The form of a person's name: equal for two spellings of one person, '' for a name of blanks."""
    return name if _PLAIN.fullmatch(name) else _person(name)


@lru_cache(maxsize=1 << 12)
def _person(name: str) -> str:
    text = _ENDING.sub("", written(name).casefold())
    if number := _NUMBER.fullmatch(text):
        return number[1].lstrip("0") or "0"
    found = next((m for pattern in _BARCODES if (m := pattern.match(text))), None)
    return "-".join(found.groups()).upper() if found else text


def barcode(name: str) -> str | None:
    """TCGA's case (`TCGA-05-4244`) of a barcode of any length, however it is spelled; None where there is none."""
    found = _BARCODES[0].match(written(name).casefold())
    return "-".join(found.groups()).upper() if found else None


def person_forms(name: str) -> tuple[str, ...]:
    """The forms under which another data set may hold the person: its own, and IID for `IID_IID`, as PLINK's --double-id writes it."""
    form = person(name)
    twice = _TWICE.fullmatch(form)
    return (form, person(twice[1])) if twice else (form,)


def sample(name: str) -> str:
    """The form of a sample's or an image's name: without folder, file ending and case."""
    return _ENDING.sub("", written(name).casefold().replace("\\", "/").rsplit("/", 1)[-1])


def study(name: str) -> str:
    """The form of a study's number: `s50414267`, `50414267` and `50414267.0` are one."""
    text = written(name).casefold()
    return person(text[1:] if re.fullmatch(r"s\d+(?:\.0+)?", text) else text)


_SEX = {"23": "X", "24": "Y", "25": "XY", "26": "MT", "M": "MT", "PAR1": "XY", "PAR2": "XY"}


def chromosome(code: object) -> str:
    """A chromosome as both PLINKs read it: '1' to '22', 'X', 'Y', 'XY' (pseudo-autosomal), 'MT'; else the code in capitals.

    `01`, `chr1`, `CHR1` and `1.0` are 1; 23 to 26 are X, Y, XY, MT, as are `0X`, `M` and the like.
    Source: https://www.cog-genomics.org/plink/1.9/input#chr_set and https://www.cog-genomics.org/plink/2.0/input
    """
    text = written(code.decode() if isinstance(code, bytes) else code).upper()
    text = text.removeprefix("CHROMOSOME").removeprefix("CHR").strip(" _")
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    text = (text.lstrip("0") or "0") if text else ""
    return _SEX.get(text, text)


CUT = "are cut to a few digits, as spreadsheets do to long numbers"
DATED = "are dates, as spreadsheets make of names such as MAR1"


def damage(name: str) -> str | None:
    """What a program has done to an id so that it may be another's now; None where nothing is to be seen."""
    text = written(name).casefold()
    if _SCIENTIFIC.fullmatch(text):
        return CUT
    if _DATE.fullmatch(text):
        return DATED
    return (
        "are decimal numbers, as data frames make of ids where some are missing" if _DECIMAL.fullmatch(text) else None
    )


def one_spelling(names: Iterable[str]) -> dict[str, str]:
    """{name: the spelling that stands for its person}: the first one of each person in the order given."""
    first: dict[str, str] = {}
    return {name: first.setdefault(person(name), name) for name in dict.fromkeys(names)}


def merged_note(spelling: Mapping[str, str]) -> list[str]:
    """A line on people who are written in several ways and count as one; none where there are none."""
    pairs = [f"'{name}' = '{kept}'" for name, kept in spelling.items() if name != kept]
    people = len({kept for name, kept in spelling.items() if name != kept})
    if not pairs:
        return []
    return [
        f"{people} patients are written in several ways and count as one each ({few(pairs)}): "
        "give people who are different names that differ in more than blanks, case, zeros or 'p'"
    ]


def few(examples: Sequence[str]) -> str:
    """The first of some examples, for a message."""
    return ", ".join(examples[:SHOWN]) + (", ..." if len(examples) > SHOWN else "")
