"""A command that is refused, the remedy read out of what it printed, and the same command with it."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = {"shards": "shards.__main__"}  # others are scripts of launch/


@dataclass(frozen=True)
class Place:
    """Where a scenario writes, and the cohort that it may copy or read."""

    folder: Path
    demo: Path


@dataclass(frozen=True)
class Command:
    program: str  # shards, source (of shards), a script of launch/, or shell
    words: Sequence[str]


@dataclass(frozen=True)
class Scenario:
    """`says` stands in the code and in what is printed; group 1 of `typed` is what to type; `fill` completes its placeholders.

    `mend` does with files what group 1 of `typed` tells in words; of the command only the flags of `instead` are then left out.
    `first` is what a message tells in words to do beforehand, as a shell does it.
    `status` of the first command: 2, or 0 where the message is a note beside its result. `instead`: flags that the remedy's words
    take the place of.
    """

    says: str
    typed: str
    build: Callable[[Place], Command]
    fill: Mapping[str, str] = field(default_factory=dict)
    status: int = 2
    instead: tuple[str, ...] = ()
    first: str = ""
    mend: Callable[[Place], object] | None = None

    @property
    def name(self) -> str:
        return f"{self.build.__name__}: {' '.join(self.typed.split())}"[:80]


ALL: list[Scenario] = []


def remedy(
    says: str,
    typed: str,
    fill: Mapping[str, str] | None = None,
    status: int = 2,
    instead: Sequence[str] = (),
    first: str = "",
    mend: Callable[[Place], object] | None = None,
) -> Callable[[Callable[[Place], Command]], Callable[[Place], Command]]:
    """Registers a scenario; several may share one function."""

    def register(build: Callable[[Place], Command]) -> Callable[[Place], Command]:
        ALL.append(Scenario(says, typed, build, fill or {}, status, tuple(instead), first, mend))
        return build

    return register


def run(command: Command) -> tuple[int, str]:
    """Exit status, and all that was printed; of a source also the list that it writes of what was left out."""
    if command.program == "shell":
        done = subprocess.run(command.words[0], shell=True, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr
    if command.program == "source":
        status, printed = run(Command("shards", ["source", *command.words]))
        listed = Path(command.words[command.words.index("--out") + 1]) / "unmatched.csv"
        return status, printed + (listed.read_text() if status == 0 and listed.is_file() else "")
    main = importlib.import_module(PROGRAMS.get(command.program, f"launch.{command.program}")).main
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = main(list(command.words))
        except SystemExit as e:  # argparse
            status = e.code if isinstance(e.code, int) else 1
    return status, said.getvalue()


def read(scenario: Scenario, said: str, place: Place) -> str:
    """What the message tells to type, its placeholders filled in."""
    hit = re.search(scenario.typed, said)
    assert hit, f"nothing like {scenario.typed!r} in:\n{said}"
    text = hit[1]
    for placeholder, value in scenario.fill.items():
        assert placeholder in text, f"no {placeholder} in {text!r}"
        text = text.replace(placeholder, value.format(folder=place.folder, demo=place.demo))
    return text


def commands(text: str) -> list[Command]:
    """Whole command lines among the words of a remedy; none where it is flags or keys for the command that was refused."""
    words = shlex.split(text)
    if words[:3] == ["python", "-m", "shards"]:
        return [Command("shards", words[3:])]
    if "&&" in words or words[:1] in (["gunzip"], ["find"], ["echo"]):
        return [Command("shell", [text])]
    if words and (hit := re.fullmatch(r"launch/(\w+)\.py", words[words[0] in ("python", "deepspeed")])):
        return [Command(hit[1], words[1 + (words[0] in ("python", "deepspeed")) :])]
    return []


def applied(words: Sequence[str], typed: Sequence[str], instead: Sequence[str] = ()) -> list[str]:
    """A command's words with those of the remedy, which take the place of the same flag, of the same field, or of the same key."""
    kept, left = list(words), list(typed)
    for flag in instead:
        at = kept.index(flag)
        del kept[at : at + (1 if at + 1 == len(kept) or kept[at + 1].startswith("--") else 2)]
    while left:
        word = left.pop(0)
        if word.startswith("--"):
            value = [left.pop(0)] if left and not left[0].startswith("--") else []
            kept = [*_without(kept, word, value), word, *value]
        else:
            key = word.partition("=")[0] + "="
            kept = [*(k for k in kept if not k.startswith(key)), word]
    return kept


def _without(words: list[str], flag: str, value: Sequence[str]) -> list[str]:
    """Without an earlier value of this flag: of the same FIELD= where it is of fields, any other where it is a single value."""
    out, i = [], 0
    field_of = value[0].partition("=")[0] if value and "=" in value[0] else None
    while i < len(words):
        if words[i] == flag and value and (field_of is None or words[i + 1].partition("=")[0] == field_of):
            i += 2
            continue
        out.append(words[i])
        i += 1
    return out
