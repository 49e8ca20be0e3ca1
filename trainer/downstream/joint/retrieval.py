"""Retrieval between images and reports of the test split: each image looks for its report among all of them, each report for its image.

Reports of equal words, spaces and capitals aside, are one candidate, and every image of such a report is right: nobody could tell them
apart. That is a property of the data and not of a tokenizer, so all systems are asked the same.

Shape letters: N images, M different reports, C compared width, Q queries of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import comb
from typing import Any

import numpy as np

from models.contract import Method
from models.contract.joint import JointSpace, ReadText
from shards.read.dataset import Dataset
from shards.read.subset import Subset
from trainer.downstream.joint.embed import image_vectors, text_vectors
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.retrieval import AT, SIDES
from trainer.downstream.targets.read import Targets
from trainer.downstream.task.schema import Task
from trainer.downstream.task.texts import FIELD, plain
from trainer.errors import UserError
from trainer.runtime import Runtime

ROUNDING = 1e-12  # of a cosine: equal vectors tie, wherever they stand in a product of matrices
BLOCK = 512  # queries whose similarities with all candidates are held at a time


@dataclass(frozen=True)
class Reports:
    """Different reports as a text encoder gets them, and which of them each sample has (-1: none that it reads)."""

    texts: tuple[ReadText, ...]
    of: dict[int, int]

    def at(self, index_N: np.ndarray) -> np.ndarray:
        return np.array([self.of[int(i)] for i in index_N])


def read_reports(data: Dataset, split: str, targets: Targets, encoder: Method) -> tuple[Reports, Targets]:
    """The reports of a split's samples that take part; those of which the method reads no word take none, and are counted.

    Raises:
        UserError: fewer than two different reports: there is nothing to choose among.
    """
    assert isinstance(encoder, JointSpace)
    at = data.subset(split).indices
    at, used_N, silent = at[targets.used_N[at]], targets.used_N.copy(), 0
    texts, number, of = list[ReadText](), dict[str, int](), dict[int, int]()
    for i in at.tolist():
        text = str(data[i].read(FIELD)) if data[i].has(FIELD) else ""
        words = plain(text)
        if words not in number:
            read = encoder.read_text(text)
            number[words] = len(texts) if read.tokens else -1
            texts += [read] if read.tokens else []
        if number[words] < 0:
            used_N[i], silent = False, silent + 1
        else:
            of[i] = number[words]
    if len(texts) < 2:
        raise UserError(
            f"split '{split}' of {data.path} has {len(texts)} different reports that {encoder.name} can read among {len(at)} samples: "
            "there is nothing to choose among; take another split (data.test), or other sections (method.sections)"
        )
    left_out = targets.left_out | ({f"no word that {encoder.name} reads in {FIELD}": silent} if silent else {})
    return Reports(tuple(texts), of), replace(targets, used_N=used_N, left_out=left_out)


def retrieval_predictions(
    task: Task, method: Method, data: Dataset, subset: Subset, reports: Reports, runtime: Runtime
) -> tuple[Predictions, np.ndarray]:
    """Ranks of every test case, and the images' unit vectors [N, C]."""
    batch, workers = task.protocol.eval_batch, task.data.workers
    image_NC = image_vectors(method, data, subset, runtime, batch, workers)
    report_MC = text_vectors(method, reports.texts, runtime, batch)
    of_N = reports.at(subset.indices)
    count_M = np.bincount(of_N, minlength=len(reports.texts))
    found = Predictions(
        kind="retrieval",
        keys_N=np.array(data.keys_of(subset.indices)),
        patients_N=np.array(data.patients_of(subset.indices)),
        target=count_M[of_N],
        score=ranks(image_NC, report_MC, of_N),
    )
    return found, image_NC


def ranks(image_NC: np.ndarray, report_MC: np.ndarray, of_N: np.ndarray) -> np.ndarray:
    """For each sample the rank of its report among all M, and of the nearest right image among all N, [N, 2].

    of_N: the report of each image.
    """
    number_M = np.arange(len(report_MC))
    report_N = _rank(image_NC, report_MC, lambda block: of_N[block][:, None] == number_M)
    # Equal reports ask the same question: once each.
    image_M = _rank(report_MC, image_NC, lambda block: number_M[block][:, None] == of_N)
    return np.stack([report_N, image_M[of_N]], 1)


def _rank(query_QC: np.ndarray, candidate_KC: np.ndarray, right: Callable[[slice], np.ndarray]) -> np.ndarray:
    """1 + the wrong candidates that are nearer than the nearest right one, those as near counting one half."""
    out = []
    for start in range(0, len(query_QC), BLOCK):
        at = slice(start, start + BLOCK)
        cos_QK = query_QC[at] @ candidate_KC.T
        right_QK = right(at)
        best_Q1 = np.where(right_QK, cos_QK, -np.inf).max(1, keepdims=True)
        nearer_Q, equal_Q = (
            (~right_QK & found).sum(1) for found in (cos_QK > best_Q1 + ROUNDING, abs(cos_QK - best_Q1) <= ROUNDING)
        )
        out.append(1 + nearer_Q + equal_Q / 2)
    return np.concatenate(out)


def about_candidates(reports: Reports, index_N: np.ndarray) -> dict[str, Any]:
    """How many there are to choose among, and what a blind choice would find at K: for result.json."""
    right_N = np.bincount(reports.at(index_N))[reports.at(index_N)]
    N, M = len(index_N), len(reports.texts)
    chance = {f"{SIDES[0]}_r{k}": min(1.0, k / M) for k in AT}
    chance |= {f"{SIDES[1]}_r{k}": float(np.mean([_hit(N, int(r), k) for r in right_N])) for k in AT}
    return {"images": N, "reports": M, "chance": chance}


def _hit(candidates: int, right: int, k: int) -> float:
    """Probability that k of the candidates, drawn blindly, hold a right one."""
    return 1 - comb(candidates - right, min(k, candidates)) / comb(candidates, min(k, candidates))


def told(candidates: dict[str, Any]) -> Iterable[str]:
    """For a person."""
    yield (
        f"{candidates['images']} images and {candidates['reports']} different reports to choose among; found by chance: "
        + ", ".join(f"{name} {value:.3f}" for name, value in candidates["chance"].items())
    )
