"""A code book of a data set's images, for systems that name patches by codes: `medpair tokenizer DATA [DATA ...] --out FILE`
(or `python -m models tokenizer`, which starts it).

Views of training images are cut into small cells; their principal components are clustered by k-means, and the softmax's temperature is
found that leaves open as many codes as asked for. The same command on the same data gives the same code book.
Exit status: 0 done, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if TYPE_CHECKING:
    import numpy as np


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="medpair tokenizer", description="A code book of a data set's images.")
    p.add_argument("data", nargs="+", help="data sets with a field `image`; `demo` for the built-in cohort")
    p.add_argument("--out", type=Path, required=True, help="the code book: a new .safetensors file")
    p.add_argument("--split", default="train", help="whose images it is made of (train)")
    p.add_argument("--image-size", type=_whole, default=224, help="pixels of a view, as method.image.image_size (224)")
    p.add_argument("--patch", type=_whole, default=16, help="pixels of a patch, as method.image.patch (16)")
    p.add_argument("--cell", type=_whole, default=8, help="pixels of a cell; a patch is scaled to one (8)")
    p.add_argument("--codes", type=_whole, default=512, help="how many (512)")
    p.add_argument("--components", type=_whole, default=32, help="principal components of a cell (32)")
    p.add_argument("--choices", type=float, default=16.0, help="effective number of codes that a cell leaves open (16)")
    p.add_argument("--cells", type=_whole, default=100_000, help="cells that it is made of (100000)")
    p.add_argument(
        "--area", type=float, nargs=2, default=(0.5, 1.0), metavar="SHARE", help="of an image in a view (0.5 1)"
    )
    p.add_argument("--seed", type=int, default=0)
    add_all(p)
    return p


def _whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from trainer.errors import exit_status

    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from models.layers.code_book import CodeBook
    from trainer.errors import UserError

    if problems := list(_problems(args)):
        raise UserError(problems)
    cells_SP, images = _cells(args)
    book, said = CodeBook.fit(cells_SP, args.cell, args.codes, args.components, args.choices, args.seed)
    book.write(args.out)
    print(
        f"{args.out}: {book.codes} codes of cells of {args.cell} pixels, from {len(cells_SP)} cells of {images} images; "
        f"temperature {book.temperature:.4g} leaves {said['choices']:.1f} codes open\n"
        f"cells kept from the fit: {said['used']:.0f} codes used, perplexity {said['perplexity']:.1f}, squared error "
        f"{said['mse']:.2g} of a variance of {said['variance']:.2g}"
    )


def _problems(args: argparse.Namespace) -> list[str]:
    problems = []
    if args.split in ("val", "test"):
        problems.append(
            f"--split {args.split}: codes are learned in pre-training, and those of held-back images would be a leak; leave it out"
        )
    if args.out.suffix != ".safetensors":
        problems.append(f"--out {args.out}: a code book is a .safetensors file; name it so")
    if args.out.exists():
        problems.append(f"--out {args.out}: there already, and runs may name it; give a new name")
    elif not args.out.parent.is_dir():
        problems.append(f"--out {args.out}: there is no folder {args.out.parent}; make it")
    if args.image_size % args.patch:
        problems.append(f"--image-size {args.image_size}: not a multiple of the patch, {args.patch}; make it one")
    if args.cell > args.patch:
        problems.append(f"--cell {args.cell}: larger than the patch, {args.patch}, which becomes a cell; give less")
    if not 0 < args.area[0] <= args.area[1] <= 1:
        problems.append(f"--area {args.area[0]:g} {args.area[1]:g}: give two shares within (0, 1], the smaller first")
    if args.seed < 0:
        problems.append(f"--seed {args.seed}: give 0 or more")
    return problems


def _cells(args: argparse.Namespace) -> tuple[np.ndarray, int]:
    """Cells [S, P] of a random view of each image, images in random order until there are enough; and how many images that took."""
    import numpy as np
    import torch

    from models.transforms.cells import cells_of
    from models.transforms.crops import picture_of
    from models.transforms.views import Views
    from trainer.errors import UserError

    rng, side = np.random.default_rng(args.seed), args.image_size // args.patch
    views = Views("crop", args.image_size, count=1, scale=tuple(args.area))
    samples = _samples(args)
    each = min(side**2, max(1, math.ceil(args.cells / len(samples))))
    found: list[np.ndarray] = []
    for at in rng.permutation(len(samples)):
        data, index = samples[at]
        record = data[index]
        if record.has("image"):
            view_1HWC = torch.from_numpy(views.draw(picture_of(record, "image", grayscale=False), rng)["views"])
            cells_NP = cells_of(view_1HWC, (side, side), args.cell)[0].numpy()
            found.append(cells_NP[rng.permutation(side**2)[:each]])
        if len(found) * each >= args.cells:
            break
    if not found:
        raise UserError(
            f"no sample of split '{args.split}' of {', '.join(args.data)} has an image; choose another split"
        )
    return np.concatenate(found), len(found)


def _samples(args: argparse.Namespace) -> list[tuple[object, int]]:
    """(data set, number) of each sample of the split; data sets without images are refused."""
    from shards.demo import ensure
    from shards.errors import DataError, Problem
    from shards.read.dataset import Dataset
    from trainer.data import check_images, demo_folder, shard_cache

    opened = []
    for path in args.data:
        path = str(ensure(demo_folder())) if path == "demo" else path
        opened.append(Dataset.open(path, cache=shard_cache([path], None, 64.0)))
    wrong = [d for d in opened if "image" not in d.info.fields or d.info.fields["image"].kind != "image"]
    if wrong:
        raise DataError([Problem("no field 'image' of images", str(d.path), "pack one") for d in wrong])
    check_images(opened, ["image"])
    return [(d, int(i)) for d in opened for i in d.subset(args.split).indices]


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
