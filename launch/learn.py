"""Does pre-training help? `python launch/learn.py [--methods gimp,mgi] [--seeds 0,1,2] [section.key=value ...]`.

Pre-trains every method with its demo recipe on the demo cohort's training patients, then compares linear probes of planted labels on
the trained encoder and on the same encoder before its first step (trainer/probe/probe.py). The patients that are compared on (splits `val`
and `test`) take part in nothing else: nothing is selected on them. A run that is already in --out is not trained again.
Exit status: 0 every method beats its random start on its decisive label, 1 one does not, 2 something to change in the input.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.probe.probe import Comparison

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("severity", "subtype")
# The label that decides, settled while the recipes were tuned on another draw of the cohort. Severity, which images show by their
# lesions, is what image, genes and report share. GiMP is told the subtype of training patients and pulls slides together by it;
# mrm_relation with standardised patches learns the faint texture that tells the subtype rather than the lesions.
DECISIVE = {"gimp": "subtype", "mrm_relation": "subtype"}
HELD_OUT = ("val", "test")


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(
        prog="learn.py", description="Pre-trained encoders against their random starts, on the demo cohort."
    )
    p.add_argument("--methods", help="comma-separated; all by default")
    p.add_argument(
        "--seeds", default="0,1,2", help="comma-separated; every seed is a pre-training run and a random start"
    )
    p.add_argument("--out", type=Path, default=Path("runs/learn"), help="where the runs go, METHOD-SEED each")
    p.add_argument("--report", type=Path, default=Path("report/learn.json"), help="where the result goes")
    p.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="configuration of all runs, e.g. steps=100"
    )
    add_all(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from models.contract import MethodError
    from models.registry import get_method, pretrained_names
    from shards.errors import DataError, told
    from trainer.errors import EXIT_BUG, EXIT_OK, EXIT_USER, UserError

    try:
        methods = args.methods.split(",") if args.methods else pretrained_names()
        seeds = seeds_of(args.seeds)
        for name in methods:
            if not get_method(name).outline:
                raise UserError(
                    f"--methods {name}: it learns from a task's labels alone, there is nothing to pre-train; leave it out"
                )
        results = {}
        for name in methods:
            outs = [pretrained(name, seed, args.out, args.overrides) for seed in seeds]
            results[name] = compared(outs)
            print(table({name: results[name]}, seeds), flush=True)
        write(args.report, results, methods, seeds, args.overrides)
    except (UserError, MethodError, DataError) as e:
        print(f"error: {told(e)}", file=sys.stderr)
        return EXIT_USER
    except subprocess.CalledProcessError as e:
        print(
            f"error: {' '.join(map(str, e.cmd))} ended with status {e.returncode}; its output is above", file=sys.stderr
        )
        return EXIT_BUG
    print(f"\n{table(results, seeds)}\n{LEGEND}\n{args.report}")
    return EXIT_OK if all(r[decisive(m)].better for m, r in results.items()) else EXIT_BUG


def seeds_of(text: str) -> list[int]:
    """Raises: UserError: not different whole numbers."""
    from trainer.errors import UserError

    seeds = [int(s) for s in text.split(",") if s.strip().isdigit()]
    if not seeds or len(set(seeds)) != len(text.split(",")):
        raise UserError(f"--seeds {text}: give different whole numbers, for example 0,1,2")
    return seeds


def pretrained(method: str, seed: int, out: Path, overrides: Sequence[str]) -> Path:
    """The folder of a finished run of the demo recipe; trains it, or goes on with it, if it is not finished.

    Raises:
        CalledProcessError: the run failed.
    """
    folder = out / f"{method}-{seed}"
    words = [f"seed={seed}", f"out={folder}", "data.val_split=''", "log.tensorboard=false", "log.every=100", *overrides]
    command = [
        sys.executable,
        str(ROOT / "launch" / "pretrain.py"),
        "--method",
        method,
        "--recipe",
        "demo",
        *words,
    ]
    before = time.monotonic()
    subprocess.run(
        command, check=True, cwd=Path.cwd(), env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
    )
    print(f"{method}, seed {seed}: {time.monotonic() - before:.0f} s", flush=True)
    return folder


def compared(outs: Sequence[Path]) -> dict[str, Comparison]:
    """By label, the finished runs of one method (one a seed) against their random starts."""
    import numpy as np

    from trainer.probe.probe import compare, encoders_of, features, probe

    scores: dict[str, dict[str, list[Any]]] = {label: {"pretrained": [], "random": []} for label in LABELS}
    answers: dict[str, Any] = {}
    for out in outs:
        data, encoders = encoders_of(out)
        (dataset,) = data.datasets
        kinds = {label: data.schema.labels[label].kind for label in LABELS}
        for which, method in encoders.items():
            train, held_out = (features(method, dataset, splits, LABELS) for splits in ([data.split], HELD_OUT))
            for label in LABELS:
                _, score_P, answers[label] = probe(kinds[label], train[label], held_out[label])
                scores[label][which].append(score_P)
        data.close()
    return {
        n: compare(kinds[n], np.stack(scores[n]["pretrained"]), np.stack(scores[n]["random"]), answers[n])
        for n in LABELS
    }


LEGEND = (
    "Linear probes on held-out patients. difference: pre-trained minus random start, mean over seeds; over patients: 95 % interval from\n"
    "resampling held-out patients (paired); over seeds: 95 % interval of Student's t over seeds.\n"
    "* the label that decides; better: in every seed, and over patients."
)


def decisive(method: str) -> str:
    return DECISIVE.get(method, LABELS[0])


def table(results: dict[str, dict[str, Comparison]], seeds: Sequence[int]) -> str:
    """The result as text, a line a method and label."""
    lines = [
        f"{'method':<14}{'label':<12}{'metric':<10}{'pre-trained':>20}{'random start':>20}{'difference':>12}"
        f"{'over patients':>18}{'over seeds':>18}  better"
    ]
    for method, by_label in results.items():
        for label, c in by_label.items():
            one, two = (" ".join(f"{v:.3f}" for v in values) for values in (c.pretrained, c.random))
            spans = "".join(f"{span(i):>18}" for i in (c.over_patients, c.over_seeds))
            verdict = "yes" if c.better else "no"
            marked = label + (" *" if label == decisive(method) else "")
            lines.append(
                f"{method:<14}{marked:<12}{c.metric:<10}{one:>20}{two:>20}{c.difference:>+12.3f}{spans}  {verdict}"
            )
    return "\n".join(lines)


def span(interval: tuple[float, float] | None) -> str:
    return f"{interval[0]:+.3f} to {interval[1]:+.3f}" if interval else "-"


def write(
    path: Path,
    results: Mapping[str, Mapping[str, Comparison]],
    methods: Sequence[str],
    seeds: Sequence[int],
    overrides: Sequence[str],
) -> None:
    from dataclasses import asdict

    from trainer.state.files import write_atomic
    from trainer.state.run_folder import versions

    content = {
        "seeds": list(seeds),
        "overrides": list(overrides),
        "held_out": list(HELD_OUT),
        "decisive": {m: decisive(m) for m in methods},
        "versions": versions(),
        "results": {m: {n: {**asdict(c), "better": c.better} for n, c in results[m].items()} for m in methods},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(content, indent=1).encode())


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
