"""Attention maps as files: a table of shares a slide, a picture a map, and lists of all slides and of the patches at both ends.

OUT/attention/slides.csv      a line a map: sample, patient, map, patches, effective_patches, largest share, files
OUT/attention/patches.csv     of each map the patches with the largest values and the smallest, with their places
OUT/attention/deletion.csv    of each map what the answer loses without the patches of largest shares, and without random ones
OUT/attention/SAMPLE.csv      patch (its row in `patches`), x, y, and a column a map
OUT/attention/SAMPLE-MAP.png  the same as a picture

Shape letters: N patches of a slide, M maps.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.finetuned import Downstream
from shards.order.streams import sample_rng
from shards.read.dataset import Dataset
from trainer.downstream.maps.deletion import Deletion
from trainer.downstream.maps.gradients import Contributions
from trainer.downstream.maps.picture import picture, signed_places
from trainer.downstream.maps.slides import COORDS
from trainer.downstream.maps.weighed import NAME, weighed
from trainer.errors import UserError
from trainer.state.files import write_atomic

ENDS = 10
"""Patches listed at each end of a map; fewer of a slide that has fewer than twice as many."""
ROUNDING = 1e-3
Cells = tuple[str | int | float, ...]
SLIDES = ("sample", "patient", "map", "patches", "effective_patches", "largest", "table", "picture")
DELETION = ("sample", "map", "patches_removed", "loss", "loss_of_random", "sd_of_random", "holds")
PATCHES = ("sample", "map", "end", "place", "patch", "x", "y", "value")


@dataclass(frozen=True)
class SlideMaps:
    """Maps of one slide: share_MN by `names`, each summing to 1; xy_N2 as stored in the data set.

    signed  what attention adds to the answer patch by patch (weighed.py); None of a system that does not say its scores
    """

    key: str
    patient: str
    names: tuple[str, ...]
    share_MN: np.ndarray
    xy_N2: np.ndarray
    signed: Contributions | None = None

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """{map: a number a patch}: shares, then what attention adds to each answer."""
        shares = dict(zip(self.names, self.share_MN, strict=True))
        return (
            shares
            if self.signed is None
            else shares | dict(zip(self.signed.maps(NAME), self.signed.of_MN, strict=True))
        )


def maps_of(method: Downstream, data: Dataset, index: int, device: torch.device) -> SlideMaps:
    """The maps of one sample, by itself: there is no padding.

    Raises:
        UserError: shares that are not finite, or do not sum to 1.
    """
    record = data[index]
    batch = method.collate([method.eval_sample(record, sample_rng(0, 0, index, 0))]).to(device)
    found = method.attention_maps(batch)
    share_MN = np.stack([w_1N[0].double().cpu().numpy() for w_1N in found.values()])
    wrong = [n for n, w_N in zip(found, share_MN, strict=True) if not abs(float(w_N.sum()) - 1) < ROUNDING]
    if wrong:
        raise UserError(
            f"output.attention: sample '{record.key}': the shares of {', '.join(wrong)} do not sum to 1, so the weights of this training "
            "say nothing of its patches; look at its losses, or leave output.attention out"
        )
    xy_N2 = np.asarray(record.read(COORDS))
    return SlideMaps(record.key, record.patient, tuple(found), share_MN, xy_N2, weighed(method, batch))


def write_maps(folder: Path, slides: Sequence[SlideMaps], deleted: Sequence[Deletion] = ()) -> None:
    """Writes all files of the module's head; what an earlier start wrote of other slides is taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {s.key: file_names(s.key, tuple(s.columns)) for s in slides}
    for slide in slides:
        write_atomic(folder / names[slide.key][0], csv_text(("patch", "x", "y", *slide.columns), _table(slide)))
        for (name, value_N), file in zip(slide.columns.items(), names[slide.key][1:], strict=True):
            drawn = picture if name in slide.names else signed_places
            write_atomic(folder / file, drawn(slide.xy_N2, value_N, f"{slide.key}: {name}"))
    write_atomic(folder / "patches.csv", csv_text(PATCHES, [row for s in slides for row in _ends(s)]))
    write_atomic(folder / "slides.csv", csv_text(SLIDES, [row for s in slides for row in _lines(s, names[s.key])]))
    write_deletions(folder, deleted)
    kept = {"slides.csv", "patches.csv", *["deletion.csv"] * bool(deleted), *(f for fs in names.values() for f in fs)}
    keep_alone(folder, kept)


def write_deletions(folder: Path, deleted: Sequence[Deletion]) -> None:
    if deleted:
        write_atomic(folder / "deletion.csv", csv_text(DELETION, [_tested(d) for d in deleted]))


def keep_alone(folder: Path, kept: Collection[str]) -> None:
    """Takes away what an earlier start wrote of other cases."""
    for path in folder.iterdir():
        if path.suffix in (".csv", ".png") and path.name not in kept:
            path.unlink()


def _tested(d: Deletion) -> Cells:
    return d.key, d.map, d.removed, f"{d.top:.6g}", f"{d.random:.6g}", f"{d.random_sd:.6g}", int(d.holds)


LISTS = ("cases", "deletion", "patches", "slides")
"""Names of the tables that stand beside those of samples."""


def file_names(key: str, names: Sequence[str]) -> tuple[str, ...]:
    """The table's name, then each picture's. Names of classes and gene sets may hold anything: a number keeps them apart."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "-", n).strip("-")[:40] for n in names]
    several = len(plain) > 1
    # A sample may be called like a list of the folder; no key has a dot (`KEY` of shards/format/info.py).
    table = f"{key}.sample.csv" if key in LISTS else f"{key}.csv"
    return (table, *(f"{key}-{f'{i}-' * several}{n}.png" for i, n in enumerate(plain, 1)))


def _table(slide: SlideMaps) -> Iterator[Cells]:
    for i, (x, y) in enumerate(slide.xy_N2.tolist()):
        yield i, x, y, *(f"{value_N[i]:.9g}" for value_N in slide.columns.values())


def _ends(slide: SlideMaps) -> Iterator[Cells]:
    """Largest first, smallest first; no patch at both ends. Of equal values the one that stands first in the slide comes first.

    Of a map with a sign the largest speak most for the answer, the smallest most against it.
    """
    N = len(slide.xy_N2)
    top = min(ENDS, (N + 1) // 2)
    for name, value_N in slide.columns.items():
        order_N = np.argsort(-value_N, kind="stable")
        smallest_N = np.array(
            [i for i in np.argsort(value_N, kind="stable") if i not in set(order_N[:top].tolist())], int
        )
        for end, picked in (("top", order_N[:top]), ("bottom", smallest_N[: min(ENDS, N // 2)])):
            for place, i in enumerate(picked.tolist(), 1):
                yield slide.key, name, end, place, i, *slide.xy_N2[i].tolist(), f"{value_N[i]:.9g}"


def _lines(slide: SlideMaps, files: Sequence[str]) -> Iterator[Cells]:
    """`effective_patches` is 1 / sum of squared shares: all of them where shares are equal, 1 where one patch has all."""
    for (name, value_N), file in zip(slide.columns.items(), files[1:], strict=True):
        effective = f"{1 / float((value_N**2).sum()):.4g}" if name in slide.names else ""
        yield slide.key, slide.patient, name, len(value_N), effective, f"{float(value_N.max()):.9g}", files[0], file


def csv_text(head: Sequence[str], rows: Iterable[Cells]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return out.getvalue().encode()


def told_of(slides: Sequence[SlideMaps], folder: Path, asked: int, split: str) -> str:
    """A line for a person."""
    maps: Mapping[str, None] = dict.fromkeys(n for s in slides for n in s.columns)
    few = f" (all that there are, of {asked} asked for)" if len(slides) < asked else ""
    return f"attention of {len(slides)} {split} slides{few}, of the first seed, maps {', '.join(maps)}: {folder}"
