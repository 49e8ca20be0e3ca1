"""preprocessor_config.json, as processors of images on the Hugging Face hub read it, as far as these have words for a method's view."""

from __future__ import annotations

from typing import Any

from PIL import Image

from models.contract.image_view import ImageView


def preprocessor(view: ImageView) -> dict[str, Any]:
    """Sizes, filter, mean and deviation. `medpair.exact` says whether this is all that happens to an image of three channels of 8 bits;
    where it is not, the code in README.md is what the encoder was trained with."""
    size = {"height": view.size, "width": view.size}
    whole = view.fit == "stretch"
    lacking = _without_words(view)
    return {
        "image_processor_type": "ViTImageProcessor" if whole else "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": size if whole else {"shortest_edge": view.size},
        "resample": int(Image.Resampling[view.resample.upper()]),
        **({} if whole else {"do_center_crop": True, "crop_size": size}),
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": not view.own_statistics,
        "image_mean": list(view.mean or (0.0, 0.0, 0.0)),
        "image_std": list(view.std or (1.0, 1.0, 1.0)),
        "medpair": {"exact": not lacking, "lacking": lacking},
    }


def _without_words(view: ImageView) -> list[str]:
    """What happens to an image and no key of the file says."""
    found = []
    if view.channels != "rgb":
        found.append(f"channels: {view.channels}")
    if view.fit != "stretch":
        found.append("the centre square is cut before the image is scaled")
    if view.own_statistics:
        found.append("each image and channel is standardised by its own mean and deviation")
    return found
