"""Images on their way to a model: fitting and augmenting in a worker thread, normalising on the device.

Shape letters: B images, C colours, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.transforms.crops import Picture, colours, eight_bit
from models.transforms.pixels import filtered

# Mean and standard deviation of ImageNet's colours, as every published ViT expects them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Those of the grey radiographs of MIMIC-CXR, as Zhou et al. 2023 (mrm_record) state them.
FILMS = ((0.4978,) * 3, (0.2449,) * 3)


def fitted(image: Picture | np.ndarray, size: int, fit: Literal["crop", "stretch"] = "crop") -> np.ndarray:
    """[H, W] or [H, W, C] -> uint8 [size, size, 3]; grey becomes three equal colours, opacity is left out.

    "crop" scales the shorter side to `size` and cuts the centre out; "stretch" scales each side by itself.
    """
    picture = image if isinstance(image, Picture) else Picture(eight_bit(image))
    H, W = picture.size
    side = min(H, W)
    left, top = ((W - side) / 2, (H - side) / 2) if fit == "crop" else (0.0, 0.0)
    box = (left, top, left + side, top + side) if fit == "crop" else (0, 0, W, H)
    pixels_HWC, divisor = picture.decoded(side / size)
    image_HWC = np.ascontiguousarray(colours(pixels_HWC, grayscale=False))
    if image_HWC.shape == (size, size, 3):
        return image_HWC
    # Pillow's bilinear resize widens its kernel when it shrinks, so fine structure does not alias.
    inner = (box[0] / divisor, box[1] / divisor, box[2] / divisor, box[3] / divisor)
    return np.asarray(Image.fromarray(image_HWC).resize((size, size), Image.Resampling.BILINEAR, inner))


def augment(image_HWC: np.ndarray, rng: np.random.Generator, rotate: float, flip: float) -> np.ndarray:
    """Rotation by up to `rotate` degrees either way (corners become black), horizontal flip with probability `flip`."""
    angle, mirrored = rng.uniform(-rotate, rotate), rng.random() < flip
    if rotate:
        image_HWC = filtered(image_HWC, lambda p: p.rotate(angle, Image.Resampling.BILINEAR))
    return np.ascontiguousarray(image_HWC[:, ::-1] if mirrored else image_HWC)


def _constants(device: torch.device, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(c, device=device).view(3, 1, 1) for c in (mean, std))  # type: ignore[return-value]


def normalised(image_BHWC: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] with ImageNet's mean and deviation taken out."""
    mean, std = _constants(image_BHWC.device)
    return (image_BHWC.permute(0, 3, 1, 2).float() / 255 - mean) / std


def to_pixels(image_BCHW: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> np.ndarray:
    """The inverse for people: uint8 [B, H, W, 3]."""
    mean_C11, std_C11 = _constants(image_BCHW.device, mean, std)
    scaled = ((image_BCHW.float() * std_C11 + mean_C11) * 255).round().clamp(0, 255)
    return scaled.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
