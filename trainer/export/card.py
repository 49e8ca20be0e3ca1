"""The model card of an export: what the weights are, what they were fed, how well they did, and how to use them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.contract.image_view import ImageView
from models.encoders.resnet import ConvNet
from models.encoders.vit import ViT
from shards.format.info import SPLITS
from shards.format.meaning import shown
from shards.untyped import Json
from trainer.config.schema import Config
from trainer.errors import UserError
from trainer.export.head import SAID as HEAD
from trainer.export.opened import Exporting, To, shown_options
from trainer.export.terms import commercial_use
from trainer.export.timm import exported
from trainer.tracking.intervals import interval_text
from trainer.tracking.metrics_file import read_metrics
from trainer.tracking.summary import yardstick

LICENCE_NOTE = (
    "Weights inherit the terms of the data they were trained on: whoever passes them on answers for those terms, and for "
    "what was agreed on with the patients. medpair's own licence (Apache-2.0) covers the code, not these weights."
)
OPTIMISERS = {
    "adamw": "AdamW",
    "adam": "Adam",
    "sgd": "SGD",
    "lars": "LARS",
    "radam_lookahead": "RAdam inside Lookahead",
}
CHANNELS = {
    "rgb": "the first three channels; a single one is repeated",
    "grey": "made grey (luma by ITU-R 601), repeated in three channels",
    "second": "the second of three channels (FLAIR in the LGG set), or the only one, repeated in three channels",
}
FITS = {
    "stretch": "each side scaled by itself to {0} x {0} pixels",
    "crop": "the centre square, cut at whole pixels, scaled to {0} x {0} pixels",
    "box": "the shorter side scaled to {0} pixels and the centre square taken",
}


def model_card(opened: Exporting, to: To, said: str, results: Sequence[dict[str, Any]] = ()) -> str:
    """README.md, with the front matter of the Hugging Face hub."""
    parts = [_front(opened, to), _intro(opened, to, said), _data(opened), _licence(opened)]
    if to == "timm":
        found = exported(opened.method)
        assert found is not None
        image, view = found
        parts += [_preprocessing(view), _use_timm(view, image)]
    else:
        parts.append(_use_method(opened))
        parts += [use_head(opened.tuned.result["inputs"])] if opened.tuned and HEAD in said else []
    parts += [_measured(opened), _results(results), _training(opened)]
    return "\n\n".join(p for p in parts if p) + "\n"


def _front(opened: Exporting, to: To) -> str:
    library = "timm" if to == "timm" else "medpair"
    said = json.dumps("; ".join(opened.licences))
    lines = ["license: other", f"license_name: {said}", f"library_name: {library}"]
    lines.append(f"tags: [medical, image-feature-extraction, {opened.name}, medpair]")
    return "---\n" + "\n".join(lines) + "\n---"


def _intro(opened: Exporting, to: To, said: str) -> str:
    what = "image encoder" if to == "timm" else "encoder (all weights of the method)"
    return (
        f"# {opened.name}: {what}\n\nPre-trained with medpair. Method: {opened.method.paper}.\n\n"
        + (f"{opened.tuned.sentence()}{' The head is not part of this.' * (to == 'timm')}\n\n" if opened.tuned else "")
        + f"Checked when it was written: {said}. SHA-256 of the run's weights: `{opened.sha256}`."
    )


def _data(opened: Exporting) -> str:
    lines = [
        f"- {d['name']} (version {d['version']}): {d['samples']} samples of {d['patients']} patients; "
        f"{_splits(d)}source: {d['source'] or 'not stated'}; fingerprint `{d['fingerprint']}`"
        for d in opened.sets
    ] or ["- not recorded by this run"]
    split = opened.run.config.data.split
    fields = opened.run.schema.fields
    lines += [f"- `{n}` must hold {shown(f.meaning)}, as in training" for n, f in sorted(fields.items()) if f.meaning]
    if opened.tuned:
        lines.append(f"- of the fine-tune: the data set with fingerprint `{opened.tuned.plain()['data_fingerprint']}`")
    return (
        "## Data\n\n" + "\n".join(lines) + f"\n\nTrained on split `{split}`. Fingerprint: `{opened.run.fingerprint}`."
    )


def _splits(about: Mapping[str, Any]) -> str:
    """Samples by split; nothing of a run of earlier versions, which did not keep it."""
    shown = ", ".join(f"{n} {name}" for name in SPLITS if (n := about.get("splits", {}).get(name)))
    return f"samples of each split: {shown}; " if shown else ""


def _licence(opened: Exporting) -> str:
    rows = [
        f"| {p.kind} {p.name} | {p.terms.licence} | {p.terms.commercial} | {p.terms.citation} |" for p in opened.parts
    ]
    table = ["| made from | licence | commercial use | citation |", "|---|---|---|---|", *rows]
    patches = opened.run.schema.fields.get("patches")
    by = (patches.meaning if patches else {}).get("encoder")
    note = f" Patches were made by the encoder {by}, whose terms are not in this table." if by else ""
    return (
        "## Licence\n\n"
        + "\n".join(table)
        + f"\n\nCommercial use of these weights: **{commercial_use(opened.parts)}**. {LICENCE_NOTE}{note}"
    )


def _preprocessing(view: ImageView) -> str:
    if view.mean is None:
        normal = (
            "every image and channel standardised by its own mean and deviation over its pixels (z-score per slice): "
            "`mean` and `std` in config.json are 0 and 1 and do not say this, so timm's own transform alone is not enough"
        )
    else:
        normal = f"pixels / 255, then (x - mean) / std with mean {list(view.mean)}, std {list(view.std or ())}"
    rows = [
        f"- channels: {CHANNELS[view.channels]}",
        f"- size: {FITS[view.fit].format(view.size)}, {view.resample}, with antialiasing (Pillow)",
        f"- values: {normal}",
    ]
    return "## Preprocessing\n\n" + "\n".join(rows) + "\n\nThe code below does exactly this."


# ------------------------------------------------------------------------------------------------------------------- using


def _use_timm(view: ImageView, image: ViT | ConvNet) -> str:
    if isinstance(image, ViT):
        first = "the class token comes first" if image.cls_token is not None else "there is no class token"
        shape = f"[1, {image.patches + image.extra}, {image.dim}]"
    else:
        first, shape = "the last map", f"[1, {image.width}, {image.grid[0]}, {image.grid[1]}]"
    pooled = (
        f"[1, {image.width}]: {view.pooling}"
        if view.pool
        else f"all tokens again; the method pools them as {view.pooling}"
    )
    return f"""## Use

```python
{prepare_code(view)}


model = timm.create_model("local-dir:.", pretrained=True).eval()  # "local-dir:" and this folder
image = ImageOps.exif_transpose(Image.open("image.png"))  # upright
image = np.asarray(image)  # 8 bits a channel: of a 12-bit film, its values * 255 / 4095
with torch.no_grad():
    tokens = model.forward_features(prepare(image))  # {shape}, {first}
    pooled = model(prepare(image))  # {pooled}
```"""


def prepare_code(view: ImageView) -> str:
    """Python that makes the encoder's input from an image, with nothing but numpy, Pillow and torch."""
    channels = {
        "rgb": "image = image[..., :3] if image.shape[2] >= 3 else np.repeat(image[..., :1], 3, 2)",
        "grey": 'image = np.asarray(Image.fromarray(image[..., :3]).convert("L"))[..., None] if image.shape[2] >= 3 else image[..., :1]',
        "second": "image = image[..., 1:2] if image.shape[2] >= 3 else image[..., :1]",
    }
    side = "side = min(height, width)"
    box = {
        "stretch": "box = (0, 0, width, height)",
        "box": f"{side}\n    left, top = (width - side) / 2, (height - side) / 2\n"
        "    box = (left, top, left + side, top + side)",
        "crop": f"{side}\n    left, top = (width - side) // 2, (height - side) // 2\n"
        "    image, box = image[top : top + side, left : left + side], (0, 0, side, side)",
    }
    if view.mean is None:
        values = "std, mean = torch.std_mean(x, (1, 2), keepdim=True, correction=0)\n    x = (x - mean) / torch.where(std > 0, std, 1.0)"
    else:
        values = (
            f"mean, std = torch.tensor({list(view.mean)}), torch.tensor({list(view.std or ())})\n"
            "    x = (x / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)"
        )
    return f'''import numpy as np
import timm
import torch
from PIL import Image, ImageOps


def prepare(image):
    """uint8 [H, W] or [H, W, C] -> float32 [1, 3, {view.size}, {view.size}]."""
    assert image.dtype == np.uint8, "scale the bits that are used to 0 .. 255 first"
    image = image if image.ndim == 3 else image[..., None]
    {channels[view.channels]}
    height, width = image.shape[:2]
    {box[view.fit]}
    image = np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image)
    image = Image.fromarray(image).resize(({view.size}, {view.size}), Image.Resampling.{view.resample.upper()}, box)
    x = torch.from_numpy(np.array(image)).float()
    x = (x[..., None] if x.ndim == 2 else x).permute(2, 0, 1)
    {values}
    return x.expand(3, -1, -1)[None]'''


def _use_method(opened: Exporting) -> str:
    fields = ", ".join(f"`{n}`" for n in opened.method.inputs)
    return f"""## Use

It reads {fields}; what they look like is in schema.npz (shapes, vocabularies, statistics), options are in method.json.

```python
from trainer.export import load_exported  # medpair

method = load_exported(".")  # this folder; deployed form, eval mode
encoded = method.encode(batch)  # tokens_BLD, mask_BL, pooled_BD
```

A batch is `method.collate([method.sample(record, rng), ...])` of records of a medpair data set with these fields
(`shards.read.dataset.Dataset`). To fine-tune, give the run itself to `launch/finetune.py --init`."""


def use_head(fields: Sequence[str]) -> str:
    """Answers for a case out of its files, named after their fields."""
    reads = [
        f'{n}=np.asarray(Image.open("{n}.png"))' if n.startswith("image") else f'{n}=np.load("{n}.npy")' for n in fields
    ]
    return f"""## Answers

```python
import numpy as np
from PIL import Image

from trainer.export import Case, load_tuned, scores  # medpair

model = load_tuned(".")  # this folder; encoder and head, eval mode
case = Case({", ".join(reads)})
answer, features = scores(model, [case])  # of the classes model.question.classes; [1, D]
```

Probabilities (of two classes that of the second), grades as P(at least), numbers in the label's unit, log risk, or for masks the
probability of each pixel at the encoder's size.
What it was trained and measured on stands below; leave no case of those in a test of your own."""


# ---------------------------------------------------------------------------------------------------------------- measured


def validation_row(opened: Exporting) -> dict[str, Any] | None:
    """The line of metrics.jsonl with the held-back values of the exported weights: the last one of the last stage, or the best
    where that stage keeps its best weights. None where nothing was held back."""
    rows = [r for r in read_metrics(opened.run.path) if any(k.startswith("val/") for k in r)]
    rows = [r for r in rows if r["stage"] == rows[-1]["stage"]]
    if not rows:
        return None
    select = next((s.select for s in opened.method.stages() if s.name == rows[-1]["stage"]), None)
    if select is None:
        return rows[-1]
    known = [r for r in rows if r.get(f"val/{select[0]}") is not None]
    return (max if select[1] == "max" else min)(known, key=lambda r: r[f"val/{select[0]}"]) if known else rows[-1]


def _measured(opened: Exporting) -> str:
    row = validation_row(opened)
    if row is None:
        return "## Held-back values of pre-training\n\nNone: the run held nothing back."
    lines = ["| what | value | at chance |", "|---|---|---|"]
    for name in sorted(k for k in row if k.startswith("val/")):
        chance = yardstick(row, name.removeprefix("val/loss/"), "val/")  # as the run's last lines say it
        lines.append(f"| {name.removeprefix('val/')} | {_number(row[name])} | {_number(chance)} |")
    split = opened.run.config.data.val_split
    return (
        f"## Held-back values of pre-training\n\nSplit `{split}`, step {row['step']} (stage {row['stage']}). "
        "They say how pre-training went, not what the encoder is worth in a task.\n\n" + "\n".join(lines)
    )


def _number(value: Json) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "-"


def _results(results: Sequence[dict[str, Any]]) -> str:
    if not results:
        return "## Results in tasks\n\nNone were given with --results."
    lines = [
        "| task | mode | labels | metric | value | 95 % interval | test | first of all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        share = f"{r['shots']} a class" if r.get("shots") else f"{100 * (r.get('fraction') or 1):g} %"
        for name, m in r["metrics"].items():
            test = f"{r['n']['test']} samples of {r['n'].get('test_patients', '?')} patients, {len(r['seeds'])} seeds"
            lines.append(
                f"| {_asked(r)} | {r['mode']} | {share} | {name}{' *' if name == r['primary'] else ''} | {_number(m['value'])} "
                f"| {interval_text(m)} | {test} | {r.get('first_line', '')} |"
            )
    note = "\n\n* the task's primary metric. Intervals: patients resampled, or an exact bound where one is named."
    return "## Results in tasks\n\n" + "\n".join(lines) + note


def _optimiser(c: Config) -> str:
    scaled = f" x {c.global_batch} / {c.optim.lr_batch}" if c.optim.lr_batch else ""
    return f"{OPTIMISERS[c.optim.kind]} at {c.optim.lr:g}{scaled}"


def _training(opened: Exporting) -> str:
    c = opened.run.config
    rows = read_metrics(opened.run.path)
    steps = rows[-1]["step"] if rows else 0
    lines = [
        f"- {steps} steps, global batch {c.global_batch}, {c.precision}, seed {c.seed}, {_optimiser(c)}",
        *(f"- {k}: `{json.dumps(v)}`" for k, v in shown_options(opened.options).items()),
        f"- versions: {', '.join(f'{k} {v}' for k, v in opened.card['versions'].items())}",
    ]
    return "## Training\n\n" + "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------------- results


def _asked(r: dict[str, Any]) -> str:
    """The task, and on whose cases where they are not the run's own test split."""
    return str(r["task"]) + (f" on {r['external']['name']}" if r.get("external") else "")


def read_results(paths: Sequence[Path], sha256: str) -> list[dict[str, Any]]:
    """The results in these files, or in all result.json below these folders.

    Raises:
        UserError: all files that are missing, not results, or results of other weights than those with this SHA-256.
    """
    problems, found = [], []
    for path in paths:
        files = sorted(path.rglob("result.json")) if path.is_dir() else [path]
        if not files:
            problems.append(f"--results {path}: no result.json below it; give a fine-tune's out=FOLDER")
        for file in files:
            result = _result(file, problems)
            if result is None:
                continue
            other = result["init"].get("sha256")
            if other != sha256:
                start = f"weights {other[:12]}" if other else result["init"].get("kind", "other weights")
                problems.append(
                    f"--results {file}: it started from {start}, not from this run's {sha256[:12]}; leave it out"
                )
            found.append(result)
    if problems:
        raise UserError(problems)
    return found


def _result(file: Path, problems: list[str]) -> dict[str, Any] | None:
    needed = ("task", "mode", "init", "metrics", "primary", "n", "seeds")
    try:
        result = json.loads(file.read_bytes())
    except (OSError, ValueError) as e:
        problems.append(f"--results {file}: cannot be read ({e}); give a fine-tune's result.json")
        return None
    if not isinstance(result, dict) or (missing := [n for n in needed if n not in result]):
        lacks = f"it lacks {', '.join(missing)}" if isinstance(result, dict) else "it is no object"
        problems.append(f"--results {file}: not a result ({lacks}); give a fine-tune's result.json")
        return None
    return result
