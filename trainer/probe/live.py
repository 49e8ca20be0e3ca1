"""Looks at what the encoder knows while it trains: k-NN and effective rank of held-back features, every so many steps.

An evaluation changes nothing of the training. Rank 0 has a method of its own in the deployed form, into which the weights of the moment are
copied; the one that trains is not put into another mode, and no random number is drawn. All together they take at most a stated share of
the time: one that would take more is put off to the next of its steps.

Shape letters: N held-back samples, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.contract import Method, Sample
from models.contract.method import IMAGE_SIDE
from shards.errors import DataError
from shards.order.streams import sample_rng
from shards.read.dataset import Dataset
from shards.read.record import ShardRecord
from shards.tables.identity import person
from trainer.config.schema import Config, LiveProbe
from trainer.data import Data, sampler
from trainer.engine.engine import Engine
from trainer.errors import UserError
from trainer.runtime import Runtime

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""As in Caron et al. (DINO, ICCV 2021), section 4.1, and Wu et al. 2018."""
EPSILON = 1e-7
BATCH = 16


def rank_me(x_ND: Tensor) -> float:
    """RankMe (Garrido et al., ICML 2023, equation 1): exp of the entropy of the singular values' shares, each with 1e-7 added.

    Of features as they are, not centred, unlike `trainer.health.steps.effective_rank`. Between 1 and min(N, D).
    """
    s = torch.linalg.svdvals(x_ND.double())
    p = s / s.sum().clamp_min(torch.finfo(torch.float64).tiny) + EPSILON
    return float(torch.exp(-(p * p.log()).sum()))


def other_peoples_votes(x_ND: Tensor, people_N: np.ndarray, class_N: np.ndarray) -> tuple[float, float]:
    """(balanced accuracy, chance) of a weighted vote of the 20 nearest samples of other patients, by cosine.

    Args:
        class_N: class codes, 0 and up. Chance is one over the number of classes among them.
    """
    unit_ND = torch.nn.functional.normalize(x_ND.double(), dim=1)
    cosine_NN = unit_ND @ unit_ND.T
    _, of_N = np.unique(people_N, return_inverse=True)
    cosine_NN[torch.from_numpy(of_N[:, None] == of_N[None])] = -torch.inf
    near_NJ, at_NJ = cosine_NN.topk(min(NEIGHBOURS, len(cosine_NN)), dim=1)
    weight_NJ = (near_NJ / TEMPERATURE).exp().numpy()
    classes = np.unique(class_N)
    votes_NC = np.stack([(weight_NJ * (class_N[at_NJ.numpy()] == c)).sum(1) for c in classes], 1)
    said_N = classes[votes_NC.argmax(1)]
    return float(np.mean([(said_N[class_N == c] == c).mean() for c in classes])), 1 / len(classes)


def of_several(people_N: np.ndarray, class_N: np.ndarray) -> list[int]:
    """Classes that two patients or more are of: nobody else could vote for one of a single patient. Codes below 0 are no class."""
    classes = [c for c in np.unique(class_N).tolist() if c >= 0]
    return [c for c in classes if len(np.unique(people_N[class_N == c])) > 1]


def check_live_probe(config: Config, data: Data) -> None:
    """Nothing where there are none.

    Raises:
        UserError: all that is wrong with `monitor.probe` at once.
    """
    asked, split = config.monitor.probe, config.data.val_split
    if not asked.every:
        return
    problems = []
    if not split or not any(d.info.splits.get(split) for d in data.datasets):
        problems.append(
            f"monitor.probe.every={asked.every}: no sample is held back (data.val_split={split or ''}); name a split, or set "
            "monitor.probe.every=0"
        )
    label = data.schema.labels.get(asked.label or "")
    if asked.label is not None and (label is None or label.kind != "class"):
        known = ", ".join(n for n, v in data.schema.labels.items() if v.kind == "class") or "none"
        problems.append(
            f"monitor.probe.label={asked.label}: no label of classes of {data.schema.source}; it has {known}; name one of them, or "
            "leave it out to see the effective rank alone"
        )
    if problems:
        raise UserError(problems)


@dataclass
class _HeldBack:
    """Samples that are looked at, the same ones each time."""

    data: Dataset
    index_N: np.ndarray


class LiveProbes:
    """The evaluations of one stage; every rank has one, rank 0 does the work.

    Args:
        build: the method with any weights, built before the training's random numbers are seeded.
    """

    def __init__(self, config: Config, data: Data, runtime: Runtime, build: Callable[[], Method]):
        self.asked: LiveProbe = config.monitor.probe
        self.runtime, self.config = runtime, config
        self.spent = 0.0
        self.times = self.put_off = 0
        self._began = time.perf_counter()
        self._cost: float | None = None
        self.parts = self._chosen(data)
        self.method: Method | None = None
        if runtime.main:
            self.method = build()
            self.method.inputs = self.method.fields_of(*IMAGE_SIDE)
            self.method.enter("")
            self.method.requires_grad_(False).eval().to(runtime.device)

    def _chosen(self, data: Data) -> list[_HeldBack]:
        """At most `monitor.probe.samples`, evenly from each data set's held-back split."""
        split = self.config.data.val_split
        assert split
        with_split = [d for d in data.datasets if d.info.splits.get(split)]
        each = max(1, self.asked.samples // len(with_split))
        parts = []
        for d in with_split:
            at_N = d.subset(split).indices
            parts.append(_HeldBack(d, at_N[np.unique(np.linspace(0, len(at_N) - 1, min(each, len(at_N))).astype(int))]))
        return parts

    # ------------------------------------------------------------------------------------------------------------- when

    def wants(self, step: int, step_s: float) -> bool:
        """Whether rank 0 would evaluate after this step; False on other ranks, who follow (trainer/loop.py).

        The first one is taken to cost twice what as many training samples of one rank cost: in it nothing goes backwards, but its
        samples are read on the spot.

        Args:
            step_s: seconds that this step has taken up to here.
        """
        if not self.runtime.main or step % self.asked.every:
            return False
        samples = sum(len(p.index_N) for p in self.parts)
        of_one_rank = self.config.global_batch / self.runtime.world
        cost = self._cost if self._cost is not None else 2 * step_s * samples / of_one_rank
        affordable = self.spent + cost <= self.asked.share * (time.perf_counter() - self._began + cost)
        self.put_off += not affordable
        return affordable

    def text(self) -> str:
        """What is said at the end of a stage."""
        share = self.spent / max(time.perf_counter() - self._began, 1e-9)
        later = f"; {self.put_off} were put off, since all may take {self.asked.share:.2%}"
        return f"live probes: {self.times} evaluations, {share:.2%} of the time{later if self.put_off else ''}"

    # ------------------------------------------------------------------------------------------------------------- what

    def evaluate(self, engine: Engine) -> dict[str, float]:
        """Named readings, on rank 0 alone; all ranks call, since weights may be sharded."""
        began = time.perf_counter()
        weights = engine.weights()
        if not self.runtime.main:
            return {}
        assert self.method is not None
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            self.method.load_state_dict(weights, strict=True)
            x_ND, people_N, class_N = self._features()
        found = {} if len(x_ND) < 2 or not bool(torch.isfinite(x_ND).all()) else self._readings(x_ND, people_N, class_N)
        self._cost = time.perf_counter() - began
        self.spent += self._cost
        self.times += 1
        share = self.spent / max(time.perf_counter() - self._began, 1e-9)
        return {**found, "probe/seconds": self._cost, "probe/share_of_time": share}

    def _readings(self, x_ND: Tensor, people_N: np.ndarray, class_N: np.ndarray) -> dict[str, float]:
        found = {"probe/rank_me": rank_me(x_ND), "probe/samples": float(len(x_ND))}
        asked_N = np.isin(class_N, of_several(people_N, class_N))
        if len(np.unique(class_N[asked_N])) > 1:
            right, chance = other_peoples_votes(x_ND[torch.from_numpy(asked_N)], people_N[asked_N], class_N[asked_N])
            found |= {"probe/knn": right, "probe/knn_chance": chance}
        return found

    def _features(self) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """Pooled features [N, D], patients, and class codes (-1 where unknown) of the samples that can be read."""
        rows: list[Tensor] = []
        people: list[str] = []
        codes: list[int] = []
        for part in self.parts:
            names = list(part.data.patients_of(part.index_N))
            for first in range(0, len(part.index_N), BATCH):
                made, who = [], []
                for index, name in zip(part.index_N[first : first + BATCH].tolist(), names[first:], strict=False):
                    try:
                        record = part.data[index]
                        sample, code = self._sample(record, index), self._code(part.data, record)
                    except DataError:
                        continue  # an evaluation names it, or ends the run for it
                    made.append(sample)
                    who.append((person(name), code))
                if made:
                    assert self.method is not None
                    batch = self.method.collate(made).to(self.runtime.device)
                    rows.append(self.method.encode(batch)["pooled_BD"].float().cpu())
                    people += [w for w, _ in who]
                    codes += [c for _, c in who]
        return torch.cat(rows) if rows else torch.zeros(0, 1), np.array(people), np.array(codes)

    def _sample(self, record: ShardRecord, index: int) -> Sample:
        assert self.method is not None
        return sampler(self.method)(record, sample_rng(0, 0, index, 0))

    def _code(self, data: Dataset, record: ShardRecord) -> int:
        if self.asked.label is None:
            return -1
        classes = data.info.labels[self.asked.label].classes
        value = record.labels.get(self.asked.label)
        return classes.index(value) if value in classes else -1
