"""What decides a result but data and weights, which have hashes of their own: the part of a setting that its hash is of.

A result is taken again where this is what it was. So a key that a task may leave out is no part of it where it is left out: such a task
is what it was before there was the key, and so are its results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.contract import Method
from models.decoders.build import decoder_of
from trainer.downstream.task.by_encoder import KINDS
from trainer.downstream.task.sections import Encoder

if TYPE_CHECKING:
    from trainer.downstream.setting.setting import Setting
    from trainer.downstream.task.schema import Task

FREE = ("out", "checkpoint", "health", "log", "resume", "leak", "reference", "activation_checkpointing", "tests")
"""Keys that say how, not what: they may change without making another result."""
SHOWN = ("attention", "gradients")
"""Keys of `output` for what is shown of a result."""


def identity(setting: Setting) -> dict[str, Any]:
    """All that decides the result but data and weights, as plain values."""
    task, source = setting.task, setting.source
    plain = task.model_dump(mode="json", exclude=set(FREE))
    plain["data"] = {k: plain["data"][k] for k in ("train", "val", "test")}
    plain["method"], plain["encoder"] = dict(source.changes), source.parts.model_dump(mode="json")
    if setting.prompts:
        plain["prompts"] = setting.prompts.prompts.plain()
    # What came of the keys of a kind of encoder for this one stands in the sections that they speak of.
    for key in ("image_size", *KINDS, *_left_out(setting)):
        del plain[key]
    for key in (*SHOWN, *_other_survival(task)):
        del plain["output"][key]
    # Of a task that draws nothing what stood there before there was `auto`, so that its results stay its own.
    plain["output"]["decoder"] = setting.decoder or decoder_of(Method, task.output.decoder)
    if task.kind == "segmentation" and len(task.masks) > 1:
        plain["structures"] = [m.name for m in task.masks]  # a mapping's order is a channel's number
    return {
        "task": plain,
        "method": source.method_name,
        "options": source.hashed_options(),
        "inputs": list(setting.fields),
    }


def _left_out(setting: Setting) -> list[str]:
    """Keys of a task that came later than its first results, where it asks nothing by them."""
    task = setting.task
    unset = {"groups": not task.groups, "site": not task.site, "hold_out": not task.hold_out}
    unset |= {"calibration": task.calibration == "none", "matmul": task.matmul == "torch"}
    unset |= {
        "compile": task.compile == "off",
        "prompts": not setting.prompts,
        "encoder": setting.source.parts == Encoder(),
    }
    return [key for key, is_unset in unset.items() if is_unset]


def _other_survival(task: Task) -> tuple[str, ...]:
    """Keys of `output` for a survival loss that is not the one asked for."""
    if task.output.survival == "intervals":
        return ()
    own = ("intervals", "alpha")
    return ("survival", *own) if task.output.survival == "cox" else own
