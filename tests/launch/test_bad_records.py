"""Pairs that are no pairs, reports that are no reports, codes that are no codes: seen from the command line, pack to pre-training.

Each ends in one clear error, or in a documented rule whose cases are counted where people look.
"""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from launch.pretrain import main
from models.transforms.text import CLS, PAD
from shards.__main__ import main as shards
from tests.trainer.forking import Forks
from tests.trainer.launching import rows

PATIENTS, GENES, SNPS, PIXELS = 24, 6, 8, 32
CONSTANT = 3  # the gene that never varies
NO_PAIR, NO_IMAGE, BLANK, LONG, PLANTED, STRANGE = 0, 1, 2, 3, 4, 17  # STRANGE is held back
SENTENCE = "The planted sentence of Mrs Quetzalcoatl is never shown whole."
WORDS = (
    "small", "large", "opacity", "in", "the", "left", "right", "lobe", "no", "effusion", "clear", "lungs",
)  # fmt: skip


class Manifest:
    """Sources of a small data set; tests break single cells before they pack."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        rng = np.random.default_rng(0)
        self.rna = rng.normal(size=(PATIENTS, GENES)).round(3)
        self.rna[:, CONSTANT] = 0.5
        self.snp = rng.integers(-1, 3, (PATIENTS, SNPS))
        self.rows = [self._row(i, rng) for i in range(PATIENTS)]

    def _row(self, i: int, rng: np.random.Generator) -> dict[str, str]:
        pixels = rng.integers(0, 255, (PIXELS, PIXELS, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.folder / f"i{i}.png")
        Image.fromarray((pixels[..., 0] > 128).astype(np.uint8)).save(self.folder / f"m{i}.png")
        return {
            "sample": f"s{i:02d}", "patient": f"p{i:02d}", "split": "train" if i < 16 else "val" if i < 20 else "test",
            "label:kind": "ab"[i % 2], "field:image": f"i{i}.png", "field:mask": f"m{i}.png",
            "field:rna": f"rna.csv#p{i:02d}", "field:snp": f"snp.csv#p{i:02d}",
            "text:report": " ".join(rng.choice(WORDS, 8)) + ".",
        }  # fmt: skip

    def pack(self, out: Path) -> int:
        for name, values in (("rna", self.rna), ("snp", self.snp)):
            with open(self.folder / f"{name}.csv", "w", newline="") as f:
                header = ["case", *(f"{name}{c}" for c in range(values.shape[1]))]
                csv.writer(f).writerows([header, *([f"p{i:02d}", *v] for i, v in enumerate(values.tolist()))])
        with open(self.folder / "manifest.csv", "w", newline="") as f:
            out_rows = csv.DictWriter(f, list(self.rows[2]))
            out_rows.writeheader()
            out_rows.writerows(self.rows)
        return shards(["pack", str(self.folder / "manifest.csv"), "--out", str(out)])


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that packs although much is missing or odd in it, with a WordPiece vocabulary of its training reports."""
    folder = tmp_path_factory.mktemp("cohort")
    made = Manifest(folder / "in")
    for field in ("field:rna", "field:snp", "text:report"):
        made.rows[NO_PAIR][field] = ""
    for field in ("field:image", "field:mask"):
        made.rows[NO_IMAGE][field] = ""
    made.rows[BLANK]["text:report"] = "   "
    made.rows[LONG]["text:report"] = " ".join(WORDS * 30)
    made.rows[PLANTED]["text:report"] = SENTENCE
    made.rows[STRANGE]["text:report"] = "☃ ☃ ☃"
    assert made.pack(folder / "set") == 0
    assert shards(["tokenizer", str(folder / "set"), "--size", "200"]) == 0
    return folder / "set"


SMALL = {
    "mgi": ["method.image.image_size=32", "method.image.patch=8", "method.genes.chunk=2"],
    "mrm_record": [
        "method.image.image_size=32",
        "method.image.patch=8",
        "method.report_length=12",
        "method.super_resolution=1",
    ],
    "mrm_relation": [
        "method.image.image_size=32",
        "method.image.patch=8",
        "method.genetics=[snp, rna]",
        "method.genes.fragment=4",
    ],
}


def command(method: str, data: Path, out: Path, *more: str) -> list[str]:
    """A few steps of the demo recipe; every step holds all 16 training samples."""
    words = ["--method", method, "--recipe", "demo", f"data.path={data}", f"out={out}"]
    return [*words, "global_batch=16", "steps=2", *SMALL[method], *more]


# ----------------------------------------------------------------------------------------------- counted, by a rule


def test_what_is_missing_is_counted_and_constant_genes_are_told(cohort: Path, capsys: pytest.CaptureFixture) -> None:
    assert shards(["lint", str(cohort)]) == 0
    assert "1 of 6 features are constant over the training split" in capsys.readouterr().out
    assert shards(["info", str(cohort)]) == 0
    said = capsys.readouterr().out
    for name, share in (("image", "96%"), ("mask", "96%"), ("rna", "96%"), ("snp", "96%"), ("report", "92%")):
        line = next(text for text in said.splitlines() if text.split()[:1] == [name])
        assert share in line.split(), line
    assert "Quetzalcoatl" not in said


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(SMALL))
def test_training_goes_on_and_counts_what_is_odd(method: str, cohort: Path, tmp_path: Path, forks: Forks) -> None:
    ended = forks.launch(1, command(method, cohort, tmp_path / "run"))
    assert ended.codes == [0], ended.text
    made = rows(tmp_path / "run")
    assert all(math.isfinite(r["loss"]) and not r["skipped"] and not r["replaced_samples"] for r in made)
    if method == "mrm_record":
        first, last = made[0], made[-1]
        assert first["report_empty"] == pytest.approx(2 / 16), "one without a report, one of blanks"
        assert first["report_cut"] == pytest.approx(1 / 14), "the long one, of those that are there"
        assert first["report_unknown"] == 0
        assert 0 < last["val/report_unknown"] < 1
    if method != "mgi":
        assert any(b"Quetzalcoatl" in p.read_bytes() for p in cohort.glob("*.tar")), "else nothing is proved"
    for path in (p for p in (tmp_path / "run").rglob("*") if p.is_file()):
        assert b"planted sentence" not in path.read_bytes().lower(), path
    assert "planted" not in ended.text.lower()


def test_a_picture_shows_no_report_whole(cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each report fewer than half of the words, even where nearly all are hidden."""
    from PIL import ImageDraw

    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data

    words = command("mrm_record", cohort, tmp_path / "run", "method.mlm_ratio=0.95")
    config, _ = build_config("mrm_record", "demo", words[4:])
    data = open_data(config)
    method = build_method(config, data)
    method.enter("pretrain")
    drawn: list[str] = []
    monkeypatch.setattr(ImageDraw.ImageDraw, "text", lambda self, at, text, **k: drawn.append(text))
    probe = data.probe(config, method.stages()[0], method.eval())
    method.pictures(probe)
    data.close()
    assert len(drawn) > 4
    for i in range(probe.size):
        shown = sum(text.startswith(f"{i}: ") for text in drawn)
        whole = int(((probe["report"][i] != PAD) & (probe["report"][i] != CLS)).sum())
        assert shown <= whole // 2


# ------------------------------------------------------------------------------------------------------------ refused


def test_a_mask_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = Manifest(tmp_path / "in")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "in" / "m5.png")
    assert made.pack(tmp_path / "set") == 2
    said = capsys.readouterr().err
    assert "1 masks have another size than their image: 's05' 20 x 30 on 32 x 32" in said
    assert not (tmp_path / "set").exists()


def test_genotypes_outside_their_codes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = Manifest(tmp_path / "in")
    made.snp[7, 2] = 3
    assert made.pack(tmp_path / "set") == 2
    said = capsys.readouterr().err
    assert "'s07'" in said
    assert "1 of 8 values are none of -1, 0, 1, 2 (3 in column 2)" in said
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("method", "words", "state"),
    [
        ("mrm_record", ["method.image.init=file", "method.image.init_file={}"], "encoder."),
        ("mrm_relation", ["method.image.init=file", "method.image.init_file={}"], "encoder.vit."),
        ("mgi", ["method.image.init=file", "method.image.init_file={}"], "image."),
    ],
)
def test_a_mae_file_with_missing_keys(
    method: str, words: list[str], state: str, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    from trainer.build import build_method
    from trainer.config.recipe import build_config
    from trainer.data import open_data

    given = command(method, cohort, tmp_path / "run")
    config, _ = build_config(method, "demo", given[4:])
    data = open_data(config)
    weights = build_method(config, data).state_dict()
    data.close()
    mae = {k.removeprefix(state): v for k, v in weights.items() if k.startswith(state)}
    mae.pop("norm.weight")
    torch.save({"model": mae}, tmp_path / "mae.pth")
    more = [w.format(tmp_path / "mae.pth") for w in words]
    assert main([*given, *more]) == 2
    said = capsys.readouterr().err
    assert "mae.pth does not fit; give a file with all tensors of the model" in said
    assert "lacks 1 of" in said
    assert "tensors: norm.weight" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.ranks
@pytest.mark.slow
def test_a_tokenizer_that_is_not_the_checkpoints(cohort: Path, tmp_path: Path, forks: Forks) -> None:
    """Every guard before it talked past, the word matrix still refuses another vocabulary of the same size."""
    given = command("mrm_record", cohort, tmp_path / "run", "steps=4", "checkpoint.every=2")
    died = forks.launch(1, given, {"die": {"step": 3}})
    assert died.codes == [-9], died.text
    words = (cohort / "vocab" / "report.txt").read_text().splitlines()
    words[-2:] = words[:-3:-1]
    (tmp_path / "other.txt").write_text("\n".join(words) + "\n")
    other = [*given, f"method.tokenizer={tmp_path / 'other.txt'}"]
    refused = forks.launch(1, other)
    assert refused.codes == [2], refused.text
    assert "method.tokenizer" in refused.text
    forced = forks.launch(1, [*other, "resume.accept_config=true"])
    assert forced.codes == [2], forced.text
    assert "the weights belong to the tokenizer" in forced.text
    assert "set method.tokenizer to the vocabulary the weights were trained with" in forced.text
    again = forks.launch(1, given)
    assert again.codes == [0], "a refused command leaves the folder as it was\n" + again.text
    assert "tokenizer_sha256" in load_file(tmp_path / "run" / "weights.safetensors")


@pytest.mark.ranks
@pytest.mark.slow
def test_wrong_codes_in_a_data_set_made_elsewhere(cohort: Path, tmp_path: Path, forks: Forks) -> None:
    """lint names the member, and training refuses the sample by name."""
    import io
    import tarfile

    folder = tmp_path / "adopted"
    folder.mkdir()
    with tarfile.open(cohort / "shard-000000.tar") as old, tarfile.open(folder / "a.tar", "w") as new:
        for member in old.getmembers():
            content = old.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == "s05.snp.npy":
                codes = np.load(io.BytesIO(content)).copy()
                codes[4] = 7
                out = io.BytesIO()
                np.save(out, codes)
                content = out.getvalue()
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    shutil.copy(cohort / "splits.csv", folder)
    assert shards(["index", str(folder)]) == 0
    assert shards(["lint", str(folder)]) != 0
    ended = forks.launch(1, command("mrm_relation", folder, tmp_path / "run"))
    assert ended.codes == [2], ended.text
    assert "sample s05: 'snp' holds [7.0]; genotypes are 0, 1, 2, and -1 for a missing call" in ended.text
