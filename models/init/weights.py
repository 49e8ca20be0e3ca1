"""Weights from files into modules, strictly: what did not match is listed by name, and nothing is guessed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from models.contract import MethodError
from models.contract.loaded import Loaded, listed
from models.init.grids import grids_in, grids_of_text

# Where training scripts keep the state dict inside a checkpoint.
CONTAINERS = ("model", "state_dict", "module", "teacher")


class Weights(dict[str, Tensor]):
    """Tensors of a file by name; `grids`: those of its vision transformers, by the module's name, where the file says them."""

    grids: Mapping[str, tuple[int, int]] = {}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], grids: Mapping[str, tuple[int, int]]) -> Weights:
        weights = cls(tensors)
        weights.grids = dict(grids)
        return weights


def weights_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file: the same weights are the same bytes. The library writes two words of metadata or more in an order of chance."""
    from safetensors.torch import save

    data = save({n: t.contiguous() for n, t in tensors.items()}, dict(metadata))
    if len(metadata) < 2:
        return data
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(data)[8 + length :]))


def read_weights(path: str | Path) -> Weights:
    """The tensors of a `.safetensors` or PyTorch file (`.pth`, `.pt`, `.bin`), unwrapped from a checkpoint's `model`.

    PyTorch files are read with `weights_only`: nothing in them is executed. Of classes, `argparse.Namespace` alone may stand in one.

    Raises:
        MethodError: no such file, not readable, or no tensors in it.
    """
    path = Path(path)
    if not path.is_file():
        raise MethodError(
            [f"{path}: no such weights file from {Path.cwd()}; give one that is there, by its whole path"]
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, "pt") as file:
                return Weights.of({n: file.get_tensor(n) for n in file.keys()}, grids_of_text(file.metadata()))  # noqa: SIM118
        # Training scripts keep their arguments beside the weights: a bag of values, whose class runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        raise MethodError(
            [
                f"{path}: not a readable weights file ({type(e).__name__}: {str(e).splitlines()[0]}); save it as safetensors"
            ]
        ) from e
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping) or not any(isinstance(v, Tensor) for v in content.values()):
        raise MethodError([f"{path}: no state dict in it (looked at the top and under {', '.join(CONTAINERS)})"])
    return Weights.of({str(k): v for k, v in content.items() if isinstance(v, Tensor)}, grids_in(content))


def load_strict(module: nn.Module, state: Mapping[str, Tensor], where: str, skip: Sequence[str] = ()) -> Loaded:
    """Loads `state` into `module`; every name must match in both directions but those that start with one of `skip`.

    Raises:
        MethodError: everything that did not match: names missing from the file, names unknown to the module, shapes.
    """
    own = module.state_dict()
    skipped = tuple(n for n in state if n not in own and n.startswith(tuple(skip))) if skip else ()
    unknown = [n for n in state if n not in own and n not in skipped]
    missing = [n for n in own if n not in state]
    shapes = [n for n in own if n in state and own[n].shape != state[n].shape]
    if missing or unknown or shapes:
        each = [f"{n} is {tuple(state[n].shape)}, the model's {tuple(own[n].shape)}" for n in shapes]
        raise MethodError([_refusal(where, own, missing, unknown, each)])
    taken = tuple(own)
    module.load_state_dict({n: state[n] for n in taken}, strict=True)
    return Loaded(where, taken, skipped)


def _refusal(
    where: str, own: Mapping[str, Tensor], missing: Sequence[str], unknown: Sequence[str], shapes: Sequence[str]
) -> str:
    """What a file is, as far as its tensors tell, what to do about it, and a line for each way in which it does not fit."""
    if 2 * len(missing) > len(own):
        said = "is of another network; give a file of this one, or name in the options the network that the file is of"
    elif shapes or 2 * len(unknown) > len(own):
        said = "is of a network of other sizes; give a file of these, or in the options the sizes that it was made with"
    else:
        said = "does not fit; give a file with all tensors of the model and no others"
    lines = [f"{where} {said}"]
    if missing:
        lines.append(f"lacks {len(missing)} of {len(own)} tensors{listed(missing, ': ')}")
    if unknown:
        lines.append(f"has {len(unknown)} tensors that the model does not{listed(unknown, ': ')}")
    if shapes:
        lines.append(f"has {len(shapes)} tensors of another shape{listed(shapes, ': ', '; ')}")
    return "\n    ".join(lines)
