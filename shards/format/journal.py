"""The book of a staging folder: which shards are whole, with what was seen of their samples, so that a killed `pack` goes on after them.

    .NAME.packing/begun/packing.json       digests of what is packed and how; another one of them, and nothing is taken over
    .NAME.packing/begun/shard-000000.json  written when the shard is whole on disk: its hashes, and counts over its samples

Counts are of whole chunks, so the last samples of the last finished shard may have to be looked at again, which is done without writing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shards.format.describe import FieldTally
from shards.format.image_tally import ImageTally
from shards.format.info import ShardInfo, index_path, sha256_of, write_atomic

FOLDER = "begun"


@dataclass
class Done:
    """What need not be done again: the first `samples` are in `shards`, and the first `tallied` of them are counted."""

    shards: list[ShardInfo] = field(default_factory=list)
    samples: int = 0
    tallied: int = 0
    fields: FieldTally = field(default_factory=FieldTally)
    images: ImageTally = field(default_factory=ImageTally)


class Journal:
    """Keeps a staging folder's book while it is packed."""

    def __init__(self, staging: Path, digests: Mapping[str, str]):
        self.folder, self.digests = staging / FOLDER, dict(digests)
        self.tallied = 0
        self.fields, self.images = FieldTally(), ImageTally()

    def begin(self) -> None:
        self.folder.mkdir()
        write_atomic(self.folder / "packing.json", json.dumps(self.digests, indent=1).encode())

    def end(self) -> None:
        shutil.rmtree(self.folder)

    def changed(self) -> list[str] | None:
        """Names of the digests that differ from those of the folder; None where it is no folder that was begun."""
        try:
            before = json.loads((self.folder / "packing.json").read_bytes())
            return [n for n, d in self.digests.items() if before.get(n) != d]
        except (OSError, ValueError, AttributeError):
            return None

    def counted(self, stop: int, fields: FieldTally, images: ImageTally) -> None:
        """What was seen of the samples up to `stop`, all of which the writer has taken."""
        self.fields.merge(fields)
        self.images.merge(images)
        self.tallied = stop

    def shard(self, info: ShardInfo, samples: int) -> None:
        """A shard is whole on disk; it ends with the sample before `samples`."""
        page = {
            "shard": info.model_dump(mode="json"),
            "samples": samples,
            "tallied": self.tallied,
            "fields": self.fields.dump(),
            "images": self.images.dump(),
        }
        write_atomic(self._page(info.name), json.dumps(page).encode())
        self.fields, self.images = FieldTally(), ImageTally()

    def _page(self, shard: str) -> Path:
        return self.folder / f"{Path(shard).stem}.json"

    def found(self) -> Done:
        """The shards of a folder that are whole, from the first on; everything after them is removed."""
        done, staging = Done(), self.folder.parent
        while (page := self._read(len(done.shards))) is not None:
            done.shards += page.shards
            done.samples, done.tallied = page.samples, page.tallied
            done.fields.merge(page.fields)
            done.images.merge(page.images)
        shards = [staging / s.name for s in done.shards]
        _keep(staging, {self.folder, *shards, *map(index_path, shards)})
        _keep(self.folder, {self.folder / "packing.json", *(self._page(s.name) for s in done.shards)})
        self.tallied = done.tallied
        return done

    def _read(self, number: int) -> Done | None:
        """The page of a shard that is as it was written, or None."""
        name = f"shard-{number:06d}.tar"
        path = self.folder.parent / name
        try:
            page = json.loads(self._page(name).read_bytes())
            shard = ShardInfo.model_validate(page["shard"])
            fields, images = FieldTally.load(page["fields"]), ImageTally.load(page["images"])
            if shard.name != name or sha256_of(path) != shard.sha256:
                return None
            if sha256_of(index_path(path)) != shard.index_sha256:
                return None
            return Done([shard], int(page["samples"]), int(page["tallied"]), fields, images)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def _keep(folder: Path, wanted: set[Path]) -> None:
    for path in set(folder.iterdir()) - wanted:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
