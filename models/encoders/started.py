"""What every image encoder's options say of its first weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from models.contract import Options
from models.contract.start_files import StartFile


class StartedOptions(Options):
    """Base of the options of image encoders."""

    init: Literal["scratch", "file"] = "scratch"
    """First weights: random, or those of `init_file`."""
    init_file: StartFile = None
    """The file for `init: file`, of the same sizes: timm's or MAE's (ImageNet, say), .safetensors or .pth (read without running code)."""

    def problems(self, where: str) -> Iterable[str]:
        yield from super().problems(where)
        if (self.init == "file") != (self.init_file is not None):
            yield f"{where}.init=file and {where}.init_file=FILE go together; give both or neither"
