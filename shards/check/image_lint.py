"""What lint says of images and masks: what the files are, against what dataset.json says that they mean.

Data sets that were packed before meanings were stored lack some words here; each line says what that costs and how to add them.
"""

from __future__ import annotations

from collections.abc import Iterator

from shards.errors import Problem
from shards.format.image_tally import DEPTHS, ImageTally, Seen
from shards.format.images import is_mask
from shards.format.info import DatasetInfo, FieldInfo

STATE = "python -m shards meaning DIR"


def image_problems(info: DatasetInfo, tally: ImageTally) -> tuple[list[Problem], list[Problem]]:
    """Problems and warnings of all fields with images, after every file was looked at."""
    settled = tally.settle()
    problems, warnings = list(settled.problems), list(settled.warnings)
    for name, seen in tally.seen.items():
        field = info.fields[name]
        problems += _problems(name, field, seen, settled.meanings.get(name, {}))
        warnings += _warnings(name, field, seen)
    return problems, warnings


def _problems(name: str, field: FieldInfo, seen: Seen, found: dict[str, str]) -> Iterator[Problem]:
    where, largest = f"field '{name}'", int(seen.values.max(initial=0))
    if seen.deep and "bits" not in field.meaning and not is_mask(name):
        bits = next(b for b in DEPTHS if largest < 1 << b)
        what = f"{seen.deep} images have 16 bits, the largest value is {largest:,}, and dataset.json does not say how many bits are used"
        yield Problem(what, where, f"{STATE} {name}.bits={bits} if that is right; until then no method reads them")
    known = field.meaning.get("values")
    if known is not None and found.get("values", known) != known:
        yield Problem(
            f"holds the values {found['values']}, dataset.json says {known}",
            where,
            "run `python -m shards index` on the folder",
        )


def _warnings(name: str, field: FieldInfo, seen: Seen) -> Iterator[Problem]:
    where = f"field '{name}'"
    if seen.turned and "orientation" not in field.meaning:
        what = f"{len(seen.turned)} files carry an EXIF orientation (such as {', '.join(seen.turned[:3])}), and are read as stored"
        fix = f"run `python -m shards index` on the folder to have them turned, or {STATE} {name}.orientation=stored if this is meant"
        yield Problem(what, where, fix)
    if not is_mask(name) or "values" in field.meaning:
        return
    if seen.opaque:
        what = f"{seen.opaque} masks have a channel of opacity, which earlier versions took for the object"
        yield Problem(what, where, "repeat what was measured on them; they are read by their colours now")
    if seen.narrow:
        what = f"{seen.narrow} masks are greys of 2 or 4 bits, which earlier versions read as multiples of 85 or 17"
        yield Problem(what, where, "adapt mask_values of your tasks: they are read as the numbers in the file now")
