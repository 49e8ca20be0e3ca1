"""A report believes predictions alone: whatever result.json states otherwise is refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainer.reporting.runs import DRAWS, SCRATCH, predictions, write
from trainer.downstream.metrics.predictions import Predictions
from trainer.downstream.metrics.statistics import entry
from trainer.downstream.metrics.table import DEFAULTS
from trainer.errors import UserError
from trainer.reporting import cases
from trainer.reporting.collect import collect
from trainer.reporting.groups import Amount, group
from trainer.reporting.pairs import BEST
from trainer.reporting.pairs import SCRATCH as AGAINST_SCRATCH
from trainer.reporting.report import build, markdown
from trainer.reporting.result import Result, read_result
from trainer.reporting.table import as_csv, main_table


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Result:
    path = folder / "result.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return read_result(path)


@pytest.mark.parametrize("kind", DEFAULTS)
def test_an_honest_result_is_the_same_afterwards(kind: str, tmp_path: Path) -> None:
    found = read_result(write(tmp_path / "a", kind) / "result.json")
    again = cases.recomputed(found)
    assert again.content.metrics == found.content.metrics


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], object]:
    def change(content: dict[str, Any]) -> None:
        at = content
        for key in path[:-1]:
            at = at[key]  # type: ignore[index]
        at[path[-1]] = to  # type: ignore[index]

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set("metrics", "auc", "value", to=0.99), "the predictions give auc.value"),
        (_set("metrics", "auc", "per_seed", 1, to=0.99), "auc.per_seed ["),
        (_set("metrics", "auc", "interval", to=[0.98, 0.99]), "auc.interval ["),
        (_set("metrics", "auc", "spread", to=0.0), "auc.spread"),
        (_set("metrics", "auc", "n", to=6_000), "auc.n 60, "),
        (_set("metrics", "auc", "patients", to=60), "auc.patients 30"),
        (_set("metrics", "auc", "higher_is_better", to=False), "auc.higher_is_better"),
        (_set("metrics", "auc", "interval_by", to="Newcombe"), "auc.interval_by bootstrap-se"),
        (_set("metrics", "auc", "constant", to=[True] * 3), "auc.constant"),
        (_set("metrics", "accuracy", "value", to=1.0), "accuracy.value"),
        (_set("metrics", "accuracy", "k", 0, to=60), "accuracy.k ["),
        (_set("metrics", "f1_macro", "value", to=1.0), "f1_macro.value"),
        (_set("metrics", "glory", to={"convention": "", "higher_is_better": True, "value": 1.0, "per_seed": [1.0] * 3, "spread": 0.0,
                                      "interval": [1.0, 1.0], "n": 60}), "metric 'glory' of binary predictions is not known here"),
        (_set("n", "test", to=600), "the predictions are of 60 cases of 30 patients, the result states 600 of 30"),
        (_set("n", "test_patients", to=60), "states 60 of 60"),
        (_set("kind", to="survival"), "predictions of kind binary in a result of kind survival"),
        (_set("predictions_sha256", to=["0" * 64] * 3), "the result was made from 000000000000: another file has taken its place"),
    ],
)  # fmt: skip
def test_every_stated_number_is_checked(change: Callable[[dict[str, Any]], object], says: str, tmp_path: Path) -> None:
    found = edited(write(tmp_path / "a"), change)
    with pytest.raises(UserError) as e:
        cases.recomputed(found)
    assert says in str(e.value)
    assert str(tmp_path / "a") in str(e.value)
    with pytest.raises(UserError, match="run the fine-tune again, or leave its folder out"):
        build([tmp_path], 100, 0)


def test_files_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    a, b, c, d = (write(tmp_path / n, skill=k) for n, k in (("a", 1.0), ("b", 2.0), ("c", 1.0), ("d", 1.0)))
    (a / "predictions/seed-1.npz").write_bytes((b / "predictions/seed-1.npz").read_bytes())
    (c / "predictions/seed-0.npz").unlink()
    stored = (d / "predictions/seed-2.npz").read_bytes()
    (d / "predictions/seed-2.npz").write_bytes(stored[: len(stored) // 2])
    cases.recomputed(read_result(b / "result.json"))
    for folder, says in (
        (a, "the predictions give auc.value"),
        (c, "cannot be read as predictions"),
        (d, "cannot be read as predictions"),
    ):
        with pytest.raises(UserError, match=says):
            cases.recomputed(read_result(folder / "result.json"))


def replaced(folder: Path, seed: int, change: Callable[[Predictions], Predictions]) -> None:
    """Other predictions of a seed, and a result.json that states what they give."""
    path = folder / f"predictions/seed-{seed}.npz"
    change(Predictions.load(path)).save(path)
    made = [Predictions.load(folder / f"predictions/seed-{s}.npz") for s in (0, 1, 2)]
    try:
        metrics = {n: entry(made, n, draws=DRAWS) for n in DEFAULTS["binary"]}
    except UserError:
        return
    edited(folder, _set("metrics", to=metrics))


def _renamed(p: Predictions, names: np.ndarray) -> Predictions:
    return Predictions(p.kind, names, p.patients_N, p.target, p.score, p.classes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: _renamed(p, np.where(p.keys_N == "case-0001", "case-0000", p.keys_N)), "case case-0000 is predicted twice"),
        (lambda p: _renamed(p, np.char.add("x", p.keys_N)), "60 test cases are missing from the second predictions"),
        (lambda p: Predictions(p.kind, p.keys_N, np.roll(p.patients_N, 1), p.target, p.score), "belongs to patient"),
        (lambda p: Predictions(p.kind, p.keys_N, p.patients_N, 1 - p.target, p.score), "the true targets differ"),
        (lambda p: p.take(np.arange(59)), "1 test cases are missing"),
    ],
)  # fmt: skip
def test_a_key_stands_once_and_is_one_patients(
    change: Callable[[Predictions], Predictions], says: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "a")
    replaced(folder, 1, change)
    with pytest.raises(UserError, match=says):
        cases.recomputed(read_result(folder / "result.json"))


def test_a_hash_that_agrees_is_accepted_and_a_result_without_one_too(tmp_path: Path) -> None:
    folder = write(tmp_path / "a")
    digests = [hashlib.sha256((folder / f"predictions/seed-{s}.npz").read_bytes()).hexdigest() for s in (0, 1, 2)]
    assert cases.recomputed(edited(folder, _set("predictions_sha256", to=digests)))
    assert cases.recomputed(edited(folder, lambda c: c.pop("predictions_sha256")))


def test_an_earlier_result_gets_what_its_predictions_say_now(tmp_path: Path) -> None:
    """Intervals without width, from before bounds were named: shown anew instead of refused."""
    folder = tmp_path / "a"
    perfect = [Predictions("binary", *_names(12), np.arange(12) % 2, np.arange(12) % 2 * 0.8 + 0.1) for _ in range(2)]
    content = _written(folder, perfect)
    earlier = ("auc", "accuracy", "balanced_accuracy", "average_precision", "f1_macro")
    content["metrics"] = {name: content["metrics"][name] for name in earlier}
    for m in content["metrics"].values():
        del m["interval_by"], m["constant"], m["patients"]
        m["interval"] = [1.0, 1.0]
    (folder / "result.json").write_text(json.dumps(content))
    found = cases.recomputed(read_result(folder / "result.json"))
    assert found.measured.interval_by == "Newcombe"
    assert found.measured.interval[0] < 0.9
    said = markdown(build([tmp_path], 100, 0))
    assert "(Newcombe)" in said
    assert "1.000 (degenerate)" in said, "what has no bound is not shown as certain"
    assert "1.000 to 1.000" not in said


def test_percentiles_of_an_earlier_version_are_replaced(tmp_path: Path) -> None:
    """Results whose intervals were percentiles of resamples are no forgeries: values are compared, intervals computed anew."""
    folder = write(tmp_path / "a")
    content = json.loads((folder / "result.json").read_text())
    now = content["metrics"]["auc"]["interval"]
    content["metrics"]["auc"] |= {"interval": [0.1, 0.2], "interval_by": "bootstrap"}
    (folder / "result.json").write_text(json.dumps(content))
    found = cases.recomputed(read_result(folder / "result.json")).measured
    assert (list(found.interval or ()), found.interval_by) == (pytest.approx(now), "bootstrap-se")
    content["metrics"]["auc"]["interval_by"] = "bootstrap-se"
    (folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"auc\.interval"):
        cases.recomputed(read_result(folder / "result.json"))


def _names(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.array([f"case-{i:04d}" for i in range(n)]), np.array([f"patient-{i:03d}" for i in range(n)])


def _written(folder: Path, seeds: list[Predictions], **changes: Any) -> dict[str, Any]:
    """A result of these predictions."""
    kind = seeds[0].kind
    write(folder, kind, seeds=tuple(range(len(seeds))), **changes)
    for i, p in enumerate(seeds):
        p.save(folder / f"predictions/seed-{i}.npz")
    n, patients = len(seeds[0]), len(set(seeds[0].patients_N.tolist()))
    content = json.loads((folder / "result.json").read_text())
    content["metrics"] = {m: entry(seeds, m, draws=DRAWS) for m in DEFAULTS[kind]}
    content["n"] |= {"test": n, "test_patients": patients}
    (folder / "result.json").write_text(json.dumps(content))
    return content


def flat(p: Predictions) -> Predictions:
    score = np.tile([1.0, 0.4, 0.2], (len(p), 1))
    return Predictions(p.kind, p.keys_N, p.patients_N, p.target, score, p.classes)


def test_one_answer_for_all_is_marked_and_neither_ranked_nor_bold(tmp_path: Path) -> None:
    real = [predictions("ordinal", 0.3, s) for s in (0, 1)]
    for name, seeds, changes in (
        (
            "real",
            [Predictions("ordinal", p.keys_N, p.patients_N, p.target, np.roll(p.score, 7, 0), p.classes) for p in real],
            {},
        ),
        ("flat", [flat(p) for p in real], {"method": "mgi"}),
        ("flat-scratch", [flat(p) for p in real], {"method": "mgi", **SCRATCH}),
        ("half", [flat(real[0]), real[1]], {"method": "mrm_record"}),
    ):
        _written(tmp_path / name, seeds, **changes)
    report = build([tmp_path], 100, 0)
    (g,) = report.groups
    by = {e.first.folder.name: e for e in g.entries}
    assert {n: e.constant for n, e in by.items()} == {"real": False, "flat": True, "flat-scratch": True, "half": False}
    assert by["real"].measured.value < 0, (
        "worse than one answer for all, and yet the only one that says anything beside `half`"
    )
    best = g.best(Amount())
    assert best is not None
    assert best.first.folder.name == "half"
    assert [e.constant for e in g.at(Amount())] == [False, False, True, True]
    (alone,) = group(
        cases.recomputed(r) for r in collect([tmp_path / n for n in ("real", "flat", "flat-scratch")]).results
    )
    worse = alone.best(Amount())
    assert worse is not None
    assert worse.first.folder.name == "real", "of them the only one that is ranked"
    assert g.best(Amount(), "accuracy") not in (by["flat"], by["flat-scratch"])
    t = main_table(g, Amount(), report.pairs)
    rows = {r[0]: r for r in t.rows}
    marked = rows["mgi: pretrained [CONSTANT]"]
    assert marked[t.head.index("interval")] == "degenerate"
    assert marked[t.head.index("against best")] == "not ranked"
    assert marked[t.head.index("against scratch")] == "+0.000 (degenerate)"
    assert not {i for i, _ in t.bold} & {i for i, r in enumerate(t.rows) if "[CONSTANT]" in r[0]}
    tested = {(p.entry.first.folder.name, p.against) for p in report.pairs}
    assert ("flat", BEST) not in tested
    assert ("flat", AGAINST_SCRATCH) in tested
    lines = as_csv(report.groups, report.pairs).splitlines()
    assert any(",degenerate,1 1," in line for line in lines)


def test_other_words_for_yes_are_kept_apart(tmp_path: Path) -> None:
    words = {"status": {"yes": ["DECEASED"], "no": ["LIVING"], "by": "by its word"}}
    turned = {"status": {"yes": ["LIVING"], "no": ["DECEASED"], "by": "as `event_value` says"}}
    stated = {"status": {"yes": ["DECEASED"], "no": ["LIVING"], "by": "as `event_value` says"}}
    meaning = ["event: status 'DECEASED' (against 'LIVING'; by its word): 30 of 60 in test"]
    write(tmp_path / "a", "survival", answers={"words": words}, meaning=meaning)
    write(tmp_path / "b", "survival", answers={"words": turned}, **SCRATCH)
    write(tmp_path / "c", "survival", answers={"words": stated}, method="mgi")
    groups = group(collect([tmp_path]).results)
    assert sorted(len(g.entries) for g in groups) == [1, 2]
    assert "words that say yes" in groups[0].apart
    assert meaning[0].replace("_", "\\_") in markdown(build([tmp_path], 100, 0))
