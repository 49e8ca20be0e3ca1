"""A finished run, or what a fine-tune made of it, as a folder for others: its image encoder for plain timm, or the whole method with
what it takes to build it.

--to timm          config.json  model.safetensors  README.md                        timm.create_model("local-dir:DIR", pretrained=True)
--to safetensors   method.json  schema.npz  model.safetensors  README.md    trainer.export.load_exported("DIR")
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file

from models.contract import Method, MethodError, Schema
from models.encoders.positions import grid_text
from models.parts import add_parts
from models.registry import get_method
from models.weights import load_strict, weights_bytes
from trainer.errors import UserError
from trainer.export_result import Tuned, open_tuned
from trainer.state.files import digest, sync, write_atomic
from trainer.state.finished import Finished, open_run, read_schema, schema_bytes

To = Literal["timm", "safetensors"]
FORMAT = "medpair-export/1"
CARD, WEIGHTS = "README.md", "model.safetensors"
# Options that say where first weights come from: a trained method does not need those files any more.
START = ("init", "init_file", "weights")


@dataclass
class Exporting:
    """A finished pre-training run, with its method built and filled, in its deployed form; `tuned` if a fine-tune went on from it."""

    run: Finished
    method: Method
    card: dict[str, Any]
    sha256: str
    tuned: Tuned | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        return self.tuned.options if self.tuned else self.run.options

    @property
    def name(self) -> str:
        return self.run.method_name

    @property
    def licences(self) -> list[str]:
        """Of the data sets, each once; `not stated` where one says nothing."""
        found = sorted({d["licence"] or "not stated" for d in self.sets}) or ["not recorded"]
        return [*found, "not recorded for the fine-tune's data"] if self.tuned else found

    @property
    def sets(self) -> list[dict[str, Any]]:
        return self.card["data"].get("sets", [])


# ----------------------------------------------------------------------------------------------------------------- reading


def open_finished(out: Path) -> Exporting:
    """Opens a finished run, or a fine-tune of one; its data set is not needed.

    Raises:
        UserError: neither, or an unfinished one.
        MethodError: weights that cannot be read or are of another method.
    """
    if not out.is_dir():
        raise UserError(f"{out}: no such folder; give the out=FOLDER of a pre-training run, or of a fine-tune")
    if (out / "result.json").is_file():
        tuned = open_tuned(out)
        run, parts = tuned.run, tuned.parts
        method = built(run.method_name, tuned.options, run.schema, tuned.weights, parts, "encoder.")
        return Exporting(run, method, _json(run.path / "method.json"), tuned.sha256, tuned)
    run = open_run(out)
    method = built(run.method_name, run.options, run.schema, run.weights)
    return Exporting(run, method, _json(out / "method.json"), run.sha256())


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}); restore the file") from e
    if not isinstance(content, dict):
        raise UserError(f"{path}: not an object; restore the file")
    return content


def built(
    name: str,
    options: Mapping[str, Any],
    schema: Schema,
    weights: Path,
    parts: Mapping[str, Any] | None = None,
    prefix: str = "",
) -> Method:
    """The method in its deployed form with these weights, in eval mode.

    Args:
        parts: how a fine-tune changed the image transformer (arguments of `models.parts.add_parts`).
        prefix: take the weights whose names start so, and only those.

    Raises:
        MethodError: options, schema and weights that do not belong together, or a damaged file.
    """
    cls = get_method(name)
    method = cls(cls.Options.parse({k: v for k, v in cls.Options.stored(options).items() if k not in START}), schema)
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as e:
        raise MethodError([f"{weights}: not a readable safetensors file ({e}); restore it"]) from e
    if parts:
        add_parts(method, **parts)
    state = {n.removeprefix(prefix): w for n, w in state.items() if n.startswith(prefix)}
    load_strict(method, state, str(weights))
    method.enter("")
    return method.eval()


# ----------------------------------------------------------------------------------------------------------------- writing


def export(run: Path, to: To, out: Path | None = None, results: Sequence[Path] = ()) -> tuple[Path, str]:
    """Writes the export of a finished run; its folder (RUN/export/TO by default) and what was checked, in a sentence.

    The folder is complete or not there. An export of the same weights that stands there already stays, and gets the model card of
    today. results: result files (or folders of them) of fine-tunes that started from this run.

    Raises:
        UserError: not a finished run; a method without an image transformer (timm); a folder with anything else in it; foreign results.
    """
    from trainer.export_card import read_results

    folder = out or run / "export" / to
    stands = folder.exists()
    if stands and not all((folder / name).is_file() for name in (CARD, WEIGHTS)):
        raise UserError(f"{folder} exists and is no export: give another --out")
    opened = open_finished(run)
    if to == "timm" and (opened.method.tower() is None or opened.method.image_view() is None):
        raise UserError(
            f"{run}: {opened.name} has no image transformer that timm knows (it reads {', '.join(opened.method.inputs)}); "
            "--to safetensors gives all of its encoder"
        )
    # A fine-tune's own result is measured on these very weights; others started from the same run.
    own = [run / "result.json"] if opened.tuned else []
    found = read_results([*own, *results], opened.run.sha256())
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        tmp = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as e:
        raise UserError(f"{folder}: cannot be written ({e.strerror}); give another --out") from e
    try:
        said = _write(opened, to, tmp, found)
        if stands:
            said = _compare(tmp, folder, opened)
        else:
            _publish(tmp, folder)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return folder, said


def _write(opened: Exporting, to: To, tmp: Path, results: Sequence[dict[str, Any]]) -> str:
    from trainer.export_card import model_card

    if to == "timm":
        from trainer.export_timm import write_timm

        said = write_timm(opened, tmp)
    else:
        said = _write_method(opened, tmp)
    write_atomic(tmp / CARD, model_card(opened, to, said, results).encode())
    return said


def _compare(tmp: Path, folder: Path, opened: Exporting) -> str:
    """What is said of an export that stands where the new one `tmp` was to go: the same, but for its card, which is renewed.

    Raises:
        UserError: of other weights, or with files changed, missing or added.
    """
    old, new = (
        {p.relative_to(f).as_posix(): digest(p)["sha256"] for p in f.rglob("*") if p.is_file()} for f in (folder, tmp)
    )
    if old[WEIGHTS] != new[WEIGHTS]:
        raise UserError(
            f"{folder} holds an export of other weights than those of the run (SHA-256 {opened.sha256[:12]}): "
            "remove it, or give another --out"
        )
    odd = sorted(n for n in {*old, *new} - {CARD} if old.get(n) != new.get(n))
    if odd:
        raise UserError(
            f"{folder} holds an export of these weights in which {', '.join(odd[:5])} is not what would be written now: "
            "remove it, or give another --out"
        )
    if old[CARD] == new[CARD]:
        return "the export of these weights stands there already, whole: nothing was written"
    write_atomic(folder / CARD, (tmp / CARD).read_bytes())
    return "the export of these weights stands there already, whole: only its model card was written anew"


def _publish(tmp: Path, folder: Path) -> None:
    os.chmod(tmp, 0o755)
    for path in tmp.rglob("*"):
        os.chmod(path, 0o755 if path.is_dir() else 0o644)
        sync(path)
    os.rename(tmp, folder)
    sync(folder.parent)


def provenance(opened: Exporting) -> dict[str, Any]:
    """What the weights are, in plain data: nothing of the machine they were trained on."""
    return {
        "format": FORMAT,
        "method": opened.name,
        "paper": opened.method.paper,
        "options": shown_options(opened.options),
        **({"finetuned": opened.tuned.plain(), "encoder": opened.tuned.parts} if opened.tuned else {}),
        "data": {"fingerprint": opened.run.fingerprint, "split": opened.run.config.data.split, "sets": opened.sets},
        "weights_sha256": opened.sha256,
        "versions": opened.card["versions"],
    }


def shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the names of files instead of their paths."""
    return {k: Path(v).name if isinstance(v, str) and ("/" in v or "\\" in v) else v for k, v in options.items()}


def _write_method(opened: Exporting, tmp: Path) -> str:
    method, card = opened.method, provenance(opened)
    write_atomic(tmp / "model.safetensors", weights_bytes(method.state_dict(), grid_text(method)))
    if tokenizer := opened.options.get("tokenizer"):
        card["options"]["tokenizer"] = f"tokenizer{Path(tokenizer).suffix}"
        shutil.copyfile(tokenizer, tmp / card["options"]["tokenizer"])
    write_atomic(tmp / "schema.npz", schema_bytes(method.schema))
    write_atomic(tmp / "method.json", json.dumps(card, indent=1).encode())
    again = load_exported(tmp).state_dict()
    assert all(v.equal(again[k]) for k, v in method.state_dict().items()), "what was written is not what was read"
    return f"built again from the folder alone: all {len(again)} tensors are equal"


# ----------------------------------------------------------------------------------------------------------- loading again


def load_exported(folder: str | Path) -> Method:
    """The method of an `--to safetensors` export in its deployed form (`encode`), without its data set.

    Raises:
        UserError: no such export.
        MethodError: weights that are not the card's.
    """
    folder = Path(folder)
    if not (folder / "method.json").is_file() or not (folder / "model.safetensors").is_file():
        raise UserError(f"{folder} holds no export of a method; make one with launch/export.py RUN --to safetensors")
    card = _json(folder / "method.json")
    if card.get("format") != FORMAT:
        raise UserError(f"{folder}/method.json is not of the format {FORMAT}; export the run again")
    options = dict(card["options"])
    if options.get("tokenizer"):
        options["tokenizer"] = str(folder / options["tokenizer"])
    return built(
        card["method"], options, read_schema(folder / "schema.npz"), folder / "model.safetensors", card.get("encoder")
    )
