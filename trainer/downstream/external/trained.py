"""What a fine-tune keeps of itself, so that its weights are used without the data that it was trained on.

OUT/trained.json   task, method, options, what is asked (of each seed), which weights were chosen and their SHA-256
OUT/schema.npz     the fields that the encoder was built for: shapes, vocabularies, statistics
OUT/patients.txt   digests of the patients that it learned from and chose by, as pre-training keeps them (trainer/state/finished.py)
OUT/contents.npz   size and CRC-32 of their images and bags
OUT/near.npz       what they look like (shards/check/near.py), where it was looked for
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from models.contract import MethodError, TargetSpec
from models.contract.assets import asset_digests, asset_problems
from models.contract.start_files import without_start_files
from models.finetuned import STAGE
from models.registry import get_method
from shards.check.near import Signatures
from shards.read.dataset import Dataset
from trainer.downstream.build import head_parts, widths
from trainer.downstream.init import Init
from trainer.downstream.setting import Setting
from trainer.downstream.targets.label_subset import labelled
from trainer.downstream.targets.read import fitted
from trainer.downstream.task import near
from trainer.downstream.task.sections import Encoder
from trainer.errors import UserError
from trainer.state.files import write_atomic
from trainer.state.finished import (
    CONTENTS,
    Seen,
    codes_bytes,
    listed_patients,
    read_patients,
    read_schema,
    schema_bytes,
)

NAME = "trained.json"
FORMAT = 1
AGAIN = "give the fine-tune's own command again, it finishes at once and writes it"


@dataclass(frozen=True)
class Trained(Seen):
    """A fine-tune as something to use.

    task       as its own file and words said it
    source     its encoder, without weights; `fields` are what it reads
    init       where its weights began, as result.json says
    questions  by seed what is asked: of numbers with the training samples' mean and deviation
    weights    by seed the file that validation chose; none before it is trained
    codes      of images and bags, as contents.npz has them
    horizons   survival: times at which metrics look, of the training split
    """

    path: Path
    task: Mapping[str, Any]
    source: Init
    fields: tuple[str, ...]
    init: Mapping[str, Any]
    questions: Mapping[int, TargetSpec]
    weights: Mapping[int, Path]
    trained_on: frozenset[str]
    validation: frozenset[str]
    by_form: bool
    patients: int
    sources: tuple[tuple[str, str], ...]
    codes: Mapping[str, np.ndarray]
    result: Mapping[str, Any] = field(default_factory=dict)
    horizons: tuple[float, ...] = ()

    def contents(self) -> dict[str, np.ndarray]:
        """As one: a case that the weights were chosen by is no new case."""
        return {"train": np.union1d(self.codes["train"], self.codes["val"]), "val": np.empty(0, np.uint64)}


# ----------------------------------------------------------------------------------------------------------------- written


def of_setting(setting: Setting) -> Trained:
    """A fine-tune before it is trained, for checks: without weights, and with what is asked as far as it is known."""
    known = read_patients(listed_patients(_parts(setting)))
    with np.load(BytesIO(codes_bytes(_parts(setting)))) as arrays:
        codes = {n: arrays[n] for n in ("train", "val")}
    return Trained(
        setting.out, _task(setting), _without_weights(setting.source), setting.fields, setting.init(), _questions(setting), {},
        known.trained_on, known.validation, known.by_form, known.patients, _sources(setting), codes,
        horizons=setting.targets.horizons,
    )  # fmt: skip


def keep(setting: Setting, chosen: Sequence[Mapping[str, Any]], looks: Signatures | None = None) -> None:
    """Writes the files of the module's head; nothing for probes, which have no weights of their own.

    Args:
        chosen: of each seed, as result.json has it.
        looks: what its training and validation cases look like.
    """
    if not setting.finetunes:
        return
    source, cls, out = _without_weights(setting.source), get_method(setting.source.method_name), setting.out
    seeds = [
        {"seed": c["seed"], "weights": (name := weights_name(c["seed"], c["lr"])), "sha256": _sha256(out / name)}
        for c in chosen
    ]
    content = {
        "format": FORMAT,
        "task": _task(setting),
        "method": source.method_name,
        "title": source.title,
        "options": source.options,
        "changes": source.changes,
        "parts": source.parts.model_dump(mode="json"),
        "fields": list(setting.fields),
        "init": setting.init(),
        "assets": asset_digests(cls.Options, source.options),
        "data": _sources(setting),
        "horizons": list(setting.targets.horizons),
        "head": _head(setting),
        "seeds": [{**s, "question": dataclasses.asdict(_questions(setting)[s["seed"]])} for s in seeds],
    }
    write_atomic(out / "schema.npz", schema_bytes(source.schema))
    write_atomic(out / "patients.txt", listed_patients(_parts(setting)).encode())
    write_atomic(out / CONTENTS, codes_bytes(_parts(setting)))
    if looks is not None:
        write_atomic(out / near.NAME, near.to_bytes(looks))
    write_atomic(out / NAME, json.dumps(content, indent=1).encode())


def kept(setting: Setting, chosen: Sequence[Mapping[str, Any]]) -> None:
    """The same for a result that stands: of a version that kept nothing, or whose files are damaged. Weights that are gone are no error."""
    out = setting.out
    there = setting.finetunes and all((out / weights_name(c["seed"], c["lr"])).is_file() for c in chosen)
    if there and not _readable(out):
        keep(setting, chosen)


def _readable(out: Path) -> bool:
    try:
        content = json.loads((out / NAME).read_bytes())
        read_schema(out / "schema.npz")
        (out / "patients.txt").read_text()
        with np.load(out / CONTENTS, allow_pickle=False) as arrays:
            return bool(content["format"] == FORMAT and "head" in content and {"train", "val"} <= set(arrays.files))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):  # UserError is a ValueError
        return False


def weights_name(seed: int, lr: float) -> str:
    return f"seed-{seed}/lr-{lr:g}/stages/{STAGE}.safetensors"


def _task(setting: Setting) -> dict[str, Any]:
    return setting.task.model_dump(mode="json", exclude_unset=True, exclude={"out", "tests"}) | {
        "name": setting.task.name
    }


def _head(setting: Setting) -> dict[str, Any]:
    """How the head is built, so that an export can build it again (trainer/export/head.py)."""
    task, encoder = setting.task, setting.source.build(0)
    encoder.inputs = setting.fields
    first = int(setting.splits[task.data.train][0])
    return {
        "parts": dataclasses.asdict(head_parts(task)),
        "widths": list(widths(setting, encoder, first)),
        "pad": task.pad,
        "masks": [list(m) for m in task.masks] if task.kind == "segmentation" else [],
    }


def _without_weights(source: Init) -> Init:
    """The architecture alone: the weights of the fine-tune hold all that it has learned."""
    options = without_start_files(get_method(source.method_name).Options, source.options)
    return Init(
        source.method_name, options, source.schema, None, False, None, source.parts, source.changes, title=source.title
    )


def _questions(setting: Setting) -> dict[int, TargetSpec]:
    task = setting.task
    train = setting.splits[task.data.train]
    chosen = {s: labelled(task, setting.data, setting.targets, train, s) for s in task.protocol.seeds}
    return {s: fitted(task, setting.targets, at).question for s, at in chosen.items()}


def _parts(setting: Setting) -> list[tuple[str, Dataset, np.ndarray]]:
    names = setting.task.data
    return [("val", setting.data, setting.splits[names.val]), ("train", setting.data, setting.splits[names.train])]


def _sources(setting: Setting) -> tuple[tuple[str, str], ...]:
    return ((str(setting.data.path), setting.data.fingerprint),)


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# -------------------------------------------------------------------------------------------------------------------- read


def open_trained(out: Path) -> Trained:
    """A finished fine-tune.

    Raises:
        UserError: none, a probe, one of before these files were kept, or other weights than were measured.
        MethodError: files that its options name are gone or changed.
    """
    result = _result(out)
    try:
        content = json.loads((out / NAME).read_bytes())
        known = read_patients((out / "patients.txt").read_text())
        with np.load(out / CONTENTS, allow_pickle=False) as arrays:
            codes = {n: arrays[n] for n in ("train", "val")}
        if content["format"] != FORMAT:
            raise UserError(f"{out / NAME}: format {content['format']!r}, this version reads {FORMAT}; {AGAIN}")
        cls = get_method(content["method"])
        questions = {s["seed"]: TargetSpec(**_tuples(s["question"])) for s in content["seeds"]}
        weights = {s["seed"]: out / s["weights"] for s in content["seeds"]}
        told = {s["seed"]: s["sha256"] for s in content["seeds"]}
        source = Init(
            content["method"], cls.Options.stored(content["options"]), read_schema(out / "schema.npz"), None, False, None,
            Encoder.model_validate(content["parts"]), content["changes"], title=content["title"],
        )  # fmt: skip
    except UserError:
        raise
    except FileNotFoundError as e:
        raise UserError(f"{e.filename} is missing, which a fine-tune keeps of itself: {AGAIN}") from e
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as e:
        raise UserError(f"{out / NAME}, or a file beside it: damaged ({e!r}); {AGAIN}") from e
    if gone := list(asset_problems(cls.Options, source.options, content["assets"], "the run")):
        raise MethodError(gone)
    problems = [p for s, path in weights.items() for p in _weights_problems(path, told[s])]
    if problems:
        raise UserError(problems)
    sources = tuple((str(p), str(f)) for p, f in content["data"])
    return Trained(
        out, content["task"], source, tuple(content["fields"]), content["init"], questions, weights,
        known.trained_on, known.validation, known.by_form, known.patients, sources, codes, result, tuple(content["horizons"]),
    )  # fmt: skip


def _result(out: Path) -> dict[str, Any]:
    """The run's result.json.

    Raises:
        UserError: there is none, or one that has no weights.
    """
    if not (out / "result.json").is_file():
        what = "is a run of pre-training, which answers no question: fine-tune it (launch/finetune.py --init RUN)"
        other = "holds no result.json: give the out=FOLDER of a finished fine-tune"
        raise UserError(f"{out} {what if (out / 'weights.safetensors').is_file() else other}")
    try:
        result: dict[str, Any] = json.loads((out / "result.json").read_bytes())
        mode, control, external = result["mode"], result["control"], result.get("external")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{out / 'result.json'}: damaged ({e!r}); restore it, or fine-tune again") from e
    if mode != "finetune" or control or external:
        what = (
            f"a control ({control})" if control else "a result on other data" if external else f"a probe (mode {mode})"
        )
        raise UserError(
            f"{out} is {what}, which has no weights of its own: give a fine-tune (one with protocol.freeze=encoder trains the head alone)"
        )
    return result


def _weights_problems(path: Path, sha256: str) -> list[str]:
    if not path.is_file():
        return [f"{path}: no such file, and the run was measured with it; bring it back, or fine-tune again"]
    if (now := _sha256(path)) != sha256:
        return [
            f"{path} holds other weights (SHA-256 {now[:12]}) than were measured ({sha256[:12]}); restore it, or fine-tune again"
        ]
    return []


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
