"""Remedies of `source cxr_reports`: tables of chest films, their reports, findings and folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.remedies.files import removed, replace, replaced, table, without_column
from tests.remedies.scenario import Command, Place, remedy
from tests.shards.test_cxr_published import mimic
from tests.shards.test_cxr_reports import notes, picture


def source(place: Place, path: Path, *more: str) -> Command:
    return Command(
        "source", ["cxr_reports", "--csv", str(path), *more, "--out", str(place.folder / "out"), "--overwrite"]
    )


def films(place: Place, *more: str, **cells: Callable[[int], str]) -> Command:
    """A film a line, of a patient each; `cells` are columns by the line's number."""
    rows = []
    for i in range(10):
        picture(place.folder / f"f{i}.jpg", 20 * i)
        rows.append({"image": f"f{i}.jpg", "patient": f"p{i}"} | {name: of(i) for name, of in cells.items()})
    return source(place, table(place.folder / "t.csv", rows), *more)


def words(i: int) -> str:
    return f"The heart is of size {i}."


# --------------------------------------------------------------------------------------------------------------- columns


@remedy("name it with --image-column", r"name it with (--image-column)", {"-column": "-column film"})
def no_column_of_paths(place: Place) -> Command:
    return source(place, replace(notes(place.folder), "image,patient", "film,patient"))


@remedy(" one of its columns: ", r"give (--text-column) one of its columns: ", {"-column": "-column text"})
def no_such_column(place: Place) -> Command:
    return source(place, notes(place.folder), "--text-column", "txt")


@remedy("say which: ", r"say which: (--text-column)", {"-column": "-column 'Clinical.Notes'"})
def two_columns_of_one_name(place: Place) -> Command:
    return films(place, **{"Clinical Notes": words, "Clinical.Notes": words})


# ------------------------------------------------------------------------------------- where nothing is left of all lines


@remedy(
    "give the folder that the paths begin in as --images",
    r"begin in as (--images)",
    {"--images": "--images {folder}"},
)
def images_elsewhere(place: Place) -> Command:
    return films(place, "--images", str(place.folder / "elsewhere"), text=words)


@remedy("or name their column with --image-column", r"column with (--image-column)", {"-column": "-column file"})
def a_column_of_other_paths(place: Place) -> Command:
    command = films(place, text=words, file=lambda i: f"f{i}.jpg")
    replace(place.folder / "t.csv", "f0.jpg,p0", "g0.jpg,p0")
    for i in range(1, 10):
        replace(place.folder / "t.csv", f"f{i}.jpg,p{i}", f"g{i}.jpg,p{i}")
    return command


@remedy(
    "name the column of patients with --patient-column",
    r"patients with (--patient-column)",
    {"-column": "-column who"},
)
def nobody_s_films(place: Place) -> Command:
    command = films(place, text=words)
    replace(place.folder / "t.csv", "image,patient", "image,who")
    return command


def saved_as_jpeg(place: Place) -> None:
    for i in range(10):
        (place.folder / f"f{i}.dcm").unlink()
        picture(place.folder / f"f{i}.jpg", 20 * i)
    replace(place.folder / "t.csv", ".dcm", ".jpg")


@remedy("save the images as JPEG or PNG", r"(save the images as JPEG or PNG)", mend=saved_as_jpeg)
def films_as_dicom(place: Place) -> Command:
    command = films(place, text=words)
    for i in range(10):
        (place.folder / f"f{i}.jpg").rename(place.folder / f"f{i}.dcm")
    replace(place.folder / "t.csv", ".jpg", ".dcm")
    return command


@remedy("name the column of texts with --text-column", r"texts with (--text-column)", {"-column": "-column story"})
def an_empty_column_of_texts(place: Place) -> Command:
    return films(place, "--empty", "drop", text=lambda i: "", story=words)


# --------------------------------------------------------------------------------------------------------------- reports


@remedy("leave --text-files out", r"leave (--text-files) out", {"--text-files": ""}, instead=["--text-files"])
def texts_taken_for_files(place: Place) -> Command:
    return films(place, "--text-files", text=words)


def files(place: Place, folder: str, *more: str, encoding: str = "utf-8") -> Command:
    (place.folder / folder).mkdir(exist_ok=True)
    for i in range(10):
        (place.folder / folder / f"{i}.txt").write_text(f"Größe {i}", encoding=encoding)
    return films(place, "--text-files", *more, text=lambda i: f"{i}.txt")


@remedy(
    "give the folder of the report files as --reports",
    r"report files as (--reports)",
    {"--reports": "--reports {folder}/texts"},
)
@remedy("or pack images and labels alone: --no-reports", r"alone: (--no-reports)")
def reports_in_a_folder_of_their_own(place: Place) -> Command:
    return files(place, "texts")


@remedy(
    "give the folder that holds all report files as --reports",
    r"all report files as (--reports)",
    {"--reports": "--reports {folder}"},
)
def reports_beside_their_folder(place: Place) -> Command:
    (place.folder / "inner").mkdir()
    files(place, ".")
    inner = str(place.folder / "inner")
    return films(place, "--text-files", "--reports", inner, text=lambda i: str(place.folder / f"{i}.txt"))


def saved_as_utf8(place: Place) -> None:
    for i in range(10):
        path = place.folder / f"{i}.txt"
        path.write_text(path.read_text("latin-1"), encoding="utf-8")


@remedy("save the report files as UTF-8", r"(save the report files as UTF-8)", mend=saved_as_utf8)
def reports_in_another_encoding(place: Place) -> Command:
    return files(place, ".", encoding="latin-1")


@remedy("raise the limit with --longest", r"limit with (--longest)", {"--longest": "--longest 100"})
def reports_over_the_limit(place: Place) -> Command:
    return films(place, "--longest", "5", text=words)


# --------------------------------------------------------------------------------------------------------------- patients


def chexpert(place: Place, who: Callable[[int], str], *more: str) -> Command:
    """Two films of each of six patients by folder; `who` is what the column says of the k-th film."""
    rows = []
    for k in range(12):
        path = f"train/patient{k // 2:05d}/study1/view{k % 2 + 1}_frontal.jpg"
        picture(place.folder / path, 15 * k)
        rows.append({"Path": path, "patient": who(k), "Edema": "1.0" if k % 4 else "0.0"})
    return source(place, table(place.folder / "t.csv", rows), *more)


@remedy("say so with --patient-column", r"say so with (--patient-column)", {"-column": "-column patient"})
@remedy("say so with --patient-column", r"mend the column, or (drop it)", mend=without_column("t.csv", "patient"))
def a_column_of_names_of_its_own(place: Place) -> Command:
    return chexpert(place, lambda k: "abcdef"[k // 2])


BY_FOLDER = "drop the column and --patient-column"


@remedy(
    BY_FOLDER,
    r"(drop the column and --patient-column)",
    mend=without_column("t.csv", "patient"),
    instead=["--patient-column"],
)
@remedy("mend the column, or ", r"(mend the column), or drop", mend=replaced("t.csv", ",zz,", ",a,"))
def a_folder_of_two_people(place: Place) -> Command:
    return chexpert(place, lambda k: "zz" if k == 1 else "abcdef"[k // 2], "--patient-column", "patient")


@remedy(
    BY_FOLDER,
    r"(drop the column and --patient-column)",
    mend=without_column("t.csv", "patient"),
    instead=["--patient-column"],
)
@remedy("fill the column, or ", r"(fill the column), or drop", mend=replaced("t.csv", ", ,", ",f,"))
def a_folder_of_nobody(place: Place) -> Command:
    return chexpert(place, lambda k: "abcde "[k // 2], "--patient-column", "patient")


# --------------------------------------------------------------------------------------------------------------- findings


@remedy(
    "a finding is 1 (present), 0 (absent), -1 (uncertain) or blank",
    r"(a finding is 1 \(present\))",
    mend=replaced("t.csv", "maybe", "1"),
)
def an_answer_that_is_none(place: Place) -> Command:
    return films(place, Edema=lambda i: "maybe" if i == 3 else str(i % 2))


@remedy("known are ", r"(known are atelectasis, [^.]*)", mend=replaced("t.csv", "Oedema", "Edema"))
def a_finding_that_is_none(place: Place) -> Command:
    return films(place, **{"Finding Labels": lambda i: "Oedema|Mass" if i == 3 else "Mass"})


@remedy("write the findings, or ", r"(write the findings), or no_finding", mend=replaced("t.csv", "No Finding|", ""))
def findings_and_no_finding(place: Place) -> Command:
    return films(place, **{"Finding Labels": lambda i: "No Finding|Mass" if i == 3 else "Edema"})


# --------------------------------------------------------------------------------------------------------------- folders


def published(place: Place, name: str, *more: str) -> Command:
    return source(place, mimic(place.folder / "m", 8) / name, *more)


META, SPLITS = "mimic-cxr-2.0.0-metadata.csv.gz", "mimic-cxr-2.0.0-split.csv.gz"


@remedy(
    "give the table as it was published",
    r"(give the table as it was published)",
    mend=lambda p: mimic(p.folder / "m", 8),
)
def ids_that_make_no_path(place: Place) -> Command:
    command = published(place, META)
    replace(place.folder / "m" / META, ",50000003,", ",study 3,")
    return command


@remedy("films as --images", r"films as (--images)", {"--images": "--images {folder}/m"})
def studies_without_films(place: Place) -> Command:
    return published(place, "cxr-study-list.csv.gz", "--images", str(place.folder / "elsewhere"))


@remedy("remove one of each", r"(remove one of each)", mend=removed("images_002/images/00000003_000.png"))
def a_film_in_two_folders(place: Place) -> Command:
    rows = []
    for i in range(10):
        name = f"{i:08d}_000.png"
        picture(place.folder / f"images_{1 + i % 2:03d}" / "images" / name, 20 * i)
        rows.append({"Image Index": name, "Finding Labels": "Mass" if i % 2 else "Edema", "Patient ID": str(i)})
    picture(place.folder / "images_001" / "images" / "00000003_000.png", 60)
    return source(place, table(place.folder / "t.csv", rows))


@remedy(
    "give the table of these films: MIMIC-CXR's ids are looked for in",
    r"(give the table of these films)",
    mend=lambda p: mimic(p.folder / "m", 8),
)
def splits_of_other_films(place: Place) -> Command:
    command = published(place, META, "--splits", str(place.folder / "m" / SPLITS))
    replace(place.folder / "m" / SPLITS, "-0000ffff-", "-0000eeee-")
    return command


@remedy("give MIMIC's table of splits as --splits", r"as (--splits \S+gz)", {"--splits ": "--splits {folder}/m/"})
def another_table_than_the_splits(place: Place) -> Command:
    return published(place, META, "--splits", str(place.folder / "m" / META))


@remedy("give MIMIC's table of findings as --labels", r"as (--labels \S+gz)", {"--labels ": "--labels {folder}/m/"})
def another_table_than_the_findings(place: Place) -> Command:
    command = published(place, META)
    labels = table(place.folder / "findings.csv", [{"study": "50000001", "Edema": "1.0"}])
    return Command("source", [*command.words, "--labels", str(labels)])
