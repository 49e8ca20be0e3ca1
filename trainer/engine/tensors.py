"""What a checkpoint has to bring back: every tensor of a method's state dict, whole, on every rank, known by its hash.

DeepSpeed's universal form, which another number of ranks loads, holds what an optimizer trains and nothing else. Frozen parameters and
buffers (running means, teachers, queues) come from the model states beside the shards, where every ZeRO stage keeps them:

    stage 0 to 2   mp_rank_00_model_states.pt                 the whole state dict of rank 0
    stage 3        zero_pp_rank_R_mp_rank_00_model_states.pt  buffers of rank R, and its fragment of each frozen parameter, flat, the
                                                              last ones padded
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainer.engine.optimizers import plain
from trainer.engine.teachers import put_shard

if TYPE_CHECKING:
    from trainer.engine.engine import Engine


PIECE = 32_768  # elements


def buffers(method: nn.Module) -> dict[str, Tensor]:
    """Those of the state dict."""
    kept = method.state_dict().keys()
    return {n: b for n, b in method.named_buffers() if n in kept}


def master(engine: Engine, name: str, p: nn.Parameter) -> Tensor | None:
    """The float32 weights behind a trained parameter, or the average behind a teacher's, whole, where ZeRO or 16 bits keep some apart.

    All ranks must call.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    average = engine.teachers.whole(name)
    if average is not None:
        return average
    if plain(engine.config) or not engine.trains(p):
        return None
    value = safe_get_full_fp32_param(p)
    return None if value is None else value.view(getattr(p, "ds_shape", p.shape))


def gathered(p: nn.Parameter) -> AbstractContextManager[object]:
    """A context in which a parameter is whole. All ranks must enter."""
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    return GatheredParameters([p]) if hasattr(p, "ds_id") else nullcontext()


# ---------------------------------------------------------------------------------------------------------------- hashes


def digest(*parts: Tensor) -> str:
    """SHA-256 of type, shape and values. Zero has no sign: a sum over ranks loses it."""
    sha = hashlib.sha256()
    for t in parts:
        value = t.detach().to("cpu").contiguous().reshape(-1)
        sha.update(f"{value.dtype} {tuple(t.shape)} ".encode())
        # By pieces that fit a processor's cache and are too small for a second thread: a checkpoint is hashed while training goes on.
        for piece in value.split(PIECE):
            piece = piece + 0.0 if piece.is_floating_point() else piece
            sha.update(piece.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def hashes(engine: Engine) -> dict[str, str]:
    """Name -> hash of every parameter (with the float32 weights behind it) and buffer, as this rank has it. All ranks must call."""
    return dict(_hashes(engine))


def _hashes(engine: Engine) -> Iterator[tuple[str, str]]:
    for name, p in engine.method.named_parameters():
        behind = master(engine, name, p)
        with gathered(p):
            yield name, digest(*([p] if behind is None else [p, behind]))
    for name, b in buffers(engine.method).items():
        yield name, digest(b)


def differing(mine: Mapping[str, str], saved: Mapping[str, str]) -> list[str]:
    """Names whose hashes are not equal, or that one side lacks."""
    return sorted(n for n in mine.keys() | saved.keys() if mine.get(n) != saved.get(n))


# ----------------------------------------------------------------------------------------- what no optimizer has a hold of


def untrained(folder: Path) -> dict[str, Tensor]:
    """Frozen parameters and buffers, whole, as DeepSpeed's model states in `folder` hold them (trained parameters may be among them).

    Raises:
        FileNotFoundError: no model states.
    """
    whole = folder / "mp_rank_00_model_states.pt"
    if whole.exists():
        return dict(_states(whole)["module"])
    ranks = {_rank(p): _states(p) for p in folder.glob("zero_pp_rank_*_mp_rank_00_model_states.pt")}
    if not ranks:
        raise FileNotFoundError(f"{folder}: no model states")
    first = ranks[0]
    out = {n: first["module"][n] for n in first["buffer_names"]}
    for name, shape in (first["frozen_param_shapes"] or {}).items():
        flat = torch.cat([ranks[r]["frozen_param_fragments"][name].reshape(-1) for r in sorted(ranks)])
        out[name] = flat[: shape.numel()].view(shape)
    return out


def _states(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=False)


def _rank(path: Path) -> int:
    found = re.match(r"zero_pp_rank_(\d+)_", path.name)
    assert found is not None, path
    return int(found.group(1))


@torch.no_grad()
def put(engine: Engine, values: Mapping[str, Tensor]) -> list[str]:
    """Writes the whole values into this rank's frozen parameters and buffers; trained parameters are left alone.

    Returns the names of frozen parameters and buffers that `values` lacks or has in another shape.
    """
    wrong: list[str] = []
    places: dict[str, Tensor] = dict(buffers(engine.method))
    places |= {n: p for n, p in engine.method.named_parameters() if not engine.trains(p)}
    for name, place in places.items():
        value, shape = values.get(name), getattr(place, "ds_shape", place.shape)
        if value is None or value.shape != shape:
            wrong.append(name)
            continue
        shard = getattr(place, "ds_tensor", None)
        if shard is not None:
            put_shard(shard, value, engine.runtime.rank)
        if shard is None or place.data.numel() == value.numel():
            place.data.copy_(value)
    return wrong
