"""What was decided about the values of a task's labels; which word says yes is told by `shards.tables.sides`."""

from __future__ import annotations

from dataclasses import dataclass, field

from shards.tables.sides import Sides


@dataclass(frozen=True)
class Understood:
    """What was decided about the values of a task's labels, for result.json and a run's first lines.

    sides      label -> which of its words are the event, the positive class or the finding
    uncertain  label -> what its uncertain answers were taken for, and how many there are
    blank      what an empty cell was taken for, and label -> how many there are
    """

    sides: dict[str, Sides] = field(default_factory=dict)
    uncertain: dict[str, tuple[str, int]] = field(default_factory=dict)
    blank: tuple[str, dict[str, int]] | None = None
