"""Remedies of `source fundus_genotypes`: photographs, genotypes, scores, and whose they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.remedies.files import removed, replace, replaced, without_line
from tests.remedies.scenario import Command, Place, remedy
from tests.shards.test_fundus_joins import PEOPLE, chip, pictures, scores

ROWS = range(len(PEOPLE))
Value = Callable[[int], object]


def source(place: Place, *more: object, people: list[str] = PEOPLE) -> Command:
    """A photograph a person, packed uncropped unless `more` says other."""
    table = pictures(place.folder, people)
    given = ["--images", table, "--quality", "none", *more, "--out", place.folder / "out", "--overwrite"]
    return Command("source", ["fundus_genotypes", *map(str, given)])


def pgs(place: Place, head: str, *columns: Value, extra: str = "", people: list[str] = PEOPLE) -> Command:
    """With scores of everybody, and a further line of them."""
    rows = [[c(i) for c in columns] for i in ROWS] + ([list(extra.split(","))] if extra else [])
    return source(place, "--pgs", scores(place.folder / "pgs.csv", head.split(","), rows), people=people)


def score(i: int) -> float:
    return i * i / 7


def person(i: int) -> str:
    return PEOPLE[i]


# ----------------------------------------------------------------------------------------------------------- photographs


@remedy("uncropped: --quality none", r"uncropped: (--quality none)")
def no_retina(place: Place) -> Command:
    return source(place, "--quality", "circle")


@remedy("give one such as --brightness-tails 0.005", r"such as (--brightness-tails 0.005)")
def more_than_all_are_too_bright(place: Place) -> Command:
    return source(place, "--brightness-tails", "0.7")


@remedy("give 1 or more: --every 1 keeps all", r"more: (--every 1)")
def every_0th_snp(place: Place) -> Command:
    return source(place, "--every", "0")


@remedy("name them with --image-column", r"with (--image-column),", {"-column": "-column film"})
def no_column_of_photographs(place: Place) -> Command:
    command = source(place)
    replace(place.folder / "images.csv", "image,", "film,")
    return command


@remedy("name each image once, uniquely", r"(name each image once)", mend=without_line("images.csv", "e3.png"))
def a_photograph_twice(place: Place) -> Command:
    command = source(place)
    with open(place.folder / "images.csv", "a") as f:
        f.write("img/e3.png,1003,L\n")
    return command


@remedy(
    "mend the cell in ", r"(mend the cell in images.csv line 5)", mend=replaced("images.csv", "img/3.png", "img/e3.png")
)
def a_photograph_that_is_not_there(place: Place) -> Command:
    command = source(place)
    replace(place.folder / "images.csv", "img/e3.png", "img/3.png")
    return command


# ------------------------------------------------------------------------------------------------------------- genotypes


def npz(place: Place, **changed: Any) -> None:
    """Sound genotypes of all, or what is changed of them."""
    arrays: dict[str, Any] = {
        "genotype": np.random.default_rng(0).integers(0, 3, (len(PEOPLE), 6)), "sample_id": PEOPLE, "chrom": ["1"] * 6,
        "rsid": [f"rs{i}" for i in range(6)], "pos": np.arange(6), "allele": ["A/G"] * 6,
    }  # fmt: skip
    np.savez(place.folder / "g.npz", **{n: v for n, v in (arrays | changed).items() if v is not None})


def genotypes(place: Place, **changed: Any) -> Command:
    npz(place, **changed)
    return source(place, "--genotypes", place.folder / "g.npz")


@remedy("give --genotypes FILE.bed or FILE.npz", r"give (--genotypes FILE.bed)", {"FILE": "{folder}/g"})
@remedy(
    "give --genotypes FILE.bed or FILE.npz", r"(--genotypes FILE.bed or FILE.npz)", {"FILE.bed or FILE": "{folder}/g"}
)
def genotypes_of_another_kind(place: Place) -> Command:
    npz(place)
    chip(place.folder)
    return source(place, "--every", "1", "--genotypes", place.folder / "g.vcf")


@remedy("state it: --meaning snp.build=GRCh38", r"state it: (--meaning snp.build=GRCh38)", status=0)
def genotypes_of_an_unknown_build(place: Place) -> Command:
    return genotypes(place)


@remedy("keep one of them", r"(keep one of them)", mend=npz)
def a_person_twice(place: Place) -> Command:
    return genotypes(place, sample_id=[*PEOPLE[:-1], PEOPLE[0]])


@remedy(
    "code copies of one allele as 0, 1, 2", r"(code copies of one allele as 0, 1, 2 and a missing call as -1)", mend=npz
)
def other_codes(place: Place) -> Command:
    return genotypes(place, genotype=np.full((len(PEOPLE), 6), 7))


@remedy("it needs genotype [N, S], sample_id, rsid, chrom", r"(it needs genotype \[N, S\])", mend=npz)
def genotypes_without_names(place: Place) -> Command:
    return genotypes(place, rsid=None)


@remedy("give an .npz without pickled objects", r"(give an .npz without pickled objects)", mend=npz)
def genotypes_with_objects(place: Place) -> Command:
    return genotypes(place, rsid=np.array([f"rs{i}" for i in range(6)], object))


@remedy("every array of SNPs as long as rsid", r"(write it again, every array of SNPs as long as rsid)", mend=npz)
def genotypes_of_other_lengths(place: Place) -> Command:
    return genotypes(place, chrom=["1"] * 5)


@remedy("write them as A/G, the counted one first", r"(write them as A/G)", mend=npz)
def alleles_of_another_form(place: Place) -> Command:
    return genotypes(place, allele=["AG"] * 6)


@remedy("give genotypes of chromosomes 1 to 22", r"(give genotypes of chromosomes 1 to 22)", mend=npz)
def genotypes_of_no_autosome(place: Place) -> Command:
    return genotypes(place, chrom=["X"] * 6)


@remedy("bring genotypes that were called", r"(bring genotypes that were called)", mend=npz)
def genotypes_without_a_call(place: Place) -> Command:
    return genotypes(place, genotype=np.full((len(PEOPLE), 6), -1))


# ----------------------------------------------------------------------------------------------------------------- PLINK


def plink(place: Place) -> Command:
    return source(place, "--every", "1", "--genotypes", chip(place.folder))


def made_again(place: Place) -> None:
    chip(place.folder)


@remedy("give all three", r"(give all three)", mend=made_again)
def a_bed_alone(place: Place) -> Command:
    command = plink(place)
    removed("g.bim")(place)
    return command


@remedy("bring .bed, .bim and .fam of one file set", r"(bring .bed, .bim and .fam of one file set)", mend=made_again)
def a_fam_of_others(place: Place) -> Command:
    command = plink(place)
    with open(place.folder / "g.fam", "a") as f:
        f.write("".join(f"0 x{i} 0 0 0 0\n" for i in range(4)))
    return command


@remedy("make it again with plink --make-bed", r"(make it again with plink --make-bed)", mend=made_again)
def a_bed_of_another_order(place: Place) -> Command:
    command = plink(place)
    path = place.folder / "g.bed"
    path.write_bytes(b"\0\0\0" + path.read_bytes()[3:])
    return command


@remedy("give the text file that PLINK wrote", r"(give the text file that PLINK wrote)", mend=made_again)
def a_fam_in_another_encoding(place: Place) -> Command:
    command = plink(place)
    (place.folder / "g.fam").write_bytes("0 Jürgen 0 0 0 0\n".encode("latin-1"))
    return command


@remedy("a line is: chromosome, id, centimorgans", r"(a line is: chromosome, id, centimorgans)", mend=made_again)
def a_bim_of_other_columns(place: Place) -> Command:
    command = plink(place)
    replace(place.folder / "g.bim", "\trs3\t", "\trs3\t7\t8\t")
    return command


@remedy("a line is: family, person", r"(a line is: family, person)", mend=made_again)
def a_fam_of_one_column(place: Place) -> Command:
    command = plink(place)
    (place.folder / "g.fam").write_text("1000\n" * len(PEOPLE))
    return command


@remedy("keep one of each, such as by plink --keep", r"(keep one of each, such as by plink --keep)", mend=made_again)
def a_person_of_a_family_twice(place: Place) -> Command:
    command = plink(place)
    replace(place.folder / "g.fam", "1003", "1002")
    return command


# ---------------------------------------------------------------------------------------------------------------- scores


@remedy("; columns: ", r"give (--pgs-people IID),")
def people_in_another_column(place: Place) -> Command:
    return pgs(place, "S,IID,T", score, person, lambda i: score(i) - 1)


@remedy("; columns: ", r"or (--pgs-people 'own code');")
def people_under_a_name_of_their_own(place: Place) -> Command:
    return pgs(place, "own code,id,S", person, lambda i: i, score)


@remedy(" one of its columns: ", r"give (--pgs-people) one of its columns: ", {"-people": "-people IID"})
def no_such_people(place: Place) -> Command:
    command = pgs(place, "IID,S", person, score)
    return Command("source", [*command.words, "--pgs-people", "iid"])


@remedy(
    "give a table with a column of scores",
    r"(give a table with a column of scores)",
    mend=lambda p: pgs(p, "FID,IID,S", lambda i: 1, person, score),
)
def people_without_scores(place: Place) -> Command:
    return pgs(place, "FID,IID", lambda i: 1, person)


# --------------------------------------------------------------------------------------------------------- who is who


def pairing(place: Place, head: str, *columns: Value, flags: tuple[str, ...] = ()) -> Command:
    rows = [[c(i) for c in columns] for i in ROWS]
    table = scores(place.folder / "pairing.csv", head.split(","), rows)
    command = pgs(place, "IID,S", lambda i: f"x{i}y", score)
    return Command("source", [*command.words, "--pairing", str(table), *flags])


def other(i: int) -> str:
    return f"x{i}y"


@remedy("give --pairing-column; columns: ", r"give (--pairing-column);", {"-column": "-column person"})
def a_pairing_of_three_columns(place: Place) -> Command:
    return pairing(place, "image,person,batch", person, other, lambda i: 1)


@remedy(" one of its columns: ", r"give (--pairing-column) one of its", {"-column": "-column person"})
def no_such_column_of_a_pairing(place: Place) -> Command:
    return pairing(place, "image,person", person, other, flags=("--pairing-column", "who"))


@remedy("give --pairing-column the column of people", r"give (--pairing-column) the", {"-column": "-column person"})
def a_column_of_nobody(place: Place) -> Command:
    return pairing(place, "image,second,person", person, lambda i: "", other, flags=("--pairing-column", "second"))


@remedy(
    "its first column must name the patients of --images",
    r"(its first column must name the patients of --images)",
    mend=lambda p: pairing(p, "image,person", person, other),
)
def a_pairing_the_other_way_round(place: Place) -> Command:
    return pairing(place, "person,image", other, person)


@remedy(
    "must name people as ",
    r"a table of both with (--pairing)",
    {"--pairing": "--pairing {folder}/pairing.csv"},
)
def scores_of_other_names(place: Place) -> Command:
    scores(place.folder / "pairing.csv", ["image", "person"], [[person(i), other(i)] for i in ROWS])
    return pgs(place, "IID,S", other, score)


@remedy("write them as they were and look for people without an id, or give ", r"or give (--repair-ids)")
@remedy(
    "write them as they were",
    r"(write them as they were)",
    mend=lambda p: pgs(p, "IID,S", person, score),
)
def ids_as_decimal_numbers(place: Place) -> Command:
    return pgs(place, "IID,S", lambda i: f"{PEOPLE[i]}.0", score)


@remedy("ids are doubled, as plink --double-id does: give ", r"give (--repair-ids)")
def doubled_ids(place: Place) -> Command:
    return pgs(place, "IID,S", lambda i: f"{PEOPLE[i]}_{PEOPLE[i]}", score)


@remedy("keep one of each; people who are different", r"(keep one of each)", mend=without_line("pgs.csv", "p1003"))
def a_person_in_two_spellings(place: Place) -> Command:
    return pgs(place, "IID,S", person, score, extra="p1003,0.5")


# --------------------------------------------------------------------------------------------------- any table that is joined


@remedy("keep one line of each ", r"(keep one line of each person)", mend=without_line("pgs.csv", "1003"))
def a_person_on_two_lines(place: Place) -> Command:
    return pgs(place, "IID,S", person, score, extra="1003,0.5")


@remedy("keep one of each name", r"(keep one of each name)", mend=replaced("pgs.csv", "S,S", "S,T"))
def a_column_twice(place: Place) -> Command:
    return pgs(place, "IID,S,S", person, score, lambda i: score(i) + 1)


@remedy(
    "give a table with a line for each",
    r"(give a table with a line for each)",
    mend=lambda p: pictures(p.folder),
)
def a_table_of_a_header(place: Place) -> Command:
    command = source(place)
    (place.folder / "images.csv").write_text("image,patient,eye\n")
    return command
