"""What two runs differ in: options, data, code, results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import UserError
from trainer.runs.find import CONFIG, MARKS, Folder
from trainer.runs.read import Listed, Reached, locks, read
from trainer.runs.words import aligned, reached_text

PATHS = ("out", "data.path", "init.path")
"""Places, which say nothing of what a run is."""
Pair = tuple[object, object]


@dataclass(frozen=True)
class Differing:
    """By name the value of A and of B, None where one has none."""

    options: dict[str, Pair]
    data: dict[str, Pair]
    code: dict[str, Pair]
    results: dict[str, Pair]


def one(path: Path) -> Listed:
    """The run in a folder.

    Raises:
        UserError: no folder, no run, or one that cannot be read.
    """
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; give the out=FOLDER of a run")
    files = frozenset(p.name for p in path.iterdir() if p.is_file())
    if not files & MARKS:
        raise UserError(
            f"{path} holds no run (it has none of {', '.join(sorted(MARKS))}); give the out=FOLDER of a run"
        )
    run = read(Folder(path, files, tuple(sorted(p.name for p in path.iterdir() if p.is_dir()))), locks())
    if run.state == "unreadable" or not run.config:
        raise UserError(f"{path}: {run.why or f'no {CONFIG} yet'}; give another run, or restore its files")
    return run


def differing(a: Listed, b: Listed) -> Differing:
    flat = [_flat(r.config) for r in (a, b)]
    code_keys = [k for k in {*flat[0], *flat[1]} if k.startswith("about.code")]
    options = [{k: v for k, v in f.items() if k not in (*PATHS, *code_keys)} for f in flat]
    return Differing(
        _changed(options[0], options[1]),
        _changed(_data(a), _data(b)),
        _changed(_code(a), _code(b)),
        _changed(_results(a), _results(b), every=True),
    )


def _changed(a: Mapping[str, Any], b: Mapping[str, Any], every: bool = False) -> dict[str, Pair]:
    keys = dict.fromkeys([*a, *b])
    return {k: (a.get(k), b.get(k)) for k in keys if every or a.get(k) != b.get(k) or (k in a) != (k in b)}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in values.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
    return out


def _data(run: Listed) -> dict[str, Any]:
    """Where the data lie and what is in them; of a run that is not finished its fingerprint is not known."""
    card = _card(run.path)
    about = card.get("data", {})
    found = run.result.get("hashes", {}).get("data") or about.get("fingerprint")
    cases = {f"{k} cases": v for k, v in run.result.get("n", {}).items()}
    return {"path": run.data, "fingerprint": found, **cases}


def _code(run: Listed) -> dict[str, Any]:
    stored = json.loads((run.path / CONFIG).read_bytes()) if (run.path / CONFIG).is_file() else {}
    versions = run.result.get("versions") or stored.get("versions", {})
    return {**versions, "code": run.result.get("hashes", {}).get("code") or run.config.get("about", {}).get("code")}


def _card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads((path / "method.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def _results(run: Listed) -> dict[str, Any]:
    return {"state": run.state, "step": run.step, "loss": run.loss, **{r.name: r for r in run.reached}}


# -------------------------------------------------------------------------------------------------------------------- shown


def text(found: Differing, a: Listed, b: Listed) -> str:
    parts = [f"{name}  {r.path} ({r.kind}, {r.state})" for name, r in (("A", a), ("B", b))]
    for name, pairs in (
        ("options", found.options), ("data", found.data), ("code", found.code), ("results", found.results)
    ):  # fmt: skip
        rows = [(f"  {k}", _cell(x), _cell(y), _gain(x, y)) for k, (x, y) in pairs.items()]
        parts += ["", name, *(aligned([("", "A", "B", "B - A"), *rows]) if rows else ["  the same"])]
    both = [k for k, (x, y) in found.results.items() if getattr(x, "interval", None) and getattr(y, "interval", None)]
    if both:
        parts += [
            "",
            "whether a difference is more than chance: launch/compare.py A B, a paired test on the same cases",
        ]
    return "\n".join(parts)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, Reached):
        return reached_text(value).partition(" ")[2]
    return f"{value:.6g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _gain(a: object, b: object) -> str:
    x, y = (v.value if isinstance(v, Reached) else v for v in (a, b))
    if isinstance(x, bool) or isinstance(y, bool) or not isinstance(x, int | float) or not isinstance(y, int | float):
        return ""
    return f"{y - x:+.4g}" if x != y else ""


def plain(found: Differing) -> dict[str, Any]:
    def value(v: object) -> object:
        return {"value": v.value, "interval": v.interval, "split": v.split} if isinstance(v, Reached) else v

    return {
        part: {k: [value(x), value(y)] for k, (x, y) in getattr(found, part).items()}
        for part in ("options", "data", "code", "results")
    }
