"""Reports as texts: sections, sentences, sides; and as ids: the end token, words of tokens, equal texts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from synthetic import schema

from models.contract import MethodError
from models.transforms.report_text import chosen, cleaned, drawn_text, sections, swapped_sides
from models.transforms.report_tokens import ReportTokens, text_number, tokens_of
from models.transforms.text import SPECIALS, ReportTokenizer

REPORT = """FINAL REPORT
 INDICATION:  Cough.

 FINDINGS: The lungs are clear.
 No effusion.
 IMPRESSION: Draft.
 ADDENDUM (DR. X):
 nothing
 IMPRESSION: 1. No acute disease.
"""


def test_sections_are_found_by_their_headers_and_the_last_of_a_name_counts():
    found = sections(REPORT)
    assert found["findings"] == "The lungs are clear.\n No effusion."
    assert found["impression"] == "1. No acute disease."
    assert chosen(REPORT, "impression_findings").startswith("1. No acute disease.\nThe lungs")
    assert chosen(REPORT, "findings_impression").endswith("No effusion.\n1. No acute disease.")
    assert chosen(REPORT, "whole") == REPORT
    assert chosen("Findings: clear lungs.\nImpression: normal", "impression") == "normal"
    assert chosen("FINDINGS AND IMPRESSION: all clear.", "findings_impression") == "all clear."


def test_a_report_without_the_section_has_no_text():
    for text in ("The lungs are clear. Impression of a mass.", "FINDINGS: clear.", ""):
        assert chosen(text, "impression") == ""
    assert chosen("FINDINGS: clear.", "findings_impression") == "clear."


@pytest.mark.parametrize(
    ("text", "gloria", "safe"),
    [
        ("1. Clear lungs. 2. Stable 4.5 cm mass.", ["clear lungs", "5 cm mass"], ["clear lungs", "stable 4.5 cm mass"]),
        ("Wedge deformity of L2. No fracture", ["wedge deformity of l", "no fracture"], ["wedge deformity of l2", "no fracture"]),
        ("Normal.", [], []),
        ("a\nb c", ["a b c"], ["a b c"]),
        ("Ménière or naïve\ufffd\ufffdview", ["mnire or nave view"], ["meniere or naive view"]),
        ("Left-sided > right; x/y", ["left sided right x y"], ["left sided right x y"]),
    ],
)  # fmt: skip
def test_cleaning(text, gloria, safe):
    assert cleaned(text, "gloria") == gloria
    assert cleaned(text, "safe") == safe


def test_without_cleaning_sentences_stand_as_they_are():
    assert cleaned("No  PTX. Mass of 3.5 cm.\nÉtat stable", "none") == ["No  PTX.", "Mass of 3.5 cm.", "État stable"]
    assert cleaned(" . ", "none") == []


@pytest.mark.real
def test_published_cleaning(real_data):
    folder = real_data.parent / "parity" / "image_text"
    if not folder.is_dir():
        pytest.skip("the published code's captions are not part of the repository")
    golden = json.loads((folder / "captions.json").read_text())
    found = {str(i): made for i, text in enumerate(golden["reports"]) if (made := cleaned(text, "gloria"))}
    assert found == golden["gloria"]["sentences"]
    longer = {i: made for i, made in found.items() if sum(len(s.split()) for s in made) >= 3}
    assert longer == golden["mgca"]["sentences"]


def test_sentences_are_drawn_alike_and_one_number_is_used_up():
    names = ["a", "b", "c"]
    rng = np.random.default_rng(0)
    drawn = [drawn_text(names, "sentence", rng) for _ in range(3000)]
    assert all(abs(drawn.count(n) / 3000 - 1 / 3) < 0.04 for n in names)
    after = []
    for unit in ("sentence", "report"):
        rng = np.random.default_rng(1)
        drawn_text(names, unit, rng)
        after.append(rng.random())
    assert after[0] == after[1]
    assert drawn_text(names, "report", rng) == "a b c"
    assert drawn_text([], "sentence", rng) == ""


def test_sides_are_exchanged_as_whole_words():
    text = "Left base, RIGHT-sided, upright; rightward shift, leftmost. Brightness left."
    swapped = "Right base, LEFT-sided, upright; leftward shift, rightmost. Brightness right."
    assert swapped_sides(text) == swapped
    assert swapped_sides(swapped) == text


WORDS = (*SPECIALS, "card", "##io", "##mega", "small", "left", "no")


def tokens() -> ReportTokens:
    return ReportTokens(ReportTokenizer(WORDS, "words"))


def test_the_end_token_is_one_past_the_vocabulary_and_its_hash_stays():
    made, sep = tokens(), len(WORDS)
    assert made.rows == sep + 1
    assert made.sha256 == ReportTokenizer(WORDS, "words").sha256
    ids, count = made.encode("small cardiomega what", 10)
    assert ids.tolist() == [2, 7, 4, 5, 6, 1, sep, 0, 0, 0]
    assert count == 5
    short, count = made.encode("small cardiomega what", 5)
    assert short.tolist() == [2, 7, 4, 5, sep]
    assert count == 5
    assert made.encode("", 4)[0].tolist() == [2, sep, 0, 0]


def test_words_of_tokens():
    made = tokens()
    ids, _ = made.encode("small cardiomega left", 9)
    assert made.word_of_token(ids).tolist() == [0, 1, 2, 2, 2, 3, 4, -1, -1]


def test_equal_texts_have_equal_numbers():
    made = tokens()
    a, b, c = (text_number(made.encode(t, 8)[0]) for t in ("no left", "No LEFT", "left no"))
    assert a == b != c
    assert a.dtype == np.int64


def test_a_berts_vocabulary_keeps_its_order_and_rules(tmp_path):
    words = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "No", "left", "3", ".", "5"]
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(words) + "\n")
    made = tokens_of(schema(), "report", str(path))
    assert (made.cls, made.sep, made.unk, made.rows) == (3, 4, 2, len(words))
    assert made.encode("No left 3.5 what", 10)[0].tolist() == [3, 6, 8, 9, 10, 11, 2, 4, 0, 0]
    cased = tokens_of(schema(), "report", str(path), cased=True)
    assert cased.encode("No left", 5)[0].tolist() == [3, 7, 8, 4, 0]
    assert cased.sha256 != made.sha256
    path.write_text("\n".join(w for w in words if w != "[SEP]"))
    with pytest.raises(MethodError, match=r"no vocabulary of a BERT: it lacks \[SEP\]"):
        tokens_of(schema(), "report", str(path))
    with pytest.raises(MethodError, match="cased=true goes with"):
        tokens_of(schema(), "report", None, cased=True)
    with pytest.raises(MethodError, match="cannot be read"):
        tokens_of(schema(), "report", str(tmp_path / "none.txt"))
