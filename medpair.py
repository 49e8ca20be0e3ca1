"""medpair in Python: a trained encoder on images and bags of one's own, and packed data sets (docs/api.md).

    import medpair

    encoder = medpair.encoder("runs/mgi")
    vectors = encoder.encode(["a.png", "b.png"])  # float32 [2, D]

This module is a door alone: everything behind it is in the packages `trainer`, `models` and `shards`. The command of the same name is
launch/medpair.py.
"""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from shards.read.dataset import Dataset
    from trainer.embedding.encoder import Encoder

__all__ = ["encoder", "open"]
PACKAGES = ("compiled", "configs", "launch", "models", "shards", "trainer")


def _not_whole() -> str:
    """Which packages cannot be found, and what to do: an editable installation knows those that there were when it was made.

    Empty where all are there.
    """
    lacking = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if not lacking:
        return ""
    root = Path(__file__).resolve().parent
    again = f"pip install --no-deps -e {shlex.quote(str(root))}"
    fix = again if (root / "pyproject.toml").is_file() else "install it again"
    return f"this installation of medpair was made before it had the package {', '.join(lacking)}: {fix}"


if _wrong := _not_whole():
    raise ImportError(_wrong)


def open(data: str | Path | None = None) -> Dataset:
    """A packed data set: `len(data)`, `data[i].read("image")`, `data.subset("test")`, `data.info`; without an argument the built-in demo
    cohort, which is generated on first use.

    Args:
        data: its folder, or its address (s3://, gs://, https://), which is read through a local cache.

    Raises:
        shards.errors.DataError: no data set, or one that was changed since it was sealed; a ValueError.
    """
    from shards.demo import ensure
    from shards.read.dataset import Dataset
    from trainer.data import demo_folder

    return Dataset.open(ensure(demo_folder()) if data is None else data)


def encoder(
    run: str | Path,
    *,
    bits: int | None = None,
    opacity: Literal["black", "white", "ignore"] | None = None,
    device: str | None = None,
) -> Encoder:
    """The encoder of a finished run, of a fine-tune of one (its first seed, without the head), or of an export `--to safetensors`.

    Args:
        run: the out=FOLDER of `medpair pretrain` or `medpair finetune`, or the folder of `medpair export --to safetensors`.
        bits: of images of 16 bits, how many are used, such as 12; what the run's own data set says, if not given.
        opacity: what lies under transparent pixels; images that have any are refused without a word on it.
        device: such as "cpu" or "cuda:1"; the first GPU if there is one.

    Raises:
        trainer.errors.UserError, models.contract.MethodError: no such run, or a damaged one; both are ValueErrors.
    """
    from trainer.runtime import choose_accelerator

    choose_accelerator()
    from trainer.embedding.encoder import Encoder, open_method

    return Encoder(open_method(Path(run)), bits, opacity, device)
