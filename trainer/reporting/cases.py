"""A result's predictions case by case, checked against the numbers that the result claims, and what is computed from them anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import UserError
from trainer.reporting.result import Measured, Result

if TYPE_CHECKING:
    from trainer.downstream.predictions import Predictions

MEND = "run the fine-tune again, or leave its folder out"


@lru_cache(maxsize=256)
def _load(path: Path) -> Predictions:
    from trainer.downstream.predictions import Predictions

    try:
        return Predictions.load(path)
    except UserError:
        raise
    except Exception as e:  # whatever else a damaged archive sets off
        raise UserError(f"{path} cannot be read as predictions ({type(e).__name__}: {e}); {MEND}") from e


def predictions(results: Sequence[Result]) -> list[Predictions]:
    """Of every draw and seed.

    Raises:
        UserError: a file that is missing or damaged.
    """
    return [_load(r.folder / name) for r in results for name in r.content.predictions]


def check(result: Result) -> list[str]:
    """Problems: predictions that cannot be read, or do not give the primary metric that the result states."""
    from trainer.downstream.metrics import METRICS

    c, problems = result.content, []
    if c.primary not in METRICS:
        return [f"{result.folder}: primary metric '{c.primary}' is not known here ({', '.join(METRICS)}); {MEND}"]
    for name, stated in zip(c.predictions, result.measured.per_seed, strict=True):
        try:
            p = _load(result.folder / name)
        except UserError as e:
            problems += e.problems
            continue
        if p.kind != c.kind:
            problems.append(
                f"{result.folder / name}: predictions of kind {p.kind} in a result of kind {c.kind}; {MEND}"
            )
            continue
        found = METRICS[c.primary].compute(p)
        if not (math.isclose(found, stated, rel_tol=1e-5, abs_tol=1e-6) or (math.isnan(found) and math.isnan(stated))):
            problems.append(
                f"{result.folder / name}: the predictions give {c.primary} {found:.6g}, the result states {stated:.6g}: "
                f"they do not belong together; {MEND}"
            )
    return problems


def interval(results: Sequence[Result], metric: str, like: Measured) -> tuple[float, float] | None:
    """Of the mean over several results, from a bootstrap of test patients."""
    from trainer.downstream.metrics import METRICS
    from trainer.downstream.statistics import bootstrap

    found = bootstrap(predictions(results), METRICS[metric], draws=like.draws, level=like.level)
    return found.low, found.high
