"""The demo cohort: the same everywhere, clean, and with the planted factor in every field."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from manifests import snapshot
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from shards import demo
from shards.check.lint import lint
from shards.errors import DataError
from shards.read.dataset import Dataset
from shards.tables.report_words import ENTITIES, POSITIONS


def test_clean_and_balanced(demo_cohort: Path) -> None:
    report = lint(demo_cohort)
    assert not report.problems
    assert not report.warnings
    with Dataset.open(demo_cohort) as data:
        assert data.info.patients == 480
        assert len(data) > 480  # some patients have two slides
        sizes = [rec.shape("patches")[0] for rec in data]
        assert 40 <= min(sizes) < 60
        assert 300 < max(sizes) <= 400
        assert set(data.info.labels) == {"subtype", "severity", "site", "grade", "months", "event"}
        for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            part = data.subset(split)
            assert abs(len(set(part.patients.tolist())) / 480 - share) < 0.01
            assert abs(part.labels["subtype"].mean() - 0.5) < 0.06


@pytest.mark.slow
def test_same_bytes_in_another_process(demo_cohort: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "shards", "demo", str(tmp_path / "again")], check=True, capture_output=True, timeout=120
    )
    digest = [
        hashlib.sha256(str(sorted(snapshot(f).items())).encode()).hexdigest() for f in (demo_cohort, tmp_path / "again")
    ]
    ours, theirs = (snapshot(f) for f in (demo_cohort, tmp_path / "again"))
    assert {n for n in ours if ours[n] != theirs.get(n)} == set()
    assert digest[0] == digest[1]


def test_ensure_keeps_what_is_there_and_replaces_an_older_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PATIENTS", 20)
    folder = demo.ensure(tmp_path / "demo")
    stamp = (folder / "dataset.json").stat().st_mtime_ns
    assert demo.ensure(folder) == folder
    assert (folder / "dataset.json").stat().st_mtime_ns == stamp
    monkeypatch.setattr(demo, "VERSION", "next")
    demo.ensure(folder)
    assert (folder / "dataset.json").stat().st_mtime_ns != stamp
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_ensure_from_several_callers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PATIENTS", 10)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(demo.ensure, [tmp_path / "demo"] * 4)) == {tmp_path / "demo"}
    Dataset.open(tmp_path / "demo").close()


def test_ensure_never_replaces_something_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        demo.ensure(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.fixture(scope="module")
def table(demo_cohort: Path) -> dict[str, np.ndarray]:
    """Every field of every sample as one vector, bags by their mean."""
    with Dataset.open(demo_cohort) as data:
        out = {n: np.stack([rec.read(n).astype(np.float32) for rec in data]) for n in ("rna", "snp", "pgs")}
        out["patches"] = np.stack([rec.read("patches").astype(np.float32).mean(0) for rec in data])
        spectrum = [np.abs(np.fft.rfft2(rec.read("image")[..., 0]))[:24, :24].ravel() for rec in data]
        out["image"] = np.log1p(np.stack(spectrum))
        out["lesions"] = np.array([rec.read("mask").mean() for rec in data])
        out |= {n: np.asarray(v) for n, v in data.label_values.items()}
        out["train"] = np.isin(np.arange(len(data)), data.subset("train").indices)
    return out


# Neither trivial nor hopeless: what a linear model on the training patients reaches on the others.
@pytest.mark.parametrize(
    ("field", "low", "high"),
    [("rna", 0.9, 1.0), ("patches", 0.78, 0.95), ("snp", 0.8, 0.98), ("pgs", 0.75, 0.95), ("image", 0.85, 1.0)],
)
def test_class_can_be_told_from_every_field(table: dict[str, np.ndarray], field: str, low: float, high: float) -> None:
    train, y = table["train"], table["subtype"]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(
        table[field][train], y[train]
    )
    assert low <= roc_auc_score(y[~train], model.decision_function(table[field][~train])) <= high


@pytest.mark.parametrize(("field", "low"), [("rna", 0.65), ("patches", 0.35), ("snp", 0.3), ("pgs", 0.4)])
def test_severity_can_be_told_from_every_field(table: dict[str, np.ndarray], field: str, low: float) -> None:
    train, y = table["train"], table["severity"]
    model = make_pipeline(StandardScaler(), Ridge(100.0)).fit(table[field][train], y[train])
    assert np.corrcoef(model.predict(table[field][~train]), y[~train])[0, 1] > low


def test_lesions_grow_with_severity(table: dict[str, np.ndarray]) -> None:
    assert np.corrcoef(table["lesions"], table["severity"])[0, 1] > 0.6


def test_slide_and_genome_share_more_than_class(table: dict[str, np.ndarray]) -> None:
    """Within one class, what slide and genome say about severity still agrees, in patients that no model saw."""
    train, y = table["train"], table["severity"]
    said = [
        make_pipeline(StandardScaler(), Ridge(100.0)).fit(table[f][train], y[train]).predict(table[f])
        for f in ("patches", "rna")
    ]
    for label in (0, 1):
        unseen = ~train & (table["subtype"] == label)
        assert np.corrcoef(said[0][unseen], said[1][unseen])[0, 1] > 0.25


def test_neighbours_tell_about_a_hidden_patch(demo_cohort: Path) -> None:
    """Raster order: the mean of the two neighbours explains a patch far better than the mean of the bag."""
    near = far = 0.0
    with Dataset.open(demo_cohort) as data:
        for i in range(0, len(data), 5):
            x_ND, xy_N2 = data[i].read("patches").astype(np.float32), data[i].read("coords")
            assert (np.lexsort((xy_N2[:, 0], xy_N2[:, 1])) == np.arange(len(xy_N2))).all()
            inner = np.flatnonzero((xy_N2[1:-1, 0] - xy_N2[:-2, 0] == 1) & (xy_N2[2:, 0] - xy_N2[1:-1, 0] == 1)) + 1
            near += float(((x_ND[inner] - (x_ND[inner - 1] + x_ND[inner + 1]) / 2) ** 2).sum())
            far += float(((x_ND[inner] - x_ND.mean(0)) ** 2).sum())
    assert near < 0.7 * far


def test_report_says_what_the_image_shows(demo_cohort: Path) -> None:
    grades = {"mild": (0, 0.33), "moderate": (0.33, 0.66), "severe": (0.66, 1)}
    with Dataset.open(demo_cohort) as data:
        for i in range(0, len(data), 9):
            text, labels = data[i].read("report"), data[i].labels
            assert ("steep" in text) == (labels["subtype"] == "beta")
            low, high = grades[text.split()[-1].rstrip(".")]
            assert low <= labels["severity"] + 1e-4
            assert labels["severity"] - 1e-4 <= high


def test_triplets_say_what_image_and_report_show(demo_cohort: Path) -> None:
    entities, positions = list(ENTITIES), list(POSITIONS)
    with Dataset.open(demo_cohort) as data:
        assert data.info.fields["triplets"].shape == (51, 75)
        for i in range(0, len(data), 9):
            found_PE, text, labels = data[i].read("triplets"), data[i].read("report"), data[i].labels
            state = dict(zip(entities, found_PE.max(0).tolist(), strict=True))
            assert (state["mass"] == 1) == ("large" in text)
            assert state["marking"] == (labels["subtype"] == "beta")
            grade = next(g for g in ("mild", "moderate", "severe") if g in text)
            assert state["disease"] == {"mild": 0, "moderate": -1, "severe": 1}[grade]
            sides = {
                positions[p].split("_")[0]
                for p, e in zip(*np.nonzero(found_PE == 1), strict=True)
                if entities[e] in ("nodule", "mass")
            }
            assert sides <= {"left", "right"}
            assert sides
            if "single" in text:
                assert sides == {"right" if "right" in text else "left"}


def test_missing_genotypes_are_minus_one(demo_cohort: Path) -> None:
    with Dataset.open(demo_cohort) as data:
        snp = np.stack([rec.read("snp") for rec in data])
        stats = data.stats()
    assert set(np.unique(snp)) == {-1, 0, 1, 2}
    assert 0.01 < (snp == -1).mean() < 0.03
    assert (stats["snp.mean"] > 0.1).all()
