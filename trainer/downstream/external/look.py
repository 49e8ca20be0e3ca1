"""A trained run looked at on data of another origin: predictions of every case, and with answers a result like the runner's.

OUT/predictions.csv        a line a case, means over seeds (table.py)
OUT/predictions/seed-S.npz the same, seed by seed
OUT/masks/KEY.png          segmentation, of the first seed; KEY-STRUCTURE.png of several structures
OUT/attention/, gradients/ output.attention and output.gradients, as the runner writes them
OUT/shift.json, shift.png  how the cases differ from those of the run (shift.py)
OUT/result.json            with answers: format, metrics and intervals of the runner, and the drop from the run's own test cases
OUT/about.json             which run, data set and split
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shards.format.info import sha256_of
from trainer.downstream.code import code_hash, tree_hash
from trainer.downstream.external.folder import begin, discard, finish
from trainer.downstream.external.opened import External
from trainer.downstream.external.shift import shift_of, write_shift
from trainer.downstream.external.table import masks_writer, write_table
from trainer.downstream.external.told import first_lines, told
from trainer.downstream.maps.made import Made, asks_for_maps, make_maps
from trainer.downstream.metrics.apart import apart
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.recalibrated import of_plain, with_survival
from trainer.downstream.metrics.simulated import LEVEL, outside, size_of
from trainer.downstream.predict import EvalCases, EvalOutput, evaluated
from trainer.downstream.results import hash_of, keep_features, write_result
from trainer.downstream.samples import part
from trainer.downstream.setting.identity import FREE
from trainer.downstream.targets import said
from trainer.downstream.task.near import against
from trainer.downstream.task.schema import Task
from trainer.errors import UserError
from trainer.runtime import Runtime, agree_on_data, barrier, from_main
from trainer.state.files import write_atomic

ABOUT = "about.json"
FORMAT = 1


def look_once(found: External, name: str, runtime: Runtime, accept_code: bool = False) -> dict[str, Any]:
    """Looks at the data set, unless the folder holds that very look already; returns what about.json, or result.json, says.

    Args:
        name: what the data set is called in reports.
        accept_code: take a look that another version of the code made.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    agree_on_data(found.setting.data.fingerprint)
    out, identity = found.setting.out, _identity(found, name)
    kept = from_main(lambda: _kept(out, identity, accept_code))
    if kept is not None:
        runtime.say(f"{out}: looked at already, the same cases with the same weights")
        runtime.say(told(found, kept, out))
        return kept
    began = time.monotonic()
    near = from_main(
        lambda: against(found.setting.data, found.indices, found.trained.path, found.setting.task.leak.near)
    )
    for line in (*first_lines(found), *filter(None, (near["note"], *near["warnings"]))):
        runtime.say(line)
    making = from_main(lambda: begin(out))
    try:
        outputs = _outputs(found, runtime, making)
        maps = _maps(found, runtime)
        content = from_main(lambda: _write(found, identity, outputs, maps, making, time.monotonic() - began, near))
        from_main(lambda: finish(making, out))
    finally:
        if runtime.main:
            discard(making)
    for line in () if maps is None else maps.told(out, found.split):
        runtime.say(line)
    runtime.say(told(found, content, out))
    return content


def _identity(found: External, name: str) -> dict[str, Any]:
    """All that decides what is said of the cases."""
    files = {str(s): sha256_of(path) for s, path in found.trained.weights.items()}
    return {
        "name": name,
        "weights": files,
        "data": found.setting.data.fingerprint,
        "split": found.split,
        "evaluate": found.evaluate,
        "task": hash_of(asked_of(found.setting.task)),
        "features": hash_of([n for n in found.notes if "IMPUTED" in n]),
        "code": code_hash(found.setting.source.method_name),
    }


def asked_of(task: Task) -> dict[str, Any]:
    """What of a task decides what is said; not how its training was logged and saved."""
    asked: dict[str, Any] = task.model_dump(mode="json", exclude={*FREE, "data", "leak", "tests"})
    if not task.output.gradients:
        del asked["output"]["gradients"]  # a look without them is what it was before there was such a key
    for key in ("site", "hold_out"):
        del asked[key]  # said of the run's own test cases
    if task.calibration == "none":
        del asked["calibration"]  # a task without it is what it was before there was such a key
    return asked


def _kept(out: Path, identity: Mapping[str, Any], accept_code: bool) -> dict[str, Any] | None:
    if not (out / ABOUT).is_file():
        return None
    try:
        about = json.loads((out / ABOUT).read_bytes())
        old = about["identity"]
        changed = [k for k, v in identity.items() if old.get(k) != v and not (k == "code" and accept_code)]
        if changed:
            raise UserError(
                f"{out} holds another look (another {', '.join(changed)}): give another --out, or remove it to look again"
            )
        return json.loads((out / "result.json").read_bytes()) if identity["evaluate"] else about
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as e:
        raise UserError(f"{out}: damaged ({e!r}); remove it to look again") from e


def _outputs(found: External, runtime: Runtime, making: Path) -> list[EvalOutput]:
    """What each seed says of the cases."""
    setting, task = found.setting, found.setting.task
    data = setting.data
    subset = part(data, found.indices, found.split)
    reads = EvalCases(data, subset, task.protocol.eval_batch, task.data.workers, view=setting.view)
    outputs: list[EvalOutput] = []
    for seed in found.trained.weights:
        first = not outputs
        # Pictures are of the first seed; where answers are measured, examples show what a mask looks like.
        drawn = masks_writer(task, data, making) if first and task.kind == "segmentation" else None
        method = found.method(seed, runtime)
        outputs.append(
            evaluated(reads, method, found.targets(seed), runtime, examples=first and found.evaluate, drawn=drawn)
        )
    barrier()
    return outputs


def _maps(found: External, runtime: Runtime) -> Made | None:
    task = found.setting.task
    if not asks_for_maps(task):
        return None
    method = found.method(next(iter(found.trained.weights)), runtime)
    return make_maps(task, method, found.setting.data, found.indices, runtime.device)


def _write(
    found: External,
    identity: Mapping[str, Any],
    outputs: list[EvalOutput],
    maps: Made | None,
    out: Path,
    wall_s: float,
    near: Mapping[str, Any],
) -> dict[str, Any]:
    setting, seeds = found.setting, list(found.trained.weights)
    fits = [of_plain(f) for f in found.trained.result.get("recalibration", ())]
    predictions = [o.predictions for o in outputs]
    if setting.task.kind == "survival" and fits:
        predictions = [with_survival(p, f) for p, f in zip(predictions, fits, strict=True)]
    write_table(out / "predictions.csv", setting.task, predictions)
    if maps is not None:
        maps.write(out)
    write_shift(out, shift_of(found, outputs[0]))
    about = {
        "format": FORMAT,
        "identity": dict(identity),
        "run": str(found.trained.path),
        "data": {"path": str(setting.data.path), "name": setting.data.info.name, "split": found.split},
        "n": _n(found),
        "left_out": dict(setting.targets.left_out),
        "notes": list(found.notes),
        "seen": found.leaks[:-1],
        "near": dict(near),
    }
    write_atomic(out / ABOUT, json.dumps(about, indent=1).encode())
    if not found.evaluate:
        for seed, p in zip(seeds, predictions, strict=True):
            p.save(out / "predictions" / f"seed-{seed}.npz")
        return about
    keep_features(out, predictions[0], outputs[0].pooled_ND)
    content = {
        **_result(found, identity),
        "near": dict(near),
        "wall_s": wall_s,
        "external": _external(found, str(identity["name"]), predictions),
    }
    return write_result(out, setting.task, content, predictions, setting.metrics, outputs[0].examples, fits=fits)


def _n(found: External) -> dict[str, int]:
    known = found.trained.result["n"]
    at = found.indices
    return {
        "train": known["train"], "val": known["val"], "test": len(at), "test_patients": len(set(found.setting.data.patients_of(at))),
    }  # fmt: skip


def _result(found: External, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What the runner says of a result, of this one: the run's own words where it is the run that they speak of."""
    setting, run = found.setting, found.trained.result
    task, splits = setting.task, setting.splits
    lines = [f"IMPUTED features: {n}" for n in found.notes if "IMPUTED" in n]
    return {
        **{
            k: run[k]
            for k in ("method", "title", "mode", "init", "inputs", "decoder", "standardise", "seeds", "chosen")
            if k in run
        },
        "control": None,
        "leak": setting.leak.plain(),
        "first_line": "; ".join(filter(None, [setting.first_line, *lines])),
        "meaning": setting.meaning,
        "n": _n(found),
        "hashes": {
            **run["hashes"],
            "data": identity["data"],
            "code": identity["code"],
            "look": hash_of(dict(identity)),
        },
        "code_tree": tree_hash(),
        "code_accepted": run.get("code_accepted", []),
        "left_out": dict(setting.targets.left_out),
        "answers": {"words": said.plain(setting.targets), "counts": said.counts(task, setting.targets, splits)},
    }


def _external(found: External, name: str, predictions: list[Predictions]) -> dict[str, Any]:
    """Which result it stands beside, and what was lost from there to here."""
    run, b = found.trained.result, found.setting.task.bootstrap
    own = [Predictions.load(found.trained.path / n) for n in run["predictions"]]
    for n, wanted in zip(run["predictions"], run["predictions_sha256"], strict=True):
        if sha256_of(found.trained.path / n) != wanted:
            raise UserError(f"{found.trained.path / n} is another file than the run was measured from: restore it")
    same = set(own[0].keys_N) == set(predictions[0].keys_N) and identity_of(own[0], predictions[0])
    drop, judged = {}, list[str]()
    for metric in () if same else found.setting.metrics:
        d = apart(own, predictions, metric, b.draws, b.seed, b.level)
        judged += [metric] * (d.low == d.low)
        drop[metric] = {
            "internal": _plain(d.a), "external": _plain(d.b), "difference": _plain(d.difference),
            "interval": [_plain(d.low), _plain(d.high)], "level": d.level, "draws": d.draws, "undefined_draws": d.undefined,
        }  # fmt: skip
    smaller = min(own[0], predictions[0], key=lambda p: size_of(p)[0])
    return {
        "name": name,
        "split": found.split,
        "predictions_sha256": run["predictions_sha256"],
        "own": same,
        "drop": drop,
        "warnings": outside(smaller, judged, "hospitals") if b.level == LEVEL else [],
    }


def identity_of(a: Predictions, b: Predictions) -> bool:
    """Whether both are of the same patients' cases."""
    return set(a.patients_N) == set(b.patients_N)


def _plain(x: float) -> float | None:
    return None if np.isnan(x) else float(x)
