"""Where a YAML file lies that a command line names: the file itself, or a name in one of the folders of configs/."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from trainer.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def given_file(name: str, flag: str) -> Path | None:
    """The file, where `name` is a path and not a mere name; `flag` is how it is given: "--task ".

    Raises:
        UserError: no such file.
    """
    if not name.endswith((".yaml", ".yml")) and "/" not in name:
        return None
    if not Path(name).is_file():
        raise UserError(f"{flag}{name}: no such file")
    return Path(name)


def nearest(name: str, known: Sequence[str]) -> str:
    """What to say of a name that is not known."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


def named_file(name: str, folder: Path, flag: str, what: str, where: str = "") -> Path:
    """The file that `name` stands for: a path, or a name in `folder`.

    Args:
        what: what the file is, in a word: "task".
        where: said after the name that is not known: " in FOLDER".

    Raises:
        UserError: no such file; the nearest name is given.
    """
    if given := given_file(name, flag):
        return given
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no {what} '{name}'{where}; {nearest(name, sorted(p.stem for p in folder.glob('*.yaml')))}")
    return path
