"""All variants of a file set, chromosome by chromosome, in blocks over all cores. A chromosome that is done is kept and not done again.

Shape letters: N people who are tested, P phenotypes, M variants.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DataError
from trainer.errors import Stopped, UserError
from trainer.gwas.bed import FileSet, allele_tested
from trainer.gwas.linear import TOO_FEW, Estimates, Model, associate
from trainer.state.files import write_atomic

FORMAT = 1
BLOCK_BYTES, MOST_BLOCK = 1 << 26, 2048
ARRAYS = ("beta_PM", "se_PM", "t_PM", "log10_p_PM", "n_PM", "code_PM", "is_first_M", "frequency_M")


@dataclass(frozen=True)
class Chromosome:
    """Estimates for the tested allele of each variant, in order of position; n_PM and code_PM int32 and int8."""

    beta_PM: np.ndarray
    se_PM: np.ndarray
    t_PM: np.ndarray
    log10_p_PM: np.ndarray
    n_PM: np.ndarray
    code_PM: np.ndarray
    is_first_M: np.ndarray
    frequency_M: np.ndarray


@dataclass(frozen=True)
class Part:
    """Phenotypes that are known of the same people: their numbers, the people's rows in the .bed, their model."""

    phenotypes: np.ndarray
    rows_N: np.ndarray
    model: Model


def parts_of(
    y_NP: np.ndarray,
    names: Sequence[str],
    rows_N: np.ndarray,
    covariates_NC: np.ndarray,
    basis: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> list[Part]:
    """Phenotypes grouped by the people of whom they are known: a person without one is left out of it, and of no other.

    Args:
        y_NP: NaN where a phenotype is not known.
        basis: (q_NC, z_NC) of the covariates of some people.

    Raises:
        UserError: phenotypes of too few people for the covariates, all at once.
    """
    known_NP = ~np.isnan(y_NP)
    least = covariates_NC.shape[1] + 3
    few = [f"phenotype '{n}' is known of {k} people; {least - 3} covariates need {least} or more: bring more people, or fewer covariates"
           for n, k in zip(names, known_NP.sum(0).tolist(), strict=True) if k < least]  # fmt: skip
    if few:
        raise UserError(few)
    groups: dict[bytes, list[int]] = {}
    for p in range(y_NP.shape[1]):
        groups.setdefault(known_NP[:, p].tobytes(), []).append(p)
    found = []
    for columns in groups.values():
        kept = known_NP[:, columns[0]]
        q_NC, z_NC = basis(covariates_NC[kept])
        found.append(Part(np.array(columns), rows_N[kept], Model.of(q_NC, y_NP[kept][:, columns], z_NC)))
    return found


def scan(
    files: FileSet,
    parts: Sequence[Part],
    folder: Path,
    about: str,
    workers: int,
    asked: Callable[[], bool],
    say: Callable[[str], None],
) -> Iterator[tuple[str, Chromosome]]:
    """Each chromosome's estimates, from `folder` where they are there already.

    Args:
        about: what decided the estimates, hashed; a chromosome of anything else is computed again.
        asked: whether to stop; looked at after every block.

    Raises:
        Stopped: the chromosomes that are done are kept.
    """
    from threadpoolctl import threadpool_limits

    folder.mkdir(parents=True, exist_ok=True)
    # A block a core: products of matrices as narrow as these gain little from threads of their own.
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        for name, columns in files.by_chromosome.items():
            path = folder / f"chr{name}.npz"
            mark = hashlib.sha256(f"{FORMAT} {about} {name} {len(columns)}".encode()).hexdigest()
            found = _kept(path, mark)
            if found is None:
                found = _computed(files, parts, columns, pool, workers, asked)
                write_atomic(path, _bytes(found, mark))
                say(f"chromosome {name}: {len(columns)} variants")
            else:
                say(f"chromosome {name}: done before, {path}")
            yield name, found


def _computed(
    files: FileSet,
    parts: Sequence[Part],
    columns: np.ndarray,
    pool: ThreadPoolExecutor,
    workers: int,
    asked: Callable[[], bool],
) -> Chromosome:
    tested = max(len(p.rows_N) for p in parts)
    size = int(np.clip(BLOCK_BYTES // (len(files.people) + 24 * tested), 16, MOST_BLOCK))
    size = min(size, max(16, -(-len(columns) // workers)))
    blocks = [columns[i : i + size] for i in range(0, len(columns), size)]
    done: list[Chromosome] = []
    # In rounds: results of blocks far ahead would wait in memory, and a stop would wait for them.
    for i in range(0, len(blocks), 2 * workers):
        if asked():
            raise Stopped("stopped; the chromosomes that are done are kept. The same command goes on from there")
        done += pool.map(lambda block: _block(files, parts, block), blocks[i : i + 2 * workers])
    joined = {n: np.concatenate([getattr(c, n) for c in done], -1) for n in ARRAYS}
    return Chromosome(**joined)


def _block(files: FileSet, parts: Sequence[Part], columns: np.ndarray) -> Chromosome:
    count_MN = files.counts(columns)
    is_first_M, frequency_M = allele_tested(count_MN, files.founders_N)
    # Counting the other allele changes the sign of beta and nothing else.
    sign_M = np.where(is_first_M, 1.0, -1.0)
    shape = (sum(len(p.phenotypes) for p in parts), len(columns))
    floats = {n: np.full(shape, np.nan) for n in ARRAYS[:4]}
    n_PM, code_PM = np.zeros(shape, np.int32), np.full(shape, TOO_FEW, np.int8)
    for part in parts:
        e: Estimates = associate(part.model, np.ascontiguousarray(count_MN[:, part.rows_N]))
        at = part.phenotypes
        floats["beta_PM"][at], floats["t_PM"][at] = e.beta_PM * sign_M, e.t_PM * sign_M
        floats["se_PM"][at], floats["log10_p_PM"][at] = e.se_PM, e.log10_p_PM
        n_PM[at], code_PM[at] = e.n_M, e.code_M
    return Chromosome(**floats, n_PM=n_PM, code_PM=code_PM, is_first_M=is_first_M, frequency_M=frequency_M)


def _bytes(found: Chromosome, mark: str) -> bytes:
    file = io.BytesIO()
    np.savez(file, mark=np.array(mark), **{n: getattr(found, n) for n in ARRAYS})
    return file.getvalue()


def _kept(path: Path, mark: str) -> Chromosome | None:
    """What is there of the same things; None for nothing, something else, or a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["mark"]) != mark:
                return None
            return Chromosome(**{n: stored[n] for n in ARRAYS})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, DataError) as e:
        print(f"{path} is damaged ({type(e).__name__}) and computed again", flush=True)
        return None


def cores() -> int:
    return len(os.sched_getaffinity(0))
