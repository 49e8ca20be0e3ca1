"""Remedies of layouts: folders and tables that are not there, archives, lists of splits, films as DICOM."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from tests.remedies.files import replace, replaced, without_line
from tests.remedies.scenario import Command, Place, remedy
from tests.shards.layout import cohorts
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


@remedy("Fix: gunzip ", r"(gunzip \S+)")
def a_table_packed_alone(place: Place) -> Command:
    command = mine(place)
    table = place.folder / "root" / "films.csv"
    table.with_name("films.csv.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    return command


@remedy("if it is whole, end the line: echo >> ", r"if it is whole, end the line: (echo >> \S+)")
def a_last_line_without_an_end(place: Place) -> Command:
    root = place.folder / "root"
    mini.aptos(root)
    mini.picture(root / "train_images" / "stranger.png", 99, colour=True)
    (root / "train.csv").write_text((root / "train.csv").read_text().rstrip("\n"))
    return source(place, "aptos2019", root)


def _as_published(place: Place) -> None:
    path = place.folder / "root" / "data_cna.txt"
    path.write_text(path.with_suffix(".kept").read_text())


@remedy(
    "bring the table of these samples as it was published",
    r"(bring the table of these samples as it was published)",
    mend=_as_published,
)
def a_wide_table_of_nobody(place: Place) -> Command:
    root = place.folder / "root"
    cohorts.portal(root)
    path = root / "data_cna.txt"
    path.rename(path.with_suffix(".kept"))
    path.write_text(path.with_suffix(".kept").read_text().replace("TCGA-", "TARGET-"))
    return source(place, "tcga_cbioportal", root)


def _whole(place: Place) -> None:
    for path in (place.folder / "root" / "gdc").rglob("*.partial"):
        path.rename(path.with_suffix(""))


@remedy(
    "call gdc-client again with the same manifest, or remove them",
    r"(call gdc-client again with the same manifest)",
    mend=_whole,
)
def a_file_that_was_begun(place: Place) -> Command:
    root = place.folder / "root"
    root.mkdir()
    cohorts.lung(root)
    path = sorted((root / "gdc").rglob("*star_gene_counts.tsv"))[0]
    path.rename(path.with_name(f"{path.name}.partial"))
    return source(place, "tcga_luad_lusc", root)


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
    "write / in place of \\ in the paths",
    r"(write / in place of \\) in",
    mend=replaced("root/films.csv", "sub\\", "sub/"),
)
def a_film_by_the_path_of_another_system(place: Place) -> Command:
    command = mine(place)
    (place.folder / "root" / "sub").mkdir()
    (place.folder / "root" / "f3.png").rename(place.folder / "root" / "sub" / "f3.png")
    (place.folder / "root" / "bags" / "sub").mkdir()
    (place.folder / "root" / "bags" / "f3.npz").rename(place.folder / "root" / "bags" / "sub" / "f3.npz")
    replaced("root/films.csv", "f3", "sub\\f3")(place)
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


@remedy("(--window none leaves it out)", r"outside of \((--window none) leaves it out\)")
def a_window_beside_all_values(place: Place) -> Command:
    for i in range(10):
        film(place.folder / "root" / f"f{i}.dcm", grey(i), WindowCenter=9000, WindowWidth=9)
    return source(place, layout(place.folder), place.folder / "root")


@remedy("what is as bright in both cannot be told: ", r"as they are: (--window none)")
def films_with_and_without_a_window(place: Place) -> Command:
    for i in range(10):
        film(place.folder / "root" / f"f{i}.dcm", grey(i), **({} if i else {"WindowCenter": 5, "WindowWidth": 9}))
    return source(place, layout(place.folder), place.folder / "root")


@remedy("take values as they are: --window none", r"as they are: (--window none)")
@remedy("spread each by the bits that it stores: --window stored", r"it stores: (--window stored)")
def films_of_detectors_of_several_depths(place: Place) -> Command:
    for i in range(10):
        bits = 10 if i else 12
        film(place.folder / "root" / f"f{i}.dcm", grey(i, bits), bits=bits)
    return source(place, layout(place.folder), place.folder / "root")


@remedy(
    "bring the table of these samples, or count rows of other words (long.keep, long.drop, long.least)",
    r"(bring the table of these samples)",
    mend=replaced("root/data_mutations.txt", "Silent", "Missense_Mutation"),
)
def mutations_that_do_not_count(place: Place) -> Command:
    root = place.folder / "root"
    cohorts.portal(root)
    kinds = ("Missense_Mutation", "Nonsense_Mutation", "Frame_Shift_Del")
    table = root / "data_mutations.txt"
    for kind in kinds:
        table.write_text(table.read_text().replace(kind, "Silent"))
    return source(place, "tcga_cbioportal", root)


def slices(place: Place) -> tuple[Path, Command]:
    """A layout that names a source in Python, and its folder."""
    root = place.folder / "brain"
    cohorts.kaggle(root)
    return root, source(place, "kaggle_lgg_mri", root)


@remedy("bring it, or say where it is: ", r"say where it is: (--expression PATH)", {"PATH": "{folder}/genes.tsv.gz"})
def a_table_that_lies_elsewhere(place: Place) -> Command:
    root, command = slices(place)
    (root / "TCGA-LGG.htseq_fpkm.tsv.gz").rename(place.folder / "genes.tsv.gz")
    return command


@remedy("say which: ", r"say which: (--survival FILE)", {"FILE": "{folder}/brain/data_clinical_patient.txt"})
def two_tables_that_could_be_meant(place: Place) -> Command:
    root, command = slices(place)
    ends = [[c, 10 + i, i % 2] for i, c in enumerate(cohorts.LGG)]
    cohorts.clinical(root / "data_clinical_patient.txt", ["PATIENT_ID", "OS_MONTHS", "OS_STATUS"], ends)
    return command


# -------------------------------------------------------------------------------------------------------- tables and cells


def edited(place: Place, old: str, new: str, name: str = "root/films.csv", *more: str) -> Command:
    """A layout of one's own with other words in one of its files."""
    command = mine(place, *more)
    replace(place.folder / name, old, new)
    return command


@remedy(
    "mend the cells; if another release says so",
    r"(mend the cells); if",
    mend=replaced("root/films.csv", "f3,p1,7", "f3,p1,0"),
)
def a_word_that_means_nothing(place: Place) -> Command:
    command = edited(place, "kind: number}", 'words: {0: "0", 1: "1", 2: "2"}}', "mine.yaml")
    replace(place.folder / "root/films.csv", "f3,p1,0", "f3,p1,7")
    return command


@remedy("fill the cells, or take the rows out", r"(take the rows out)", mend=without_line("root/films.csv", ",p1,0"))
def a_row_without_a_name(place: Place) -> Command:
    return edited(place, "f3,p1,0", ",p1,0")


@remedy(
    "mend the rows: they are of one image",
    r"(mend the rows): they",
    mend=replaced("root/films.csv", "f3,p3,0", "f3,p1,0"),
)
def two_rows_of_one_film(place: Place) -> Command:
    edited(place, "rows: [films]", "rows: [films]\nseveral: true", "mine.yaml")
    path = place.folder / "root/films.csv"
    path.write_text(path.read_text() + "f3,p3,0\n")
    return source(place, place.folder / "mine.yaml", place.folder / "root")


@remedy(
    "mend the cells, or take the row out of the table", r"(mend the cells), or", mend=replaced("root/films.csv", "../x", "f3"),
)  # fmt: skip
def a_bag_outside_the_root(place: Place) -> Command:
    """The bag has a column of its own, which the film's path does not use."""
    command = edited(place, "bags/{film}.npz", "bags/{bag}.npz", "mine.yaml")
    path = place.folder / "root/films.csv"
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([lines[0] + ",bag", *(f"{line},{'../x' if line[:2] == 'f3' else line[:2]}" for line in lines[1:])])
    )
    return command


@remedy(
    "or take their rows out of the table",
    r"(take their rows out of the table)",
    mend=without_line("root/films.csv", "f3"),
)
def a_picture_that_is_none(place: Place) -> Command:
    command = edited(place, "{film}.png", "{film}.*", "mine.yaml")
    (place.folder / "root" / "f3.png").unlink()
    (place.folder / "root" / "f3.tif").write_text("no picture")
    return command


@remedy(
    "it is a table of another release: bring ",
    r"(bring films.csv)",
    mend=replaced("root/films.csv", "film,who", "film,person"),
)
def a_table_of_another_release(place: Place) -> Command:
    return edited(place, "film,person", "film,who")


@remedy("columns are ", r"columns are (film)", mend=replaced("mine.yaml", "grades", "grade"))
def a_column_that_no_row_has(place: Place) -> Command:
    return edited(place, "column: grade", "column: grades", "mine.yaml")


@remedy(
    "mend the layout (docs/layouts.md lists its keys)",
    r"(mend the layout)",
    mend=replaced("mine.yaml", "citaton", "citation"),
)
def a_key_that_is_none(place: Place) -> Command:
    return edited(place, "citation", "citaton", "mine.yaml")


@remedy(
    "give a layout as docs/layouts.md describes it", r"(give a layout)", mend=replaced("mine.yaml", "[films", "[films]")
)
def a_layout_that_is_no_yaml(place: Place) -> Command:
    return edited(place, "rows: [films]", "rows: [films", "mine.yaml")


@remedy(
    "they are all excluded: bring the whole set",
    r"(bring the whole set)",
    mend=replaced("mine.yaml", "keep: [9]", "keep: [0, 1, 2]"),
)
def nothing_but_what_is_excluded(place: Place) -> Command:
    return edited(place, "labels:", "exclude: [{column: grade, keep: [9], why: another grade}]\nlabels:", "mine.yaml")


@remedy(
    "put tables in the order in which they join",
    r"(put tables in the order in which they join)",
    mend=replaced("mine.yaml", "  people: {file: rna.csv, columns: [TP53], join: {case: '{cases.person}'}}\n", ""),
)
def a_table_that_joins_by_a_later_one(place: Place) -> Command:
    later = "  people: {file: rna.csv, columns: [TP53], join: {case: '{cases.person}'}}\n"
    return edited(place, "rows: [films]", f"{later}rows: [films]", "mine.yaml")


@remedy(" -exec sh -c 'mv ", r"Fix: (find .*\\;)")
def photographs_whose_endings_are_capitals(place: Place) -> Command:
    command = palm(place, "root")
    for path in sorted((place.folder / "root").rglob("*.jpg"))[::2]:
        path.rename(path.with_suffix(".JPG"))
    return command


@remedy(
    "bring the table as it was published, with ids as they were",
    r"(bring the table as it was published)",
    mend=replaced("root/films.csv", "f0,7.0,", "f0,7,"),
)
def ids_that_a_data_frame_made_decimals(place: Place) -> Command:
    command = edited(place, "f0,p0,", "f0,7.0,")
    layout, root = place.folder / "mine.yaml", place.folder / "root"
    replace(layout, '"{film}.png"', '"{person}/{film}.png"')
    replace(layout, '  rna: {reference: "rna.csv#{person}"}\n', "")
    for i in range(8):
        person = "7" if i == 0 else f"p{i // 2}"
        (root / person).mkdir(exist_ok=True)
        (root / f"f{i}.png").rename(root / person / f"f{i}.png")
    return command


@remedy("views are ", r"(views are PA)", mend=lambda place: None, instead=["--views"])
def a_view_that_no_row_has(place: Place) -> Command:
    return edited(
        place,
        "labels:",
        "view: {columns: [grade], words: {0: PA, 1: AP, 2: LL}}\nlabels:",
        "mine.yaml",
        "--views",
        "frontal",
    )


@remedy(
    "bring the tables of one release", r"(bring the tables of one release)",
    mend=lambda place: mini.rsna(place.folder / "root", films=False),
)  # fmt: skip
def a_table_that_joins_nobody(place: Place) -> Command:
    root = place.folder / "root"
    mini.rsna(root)
    mini.table(root / "stage_2_detailed_class_info.csv", [{"patientId": "somebody", "class": "Normal"}])
    return source(place, "rsna_pneumonia", root)


def nih(place: Place) -> tuple[Path, Command]:
    root = place.folder / "root"
    mini.nih(root)
    return root, source(place, "nih_chestxray14", root)


@remedy("bring the lists as published, or ", r"split by patient: (--splits patient)")
def an_image_in_two_lists(place: Place) -> Command:
    root, command = nih(place)
    (root / "train_val_list.txt").write_text((root / "train_val_list.txt").read_text() + "\n00000012_000.png")
    return command


@remedy("bring those of this set, or ", r"split by patient: (--splits patient)")
def lists_of_another_set(place: Place) -> Command:
    root, command = nih(place)
    for name in ("train_val_list.txt", "test_list.txt"):
        (root / name).write_text(f"somebody-{name}")
    return command


@remedy(
    "choose others, such as ViewPosition", r"choose others, such as (ViewPosition)",
    mend=replaced("clinic.yaml", "PatientName", "ViewPosition"),
)  # fmt: skip
def a_name_as_label(place: Place) -> Command:
    for i in range(10):
        film(place.folder / "root" / f"f{i}.dcm", grey(i))
    chosen = "header: {labels: {PatientName: name}}\n"
    return source(place, layout(place.folder, chosen), place.folder / "root")
