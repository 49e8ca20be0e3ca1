"""Remedies of layouts: folders and tables that are not there, archives, lists of splits, films as DICOM."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.remedies.files import replaced
from tests.remedies.scenario import Command, Place, remedy
from tests.shards.layout import miniatures as mini
from tests.shards.layout.films import film, grey
from tests.shards.layout.test_dicom_films import layout
from tests.shards.layout.test_layout_faults import own


def source(place: Place, name: str | Path, root: Path, *more: str) -> Command:
    return Command("source", [str(name), "--root", str(root), *more, "--out", str(place.folder / "out")])


def mine(place: Place, *more: str) -> Command:
    """A layout of one's own, with films, bags and genes."""
    root, path = own(place.folder)
    return source(place, path, root, *more)


def palm(place: Place, root: str) -> Command:
    """Photographs without a table."""
    mini.palm(place.folder / "root")
    (place.folder / "elsewhere").mkdir()
    return source(place, "palm", place.folder / root)


ROOT = {"--root": "--root {folder}/root"}


@remedy("give --root the folder that the set was unpacked in", r"give (--root)", ROOT)
def no_such_root(place: Place) -> Command:
    return palm(place, "nowhere")


@remedy("give --root the folder that holds the set", r"give (--root)", ROOT)
def a_root_without_the_set(place: Place) -> Command:
    return palm(place, "elsewhere")


@remedy("give --root the folder that holds the set, with its tables", r"give (--root)", ROOT)
def a_root_without_its_tables(place: Place) -> Command:
    (place.folder / "elsewhere").mkdir()
    command = mine(place)
    return Command("source", [w.replace("/root", "/elsewhere") for w in command.words])


def _unpack(place: Place) -> None:
    shutil.unpack_archive(place.folder / "root" / "bundle.zip", place.folder / "root")


@remedy(
    "archives that lie there (",
    r"(unpack the 1 archives that lie there \(bundle.zip\), each in a folder of its own name or in --root)",
    mend=_unpack,
)
def a_table_in_an_archive(place: Place) -> Command:
    command = mine(place)
    root = place.folder / "root"
    (place.folder / "part").mkdir()
    shutil.move(root / "films.csv", place.folder / "part" / "films.csv")
    shutil.make_archive(str(root / "bundle"), "zip", place.folder / "part")
    return command


def _download(place: Place) -> None:
    mini.picture(place.folder / "root" / "f3.png", 3)


@remedy("; or leave these rows out: ", r"leave these rows out: (--partial)")
@remedy(
    "finish the download, or give --root the folder that holds these paths", r"(finish the download)", mend=_download
)
def a_film_that_is_not_there(place: Place) -> Command:
    command = mine(place)
    (place.folder / "root" / "f3.png").unlink()
    return command


@remedy(
    "mend the table: paths begin in --root",
    r"(mend the table: paths begin in --root)",
    mend=replaced("root/films.csv", "../f3", "f3"),
)
def a_film_outside_the_root(place: Place) -> Command:
    command = mine(place)
    replaced("root/films.csv", "f3", "../f3")(place)
    return command


@remedy("remove it, or give another one with --work", r"another one with (--work)", {"--work": "--work {folder}/other"})
def a_folder_of_work_in_use(place: Place) -> Command:
    (place.folder / "out-work").mkdir()
    (place.folder / "out-work" / "thesis.txt").touch()
    return mine(place)


@remedy("split by patient: --splits patient", r"split by patient: (--splits patient)")
def no_list_of_splits(place: Place) -> Command:
    root = place.folder / "root"
    mini.nih(root)
    (root / "test_list.txt").unlink()
    return source(place, "nih_chestxray14", root)


@remedy("such films)", r"\((--burned-in) takes such films")
def writing_that_is_burned_in(place: Place) -> Command:
    for i in range(10):
        film(place.folder / "root" / f"f{i}.dcm", grey(i), **({"BurnedInAnnotation": "YES"} if i == 2 else {}))
    return source(place, layout(place.folder), place.folder / "root")


@remedy("take the values as they are: --window none", r"as they are: (--window none)")
def films_with_and_without_a_window(place: Place) -> Command:
    for i in range(10):
        film(place.folder / "root" / f"f{i}.dcm", grey(i), **({} if i else {"WindowCenter": 5, "WindowWidth": 9}))
    return source(place, layout(place.folder), place.folder / "root")
