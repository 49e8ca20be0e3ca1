"""What finished runs are worth on held-back patients, against yardsticks harder than the chance values in metrics.jsonl.

    OMP_NUM_THREADS=1 python tests/real/held_back.py RUN [RUN ...] [--split test] [--visits 4]
    OMP_NUM_THREADS=1 python tests/real/held_back.py --linear DATA [--rounds 10]

mrm_relation  reconstruction against the training patients' mean image and mean genes; with another patient's other modality
mrm_record    the report term against word frequencies of the training reports; with another patient's image, with the mean image
mgi           patients against patients: cross-entropy, retrieval and rank among all of the split, several runs (splits) pooled
--linear      is anything shared by `image` and `rna` that a linear method finds? Regularised CCA of principal components, 5-fold

Nothing is trained here. Intervals are 95 % percentiles over 2,000 resamples of patients; means weigh hidden words (mrm_record) or
samples alike. Batches are not compared, so that a run's batch size does not matter.

Shape letters: B batch, N samples, P patients, L report places, D width, F pixels or features, K components.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.contract import Batch
from models.decoders.mae import patchify
from models.layers.patches import mask_order
from models.transforms.text import CLS, PAD
from shards.load.loader import Loader
from shards.order.mix import make_plan
from shards.read.dataset import Dataset
from trainer.data import sampler
from trainer.probe.probe import encoders_of

BATCH, RESAMPLES = 16, 2000


@dataclass
class Table:
    """Sums of named quantities and their weight, by patient; a mean is the one over the other."""

    sums: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))

    def add(self, patient: str, weight: float, **values: float) -> None:
        for name, value in {"weight": weight, **values}.items():
            self.sums[patient][name] += value

    def show(self, title: str, *differences: tuple[str, str]) -> None:
        names = [n for n in next(iter(self.sums.values())) if n != "weight"]
        sums_PQ = np.array([[s["weight"], *(s[n] for n in names)] for s in self.sums.values()])
        pick_RP = np.random.default_rng(0).integers(0, len(sums_PQ), (RESAMPLES, len(sums_PQ)))
        each_RQ = sums_PQ[pick_RP].sum(1)
        mean = dict(zip(names, sums_PQ.sum(0)[1:] / sums_PQ[:, 0].sum(), strict=True))
        draws = dict(zip(names, (each_RQ[:, 1:] / each_RQ[:, :1]).T, strict=True))
        print(f"{title}: {len(sums_PQ)} patients")
        for n in names:
            print(f"  {n:44} {mean[n]:9.4f}  [{_interval(draws[n])}]")
        for a, b in differences:
            print(f"  {f'{a} - {b}':44} {mean[a] - mean[b]:+9.4f}  [{_interval(draws[a] - draws[b])}]")


def _interval(draws_R: np.ndarray) -> str:
    low, high = np.percentile(draws_R, [2.5, 97.5])
    return f"{low:.4f} to {high:.4f}"


def batches(method: Any, data: Dataset, split: str, visit: int = 0) -> Iterator[tuple[Batch, list[str]]]:
    """Batches of a split without padding, and their patients."""
    subset = data.subset(split)
    names, at = data.patients_of(subset.indices), 0
    plan = make_plan(data, split, "sequential", visit, min(BATCH, len(subset)))
    loader = Loader(data, plan, sampler(method), method.collate, workers=0)
    try:
        for batch in loader.evaluate():
            n = int((batch.weight_B > 0).sum())
            yield rows(batch, torch.arange(n)), list(names[at : at + n])
            at += n
    finally:
        loader.close()


def rows(batch: Batch, pick: Tensor, **of: Tensor) -> Batch:
    """The samples `pick` of a batch; `of` names tensors that are taken from other samples of it."""
    tensors = {n: v[of.get(n, pick)] for n, v in batch.items()}
    return Batch(tensors, {n: v[pick] for n, v in batch.present.items()}, batch.weight_B[pick])


def strangers(patients: Sequence[str]) -> Tensor:
    """For each sample of a batch another one of another patient (itself where there is none)."""
    n = len(patients)
    later = [[j % n for j in range(i + 3, i + 3 + n) if patients[j % n] != patients[i]] for i in range(n)]
    return torch.tensor([others[0] if others else i for i, others in enumerate(later)])


# ------------------------------------------------------------------------------------------------------------ mrm_relation


def relation(method: Any, data: Dataset, split: str, visits: int, title: str) -> None:
    method.enter("pretrain")
    fields = list(method.widths)
    mean_F = _mean_image(method, data)
    images, genes = Table(), Table()
    for batch, patients in batches(method, data, split):
        target_BF = _pixels(method, batch)
        flat = (target_BF - mean_F).square().flatten(1).mean(1)
        has_all = torch.stack([torch.ones(len(patients), dtype=torch.bool), *(batch.present[f] for f in fields)]).all(0)
        other = strangers(patients)
        for i, patient in enumerate(patients):
            here, there = torch.tensor([i]), other[i : i + 1]
            own = method(rows(batch, here))
            images.add(patient, 1, **{"image": float(own.losses["rec_image"]), "mean training image": float(flat[i])})
            if fields and has_all[i] and has_all[there]:
                swapped = method(rows(batch, here, **dict.fromkeys(fields, there))).losses
                blind = method(rows(batch, here, image=there)).losses
                values = {
                    "genes": own.losses["rec_genes"],
                    "mean training genes": own.diagnostics["rec_genes_baseline"],
                    "genes, another's image": blind["rec_genes"],
                    "image where genes are known": own.losses["rec_image"],
                    "image, another's genes": swapped["rec_image"],
                }
                genes.add(patient, 1, **{n: float(v) for n, v in values.items()})
    images.show(f"{title}, image", ("image", "mean training image"))
    if genes.sums:
        genes.show(
            f"{title}, genes",
            ("genes", "mean training genes"),
            ("genes, another's image", "genes"),
            ("image, another's genes", "image where genes are known"),
        )


def _pixels(method: Any, batch: Batch) -> Tensor:
    return patchify(method._passes(batch)[1]["pixels"], method.options.image.patch)


def _mean_image(method: Any, data: Dataset) -> Tensor:
    parts = [_pixels(method, b) for b, _ in batches(method, data, "train")]
    return torch.cat(parts).mean(0)


# -------------------------------------------------------------------------------------------------------------- mrm_record


def record(method: Any, data: Dataset, split: str, visits: int, title: str) -> None:
    method.enter("pretrain")
    log_p_V, table = _word_frequency(method, data), Table()
    for visit in range(visits):
        for batch, patients in batches(method, data, split, visit):
            keep_BK, _ = mask_order(batch["noise"], method.options.mask_ratio)
            own_BLD = method.encoder(method.encoder_image(method.pixels(batch)), keep_BK)
            mean_BLD = own_BLD.mean(0, keepdim=True).expand_as(own_BLD)
            views = {"own image": own_BLD, "another's image": own_BLD[strangers(patients)], "mean image": mean_BLD}
            found = {name: _hidden_words(method, tokens, batch) for name, tokens in views.items()}
            hidden_BL = batch["hidden"]
            by_count_B = -(log_p_V[batch["report"].long()] * hidden_BL).sum(1)
            for i, patient in enumerate(patients):
                values = {name: float(ce_B[i]) for name, (ce_B, _) in found.items()}
                right = float(found["own image"][1][i])
                table.add(
                    patient,
                    float(hidden_BL[i].sum()),
                    **values,
                    **{"word frequency": float(by_count_B[i]), "found": right},
                )
    table.show(
        f"{title}, report (ln V {np.log(len(log_p_V)):.3f}), {visits} draws of hidden words",
        ("own image", "word frequency"),
        ("another's image", "own image"),
        ("mean image", "own image"),
    )


def _hidden_words(method: Any, tokens_BLD: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the hidden words of each report, summed, and how many are found; [B] each."""
    scores_TV, _ = method._scores(tokens_BLD, batch, False)
    hidden_BL, ids_BL = batch["hidden"], batch["report"].long()
    ce_BL, right_BL = torch.zeros(ids_BL.shape), torch.zeros(ids_BL.shape)
    ce_BL[hidden_BL] = F.cross_entropy(scores_TV.float(), ids_BL[hidden_BL], reduction="none")
    right_BL[hidden_BL] = (scores_TV.argmax(-1) == ids_BL[hidden_BL]).float()
    return ce_BL.sum(1), right_BL.sum(1)


def _word_frequency(method: Any, data: Dataset) -> Tensor:
    """ln of the frequency of each token in the training reports (one added to each), [V]; what is never hidden has none."""
    count_V = torch.ones(len(method.tokenizer))
    for batch, _ in batches(method, data, "train"):
        count_V += torch.bincount(batch["report"].long().flatten(), minlength=len(count_V))
    count_V[[PAD, CLS]] = 0
    return (count_V / count_V.sum()).clamp_min(1e-9).log()


# --------------------------------------------------------------------------------------------------------------------- mgi


def mgi(method: Any, data: Dataset, split: str, visits: int, title: str, table: Table | None = None) -> None:
    """Nothing augmented; a patient's genes against the split's slices, and against each patient's mean slice vector."""
    table = Table() if table is None else table
    method.inputs = ("image", "rna")
    method.enter("")
    image, gene, who = [], [], []
    for batch, patients in batches(method, data, split):
        image.append(F.normalize(method.image_proj(method._pooled_image(method._image_tokens(batch))), dim=-1))
        gene.append(F.normalize(method.gene_proj(method.genes(method._expression(batch))), dim=-1))
        who += patients
    names, first_P, of_N = np.unique(who, return_index=True, return_inverse=True)
    image_ND, gene_PD = torch.cat(image), torch.cat(gene)[torch.from_numpy(first_P)]
    logits_NP = float(method.temperature()[0]) * image_ND @ gene_PD.T
    ce_N = F.cross_entropy(logits_NP, torch.from_numpy(of_N), reduction="none")
    mean_PD = torch.stack([image_ND[torch.from_numpy(of_N == k)].mean(0) for k in range(len(names))])
    cosine_PP = mean_PD @ gene_PD.T
    rank_P = (cosine_PP < cosine_PP.diagonal()[:, None]).float().sum(1) / (len(names) - 1)
    chance = float(np.log(len(names)))
    print(f"{title}: {len(names)} patients, {len(of_N)} slices, ce {float(ce_N.mean()):.3f}, chance {chance:.3f}")
    for k, name in enumerate(names):
        values = {
            "cross-entropy - ln P (slices)": float(ce_N[torch.from_numpy(of_N == k)].mean()) - chance,
            "own genes nearest": float(cosine_PP[k].argmax() == k),
            "one in P": 1 / len(names),
            "rank of the own genes (chance 0.5)": float(rank_P[k]),
        }
        table.add(str(name), 1, **values)


# ------------------------------------------------------------------------------------------------------------------ linear


def linear(path: Path, rounds: int) -> None:
    """Regularised CCA on principal components of a patient's mean slice (32 x 32) and genes, against shuffled genes."""
    data = Dataset.open(path)
    image_PF, gene_PF = _per_patient(data)
    rng = np.random.default_rng(0)
    for k in (5, 10, 20):
        rank = np.mean([_held_out_rank(image_PF, gene_PF, k, r) for r in range(rounds)], 0)
        pick = rng.integers(0, len(rank), (RESAMPLES, len(rank)))
        shuffled = [_held_out_rank(image_PF, rng.permutation(gene_PF), k, r).mean() for r in range(2 * rounds)]
        print(
            f"{len(rank)} patients, {k} components: rank of the own genes {rank.mean():.3f} [{_interval(rank[pick].mean(1))}], "
            f"with shuffled genes {np.mean(shuffled):.3f} +- {np.std(shuffled):.3f}"
        )


def _per_patient(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    names = data.patients_of(np.arange(len(data)))
    slices, genes = defaultdict(list), {}
    for i, name in enumerate(names):
        x = torch.from_numpy(np.asarray(data[i].read("image"), np.float32)).reshape(
            1, 1, *data[i].read("image").shape[:2]
        )
        x = F.interpolate(x, (32, 32), mode="area").flatten()
        slices[name].append(((x - x.mean()) / (x.std() + 1e-6)).numpy())
        genes[name] = np.asarray(data[i].read("rna"), np.float64)
    return np.array([np.mean(slices[n], 0) for n in genes]), np.array(list(genes.values()))


def _held_out_rank(image_PF: np.ndarray, gene_PF: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Share of the fold's other patients whose genes fit a patient's image worse than the own, [P]; 0.5 at chance."""
    order, rank_P = np.random.default_rng(seed).permutation(len(image_PF)), np.zeros(len(image_PF))
    for fold in range(5):
        held = order[fold::5]
        known = np.setdiff1d(order, held)
        (x, x_held), (y, y_held) = (_components(a[known], a[held], k) for a in (image_PF, gene_PF))
        white_x, white_y = (_whitening(a.T @ a / len(a)) for a in (x, y))
        u, s, v = np.linalg.svd(white_x @ (x.T @ y / len(x)) @ white_y)
        p, q = x_held @ (white_x @ u[:, :4] * s[:4]), y_held @ (white_y @ v[:4].T)
        cosine = (p / np.linalg.norm(p, axis=1, keepdims=True)) @ (q / np.linalg.norm(q, axis=1, keepdims=True)).T
        rank_P[held] = (cosine < np.diag(cosine)[:, None]).sum(1) / (len(held) - 1)
    return rank_P


def _components(known_PF: np.ndarray, held_PF: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    mean = known_PF.mean(0)
    _, s, v = np.linalg.svd(known_PF - mean, full_matrices=False)
    scale = s[:k] / np.sqrt(len(known_PF))
    return (known_PF - mean) @ v[:k].T / scale, (held_PF - mean) @ v[:k].T / scale


def _whitening(cov_KK: np.ndarray) -> np.ndarray:
    w, v = np.linalg.eigh(cov_KK + np.eye(len(cov_KK)))
    return np.asarray(v @ np.diag(w**-0.5) @ v.T)


METHODS: dict[str, Callable[..., None]] = {"mrm_relation": relation, "mrm_record": record}


@torch.no_grad()
def main() -> int:
    p = argparse.ArgumentParser(description="Finished runs on held-back patients.")
    p.add_argument("runs", nargs="*", type=Path)
    p.add_argument("--split", default="test")
    p.add_argument("--visits", type=int, default=4, help="draws of hidden words (mrm_record)")
    p.add_argument("--linear", type=Path, help="a data set with image and rna")
    p.add_argument("--rounds", type=int, default=10)
    args = p.parse_args()
    if args.linear:
        linear(args.linear, args.rounds)
    pooled = Table()
    for out in args.runs:
        data, encoders = encoders_of(out)
        method = encoders["pretrained"].eval()
        (dataset,) = data.datasets
        title = f"{out.name} ({method.name}, {args.split})"
        if method.name == "mgi":
            mgi(method, dataset, args.split, args.visits, title, pooled)
        elif method.name in METHODS:
            METHODS[method.name](method, dataset, args.split, args.visits, title)
        else:
            p.error(f"{out} is a run of {method.name}; this compares {', '.join(METHODS)} and mgi")
        data.close()
    if pooled.sums:
        pooled.show("all mgi runs", ("own genes nearest", "one in P"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
