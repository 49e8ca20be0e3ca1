"""Baselines of a sweep: for every task and amount of labels among its points a few runs that cost little and stand beside them in tables.

    baselines: false                          # none
    baselines: {clinical: [age, sex]}         # also the columns of that name alone

OUT/baselines/NAME holds them. They are fine-tunes like the points: the same splits, intervals and leak checks, features in one cache.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from trainer.config import yaml_text
from trainer.config.files import CONFIGS
from trainer.config.shared import Section
from trainer.sweep.points import Point, Sweep, safe_name

FOLDER = "baselines"
NETWORKS = CONFIGS / "baselines.yaml"
Side = Literal["patches", "image"]
OF_SYSTEM = ("--method", "--init", "--mode", "--recipe")
"""Flags, with a value, that say which system is run: another's are a baseline's."""
NOT_SHARED = (
    "method.",
    "encoder.",
    "vit.",
    "resnet.",
    "output.",
    "augment.",
    "zero.",
    "inputs=",
    "controls=",
    "recipe=",
    "image_size=",
)
OF_LABELS = ("protocol.fraction=", "protocol.shots=", "protocol.draw=", "protocol.seeds=")
"""The part of `protocol` that a probe shares; a network that is trained shares all but what is said of an encoder that is there."""
OF_ENCODER = ("protocol.freeze", "protocol.thaw_lr=", "protocol.layer_decay=", "protocol.encoder_lr_scale=")
WORDS = "bag_of_words"
PROBE = ("--init", "scratch", "--mode", "linear")


class Baselines(Section):
    clinical: tuple[str, ...] = ()
    """Labels, or array fields of one axis, that are read alone, by name; they must not hold the answer of a task."""


def beside(sweep: Sweep, kind_of: Callable[[str], str]) -> Sweep:
    """The baselines that a sweep's file asks for; none where it asks for none.

    Args:
        kind_of: the kind of a task, by its name or file.
    """
    if sweep.baselines is None:
        return replace(sweep, points=())
    kinds = {p.name: kind_of(task) if (task := _flag(p, "--task")) else "" for p in sweep.points}
    masks, retrieval = ({name for name, kind in kinds.items() if kind == of} for of in ("segmentation", "retrieval"))
    return baselines_of(sweep, sweep.baselines, {m: side_of(m) for m in sweep.methods()}, masks, retrieval)


def side_of(method: str) -> Side:
    """What a baseline beside the method reads."""
    from models.registry import places

    place = places().get(method)
    return "patches" if place is not None and place.family == "slides" else "image"


def baselines_of(
    sweep: Sweep,
    asked: Baselines,
    side: Mapping[str, Side],
    masks: Collection[str] = (),
    retrieval: Collection[str] = (),
) -> Sweep:
    """The baselines of a sweep's points, as a sweep of its own.

    Args:
        asked: what its file says.
        side: {method: what it reads} of the methods whose tasks have baselines.
        masks: names of the points whose tasks ask for masks: they have a network beside them, and no probe.
        retrieval: of those whose tasks ask for reports of images: nothing stands beside them that needs a label.
    """
    runs: dict[tuple[str, ...], str] = {}
    for point in sweep.points:
        reads = side.get(_flag(point, "--method"))
        if reads is None:
            continue
        drawn, sought = point.name in masks, point.name in retrieval
        spoken = sought or _flag(point, "--mode") == "zeroshot"
        for name, words in [
            *(_words(point) if spoken and reads == "image" else []),
            *([] if drawn or sought else _probes(point, asked, reads)),
            *([] if spoken else _network(point, "masks" if drawn else reads, sweep.of_methods)),
        ]:
            runs.setdefault(words, name)
    names = _unique(list(runs.values()))
    points = tuple(_point(i, n, w) for i, (n, w) in enumerate(zip(names, runs, strict=True)))
    return replace(
        sweep, command="finetune", out=sweep.out / FOLDER, points=points, first=None, starts={}, rows={}, columns={}, instead={}
    )  # fmt: skip


Found = Iterator[tuple[str, tuple[str, ...]]]
"""(name, words) of baselines."""


def _words(point: Point) -> Found:
    """Words by an image's brightness, for points that compare images with words."""
    words = (w for w in _shared(point.words) if not w.startswith("protocol.") or w.startswith("protocol.seeds="))
    yield f"{_flag(point, '--task')}-{WORDS}", ("--method", WORDS, "--init", "scratch", "--mode", "zeroshot", *words)


def _probes(point: Point, asked: Baselines, reads: Side) -> Found:
    """Probes of what is measured, without a weight, on a point's task."""
    task = _flag(point, "--task")
    labels = tuple(
        w
        for w in _shared(point.words)
        if not w.startswith("prompts=") and (not w.startswith("protocol.") or w.startswith(OF_LABELS))
    )
    yield f"{task}-mean_features", ("--method", "mean_features", *PROBE, f"method.reads={reads}", *labels)
    if asked.clinical:
        columns = f"method.columns=[{', '.join(asked.clinical)}]"
        yield f"{task}-clinical", ("--method", "clinical", *PROBE, columns, f"method.reads={reads}", *labels)


def _network(point: Point, of: str, of_methods: str | None) -> Found:
    """The small network from nothing, under a point's protocol; none beside itself.

    A row that starts from a run names no recipe, the run has it; the network is of the table's recipe beside it all the same.
    """
    small, *sizes = network_of(of)
    if _flag(point, "--method") == small:
        return
    recipe = tuple(w for pair in pairwise(point.words) if pair[0] == "--recipe" for w in pair)
    recipe = recipe or (("--recipe", of_methods) if of_methods else ())
    shared = tuple(w for w in _shared(point.words) if not w.startswith(OF_ENCODER))
    yield f"{_flag(point, '--task')}-{small}", ("--method", small, "--init", "scratch", *recipe, *sizes, *shared)


def network_of(side: str) -> tuple[str, ...]:
    """The small network beside systems that read patches or images, or draw masks, and the words that give its size."""
    return tuple(yaml_text.read(NETWORKS)[side])


def _shared(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a point that say what is measured on what, not of which system."""
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in OF_SYSTEM:
            skip = True
        elif word != "--random" and not word.startswith(NOT_SHARED):
            kept.append(f"protocol.{word}" if word.startswith("seeds=") else word)
    return tuple(kept)


def _flag(point: Point, flag: str) -> str:
    return next((w for f, w in pairwise(point.words) if f == flag), "")


def _unique(names: Sequence[str]) -> list[str]:
    """Names of folders: of several alike the second and on have a number."""
    seen: dict[str, int] = {}
    out = []
    for name in map(safe_name, names):
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return out


def _point(index: int, name: str, words: tuple[str, ...]) -> Point:
    return Point(index, name, {"baseline": name}, words)
