"""Results sorted into what may be compared: groups of one task on one data set under one convention, entries of one setting.

An entry holds the results of one setting at one amount of labels: one result, or several draws of the labelled subset.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev

from trainer.reporting import cases
from trainer.reporting.result import Result
from trainer.reporting.result_parts import Init, Measured, Reference

# Training from scratch is fine-tuning with another start: the start says so, and pairs find their opponent by the mode.
MODES = {"scratch": "finetune"}


@dataclass(frozen=True, order=True)
class Amount:
    """Labels trained on: a fraction of the training split, or so many cases a class. Few-shot amounts come first."""

    fraction: float = 1.0
    shots: int = 0

    @property
    def name(self) -> str:
        return f"{self.shots}-shot" if self.shots else f"{100 * self.fraction:g} %"

    @property
    def full(self) -> bool:
        return not self.shots and self.fraction == 1


@dataclass(frozen=True)
class Setting:
    """What is compared. `variant` is empty unless two results agree in all else: then the folder."""

    method: str
    mode: str
    init: Init
    inputs: tuple[str, ...]
    control: str | None
    variant: str = ""
    title: str = ""

    @property
    def start(self) -> str:
        return self.init.kind if not self.init.path else f"{self.init.kind} {Path(self.init.path).name}"

    @property
    def scratch(self) -> bool:
        return self.init.kind == "scratch"


@dataclass(frozen=True, eq=False)
class Entry:
    setting: Setting
    amount: Amount
    results: tuple[Result, ...]
    label: str = ""

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def leaking(self) -> bool:
        """Test patients were learned from, or the test targets were scaled by themselves."""
        contents = [r.content for r in self.results]
        return any(c.leak.tested_on > 0 or c.standardise != "train" for c in contents)

    @property
    def constant(self) -> bool:
        """One answer for all test cases, in every seed, as far as the primary metric looks."""
        return self.measured.never_left_one_answer

    @cached_property
    def too_few(self) -> str:
        """Why the test cases rank nothing; "" where there are enough of them."""
        from trainer.downstream.metrics.floor import too_few

        return too_few(cases.predictions(self.results)[0])

    @property
    def name(self) -> str:
        """The label, with what must not be overlooked."""
        return self.label + self.marks

    @property
    def marks(self) -> str:
        return " [LEAK]" * self.leaking + " [CONSTANT]" * self.constant

    @property
    def eligible(self) -> bool:
        """Whether it may be the best: a control is not a proposal, a leak makes the number worthless, one answer for all is none."""
        return self.may_lead and not self.constant and self.measured.value == self.measured.value

    @property
    def may_lead(self) -> bool:
        return self.setting.control is None and not self.leaking and not self.too_few

    @property
    def measured(self) -> Measured:
        return self.metrics[self.first.content.primary]

    @cached_property
    def metrics(self) -> dict[str, Measured]:
        if len(self.results) == 1:
            return self.first.content.metrics
        shared = [n for n in self.first.content.metrics if all(n in r.content.metrics for r in self.results)]
        return {n: _over_draws(n, self.results) for n in shared}

    @property
    def repeats(self) -> str:
        seeds, draws = len(self.first.content.seeds), len(self.results)
        text = f"{seeds} seed{'s' * (seeds > 1)}"
        return text if draws == 1 else f"{draws} draws x {text}"


def _over_draws(name: str, results: Sequence[Result]) -> Measured:
    """Mean and spread over all draws and seeds; the interval resamples test patients, alike for all of them."""
    parts = [r.content.metrics[name] for r in results]
    per_seed = tuple(v for p in parts for v in p.per_seed)
    interval, by = cases.interval(results, name, parts[0])
    return parts[0].model_copy(
        update={
            "value": fmean(per_seed),
            "per_seed": per_seed,
            "spread": stdev(per_seed) if len(per_seed) > 1 else None,
            "interval": interval,
            "interval_by": by,
            "constant": tuple(c for p in parts for c in p.constant or ()) or None,
            "k": tuple(k for p in parts for k in p.k or ()) or None,
        }
    )


@dataclass(frozen=True, eq=False)
class Group:
    """Numbers that may stand in one table: same task, same data, same primary metric under the same convention."""

    name: str
    entries: tuple[Entry, ...]
    apart: str  # why it is not one with another group of the task; "" when it is the only one

    @property
    def kind(self) -> str:
        return self.entries[0].first.content.kind

    @property
    def primary(self) -> str:
        return self.entries[0].first.content.primary

    @property
    def external(self) -> str | None:
        """What other data are called that were looked at with the weights of a run."""
        there = self.entries[0].first.content.external
        return there.name if there else None

    @property
    def task(self) -> str:
        return self.entries[0].first.content.task

    @property
    def held_out(self) -> str | None:
        """The site that nothing was learned from, where there is one."""
        return self.entries[0].first.content.hold_out

    @property
    def higher_is_better(self) -> bool:
        return self.entries[0].measured.higher_is_better

    @property
    def amounts(self) -> list[Amount]:
        return sorted({e.amount for e in self.entries}, key=lambda a: (not a.shots, a.shots, a.fraction))

    @property
    def settings(self) -> list[Setting]:
        return list(dict.fromkeys(e.setting for e in self.entries))

    @property
    def references(self) -> list[Reference]:
        return list(dict.fromkeys(x for e in self.entries for r in e.results for x in r.content.reference))

    def at(self, amount: Amount) -> list[Entry]:
        """Entries of this amount, the best first; those that gave one answer for all cases stand behind the others, unranked."""
        sign = -1 if self.higher_is_better else 1
        worst = float("inf")
        return sorted(
            (e for e in self.entries if e.amount == amount),
            key=lambda e: (e.constant, sign * e.measured.value if e.measured.value == e.measured.value else worst),
        )

    def best(self, amount: Amount, metric: str | None = None) -> Entry | None:
        """The best eligible entry under a metric (the primary one by default)."""
        name = metric or self.primary
        able = [
            e for e in self.at(amount) if e.may_lead and name in e.metrics and not e.metrics[name].never_left_one_answer
        ]
        able = [e for e in able if e.metrics[name].value == e.metrics[name].value]
        if not able:
            return None
        return max(able, key=lambda e: e.metrics[name].goodness)


def group(results: Iterable[Result]) -> list[Group]:
    """Groups in the order of their tasks' names."""
    by_task: dict[str, dict[tuple[str | None, ...], list[Result]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        by_task[_asked(r)][_comparable(r)].append(r)
    out = []
    for task, parts in sorted(by_task.items()):
        for i, (key, members) in enumerate(parts.items()):
            name = task if len(parts) == 1 else f"{task} ({i + 1} of {len(parts)})"
            apart = "" if len(parts) == 1 else _difference(key, list(parts))
            out.append(Group(name, tuple(_entries(members)), apart))
    return labelled(out)


def _asked(r: Result) -> str:
    """The task, and on whose cases where they are not the run's own test split."""
    c = r.content
    held_out = f" at {c.hold_out}, held out" if c.hold_out else ""
    return c.task + held_out + (f" on {c.external.name}" if c.external else "")


def _comparable(r: Result) -> tuple[str | None, ...]:
    c = r.content
    words = {n: (sorted(w.yes), w.uncertain, w.blank) for n, w in sorted(c.answers.words.items())}
    return c.hashes.data, c.hashes.task, c.kind, c.primary, r.measured.convention, json.dumps(words)


def _difference(key: tuple[str | None, ...], keys: list[tuple[str | None, ...]]) -> str:
    names = ("data hash", "task hash", "kind", "primary metric", "convention", "words that say yes")
    differing = [i for i in range(len(key)) if len({k[i] for k in keys}) > 1]
    said = ", ".join(f"{names[i]} {str(key[i])[:60]}" for i in differing)
    return f"Kept apart from other results of the same task, which differ in what is measured; here: {said}."


def _entries(results: Sequence[Result]) -> list[Entry]:
    """One a setting and amount; results that even share the draw are told apart by their folders."""
    same: dict[tuple[Setting, Amount], list[Result]] = defaultdict(list)
    for r in results:
        c = r.content
        setting = Setting(c.method, MODES.get(c.mode, c.mode), c.init, c.inputs, c.control, title=c.title)
        same[setting, Amount(1.0 if c.fraction is None else c.fraction, c.shots or 0)].append(r)
    out = []
    for (setting, amount), members in same.items():
        draws = sorted(members, key=lambda r: str(r.content.draw))
        if len({r.content.draw for r in draws}) == len(draws):
            out.append(Entry(setting, amount, tuple(draws)))
        else:
            out += [Entry(replace(setting, variant=str(r.folder)), amount, (r,)) for r in members]
    return out


def labelled(groups: Sequence[Group]) -> list[Group]:
    """With short names for entries: the method, the start, and whatever else tells settings apart anywhere in the report."""
    settings = {e.setting for g in groups for e in g.entries}
    modes = len({s.mode for s in settings}) > 1
    inputs: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    starts: dict[tuple[str, str], set[Init]] = defaultdict(set)
    # What is common to all folders tells nothing apart; what is left is, in a sweep, the point's name. It stays another name in each task:
    # which of two results there is which of two here, nobody said.
    variants = [s.variant for s in settings if s.variant]
    above = os.path.commonpath([str(Path(v).parent) for v in variants]) if variants else ""
    for s in settings:
        inputs[s.method].add(s.inputs)
        starts[s.method, s.init.kind].add(s.init)

    def label(s: Setting) -> str:
        several = s.init.kind == "file" or len(starts[s.method, s.init.kind]) > 1
        words = [s.start if several else s.init.kind, *([s.mode] if modes else [])]
        words += ["+".join(s.inputs)] if len(inputs[s.method]) > 1 else []
        words += [f"{s.control} control"] if s.control else []
        words += [os.path.relpath(s.variant, above)] if s.variant else []
        return f"{s.title or s.method}: {', '.join(words)}"

    return [replace(g, entries=tuple(replace(e, label=label(e.setting)) for e in g.entries)) for g in groups]
