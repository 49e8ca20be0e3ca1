"""Tars as people have them: made by img2dataset, WebDataset's writer, GNU tar and macOS, read in place by the offsets of an index."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import webdataset
from builders import jpeg, npy, png, write_tar
from manifests import snapshot

from shards.__main__ import main
from shards.check.info import collect, text
from shards.check.lint import lint
from shards.errors import DataError
from shards.format.info import Adopted, load_info
from shards.pack.adopt import adopt
from shards.pack.tars import expanded, folder_of
from shards.read.dataset import Dataset

Members = Iterable[tuple[str, bytes]]


def folder(path: Path, members: Members, name: str = "000000.tar", form: int = tarfile.USTAR_FORMAT) -> Path:
    path.mkdir(exist_ok=True)
    with tarfile.open(path / name, "w", format=form) as tar:
        for member, data in members:
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def img2dataset(count: int = 12) -> Members:
    for i in range(count):
        meta = {
            "key": f"{i:09d}",
            "status": "success",
            "subject": {"id": 10_000 + i // 2, "age": 40 + i},
            "grade": ["low", "high"][i % 2],
        }
        yield f"{i:09d}.jpg", jpeg(i)
        yield f"{i:09d}.json", json.dumps(meta).encode()
        yield f"{i:09d}.txt", f"film {i}".encode()


def plain(count: int = 10, prefix: str = "", patient: object = None) -> Members:
    """KEY.image.jpg and KEY.meta.json."""
    for i in range(count):
        meta = {"patient": f"p{i}" if patient is None else patient, "labels": {"f": i % 2}}
        yield f"{prefix}s{i}.image.jpg", jpeg(i)
        yield f"{prefix}s{i}.meta.json", json.dumps(meta).encode()


def text_of(call, *args, **options) -> str:
    with pytest.raises(DataError) as caught:
        call(*args, **options)
    return str(caught.value)


def clean(path: Path) -> None:
    report = lint(path)
    assert not report.problems, str(report)


# -------------------------------------------------------------------------------------------------- a mapping of members


def test_img2dataset_is_adopted_in_place(tmp_path):
    made = folder(tmp_path / "d", img2dataset())
    before = snapshot(made)
    how = ["jpg=image", "txt=report", "json.subject.id=patient", "json.subject.age=label:age", "json.grade=label:grade"]
    words = [w for m in how for w in ("--member", m)]
    assert main(["index", str(made), *words]) == 0
    assert {n: d for n, d in snapshot(made).items() if n in before} == before
    data = Dataset.open(made)
    for i, record in enumerate(data):
        assert (record.key, record.patient) == (f"{i:09d}", str(10_000 + i // 2))
        assert record.labels == {"age": 40.0 + i, "grade": ["low", "high"][i % 2]}
        assert record.read("report") == f"film {i}"
        assert record.read("image").shape == (24, 24, 3)
    clean(made)
    first = snapshot(made)
    assert "json.subject.id = patient, txt = report" in text(collect(made))
    assert main(["index", str(made)]) == 0
    assert snapshot(made) == first, "what was said of the members is kept"


def test_members_that_mean_nothing_are_told_once_each_with_the_option(tmp_path, capsys):
    for part in range(3):
        folder(tmp_path / "d", ((f"{part}{n}", d) for n, d in img2dataset(500)), name=f"{part:05d}.tar")
    before = snapshot(tmp_path / "d")
    assert main(["index", str(tmp_path / "d")]) == 2
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) < 20
    assert "500 members 'jpg', such as '0000000000.jpg'" in shown
    for option in ("--member jpg=image", "--member txt=report", "--member json.KEY=patient", "--skip json"):
        assert option in shown
    assert snapshot(tmp_path / "d") == before, "nothing is written"


def test_names_with_dots_texts_as_labels_and_members_left_out(tmp_path, capsys):
    members = [
        m
        for i in range(6)
        for m in (
            (f"k{i}.CLS", str(i % 3).encode()),
            (f"k{i}.input.PNG", png(np.full((8, 8, 3), i, np.uint8))),
            (f"k{i}.seg.mask.png", png(np.full((8, 8), i % 2, np.uint8))),
            (f"k{i}.webp", b"RIFF"),
        )
    ]
    made = folder(tmp_path / "d", members)
    words = [
        "--member",
        "input.png=image",
        "--member",
        "seg.mask.png=mask",
        "--member",
        "cls=label:kind",
        "--skip",
        "webp",
    ]
    assert main(["index", str(made), *words, "--patient-pattern", "^k([0-9])"]) == 0
    assert "passed over: 6 members webp (--skip)" in capsys.readouterr().out
    data = Dataset.open(made)
    assert data.info.labels["kind"].classes == ("0", "1", "2")
    assert [(r.patient, r.labels["kind"], int(r.read("mask").max()), int(r.read("image").max())) for r in data] == [
        (str(i), str(i % 3), i % 2, i) for i in range(6)
    ]
    assert set(data.info.fields) == {"image", "mask"}
    clean(made)


def test_a_number_is_a_name_and_what_is_none_is_refused(tmp_path):
    made = folder(tmp_path / "a", [m for i, p in enumerate([10_000, 10_001.0, "p7 "]) for m in plain(1, f"{i}-", p)])
    adopt(made)
    assert [r.patient for r in Dataset.open(made)] == ["10000", "10001", "p7"]
    clean(made)
    odd = folder(tmp_path / "b", [m for i, p in enumerate([3.5, True, [1]]) for m in plain(1, f"{i}-", p)])
    text = text_of(adopt, odd)
    assert [what in text for what in ("the patient is 3.5", "the patient is True", "the patient is [1]")] == [True] * 3
    nobody = folder(tmp_path / "c", [m for i, p in enumerate(["", "nan", "NA", " "]) for m in plain(1, f"{i}-", p)])
    assert text_of(adopt, nobody).count("has no patient") == 3, "three of the four are shown"
    twice = folder(tmp_path / "e", [("a.image.jpg", jpeg(0)), ("a.meta.json", b'{"patient": "x", "patient": "y"}')])
    assert "key 'patient' stands twice" in text_of(adopt, twice)


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        (b"[" * 100_000, "is not JSON (too deep)"),
        (b'{"patient": "p\xe9"}', "is not JSON ('utf-8' codec"),
        (b'{"patient": "a\\nb"}', r"patient 'a\nb' has a control character (U+000A) in it"),
        (b'{"patient": "a\\rb"}', r"patient 'a\rb' has a control character (U+000D) in it"),
        (b'{"patient": "\\ud800"}', "has half of a character (U+D800) in it"),
        (b'{"patient": "1.2e+07"}', "are cut to a few digits"),
        (b'{"patient": "p", "labels": {"sample": 1}}', "a label's name, 'sample', is the column of samples"),
        (b'{"patient": "p", "labels": {" ": 1}}', "a label's name, ' ', is empty"),
        (b'{"patient": "p", "labels": {"y": "a\\rb"}}', r"label 'y' is 'a\rb', which has a control character"),
        (b'{"patient": "p", "labels": {"y": 1' + b"0" * 400 + b"}}", "label 'y' is 1000"),
        (b'{"patient": "p", "labels": {"y": Infinity}}', "label 'y' is inf"),
        (b'{"patient": "p", "labels": {"y": [1]}}', "label 'y' is [1]"),
    ],
)
def test_json_that_cannot_stand_in_a_table_is_refused_by_name(tmp_path, meta, said):
    made = folder(tmp_path / "d", [*plain(2), ("x.image.jpg", jpeg(0)), ("x.meta.json", meta)])
    before = snapshot(made)
    text = text_of(adopt, made)
    assert said in text
    assert "000000.tar: x" in text
    assert len(text.splitlines()) == 1, "one cause is told once"
    assert snapshot(made) == before


def test_patients_from_several_places_must_agree(tmp_path):
    members = [
        ("p1_a.image.jpg", jpeg(0)),
        ("p1_a.meta.json", b'{"patient": 1}'),
        ("p1_a.about.json", b'{"id": "0001"}'),
    ]
    made = folder(tmp_path / "d", members)
    how = Adopted(members={"about.json.id": "patient"}, patient_pattern="^(p[0-9]+)_")
    adopt(made, how=how)
    assert Dataset.open(made)[0].patient == "1"
    clean(made)
    other = folder(tmp_path / "e", [*members[:2], ("p1_a.about.json", b'{"id": "2"}')])
    assert "sample 'p1_a' has several patients: '1', '2', 'p1'" in text_of(adopt, other, how=how)


def test_labels_unknown_words_and_kinds(tmp_path):
    values = [
        {"g": "mild", "n": 1, "c": 0},
        {"g": "NA", "n": "NA", "c": 1},
        {"g": "None", "n": None, "c": 2},
        {"g": "severe", "n": 4.5, "c": 0},
    ]
    members = [
        m
        for i, v in enumerate(values)
        for m in ((f"s{i}.image.jpg", jpeg(i)), (f"s{i}.meta.json", json.dumps({"patient": i, "labels": v}).encode()))
    ]
    made = folder(tmp_path / "d", members)
    assert main(["index", str(made), "--label-kind", "c=class"]) == 0
    records = list(Dataset.open(made))
    assert [r.labels["g"] for r in records] == ["mild", None, "None", "severe"]
    assert [r.labels["n"] for r in records] == [1.0, None, None, 4.5]
    assert [r.labels["c"] for r in records] == ["0", "1", "2", "0"]
    clean(made)
    mixed = folder(
        tmp_path / "e", [*members, ("t.image.jpg", jpeg(9)), ("t.meta.json", b'{"patient": 9, "labels": {"g": 3}}')]
    )
    assert "label 'g' is a number in some samples and a text in others" in text_of(adopt, mixed)


def test_texts_that_say_nothing_are_no_member(tmp_path, capsys):
    texts = ["a film", "", "nan", " \n", "NA", "None of the lungs"]
    members = [m for i, t in enumerate(texts) for m in ((f"{i}.jpg", jpeg(i)), (f"{i}.txt", t.encode()))]
    made = folder(tmp_path / "d", members)
    assert main(["index", str(made), "--member", "jpg=image", "--member", "txt=report", "--patient-from-key"]) == 0
    assert "passed over: 4 texts that are empty or say 'not known'" in capsys.readouterr().out
    assert [r.has("report") for r in Dataset.open(made)] == [True, False, False, False, False, True]
    clean(made)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--member", "jpg"], "'jpg' is not MEMBER=FIELD"),
        (["--member", "jpg=image", "--member", "JPG=mask"], "'jpg' is both 'image' and 'mask'"),
        (["--member", "jpg=Imag"], "did you mean 'image'?"),
        (["--member", "json=patient"], "say which, such as --member json.NAME=patient"),
        (["--member", "json.caption=report"], "is a value inside a JSON, not a field"),
        (["--member", "jpg=patient"], "'jpg' holds no text"),
        (["--member", "webp=image"], "the field is read from jpeg, jpg, json, npy, png, txt alone"),
        (["--member", "txt=meta"], "the field is read from json alone"),
        (["--member", "pkl=label:x"], "can carry code and is never read"),
        (["--member", "jpg=image", "--skip", "jpg"], "'jpg' is both mapped and left out"),
        (["--patient-pattern", "("], "'(' is no pattern"),
        (["--patient-pattern", "a"], "'a' has 0 groups"),
        (
            ["--member", "jpg=image", "--skip", "json", "--skip", "txt", "--member", "jpeg=image"],
            "no sample has a member 'jpeg'",
        ),
    ],
)
def test_mappings_that_say_nothing(tmp_path, capsys, words, said):
    made = folder(tmp_path / "d", img2dataset(2))
    before = snapshot(made)
    assert main(["index", str(made), "--patient-from-key", *words]) == 2
    assert said in capsys.readouterr().err
    assert snapshot(made) == before


# ------------------------------------------------------------------------------------------------- what tools put into tars


def test_a_tar_of_a_folder(tmp_path, capsys):
    files = tmp_path / "files"
    files.mkdir()
    for name, data in plain():
        (files / name).write_bytes(data)
    (tmp_path / "d").mkdir()
    subprocess.run(
        ["tar", "--sort=name", "-cf", str(tmp_path / "d/0.tar"), "-C", str(files), "."], check=True, timeout=60
    )
    assert main(["index", str(tmp_path / "d")]) == 0
    assert "passed over: 1 folders" in capsys.readouterr().out
    assert [r.key for r in Dataset.open(tmp_path / "d")] == [f"s{i}" for i in range(10)]
    clean(tmp_path / "d")


def test_folders_belong_to_the_key(tmp_path):
    members = [*plain(3, "train/"), *plain(3, "val/")]
    made = folder(tmp_path / "d", members)
    adopt(made)
    data = Dataset.open(made)
    assert [r.key for r in data] == [f"{s}_s{i}" for s in ("train", "val") for i in range(3)]
    assert [r.patient for r in data][3:] == ["p0", "p1", "p2"]
    assert np.array_equal(data[4].read("image"), data[1].read("image"))
    clean(made)
    clash = [("a/b_c.image.jpg", jpeg(0)), ("a_b/c.meta.json", b'{"patient": "x"}')]
    assert "samples 'a/b_c' and 'a_b/c' would both have the key 'a_b_c'" in text_of(
        adopt, folder(tmp_path / "e", clash)
    )


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_twins_of_macos_and_long_names(tmp_path, capsys, form):
    long = "x" * 160
    twin = b"\0\5\x16\7" + bytes(100)
    members = [m for n, d in plain(4, long) for m in ((f"._{n}", twin), (n, d))]
    made = folder(tmp_path / "d", [("__MACOSX/._s.image.jpg", twin), (".DS_Store", b"x"), *members], form=form)
    (made / "._000000.tar").write_bytes(twin)
    assert main(["index", str(made)]) == 0
    shown = capsys.readouterr().out
    for said in ("9 ._* twins of macOS", "1 further files of macOS", "1 ._*.tar twins of macOS"):
        assert f"passed over: {said}" in shown
    data = Dataset.open(made)
    assert [r.key for r in data] == [f"{long}s{i}" for i in range(4)]
    assert data[2].read("image").shape == (24, 24, 3)
    clean(made)


def test_numbers_members_that_a_pax_header_renames_are_read_at_their_place(tmp_path):
    """A name in a PAX header moves the bytes by the header's blocks: what is read must be the member, not the header."""
    path = tmp_path / "d" / "0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 700}) as tar:
        for i in range(3):
            data = npy(np.full((4, 3), i, np.float16))
            entry = tarfile.TarInfo(f"k{i}.patches.npy")
            entry.size, entry.pax_headers = len(data), {"mtime": "1.5", "comment": "y" * 900 * i}
            tar.addfile(entry, io.BytesIO(data))
    adopt(path.parent, patient_from_key=True)
    assert [r.read("patches").max() for r in Dataset.open(path.parent)] == [0, 1, 2]


def test_links_are_refused_by_name(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for name, data in plain(3):
        (files / name).write_bytes(data)
    (files / "s3.image.jpg").symlink_to("/etc/passwd")
    (files / "s4.image.jpg").hardlink_to(files / "s1.image.jpg")
    (tmp_path / "d").mkdir()
    subprocess.run(
        ["tar", "--sort=name", "-cf", str(tmp_path / "d/0.tar"), "-C", str(files), "."], check=True, timeout=60
    )
    text = text_of(adopt, tmp_path / "d")
    assert "'./s3.image.jpg': not a plain file: a symbolic link to '/etc/passwd'" in text
    assert "a hard link to another member. Fix: store the file itself: tar --hard-dereference" in text


def test_an_unsorted_tar_is_a_line_and_its_remedy(tmp_path, capsys):
    members = sorted(plain(200), key=lambda m: m[0].rsplit(".", 1)[1])
    assert main(["index", str(folder(tmp_path / "d", members))]) == 2
    shown = capsys.readouterr().err
    assert "comes back after other samples. Fix: " in shown
    assert "tar --sort=name" in shown
    assert len(shown.splitlines()) < 6


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my file.image.jpg", "'my file' is not a key"),
        ("größe.image.jpg", "'größe' is not a key"),
        ("1.2.840.jpg", "members '2.840.jpg'|the name is not KEY.FIELD.EXT"),
        (".hidden", "it has no key or nothing after it"),
        ("README", "it has no key or nothing after it"),
        ("../out.image.jpg", "the name leaves the folder"),
        ("/etc/x.image.jpg", "the name leaves the folder"),
        ("./../x.image.jpg", "the name leaves the folder"),
        ("a.weights.pkl", "can carry code and is never read"),
    ],
)
def test_names_that_are_refused(tmp_path, name, said):
    text = text_of(adopt, folder(tmp_path / "d", [*plain(2), (name, b"x")]))
    assert any(s in text for s in said.split("|")), text
    assert repr(name.removeprefix("./")) in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]


# ---------------------------------------------------------------------------------------------------- which tars are meant


def test_patterns_and_lists_mean_the_folder_and_are_checked(tmp_path, monkeypatch, capsys):
    made = tmp_path / "d"
    for part in range(9, 12):
        folder(made, plain(2, f"{part}-"), name=f"a-{part:03d}.tar")
    for words in (
        [f"{made}/a-{{009..011}}.tar"],
        [f"{made}/a-0{{09,10,11}}.tar"],
        [f"{made}/*.tar"],
        sorted(map(str, made.glob("*.tar"))),
    ):
        assert folder_of(words) == made
        assert main(["index", *words]) == 0
        assert load_info(made).samples == 6
    assert folder_of([f"{made}/a-009.tar::{made}/a-0{{10..11}}.tar"]) == made
    assert "a-012.tar: no such tar" in text_of(folder_of, [f"{made}/a-{{009..012}}.tar"])
    assert "holds 1 more tars: a-011.tar" in text_of(folder_of, [f"{made}/a-{{009..010}}.tar"])
    folder(tmp_path / "e", plain(2), name="b.tar")
    assert "tars of 2 folders" in text_of(folder_of, [f"{made}/a-009.tar", f"{tmp_path}/e/b.tar"])
    monkeypatch.chdir(tmp_path)
    assert main(["index", "pipe:cat d/a-009.tar"]) == 2
    assert "is a command. Fix: fetch the tars into a folder yourself" in capsys.readouterr().err
    assert main(["index", "s3://bucket/{000..010}.tar"]) == 2
    assert "is an address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{0..6..3}", ["0", "3", "6"]),
        ("{a..c}", ["a", "b", "c"]),
        ("{g..a..3}", ["g", "d", "a"]),
        ("{9..011}", ["009", "010", "011"]),
        ("p{,q}", ["p", "pq"]),
        ("{x-{1..2},y-{07..08}}.tar", ["x-1.tar", "x-2.tar", "y-07.tar", "y-08.tar"]),
        ("{a,b}-{1..2}.tar", ["a-1.tar", "a-2.tar", "b-1.tar", "b-2.tar"]),
    ],
)
def test_braces_are_those_of_the_shell(pattern, names):
    assert list(expanded(pattern)) == names
    assert (
        subprocess.run(
            ["bash", "-c", f"echo {pattern}"], capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()
        == names
    )


def test_braces_are_those_of_webdataset():
    """Environment variables apart (`${NAME}`), which webdataset puts in: they are refused."""
    for url in ("d/a-{000..012}.tar::d/b-{x,y}.tar", "d/{train/{0..3},val/{7..8}}.tar", "d/plain.tar"):
        assert [n for w in url.split("::") for n in expanded(w)] == webdataset.shardlists.expand_urls(url)
    assert "means nothing" in text_of(expanded, "${DATA}/a.tar")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a-{x}.tar", "means nothing"),
        ("a-{0..1.tar", "a brace without its other one"),
        ("a-0..1}.tar", "a brace without its other one"),
        ("{0..99999999999}.tar", "means 100000000000 names"),
        ("{0..9999}{0..9999}.tar", "means 100000000 names"),
        ("{a,{0..9999}{0..9999}}.tar", "means 100000001 names"),
        (f"{{0..{'9' * 5000}}}.tar", "means nothing"),
    ],
)
def test_braces_that_mean_nothing_or_too_much(pattern, said):
    text = text_of(expanded, pattern)
    assert said in text
    assert "Fix: " in text


def test_words_that_webdataset_takes(tmp_path, capsys):
    made = tmp_path / "d"
    for name in ("x-0", "x-1", "y"):
        folder(made, plain(3, prefix=name.replace("-", "")), name=f"{name}.tar")
    for words in (
        [f"{made}/{{x-{{0..1}},y}}.tar"],
        [f"file:{made}/x-{{0..1}}.tar::file://{made}/y.tar"],
        [f"file://localhost{made}/*.tar"],
        [f"file:{made}"],
    ):
        assert folder_of(words) == made
    assert main(["index", f"file:{made}/{{x-{{0..1}},y}}.tar"]) == 0
    with Dataset.open(made) as data:
        assert len(data) == 9
    capsys.readouterr()
    for word, said in (
        ("pipe:touch gone", "'pipe:touch gone' is a command"),
        ("{pipe:touch gone,b}.tar", "'pipe:touch gone.tar' is a command"),
        (f"{made}/y.tar::pipe:touch gone", "'pipe:touch gone' is a command"),
        ("file://elsewhere/d/y.tar", "is an address"),
        ("{http://h,b}/y.tar", "'http://h/y.tar' is an address"),
        ("-", "is standard input"),
    ):
        assert main(["index", word]) == 2
        assert said in capsys.readouterr().err


def test_packed_tars_are_a_line_each(tmp_path, capsys):
    made = folder(tmp_path / "d", plain(2))
    subprocess.run(["gzip", "-k", str(made / "000000.tar")], check=True, timeout=60)
    text = text_of(adopt, made)
    assert text.count("\n") == 0
    assert "000000.tar.gz: a packed tar: its members cannot be read by offset. Fix: unpack it with gunzip" in text
    (made / "000000.tar.gz").replace(made / "000000.tar")
    text = text_of(adopt, made)
    assert text.count("\n") == 0
    assert "is packed by gzip" in text
    assert "no *.tar (there are in d: a data set is one folder)" in text_of(adopt, tmp_path)


def test_keys_that_are_unique_within_a_tar_alone(tmp_path, capsys):
    for name in ("part.0.tar", "part-1.tar"):
        folder(tmp_path / "d", plain(3), name=name)
    assert main(["index", str(tmp_path / "d")]) == 2
    shown = capsys.readouterr().err
    assert "key 's0' is also in part-1.tar. Fix: give every sample a key of its own" in shown
    assert "--shard-in-key" in shown
    assert main(["index", str(tmp_path / "d"), "--shard-in-key"]) == 0
    data = Dataset.open(tmp_path / "d")
    assert [r.key for r in data] == [f"{part}_s{i}" for part in ("part-1", "part_0") for i in range(3)]
    assert [r.patient for r in data] == ["p0", "p1", "p2"] * 2
    clean(tmp_path / "d")


def test_an_own_data_set_stays_one_of_strict_names(tmp_path):
    """Without a mapping the index of a shard is what it always was: KEY.FIELD.EXT alone."""
    made = folder(tmp_path / "d", [*plain(2)])
    info = adopt(made)
    assert info.adopted == Adopted()
    write_tar(made / "000001.tar", [("x.jpg", jpeg(0)), ("x.meta.json", b'{"patient": "x"}')])
    assert "no --member says what it is" in text_of(adopt, made)


def test_dots_within_keys_are_not_taken_for_fields(tmp_path):
    """WebDataset ends a key at the first dot: smith.john.jpg would be the field `john` of a sample `smith`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    made = folder(tmp_path / "d", [(f"smith{i}.john{c}.jpg", jpeg(i)) for i, c in enumerate(letters)])
    text = text_of(adopt, made, patient_from_key=True)
    assert "26 fields stand in one sample alone: johna, johnb, johnc, johnd, ..." in text
    few = folder(
        tmp_path / "e",
        [*plain(3), *((f"t{i}.{c}.npy", npy(np.zeros(3, np.float16))) for i, c in enumerate(letters[:5]))],
    )
    assert len(adopt(few, patient_from_key=True).fields) == 7


def test_twins_beside_the_side_files_are_passed_over(tmp_path):
    made = folder(tmp_path / "d", [(f"s{i}.rna.npy", npy(np.arange(3, dtype=np.float16) + i)) for i in range(4)])
    (made / "vocab").mkdir()
    (made / "vocab" / "rna.txt").write_text("A\nB\nC\n")
    before = adopt(made, patient_from_key=True)
    for name in ("vocab/._rna.txt", "._splits.csv", "._000000.idx.npy", "._000000.tar"):
        (made / name).write_bytes(b"\0\5\x16\7\xff\xfe")
    clean(made)
    assert adopt(made) == before
    assert Dataset.open(made).vocabulary("rna") == ("A", "B", "C")
