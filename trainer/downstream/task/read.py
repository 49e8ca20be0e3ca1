"""From a file in configs/task, a protocol and a command line's words to a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.config import yaml_text
from trainer.config.files import CONFIGS, named_file
from trainer.config.recipe import override, section
from trainer.config.schema import checked
from trainer.downstream.task.schema import Task

TASKS, PROTOCOLS = CONFIGS / "task", CONFIGS / "protocol"


def find_task(name: str) -> Path:
    """The file of a task: a path, or a name in configs/task.

    Raises:
        UserError: no such file; the nearest name is given.
    """
    return named_file(name, TASKS, "--task ", "task")


def find_protocol(name: str) -> Path:
    """The file of `recipe`: a path, or a name in configs/protocol; raises as `find_task`."""
    return named_file(name, PROTOCOLS, "recipe=", "recipe")


def parse_task(values: Mapping[str, Any]) -> Task:
    """A Task from plain data; raises as `checked`."""
    return checked(Task, values)


def kind_of(task: str) -> str:
    """The kind of a task, by its name or file."""
    return build_task(task, [])[0].kind


def build_task(name: str, words: Sequence[str], mode: str | None = None) -> tuple[Task, Path]:
    """The task of a command line, and its file. A recipe named in the file lies below its keys, one in the words above them."""
    path = find_task(name)
    values, given = yaml_text.read(path, "a task"), override({}, words)
    values.setdefault("name", path.stem)
    if (wanted := given.get("recipe", values.get("recipe"))) is not None:
        protocol = yaml_text.read(find_protocol(str(wanted)), "a protocol")
        layers = (values, protocol) if "recipe" in given else (protocol, values)
        values = merged(_without_length(layers[0], layers[1]), layers[1])
    values = override(_without_length(values, given), words)
    if mode is not None:
        values["mode"] = mode
    if section(values, "protocol", f"task {path}").get("steps"):
        values["protocol"].setdefault("epochs", None)
    return parse_task(values), path


def _without_length(values: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`values` without the length that `over` gives in the other unit."""
    theirs, mine = over.get("protocol"), values.get("protocol")
    if not isinstance(theirs, Mapping) or not isinstance(mine, Mapping):
        return values
    gone = {other for one, other in (("steps", "epochs"), ("epochs", "steps")) if one in theirs}
    return {**values, "protocol": {k: v for k, v in mine.items() if k not in gone}}


def merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, section by section."""
    out = dict(base)
    for k, v in over.items():
        below = out.get(k)
        out[k] = {**below, **v} if isinstance(below, Mapping) and isinstance(v, Mapping) else v
    return out
