"""A small data set in memory with every field a method may read, and a factor (class, severity) shared by all of them.

schema()                     what it offers
records(n)                   n samples; `missing` leaves fields out of some
build(name)                  a method with the small options of its demo recipe, on `schema()`
tuned(name)                  the same with a head, as the fine-tune runner trains it
batch(method, records)       what the loader would make of them
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from toys import TOYS

from models.contract import Batch, Field, Label, Method, Schema, TargetSpec
from models.contract.masks import MaskField
from models.decoders.build import make_decoder
from models.describe import options_of
from models.encoders.vit import ViTOptions
from models.finetuned import Downstream, FinetuneSettings, make_head
from models.registry import get_method
from shards.pack.tokenizer import train_wordpiece
from shards.tables import report_words

RECIPES = Path(__file__).parents[2] / "configs" / "methods"
CLASSES, GRADES, SITES = ("LUAD", "LUSC"), ("II", "III", "IV"), ("05", "22", "33", "44")
GENES, SNPS, SCORES, BURDENS, CNVS, MUTATIONS = 60, 300, 12, 200, 40, 30
WIDTH, PIXELS = 24, 64
ENTITIES, POSITIONS = list(report_words.ENTITIES), list(report_words.POSITIONS)
LOBES = "upper_left_lobe", "lower_right_lobe"
FINDINGS = ("small round opacity", "large irregular opacity"), ("left upper lobe", "right lower lobe")


class MemoryRecord:
    """A `Record` over a dict; `reads` lists what was asked for."""

    def __init__(self, key: str, patient: str, labels: Mapping[str, str | float | None], fields: dict[str, Any]):
        self.key, self.patient, self.labels, self.fields = key, patient, labels, fields
        self.reads: list[str] = []

    def has(self, name: str) -> bool:
        return name in self.fields

    def shape(self, name: str) -> tuple[int, ...]:
        return self.fields[name].shape

    def read(self, name: str) -> Any:
        self.reads.append(name)
        value = self.fields[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        return self.read(name)[start:stop]


def _patches(rng: np.random.Generator, code: int, severity: float) -> np.ndarray:
    """Patches of three tissues in raster order, neighbours alike; the class decides the share of the third tissue."""
    N = int(rng.integers(20, 90))
    tissue_N = np.where(rng.random(N) < 0.2 + 0.5 * code, 2, np.sort(rng.integers(0, 2, N)))
    centre = np.random.default_rng(0).normal(size=(3, WIDTH))
    return (centre[tissue_N] * (1 + severity) + 0.3 * rng.normal(size=(N, WIDTH))).astype(np.float16)


def _image(rng: np.random.Generator, code: int, severity: float) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with a bright disc of the severity's size, and the disc as a mask."""
    row, column = np.mgrid[:PIXELS, :PIXELS]
    y, x = rng.integers(16, 48, 2)
    disc = (row - y) ** 2 + (column - x) ** 2 < (4 + 8 * severity) ** 2
    image = rng.integers(0, 80, (PIXELS, PIXELS, 3)) + disc[..., None] * (80 + 60 * code)
    return image.astype(np.uint8), (disc[..., None] * 255).astype(np.uint8)


def _triplets(code: int, i: int) -> np.ndarray:
    """What the report says: an opacity, which the class makes large or small, in a lobe; no effusion."""
    found_PE = np.full((len(POSITIONS), len(ENTITIES)), -1, np.int8)
    said = {"opacity": 1, "mass": code, "nodule": 1 - code}
    for entity, present in said.items():
        found_PE[POSITIONS.index(LOBES[i // 2 % 2]), ENTITIES.index(entity)] = present
    found_PE[POSITIONS.index("pleural_unspec"), ENTITIES.index("effusion")] = 0
    return found_PE


def record(i: int, seed: int = 0) -> MemoryRecord:
    """Sample i: any two with the same number and seed are the same."""
    rng = np.random.default_rng([seed, i])
    code, severity = i % 2, float(rng.random())
    image, mask = _image(rng, code, severity)
    patches = _patches(rng, code, severity)
    genes = rng.normal(size=GENES) + np.where(np.arange(GENES) < GENES // 3, 1.5 * code, severity)
    fields = {
        "patches": patches,
        "coords": np.stack([np.arange(len(patches)) % 10, np.arange(len(patches)) // 10], 1).astype(np.int32) * 256,
        "rna": genes.astype(np.float16),
        "cnv": rng.integers(-2, 3, CNVS).astype(np.int8),
        "mutation": (rng.random(MUTATIONS) < 0.1 + 0.3 * code).astype(np.uint8),
        "snp": rng.integers(0, 3, SNPS).astype(np.int8),
        "pgs": (rng.normal(size=SCORES) + severity).astype(np.float16),
        "burden": (rng.random(BURDENS) < 0.05 + 0.1 * code).astype(np.uint8),
        "image": image,
        "image_2": image[::-1].copy(),
        "image_3": image[:, ::-1].copy(),
        "mask": mask,
        "report": f"FINDINGS: There is a {FINDINGS[0][code]} in the {FINDINGS[1][i // 2 % 2]}. No effusion.\n"
        f"IMPRESSION: {FINDINGS[0][code].capitalize()}.",
        "triplets": _triplets(code, i),
    }
    labels = {"subtype": CLASSES[code], "grade": GRADES[i % 3], "site": SITES[i % 4], "severity": severity}
    return MemoryRecord(f"s{i:04d}", f"p{i:04d}", labels, fields)


def records(n: int, seed: int = 0, missing: Mapping[int, Sequence[str]] | None = None) -> list[MemoryRecord]:
    """n samples of as many patients; `missing` maps a sample's number to the fields it lacks."""
    made = [record(i, seed) for i in range(n)]
    for i, names in (missing or {}).items():
        made[i].fields = {k: v for k, v in made[i].fields.items() if k not in names}
    return made


@functools.cache
def schema() -> Schema:
    """The schema of these samples; statistics are fitted on 32 of them."""
    made = records(32)
    ragged = {"patches": (None, WIDTH), "coords": (None, 2)}
    fields = {}
    for name, value in made[0].fields.items():
        if isinstance(value, str):
            words = train_wordpiece([r.fields[name] for r in made], 200)
            fields[name] = Field(name, "text", vocabulary=tuple(words))
        elif name == "triplets":
            fields[name] = Field(name, "array", str(value.dtype), value.shape, tuple(ENTITIES))
        elif name.startswith(("image", "mask")):
            fields[name] = Field(name, "image", "uint8", value.shape)
        else:
            shape = ragged.get(name, value.shape)
            vocabulary = None if name in ragged else tuple(f"{name.upper()}{i}" for i in range(shape[0]))
            whole = np.concatenate([np.atleast_2d(r.fields[name]) for r in made]).astype(np.float32)
            fields[name] = Field(name, "array", str(value.dtype), shape, vocabulary, whole.mean(0), whole.std(0))
    labels = {n: Label(n, "class", c) for n, c in (("subtype", CLASSES), ("grade", GRADES), ("site", SITES))}
    return Schema(fields, {**labels, "severity": Label("severity", "number")}, "the synthetic data set")


def small_options(name: str) -> dict[str, Any]:
    """The options of configs/methods/NAME/demo.yaml: every method has one, small enough for two CPU cores."""
    return yaml.safe_load((RECIPES / name / "demo.yaml").read_text()).get("method") or {}


def image_options(name: str) -> object:
    """Those of a system's image encoder; None where it has none. Lists of tests ask it of every system, and build none for it."""
    return getattr(get_method(name).Options.parse(small_options(name)), "image", None)


def has_vit(name: str) -> bool:
    """Whether a system's image encoder at these options is a ViT."""
    return isinstance(image_options(name), ViTOptions)


def build(name: str, seed: int = 0, still: bool = False, **options: Any) -> Method:
    """`still`: nothing is dropped at random, so that training mode can be compared; of options given, none is overridden."""
    cls = TOYS.get(name) or get_method(name)
    torch.manual_seed(seed)
    small = {} if name in TOYS else small_options(name)
    for layer in (without_dropout(cls) if still else {}, options):
        small = cls.Options.over(small, layer)
    return cls(cls.Options.parse(small), schema())


def without_dropout(cls: type[Method]) -> dict[str, Any]:
    """The options that drop something at random, set to 0, each in its group."""
    names = [o.name for o in options_of(cls.Options) if o.name.endswith(("dropout", "drop_path"))]
    return nested(dict.fromkeys(names, 0.0))


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """{"image.dim": 8} -> {"image": {"dim": 8}}."""
    found: dict[str, Any] = {}
    for path, value in dotted.items():
        *groups, name = path.split(".")
        place = found
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    return found


def batch(method: Method, made: Sequence[MemoryRecord], epoch: int = 0) -> Batch:
    """One batch; each sample's randomness depends on the epoch and on itself alone, as in the loader."""
    samples = [method.sample(r, np.random.default_rng([epoch, int(r.key[1:])])) for r in made]
    done = method.collate(samples)
    done.keys_B, done.patients_B = tuple(r.key for r in made), tuple(r.patient for r in made)
    return done


def tuned(name: str, seed: int = 0, still: bool = False, **options: Any) -> Downstream:
    """A method with a head on it, as the fine-tune runner trains it: its own for masks where it draws them, else for two classes."""
    encoder = build(name, seed, still, **options)
    fields = encoder.inputs
    if encoder.draws_masks:
        head: Any = make_decoder(encoder, "auto", width=8, queries=1, mask_token=False, gene_dim=8)
        question, fit = TargetSpec("segmentation", 1, ()), FinetuneSettings(fields, masks=(MaskField("mask", "mask"),))
    else:
        encoded = encoder.eval().encode(batch(encoder, records(1)))
        question, fit = TargetSpec("binary", 1, CLASSES), FinetuneSettings(fields)
        widths = encoded["pooled_BD"].shape[1], encoded["tokens_BLD"].shape[2]
        head = make_head(encoder, question, *widths, head="auto", norm=False, hidden=8, dropout=0.0)
        for p in (p for p in head.parameters() if p.ndim > 1):
            torch.nn.init.normal_(
                p, std=0.3
            )  # the runner's linear head starts so near 0 that nothing it is given makes a difference
    return Downstream(encoder, head, question, fit, _code)


def _code(record: Any) -> np.ndarray:
    """The target of a record: its class, NaN where nobody knows."""
    name = record.labels.get("subtype")
    return np.array([np.nan if name is None else CLASSES.index(name)], np.float32)


def seen_by(method: Method, data: Batch) -> torch.Tensor:
    """What reaches the image encoder of a batch, [B, 3, H, W]."""
    seen: list[torch.Tensor] = []
    image: Any = method.image_encoder()
    hook = image.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    method.encode(data)
    hook.remove()
    return seen[0]
