"""Contributions of places of cases: made, tested by deletion, and written as tables and pictures.

OUT/gradients/cases.csv           a line a map: sample, patient, answer, the answer's value and its background's, what the sum misses, files
OUT/gradients/deletion.csv        of each map what the answer loses without the tenth that speaks most for it, and without random places
OUT/gradients/SAMPLE.csv          place (row of `patches`, or cell), x, y, and a column of contributions an answer
OUT/gradients/SAMPLE-ANSWER.png   the same as a picture; SAMPLE-1-ANSWER.png, SAMPLE-2-ANSWER.png, ... where there are several

Shape letters: N places of a case, M answers, H x W pixels, C colours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch
from models.finetuned import Downstream
from shards.order.streams import sample_rng
from shards.read.dataset import Dataset
from trainer.downstream.maps.deletion import Deletion, trials, without_patches
from trainer.downstream.maps.gradients import (
    Contributions,
    Side,
    background,
    contributions,
    corners,
    covered,
    faded,
    with_field,
)
from trainer.downstream.maps.picture import signed_cells, signed_places
from trainer.downstream.maps.slides import COORDS, PATCHES
from trainer.downstream.maps.weighed import losses_of
from trainer.downstream.maps.write import Cells, csv_text, file_names, keep_alone, write_deletions
from trainer.errors import UserError
from trainer.state.files import write_atomic

FOLDER, NAME = "gradients", "gradients"
CASES = ("sample", "patient", "answer", "places", "value", "of_background", "missed", "largest", "table", "picture")


@dataclass(frozen=True)
class CaseMaps:
    """What each place of one case adds to its answers; xy_N2 as stored in the data set, or of cells in pixels of what the encoder sees.

    image_HWC  what the encoder sees, 0 to 255; None of a slide
    """

    key: str
    patient: str
    found: Contributions
    xy_N2: np.ndarray
    image_HWC: np.ndarray | None = None


def side_of_maps(fields: Sequence[str]) -> Side:
    """What the places are: patches where the encoder reads them, else cells of the image."""
    return "patches" if PATCHES in fields else "image"


def case_maps(method: Downstream, data: Dataset, index: int, device: torch.device) -> tuple[CaseMaps, list[Deletion]]:
    """The maps of one sample by itself, and their deletion test.

    Raises:
        UserError: an answer that is not finite, or of which nothing can be differentiated.
    """
    was, record = method.training, data[index]
    method.eval()
    side = side_of_maps(method.inputs)
    batch = method.collate([method.eval_sample(record, sample_rng(0, 0, index, 0))]).to(device)
    try:
        found = contributions(method, batch, side)
    except RuntimeError as e:
        raise UserError(
            f"output.gradients: sample '{record.key}': the answer of {method.encoder.name} cannot be differentiated in its {side} ({e}); "
            "leave output.gradients out"
        ) from e
    if not np.isfinite(found.of_MN).all():
        raise UserError(
            f"output.gradients: sample '{record.key}': the gradients are not finite, so the weights of this training say nothing of its "
            f"{side}; look at its losses, or leave output.gradients out"
        )
    if side == PATCHES:
        maps = CaseMaps(record.key, record.patient, found, np.asarray(record.read(COORDS)))
        without = without_patches(method, data, index, device)
    else:
        image_HWC = batch["image"][0].cpu().numpy()
        maps = CaseMaps(record.key, record.patient, found, corners(*image_HWC.shape[:2]), image_HWC)
        without = without_cells(method, batch)
    tested = trials(record.key, index, found.maps(NAME), found.toward, without, losses_of(method, found))
    method.train(was)
    return maps, tested


def without_cells(method: Downstream, batch: Batch) -> Callable[[np.ndarray], Tensor]:
    """Gives the logits [K] of an image some of whose cells are its background."""
    image_HWC, back_HWC = batch["image"][0].float(), background(batch["image"], "image")[0]

    @torch.no_grad()
    def logits(out_N: np.ndarray) -> Tensor:
        gone_HW1 = torch.from_numpy(faded(image_HWC.shape, out_N)).to(image_HWC)[..., None]
        changed_1 = (image_HWC + gone_HW1 * (back_HWC - image_HWC))[None]
        return method.logits(with_field(batch, "image", changed_1))[0][0].double()

    return logits


# -------------------------------------------------------------------------------------------------------------------- written


def write_cases(folder: Path, cases: Sequence[CaseMaps], deleted: Sequence[Deletion]) -> None:
    """Writes all files of the module's head; what an earlier start wrote of other cases is taken away."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {c.key: file_names(c.key, c.found.names) for c in cases}
    for case in cases:
        table, *pictures = names[case.key]
        write_atomic(folder / table, csv_text(("place", "x", "y", *case.found.names), _rows(case)))
        for m, file in enumerate(pictures):
            write_atomic(folder / file, _picture(case, m))
    lines = [line for c in cases for line in _lines(c, names[c.key])]
    write_atomic(folder / "cases.csv", csv_text(CASES, lines))
    write_deletions(folder, deleted)
    keep_alone(folder, {"cases.csv", *["deletion.csv"] * bool(deleted), *(f for fs in names.values() for f in fs)})


def _picture(case: CaseMaps, m: int) -> bytes:
    title = f"{case.key}: {case.found.names[m]} {case.found.answer_M[m]:.3g}"
    if case.image_HWC is None:
        return signed_places(case.xy_N2, case.found.of_MN[m], title)
    cell_HW = np.zeros(case.image_HWC.shape[:2])
    for n, value in enumerate(case.found.of_MN[m]):
        cell_HW[covered(case.image_HWC.shape, np.array([n]))] = value
    return signed_cells(case.image_HWC, cell_HW, title)


def _rows(case: CaseMaps) -> Iterator[Cells]:
    for i, (x, y) in enumerate(case.xy_N2.tolist()):
        yield i, x, y, *(f"{v:.9g}" for v in case.found.of_MN[:, i])


def _lines(case: CaseMaps, files: Sequence[str]) -> Iterator[Cells]:
    f = case.found
    for m, (name, file) in enumerate(zip(f.names, files[1:], strict=True)):
        numbers = (f.answer_M[m], f.background_M[m], f.missed[m], f.of_MN[m].max())
        yield case.key, case.patient, name, f.of_MN.shape[1], *(f"{v:.6g}" for v in numbers), files[0], file
