"""Packing by chunks of samples: what a worker process makes of one, laid out as it will stand in a tar, and how chunks are cut.

Bytes go to the writing process through memory that both see (`Slots`), counts and problems by pickle. A chunk is a few samples of a few
megabytes, or one large sample, so memory depends on the number of processes and on the largest sample, not on the number of samples.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from shards.errors import Problem
from shards.format.describe import FieldTally, header_of
from shards.format.image_tally import FEW_LEVELS, ImageTally, Seen
from shards.format.jpeg_codes import why_not_quick
from shards.pack.manifest import Entry
from shards.pack.options import PackOptions
from shards.pack.plan import PackPlan
from shards.pack.reference import Reader
from shards.pack.sample import members_of
from shards.pack.write import Laid, lay

CHUNK_BYTES = 4 << 20
"""Of files that are read before they are written: few enough to be in the processor's cache still."""
CHUNK_SAMPLES = 64
BY_CODES = 32 << 20
"""Bytes of JPEGs that are worth loading the reader of their codes (shards/format/jpeg_codes.py).

It takes 0.03 s and 30 MB, once for all processes; as many bytes of grey ones, looked at by decoding, would have each process load
numba (shards/format/jpeg_own.py), 0.6 s and 160 MB.
"""
SLOT_BYTES = 10 << 20
"""Of a chunk, with headers, padding, and what conversion adds; or of one large sample."""


@dataclass(frozen=True)
class Chunk:
    """Samples `first` to `stop` of the manifest; `slot`: where their bytes go."""

    first: int
    stop: int
    slot: int


@dataclass
class Packed:
    """What became of a chunk: its samples in order, as far as nothing was wrong, and what was seen of them."""

    chunk: Chunk
    samples: list[Laid] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    fields: FieldTally = field(default_factory=FieldTally)
    images: ImageTally = field(default_factory=ImageTally)


class Slots:
    """Memory that this process shares with those that it forks later."""

    def __init__(self, count: int):
        self._slots = [mmap.mmap(-1, SLOT_BYTES) for _ in range(count)]

    def take(self, slot: int, at: int, laid: Laid) -> tuple[Laid, int]:
        """Puts a sample's bytes into a slot from byte `at` on; the sample with its place in place of its bytes, and where it ends.

        A sample that has no room there keeps its bytes.
        """
        if at + laid.size > SLOT_BYTES:
            return Laid(laid.key, laid.places, laid.size, (b"".join(laid.parts),)), at
        view, end = self._slots[slot], at
        for part in laid.parts:
            view[end : end + len(part)] = part
            end += len(part)
        return Laid(laid.key, laid.places, laid.size, (), at), end

    def give(self, slot: int, laid: Laid) -> Laid:
        """The sample with its bytes again."""
        if laid.at is None:
            return laid
        view = memoryview(self._slots[slot])[laid.at : laid.at + laid.size]
        return Laid(laid.key, laid.places, laid.size, (view,))


class Packer:
    """Makes chunks; one object that is shared by all processes, each of which opens files of its own."""

    def __init__(
        self, entries: Sequence[Entry], reader: Reader, plan: PackPlan, options: PackOptions, slots: Slots | None
    ):
        self.entries, self.reader, self.plan, self.options, self.slots = entries, reader, plan, options, slots
        # Loaded here, before workers are forked; of less its loading takes longer than it saves.
        why_not = why_not_quick() if plan.files.jpeg_bytes >= BY_CODES else None
        self._by_codes = why_not == ""
        self.said = "" if why_not is None else how_checked(why_not)
        """Which way JPEGs are looked at, where there is a choice."""
        self._bright = dict[str, int]()
        """Of fields that a former chunk of this process has shown to be bright enough, the largest value that it saw."""

    def __call__(self, chunk: Chunk) -> Packed:
        done = Packed(chunk, images=self._tally())
        at = 0
        for entry in self.entries[chunk.first : chunk.stop]:
            members = members_of(entry, self.reader, self.plan, self.options, done.images, done.problems)
            if done.problems or self.plan.problems:
                continue  # nothing will be written, but everything is looked at
            for (name, ext), data in members.items():
                head = header_of(name, ext, data, done.images.turned(name))
                done.fields.add(entry.sample, name, ext, head)
            laid = lay(entry.sample, members)
            if self.slots is not None:
                laid, at = self.slots.take(chunk.slot, at, laid)
            done.samples.append(laid)
        self._bright |= {n: s.largest for n, s in done.images.seen.items() if s.largest >= FEW_LEVELS}
        return done

    def _tally(self) -> ImageTally:
        tally = ImageTally(self.options.meanings, self.options.keep_orientation, self._by_codes)
        tally.seen = {name: Seen(largest=largest) for name, largest in self._bright.items()}
        return tally


def how_checked(why_not: str) -> str:
    """Which way `pack` sees that JPEGs are whole, and why; `why_not`: of `jpeg_codes.why_not_quick`."""
    if why_not:
        return f"JPEGs that stay as they are are decoded to see that they are whole: {why_not}"
    return "JPEGs that stay as they are are seen to be whole by their Huffman codes (numba), without decoding"


def cut(sizes: Sequence[int], first: int, slots: int) -> Iterator[Chunk]:
    """Chunks of all samples from `first` on, by the bytes that are expected of each."""
    number = 0
    while first < len(sizes):
        stop, total = first + 1, sizes[first]
        while stop < len(sizes) and stop - first < CHUNK_SAMPLES and total + sizes[stop] <= CHUNK_BYTES:
            total += sizes[stop]
            stop += 1
        yield Chunk(first, stop, number % slots)
        first, number = stop, number + 1
