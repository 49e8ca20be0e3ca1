"""Prompts of a zero-shot task: what is said of an image of each class, from a YAML file of configs/prompts or of a user's own.

templates: ["a film with {}"]             each is filled with each of a class's words; "{}" alone by default
classes: {CLASS: [words, ...]}            binary, multiclass, ordinal: every class of the task
labels: {LABEL: {positive: [...], negative: [...]}}    multilabel: every label of the task, and what is said without it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.contract import Method, TargetSpec
from models.contract.joint import JointSpace, ReadText
from trainer.config import yaml_text
from trainer.config.files import CONFIGS, named_file, nearest
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

PROMPTS = CONFIGS / "prompts"
KEYS = ("templates", "classes", "labels")
SIDES = ("negative", "positive")


@dataclass(frozen=True)
class Prompts:
    """sides {what is said: its prompts}, in the order of the task's classes; of multilabel "LABEL: negative", "LABEL: positive"."""

    path: Path
    sides: Mapping[str, tuple[str, ...]]

    def plain(self) -> dict[str, list[str]]:
        return {name: list(texts) for name, texts in self.sides.items()}


@dataclass(frozen=True)
class ReadPrompts:
    """Prompts as a method's text encoder gets them; `notes` say what it does not know of them."""

    prompts: Prompts
    read: Mapping[str, tuple[ReadText, ...]]
    notes: tuple[str, ...] = ()


def find_prompts(task: Task) -> Path:
    """The file that the task names.

    Raises:
        UserError: it names none, or there is no such file; the nearest is given.
    """
    if task.prompts is None:
        known = ", ".join(sorted(p.stem for p in PROMPTS.glob("*.yaml")))
        raise UserError(
            f"mode: zeroshot needs words for the classes of task {task.name}: set prompts=FILE.yaml, or prompts=NAME of configs/prompts "
            f"(there: {known}); docs/zeroshot.md says what stands in such a file"
        )
    return named_file(task.prompts, PROMPTS, "prompts=", "file of prompts")


def read_prompts(task: Task, question: TargetSpec, encoder: Method) -> ReadPrompts:
    """The task's prompts, checked against its classes and against what the encoder can read.

    Raises:
        UserError: all of it that cannot be used, at once.
    """
    assert isinstance(encoder, JointSpace)
    path = find_prompts(task)
    values = yaml_text.read(path, "a file of prompts")
    problems = [f"{path}: unknown key '{key}'; {nearest(key, KEYS)}" for key in values if key not in KEYS]
    templates = list(_templates(path, values.get("templates", ["{}"]), problems))
    said = _said(path, values, task, question, problems)
    sides = {name: tuple(t.replace("{}", words) for t in templates for words in texts) for name, texts in said.items()}
    problems += _doubles(path, sides)
    read = {name: tuple(encoder.read_text(t, prompt=True) for t in texts) for name, texts in sides.items()}
    notes = list[str]()
    problems += _unreadable(path, sides, read, encoder.name, notes)
    if problems:
        raise UserError(problems)
    return ReadPrompts(Prompts(path, sides), read, tuple(notes))


# ---------------------------------------------------------------------------------------------------------------- the file


def _templates(path: Path, given: object, problems: list[str]) -> Iterator[str]:
    """Templates with one place for words."""
    texts = _texts(path, "templates", given, problems)
    for text in texts:
        if text.count("{}") == 1:
            yield text
        else:
            problems.append(f"{path}: template '{text}': put {{}} once where the words of a class go")
    problems += [
        f"{path}: template '{t}' stands more than once; keep one" for t in dict.fromkeys(texts) if texts.count(t) > 1
    ]


def _texts(path: Path, where: str, given: object, problems: list[str]) -> list[str]:
    """A list of texts, or one text; what is none, or empty, is a problem."""
    texts = list(given) if isinstance(given, list) else [given]
    if not texts or given is None:
        problems.append(f"{path}: {where} has no prompt; write one or more, as a list")
        return []
    kept = []
    for text in texts:
        if not isinstance(text, str):
            problems.append(f"{path}: {where}: '{text}' is a {type(text).__name__}, not a text; put it in quotes")
        elif not text.strip():
            problems.append(f"{path}: {where} has an empty prompt; write words, or take it out")
        else:
            kept.append(text)
    return kept


def _said(
    path: Path, values: Mapping[str, object], task: Task, question: TargetSpec, problems: list[str]
) -> dict[str, list[str]]:
    """{side: its words}, in the order of the task's classes."""
    multilabel = task.kind == "multilabel"
    key, other = ("labels", "classes") if multilabel else ("classes", "labels")
    if other in values:
        problems.append(f"{path}: '{other}': task {task.name} is {task.kind}; write '{key}' instead")
    given = values.get(key, {})
    if not isinstance(given, Mapping):
        problems.append(f"{path}: '{key}' is a {type(given).__name__}; write {key}: {{NAME: [words, ...]}}")
        given = {}
    # YAML reads a class 0 as a number.
    by_name = {_word(k): v for k, v in given.items()}
    names, what = question.classes, "label" if multilabel else "class"
    has = ", ".join(names)
    problems += [
        f"{path}: '{n}' is no {what} of task {task.name} (it has: {has}); mend the name, or take it out"
        for n in by_name
        if n not in names
    ]
    problems += [
        f"{path}: {what} '{n}' of task {task.name} has no prompt; write it under '{key}'"
        for n in names
        if n not in by_name
    ]
    found = {n: by_name[n] for n in names if n in by_name}
    if multilabel:
        found = _both_sides(path, found, problems)
    return {name: _texts(path, f"{what} '{name}'", texts, problems) for name, texts in found.items()}


def _both_sides(path: Path, labels: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    """What is said with a finding and without it: a score needs both."""
    found = dict[str, object]()
    for label, sides in labels.items():
        if not isinstance(sides, Mapping) or set(sides) != set(SIDES):
            problems.append(
                f"{path}: label '{label}': write {{positive: [words, ...], negative: [words, ...]}}, both and nothing else"
            )
            continue
        found |= {f"{label}: {side}": sides[side] for side in SIDES}
    return found


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _doubles(path: Path, sides: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Prompts that stand more than once, within a side or on several."""
    places: dict[str, list[str]] = {}
    for name, texts in sides.items():
        for text in texts:
            places.setdefault(text, []).append(name)
    for text, names in places.items():
        if len(names) > 1:
            yield f"{path}: prompt '{text}' stands {len(names)} times ({', '.join(dict.fromkeys(names))}); keep one"


# --------------------------------------------------------------------------------------------------------------- the encoder


def _unreadable(
    path: Path,
    sides: Mapping[str, Sequence[str]],
    read: Mapping[str, Sequence[ReadText]],
    method: str,
    notes: list[str],
) -> Iterator[str]:
    """Prompts that the text encoder would cut, does not know a word of, or cannot tell apart."""
    seen: dict[bytes, tuple[str, str]] = {}
    for name, texts in sides.items():
        for text, found in zip(texts, read[name], strict=True):
            if found.tokens > found.room:
                yield f"{path}: '{name}': prompt '{text}' has {found.tokens} tokens, {method} reads {found.room}; shorten it"
            elif not found.tokens or found.unknown == found.tokens:
                yield f"{path}: '{name}': no word of prompt '{text}' is in the vocabulary of {method}; take words of its reports"
            elif (first := seen.setdefault(found.key, (name, text))) != (name, text) and first[1] != text:
                yield f"{path}: prompts '{first[1]}' ({first[0]}) and '{text}' ({name}) are one text to {method}; keep one"
            elif found.unknown:
                notes.append(f"prompt '{text}': {found.unknown} of {found.tokens} tokens are unknown to {method}")
