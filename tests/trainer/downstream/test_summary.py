"""What a result says of itself on the terminal: meanings and doubts first, columns that never run into each other."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.downstream.cohorts import make, random_predictions
from trainer.downstream.metrics.doubts import doubts
from trainer.downstream.results import keep_features, summary, write_result
from trainer.downstream.task.read import parse_task
from trainer.tracking.intervals import interval_text

GRID = [{"lr": 1e-3, "weight_decay": d, "val": v, "epoch": 3} for d, v in ((0.0, 0.7), (0.01, 0.8), (0.1, 0.9))]


def chosen(**changes: object) -> dict[str, object]:
    return {"seed": 0, "lr": 1e-3, "weight_decay": 0.01, "val": 0.9, "epoch": 3, "epochs": 20, "grid": GRID} | changes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""), ({"weight_decay": 0.0}, ""), ({"k": 1, "grid": [{"k": k, "val": k / 9} for k in (1, 5)]}, ""),
        ({"weight_decay": 0.1}, "weight decay 0.1 is the largest of 3 tried"), ({"epoch": 1}, "the best of 20 epochs was the first"),
        ({"k": 5, "grid": [{"k": k, "val": k / 9} for k in (1, 5)]}, "number of neighbours 5 is the largest of 2 tried"),
        ({"step": 9, "grid": [{"lr": v, "val": v} for v in (1e-3, 3e-4)]}, ""),
        ({"step": 9, "grid": [{"lr": v, "val": v} for v in (1e-3, 3e-4, 1e-4)]}, "learning rate 0.001 is the largest of 3 tried"),
        ({"step": 9, "lr": 1e-4, "grid": [{"lr": v, "val": v} for v in (1e-3, 3e-4, 1e-4)]}, "is the smallest of 3 tried: smaller ones"),
        ({"step": 9, "look": 1, "looks": 20, "grid": []}, "the best of 20 evaluations on the validation split was the first"),
        ({"val": 0.0, "flat": True, "looks": 5, "look": 5}, "kappa was 0 at all 5 evaluations on the validation split"),
        ({"grid": [{"weight_decay": d, "val": 1.0} for d in (0.1, 1.0)]}, "all 2 points of the grid had the same value"),
    ],
)  # fmt: skip
def test_what_puts_a_choice_in_doubt(changes: dict[str, object], says: str) -> None:
    found = doubts("kappa", [chosen(**changes)], [False])
    assert len(found) == bool(says)
    assert says in "".join(found)


def test_doubts_name_their_seeds() -> None:
    found = doubts("auc", [chosen(seed=s, epoch=1) for s in (3, 4, 5)], [False, True, False])
    assert found[0].startswith("seeds 3, 4, 5: the best of 20 epochs was the first")
    assert found[1].startswith("seed 4: one and the same answer for all test cases: auc says what the cases are")


def test_an_interval_in_words() -> None:
    assert interval_text({"interval": [0.25, 1.0]}) == "0.2500 to 1.0000"
    assert interval_text({"interval": [0.75, 1.0], "interval_by": "Newcombe"}) == "0.7500 to 1.0000 (Newcombe)"
    assert interval_text({"interval": [0.0, 0.0], "interval_by": "degenerate"}) == "degenerate"
    assert interval_text({"interval": [0.0, 0.0]}) == "degenerate", "of a version that did not say what gave it"
    assert interval_text({"interval": [None, None]}) == interval_text({}) == "-"


def test_columns_do_not_collide(tmp_path) -> None:
    """Three seeds of 60 cases: `58/60 57/60 59/60` is wider than its column once was."""
    rng = np.random.default_rng(0)
    task = parse_task(
        {"name": "own", "kind": "binary", "label": "x", "protocol": {"seeds": [0, 1, 2]}, "bootstrap": {"draws": 100}}
    )
    seeds = [random_predictions("binary", rng)] * 3
    about = {
        "method": "gimp", "mode": "finetune", "init": {"kind": "scratch"}, "control": None, "first_line": "LEAK: two", "seeds": [0, 1, 2],
        "meaning": ["positive: x '1' (against '0'; by its word): 20 of 60 in test"],
        "n": {"train": 9, "val": 9, "test": 60, "test_patients": 30},
        "chosen": [chosen(seed=s) for s in (0, 1, 2)],
    }  # fmt: skip
    found = write_result(tmp_path, task, about, seeds, ["auc", "accuracy", "f1_macro"])
    lines = summary(found, tmp_path).splitlines()
    assert lines[1:3] == ["LEAK: two", about["meaning"][0]]
    head = next(line for line in lines if line.strip().startswith("metric"))
    starts = [head.index(word) for word in ("metric", "value", "interval", "over seeds", "right", "per seed")]
    rows = lines[lines.index(head) + 1 : lines.index(head) + 4]
    for row in rows:
        for at in starts[1:]:
            assert row[at - 2 : at] == "  ", f"'{row}' runs into the column at {at}"
    assert f"{found['metrics']['accuracy']['k'][2]}/60" in rows[1]


def test_a_constant_answer_is_marked(tmp_path) -> None:
    task = parse_task(
        {
            "name": "own",
            "kind": "ordinal",
            "label": "x",
            "grades": 3,
            "protocol": {"seeds": [0]},
            "bootstrap": {"draws": 100},
        }
    )
    p = make("ordinal", [0, 1, 2] * 4, np.tile([1, 0.2, 0.1], (12, 1)))
    about = {
        "method": "gimp", "mode": "finetune", "init": {"kind": "scratch"}, "control": None, "first_line": "", "seeds": [0],
        "n": {"train": 9, "val": 9, "test": 12, "test_patients": 12}, "chosen": [chosen(val=0.0, flat=True, looks=5, look=5)],
    }  # fmt: skip
    found = write_result(tmp_path, task, about, [p], ["kappa_quadratic", "accuracy"])
    assert [("one and the same answer" in w, "chose nothing" in w) for w in found["warnings"]] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert "12 test patients, 20 are needed to rank; intervals of so few may be too narrow" in found["warnings"][-1]
    said = summary(found, tmp_path)
    assert "kappa_quadratic *  0.0000  degenerate" in said
    assert "0.0000=" in said
    assert "= one answer for all cases" in said


def test_features_are_kept_with_their_keys(tmp_path) -> None:
    p = random_predictions("binary", np.random.default_rng(0))
    keep_features(tmp_path, p, np.arange(120.0).reshape(60, 2))
    with np.load(tmp_path / "features.npz", allow_pickle=False) as stored:
        assert stored["key_N"].tolist() == p.keys_N.tolist()
        assert stored["label_N"].tolist() == p.target.tolist()
