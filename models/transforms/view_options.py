"""What the options of methods have in common about the view of an image in pre-training."""

from __future__ import annotations

from pydantic import Field as Bounded

from models.contract import Options


class ViewOptions(Options):
    """How an image is changed at random in pre-training; never in its deployed form."""

    flip: float = Bounded(0.5, ge=0, le=1)
    """Probability of a mirrored image in training."""


class TurnedOptions(ViewOptions):
    """Of methods that turn images."""

    rotate: float = Bounded(15.0, ge=0, le=180)
    """Largest rotation in training either way, in degrees."""
