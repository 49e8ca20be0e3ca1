"""`tests:` of a task: another hospital's data set, looked at once with the weights that validation chose (docs/predict.md)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.config.shared import Section


class OtherData(Section):
    path: str
    split: str | None = None
    """One split of it; by default all of it."""
    reads: dict[str, Any] = Field(default_factory=dict)
    """How its labels are read, where not as the task's own: label, classes, positive, event_value, leave_out, mask, ..."""
    impute: Literal["none", "mean"] = "none"
    """Features that the encoder was trained on and this set lacks: it is refused, or they stand at the training mean."""
    accept_leak: bool = False
    """Go on although some of its patients, images or bags were learned from; the result says so in its first line."""
