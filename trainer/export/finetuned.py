"""A fine-tuned result as something to export: the encoder of its first seed, as the chosen training left it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.finetuned import STAGE
from trainer.errors import UserError
from trainer.state.finished import Finished, open_run

# All keys that an export needs of a result; a folder of another kind lacks some.
NEEDED = ("task", "kind", "mode", "init", "control", "chosen", "hashes", "seeds")


@dataclass(frozen=True)
class Tuned:
    """What a fine-tune made of a run: `options` the method's, as the task changed them; `parts` the task's encoder section."""

    path: Path
    run: Finished
    result: dict[str, Any]
    options: dict[str, Any]
    parts: dict[str, Any] | None
    weights: Path
    data: dict[str, Any]
    """The data set that it was tuned on: name, version, source, terms, fingerprint; of an older result its folder's name alone."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """What it was tuned on, without the names of this machine's files."""
        chosen = self.result["chosen"][0]
        return {
            "task": self.result["task"], "kind": self.result["kind"], "seed": chosen["seed"], "lr": chosen["lr"],
            "data_fingerprint": self.result["hashes"]["data"], "pretrained_sha256": self.result["init"]["sha256"],
        }  # fmt: skip

    def sentence(self) -> str:
        p = self.plain()
        return (
            f"Then fine-tuned on the task {p['task']} ({p['kind']}): seed {p['seed']}, learning rate {p['lr']:g}, the weights of the best "
            f"look at its validation split. It began from `{p['pretrained_sha256']}`."
        )


def open_tuned(out: Path) -> Tuned:
    """The first seed of a result that was fine-tuned from a finished run, which must still be there: schema and cards are its own.

    Raises:
        UserError: a damaged result, one without an encoder of its own, or one whose run is gone or was trained anew.
    """
    try:
        result, stored = (json.loads((out / n).read_bytes()) for n in ("result.json", "config.json"))
        about = stored["config"]["about"]
        options, parts = about["options"], about["task"].get("encoder")
        place = stored["config"].get("data", {})
        data = place.get("set") or {
            "name": Path(place.get("path", "data")).name,
            "fingerprint": result["hashes"]["data"],
        }
        missing = [n for n in NEEDED if n not in result]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{out} holds no whole fine-tuned result ({e!r}); give its own command again") from e
    if missing:
        raise UserError(f"{out}/result.json lacks {', '.join(missing)}; give the fine-tune's own command again")
    init = result["init"]
    if result["mode"] != "finetune" or result["control"] or init["kind"] != "pretrained":
        what = f"control {result['control']}" if result["control"] else f"mode {result['mode']} from {init['kind']}"
        raise UserError(
            f"{out}: {what}: only what was fine-tuned from a run is exported, since the run holds its data's description; "
            "export the run itself, or fine-tune one"
        )
    if not Path(init["path"]).is_dir():
        raise UserError(f"{out} was fine-tuned from {init['path']}, which is not there: bring it back")
    run = open_run(Path(init["path"]))
    if run.sha256() != init["sha256"]:
        raise UserError(f"{init['path']} holds other weights than {out} was fine-tuned from: fine-tune again")
    chosen = result["chosen"][0]
    weights = out / f"seed-{chosen['seed']}" / f"lr-{chosen['lr']:g}" / "stages" / f"{STAGE}.safetensors"
    if not weights.is_file():
        raise UserError(f"{weights} is gone: remove {out} and fine-tune again")
    return Tuned(out, run, result, options, parts, weights, data)
