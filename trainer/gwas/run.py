"""A genome-wide association study of a run's embeddings, from held-back people to clumps.

Embeddings -> principal components -> residuals of covariates -> inverse normal -> a linear model per variant, with the covariates again
(ranks bring a little of them back) -> P over components by Bonferroni -> clumps. As in ContIG (Taleb et al., CVPR 2022), with the
decomposition in full and its signs fixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from shards.format.info import sha256_of
from shards.read.dataset import Dataset
from trainer.data import shard_cache
from trainer.errors import UserError
from trainer.gwas.bed import FileSet
from trainer.gwas.clumping import clump
from trainer.gwas.covariates import basis_of
from trainer.gwas.embeddings import embed, source_of
from trainer.gwas.people import Tested, opened
from trainer.gwas.phenotypes import inverse_normal, principal_components, residuals
from trainer.gwas.results import Phenotypes, write_results
from trainer.gwas.scan import parts_of, scan
from trainer.gwas.settings import Settings
from trainer.gwas.tables import merged
from trainer.state.files import write_atomic
from trainer.state.finished import Finished

ABOUT = "about.json"


def gwas(settings: Settings, asked: Callable[[], bool], say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the study, or goes on with it, and returns its summary, which it writes with all tables and plots to `settings.out`.

    Raises:
        UserError, DataError: what has to be changed in the input, all at once where it can be known.
        Stopped: a stop was asked for; chromosomes that are done are kept.
    """
    data = Dataset.open(settings.data, cache=shard_cache([settings.data], None, 0))
    try:
        run, files, tested = opened(settings, data)
        for note in tested.notes:
            say(note)
        source = source_of(run, settings.random is not None)
        cache, seed = settings.out / "features", settings.random or 0
        x_ND = embed(source, data, settings.split, tested.people, settings.per_person, cache, seed)[tested.at_N]
    finally:
        data.close()
    value_NC = tested.covariates.value_NC[tested.at_N]
    basis = basis_of(tested.covariates.names, value_NC, settings.covariates)
    score_NP, share_P = principal_components(x_ND, settings.components)
    y_NP = inverse_normal(residuals(basis.q_NC, score_NP))
    if settings.permute is not None:
        # Embeddings change people, covariates stay with their genotypes: nothing but chance can associate.
        y_NP = y_NP[np.random.default_rng(settings.permute).permutation(len(y_NP))]
    names = [f"PC{i + 1}" for i in range(settings.components)]
    parts = parts_of(y_NP, names, tested.rows_N, value_NC, lambda v: _both(tested.covariates.names, v, settings))
    about = _settle(settings, run, data.fingerprint, files, y_NP, value_NC, tested.rows_N)
    found = dict(scan(files, parts, settings.out / "chromosomes", about, settings.workers, asked, say))
    clumps = {}
    for name, c in found.items():
        columns = files.by_chromosome[name]
        read = lambda at, columns=columns: files.counts(columns[at])[:, files.founders_N]  # noqa: E731
        clumps[name] = clump(files.variants.positions[columns], merged(c.log10_p_PM), read, settings.rules)
    people = [tested.people.names_N[i] for i in tested.at_N]
    context = {**_context(settings, run, data.fingerprint, tested), "explained": share_P.tolist(), "hash": about}
    return write_results(settings.out, files, Phenotypes(names, people, y_NP), found, clumps, settings.rules, context)


def _both(names: Sequence[str], value_NC: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    basis = basis_of(names, value_NC, settings.covariates)
    return basis.q_NC, basis.z_NC


# ------------------------------------------------------------------------------------------------------------------ record


def _settle(
    settings: Settings,
    run: Finished,
    fingerprint: str,
    files: FileSet,
    y_NP: np.ndarray,
    value_NC: np.ndarray,
    rows_N: np.ndarray,
) -> str:
    """The hash of all that decides the estimates; written down, and refused where the folder is of something else.

    Raises:
        UserError: `out` holds another study.
    """
    bed = files.path.stat()
    about = {
        "run": run.sha256() if settings.random is None else f"{run.method_name} at random, seed {settings.random}",
        "data": fingerprint,
        "bim": sha256_of(files.path.with_suffix(".bim")),
        "fam": sha256_of(files.path.with_suffix(".fam")),
        # A .bed can have a hundred gigabytes: its size and time stand for its bytes.
        "bed": [bed.st_size, bed.st_mtime_ns],
        "phenotypes": _digest(y_NP.astype(np.float32)),
        "covariates": _digest(value_NC),
        "people": _digest(rows_N),
    }
    path = settings.out / ABOUT
    if path.is_file():
        before = json.loads(path.read_bytes())
        if changed := [k for k, v in about.items() if before.get(k) != v]:
            raise UserError(
                f"{settings.out} holds a study of other things ({', '.join(changed)} differ): give another --out, or remove it"
            )
    settings.out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(about, indent=1).encode())
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _context(settings: Settings, run: Finished, fingerprint: str, tested: Tested) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "method": run.method_name,
        "weights": run.sha256() if settings.random is None else f"random, seed {settings.random}",
        "control": "permuted people"
        if settings.permute is not None
        else "random weights"
        if settings.random is not None
        else None,
        "data": {"path": settings.data, "fingerprint": fingerprint, "split": settings.split},
        "bed": str(settings.bed),
        "covariates": list(tested.covariates.names),
        "per_person": settings.per_person,
        "rules": asdict(settings.rules),
        "notes": tested.notes,
    }
