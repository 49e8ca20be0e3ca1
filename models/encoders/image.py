"""The options of a method that takes a vision transformer or a convolutional network: `image: ImageOptions = ViTOptions()`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from models.contract.explain import KIND
from models.encoders.resnet import ResNetOptions
from models.encoders.vit import ViTOptions

ImageOptions = Annotated[ViTOptions | ResNetOptions, Field(discriminator=KIND)]
"""`kind: vit | resnet` says which; `build()` gives the encoder (models/contract/image_encoder.py)."""
