"""What is said of each case, for people: a table with a line a case, and masks as pictures.

Shape letters: N cases, K columns, S seeds, H x W pixels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from shards.read.dataset import Dataset
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.predict import Drawn
from trainer.downstream.task.schema import Task
from trainer.state.files import write_atomic

DECIDED = ("binary", "multiclass", "ordinal")


def table(task: Task, seeds: Sequence[Predictions]) -> str:
    """CSV: sample, patient, the answer where there are classes, and each score: the mean over seeds and their standard deviation."""
    first = seeds[0]
    score_SNK = np.stack([_scores(p) for p in seeds])
    mean_NK, several = score_SNK.mean(0), len(seeds) > 1
    names = _columns(task, first)
    head = ["sample", "patient", *(["answer"] if first.kind in DECIDED else []), *names]
    head += [f"{n} sd over seeds" for n in names] if several else []
    head += _mask_columns(task)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(head)
    answers = _answers(seeds) if first.kind in DECIDED else None
    for i in range(len(first)):
        row = [first.keys_N[i], first.patients_N[i], *([answers[i]] if answers else [])]
        row += [f"{v:.9g}" for v in mean_NK[i]]
        row += [f"{v:.3g}" for v in score_SNK[:, i].std(0, ddof=1)] if several else []
        writer.writerow([*row, *_mask_names(task, first.keys_N[i])])
    return out.getvalue()


def write_table(path: Path, task: Task, seeds: Sequence[Predictions]) -> None:
    write_atomic(path, table(task, seeds).encode())


def _scores(p: Predictions) -> np.ndarray:
    """[N, K] as the table has them: of an ordinal answer without the column that says nothing; of masks the pixels predicted."""
    if p.kind == "ordinal":
        return p.score[:, 1:]
    if p.kind == "segmentation":
        return p.score[:, p.score.shape[1] // 2 :]
    return p.scores


def _columns(task: Task, p: Predictions) -> list[str]:
    if p.kind == "binary":
        return [f"P({p.classes[1]})"]
    if p.kind == "ordinal":
        return [f"P(at least {c})" for c in p.classes[1:]]
    if p.kind in ("multiclass", "multilabel"):
        return [f"P({c})" for c in p.classes]
    if p.kind == "segmentation":
        return [f"pixels of {m.name}" for m in task.masks]
    return ["log risk"] if p.kind == "survival" else list(task.labels)


def _answers(seeds: Sequence[Predictions]) -> list[str]:
    """By the mean of the seeds' probabilities."""
    p = replace(seeds[0], score=np.mean([s.score for s in seeds], 0))
    return [p.classes[k] for k in p.decided()]


# ------------------------------------------------------------------------------------------------------------------- masks


def _mask_columns(task: Task) -> list[str]:
    if task.kind != "segmentation":
        return []
    return ["mask"] if len(task.masks) == 1 else [f"mask of {m.name}" for m in task.masks]


def _mask_names(task: Task, key: str) -> Iterator[str]:
    if task.kind == "segmentation":
        for m in task.masks:
            yield f"masks/{key}.png" if len(task.masks) == 1 else f"masks/{key}-{m.name}.png"


def masks_writer(task: Task, data: Dataset, folder: Path) -> Drawn:
    """Writes a case's masks, 0 and 255, at its image's own size."""
    (folder / "masks").mkdir(exist_ok=True)

    def write(index: int, mask_KHW: np.ndarray) -> None:
        (key,) = data.keys_of(np.array([index]))
        for mask_HW, name in zip(mask_KHW, _mask_names(task, key), strict=True):
            content = io.BytesIO()
            Image.fromarray(mask_HW * np.uint8(255)).save(content, "PNG")
            write_atomic(folder / name, content.getvalue())

    return write
