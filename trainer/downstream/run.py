"""A setting from task and encoder to result.json: seeds, learning rates, one look at the test split.

OUT/config.json            task, encoder, what they resolved to; there from the start
OUT/seed-S/lr-R/           a training (trial.py)
OUT/predictions/seed-S.npz what was said of every test case
OUT/features.npz           pooled vectors of test cases, of the first seed, to be drawn in two dimensions
OUT/result.json            written last
OUT/trained.json, ...      what launch/predict.py needs (external/trained.py)
OUT/attention/             output.attention: tables and pictures of what patches count, of the first seed (maps/write.py)
OUT/gradients/             output.gradients: of what places of a case add to its answer (maps/cases.py)
OUT/control-shuffled/      the same weights with another patient's genes; control-missing/: without
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from shards.check.near import Signatures
from trainer.config.schema import by_todays_names
from trainer.downstream.code import tree_hash
from trainer.downstream.external.tests import look_at_tests
from trainer.downstream.external.trained import keep, kept
from trainer.downstream.joint.retrieval import about_candidates, told
from trainer.downstream.maps.made import asks_for_maps, make_maps
from trainer.downstream.measured import Measured, measure, tested, trained, training_of
from trainer.downstream.results import hash_of, keep_features, reusable, summary, write_result
from trainer.downstream.setting import Setting
from trainer.downstream.sites.analysis import Asked, site_report
from trainer.downstream.sites.folds import FOLDS
from trainer.downstream.targets import said
from trainer.downstream.task.near import looked_for, unlooked, within
from trainer.runtime import Runtime, StopFlag, agree_on_data, from_main
from trainer.state.finished import about as terms_of
from trainer.state.run_folder import RunFolder, versions

# ------------------------------------------------------------------------------------------------------------------- a run


def run_setting(setting: Setting, runtime: Runtime, stop: StopFlag) -> dict[str, Any]:
    """Trains what is not trained yet, tests once, writes and returns the result.

    Raises:
        Stopped: a stop was asked for; what is done is kept, the same command goes on.
    """
    folder = RunFolder(setting.out)
    try:
        before = from_main(lambda: _claim(folder, setting))
        agree_on_data(setting.data.fingerprint)
        hashes = from_main(setting.hashes)
        accept = setting.task.resume.accept_code
        found = from_main(lambda: reusable(setting.out, hashes, accept, before))
        if found is not None:
            same = found["hashes"]["code"] == hashes["code"]
            code = "and code" if same else f"but by code {found['hashes']['code']} (resume.accept_code=true)"
            runtime.say(f"{setting.out}: measured already, from the same data, weights, configuration {code}")
            _keep_maps(setting, runtime, found["chosen"])
            from_main(lambda: kept(setting, found["chosen"]))
            runtime.say(summary(found, setting.out))
            look_at_tests(setting, runtime)
            return found
        # A result that stands stays as it is, configuration included: its hash is of the names that options had then.
        from_main(lambda: folder.record(_resolved(setting), versions()))
        with folder.note_of_its_end():
            result = _measure(setting, runtime, stop, hashes)
        look_at_tests(setting, runtime)
        return result
    finally:
        folder.release()


def _resolved(setting: Setting) -> dict[str, Any]:
    return {
        "about": setting.about(),
        "init": setting.init(),
        "data": {"path": str(setting.data.path), "set": terms_of(setting.data)},
    }


def _claim(folder: RunFolder, setting: Setting) -> str | None:
    """Takes the folder; the hash that its configuration had under the names of before, if that is the same as this one."""
    resolved = _resolved(setting)
    folder.claim(setting.task.resume, resolved)
    stored = folder.stored()
    if stored is None or hash_of(by_todays_names(stored)["about"]) != hash_of(resolved["about"]):
        return None
    return hash_of(stored["about"])


def _measure(setting: Setting, runtime: Runtime, stop: StopFlag, hashes: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    task = setting.task
    near, looks = from_main(partial(_near, setting))
    for line in _first_lines(setting, near):
        runtime.say(line)
    measured = measure(setting, runtime, stop)
    about = _about(setting, measured, hashes)
    _keep_maps(setting, runtime, measured.chosen)
    sites = from_main(lambda: _sites(setting, measured))
    # Trainings tell their own time, whichever processes spent it; the rest was spent in this one.
    wall_s = measured.trained_s + time.monotonic() - began - measured.here_s

    def write() -> dict[str, Any]:
        for control, predictions in measured.controls.items():
            content = {**about, "control": control, "wall_s": wall_s}
            write_result(
                setting.out / f"control-{control}", task, content, predictions, setting.metrics, groups=setting.groups(),
                fits=measured.fits,
            )  # fmt: skip
        content = {**about, **sites, "near": near, "control": None, "wall_s": wall_s}
        keep_features(setting.out, measured.predictions[0], measured.pooled_ND)
        keep(setting, measured.chosen, looks)
        return write_result(
            setting.out, task, content, measured.predictions, setting.metrics, measured.examples, setting.groups(), measured.fits
        )  # fmt: skip

    result = from_main(write)
    runtime.say(summary(result, setting.out))
    return result


def _about(setting: Setting, measured: Measured, hashes: dict[str, Any]) -> dict[str, Any]:
    """What result.json says of system, task and training; the numbers come beside it."""
    task = setting.task
    return {
        "method": setting.source.method_name,
        "title": setting.source.title,
        "mode": "finetune" if setting.finetunes else task.mode,
        "init": setting.init(),
        "inputs": list(setting.fields),
        "decoder": setting.decoder,
        "leak": setting.leak.plain(),
        "first_line": setting.first_line,
        "meaning": setting.meaning,
        "standardise": task.standardise,
        "seeds": [c["seed"] for c in measured.chosen],
        "n": _counts(setting, measured.train),
        "chosen": measured.chosen,
        "hashes": hashes,
        "code_tree": tree_hash(),
        "code_accepted": sorted(measured.code - {hashes["code"]}),
        "left_out": dict(setting.targets.left_out),
        **({"prompts": setting.prompts.prompts.plain()} if setting.prompts else {}),
        **({"candidates": about_candidates(setting.reports, tested(setting))} if setting.reports else {}),
        "answers": {"words": said.plain(setting.targets), "counts": said.counts(task, setting.targets, setting.splits)},
    }


def _first_lines(setting: Setting, near: Mapping[str, Any]) -> Iterator[str]:
    """Before anything is trained: what a reader must not overlook."""
    yield from filter(None, (setting.first_line, *setting.meaning))
    if setting.new:
        yield f"{len(setting.new)} tensors of the encoder are new, in no file: {', '.join(setting.new[:3])}, ..."
    for why, n in setting.targets.left_out.items():
        yield f"{n} samples take no part: {why}"
    yield from setting.targets.notes
    if setting.reports:
        yield from told(about_candidates(setting.reports, tested(setting)))
    yield from filter(None, (setting.leak.texts.note,))
    yield from filter(None, (near["note"], *near["warnings"]))


def _near(setting: Setting) -> tuple[dict[str, Any], Signatures | None]:
    """What test cases look like, against those that are learned from; and what those look like, to be kept."""
    task, splits = setting.task, setting.splits
    learned = np.concatenate(
        [splits[s] for s in (task.data.train, task.data.val) if task.learns] or [tested(setting)[:0]]
    )
    test = tested(setting)
    found, why = looked_for(setting.data, np.concatenate([learned, test]), task.leak.near)
    if found is None:
        return unlooked(why), None
    return within(setting.data, found, learned, test), found.of(learned)


def _sites(setting: Setting, measured: Measured) -> dict[str, Any]:
    """What of result.json speaks of sites; nothing where the task names no label of them."""
    task = setting.task
    if task.site is None:
        return {}
    if task.hold_out is not None:
        return {"hold_out": task.hold_out}
    if measured.pooled_ND is None:
        return {}
    cases, b = measured.predictions[0], task.bootstrap
    site_of = setting.words_of_test(task.site)
    site_N = np.array([site_of[k] for k in cases.keys_N.tolist()], dtype=object)
    asked = Asked(measured.pooled_ND, cases, site_N, setting.metrics[0], b.draws, b.seed, b.level)
    return {"sites": site_report(task.site, asked, setting.in_one_split(FOLDS))}


def _counts(setting: Setting, train: int) -> dict[str, int]:
    test = setting.splits[setting.task.data.test]
    return {
        "train": train,
        "val": len(setting.splits[setting.task.data.val]) if setting.task.learns else 0,
        "test": len(test),
        "test_patients": len(set(setting.data.patients_of(test))),
    }


def _keep_maps(setting: Setting, runtime: Runtime, chosen: Sequence[dict[str, Any]]) -> None:
    """Maps of the first seed, also of a result that stands: they need its weights alone."""
    if not asks_for_maps(setting.task):
        return
    training, _ = training_of(setting, chosen[0]["seed"])
    method = trained(setting, training, chosen[0]["seed"], chosen[0]["lr"], runtime)
    made = make_maps(setting.task, method, setting.data, tested(setting), runtime.device)
    from_main(lambda: made.write(setting.out))
    for line in made.told(setting.out, "test"):
        runtime.say(line)
