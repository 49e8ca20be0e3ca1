"""Under which terms an export may be passed on: those of every data set and of every file of weights that went into it.

What a data set says is kept by the run (method.json). Of a file of first weights FILE, FILE.terms.yaml beside it says the same three
words, as far as it is still there; everything else is said on the command line. Nothing is exported of which one of the three is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models.contract.start_files import start_files
from models.registry import get_method
from shards.errors import typed
from shards.format.terms import COMMERCIAL, Terms
from trainer.config import yaml_text
from trainer.errors import UserError

if TYPE_CHECKING:
    from trainer.export.opened import Exporting

WORDS = ("licence", "commercial", "citation")
ENDING = ".terms.yaml"
SAMPLE = {"licence": "TERMS", "commercial": "unknown", "citation": "'AUTHORS, TITLE, YEAR'"}
SAID = {"licence": "licence", "commercial": "commercial use", "citation": "citation"}


@dataclass(frozen=True)
class Part:
    """Something that went into the weights, and its terms."""

    kind: Literal["data set", "first weights"]
    name: str
    terms: Terms


@dataclass(frozen=True)
class Stated:
    """What the command line says of terms, as [NAME=]TEXT each; without a name it is for all that state none."""

    licence: Sequence[str] = ()
    commercial: Sequence[str] = ()
    citation: Sequence[str] = ()


def commercial_use(parts: Sequence[Part]) -> str:
    """Whether all of it may be used commercially: no if any part says no, unknown if any is not known."""
    words = {p.terms.commercial for p in parts}
    return next(w for w in ("no", "unknown", "yes") if w in words or w == "yes")


def settled(opened: Exporting, stated: Stated) -> list[Part]:
    """All parts with their terms, whole.

    Raises:
        UserError: words that mean nothing, names of no part, and everything that is not known of any part, with what to give.
    """
    parts = list(_parts(opened))
    problems: list[str] = []
    for word in WORDS:
        parts = _filled(parts, word, getattr(stated, word), problems)
    for part in parts:
        if missing := part.terms.missing:
            given = " ".join(f"--{w} {typed(part.name)}={SAMPLE[w]}" for w in missing)
            said = " and ".join(f"no {SAID[w]}" for w in missing)
            problems.append(
                f"{part.kind} '{part.name}' states {said}, and an export says all of it: give {given}{_once(part)}"
            )
    if problems:
        raise UserError(problems)
    return parts


def _once(part: Part) -> str:
    """Where it is said for good."""
    if part.kind == "data set":
        return " (of later runs: python -m shards terms DIR)"
    return f" (or write it beside the file, into {part.name}{ENDING})"


def _parts(opened: Exporting) -> Iterator[Part]:
    for about in opened.sets or [{"name": "data"}]:
        yield Part("data set", about["name"], Terms(*(str(about.get(w, "")) for w in WORDS)))
    data = opened.tuned.data if opened.tuned else None
    if data is not None and data.get("fingerprint") not in [s.get("fingerprint") for s in opened.sets]:
        yield Part("data set", data["name"], Terms(*(str(data.get(w, "")) for w in WORDS)))
    files = start_files(get_method(opened.name).Options, opened.run.options)
    for path in dict.fromkeys(files.values()):
        yield Part("first weights", Path(path).name, _beside(Path(path)))


def _beside(path: Path) -> Terms:
    """What FILE.terms.yaml says.

    Raises:
        UserError: it holds anything else than the three words.
    """
    file = path.with_name(path.name + ENDING)
    if not file.is_file():
        return Terms()
    content = yaml_text.read(file)
    odd = [str(k) for k, v in content.items() if k not in WORDS or not isinstance(v, str) or not v]
    # YAML reads yes and no as truth values unless they are quoted.
    if isinstance(content.get("commercial"), bool):
        content["commercial"] = "yes" if content["commercial"] else "no"
        odd.remove("commercial")
    if odd or content.get("commercial", "unknown") not in COMMERCIAL:
        raise UserError(
            f"{file}: {', '.join(odd) or 'commercial'}: give licence, commercial (yes, no or unknown) and citation as text"
        )
    return Terms(**content)


def _filled(parts: Sequence[Part], word: str, given: Sequence[str], problems: list[str]) -> list[Part]:
    """The parts with what the command line says of one word: by name over what is stored, without a name where nothing is."""
    names = {p.name for p in parts}
    named: dict[str, str] = {}
    for text in given:
        name, mark, value = text.partition("=")
        name, value = (name, value) if mark and name in names else ("", text)
        if word == "commercial" and value not in COMMERCIAL:
            problems.append(
                f"--{word} {text}: give yes, no or unknown, or NAME= before it for one of {', '.join(sorted(names))}"
            )
        elif named.setdefault(name, value) != value:
            problems.append(f"--{word} {text}: given twice, differently")
    return [_with(p, word, named) for p in parts]


def _with(part: Part, word: str, named: Mapping[str, str]) -> Part:
    stored = getattr(part.terms, word)
    return replace(part, terms=replace(part.terms, **{word: named.get(part.name) or stored or named.get("", "")}))
