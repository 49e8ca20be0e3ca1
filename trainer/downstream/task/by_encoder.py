"""What a protocol says for one kind of image encoder alone: `vit: {...}`, `resnet: {...}`, and the images' size for all kinds.

Of `vit`, keys of the section `encoder` (parts that are added for fine-tuning) go there, all others are options of the encoder
(`method.image`). What does not apply to an encoder of the other kind is left out, and said.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.contract import Method
from models.contract.explain import KIND, groups_of, kind_of
from models.encoders.resnet import ResNetOptions
from models.encoders.started import StartedOptions
from models.encoders.vit import ViTOptions
from trainer.errors import UserError

if TYPE_CHECKING:
    from trainer.downstream.task.schema import Task
    from trainer.downstream.task.sections import Encoder

KINDS: Mapping[str, type[StartedOptions]] = {"vit": ViTOptions, "resnet": ResNetOptions}
FROZEN = ("linear", "knn", "zeroshot")
"""Modes that look at the encoder as pre-training left it."""
NEW = ("relative_positions", "layer_scale")
STARTS = {KIND, "init", "init_file"}


@dataclass(frozen=True)
class Applied:
    """Changes to a method's options, the parts that are added to its image encoder, and what did not apply, as lines."""

    method: dict[str, Any]
    parts: Encoder
    left_out: tuple[str, ...] = ()


def keys_of(kind: str, parts: Sequence[str]) -> list[str]:
    """What a section may hold: the encoder's options but for its first weights; of a `vit` the parts too."""
    own = [k for k in KINDS[kind].model_fields if k not in STARTS]
    return [*own, *(parts if kind == "vit" else ())]


def key_problems(task: Task) -> list[str]:
    """Keys of `vit` and `resnet` that there are not, with the nearest; parts where no part could be trained."""
    parts, out = list(type(task.encoder).model_fields), []
    for kind in KINDS:
        known = keys_of(kind, parts)
        for key in getattr(task, kind):
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
                out.append(f"{kind}.{key}: unknown key; {hint}")
    if task.mode in FROZEN and (given := [k for k in task.vit if k in parts]):
        out.append(f"vit.{given[0]}: mode {task.mode} looks at the encoder as pre-training left it; leave it out")
    elif task.protocol.freeze == "encoder" and (new := [k for k in NEW if task.vit.get(k)]):
        out.append(f"vit.{new[0]}: protocol.freeze=encoder would never train it; leave it out")
    return out


def kind_in(cls: type[Method], options: Mapping[str, Any]) -> str | None:
    """The kind of image encoder that these options build; None for a method whose options hold none."""
    groups = groups_of(cls.Options, "image")
    if not groups:
        return None
    given = options.get("image")
    default = kind_of(type(cls.Options.model_fields["image"].default))
    return str(given.get(KIND, default)) if isinstance(given, Mapping) else default


def applied(task: Task, cls: type[Method], options: Mapping[str, Any], changes: Mapping[str, Any]) -> Applied:
    """The task's `vit`, `resnet` and `image_size` for an encoder of these options, below its own words for the method, `changes`.

    Raises:
        UserError: an image size for a method whose images have none that could be changed.
    """
    # The words may choose another kind than the recipe's.
    kind = kind_in(cls, cls.Options.over(options, changes))
    image: dict[str, Any] = {}
    parts, notes = dict[str, Any](), []
    for name in KINDS:
        section = getattr(task, name)
        if section and name != kind:
            has = f"is a {kind}" if kind else "has options of neither kind"
            notes.append(f"{name}: {', '.join(sorted(section))}: left out, the image encoder of {cls.name} {has}")
        elif section:
            parts = {k: v for k, v in section.items() if k in type(task.encoder).model_fields}
            image = {k: v for k, v in section.items() if k not in parts}
    if task.image_size is not None:
        if kind is None:
            _refuse_size(cls)
            options = {"image_size": task.image_size}
            return Applied(cls.Options.over(options, changes), task.encoder, tuple(notes))
        image["image_size"] = task.image_size
    own = {k: getattr(task.encoder, k) for k in task.encoder.model_fields_set}
    encoder = type(task.encoder).model_validate({**parts, **own})
    return Applied(cls.Options.over({"image": image} if image else {}, changes), encoder, tuple(notes))


def _refuse_size(cls: type[Method]) -> None:
    if "image_size" not in cls.Options.model_fields:
        raise UserError(f"image_size: {cls.name} takes no images of a size that could be changed; leave it out")
