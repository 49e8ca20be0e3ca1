"""The built-in demo cohort: synthetic patients whose slide, genome, image, report and triplets share one planted latent factor.

A patient is a class ('alpha' or 'beta') and a severity in [0, 1]. Every field is a noisy function of the two, so that a method
which relates fields can be seen to learn, in minutes, without any download. Nothing in it is biology.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np

from shards.errors import DataError
from shards.format.describe import FieldTally, header_of
from shards.format.info import load_info
from shards.format.seal import SampleRow
from shards.pack.options import PackOptions
from shards.pack.pack import finish
from shards.pack.sample import META, meta_bytes
from shards.pack.split import assign
from shards.pack.tokenizer import train_wordpiece
from shards.pack.write import DatasetWriter, Members, disk_errors, npy_bytes
from shards.tables.report_triplets import UNKNOWN
from shards.tables.report_words import ENTITIES, POSITIONS

VERSION = "7"
SEED = 20261122
PATIENTS, SECOND_SLIDE = 480, 0.1
CLASSES = ("alpha", "beta")
SITES = 8
GENES, SNPS, SCORES = 512, 1000, 16
MEANINGS = {
    "patches": {"encoder": "demo", "magnification": "none", "patch_size": "none"},
    "rna": {"transform": "z"},
    "snp": {"allele": "demo", "build": "none"},
}
TOKENS = 200  # of the reports' vocabulary; enough for all of their words
WIDTH = 64  # of a patch feature
PHENOTYPES = 6  # kinds of tissue in a slide: 0-2 in every one, 3 and 4 tied to the class, 5 to the severity
PIXELS = 96
MILD, SEVERE = 0.33, 0.66  # severity from which a grade is no longer mild, and is severe
LARGE = 8  # pixels of radius from which a lesion is large
WAVE = 8.0  # height of the texture that tells the class
LICENCE = "CC0-1.0"
CITATION = "medpair's demo cohort, generated: nothing to cite"
SOURCE = "synthetic: medpair's demo cohort, no real patient"


@dataclass(frozen=True)
class Latent:
    """What all fields of a patient share."""

    patient: int
    beta: bool  # the class
    severity: float  # 0 to 1
    site: int

    @property
    def sign(self) -> float:
        return 1.0 if self.beta else -1.0


def _rng(*key: object) -> np.random.Generator:
    """A generator of its own for every purpose: adding a field changes no other."""
    return np.random.default_rng([SEED, *(k if isinstance(k, int) else zlib.crc32(str(k).encode()) for k in key)])


def latent(patient: int) -> Latent:
    """Classes alternate, so they are balanced; severity leans to the mild side; sites are of unequal size."""
    rng = _rng("latent", patient)
    weights = np.arange(SITES, 0, -1) / np.arange(SITES, 0, -1).sum()
    return Latent(patient, patient % 2 == 1, float(rng.beta(1.6, 2.0)), int(rng.choice(SITES, p=weights)))


def rna(who: Latent) -> np.ndarray:
    """Expression [GENES] float16: class moves 48 genes, severity another 48 (overlapping by 16), eight programmes correlate all of them."""
    fixed, rng = _rng("rna"), _rng("rna", who.patient)
    base_D, programme_FD = fixed.normal(5, 1.5, GENES), fixed.normal(0, 0.35, (8, GENES))
    sign_D = fixed.choice([-1.0, 1.0], GENES)
    of_class_D, of_severity_D = np.zeros(GENES), np.zeros(GENES)
    of_class_D[:48], of_severity_D[32:80] = 0.3, 1.4
    shift_D = sign_D * (of_class_D * who.sign + of_severity_D * (who.severity - 0.45))
    site_D = _rng("rna site", who.site).normal(0, 0.1, GENES)
    return (base_D + shift_D + site_D + rng.normal(size=8) @ programme_FD + rng.normal(0, 0.9, GENES)).astype(
        np.float16
    )


def _smooth(field_HW: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing of the last two axes, scaled to unit variance."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(field_HW, (0,) * (field_HW.ndim - 2) + (sigma, sigma), mode="reflect")
    return smooth / np.maximum(smooth.std(axis=(-2, -1), keepdims=True), 1e-9)


def slide(who: Latent, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Patch features [N, WIDTH] float16 and grid positions [N, 2] int32 (x, y), N from 40 to 400, in raster order.

    Tissue kinds form smooth regions and the texture within them is smooth too, so that neighbours tell about a hidden patch. Class
    and severity decide how much of kinds 3, 4 and 5 there is.
    """
    fixed, rng = _rng("slide"), _rng("slide", who.patient, number)
    centre_KD, texture_TD = fixed.normal(0, 0.8, (PHENOTYPES, WIDTH)), fixed.normal(0, 0.3, (8, WIDTH))
    wanted = int(np.exp(rng.uniform(np.log(40), np.log(400))))
    height = int(np.ceil(np.sqrt(wanted * 1.6)))
    bias_K = np.array([0.0, 0.0, 0.0, -0.8 - 0.8 * who.sign, -0.8 + 0.8 * who.sign, 3.0 * who.severity - 2.2])
    bias_K = bias_K + rng.normal(0, 0.4, PHENOTYPES)
    logits_KHW = 1.8 * _smooth(rng.normal(size=(PHENOTYPES, height, height)), 1.5) + bias_K[:, None, None]
    share_KHW = np.exp(2 * logits_KHW)
    share_KHW /= share_KHW.sum(0)
    texture_THW = _smooth(rng.normal(size=(8, height, height)), 1.2)
    tissue_HW = _smooth(rng.normal(size=(height, height)), height / 5)
    inside = np.sort(np.argsort(-tissue_HW.ravel(), kind="stable")[:wanted])  # raster order
    y_N, x_N = np.unravel_index(inside, (height, height))
    features_ND = share_KHW[:, y_N, x_N].T @ centre_KD + texture_THW[:, y_N, x_N].T @ texture_TD
    features_ND += _rng("slide site", who.site).normal(0, 0.1, WIDTH) + rng.normal(0, 0.35, features_ND.shape)
    return features_ND.astype(np.float16), np.stack([x_N, y_N], 1).astype(np.int32)


def snp(who: Latent) -> np.ndarray:
    """Allele counts [SNPS] int8 in 0, 1, 2; -1 is a missing call (2 %). The first 40 lean with the class, the next 40 with severity."""
    fixed, rng = _rng("snp"), _rng("snp", who.patient)
    frequency_D = fixed.uniform(0.1, 0.5, SNPS)
    logit_D = np.log(frequency_D / (1 - frequency_D))
    logit_D[:40] += 0.5 * who.sign
    logit_D[40:80] += 2.0 * (who.severity - 0.45)
    count_D = rng.binomial(2, 1 / (1 + np.exp(-logit_D)))
    return np.where(rng.random(SNPS) < 0.02, -1, count_D).astype(np.int8)


def pgs(who: Latent) -> np.ndarray:
    """Polygenic scores [SCORES] float16; the first two follow class and severity."""
    score_D = _rng("pgs", who.patient).normal(size=SCORES)
    score_D[0] += 0.8 * who.sign
    score_D[1] += 3.0 * (who.severity - 0.45)
    return score_D.astype(np.float16)


def outcome(who: Latent) -> dict[str, float]:
    """Grade 0 to 3 by severity, one in ten a grade off; months to an event that comes sooner with severity, and whether it was seen."""
    rng = _rng("outcome", who.patient)
    grade = min(3, int(4 * who.severity))
    if rng.random() < 0.1:
        grade = int(np.clip(grade + rng.choice([-1, 1]), 0, 3))
    months, censored = rng.exponential(60 * np.exp(-4 * who.severity)), rng.exponential(40)
    return {
        "grade": float(grade),
        "months": round(float(min(months, censored)), 2),
        "event": float(months <= censored),
    }


def lesions(who: Latent, number: int) -> list[tuple[int, int, int]]:
    """(x, y, radius) of the lesions of an image: more and larger with severity."""
    rng = _rng("lesions", who.patient, number)
    count = 1 + rng.poisson(4 * who.severity)
    radius = 3 + 6 * who.severity
    return [
        (int(rng.integers(12, PIXELS - 12)), int(rng.integers(12, PIXELS - 12)), int(radius * rng.uniform(0.7, 1.3)))
        for _ in range(count)
    ]


def _body(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What all images share: a round body, brighter to its rim, with two dark lobes, on a dim ground. Coordinates from -1 to 1."""
    rim = 1 / (1 + np.exp((np.hypot(x / 0.9, y / 0.95) - 1) * 14))
    lobes = sum(np.exp(-2.5 * (((x - side) / 0.3) ** 2 + ((y + 0.05) / 0.55) ** 2) ** 2) for side in (-0.4, 0.4))
    return rim * (0.75 + 0.35 * (x**2 + y**2) - 0.5 * lobes)


def image(who: Latent, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image [PIXELS, PIXELS] uint8 and its lesion mask (0, 1).

    A body that all patients share lies a little differently in each, under an exposure of its own, so that what a hidden patch holds
    can be guessed. The class sets the direction of a faint texture, severity number and size of bright lesions; dark spots (vessels,
    say) mean nothing.
    """
    rng, mask = _rng("image", who.patient, number), np.zeros((PIXELS, PIXELS), np.uint8)
    y, x = np.mgrid[:PIXELS, :PIXELS]
    u, v = ((c - (PIXELS - 1) / 2) / (PIXELS / 2) * rng.uniform(0.92, 1.08) + rng.uniform(-0.08, 0.08) for c in (x, y))
    angle = np.pi / 4 * (1 + 0.6 * who.sign) + rng.normal(0, 0.15)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 0.55 + rng.uniform(0, 6.3))
    pixels = 110 * _body(v, u) + WAVE * rng.uniform(0.6, 1.4) * wave + 5 * _smooth(rng.normal(size=(PIXELS, PIXELS)), 5)
    for _ in range(rng.poisson(2)):
        height, (cx, cy), radius = 45 * rng.uniform(0.7, 1.3), rng.integers(12, PIXELS - 12, 2), rng.uniform(2.5, 5)
        pixels = pixels - height * _spot(x, y, cx, cy, radius)
    for cx, cy, radius in lesions(who, number):
        mask[(x - cx) ** 2 + (y - cy) ** 2 <= radius**2] = 1
        pixels = pixels + 60 * rng.uniform(0.8, 1.2) * _spot(x, y, cx, cy, radius)
    pixels = 50 + rng.normal(0, 4) + rng.uniform(0.92, 1.08) * pixels + rng.normal(0, 3, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), mask


def _spot(x: np.ndarray, y: np.ndarray, cx: float, cy: float, radius: float) -> np.ndarray:
    """A disc of height 1 with a soft edge, in a faint ring of the opposite sign."""
    distance = np.hypot(x - cx, y - cy)
    disc, around = (1 / (1 + np.exp((distance - r) * 1.5)) for r in (radius, 1.5 * radius))
    return disc - (around - disc) * 0.25


def report(who: Latent, number: int) -> str:
    """A sentence on what the image shows: number, size and place of the lesions, texture, grade."""
    found, rng = lesions(who, number), _rng("report", who.patient, number)
    side = "right" if np.mean([f[0] for f in found]) > PIXELS / 2 else "left"
    size = "small" if max(f[2] for f in found) < 5 else "medium-sized" if max(f[2] for f in found) < LARGE else "large"
    many = {1: "a single", 2: "two", 3: "three"}.get(len(found), "multiple")
    texture = "steep" if who.beta else "shallow"
    grade = "mild" if who.severity < MILD else "moderate" if who.severity < SEVERE else "severe"
    lesion = "lesion" if len(found) == 1 else "lesions"
    rest = [f"{texture} striation, {grade}.", f"striation is {texture}, overall {grade}."]
    return f"{many.capitalize()} {size} {lesion} on the {side}, {rest[rng.integers(2)]}\n"


def triplets(who: Latent, number: int) -> np.ndarray:
    """What the image shows as int8 [51, 75] in MedKLIP's positions and entities: 1 present, 0 absent, -1 not mentioned.

    Lesions are nodules, large ones masses, in the third of the side where they lie; a steep texture is a marking; grave and mild severity
    are disease and none.
    """
    found_PE = np.full((len(POSITIONS), len(ENTITIES)), UNKNOWN, np.int8)

    def say(entity: str, present: bool, position: str = "unspecified") -> None:
        found_PE[list(POSITIONS).index(position), list(ENTITIES).index(entity)] = present

    sizes = {"nodule": False, "mass": False}
    for x, y, radius in lesions(who, number):
        kind, side = "mass" if radius >= LARGE else "nodule", "right" if x > PIXELS / 2 else "left"
        sizes[kind] = True
        say(kind, True, f"{side}_{('upper', 'mid', 'lower')[3 * y // PIXELS]}_lung")
    for kind in (k for k, there in sizes.items() if not there):
        say(kind, False)
    say("marking", who.beta, "interstitium")
    if not MILD <= who.severity < SEVERE:
        say("disease", who.severity >= SEVERE, "parenchymal")
    return found_PE


def png_bytes(pixels: np.ndarray, indexed: bool = False) -> bytes:
    """A PNG of grey values, or of class numbers with a palette."""
    from PIL import Image

    picture, buffer = Image.fromarray(pixels), BytesIO()
    if indexed:
        picture.putpalette([0, 0, 0, 255, 220, 0])
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _array(*names: str) -> Callable[..., dict[tuple[str, str], bytes]]:
    return lambda *values: {(n, "npy"): npy_bytes(v) for n, v in zip(names, values, strict=True)}


def members_of(who: Latent, number: int) -> Members:
    """All members of one sample but meta.json."""
    pixels, mask = image(who, number)
    return {
        **_array("patches", "coords")(*slide(who, number)),
        **_array("rna", "snp", "pgs")(rna(who), snp(who), pgs(who)),
        **_array("triplets")(triplets(who, number)),
        ("image", "png"): png_bytes(pixels),
        ("mask", "png"): png_bytes(mask, indexed=True),
        ("report", "txt"): report(who, number).encode(),
    }


def vocabularies(reports: Sequence[str]) -> Mapping[str, list[str]]:
    """Made-up feature names (none is the name of a gene), and a WordPiece vocabulary of the training reports."""
    return {
        "report": train_wordpiece(reports, TOKENS),
        "rna": [f"DEMOG{i:04d}" for i in range(GENES)],
        "snp": [f"demo_snp_{i:04d}" for i in range(SNPS)],
        "pgs": [f"demo_pgs_{i:02d}" for i in range(SCORES)],
        "triplets": list(ENTITIES),
    }


def samples() -> list[tuple[SampleRow, Latent, int]]:
    """All samples: 480 patients, one in ten with a second slide, split 60/20/20 by patient with balanced classes."""
    people = [latent(i) for i in range(PATIENTS)]
    names = {w.patient: f"demo-{w.patient:04d}" for w in people}
    strata = {names[w.patient]: CLASSES[w.beta] for w in people}
    split_of = assign([*names.values()], {"train": 0.6, "val": 0.2, "test": 0.2}, SEED, strata)
    rows = []
    for who in people:
        name, slides = names[who.patient], 2 if _rng("second", who.patient).random() < SECOND_SLIDE else 1
        labels: dict[str, str | float] = {
            "subtype": CLASSES[who.beta],
            "severity": round(who.severity, 4),
            **outcome(who),
            "site": f"site{who.site}",
        }
        rows += [(SampleRow(f"{name}-{k}", name, split_of[name], labels), who, k) for k in range(slides)]
    return rows


def generate(folder: Path, overwrite: bool = False) -> Path:
    """Writes the cohort to `folder`; the same bytes every time.

    Raises:
        DataError: the folder is in use, or cannot be written.
    """
    everyone, tally = samples(), FieldTally()
    with DatasetWriter(folder, shard_samples=64, overwrite=overwrite) as writer:
        for row, who, number in everyone:
            members = {META: meta_bytes(row.patient, row.labels, {"all": SOURCE}), **members_of(who, number)}
            for (name, ext), data in members.items():
                tally.add(row.sample, name, ext, header_of(name, ext, data))
            writer.add(row.sample, members)
        reports = [report(who, number) for row, who, number in everyone if row.split == "train"]
        kinds = dict.fromkeys(("severity", "grade", "months", "event"), "number")
        kinds |= {"subtype": "class", "site": "class"}
        options = PackOptions(name="demo", version=VERSION, source=SOURCE, licence=LICENCE, commercial="yes",
                              citation=CITATION, meanings=MEANINGS)  # fmt: skip
        finish(writer, tally, [r for r, _, _ in everyone], kinds, vocabularies(reports), options)
    return folder


def ensure(folder: str | Path) -> Path:
    """The demo cohort at `folder`: generated if absent (seconds), replaced if it is of another version of the generator.

    Several processes may ask at once; one writes, the others wait.

    Raises:
        DataError: the folder holds something else, or cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    if _is_current(folder):
        return folder
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_current(folder):
            generate(folder, overwrite=_is_demo(folder))
    finally:
        os.close(lock)
    return folder


def _is_demo(folder: Path) -> bool:
    try:
        return load_info(folder).source == SOURCE
    except DataError:
        return False


def _is_current(folder: Path) -> bool:
    if not _is_demo(folder):
        return False
    info = load_info(folder)
    return (info.version, info.citation) == (VERSION, CITATION)
