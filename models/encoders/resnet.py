"""Convolutional image encoders of timm, by their names: resnet18, resnet50, densenet121, convnext_tiny, regnety_008, ...

The network is `timm.create_model(name, features_only=True)`. Its weights come from a file, never from the network, and its batch
norms are those over all ranks that know padding (models/layers/batch_norm.py).

Shape letters: B images, C channels, H x W pixels, L places of the last map, D its channels.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field as Bounded
from torch import Tensor, nn

from models.contract import MethodError
from models.contract.loaded import Loaded, listed
from models.encoders.pyramid import Pyramid
from models.encoders.started import StartedOptions
from models.init.weights import load_strict, read_weights
from models.layers.batch_norm import globalised

COUNTER = "num_batches_tracked"


class ResNetOptions(StartedOptions):
    """Of a convolutional image encoder."""

    kind: Literal["resnet"] = "resnet"
    """The image encoder is a convolutional network of timm."""
    name: str = "resnet50"
    """Any of timm's that has maps of several strides, by its name: resnet18, resnet50, densenet121, convnext_tiny, ..."""
    image_size: int = Bounded(224, ge=8)
    """Pixels of a side; other images are resized."""

    def build(self, leave_out: int = 0) -> ConvNet:
        """The encoder, its weights loaded where a file is given.

        Args:
            leave_out: stages at its end that are left out, with their maps.

        Raises:
            MethodError: a name that timm does not know, a size that the network cannot take, or a file that does not fit.
        """
        net = ConvNet(self.name, self.image_size, leave_out)
        if self.init == "file":
            net.load_file(str(self.init_file))
        return net


class ConvNet(Pyramid):
    """An `ImageEncoder` (models/contract/image_encoder.py) around a timm network, which is `net`.

    Args:
        name: as `timm.list_models()` has it, without a tag of weights.
        image_size: pixels of a side, or (height, width).
        leave_out: stages at its end that are left out, with their maps.

    Raises:
        MethodError: a name that timm does not know (the nearest one is given), or no network whose maps shrink step by step.
    """

    def __init__(self, name: str = "resnet50", image_size: int | tuple[int, int] = 224, leave_out: int = 0):
        super().__init__()
        self.name = name
        self.image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
        net: Any = _created(name, leave_out)
        self.strides: tuple[int, ...] = tuple(net.feature_info.reduction())
        self.channels: tuple[int, ...] = tuple(net.feature_info.channels())
        self._tops = tuple(net.feature_info.module_name())
        self.net: nn.Module = globalised(net)
        self._check_maps()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the last map: a strided convolution rounds up."""
        H, W = self.image_size
        return -(-H // self.strides[-1]), -(-W // self.strides[-1])

    def _check_maps(self) -> None:
        """Asks for the shapes of all maps without computing them."""
        shrinks = all(a < b for a, b in zip(self.strides, self.strides[1:], strict=False))
        problem = MethodError(
            [f"{self.name} is no convolutional network with maps of several strides; take one, for example resnet50"]
        )
        if not shrinks or len(self.strides) < 4:
            raise problem
        with torch.no_grad():
            try:
                found = copy.deepcopy(self.net).to("meta").eval()(torch.empty(1, 3, *self.image_size, device="meta"))
            except (AssertionError, RuntimeError) as e:
                raise MethodError(
                    [f"{self.name} takes no images of {self.image_size}: {e}; give another image size"]
                ) from e
        H, W = self.image_size
        for x, channels, stride in zip(found, self.channels, self.strides, strict=True):
            if tuple(x.shape[:2]) != (1, channels):
                raise problem
            if tuple(x.shape[2:]) != (-(-H // stride), -(-W // stride)):
                sizes = f"{tuple(x.shape[2:])} places at stride {stride}"
                raise MethodError(
                    [f"{self.name} on images of {self.image_size} has {sizes}; give a multiple of {self.strides[-1]}"]
                )

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        """All maps, finest first."""
        return list(self.net(x_BCHW))

    def layers(self) -> list[tuple[str, ...]]:
        """A layer a map: what leads to it from the one before."""
        found: list[tuple[str, ...]] = []
        names: list[str] = []
        for name in self._parts():
            names.append(f"net.{name}.")
            if name.replace(".", "_") in {t.replace(".", "_") for t in self._tops}:
                found.append(tuple(names))
                names = []
        if names and found:
            found[-1] += tuple(names)
        return found

    def _parts(self) -> Iterator[str]:
        """Children in the order of the network; of a container that holds the tops of several maps, its own children."""
        for name, child in self.net.named_children():
            if any(t.startswith(f"{name}.") for t in self._tops):
                yield from (f"{name}.{n}" for n, _ in child.named_children())
            else:
                yield name

    def timm_state(self) -> dict[str, Tensor]:
        """The weights under the names of the whole timm network without its classifier.

        Raises:
            MethodError: that network has more behind its last map, of which this encoder knows nothing.
        """
        import timm

        flat = {_flat(n): v for n, v in self.net.state_dict().items()}
        with torch.device("meta"):
            names = list(timm.create_model(self.name, pretrained=False, num_classes=0).state_dict())
        if beyond := [n for n in names if _flat(n) not in flat]:
            raise MethodError(
                [
                    f"timm's {self.name} has {len(beyond)} tensors behind its last map {listed(beyond, ': ')}, which this encoder "
                    "was trained without; use --to safetensors"
                ]
            )
        return {n: flat[_flat(n)] for n in names}

    def load_file(self, path: str | Path) -> Loaded:
        """A file of the whole timm (or torchvision) network of this name; its classifier is left out."""
        import timm

        state = read_weights(path)
        own = self.net.state_dict()
        # timm writes `stem_0` here for `stem.0` there: flat, the two are one name.
        by_flat = {_flat(n): n for n in own}
        assert len(by_flat) == len(own), f"{self.name}: two tensors of one flat name"
        with torch.device("meta"):  # names alone, and no random number is used up
            beyond = {_flat(n) for n in timm.create_model(self.name, pretrained=False).state_dict()} - by_flat.keys()
        skipped = tuple(n for n in state if _flat(n) in beyond)
        given = {by_flat.get(_flat(n), n): v for n, v in state.items() if n not in skipped}
        # Counters, which old files lack: they decide nothing but the average of a norm without momentum.
        given |= {n: v for n, v in own.items() if n.endswith(COUNTER) and n not in given}
        return Loaded(str(path), load_strict(self.net, given, str(path)).taken, skipped)


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _created(name: str, leave_out: int) -> nn.Module:
    import timm

    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name.partition(".")[0], known, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else "timm.list_models() has them"
        tag = "; weights are given as a file, not as a tag" if "." in name else ""
        raise MethodError([f"timm has no model '{name}'; {hint}{tag}"])
    try:
        if not leave_out:
            return timm.create_model(name, pretrained=False, features_only=True)
        with torch.device("meta"):  # how many stages it has
            whole: Any = timm.create_model(name, pretrained=False, features_only=True)
        kept = tuple(range(len(whole.feature_info.reduction()) - leave_out))
        return timm.create_model(name, pretrained=False, features_only=True, out_indices=kept)
    except Exception as e:  # a model without features: timm has no one error for it
        raise MethodError(
            [f"timm's {name} gives no maps ({type(e).__name__}: {e}); take another, for example resnet50"]
        ) from e
