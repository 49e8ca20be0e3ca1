"""What the head comment of a recipe claims: the command to type, the hardware and time it takes, what it should give, what was measured."""

from __future__ import annotations

import re
from pathlib import Path

from models.contract import MethodError

KEYS = ("Command", "Hardware", "Time", "Expected", "Measured")
NEEDED = KEYS[:4]
CLAIM = re.compile(r"^# (\w+):\s*(.*)$")
FIRST = ("recommended", "paper", "demo")
"""The order in which recipes are shown; others follow by name."""


def claims(recipe: Path) -> dict[str, str]:
    """{"": what the recipe is, "Command": ..., ...} of the comment that a recipe begins with.

    Raises:
        MethodError: a claim that every recipe makes is missing.
    """
    found: dict[str, list[str]] = {"": []}
    key = ""
    for line in recipe.read_text().splitlines():
        if not line.startswith("#"):
            break
        claim = CLAIM.match(line)
        if claim and claim[1] in KEYS:
            key = claim[1]
            found[key] = []
            line = f"# {claim[2]}"
        # Two spaces part a command from a remark on it.
        found[key].append("  ".join(w.strip() for w in re.split(r" {2,}", line.removeprefix("#").strip())))
    if missing := [k for k in NEEDED if k not in found]:
        raise MethodError([f"{recipe}: its head comment makes no claim '# {k}: ...'; write it" for k in missing])
    return {k: " ".join(filter(None, lines)) for k, lines in found.items()}


def recipes(folder: Path) -> list[Path]:
    """The recipes of a method, the usual ones first."""
    known = {p.stem: p for p in sorted(folder.glob("*.yaml"))}
    return [known[n] for n in (*(n for n in FIRST if n in known), *(n for n in known if n not in FIRST))]


def claim_list(folder: Path) -> str:
    """Markdown: each recipe of a method with what it claims."""
    return "\n\n".join(_claimed(path) for path in recipes(folder))


def _claimed(path: Path) -> str:
    said = claims(path)
    command, *remark = said["Command"].split("  ", 1)
    lines = [f"**`{path.stem}`** {said['']}", "", f"- Command: `{command}`{''.join(f' {r}' for r in remark)}"]
    return "\n".join(lines + [f"- {k}: {said[k]}" for k in KEYS[1:] if k in said])
