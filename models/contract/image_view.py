"""What a method does with an image once it is deployed, as facts that another library can repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Pool = Literal["avg", "max", "avgmax", "token", ""]


@dataclass(frozen=True)
class ImageView:
    """An image (uint8) on its way into a method's image encoder, and its tokens on their way out.

    size         pixels of a side
    channels     "rgb": the first three, one is repeated; "grey": luma by ITU-R 601, repeated; "second": the second of three or
                 the only one, repeated
    fit          "stretch": each side scaled by itself; "crop": the centre square, cut at whole pixels, then scaled;
                 "box": the same at fractions of a pixel
    resample     the filter; all widen their kernel where they shrink (antialiasing, as Pillow)
    mean, std    of a channel, taken out of pixels in [0, 1]; None: each image and channel by its own mean and deviation
    pool         how tokens after the last norm become `pooled`, without the class token: mean, maximum, (mean + maximum) / 2; or
                 "token", the class token; "" for what none of these says
    pooling      the same in words
    """

    size: int
    channels: Literal["rgb", "grey", "second"]
    fit: Literal["stretch", "crop", "box"]
    resample: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    pool: Pool
    pooling: str

    @property
    def own_statistics(self) -> bool:
        """Whether every image is standardised by itself."""
        return self.mean is None


@runtime_checkable
class ShowsView(Protocol):
    """A method whose image encoder can be used without it: it says what happens to an image before and after."""

    def image_view(self) -> ImageView: ...
