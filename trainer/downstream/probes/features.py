"""Features of a frozen encoder for every sample of a split, computed once and kept.

Blocks of `batch` samples in the split's order go to the ranks in turn, so a sample meets the same neighbours in its block, padded
to the same length, whatever the world size: 1, 2 and 4 ranks give the same features. They come back in the split's order.

    CACHE/SPLIT-HASH/features.npy    float32 or float16 [N, D]
                     keys.npy        names of the samples [N]
                     about.json      what decided the features; its hash names the folder
                     manifest.json   sizes and hashes of these files, written last

Shape letters: N samples of the split, B samples of a block, W ranks, D width.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from models.contract import Batch, Method
from models.parallel import gather
from shards.load.loader import Loader
from shards.order.plan import Once
from shards.read.dataset import Dataset
from shards.read.subset import Subset
from trainer.data import sampler
from trainer.engine.feed import batches_on_device
from trainer.errors import UserError
from trainer.runtime import Runtime, from_main
from trainer.state import files

T = TypeVar("T")

FORMAT = 1


@dataclass(frozen=True)
class Extracted:
    """x_ND float32 features and keys_N of a split's samples, in its order; `cached` says that no sample was read for them."""

    x_ND: np.ndarray
    keys_N: np.ndarray
    cached: bool


def identity_of(method: Method) -> str:
    """SHA-256 of a method's weights and buffers: names, types, shapes and bytes. Whole weights, not ZeRO-3's parts of them."""
    digest = hashlib.sha256()
    for name, t in sorted(method.state_dict().items()):
        digest.update(f"{name} {t.dtype} {list(t.shape)}\n".encode())
        # As bytes: NumPy has no bfloat16.
        digest.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def extract(
    method: Method,
    data: Dataset,
    split: str | None,
    runtime: Runtime,
    *,
    batch: int,
    workers: int = 2,
    cache: Path | None = None,
    identity: str | None = None,
    store: Literal["float32", "float16"] = "float32",
) -> Extracted:
    """Pooled features of `method.encode` for every sample of a split, once each, on every rank.

    `method.inputs` are the fields it reads. Nothing is masked or augmented; the method is left in its deployed form, in eval
    mode. A bad sample is an error.

    Args:
        split: None for all samples.
        batch: samples a rank encodes at a time.
        cache: folder (of all ranks) in which features are kept; None keeps none.
        identity: hash of the weights, `identity_of(method)` when None. Features in the cache are used again only if this, the
            data's fingerprint, the split, the method with its options, the inputs and `store` are all the same.
        store: float16 halves the memory of the cache; features are rounded to it, also before they are stored.

    Raises:
        UserError: features that are not finite, or too large for float16.
        DataError: a bad sample, or an empty split.
    """
    about = _about(method, data, split, identity or identity_of(method), store)
    folder = cache / _folder_name(about) if cache is not None else None
    if folder is not None and _on_main(runtime, lambda: _usable(folder, about, runtime)):
        x_ND, keys_N = np.load(folder / "features.npy"), np.load(folder / "keys.npy")
        return Extracted(x_ND.astype(np.float32, copy=False), keys_N, True)
    subset = data.subset(split)
    keys_N = np.array(data.keys_of(subset.indices))
    x_ND = finite(encoded(method, data, subset, runtime, batch, workers, _pooled(method)), keys_N, store)
    if folder is not None:
        _on_main(runtime, lambda: _keep(folder, about, x_ND.astype(store, copy=False), keys_N))
    return Extracted(x_ND, keys_N, False)


# ----------------------------------------------------------------------------------------------------------------- encode


def _pooled(method: Method) -> Callable[[Batch], Tensor]:
    return lambda batch: method.encode(batch)["pooled_BD"]


@torch.no_grad()
def encoded(
    method: Method,
    data: Dataset,
    subset: Subset,
    runtime: Runtime,
    batch: int,
    workers: int,
    of: Callable[[Batch], Tensor],
) -> np.ndarray:
    """What `of` makes of the samples, float32 [N, D], in their order, on every rank."""
    method.enter("")
    method.eval()
    W = runtime.world
    batch = min(batch, len(subset))
    plan = Once(subset, batch * W)
    loader = Loader(
        data, plan, sampler(method), method.collate, rank=runtime.rank, world=W, micro_batch=batch, workers=workers
    )
    try:
        parts = [_gathered(of, b, W) for b in batches_on_device(loader.evaluate(), runtime.device)]
    finally:
        loader.close()
    x_ND = torch.cat(parts).numpy()
    assert len(x_ND) == len(subset), f"{len(x_ND)} features for {len(subset)} samples"
    return x_ND


def _gathered(of: Callable[[Batch], Tensor], batch: Batch, world: int) -> Tensor:
    """Features of the samples that count, of all ranks in rank order: of consecutive blocks, so in the split's order."""
    pooled_BD = of(batch).float().contiguous()
    weight_B = batch.weight_B.to(pooled_BD.device)
    if world > 1:
        pooled_BD, weight_B = gather(pooled_BD), gather(weight_B)
    return pooled_BD[weight_B > 0].cpu()


def finite(x_ND: np.ndarray, keys_N: np.ndarray, store: str) -> np.ndarray:
    """What the cache would give back, features in the type `store`; all of them finite.

    Raises:
        UserError: features that are not finite, or not any more in float16.
    """
    with np.errstate(over="ignore"):
        rounded_ND = x_ND.astype(store).astype(np.float32)
    for values_ND, why in (
        (x_ND, "the encoder diverged: take another checkpoint"),
        (rounded_ND, "too large for float16: keep them as float32"),
    ):
        bad_N = ~np.isfinite(values_ND).all(1)
        if bad_N.any():
            raise UserError(f"features of {bad_N.sum()} samples are not finite ('{keys_N[bad_N][0]}', ...); {why}")
    return rounded_ND


# ------------------------------------------------------------------------------------------------------------------ cache


def _about(method: Method, data: Dataset, split: str | None, identity: str, store: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "weights": identity,
        "method": method.name,
        "options": method.options.model_dump(mode="json"),
        "inputs": list(method.inputs),
        "dtype": str(method.dtype).removeprefix("torch."),
        "data": data.fingerprint,
        "split": split,
        "store": store,
    }


def _folder_name(about: dict[str, Any]) -> str:
    text = json.dumps(about, sort_keys=True)
    return f"{about['split'] or 'all'}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def _on_main(runtime: Runtime, make: Callable[[], T]) -> T:
    """`make` on rank 0; its result, or its error, on every rank."""
    return make() if runtime.world == 1 else from_main(make)


def _usable(folder: Path, about: dict[str, Any], runtime: Runtime) -> bool:
    """Whether the features are there, byte for byte, and were made from the same things; says why they are not."""
    if not folder.exists():
        return False
    why = _problem(folder, about)
    if why is not None:
        runtime.say(f"cached features {folder} are not used: {why}; they are computed again")
    return why is None


def _problem(folder: Path, about: dict[str, Any]) -> str | None:
    why = files.problem(folder)
    if why is None and json.loads((folder / "about.json").read_bytes()) != about:
        return "they were made from something else"
    return why


def _keep(folder: Path, about: dict[str, Any], x_ND: np.ndarray, keys_N: np.ndarray) -> None:
    """Writes the folder under a temporary name and renames it. Who comes second to the same features leaves the first's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
        tmp = Path(made) / "features"
        tmp.mkdir()
        np.save(tmp / "features.npy", x_ND, allow_pickle=False)
        np.save(tmp / "keys.npy", keys_N, allow_pickle=False)
        (tmp / "about.json").write_text(json.dumps(about, indent=1, sort_keys=True))
        for path in tmp.iterdir():
            files.sync(path)
        entries = {p.name: files.digest(p) for p in sorted(tmp.iterdir())}
        try:
            if folder.exists() and _problem(folder, about) is not None:
                files.remove(folder)
            files.publish(tmp, folder, entries)
        except OSError:
            if _problem(folder, about) is not None:
                raise
