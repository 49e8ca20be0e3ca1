"""Files that a method reads beside its data set, as typed options: a field of the type `Asset` names one, in whatever group it stands.

What such a file holds decides the result, and where it lies does not: a run keeps its SHA-256, an export its content.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel

from models.contract.explain import groups_of
from models.contract.renames import copied, place_of

_ASSET, DIGEST = "asset", "sha256:"
"""What marks such a field, and how the digest of a file begins where it stands in the file's place."""


def _is_file(path: str | None) -> str | None:
    if path is not None and not path.startswith(DIGEST) and not Path(path).is_file():
        raise ValueError(f"no such file from {Path.cwd()}; give a file that is there, by its whole path")
    return path


Asset = Annotated[str | None, _ASSET, AfterValidator(_is_file)]


def asset_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of the options that name assets."""
    for name, info in model.model_fields.items():
        if _ASSET in info.metadata:
            yield prefix + name
        for group in groups_of(model, name):
            yield from asset_keys(group, f"{prefix}{name}.")


def assets(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, str]:
    """{dotted name: file} of those that are given."""
    found, values = {}, copied(options)
    for key in dict.fromkeys(asset_keys(model)):
        place, name = place_of(values, key)
        if place and place.get(name):
            found[key] = str(place[name])
    return found


def with_assets(model: type[BaseModel], options: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The options with other words for files: where a copy lies, or a digest."""
    values = copied(options)
    for key in assets(model, options):
        place, name = place_of(values, key)
        if place is not None and key in files:
            place[name] = files[key]
    return values


def asset_digests(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, str]:
    """{dotted name: SHA-256} of the assets that are given."""
    return {k: sha256_of(path) for k, path in assets(model, options).items()}


def hashed(model: type[BaseModel], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with what assets hold in place of where they lie: they may move."""
    return with_assets(model, options, {k: f"{DIGEST}{v}" for k, v in asset_digests(model, options).items()})


def copy_assets(model: type[BaseModel], options: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """Copies the files into a folder under the options' names; returns {dotted name: name of the copy}."""
    named = {k: f"{k}{Path(path).suffix}" for k, path in assets(model, options).items()}
    for key, path in assets(model, options).items():
        shutil.copyfile(path, folder / named[key])
    return named


def sha256_of(path: str | Path) -> str:
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def asset_problems(
    model: type[BaseModel], options: Mapping[str, Any], kept: Mapping[str, str], whose: str
) -> Iterable[str]:
    """Assets that are gone, or hold something else than what was kept of them."""
    given = assets(model, options)
    for key, sha256 in kept.items():
        path = given.get(key)
        if path is None:
            yield f"method.{key}: {whose} was made with a file (SHA-256 {sha256[:12]}) that its options do not name; restore them"
        elif not Path(path).is_file():
            yield f"method.{key}: {path}: no such file, and {whose} was made with it; bring it back (SHA-256 {sha256[:12]})"
        elif (now := sha256_of(path)) != sha256:
            yield f"method.{key}: {path} holds something else (SHA-256 {now[:12]}) than {whose} was made with ({sha256[:12]}); restore it"
