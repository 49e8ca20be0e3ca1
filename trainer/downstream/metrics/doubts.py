"""What puts a choice or an answer in doubt without being an error: said in a result and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NAMES = {"lr": "learning rate", "weight_decay": "weight decay", "k": "number of neighbours"}
# Where a value cannot go further, to lie at that edge says nothing.
LEAST = {"weight_decay": 0.0, "k": 1}


def doubts(primary: str, chosen: Sequence[Mapping[str, Any]], constant: Sequence[bool]) -> list[str]:
    """Sentences, each with the seeds it is true of.

    Args:
        chosen: what validation chose for each seed, as result.json has it.
        constant: for each seed, whether its answer is the same for all test cases.
    """
    seeds: dict[str, list[str]] = {}
    for c, same in zip(chosen, constant, strict=False):
        for line in _of_seed(primary, c, same):
            seeds.setdefault(line, []).append(str(c["seed"]))
    return [f"seed{'s' * (len(at) > 1)} {', '.join(at)}: {line}" for line, at in seeds.items()]


def _of_seed(primary: str, c: Mapping[str, Any], constant: bool) -> Iterator[str]:
    if constant:
        yield f"one and the same answer for all test cases: {primary} says what the cases are, not what was learned"
    if c.get("flat"):
        yield (
            f"{primary} was {c['val']:.4g} at all {c['looks']} evaluations on the validation split, so it chose nothing; the "
            "one with the smallest loss was taken, of equal ones the last"
        )
    elif c.get("look") == 1 and c.get("looks", 0) > 1:
        yield (
            f"the best of {c['looks']} evaluations on the validation split was the first: a shorter training or a smaller "
            "learning rate may do better"
        )
    if c.get("epoch") == 1 and c.get("epochs", 0) > 1:
        yield f"the best of {c['epochs']} epochs was the first: smaller learning rates may do better"
    if "grid" in c:
        yield from _edges(c)


def _edges(c: Mapping[str, Any]) -> Iterator[str]:
    values = [g["val"] for g in c["grid"] if g["val"] is not None]
    if len(values) > 1 and min(values) == max(values) and not c.get("flat"):
        yield f"all {len(values)} points of the grid had the same value on the validation split; the smallest loss there decided"
        return
    for key, name in NAMES.items():
        tried = sorted({g[key] for g in c["grid"] if key in g})
        # Of two rates that a training tries one is always at an edge.
        if len(tried) < (3 if "step" in c else 2):
            continue
        if c[key] == tried[-1]:
            yield f"{name} {c[key]:g} is the largest of {len(tried)} tried: larger ones may do better"
        elif c[key] == tried[0] and tried[0] != LEAST.get(key):
            yield f"{name} {c[key]:g} is the smallest of {len(tried)} tried: smaller ones may do better"
