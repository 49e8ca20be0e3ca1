"""One result.json, read strictly: another format, a missing or misshapen entry or a path that leaves the folder is an error.

Entries that this version does not know are left alone: an addition keeps the format's number, a change of meaning raises it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field, ValidationError, model_validator

from trainer.downstream.metrics.kinds import Kind
from trainer.errors import UserError
from trainer.reporting.result_parts import (
    Answers,
    Candidates,
    Chosen,
    Counts,
    External,
    Hashes,
    Init,
    Leak,
    Measured,
    Part,
    Reference,
    Sites,
    Subgroups,
)

NAME = "result.json"
FORMAT = 1


class Content(Part):
    """What stands in the file."""

    task: str
    kind: Kind
    method: str
    title: str = ""
    """What the recipe calls the system; empty: it goes by its method's name."""
    mode: str
    init: Init
    inputs: tuple[str, ...]
    control: str | None = None
    external: External | None = None
    sites: Sites | None = None
    hold_out: str | None = None
    """The site that nothing was learned from or chosen by, whose cases alone are tested."""
    leak: Leak
    first_line: str | None = None
    meaning: tuple[str, ...] = ()
    answers: Answers = Answers()
    warnings: tuple[str, ...] = ()
    standardise: str = "train"
    fraction: float | None = None
    shots: int | None = None
    draw: int | str = 0
    seeds: tuple[int, ...]
    chosen: tuple[Chosen, ...] = ()
    n: Counts
    primary: str
    metrics: dict[str, Measured]
    wall_s: float | None = None
    hashes: Hashes
    predictions: tuple[str, ...]
    predictions_sha256: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    candidates: Candidates | None = None
    groups: dict[str, Subgroups] = Field(default_factory=dict)
    groups_file: str | None = None
    groups_sha256: str | None = None
    recalibration: tuple[dict[str, object], ...] = ()
    """By seed, what the validation split says of how scores are to be read."""
    calibrated: dict[str, Measured] = Field(default_factory=dict)
    """Metrics of probabilities as that makes them."""
    reference: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Content:
        """Values that are each of their type and yet contradict another one: the file was edited, or cut."""
        if problems := [*self._counts(), *self._of_metrics(), *self._files()]:
            raise ValueError("; ".join(problems))
        return self

    def _counts(self) -> Iterator[str]:
        seeds = len(self.seeds)
        if not seeds or len(set(self.seeds)) != seeds:
            yield f"seeds {list(self.seeds)}: one or more different ones are needed"
        if len(self.predictions) != seeds:
            yield f"{len(self.predictions)} predictions for {seeds} seeds"
        if self.predictions_sha256 and len(self.predictions_sha256) != len(self.predictions):
            yield f"{len(self.predictions_sha256)} hashes for {len(self.predictions)} predictions"
        if self.calibrated and len(self.recalibration) != seeds:
            yield f"{len(self.recalibration)} recalibrations for {seeds} seeds"
        if seeds and self.n.test < 1:
            yield f"n.test {self.n.test}: no test case"
        if self.fraction is not None and not 0 < self.fraction <= 1:
            yield f"fraction {self.fraction} is not in (0, 1]"

    def _of_metrics(self) -> Iterator[str]:
        seeds = len(self.seeds)
        if self.primary not in self.metrics:
            yield f"primary '{self.primary}' is not among the metrics ({', '.join(self.metrics)})"
        for name, m in self.metrics.items():
            if len(m.per_seed) != seeds:
                yield f"metrics.{name}.per_seed has {len(m.per_seed)} values for {seeds} seeds"
            if m.k is not None and (len(m.k) != seeds or not all(0 <= k <= m.n for k in m.k)):
                yield f"metrics.{name}.k {list(m.k)} does not count right cases of n {m.n}, one a seed"
            if m.interval is not None and m.interval[0] > m.interval[1]:
                yield f"metrics.{name}.interval {list(m.interval)} is upside down"

    def _files(self) -> Iterator[str]:
        for name in (*self.predictions, *self.examples, *filter(None, [self.groups_file])):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                yield f"'{name}' leaves the result's folder"
        if self.groups and not (self.groups_file and self.groups_sha256):
            yield "groups without groups_file and groups_sha256"


@dataclass(frozen=True)
class Result:
    """A result and the folder it lies in."""

    folder: Path
    content: Content

    @property
    def measured(self) -> Measured:
        return self.content.metrics[self.content.primary]


def read_result(path: Path) -> Result:
    """Raises: UserError: every problem of the file, with what to do."""
    mend = "restore it, run the fine-tune again, or leave its folder out"
    try:
        text = path.read_text()
        raw = json.loads(text)
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be read as JSON ({e}); {mend}") from e
    if not isinstance(raw, dict) or "format" not in raw:
        raise UserError(f"{path}: not a result of launch/finetune.py (it has no 'format'); {mend}")
    if raw["format"] != FORMAT:
        raise UserError(
            f"{path}: format {raw['format']!r}, this version reads {FORMAT}; use the version of medpair that wrote it, "
            "or run the fine-tune again"
        )
    try:
        return Result(path.parent, Content.model_validate_json(text))
    except ValidationError as e:
        raise UserError(
            [f"{path}: {'.'.join(map(str, p['loc'])) or 'content'}: {p['msg']}; {mend}" for p in e.errors()]
        ) from e
