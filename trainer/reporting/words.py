"""Numbers and sentences of a report, the same in Markdown and HTML."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from trainer.reporting.groups import Entry, Group
from trainer.reporting.pairs import Pair, is_drawn_once
from trainer.reporting.result_parts import Measured
from trainer.tracking.intervals import BOOTSTRAP, DEGENERATE, PERCENTILES
from trainer.tracking.intervals import NONE as UNKNOWN

NONE = "–"


def number(v: float | None, sign: bool = False) -> str:
    if v is None or math.isnan(v):
        return NONE
    digits = ".3f" if abs(v) < 100 else ".4g"
    return format(v, ("+" if sign else "") + digits)


def span(interval: tuple[float, float] | None, sign: bool = False) -> str:
    if interval is None or any(math.isnan(v) for v in interval):
        return NONE
    return f"{number(interval[0], sign)} to {number(interval[1], sign)}"


def sure(m: Measured) -> str:
    """A metric's interval, with the name of what gave it where that is no bootstrap."""
    if m.interval_by == DEGENERATE:
        return DEGENERATE
    return span(m.interval) + (
        "" if m.interval_by in (None, BOOTSTRAP, PERCENTILES, UNKNOWN) else f" ({m.interval_by})"
    )


def count(m: Measured) -> str:
    return f"{', '.join(map(str, m.k))} of {m.n}" if m.k else NONE


def p_value(p: float) -> str:
    if math.isnan(p):
        return NONE
    return "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0").replace("1.000", "1")


def pair(t: Pair | None) -> str:
    if t is None:
        return NONE
    if t.problem:
        return "other test cases"
    if t.degenerate:
        return f"{number(t.difference, True)} ({DEGENERATE})"
    more = f"; {t.needed} patients would be needed" if t.needed else ""
    if t.too_few:
        return f"{number(t.difference, True)} ({span(t.interval, True)}), not tested: too few{more}"
    star = " *" if t.marked else ""
    # What one seed gave is what that training gave, not what the system is.
    once = " (one seed: not marked)" if t.p_holm < 0.05 and t.drawn_once else ""
    of = " of these trainings" if t.drawn_once else ""
    false = "" if math.isnan(t.false_claim) else f", claim false{of} {p_value(t.false_claim)}"
    needed = more * (not star and not once)
    return f"{number(t.difference, True)} ({span(t.interval, True)}), p {p_value(t.p)}{star}{once}{false}{needed}"


def cases(entry: Entry) -> str:
    """Test cases and patients, and training cases."""
    n = entry.first.content.n
    return f"{n.test} ({n.test_patients} patients)"


def trained_on(entry: Entry) -> str:
    return ", ".join(str(v) for v in dict.fromkeys(r.content.n.train for r in entry.results))


def chosen_among(entry: Entry) -> str:
    """How often the validation split was evaluated for the weights of a seed: points of the grid, evaluations of each, cases."""
    c = entry.first.content
    if not c.chosen or not c.n.val:
        return NONE
    points, times = max(x.points for x in c.chosen), max(x.looks for x in c.chosen)
    grid = f"{points} x " * (points > 1)
    return f"{grid}{times} evaluation{'s' * (times > 1)} on {c.n.val}"


def warnings(groups: Sequence[Group]) -> tuple[list[str], list[str]]:
    """First lines of the results: those that put a number in doubt, and the rest; each once, with how many say it."""
    doubts: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for g in groups:
        if once := _trained_once(g):
            notes[once] += 1
        notes.update(dict.fromkeys(blind(g), 1))
        for e in g.entries:
            for r in e.results:
                leak, line = r.content.leak, (r.content.first_line or r.content.leak.note).strip()
                own = leak.in_choosing + leak.images_in_choosing > 0 or r.content.standardise != "train"
                doubtful = leak.tested_on > 0 or not leak.checked or own
                if leak.shared > 0 and str(leak.shared) not in line:
                    line = f"{leak.shared} test patients were in the pre-training data. {line}".strip()
                line = line or ("" if leak.checked else "It was not checked whether test patients were pre-trained on.")
                if e.too_few:
                    notes[
                        f"{g.name}: not ranked, nothing tested: {e.too_few}. Intervals of so few may be too narrow."
                    ] += 1
                for warning in r.content.warnings:
                    notes[f"{g.name}, {e.label}, {e.amount.name}: {warning}"] += 1
                if line:
                    (doubts if doubtful else notes)[f"{g.name}, {e.label}, {e.amount.name}: {line}"] += 1
    return list(doubts), list(notes)


def blind(g: Group) -> Iterator[str]:
    """Of retrieval what a choice without looking would find: the least that a system has to beat."""
    for c in (r.content.candidates for e in g.entries for r in e.results):
        if c is not None:
            found = ", ".join(f"{name} {number(share)}" for name, share in c.chance.items())
            yield f"{g.name}: among {c.images} images and {c.reports} reports a blind choice finds {found}."


def _trained_once(g: Group) -> str:
    """What is to be said of systems with one training each, where there are several of them; "" where there is nothing."""
    alone = [e for e in g.entries if is_drawn_once(e, len(e.measured.per_seed))]
    if not alone or len(g.entries) < 2:
        return ""
    return (
        f"{g.name}: {len(alone)} of {len(g.entries)} results are of one seed. Which of them is best says which training is, not which "
        "system: of two equal systems of one seed each, patients alone told 32 to 54 % apart in simulation (AUC, 50 and 100 patients). "
        "None of their differences is marked."
    )


def apart(groups: Sequence[Group]) -> list[str]:
    """What keeps results of one task in several tables, and where one table joins results of several versions of the code."""
    out = [f"{g.name}: {g.apart}" for g in groups if g.apart]
    for g in groups:
        codes: dict[str, set[str]] = {}
        for r in (r for e in g.entries for r in e.results):
            codes.setdefault(r.content.method, set()).add(str(r.content.hashes.code)[:12])
        # A method's hash covers its own file: only results of one method can be told apart by it.
        for method, versions in sorted(codes.items()):
            if len(versions) > 1:
                out.append(
                    f"{g.name}, {method}: made by {len(versions)} versions of its code ({', '.join(sorted(versions))})."
                )
        variants = sum(bool(e.setting.variant) for e in g.entries)
        if variants:
            out.append(
                f"{g.name}: {variants} results share all that is compared; they are told apart by their folders."
            )
    return sorted(out)


def how_to_read(groups: Sequence[Group], draws: int, seed: int) -> list[str]:
    """The conventions under which everything else stands."""
    levels = sorted({e.measured.level for g in groups for e in g.entries})
    named = " or ".join(f"{100 * v:g} %" for v in levels) or "95 %"
    return [
        f"value: mean over seeds. interval: {named}, from resampling test patients (all seeds alike); it does not know that another "
        "seed would give another model. spread: standard deviation over seeds (and draws), which does not know that other patients "
        "would give other numbers. k/n: right cases of each seed. Where no resample differs from any other, an exact bound over patients "
        "stands in its place and is named (Clopper-Pearson of a share, Newcombe of an area), or it is marked as degenerate.",
        "Bold: the best value of a table; controls, results with a leak and systems that gave one answer for all cases in every seed "
        "([CONSTANT], not ranked) cannot be it. With fewer than 20 test patients, or fewer than 10 with an event or with the rarer answer, "
        "nothing is ranked or tested.",
        "chosen among: of each seed, points of the grid (rates, decays, neighbours) and evaluations on so many validation cases of each; "
        "the best was taken. Its value there is the best of so many and says too much; test cases took no part, and are looked at once.",
        "Every number is computed anew from the predictions case by case; results whose own numbers differ are refused.",
        "brier and ece: lower is better; calibration_intercept is best at 0, calibration_slope at 1 (below it, probabilities are too "
        "extreme). ece takes noise for error: with few cases in a bin it is too high, in resamples more so, and it has no interval.",
        "against: difference in the primary metric (row minus opponent), its 95 % interval and two-sided p. Of areas under ROC curves "
        "they are DeLong's with patients as clusters (Obuchowski 1997), of other metrics a paired bootstrap's "
        f"of test patients ({draws} draws, seed {seed}); both together with what other seeds would have given (Student's t by the seeds "
        "of each; a system of one seed is taken to vary as its opponent does; of one seed each, interval and p know of patients alone. "
        "With one seed on either side no difference is marked). claim false: probability that the one with the better number "
        "is not the better one (arXiv 2505.04720 where each patient has one case and each system one seed, else half "
        "of p). Patients needed: to find a difference of this size "
        "with power 80 %, the seeds as they are. scratch is the same method, mode and inputs without pre-training. * marks "
        "p < 0.05 after Holm's correction over all pairs of the task. The best was picked on these same patients, which favours it.",
    ]
