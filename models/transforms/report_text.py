"""Reports as people write them, on their way to a text encoder: sections, sentences, sides.

A section is found by its header alone (`IMPRESSION:` at the beginning of a line); a report without the section that is asked for has no
text, and is not given another one in its place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

Sections = Literal["whole", "impression", "findings", "impression_findings", "findings_impression"]
Cleaning = Literal["none", "gloria", "safe"]
Unit = Literal["sentence", "report"]

# A line that begins with capitals up to a colon, as in MIMIC-CXR; of other writing, the two names that are asked for alone.
HEADER = re.compile(r"^[ \t]*(?:(findings?|impressions?)|([A-Z][A-Z ()/,\-]*)):[ \t]*", re.MULTILINE | re.IGNORECASE)
CAPITALS = re.compile(r"[A-Z][A-Z ()/,\-]*")
# What radiologists call the two parts; all other headers end a section and begin none of these.
_BOTH = ("findings and impression", "findings/impression", "impression and findings")
NAMES = {
    "impression": ("impression", "impressions", "conclusion", "conclusions", "summary", *_BOTH),
    "findings": ("findings", "finding", *_BOTH),
}
SIDE = re.compile(r"\b(left|right)((?:wards?|most)?)\b", re.IGNORECASE)
OTHER = {"left": "right", "right": "left"}


def sections(text: str) -> dict[str, str]:
    """{header in lower case: text below it}; of two of one name the last (an addendum's) counts. Nothing of a report without headers."""
    found: dict[str, str] = {}
    marks = [m for m in HEADER.finditer(text) if m[1] or CAPITALS.fullmatch(m[2])]
    ends = [*(m.start() for m in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=False):
        found[" ".join((mark[1] or mark[2]).lower().split())] = text[mark.end() : end].strip()
    return found


def chosen(text: str, which: Sections) -> str:
    """The part of a report that is asked for; "" where it is not there. Of two parts, those that are there, in the order of the name."""
    if which == "whole":
        return text
    found = sections(text)
    parts = [next((found[n] for n in NAMES[part] if found.get(n)), "") for part in which.split("_")]
    return "\n".join(dict.fromkeys(p for p in parts if p))


def cleaned(text: str, rule: Cleaning, shortest: int = 2) -> list[str]:
    """The sentences of a text.

    none    as they stand, split where a period is followed by white space or ends the text
    gloria  Huang et al. 2021's rule: split behind every number with a period ("T12." becomes "t", "3.5 cm" is cut to "5 cm"), then at every
            period; lower case; words alone; sentences of one word and characters beyond ASCII are dropped
    safe    the same, but a number is split off only where it counts paragraphs ("2. Stable"), a period only where it ends a sentence;
            decimals stay whole and letters lose their accents instead of being dropped

    shortest: fewest words of a sentence under the last two rules.
    """
    text = text.replace("\n", " ")
    if rule == "none":
        return [s for s in (part.strip() for part in re.split(r"(?<=\.)\s+", text)) if s.strip(".")]
    if rule == "safe":
        # Accents become characters of their own, which would cut words.
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    pieces = _pieces(text, rule == "safe")
    pattern = r"\d+(?:\.\d+)+|\w+" if rule == "safe" else r"\w+"
    words = [re.findall(pattern, p.replace("\ufffd\ufffd", " ").lower()) for p in pieces]
    plain = [[w.encode("ascii", "ignore").decode() for w in s] for s in words if len(s) >= shortest]
    return [" ".join(w for w in s if w) for s in plain if any(s)]


def _pieces(text: str, safe: bool) -> list[str]:
    """Sentences before their words are looked at."""
    enumerated = re.split(r"(?:^|(?<=\s))\d+\.(?=\s)", text) if safe else re.split(r"[0-9]+\.", text)
    end = r"\.(?=\s|$)" if safe else r"\."
    return [piece for part in enumerated for piece in re.split(end, part)]


def drawn_text(sentences: Sequence[str], unit: Unit, rng: np.random.Generator) -> str:
    """One sentence, each as likely as any other, or all of them; "" of none. One number is drawn from `rng` in either case."""
    at = int(rng.integers(max(1, len(sentences))))
    if unit == "report" or not sentences:
        return " ".join(sentences)
    return sentences[at]


def swapped_sides(text: str) -> str:
    """The text of a mirrored image: left and right (leftward, left-sided, ...) exchanged as whole words, in the case they were written in.

    "upright" names no side. Abbreviations (RLL, L>R) are not known and stay.
    """

    def other(found: re.Match[str]) -> str:
        word, rest = found[1], found[2]
        swapped = OTHER[word.lower()]
        if word.isupper():
            return swapped.upper() + rest
        return (swapped.capitalize() if word[0].isupper() else swapped) + rest

    return SIDE.sub(other, text)
