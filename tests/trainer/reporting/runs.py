"""Writes fine-tune results as a runner does: real predictions of simulated systems, real metrics and intervals.

`skill` is how much of the truth a simulated system sees. Shape letters: N cases, K classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import entry
from trainer.downstream.metrics.table import DEFAULTS

CASES, DRAWS = 60, 100
SIDE = 32


def predictions(kind: Any, skill: float, seed: int, cases: int = CASES, cohort: int = 0) -> Predictions:
    """Two cases a patient; the truth hangs on the cohort alone, the score also on skill and seed."""
    truth, noise = np.random.default_rng(cohort), np.random.default_rng([cohort, seed, round(1000 * skill)])
    keys_N = np.array([f"case-{i:04d}" for i in range(cases)])
    patients_N = np.array([f"patient-{i // 2:03d}" for i in range(cases)])
    grade_N = truth.integers(0, 3, cases)
    z_N = skill * (grade_N - 1.0) + noise.normal(size=cases)
    p_N = 1 / (1 + np.exp(-z_N))
    classes: tuple[str, ...] = ()
    scale = None
    if kind == "binary":
        target, score, classes = (grade_N > 1).astype(float), p_N, ()
    elif kind == "multiclass":
        logit_NK = skill * 2 * np.eye(3)[grade_N] + noise.normal(size=(cases, 3))
        score = np.exp(logit_NK) / np.exp(logit_NK).sum(1, keepdims=True)
        target, classes = grade_N.astype(float), ("mild", "moderate", "severe")
    elif kind == "multilabel":
        target, classes = np.stack([grade_N > 0, grade_N > 1], 1).astype(float), ("any", "much")
        target[0, 0] = np.nan
        score = np.stack([p_N, p_N**2], 1)
    elif kind == "ordinal":
        target, classes = grade_N.astype(float), ("none", "mild", "severe")
        score = np.stack([np.ones(cases), 1 / (1 + np.exp(-z_N - 1)), 1 / (1 + np.exp(1 - z_N))], 1)
    elif kind == "regression":
        target, score, scale = 50 + 10.0 * grade_N, 60 + 5 * z_N, np.array([8.0])
    elif kind == "survival":
        time_N = truth.exponential(np.exp(-(grade_N - 1.0))) * 24 + 1
        target, score = np.stack([time_N, truth.random(cases) < 0.6], 1).astype(float), z_N
        target = target[np.arange(cases) // 2 * 2]  # a patient has one time
    else:
        target = truth.integers(0, 200, cases).astype(float) * (grade_N > 0)
        both_N = np.floor(target * noise.uniform(min(skill, 1) / 2, 1, cases))
        score = np.stack([both_N, both_N + noise.integers(0, 40, cases)], 1)
    horizons = np.array([5.0, 12.0, 24.0, 40.0]) if kind == "survival" else None
    survival_NH = None if horizons is None else np.exp(-np.exp(score.clip(-3, 2))[:, None] * horizons / 40)
    return Predictions(
        kind, keys_N, patients_N, target, score, classes, scale, horizons_H=horizons, survival_NH=survival_NH
    )


def write(
    folder: Path, kind: Any = "binary", skill: float = 1.0, seeds: tuple[int, ...] = (0, 1, 2), cases: int = CASES,
    cohort: int = 0, **changes: Any,
) -> Path:  # fmt: skip
    """A result with its predictions in `folder`; `changes` replace entries of result.json."""
    made = [predictions(kind, skill, s, cases, cohort) for s in seeds]
    for s, p in zip(seeds, made, strict=True):
        p.save(folder / f"predictions/seed-{s}.npz")
    content = {
        "format": 1,
        "task": f"demo_{kind}",
        "kind": kind,
        "method": "gimp",
        "mode": "finetune",
        "init": {"kind": "pretrained", "path": "runs/gimp", "sha256": "ab" * 32},
        "inputs": ["patches"],
        "control": None,
        "leak": {"checked": True, "shared": 0, "ids": [], "note": "no test patient among 320 of pre-training"},
        "first_line": "No test patient was in the pre-training data.",
        "fraction": None,
        "shots": None,
        "draw": 0,
        "seeds": list(seeds),
        "n": {"train": 100, "val": 30, "test": cases, "test_patients": (cases + 1) // 2},
        "primary": DEFAULTS[kind][0],
        "metrics": {name: entry(made, name, draws=DRAWS) for name in DEFAULTS[kind]},
        "chosen": [],
        "wall_s": 12.5,
        "hashes": {"config": "c0", "data": f"d{cohort}", "checkpoint": None, "code": "e0"},
        "versions": {},
        "predictions": [f"predictions/seed-{s}.npz" for s in seeds],
        "examples": examples(folder, seeds[0]) if kind == "segmentation" else [],
        "reference": [],
    } | changes
    (folder / "result.json").write_text(json.dumps(content))
    return folder


SCRATCH: dict[str, Any] = {"init": {"kind": "scratch", "path": None, "sha256": None}}


def examples(folder: Path, seed: int) -> list[str]:
    """Two slices with round masks, one of them without truth and prediction."""
    rng = np.random.default_rng(seed)
    y_HW, x_HW = np.mgrid[:SIDE, :SIDE]
    names = []
    for i, (true, predicted) in enumerate(((8, 6), (0, 0))):
        image_HWC = rng.integers(0, 255, (SIDE, SIDE, 3 if i else 1), dtype=np.uint8)
        disc = [((y_HW - 12) ** 2 + (x_HW - c) ** 2 < r * r).astype(np.uint8) for c, r in ((14, true), (16, predicted))]
        names.append(f"examples/case-{i}.npz")
        (folder / "examples").mkdir(exist_ok=True)
        np.savez(folder / names[-1], image_HWC=image_HWC, truth_HW=disc[0], predicted_HW=disc[1])
    return names


def features(folder: Path, cases: int = CASES) -> None:
    """Features of two clusters beside the result, named by code."""
    label_N = np.arange(cases) % 2
    x_ND = np.random.default_rng(0).normal(size=(cases, 8)) + 4 * label_N[:, None]
    np.savez(folder / "features.npz", x_ND=x_ND.astype(np.float32), label_N=label_N)


def cohort_of_runs(root: Path) -> Path:
    """Every kind of task, two methods, pre-trained and from scratch, three amounts; a control, a leak, draws, a run still going."""
    reference = [
        {"system": "A paper, Table 1", "metric": "accuracy", "value": 0.9947, "data": "946 patients, 190 tested"}
    ]
    for kind in DEFAULTS:
        starts: list[tuple[str, float, dict[str, Any]]] = [("pretrained", 2.0, {}), ("scratch", 1.0, SCRATCH)]
        for name, skill, changes in starts:
            folder = write(
                root / f"{kind}-{name}", kind, skill, reference=reference if kind == "binary" else [], **changes
            )
            if kind == "binary":
                features(folder)
                for fraction, part in ((0.01, 0.3), (0.1, 0.7)):
                    n = {"train": int(100 * fraction), "val": 30, "test": CASES, "test_patients": CASES // 2}
                    write(root / f"{kind}-{name}-{fraction}", kind, skill * part, fraction=fraction, n=n, **changes)
    write(root / "binary-mgi", "binary", 1.5, method="mgi", inputs=["image", "rna"])
    write(root / "binary-mgi-shuffled", "binary", 0.9, method="mgi", inputs=["image", "rna"], control="shuffled")
    leak = {"checked": True, "shared": 3, "ids": ["patient-000", "patient-001", "patient-002"], "note": ""}
    line = "LEAK: 3 of 30 test patients were in the pre-training data (patient-000, ...)."
    write(root / "binary-leak", "binary", 4.0, method="mrm_record", inputs=["image"], leak=leak, first_line=line)
    for shots in (1, 5):
        for draw in (0, 1):
            write(root / f"shot-{shots}-{draw}", "multiclass", 0.3 * shots + 0.1 * draw, (0, 1), shots=shots, draw=draw)
    going = root / "ordinal-mgi"
    going.mkdir(parents=True)
    (going / "config.json").write_text(
        json.dumps({"config": {"task": "demo_ordinal", "method": "mgi"}, "versions": {}})
    )
    return root
