"""Remedies of `shards index`: what the members of other people's tars are."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Sequence

from tests.remedies.scenario import Command, Place, remedy
from tests.shards.builders import jpeg, write_tar

COUNT = 10


def index(place: Place, members: Sequence[tuple[str, bytes]], *more: str, name: str = "0.tar") -> Command:
    (place.folder / "d").mkdir(exist_ok=True)
    write_tar(place.folder / "d" / name, list(members))
    return Command("shards", ["index", str(place.folder / "d"), *more])


def sample(i: int, meta: str = "meta.json", **label: object) -> list[tuple[str, bytes]]:
    return [(f"s{i}.image.jpg", jpeg(i)), (f"s{i}.{meta}", json.dumps({"patient": f"p{i}", "labels": label}).encode())]


def plain(**label: Sequence[object]) -> list[tuple[str, bytes]]:
    return [m for i in range(COUNT) for m in sample(i, **{n: v[i % len(v)] for n, v in label.items()})]


@remedy("say which field it is, such as", r"such as (--member jpg=image)")
@remedy("say which field it is, such as", r"or (--skip jpg)")
def a_member_without_a_field(place: Place) -> Command:
    return index(place, [m for i in range(COUNT) for m in [*sample(i), (f"s{i}.jpg", jpeg(i))][1:]])


@remedy("say what its values are: ", r"what its values are: (--member json.KEY=patient)", {"KEY": "patient"})
@remedy("say what its values are: ", r"or (--skip json)")
def a_json_without_a_meaning(place: Place) -> Command:
    return index(place, [m for i in range(COUNT) for m in [*sample(i), *sample(i, "json")[1:]]])


@remedy("say what its values are: ", r"(--member json.KEY=label:NAME)", {"KEY": "patient", "NAME": "who"})
def a_json_of_labels(place: Place) -> Command:
    return index(place, [m for i in range(COUNT) for m in sample(i, "json")], "--patient-from-key")


@remedy("if its text is a label; or", r"(--member cls=label:NAME)", {"NAME": "kind"})
@remedy("if its text is a label; or", r"or (--skip cls)")
def a_text_without_a_meaning(place: Place) -> Command:
    return index(place, [m for i in range(COUNT) for m in [*sample(i), (f"s{i}.cls", b"ab"[i % 2 :][:1])]])


@remedy("the kind can carry code and is never read", r"; (--skip pkl)")
def a_member_with_code(place: Place) -> Command:
    return index(place, [m for i in range(COUNT) for m in [*sample(i), (f"s{i}.pkl", b"-")]])


@remedy("or pass --patient-from-key if a key is a patient", r"pass (--patient-from-key)")
@remedy("or pass --patient-from-key if a key is a patient", r"\((--member json.KEY=patient)\)", {"KEY": "id"})
def no_patient(place: Place) -> Command:
    who = [(f"s{i}.json", json.dumps({"id": f"p{i}", "age": i}).encode()) for i in range(COUNT)]
    members = [m for i in range(COUNT) for m in ((f"s{i}.image.jpg", jpeg(i)), who[i])]
    return index(place, members, "--member", "json.age=label:age")


@remedy("or put its tar's name before it: --shard-in-key", r"before it: (--shard-in-key)")
def keys_twice(place: Place) -> Command:
    index(place, plain(), name="1.tar")
    return index(place, plain())


@remedy("(classes) or all of them numbers, or say --label-kind", r"say (--label-kind grade=class)")
def a_label_of_texts_and_numbers(place: Place) -> Command:
    return index(place, plain(grade=["low", 3]))


@remedy("such as --member jpg=image", r"such as (--member jpg=image)", instead=["--member"])
def no_meaning_of_a_member(place: Place) -> Command:
    members = [m for i in range(COUNT) for m in [(f"s{i}.jpg", jpeg(i)), sample(i)[1]]]
    return index(place, members, "--member", "image")


@remedy("give what follows KEY. in the tar", r"such as (--member jpg=image)", instead=["--member"])
def no_name_of_a_member(place: Place) -> Command:
    members = [m for i in range(COUNT) for m in [(f"s{i}.jpg", jpeg(i)), sample(i)[1]]]
    return index(place, members, "--member", "*.jpg=image")


@remedy(
    "say which, such as --member json.NAME=", r"(--member json.NAME=patient)", {"NAME": "patient"}, instead=["--member"]
)
def a_json_of_many_values(place: Place) -> Command:
    return index(place, [m for i in range(COUNT) for m in sample(i, "json")], "--member", "json=patient")


@remedy("leave it out: --skip", r"leave it out: (--skip cls)", instead=["--member"])
def a_text_that_is_no_field(place: Place) -> Command:
    members = [m for i in range(COUNT) for m in [*sample(i), (f"s{i}.cls", b"a")]]
    return index(place, members, "--member", "cls=kind")


@remedy("is no pattern (", r"such as ('.*')", {"'^": "--patient-pattern '^"}, instead=["--patient-pattern"])
def no_pattern(place: Place) -> Command:
    members = [m for i in range(COUNT) for m in ((f"s{i}_x.image.jpg", jpeg(i)),)]
    return index(place, members, "--patient-pattern", "(")


@remedy("is packed by gzip", r"Fix: (mv .*)", {"mv": "cd {folder}/d && mv"})
def gzip_named_tar(place: Place) -> Command:
    return _packed(place, gzip.compress)


@remedy("is packed by bzip2", r"Fix: (mv .*)", {"mv": "cd {folder}/d && mv"})
def bzip2_named_tar(place: Place) -> Command:
    return _packed(place, bz2.compress)


@remedy("is packed by xz", r"Fix: (mv .*)", {"mv": "cd {folder}/d && mv"})
def xz_named_tar(place: Place) -> Command:
    return _packed(place, lzma.compress)


def _packed(place: Place, how: Callable[[bytes], bytes]) -> Command:
    command, tar = index(place, plain()), place.folder / "d" / "0.tar"
    tar.write_bytes(how(tar.read_bytes()))
    return command
