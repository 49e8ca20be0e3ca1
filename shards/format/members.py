"""What the members of other people's tars are: a mapping of their names to fields, patients and labels.

WebDataset's rule: a name ends its key at the first dot after the last slash, what follows is the member. KEY.FIELD.EXT of the
allow-list means itself; anything else is said by `--member`:

    jpg=image                KEY.jpg is the field image
    seg.mask.png=mask        KEY.seg.mask.png is the field mask
    json=meta                KEY.json holds {"patient": ..., "labels": {...}}
    json.subject_id=patient  the value `subject_id` of KEY.json names the patient (`json.a.b`: of the object `a` in it)
    json.age=label:age       ... is a label; a text is a class, a number a number; label:NAME:class and :number decide
    cls=label:diagnosis      the text of KEY.cls is a label

Folders before a key belong to it, since WebDataset tells samples by them: `train/s1.image.jpg` is sample `train_s1`.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shards.errors import DataError, Problem
from shards.format.archive import leaves
from shards.format.info import FIELD, KEY, KINDS, Adopted
from shards.untyped import Json

FLAG, SKIP = "--member", "--skip"
CODE = ("pickle", "pkl", "pyd", "pth", "pt", "npz", "joblib")
USUAL = {"jpg": "image", "jpeg": "image", "png": "image", "txt": "report", "npy": "patches"}
_MEMBER = re.compile(r"[a-z0-9_\-]+(?:\.[a-z0-9_\-]+)*")
_LABEL = re.compile(r"label:([^:]+)(?::(class|number))?")


@dataclass(frozen=True)
class Target:
    """What a member, or a value inside a JSON member, is. `path` leads to the value; `kind` is that of a label, where it was said."""

    role: str  # field, patient, label
    name: str = ""
    kind: str | None = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Name:
    """A member's name, cut. `sample` is the key with its folders as they stand in the tar."""

    sample: str
    key: str
    member: str


@dataclass
class Rule:
    """The mapping of a data set's members. Without any, every member is KEY.FIELD.EXT."""

    targets: dict[str, list[Target]] = field(default_factory=dict)
    skip: frozenset[str] = frozenset()
    adopted: Adopted | None = None

    def key_of(self, name: Name, tar: str) -> str:
        """The key of a sample of a tar with this name (without its ending)."""
        if self.adopted is None or not self.adopted.shard_in_key:
            return name.key
        return f"{re.sub(r'[^A-Za-z0-9_-]', '_', tar).lstrip('-')}_{name.key}"

    def field_of(self, member: str) -> tuple[str, str] | None:
        """(field, ext) of a member that is one."""
        ext = member.rsplit(".", 1)[-1]
        if member in self.targets:
            return next(((t.name, ext) for t in self.targets[member] if t.role == "field"), None)
        parts = member.split(".")
        return (parts[0], ext) if len(parts) == 2 and FIELD.fullmatch(parts[0]) and ext in KINDS else None

    def values_of(self, member: str) -> list[Target]:
        """What is to be read out of a member."""
        return [t for t in self.targets.get(member, ()) if t.role != "field"]

    def why_not(self, member: str) -> tuple[str, str]:
        """(what, fix) of a member that means nothing."""
        ext = member.rsplit(".", 1)[-1]
        skip = f"{SKIP} {member} to leave it out"
        if ext in CODE:
            return "the kind can carry code and is never read", f"store arrays as .npy; {skip}"
        if ext == "json":
            others = "" if self.adopted and self.adopted.patient_from_key else f"{FLAG} {member}.KEY=patient, "
            return _NOTHING, f"say what its values are: {others}{FLAG} {member}.KEY=label:NAME; or {skip}"
        if ext in KINDS:
            usual = USUAL[ext] if "mask" not in member else "mask"
            return _NOTHING, f"say which field it is, such as {FLAG} {member}={usual}; or {skip}"
        allowed = ", ".join(sorted(KINDS))
        return _NOTHING, f"{FLAG} {member}=label:NAME if its text is a label; or {skip} (fields are {allowed})"


_NOTHING = "the name is not KEY.FIELD.EXT of the allowed kinds, and no --member says what it is"


def cut(name: str) -> Name | Problem:
    """A member's name cut into key and member; the problem's place is for the caller to fill."""
    if leaves(name):
        return Problem("the name leaves the folder", "", "store names below the folder")
    folder, _, base = name.rpartition("/")
    stem, dot, member = base.partition(".")
    if not dot or not stem or not member:
        return Problem(
            "the name is not KEY.FIELD.EXT: it has no key or nothing after it", "", "name members KEY.FIELD.EXT"
        )
    sample = f"{folder}/{stem}" if folder else stem
    key = sample.replace("/", "_")
    if not KEY.fullmatch(key):
        fix = "rename it: a key has letters, digits, '_' and '-' only, and ends at the first dot"
        return Problem(f"'{sample}' is not a key", "", fix)
    return Name(sample, key, member.lower())


# ------------------------------------------------------------------------------------------------------------- stating


def options(parser: argparse.ArgumentParser) -> None:
    """What `index` is told of the members."""
    add = parser.add_argument
    add(
        FLAG,
        action="append",
        metavar="MEMBER=FIELD",
        help="what KEY.MEMBER is: jpg=image, json=meta, json.ID=patient, json.AGE=label:age, cls=label:NAME (docs/data.md)",
    )
    add(SKIP, action="append", metavar="MEMBER", help="leave KEY.MEMBER out")
    add("--patient-from-key", action="store_true", help="where nothing names a patient, the key is the patient")
    what = "what (...) finds in a sample's name, with its folders, is the patient"
    add("--patient-pattern", metavar="REGEX", help=what)
    add(
        "--shard-in-key",
        action="store_true",
        help="put the tar's name before each key: keys are unique within a tar alone",
    )


def adopted_of(args: argparse.Namespace) -> Adopted | None:
    """What the command line says of the members; None where it says nothing.

    Raises:
        DataError: see `parse_members`.
    """
    how = Adopted(
        members=parse_members(args.member),
        skip=tuple(dict.fromkeys(m.removeprefix("KEY.").lower() for m in args.skip or ())),
        patient_from_key=args.patient_from_key,
        patient_pattern=args.patient_pattern,
        shard_in_key=args.shard_in_key,
    )
    return None if how == Adopted() else how


def rule_of(adopted: Adopted | None) -> Rule:
    """The mapping that a data set was adopted with.

    Raises:
        DataError: words of it that say nothing; all at once.
    """
    if adopted is None:
        return Rule()
    rule = Rule(skip=frozenset(adopted.skip), adopted=adopted)
    problems: list[Problem] = []
    for source, meaning in adopted.members.items():
        found = _target(source, meaning)
        if isinstance(found, Problem):
            problems.append(found)
            continue
        member, target = found
        rule.targets.setdefault(member, []).append(target)
    both = sorted(rule.skip & set(rule.targets))
    problems += [Problem(f"'{m}' is both mapped and left out", SKIP, "give one of them") for m in both]
    problems += _pattern_problems(adopted.patient_pattern)
    if problems:
        raise DataError(problems)
    return rule


def parse_members(given: Sequence[str] | None) -> dict[str, str]:
    """['jpg=image', 'json.id=patient'] -> {'jpg': 'image', 'json.id': 'patient'}

    Raises:
        DataError: not MEMBER=MEANING, or a member that is given two meanings.
    """
    found: dict[str, str] = {}
    problems = []
    for text in given or ():
        member, _, meaning = text.partition("=")
        member = _lowered(member.removeprefix("KEY."))
        if not (member and meaning):
            problems.append(Problem(f"'{text}' is not MEMBER=FIELD", FLAG, f"such as {FLAG} jpg=image"))
        elif found.setdefault(member, meaning) != meaning:
            problems.append(Problem(f"'{member}' is both '{found[member]}' and '{meaning}'", FLAG, "give one of them"))
    if problems:
        raise DataError(problems)
    return found


def _lowered(member: str) -> str:
    """A member's name without case; what leads into a JSON keeps its own."""
    name, path = _json_path(member)
    return ".".join([name.lower(), *path])


def _json_path(source: str) -> tuple[str, tuple[str, ...]]:
    """'json.a.b' -> ('json', ('a', 'b')): what follows the first part `json` leads to a value."""
    parts = source.split(".")
    at = next((i for i, p in enumerate(parts) if p.lower() == "json"), len(parts) - 1)
    return ".".join(parts[: at + 1]), tuple(parts[at + 1 :])


def _target(source: str, meaning: str) -> tuple[str, Target] | Problem:
    member, path = _json_path(source)
    ext = member.rsplit(".", 1)[-1]
    if not _MEMBER.fullmatch(member) or "" in path:
        return Problem(f"'{source}' is no member", FLAG, f"give what follows KEY. in the tar, such as {FLAG} jpg=image")
    if ext in CODE:
        return Problem(f"'{member}': the kind can carry code and is never read", FLAG, "store arrays as .npy")
    label = _LABEL.fullmatch(meaning)
    if meaning == "patient" or label:
        if ext == "json" and not path:
            return Problem(f"'{source}' has many values", FLAG, f"say which, such as {FLAG} {source}.NAME={meaning}")
        if KINDS.get(ext) in ("image", "array"):
            return Problem(f"'{source}' holds no text", FLAG, "patients and labels are read from texts and JSON")
        return member, Target("label", label[1], label[2], path) if label else Target("patient", path=path)
    if path:
        fix = "fields are read in place: store the value as a member of its own, or make it the patient or a label:NAME"
        return Problem(f"'{source}' is a value inside a JSON, not a field", FLAG, fix)
    if not FIELD.fullmatch(meaning):
        near = difflib.get_close_matches(meaning.lower(), ["image", "mask", "report", "patient", "meta"], n=1)
        fix = f"did you mean '{near[0]}'?" if near else "a field has a-z, 0-9 and _; else patient or label:NAME"
        return Problem(f"'{meaning}' in '{source}={meaning}' is no field", FLAG, fix)
    allowed = ["json"] if meaning == "meta" else sorted(KINDS)
    if ext not in allowed:
        what = f"'{source}={meaning}': the field is read from {', '.join(allowed)} alone"
        return Problem(what, FLAG, f"leave it out: {SKIP} {member}")
    return member, Target("field", meaning)


def _pattern_problems(pattern: str | None) -> list[Problem]:
    if pattern is None:
        return []
    try:
        groups = re.compile(pattern).groups
    except re.error as e:
        return [Problem(f"'{pattern}' is no pattern ({e})", "--patient-pattern", "such as '^([^_/]+)'")]
    return (
        []
        if groups == 1
        else [
            Problem(f"'{pattern}' has {groups} groups", "--patient-pattern", "put one pair of (...) around the patient")
        ]
    )


# ------------------------------------------------------------------------------------------------------------- reading


def value_in(data: bytes, target: Target) -> Json:
    """What a member says for a target: the text, or the value in a JSON; None where it is not there.

    Raises:
        ValueError: not UTF-8, or not JSON.
    """
    text = data.decode("utf-8-sig")
    if not target.path:
        return text.strip()
    value: Json = loads(text)
    for step in target.path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def loads(text: str | bytes) -> Json:
    """JSON; a key that stands twice in an object is refused, since only the last of its values would be seen.

    Raises:
        ValueError: not JSON in UTF-8, a key twice, or brackets within brackets without end.
    """
    try:
        return json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, object_pairs_hook=_once)
    except RecursionError as e:
        raise ValueError("too deep") from e


def _once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i]))
        raise ValueError(f"key '{twice}' stands twice in one object")
    return found


def name_of(value: Json) -> str | None:
    """A patient's name from a text or a whole number; None where it is neither.

    Data frames make 10000.0 of 10000 where some are missing, and JSON has one kind of number.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else None
    return str(value).strip()
