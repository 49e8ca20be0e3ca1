"""Paired tests of entries against the best one, against their own scratch, and of controls against what they control.

Always on the same test patients; a result with a leak is compared with nothing. The best entry was found on these patients, and
many pairs are tested: p values are therefore also given after Holm's correction over a group (Holm 1979, Scand. J. Statist. 6, 65).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trainer.errors import UserError
from trainer.reporting import cases
from trainer.reporting.groups import Entry, Group

BEST, SCRATCH, CONTROLLED = "best", "scratch", "without control"
DRAWS_NOTHING = ("knn", "zeroshot")
"""Modes in which a seed decides nothing."""


def is_drawn_once(entry: Entry, seeds: int) -> bool:
    """Whether a system stands for one training, of which another seed would have made another."""
    return seeds == 1 and entry.setting.mode not in DRAWS_NOTHING


@dataclass(frozen=True)
class Pair:
    """`entry` minus `other` in the group's primary metric; `problem` says why there is no number."""

    against: str
    entry: Entry
    other: Entry
    difference: float = float("nan")
    interval: tuple[float, float] = (float("nan"), float("nan"))
    p: float = float("nan")
    p_holm: float = float("nan")
    problem: str = ""
    degenerate: bool = False
    """No resample differs from any other: there is a difference, and nothing that says how sure it is."""
    too_few: str = ""
    """Why the test cases are too few for a test."""
    seeds: tuple[int, int] = (1, 1)
    needed: int | None = None
    """Test patients with which this difference would be found with power 80 %."""
    false_claim: float = float("nan")
    """Probability that the one with the better number is not the better one."""
    by: str = ""
    """What gave interval and p: bootstrap, or of areas DeLong-Obuchowski."""

    @property
    def drawn_once(self) -> bool:
        """Whether one of both systems stands in it with one training."""
        return any(is_drawn_once(e, n) for e, n in zip((self.entry, self.other), self.seeds, strict=True))

    @property
    def marked(self) -> bool:
        """Whether a report says that both are told apart: of a single training it could not be said of the system."""
        return self.p_holm < 0.05 and not self.drawn_once


def pairs(group: Group, draws: int, seed: int) -> list[Pair]:
    """Every comparison of a group, with Holm's correction over all of them."""
    out = []
    for amount in group.amounts:
        entries = group.at(amount)
        best = group.best(amount)
        for entry in (e for e in entries if not e.leaking):  # a leaking number is no evidence for anything
            for against, other in _others(entry, entries, best):
                out.append(_tested(against, entry, other, group.primary, draws, seed))
    # The same two entries may meet as best and as scratch: one test, counted once.
    tests = {frozenset((id(t.entry), id(t.other))): t.p for t in out if t.p == t.p}
    corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
    return [replace(t, p_holm=corrected.get(frozenset((id(t.entry), id(t.other))), float("nan"))) for t in out]


def _others(entry: Entry, entries: Sequence[Entry], best: Entry | None) -> Iterator[tuple[str, Entry]]:
    if best is not None and best is not entry and not entry.constant:
        yield BEST, best
    s = entry.setting
    alike = [
        e
        for e in entries
        if e is not entry and not e.leaking and e.setting.method == s.method and e.setting.mode == s.mode
    ]
    alike = [e for e in alike if (e.setting.inputs, e.setting.title) == (s.inputs, s.title)]
    # Where two scratch runs differ in nothing that is named, `entries` has the better one first: the harder opponent.
    scratch = [e for e in alike if e.setting.scratch and e.setting.control == s.control]
    if scratch and not s.scratch:
        yield SCRATCH, scratch[0]
    plain = [e for e in alike if s.control and e.setting.control is None and e.setting.init == s.init]
    if plain:
        yield CONTROLLED, plain[0]


def _tested(against: str, entry: Entry, other: Entry, metric: str, draws: int, seed: int) -> Pair:
    from trainer.downstream.metrics.floor import patients_needed
    from trainer.downstream.metrics.statistics import paired
    from trainer.downstream.metrics.table import METRICS

    try:
        found = paired(
            cases.system(entry.results), cases.system(other.results), METRICS[metric], draws=draws, seed=seed
        )
    except UserError as e:  # other test cases: said in the table, no number
        return Pair(against, entry, other, problem=str(e))
    return Pair(
        against, entry, other, found.difference, (found.low, found.high), float("nan") if entry.too_few else found.p,
        degenerate=found.degenerate, too_few=entry.too_few, seeds=found.seeds,
        needed=patients_needed(found.difference, found.error, found.patients),
        false_claim=float("nan") if entry.too_few else found.false_claim, by=found.by,
    )  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """Step-down adjusted p values, in the order given."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    out, so_far = [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[i]))
        out[i] = so_far
    return out
