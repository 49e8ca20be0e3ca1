"""A result's predictions case by case. What a report shows is computed from them; what result.json states must be the same."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.untyped import Json
from trainer.errors import UserError
from trainer.reporting.result import Result
from trainer.reporting.result_parts import Measured, Subgroups
from trainer.tracking.intervals import PERCENTILES

if TYPE_CHECKING:
    from trainer.downstream.metrics.predictions import Predictions
    from trainer.downstream.metrics.system import System

MEND = "run the fine-tune again, or leave its folder out"


@lru_cache(maxsize=1024)
def _load(path: Path) -> Predictions:
    from trainer.downstream.metrics.predictions import Predictions

    try:
        return Predictions.load(path)
    except UserError:
        raise
    except Exception as e:  # whatever else a damaged archive sets off
        raise UserError(f"{path} cannot be read as predictions ({type(e).__name__}: {e}); {MEND}") from e


@lru_cache(maxsize=4096)
def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def predictions(results: Sequence[Result]) -> list[Predictions]:
    """Of every draw and seed.

    Raises:
        UserError: a file that is missing or damaged.
    """
    return [_load(r.folder / name) for r in results for name in r.content.predictions]


def system(results: Sequence[Result]) -> System:
    """The same as one system, whose values and resamples are computed once a report, for its intervals and for all its tests.

    Raises:
        UserError: a file that is missing or damaged; seeds of different cases.
    """
    return _system(tuple((p, _digest(p)) for r in results for p in (r.folder / name for name in r.content.predictions)))


@lru_cache(maxsize=512)
def _system(files: tuple[tuple[Path, str], ...]) -> System:
    """`files` with what they hold."""
    from trainer.downstream.metrics.system import System

    # The library's values are what the result states, and those of the forms are compared with them.
    return System([_load(path) for path, _ in files], by_form=True)


# --------------------------------------------------------------------------------------------------------------- recomputed


def recomputed(result: Result) -> Result:
    """The result with every metric computed anew from its predictions.

    Raises:
        UserError: predictions that cannot be read, that are other files than the result was made from, that speak of a case twice
            or of other cases in another seed, or that do not give the numbers that the result states; all at once.
    """
    problems = list(_unlike_files(result))
    if problems:
        raise UserError(problems)
    try:
        of = system([result])
        found = {name: _entry(result, of, name) for name in result.content.metrics}
    except UserError as e:
        raise UserError([f"{result.folder}: {p}; {MEND}" for p in e.problems]) from e
    problems = [
        *_counts(result),
        *(p for name in found for p in _unlike(result, name, found[name])),
        *_unlike_groups(result),
        *_unlike_calibrated(result),
    ]
    if problems:
        raise UserError(problems)
    stated = result.content.metrics
    measured = {
        n: Measured.model_validate_json(json.dumps({**m, "convention": stated[n].convention})) for n, m in found.items()
    }
    groups = {n: Subgroups.model_validate_json(json.dumps(g)) for n, g in _groups(result).items()}
    return replace(result, content=result.content.model_copy(update={"metrics": measured, "groups": groups}))


def _unlike_files(result: Result) -> Iterator[str]:
    """Files that are missing, damaged, of another kind, or not those that the result was made from."""
    c = result.content
    for i, name in enumerate(c.predictions):
        path = result.folder / name
        try:
            p = _load(path)
        except UserError as e:
            yield from e.problems
            continue
        if c.predictions_sha256 and _digest(path) != c.predictions_sha256[i]:
            yield (
                f"{path}: SHA-256 {_digest(path)[:12]}, the result was made from {c.predictions_sha256[i][:12]}: another file has taken "
                f"its place; {MEND}"
            )
        elif p.kind != c.kind:
            yield f"{path}: predictions of kind {p.kind} in a result of kind {c.kind}; {MEND}"


def _entry(result: Result, of: System, name: str) -> dict[str, Any]:
    from trainer.downstream.metrics.statistics import entry
    from trainer.downstream.metrics.table import METRICS

    m, kind = result.content.metrics[name], result.content.kind
    if name not in METRICS or kind not in METRICS[name].kinds:
        raise UserError(f"metric '{name}' of {kind} predictions is not known here, so it cannot be checked")
    of.stated(METRICS[name], m.per_seed)
    return entry(of, name, m.draws, m.bootstrap_seed, m.level)


def _counts(result: Result) -> Iterator[str]:
    n, p = result.content.n, _load(result.folder / result.content.predictions[0])
    found = (len(p), len(set(p.patients_N.tolist())))
    if found != (n.test, n.test_patients):
        yield (
            f"{result.folder}: the predictions are of {found[0]} cases of {found[1]} patients, the result states {n.test} of "
            f"{n.test_patients}; {MEND}"
        )


def _unlike(result: Result, name: str, found: dict[str, Any]) -> Iterator[str]:
    """What of a metric differs from what the result states."""
    m = result.content.metrics[name]
    stated: dict[str, Any] = {
        "value": m.value, "per_seed": m.per_seed, "spread": m.spread, "n": m.n, "higher_is_better": m.higher_is_better,
    }  # fmt: skip
    if m.k is not None:
        stated["k"] = m.k
    if m.patients is not None:
        stated["patients"] = m.patients
    # Percentiles of an earlier version, and what it wrote where no bound was known, are replaced, not compared.
    if m.interval is not None and m.interval_by not in (None, PERCENTILES):
        stated |= {"interval": m.interval, "interval_by": m.interval_by}
    if m.constant is not None:
        stated["constant"] = m.constant
    for key, value in stated.items():
        if not _same(value, found[key]):
            where = f"{result.folder / result.content.predictions[0]}" + ", ..." * (len(result.content.predictions) > 1)
            yield (
                f"{where}: the predictions give {name}.{key} {_text(found[key])}, {result.folder / 'result.json'} states {_text(value)}: "
                f"they do not belong together; {MEND}"
            )


def _unlike_calibrated(result: Result) -> Iterator[str]:
    """What of the metrics of divided log odds differs from what the result states."""
    from trainer.downstream.metrics.recalibrated import CALIBRATED, calibrated_entry, of_plain

    c = result.content
    if not c.calibrated:
        return
    try:
        fits = [of_plain(f) for f in c.recalibration]
        for name, m in c.calibrated.items():
            assert name in CALIBRATED, name
            found = calibrated_entry(predictions([result]), fits, name, m.draws, m.bootstrap_seed, m.level)
            if not (_same(m.value, found["value"]) and _same(m.interval, found["interval"])):
                yield (
                    f"{result.folder / 'result.json'}: the predictions and the temperatures that it states give calibrated.{name} "
                    f"{_text(found['value'])}, it states {_text(m.value)}: they do not belong together; {MEND}"
                )
    except (AssertionError, KeyError, TypeError, ValueError) as e:
        yield f"{result.folder / 'result.json'}: recalibration or calibrated is misshapen ({e!r}); {MEND}"


def _groups(result: Result) -> dict[str, dict[str, Any]]:
    """The groups of test cases, measured anew; none where the result has none.

    Raises:
        UserError: their file cannot be read.
    """
    from trainer.downstream.metrics.subgroups import by_group, read_groups

    c, m = result.content, result.measured
    if not c.groups or c.groups_file is None:
        return {}
    stored, seeds = read_groups(result.folder / c.groups_file), predictions([result])
    return {
        name: by_group(seeds, words, c.primary, m.draws, m.bootstrap_seed, m.level) for name, words in stored.items()
    }


def _unlike_groups(result: Result) -> Iterator[str]:
    """What of the groups of test cases differs from what the result states."""
    c = result.content
    if not c.groups or c.groups_file is None:
        return
    path = result.folder / c.groups_file
    try:
        found = _groups(result)
    except UserError as e:
        yield from e.problems
        return
    if _digest(path) != c.groups_sha256 or found.keys() != c.groups.keys():
        yield f"{path}: another file has taken the place of the one that the result was made from; {MEND}"
        return
    for name, again in found.items():
        stated, now = _leaves(json.loads(c.groups[name].model_dump_json()), name), _leaves(again, name)
        # Percentiles of an earlier version, which named nothing, are replaced, not compared; so is a gap that knew of no picking.
        old = ("interval", "interval_by") if c.groups[name].interval_by is None else ()
        old = (*old, "gap_interval", "gap_by") if c.groups[name].gap_by is None else old
        for where in sorted({*stated, *now}):
            a, b = stated.get(where), now.get(where)
            if where.rpartition(".")[2] not in old and a is not b and not _same(a, b):
                yield (
                    f"{path}: the predictions give groups.{where} {_text(b)}, {result.folder / 'result.json'} states {_text(a)}: they do "
                    f"not belong together; {MEND}"
                )


def _leaves(tree: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Numbers and words of a tree of tables, each under its way there."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= _leaves(value, f"{where}.{key}") if isinstance(value, Mapping) else {f"{where}.{key}": value}
    return out


def _same(a: Json, b: Json) -> bool:
    if isinstance(a, tuple | list) or isinstance(b, tuple | list):
        return a is not None and b is not None and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    x, y = (math.nan if v is None else float(v) for v in (a, b))
    return math.isclose(x, y, rel_tol=1e-5, abs_tol=1e-6) or (math.isnan(x) and math.isnan(y))


def _text(value: Json) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def interval(results: Sequence[Result], metric: str, like: Measured) -> tuple[tuple[float, float], str]:
    """Of the mean over several results, from a bootstrap of test patients; and what gave it."""
    from trainer.downstream.metrics.statistics import bootstrap
    from trainer.downstream.metrics.table import METRICS

    found = bootstrap(system(results), METRICS[metric], draws=like.draws, level=like.level)
    return (found.low, found.high), found.by
