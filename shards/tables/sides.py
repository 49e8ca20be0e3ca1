"""Which word of a label says yes. The order of words, in the alphabet or in a file, says nothing: what this table does not know is asked.

A pair is understood where every word of a label stands on its two sides ("Dead", "DECEASED" against "alive"), where one word denies
the other ("tumour", "non-tumour"), or where each begins with its own code ("1:DECEASED", "0:LIVING").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shards.tables.cells import number

TRUTH = ("1 yes y true positive pos present", "0 no n false negative neg absent")
OUTCOME = ("dead event deceased died death observed uncensored", "alive censored living survived")
CONDITIONS = (
    ("case cases", "control controls"),
    ("diseased", "healthy"),
    ("abnormal", "normal"),
    ("tumor tumour cancer", "normal"),
    ("malignant", "benign"),
    ("affected", "unaffected"),
    ("mutated mutant mut", "wildtype wt"),
)
BINARY = (TRUTH, OUTCOME, *CONDITIONS)
SURVIVAL = (TRUTH, OUTCOME)
UNCERTAIN = frozenset(("uncertain", "-1", "equivocal"))
_CODE = re.compile(r"([01])\s*[:=]\s*(.+)")
_DENIAL = re.compile(r"(?:no|not|without) |non ?")


class Sides(NamedTuple):
    """The words that say yes, those that say no, and what this is known by (in words for a person)."""

    yes: tuple[str, ...]
    no: tuple[str, ...]
    by: str

    @property
    def text(self) -> str:
        return (
            f"{quoted(self.yes)} (against {quoted(self.no)}; {self.by})"
            if self.no
            else f"{quoted(self.yes)} ({self.by})"
        )


def quoted(words: Iterable[str]) -> str:
    return ", ".join(f"'{w}'" for w in words) or "nothing"


def plain(word: str) -> str:
    """A word as the table has it: lower case, blanks for dashes and underscores, 1 for 1.0."""
    text = " ".join(re.split(r"[\s_]+", word.strip().lower()))
    value = number(text)
    if value is None:
        return re.sub(r" ?- ?", " ", text) if not text.startswith("-") else text
    return str(int(value)) if value.is_integer() else text


def understood(words: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Sides | None:
    """Which of `words` say yes, or None where they do not tell by themselves.

    Args:
        pairs: sides of the table, of BINARY or SURVIVAL.
    """
    codes = [_CODE.fullmatch(w.strip()) for w in words]
    if words and all(codes):
        yes = tuple(w for w, c in zip(words, codes, strict=True) if c and c[1] == "1")
        bare = {w: c[2] for w, c in zip(words, codes, strict=True) if c}
        said = _by_words(list(bare.values()), pairs)
        # '1:LIVING' says two things: nobody can know which is meant.
        if said is not None and {bare[w] for w in yes} != set(said.yes):
            return None
        return Sides(yes, tuple(w for w in words if w not in yes), "by its code")
    return _by_words(words, pairs)


def _by_words(words: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Sides | None:
    known = {w: plain(w) for w in words}
    spaced = {w: p.replace(" ", "") for w, p in known.items()}
    for yes, no in pairs:
        sides = set(yes.split()), set(no.split())
        if words and all(p in sides[0] | sides[1] for p in spaced.values()):
            return Sides(
                tuple(w for w in words if spaced[w] in sides[0]),
                tuple(w for w in words if spaced[w] in sides[1]),
                "by its word",
            )
    if len(words) == 2:
        for a, b in (words, words[::-1]):
            denied = _DENIAL.match(known[b])
            if denied and known[b][denied.end() :] == known[a]:
                return Sides((a,), (b,), "by its word")
    return None


def one_of(wanted: Sequence[str], words: Sequence[str]) -> bool:
    """Whether all of `wanted` are among `words`; or one is the opposite of the only word there is (1, of a label that is 0 throughout)."""
    more = [w for w in wanted if w not in words]
    if not more or len(words) > 1 or len(more) > 1:
        return not more
    found = understood([*words, *more], BINARY)
    return found is not None and len(found.yes) == 1


def examples(pairs: Sequence[tuple[str, str]]) -> str:
    """The first words of each pair, for a message."""
    shown = [(p, 2 if p in (TRUTH, OUTCOME) else 1) for p in pairs]
    return ", ".join(f"{yes.split()[i]}/{no.split()[i]}" for (yes, no), n in shown for i in range(n))
