"""What a task may not ask at once, in words for its author: all of it, before any data are looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trainer.config.schema import address_problems
from trainer.downstream.task.by_encoder import key_problems
from trainer.downstream.task.rules.labels import label_problems
from trainer.downstream.task.rules.modes import mode_problems
from trainer.downstream.task.rules.output import output_problems
from trainer.downstream.task.rules.protocol import protocol_problems

if TYPE_CHECKING:
    from trainer.downstream.task.schema import Task


def problems_of(t: Task) -> Iterator[str]:
    yield from address_problems([t.data.path] if t.data.path else [])
    yield from label_problems(t)
    yield from key_problems(t)
    yield from protocol_problems(t)
    yield from output_problems(t)
    yield from mode_problems(t)
