"""Attention maps beside a result: what is written of which slides, that it is what the trained weights say, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards.errors import DataError
from tests.trainer.downstream.conftest import Finetune
from tests.trainer.downstream.planted import planted
from trainer.data import schema_of
from trainer.downstream.init import find_source
from trainer.downstream.maps.picture import painted, ranks, step_of
from trainer.downstream.maps.slides import chosen_slides
from trainer.downstream.maps.write import SlideMaps, write_maps
from trainer.downstream.setting import Setting, open_task_data, prepare
from trainer.downstream.task.read import build_task
from trainer.errors import UserError

COORDS = ("coords", "npy")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as f:
        return list(csv.DictReader(f))


def setting(method: str, data: Path, out: Path, *words: str) -> Setting:
    task, _ = build_task("demo_subtype", [f"data.path={data}", *words])
    opened = open_task_data(task)
    return prepare(task, find_source(method, None, "demo", task, schema_of(opened), True), opened, out, 1)


# ------------------------------------------------------------------------------------------------------- beside a result


@pytest.mark.slow
def test_maps_stand_beside_the_result(cohort: Path, finetune: Finetune, tmp_path: Path) -> None:
    """CLAM-MB from the command line: tables of real patches at their places, then more maps of the result that stands."""
    words = ("--task", "demo_subtype", "--method", "clam", "method.branches=multi")
    out = tmp_path / "run"
    ended = finetune(out, *words, "output.attention=2")
    assert ended.codes == [0], ended.text
    assert (
        f"attention of 2 test slides, of the first seed, maps alpha, beta, attention x gradient: {out / 'attention'}"
        in ended.text
    )
    result = (out / "result.json").read_bytes()
    lines = rows(out / "attention" / "slides.csv")
    assert [line["map"] for line in lines] == ["alpha", "beta", "attention x gradient"] * 2
    data = open_task_data(build_task("demo_subtype", [f"data.path={cohort}"])[0])
    keys = list(data.keys_of(np.arange(len(data))))
    test = {keys[i] for i in data.subset("test").indices}
    for line in lines:
        assert line["sample"] in test
        record = data[keys.index(line["sample"])]
        table = rows(out / "attention" / line["table"])
        assert [[int(r["x"]), int(r["y"])] for r in table] == record.read("coords").tolist()
        share = np.array([float(r[line["map"]]) for r in table])
        # Shares are of one; a map with a sign has as much against the answer as for it.
        assert abs(share.sum() - (line["map"] != "attention x gradient")) < 1e-5
        assert share.max() == pytest.approx(float(line["largest"]))
        assert Image.open(out / "attention" / line["picture"]).size[0] > 300
        listed = [
            r
            for r in rows(out / "attention" / "patches.csv")
            if (r["sample"], r["map"]) == (line["sample"], line["map"])
        ]
        top, bottom = ([float(r["value"]) for r in listed if r["end"] == end] for end in ("top", "bottom"))
        assert top == sorted(share.tolist(), reverse=True)[:10] == pytest.approx(top)
        assert bottom == pytest.approx(sorted(share.tolist())[:10])
    again = finetune(out, *words, "output.attention=3")
    assert again.codes == [0], again.text
    assert (out / "result.json").read_bytes() == result, "a result that stands stays as it is"
    now = rows(out / "attention" / "slides.csv")
    assert len({line["sample"] for line in now}) == 3
    assert {line["sample"] for line in lines} < {line["sample"] for line in now}
    assert "measured already" in again.text


def test_fewer_slides_lie_within_more() -> None:
    few, more = (build_task("demo_subtype", [f"output.attention={n}"])[0] for n in (3, 7))
    split = np.arange(100, 140)
    assert set(chosen_slides(few, split)) < set(chosen_slides(more, split)) < set(split)
    assert set(chosen_slides(few, split[:2])) == set(split[:2]), "no more than there are"
    assert not np.array_equal(chosen_slides(few, split), split[:3]), "not the first of the split"


def test_asking_for_maps_makes_no_other_result(cohort: Path, tmp_path: Path) -> None:
    without, with_maps = (setting("abmil", cohort, tmp_path / "run", *w) for w in ((), ("output.attention=4",)))
    assert without.hashes()["config"] == with_maps.hashes()["config"]


# ------------------------------------------------------------------------------------------------------------- what is written


def maps(N: int, names: tuple[str, ...] = ("attention",), key: str = "a") -> SlideMaps:
    share_MN = np.random.default_rng(N).dirichlet(np.ones(N), len(names))
    return SlideMaps(key, "p", names, share_MN, np.stack([256 * np.arange(N), np.zeros(N, int)], 1))


@pytest.mark.parametrize(("N", "top", "bottom"), [(1, 1, 0), (5, 3, 2), (20, 10, 10), (300, 10, 10)])
def test_no_patch_is_at_both_ends(tmp_path: Path, N: int, top: int, bottom: int) -> None:
    write_maps(tmp_path, [maps(N)])
    listed = rows(tmp_path / "patches.csv")
    assert [r["end"] for r in listed] == ["top"] * top + ["bottom"] * bottom
    assert len({r["patch"] for r in listed}) == len(listed)


def test_equal_shares_are_listed_from_the_first_and_count_as_all(tmp_path: Path) -> None:
    write_maps(tmp_path, [SlideMaps("a", "p", ("attention",), np.full((1, 40), 1 / 40), maps(40).xy_N2)])
    assert [int(r["patch"]) for r in rows(tmp_path / "patches.csv")] == list(range(20))
    assert rows(tmp_path / "slides.csv")[0]["effective_patches"] == "40"


def test_names_of_maps_need_be_no_file_names(tmp_path: Path) -> None:
    names = ("grade 1/2", "grade 1:2", "$x$, or none")
    write_maps(tmp_path, [maps(4, names)])
    lines = rows(tmp_path / "slides.csv")
    assert [line["map"] for line in lines] == list(names)
    assert len({line["picture"] for line in lines}) == 3
    assert {p.name for p in tmp_path.iterdir()} == {
        "slides.csv", "patches.csv", "a.csv", *(line["picture"] for line in lines),
    }  # fmt: skip


def test_a_sample_may_be_called_like_a_list_of_the_folder(tmp_path: Path) -> None:
    write_maps(tmp_path, [maps(4, key="slides"), maps(5, key="patches")])
    assert [line["table"] for line in rows(tmp_path / "slides.csv")] == ["slides.sample.csv", "patches.sample.csv"]
    assert [len(rows(tmp_path / f"{n}.sample.csv")) for n in ("slides", "patches")] == [4, 5]
    assert {r["sample"] for r in rows(tmp_path / "patches.csv")} == {"slides", "patches"}


def test_a_patch_lies_where_it_lies() -> None:
    """Two sections on grids of their own, 256 apart within each; y runs down."""
    xy = np.array([[0, 0], [256, 0], [512, 0], [100, 1024], [356, 1024]])
    assert step_of(xy) == 256
    cells = painted(xy, np.arange(5.0))
    assert cells[0, 0] == 0
    assert cells[0, 8] == 2
    assert np.isnan(cells[8, 0])
    assert cells[16, 2] == 3, "100 of 256 is not yet half of a patch"
    assert (np.unique(cells[~np.isnan(cells)]) == np.arange(5)).all()


def test_places_in_micrometres_and_far_apart_make_a_picture_of_bounded_size() -> None:
    rng = np.random.default_rng(0)
    cells = painted(rng.uniform(0, 1e6, (50, 2)), np.arange(50.0))
    assert max(cells.shape) < 1700
    assert painted(np.array([[7.5, 3.25]]), np.array([1.0])).shape == (4, 4)


def test_ranks_are_even() -> None:
    assert ranks(np.array([0.5, 0.1, 0.1, 0.3])).tolist() == [
        100,
        pytest.approx(100 / 6),
        pytest.approx(100 / 6),
        pytest.approx(200 / 3),
    ]
    assert ranks(np.array([1.0])).tolist() == [50]


# ---------------------------------------------------------------------------------------------------------------- what is refused


def lacking(change: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[int, dict[Any, bytes]], dict[Any, bytes]]:
    def changed(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
        coords = change(np.load(BytesIO(given[COORDS])))
        rest = {k: v for k, v in given.items() if k != COORDS}
        if coords is None:
            return rest
        content = BytesIO()
        np.save(content, coords)
        return {**rest, COORDS: content.getvalue()}

    return changed


def test_slides_without_places_are_refused_with_the_remedy(tmp_path: Path) -> None:
    data = planted(tmp_path / "none", members=lacking(lambda c: None))
    with pytest.raises(
        DataError, match=r"there is no field 'coords', so a map has no place.*pack the slides with a field `coords`"
    ):
        setting("abmil", data, tmp_path / "run", "output.attention=2")
    setting("abmil", data, tmp_path / "run").close()


def test_slides_with_too_few_places_are_refused_by_name(tmp_path: Path) -> None:
    data = planted(tmp_path / "short", members=lacking(lambda c: c[:-1]))
    with pytest.raises(DataError, match=r"'coords' has the shape \(\d+, 2\) for \d+ patches") as refused:
        setting("abmil", data, tmp_path / "run", "output.attention=3")
    assert len(refused.value.problems) == 3, "each slide that would get a map"
    assert "sample 'demo-" in refused.value.problems[0].where


def of_two(i: int, given: dict[Any, bytes]) -> dict[Any, bytes]:
    """The first half of every other sample's patches lies on one slide, the rest on another."""
    patches = len(np.load(BytesIO(given[COORDS])))
    content = BytesIO()
    np.save(content, (np.arange(patches) >= patches / 2).astype(np.int32)[:, None] * (i % 2))
    return {**given, ("coords_slide", "npy"): content.getvalue()}


def test_bags_of_several_slides_are_refused_by_name(tmp_path: Path) -> None:
    data = planted(tmp_path / "two", members=of_two)
    with pytest.raises(DataError, match=r"the bag has patches of 2 slides.*pack each slide as a sample") as refused:
        setting("abmil", data, tmp_path / "run", "output.attention=9")
    assert 0 < len(refused.value.problems) < 9, "those of one slide get a map"


@pytest.mark.parametrize(
    ("method", "words", "why"),
    [
        (
            "clam",
            ["output.head=linear"],
            "nothing weighs the patches of a slide in clam with output.head=linear; use output.head=auto",
        ),
        ("unet", [], "reads image, and maps are of the patches of a slide"),
    ],
)
def test_what_weighs_no_patches_has_no_map(
    method: str, words: list[str], why: str, cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=why):
        setting(method, cohort, tmp_path / "run", "output.attention=2", *words)


@pytest.mark.parametrize("words", [["mode=linear"], ["mode=knn"], ["output.head=bag"]])
def test_keys_that_leave_no_map_are_refused(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"output\.attention.*(leave it out|use output\.head=auto)"):
        build_task("demo_subtype", ["output.attention=2", *words])
