"""Triplets (position, entity, present or absent) of a radiology report, by rules: MedKLIP's matrix without RadGraph.

A report is cut into sentences and these into clauses. An entity that is written is present, unless a word of negation reaches it: forward
from "no" or "without", backward from "not seen" or "has resolved", within the clause (after Chapman et al. 2001, NegEx). What is only
thought possible is neither. It stands at the nearest place that is named in its clause, else in its sentence, else at `unspecified`.

Shape letters: P positions, E entities.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from shards.tables.report_words import ENTITIES, POSITIONS, compiled

UNKNOWN, ABSENT, PRESENT = -1, 0, 1
COMMA, LONGEST = 40, 1000  # letters
UNSPECIFIED = list(POSITIONS).index("unspecified")

# What a report says of other days and of questions, not of this film.
ASIDE = re.compile(
    r"^[ \t]*(?:indications?|(?:clinical )?history|comparisons?|techniques?|exam(?:ination)?s?|procedures?|reason for exam\w*)[ \t]*:"
    r".*?(?=^[ \t]*[A-Za-z][A-Za-z /]{2,30}:|\Z)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
HEADER = re.compile(r"^[ \t]*[A-Za-z][A-Za-z /]{2,30}:", re.MULTILINE)
SENTENCE = re.compile(r"(?<!\bdr)(?<!\bvs)[.;?!](?=\s|$)|\n\s*\n|(?:^|\s)\d+[.)](?=\s)")
CLAUSE = re.compile(
    r",? ?\b(?:but|however|although|though|except(?: for)?|aside from|other than|apart from|besides|which|while|whereas|yet)\b"
)
# Words that look like negation and say nothing of what follows.
PSEUDO = re.compile(
    r"\b(?:no|without|not)(?: \w+){0,3} (?:changes?|changed|increases?|increased|progression|worsening|improvement)(?: in| of| from)?\b"
    r"|\bnot (?:only|necessarily|certain|excluded)\b|\bno (?:longer )?prior\b|\bnot (?:be )?ruled out\b|\bgram negative\b"
)
BEFORE = re.compile(
    r"\b(?:no|not|without|negative for|free of|clear of|absence of|absent|denies|never|nor|neither|rather than|resolved|resolution of"
    r"|clearing of|cleared)\b"
)
BEHIND = re.compile(
    r"\b(?:(?:is|are|was|were|has been|have been) )?(?:not|no longer)(?: \w+){0,2}? (?:seen|identified|present|evident|visuali[sz]ed"
    r"|demonstrated|appreciated|noted|detected|suspected|found)\b|\b(?:has|have) (?:been |completely |nearly )*(?:resolved|cleared)\b"
    r"|\b(?:is|are) (?:absent|excluded|unlikely|not)\b|\bunlikely\b|\bruled out\b"
)
MAYBE = re.compile(
    r"\b(?:may|might|could|possibl[ey]|possibility|probabl[ey]|likely|suspect(?:ed)?|suspicious|suspicion|suggest(?:s|ive|ing|ed)?"
    r"|question(?:able|ed)?|concern(?:ing)?|versus|vs|or|cannot|can not|rule out|exclude[ds]?|differential|versus|consider|if)\b"
)
_ENTITIES, _POSITIONS = compiled(ENTITIES), compiled(POSITIONS)


class Mention(NamedTuple):
    """One entity as it is written: present, absent, or (None) only thought possible; and the positions it is said of."""

    entity: int
    positions: tuple[int, ...]
    present: bool | None


def mentions(report: str) -> Iterator[Mention]:
    """Everything that a report says, in its order."""
    text = HEADER.sub(lambda m: "\n\n" + " " * len(m[0]), ASIDE.sub("\n\n", report))
    for sentence in _sentences(text.replace("-", " ").replace("/", " ").lower()):
        places = _places(sentence)
        start = 0
        for end in [*(m.start() for m in CLAUSE.finditer(sentence)), len(sentence)]:
            yield from _of_clause(sentence, start, end, places)
            start = end


def _sentences(text: str) -> Iterator[str]:
    """With single blanks; what goes on without an end is cut between words, since all places of a sentence are compared."""
    for sentence in SENTENCE.split(text):
        rest = " ".join(sentence.split())
        while len(rest) > LONGEST:
            at = rest.rfind(" ", 1, LONGEST)
            at = LONGEST if at < 0 else at
            yield rest[:at]
            rest = rest[at:].lstrip()
        yield rest


def _of_clause(sentence: str, start: int, end: int, places: list[tuple[int, int, int]]) -> Iterator[Mention]:
    clause = sentence[start:end]
    plain = PSEUDO.sub(lambda m: " " * len(m[0]), clause)
    before = [m.end() for m in BEFORE.finditer(plain)]
    behind = [m.start() for m in BEHIND.finditer(plain)]
    maybe = bool(MAYBE.search(plain.replace(" or ", " , ") if before else plain))
    for e, pattern in enumerate(_ENTITIES):
        for found in pattern.finditer(clause):
            negated = any(b < found.end() for b in before) or any(found.end() <= b for b in behind)
            said = False if negated else None if maybe else True
            at = _nearest(sentence, places, start + found.start(), start + found.end(), start, end)
            yield Mention(e, at, said)


def _places(sentence: str) -> list[tuple[int, int, int]]:
    """(start, end, position); a shorter phrase within a longer one is left out."""
    found = [(m.start(), m.end(), p) for p, pattern in enumerate(_POSITIONS) for m in pattern.finditer(sentence)]
    return [
        (a, b, p) for a, b, p in found if not any(c <= a and b <= d and d - c > b - a for c, d, _ in found)
    ]  # fmt: skip


def _nearest(
    sentence: str, places: list[tuple[int, int, int]], start: int, end: int, low: int, high: int
) -> tuple[int, ...]:
    """Positions of the phrase that is nearest to [start, end), in [low, high) if there is one there; a comma between them is far."""
    near = [p for p in places if low <= p[0] < high] or places
    gaps = [max(a - end, start - b, 0) + COMMA * sentence[min(b, end) : max(a, start)].count(",") for a, b, _ in near]
    return tuple(p for (_, _, p), gap in zip(near, gaps, strict=True) if gap == min(gaps)) or (UNSPECIFIED,)


def matrix(said: Iterable[Mention], uncertain: int = UNKNOWN) -> np.ndarray:
    """int8 [P, E]: 1 present, 0 absent, -1 not mentioned. Present is not overridden by absent; `uncertain`: what a maybe is."""
    found_PE = np.full((len(POSITIONS), len(ENTITIES)), UNKNOWN, np.int8)
    for m in said:
        state = uncertain if m.present is None else int(m.present)
        for p in m.positions:
            found_PE[p, m.entity] = max(found_PE[p, m.entity], state)
    return found_PE


def of_report(found_PE: np.ndarray) -> np.ndarray:
    """int8 [E]: 1 where an entity is present at any position, else 0 where it is absent at any, else -1."""
    return found_PE.max(0)
