"""Genome-wide association of a run's embeddings: `python launch/gwas.py RUN --data DATA --bed FILE --covariates TABLE`.

Principal components of the embeddings of people whom the encoder did not learn from, against every autosomal variant of a PLINK file
set; tables, clumps, Manhattan and QQ plots (docs/gwas.md). One process, all cores; the same command goes on by chromosome where it stopped.
Exit status: 0 done, 75 stopped and resumable, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="gwas.py", description="Genome-wide association of a run's embeddings.")
    p.add_argument("run", type=Path, help="the out=FOLDER of a finished run of pre-training")
    p.add_argument("--data", required=True, help="data set with the images of people who are tested")
    p.add_argument(
        "--bed",
        type=Path,
        required=True,
        help="PLINK 1 .bed, with .bim and .fam beside it; people by the data set's names",
    )
    p.add_argument(
        "--covariates",
        type=Path,
        required=True,
        help="table of people (first column, or IID) and covariates: sex, age, genetic components",
    )
    p.add_argument("--out", type=Path, help="where results go (RUN/gwas; with a control RUN/gwas-CONTROL-SEED)")
    p.add_argument("--split", default="test", help="the split whose people are tested (test)")
    p.add_argument("--components", type=_whole(1), default=10, help="principal components of the embeddings (10)")
    p.add_argument(
        "--per-person",
        choices=("mean", "first"),
        default="mean",
        help="a person's embedding: mean of the images (default), or the first",
    )
    p.add_argument("--id-column", help="the covariates' column of people")
    p.add_argument(
        "--leave-out", type=_names, default=(), metavar="NAME,NAME", help="columns of the table that are no covariates"
    )
    p.add_argument(
        "--kinship", type=Path, help="table of pairs with KINSHIP, of KING, plink2 or UK Biobank: relatives are refused"
    )
    p.add_argument(
        "--relatives", choices=("refuse", "drop"), default="refuse", help="drop: leave people out until there are none"
    )
    p.add_argument(
        "--kinship-cutoff",
        type=_between(0, 0.5),
        default=2**-4.5,
        help="kinship from which two people are relatives (.0442)",
    )
    p.add_argument(
        "--random", type=_whole(0), metavar="SEED", help="control: the run's architecture with random weights"
    )
    p.add_argument(
        "--permute", type=_whole(0), metavar="SEED", help="control: people are given each other's embeddings"
    )
    clumping(p)
    p.add_argument("--workers", type=_whole(1), help="threads (all cores)")
    add_all(p)
    return p


def clumping(p: argparse.ArgumentParser) -> None:
    """The thresholds of clumps, by PLINK's names."""
    p.add_argument("--p1", type=_between(0, 1), default=5e-8, help="largest P of a clump's index variant (5e-8)")
    p.add_argument("--p2", type=_between(0, 1), default=1e-7, help="members of a smaller P are listed (1e-7)")
    p.add_argument(
        "--r2", type=_between(0, 1), default=0.1, help="haplotype r2 above which a variant joins a clump (.1)"
    )
    p.add_argument(
        "--kb",
        type=_between(0, 1e6),
        default=150.0,
        help="and the distance it must be within, in 1000 base pairs (150)",
    )


def _whole(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least {least}")
        return int(text)

    return read


def _between(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low < value <= high:
            raise argparse.ArgumentTypeError(f"{text}: give a number above {low:g}, at most {high:g}")
        return value

    return read


def _names(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (n.strip() for n in text.split(","))))


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from trainer.errors import exit_status

    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from trainer.errors import UserError
    from trainer.runtime import StopFlag, choose_accelerator, environment_world

    if environment_world() > 1:
        raise UserError("one process uses all cores: start it with python, not with a launcher of ranks")
    if args.p2 < args.p1:
        raise UserError(f"--p2 {args.p2:g} is below --p1 {args.p1:g}: members are listed below p2, which is p1 or more")
    if args.random is not None and args.permute is not None:
        raise UserError("random weights and permuted people are two controls; take one at a time")
    choose_accelerator()
    from trainer.gwas.clumping import Rules
    from trainer.gwas.results import lines
    from trainer.gwas.run import Settings, gwas
    from trainer.gwas.scan import cores

    control = "".join(f"-{n}-{v}" for n, v in (("random", args.random), ("permuted", args.permute)) if v is not None)
    out = args.out or args.run / f"gwas{control}"
    settings = Settings(
        args.run, args.data, args.bed, args.covariates, out, args.split, args.components, args.per_person, args.id_column, args.leave_out,
        args.kinship, args.kinship_cutoff, args.relatives == "drop", args.random, args.permute,
        Rules(args.p1, args.p2, args.r2, args.kb), args.workers or cores(),
    )  # fmt: skip
    stop = StopFlag().install()
    summary = gwas(settings, lambda: stop.asked is not None, lambda line: print(line, flush=True))
    print("\n".join(lines(summary, out)))


if __name__ == "__main__":
    # The code of the checkout that this file stands in, whatever else is installed.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
