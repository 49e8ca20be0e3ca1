"""A finished run, or what a fine-tune made of it, as a folder for others: its image encoder for plain timm, or the whole method with
what it takes to build it.

--to timm         config.json  preprocessor_config.json  model.safetensors  README.md  timm.create_model("local-dir:DIR", pretrained=True)
--to safetensors   method.json  schema.npz  model.safetensors  README.md    trainer.export.load_exported("DIR")
                   of a fine-tune also head.json  head.safetensors          trainer.export.load_tuned("DIR")
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from models.contract.assets import asset_digests, copy_assets, with_assets
from models.init.grids import grid_text
from models.init.weights import weights_bytes
from trainer.errors import UserError
from trainer.export.card import model_card, read_results
from trainer.export.head import write_head
from trainer.export.opened import CARD, WEIGHTS, Exporting, To, load_exported, open_finished, provenance
from trainer.export.terms import Stated, settled
from trainer.export.timm import exported, write_timm
from trainer.state.files import digest, sync, write_atomic
from trainer.state.finished import schema_bytes

A = TypeVar("A")
B = TypeVar("B")
NOTHING = Stated()


def export(
    run: Path, to: To, out: Path | None = None, results: Sequence[Path] = (), stated: Stated = NOTHING
) -> tuple[Path, str]:
    """Writes the export of a finished run; its folder (RUN/export/TO by default) and what was checked, in a sentence.

    The folder is complete or not there. An export of the same weights that stands there already stays, and gets the model card of
    today. results: result files (or folders of them) of fine-tunes that started from this run. stated: terms of what went into the weights,
    in addition to what the run knows of them.

    Raises:
        UserError: not a finished run; a method whose encoder timm lacks; a folder with anything else in it; foreign results; a part
            of which licence, commercial use or citation is not known.
    """
    folder = out or run / "export" / to
    stands = folder.exists()
    if stands and not all((folder / name).is_file() for name in (CARD, WEIGHTS)):
        raise UserError(f"{folder} exists and is no export: give another --out")
    opened = open_finished(run)
    if to == "timm" and exported(opened.method) is None:
        raise UserError(
            f"{run}: {opened.name} has no image encoder that timm knows (it reads {', '.join(opened.method.inputs)}); "
            "--to safetensors gives all of its encoder"
        )
    # A fine-tune's own result is measured on these very weights; others started from the same run.
    own = [run / "result.json"] if opened.tuned else []
    opened.parts, found = _both(
        lambda: settled(opened, stated), lambda: read_results([*own, *results], opened.run.sha256())
    )
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


def _both(first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
    """What both give; what is wrong with either is told together."""
    try:
        a = first()
    except UserError as e:
        try:
            second()
        except UserError as other:
            raise UserError([*e.problems, *other.problems]) from e
        raise
    return a, second()


def _write(opened: Exporting, to: To, tmp: Path, results: Sequence[dict[str, Any]]) -> str:
    if to == "timm":
        said = write_timm(opened, tmp)
    else:
        said = _write_method(opened, tmp)
        if opened.tuned:
            head = write_head(opened.tuned.path, opened.tuned.plain()["seed"], opened.tuned.weights, tmp)
            said += f"; {head}"
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


def _write_method(opened: Exporting, tmp: Path) -> str:
    method, card = opened.method, provenance(opened)
    write_atomic(tmp / "model.safetensors", weights_bytes(method.state_dict(), grid_text(method)))
    named = copy_assets(type(method).Options, opened.options, tmp)
    card["options"] = with_assets(type(method).Options, card["options"], named)
    card["assets"] = asset_digests(type(method).Options, opened.options)
    if "tokenizer" not in named and (tokenizer := opened.options.get("tokenizer")):
        card["options"]["tokenizer"] = f"tokenizer{Path(tokenizer).suffix}"
        shutil.copyfile(tokenizer, tmp / card["options"]["tokenizer"])
    write_atomic(tmp / "schema.npz", schema_bytes(method.schema))
    write_atomic(tmp / "method.json", json.dumps(card, indent=1).encode())
    again = load_exported(tmp).state_dict()
    assert all(v.equal(again[k]) for k, v in method.state_dict().items()), "what was written is not what was read"
    return f"built again from the folder alone: all {len(again)} tensors are equal"
