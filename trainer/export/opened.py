"""What an export is made of and what becomes of it: a finished run with its method, and the method of an export loaded again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.torch import load_file

from models.contract import Method, MethodError, Schema
from models.contract.assets import asset_problems, assets, with_assets
from models.contract.start_files import without_start_files
from models.encoders.parts import add_parts
from models.init.weights import load_strict
from models.registry import get_method
from shards.untyped import Json
from trainer.errors import UserError
from trainer.export.finetuned import Tuned, open_tuned
from trainer.export.terms import Part, commercial_use
from trainer.state.finished import Finished, open_encoder, read_schema

To = Literal["timm", "safetensors"]
FORMAT = "medpair-export/1"
CARD, WEIGHTS = "README.md", "model.safetensors"


@dataclass
class Exporting:
    """A finished pre-training run, with its method built and filled, in its deployed form; `tuned` if a fine-tune went on from it."""

    run: Finished
    method: Method
    card: dict[str, Any]
    sha256: str
    tuned: Tuned | None = None
    parts: Sequence[Part] = ()
    """What went into the weights, with its terms; settled before anything is written (trainer/export/terms.py)."""

    @property
    def options(self) -> Mapping[str, Any]:
        return self.tuned.options if self.tuned else self.run.options

    @property
    def name(self) -> str:
        return self.run.method_name

    @property
    def licences(self) -> list[str]:
        """Of all that went into the weights, each once."""
        return sorted({p.terms.licence for p in self.parts})

    @property
    def sets(self) -> list[dict[str, Any]]:
        return self.card["data"].get("sets", [])


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
    run = open_encoder(out)
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
        parts: how a fine-tune changed the image transformer (arguments of `models.encoders.parts.add_parts`).
        prefix: take the weights whose names start so, and only those.

    Raises:
        MethodError: options, schema and weights that do not belong together, or a damaged file.
    """
    cls = get_method(name)
    # A trained method does not need the files of its first weights any more.
    method = cls(cls.Options.parse(without_start_files(cls.Options, cls.Options.stored(options))), schema)
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
        "terms": {
            "commercial": commercial_use(opened.parts),
            "parts": [{"kind": p.kind, "name": p.name, **asdict(p.terms)} for p in opened.parts],
        },
        "versions": opened.card["versions"],
    }


def shown_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the names of files instead of their paths, in groups too."""

    def plain(value: Json) -> Json:
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return Path(value).name if isinstance(value, str) and ("/" in value or "\\" in value) else value

    return plain(dict(options))


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
    cls, options = get_method(card["method"]), dict(card["options"])
    files = assets(cls.Options, options)
    options = with_assets(cls.Options, options, {k: str(folder / name) for k, name in files.items()})
    if wrong := list(asset_problems(cls.Options, options, card.get("assets", {}), "the export")):
        raise MethodError(wrong)
    if "tokenizer" not in files and options.get("tokenizer"):
        options["tokenizer"] = str(folder / options["tokenizer"])
    return built(
        card["method"], options, read_schema(folder / "schema.npz"), folder / "model.safetensors", card.get("encoder")
    )
