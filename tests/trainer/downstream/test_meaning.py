"""What the words of a label mean is taken from the words, or asked; never from their order."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards.pack.options import PackOptions
from shards.pack.pack import pack
from shards.read.dataset import Dataset
from shards.tables.sides import BINARY, SURVIVAL, understood
from trainer.downstream.targets import said
from trainer.downstream.targets.read import Targets, read_targets
from trainer.downstream.task.read import TASKS, build_task, parse_task
from trainer.downstream.task.schema import Task
from trainer.errors import UserError

N = 12


def packed(folder: Path, **labels: list[Any]) -> Dataset:
    """A data set of N samples with one number each as its only field; a label called `x__class` is packed as a class."""
    folder.mkdir()
    with open(folder / "m.csv", "w", newline="") as f:
        writer = csv.writer(f)
        kinds = {n: f"{n.removesuffix('__class')}:class" if n.endswith("__class") else n for n in labels}
        writer.writerow(["sample", "patient", "split", *(f"label:{k}" for k in kinds.values()), "field:patches"])
        for i in range(N):
            np.save(folder / f"{i}.npy", np.full((2, 3), i, np.float32))
            split = ("train", "train", "val", "test")[i % 4]
            writer.writerow([f"s{i}", f"p{i}", split, *(v[i] for v in labels.values()), f"{i}.npy"])
    pack(folder / "m.csv", folder / "set", PackOptions())
    return Dataset.open(folder / "set")


def read(data: Dataset, **task: Any) -> tuple[Task, Targets]:
    made = parse_task({"name": "own", **task})
    return made, read_targets(made, data, ("patches",))


def first_lines(data: Dataset, task: Task, targets: Targets) -> list[str]:
    return said.lines(task, targets, {s: data.subset(s).indices for s in ("train", "val", "test")})


# ------------------------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("words", "yes"),
    [
        (("DECEASED", "LIVING"), "DECEASED"), (("Alive", "Dead"), "Dead"), (("died", "survived"), "died"),
        (("0:LIVING", "1:DECEASED"), "1:DECEASED"), (("0:DiseaseFree", "1:Recurred/Progressed"), "1:Recurred/Progressed"),
        (("Event", "censored"), "Event"), (("no", "yes"), "yes"), (("FALSE", "TRUE"), "TRUE"), (("0.0", "1.0"), "1.0"),
        (("No event", "event"), "event"), (("Censored", "Dead"), "Dead"),
    ],
)  # fmt: skip
def test_words_of_survival_that_say_themselves(words: tuple[str, ...], yes: str) -> None:
    for order in (words, words[::-1]):
        found = understood(order, SURVIVAL)
        assert found is not None
        assert found.yes == (yes,)
        assert found.no == tuple(w for w in words if w != yes)


@pytest.mark.parametrize(
    ("words", "yes"),
    [
        (("mutated", "wild-type"), "mutated"), (("Normal", "Tumour"), "Tumour"), (("absent", "present"), "present"),
        (("covid", "non_covid"), "covid"), (("case", "control"), "case"), (("benign", "malignant"), "malignant"),
    ],
)  # fmt: skip
def test_words_of_classes_that_say_themselves(words: tuple[str, ...], yes: str) -> None:
    for order in (words, words[::-1]):
        found = understood(order, BINARY)
        assert found is not None
        assert found.yes == (yes,)


@pytest.mark.parametrize(
    "words",
    [("LUAD", "LUSC"), ("1", "2"), ("-1", "1"), ("0:DECEASED", "1:LIVING"), ("now", "w"), ("dead", "yes"), ("A", "B"), ("F", "M"), ()],
)  # fmt: skip
def test_words_that_do_not(words: tuple[str, ...]) -> None:
    assert understood(words, BINARY) is None
    assert understood(words, SURVIVAL) is None


# --------------------------------------------------------------------------------------------------------------- survival


MONTHS = [float(i + 1) for i in range(N)]
SEEN = [i % 3 != 0 for i in range(N)]  # 8 of 12; 4 of 6 in training


@pytest.mark.parametrize(
    ("event", "censored", "task"),
    [
        ("DECEASED", "LIVING", {}), ("1:DECEASED", "0:LIVING", {}), ("1", "0", {}), ("True", "False", {}), ("died", "survived", {}),
        ("2", "1", {"event_value": 2}), ("Relapse", "None so far", {"event_value": "Relapse"}), ("0", "1", {"censored": True}),
        ("no", "yes", {"censored": True}), ("a", "b", {"event_value": ["a"]}), ("b", "a", {"event_value": ["b"]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("as_class", [True, False])
def test_the_event_is_the_word_that_says_so(
    event: str, censored: str, task: dict[str, Any], as_class: bool, tmp_path: Path
) -> None:
    cells = [event if s else censored for s in SEEN]
    data = packed(tmp_path / "d", months=MONTHS, **{"status__class" if as_class else "status": cells})
    own, targets = read(data, kind="survival", time="months", event="status", **task)
    order = [int(k[1:]) for k in data.keys_of(np.arange(N))]
    assert targets.value_NT[:, 1].tolist() == [float(SEEN[i]) for i in order]
    (line,) = first_lines(data, own, targets)
    assert line.startswith(f"event: status '{event}' (against '{censored}'; ")
    assert line.endswith(": 4 of 6 in train, 2 of 3 in val, 2 of 3 in test")
    assert said.plain(targets)["status"]["yes"] == [event]
    counted = said.counts(own, targets, {"train": data.subset("train").indices})
    assert counted == {"train": {"events": 4, "censored": 2}}


def test_several_words_for_one_thing_and_causes_of_death(tmp_path: Path) -> None:
    cells = (["Alive", "Dead", "DECEASED"] * N)[:N]
    causes = (["alive", "of disease", "of other causes"] * N)[:N]
    data = packed(tmp_path / "d", months=MONTHS, status=cells, cause=causes)
    _, targets = read(data, kind="survival", time="months", event="status")
    assert targets.value_NT[:, 1].sum() == 8
    _, targets = read(data, kind="survival", time="months", event="cause", event_value="of disease")
    assert targets.value_NT[:, 1].sum() == 4
    assert targets.understood.sides["cause"].no == ("alive", "of other causes")
    with pytest.raises(UserError, match=r"which of them is the event\? Write `event_value: \[WORD, ...\]`"):
        read(data, kind="survival", time="months", event="cause")


@pytest.mark.parametrize(
    ("cells", "task", "says"),
    [
        (["1", "2"], {}, "which of them is the event? Write `event_value: '2'`, or `event_value: '1'` into the task; R's survival"),
        (["A", "B"], {}, "their order says nothing, and only words like 1/0, yes/no, dead/alive, event/censored say it by themselves"),
        (["0:DECEASED", "1:LIVING"], {}, "which of them is the event?"),
        (["DECEASED", "LIVING"], {"censored": True}, "these words say themselves which is the event; leave `censored: true` out"),
        (["DECEASED", "LIVING"], {"event_value": "DEAD"}, "event_value 'DEAD' is no value of 'status'"),
        (["1", "2"], {"censored": True}, "which of them is the event?"),
        (["0", "11"], {}, "is '0', '11': which of them is the event?"),
    ],
)  # fmt: skip
def test_what_no_word_says_is_asked(cells: list[str], task: dict[str, Any], says: str, tmp_path: Path) -> None:
    data = packed(tmp_path / "d", months=MONTHS, status=[cells[int(s)] for s in SEEN])
    with pytest.raises(UserError) as e:
        read(data, kind="survival", time="months", event="status", **task)
    assert says in str(e.value)
    # The remedy that is named works.
    wanted = next((c for c in cells if f"event_value: '{c}'" in str(e.value)), None)
    if wanted:
        _, targets = read(data, kind="survival", time="months", event="status", event_value=wanted)
        assert targets.value_NT[:, 1].sum() == sum(cells[int(s)] == wanted for s in SEEN)


# ----------------------------------------------------------------------------------------------------------------- binary


def test_the_positive_class_is_named_or_says_so_itself(tmp_path: Path) -> None:
    data = packed(
        tmp_path / "d",
        kind=["LUSC" if s else "LUAD" for s in SEEN],
        gene=["mutated" if s else "wildtype" for s in SEEN],
    )
    own, targets = read(data, kind="binary", label="gene")
    assert targets.question.classes == ("wildtype", "mutated")
    assert targets.value_NT.sum() == 8
    assert first_lines(data, own, targets) == [
        "positive: gene 'mutated' (against 'wildtype'; by its word): 4 of 6 in train, 2 of 3 in val, 2 of 3 in test"
    ]
    for task in ({}, {"classes": ["LUAD", "LUSC"]}, {"classes": {"x": ["LUAD"], "y": ["LUSC"]}}):
        with pytest.raises(UserError, match=r"which class of 'kind' is the positive one, .*their order says nothing"):
            read(data, kind="binary", label="kind", **task)
    for positive, ones in (("LUSC", 8), ("LUAD", 4)):
        _, targets = read(data, kind="binary", label="kind", positive=positive)
        assert (targets.question.classes[1], targets.value_NT.sum()) == (positive, ones)


def test_two_numbers_that_are_not_0_and_1(tmp_path: Path) -> None:
    data = packed(tmp_path / "d", arm=[2 if s else 1 for s in SEEN])
    with pytest.raises(UserError, match="label 'arm' is '2' in 8 samples"):
        read(data, kind="binary", label="arm")
    _, targets = read(data, kind="binary", label="arm", positive=2)
    assert targets.value_NT.sum() == 8


def test_numbers_keep_their_digits_as_words(tmp_path: Path) -> None:
    """Six digits would make one class of two."""
    data = packed(tmp_path / "d", site=[1_000_001 if s else 1_000_002 for s in SEEN])
    task = {"kind": "multiclass", "label": "site", "classes": ["1000001", "1000002"]}
    assert np.unique(read(data, **task)[1].value_NT).tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------------------- multilabel


CELLS = [["present", "absent", "uncertain", ""][i % 4] for i in range(N)]
OTHER = ["absent" if i % 2 else "present" for i in range(N)]


@pytest.fixture
def films(tmp_path: Path) -> Dataset:
    other = [*OTHER[:-1], ""]  # of the last film nothing is known
    return packed(tmp_path / "d", edema=CELLS, mass=other)


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        ({"leave_out": ["uncertain"]}, (3, 3, 6)), ({"uncertain": "ignore"}, (3, 3, 6)), ({"uncertain": "ones"}, (6, 3, 3)),
        ({"uncertain": "zeros"}, (3, 6, 3)), ({"uncertain": {"edema": "ones"}}, (6, 3, 3)),
        ({"uncertain": "zeros", "blank": "absent"}, (3, 8, 1)), ({"uncertain": "ignore", "blank": "absent"}, (3, 5, 4)),
    ],
)  # fmt: skip
def test_uncertain_and_empty_answers_one_by_one(
    task: dict[str, Any], counts: tuple[int, int, int], films: Dataset
) -> None:
    """3 films each are present, absent, uncertain and empty; of one of the last nothing at all is known, which is not health."""
    _, targets = read(films, kind="multilabel", label=["edema", "mass"], **task)
    edema_N, mass_N = targets.value_NT.T
    assert ((edema_N == 1).sum(), (edema_N == 0).sum(), np.isnan(edema_N).sum()) == counts
    assert ((mass_N == 1).sum(), np.isnan(mass_N).sum()) == (6, 1)
    assert targets.used_N.sum() == N - 1, "who has any answer takes part"


def test_a_film_without_finding_was_looked_at(tmp_path: Path) -> None:
    """CheXpert: 'No Finding' is present and all else is empty, which is health; a film without any entry is not known."""
    none = ["present" if i % 3 == 0 else "" for i in range(N)]
    edema = ["" if i % 3 == 0 or i == 1 else ("present" if i % 2 else "absent") for i in range(N)]
    data = packed(tmp_path / "d", edema=edema, mass=edema, no_finding=none, age=[40.0 + i for i in range(N)])
    _, targets = read(data, kind="multilabel", label=["edema", "mass"], blank="absent")
    order = [int(k[1:]) for k in data.keys_of(np.arange(N))]
    assert [order[i] for i in np.flatnonzero(np.isnan(targets.value_NT[:, 0]))] == [1], "an age is no finding"
    assert [targets.value_NT[order.index(i), 0] for i in (0, 3, 6, 9)] == [0, 0, 0, 0]


def test_the_choice_is_said(films: Dataset) -> None:
    own, targets = read(films, kind="multilabel", label=["edema", "mass"], uncertain="ones", blank="absent")
    lines = first_lines(films, own, targets)
    assert "positive: 'present' (against 'absent'; by its word) of edema, mass" in lines
    assert "uncertain answers taken as present (uncertain=ones): edema 3" in lines
    assert "empty cells taken as absent (blank=absent): edema 2" in lines
    plain = said.plain(targets)["edema"]
    assert (plain["uncertain"], plain["uncertain_samples"], plain["blank"], plain["blank_samples"]) == (
        "ones",
        3,
        "absent",
        2,
    )


def test_uncertain_answers_are_asked_for(films: Dataset, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"label 'edema' .* is 'uncertain' in 3 samples: say what that counts for, `uncertain: ignore`"
    ):
        read(films, kind="multilabel", label=["edema", "mass"])
    numbers = {"present": 1, "absent": 0, "uncertain": -1, "": ""}
    data = packed(tmp_path / "n", edema=[numbers[c] for c in CELLS], mass=[numbers[c] for c in OTHER])
    with pytest.raises(UserError, match="is '-1' in 3 samples"):
        read(data, kind="multilabel", label=["edema", "mass"])
    _, targets = read(data, kind="multilabel", label=["edema", "mass"], uncertain="zeros")
    assert np.nansum(targets.value_NT, 0).tolist() == [3, 6]


def test_labels_of_other_words_are_asked_for_all_at_once(tmp_path: Path) -> None:
    data = packed(
        tmp_path / "d", sex=["F" if s else "M" for s in SEEN], smoking=["never" if s else "current" for s in SEEN]
    )
    labels = ["sex", "smoking"]
    with pytest.raises(UserError) as e:
        read(data, kind="multilabel", label=labels)
    assert [f"`positive: {{{n}: WORD}}`" in p for n, p in zip(labels, e.value.problems, strict=True)] == [True, True]
    _, targets = read(data, kind="multilabel", label=labels, positive={"sex": "M", "smoking": "current"})
    assert targets.value_NT.sum(0).tolist() == [4, 4]


def test_uncertain_as_a_third_answer(films: Dataset) -> None:
    """U-MultiClass: three outputs a label, and P(yes) among yes and no when measured."""
    import torch

    from models.losses.finetune import answers
    from trainer.downstream.predict import as_predictions

    _, targets = read(films, kind="multilabel", label=["edema", "mass"], uncertain="class")
    assert (targets.question.outputs, targets.question.third) == (6, True)
    assert (targets.value_NT[:, 0] == 2).sum() == 3
    known = as_predictions(targets, films, np.arange(N), np.full((N, 2), 0.5))
    assert np.isnan(known.target[:, 0]).sum() == 6
    z_BK3 = torch.randn(N, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y_BK = torch.from_numpy(targets.value_NT)
    expected = [
        -float(torch.log_softmax(z_BK3[i, k], 0)[int(y_BK[i, k])])
        for i in range(N)
        for k in range(2)
        if not y_BK[i, k].isnan()
    ]
    assert float(answers(z_BK3, y_BK, torch.ones(N))) == pytest.approx(np.mean(expected), rel=1e-6)


# ------------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ({"kind": "binary", "label": "x", "event_value": 1}, "event_value: a binary task does not ask that (survival do)"),
        ({"kind": "survival", "time": "t", "event": "e", "event_value": 1, "censored": True}, "give one of them"),
        ({"kind": "survival", "time": "t", "event": "e", "classes": ["a", "b"]}, "classes: a survival task does not ask that"),
        ({"kind": "multiclass", "label": "x", "positive": "a"}, "positive: a multiclass task does not ask that"),
        ({"kind": "binary", "label": "x", "uncertain": "ones"}, "uncertain: a binary task does not ask that (multilabel do)"),
        ({"kind": "multilabel", "label": ["x", "y"], "uncertain": {"z": "ones"}}, "uncertain: z: no label of the task (x, y)"),
        ({"kind": "multilabel", "label": ["x", "y"], "uncertain": "class", "mode": "linear"}, "mode linear has no third answer"),
        ({"kind": "multiclass", "label": "x", "metrics": ["kappa_quadratic"]}, "classes have no order by themselves"),
        ({"kind": "regression", "label": "x", "protocol": {"balance": True}}, "a regression task has no classes"),
        ({"kind": "multilabel", "label": ["x", "y"], "protocol": {"balance": True}}, "a multilabel task has no classes"),
    ],
)  # fmt: skip
def test_keys_that_a_kind_does_not_ask_are_refused(task: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as e:
        parse_task({"name": "own", **task})
    assert says in str(e.value)


@pytest.mark.parametrize("name", sorted(p.stem for p in TASKS.glob("*.yaml")))
def test_every_shipped_task_says_what_its_words_mean(name: str) -> None:
    task, _ = build_task(name, [])
    if task.kind == "binary":
        assert task.positive
    if task.kind == "survival":
        assert task.event_value or task.censored
    if name in ("chexpert5", "nih14"):
        assert task.blank == "absent", "the published numbers are of models that read an empty cell so"
