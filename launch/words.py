"""Visual words of a data set's images: `medpair words RUN DATA --out FILE`, for systems that learn to name them.

A word is a place in one training image and in those that are most like it by a finished run's features, one image a patient. The same
command on the same data gives the same words. Nothing but training images is looked at.
Exit status: 0 done, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
if TYPE_CHECKING:
    from shards.read.dataset import Dataset
    from trainer.state.finished import Finished


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="medpair words", description="Visual words of a data set's images.")
    p.add_argument(
        "run", type=Path, help="the out=FOLDER of a finished run of pre-training: its features say what is alike"
    )
    p.add_argument("data", help="data set with a field `image`; `demo` for the built-in cohort")
    p.add_argument("--out", type=Path, required=True, help="the words: a new .json file")
    p.add_argument("--words", type=int, default=50, help="how many (50)")
    p.add_argument("--instances", type=int, default=200, help="images of a word, of as many patients (200)")
    p.add_argument(
        "--margin",
        type=float,
        default=0.125,
        help="least distance of a word from the border, as a share of a side (.125)",
    )
    p.add_argument("--apart", type=float, default=0.01, help="least distance of two words, as a share of a side (.01)")
    p.add_argument("--split", default="train", help="whose images: training images alone (train)")
    p.add_argument("--seed", type=int, default=0)
    add_all(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from trainer.errors import exit_status

    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> None:
    from shards.demo import ensure
    from shards.read.dataset import Dataset
    from trainer.data import demo_folder, shard_cache
    from trainer.errors import UserError
    from trainer.gwas.embeddings import features, source_of
    from trainer.state.files import write_atomic
    from trainer.state.finished import open_encoder

    if problems := _problems(args):
        raise UserError(problems)
    path = str(ensure(demo_folder())) if args.data == "demo" else args.data
    data = Dataset.open(path, cache=shard_cache([path], None, 64.0))
    try:
        run = open_encoder(args.run)
        _no_leak(data, run)
        found = features(source_of(run, False), data, args.split, None)
        patients = data.patients_of(data.subset(args.split).indices)
        images = neighbours(found.x_ND, [str(k) for k in found.keys_N], patients, args)
    finally:
        data.close()
    about = {
        "format": "visual words 1", "split": args.split, "words": args.words, "instances": args.instances, "seed": args.seed,
        "data": data.fingerprint, "encoder": run.sha256(), "images": images,
    }  # fmt: skip
    write_atomic(args.out, json.dumps(about, indent=1).encode())
    print(
        f"{args.out}: {args.words} words in {len(images)} of {len(found.keys_N)} training images, {args.instances} images each"
    )


def _problems(args: argparse.Namespace) -> list[str]:
    problems = []
    if args.split != "train":
        problems.append(
            f"--split {args.split}: words are learned in pre-training, and those of held-back images would be a leak; leave it out"
        )
    if args.out.suffix != ".json":
        problems.append(f"--out {args.out}: words are a .json file; name it so")
    if args.out.exists():
        problems.append(f"--out {args.out}: there already, and runs may name it; give a new name")
    elif not args.out.parent.is_dir():
        problems.append(f"--out {args.out}: there is no folder {args.out.parent}; make it")
    if args.words < 2:
        problems.append(f"--words {args.words}: give at least 2")
    if args.instances < 1:
        problems.append(f"--instances {args.instances}: give at least 1")
    if not 0 <= args.margin < 0.5:
        problems.append(f"--margin {args.margin:g}: give a share from 0 to below 0.5")
    if args.apart < 0:
        problems.append(f"--apart {args.apart:g}: give 0 or more")
    if args.seed < 0:
        problems.append(f"--seed {args.seed}: give 0 or more")
    return problems


def _no_leak(data: Dataset, run: Finished) -> None:
    """Refuses words of people who stand in a held-back split too, and an encoder that learned from held-back people.

    Raises:
        UserError: who they are.
    """
    from shards.format.info import SPLITS
    from shards.tables.identity import few, person
    from trainer.errors import UserError

    of = {s: data.patients_of(data.subset(s).indices) for s in SPLITS if data.info.splits.get(s)}
    training = {person(p) for p in of.get("train", ())}
    held_back = [*dict.fromkeys(p for s, people in of.items() if s != "train" for p in people)]
    problems = []
    if both := [p for p in held_back if person(p) in training]:
        problems.append(
            f"{data.path}: {len(both)} people stand in 'train' and in another split ({few(both)}); split the data set by patient"
        )
    learned, _ = run.overlap(held_back)
    if learned:
        problems.append(
            f"{run.path} learned from {len(learned)} people who are held back in {data.path} ({few(learned)}): words found by it are a "
            "leak; give a run that was trained on this data set's training images"
        )
    if problems:
        raise UserError(problems)


def neighbours(
    x_ND: object, keys: Sequence[str], patients: Sequence[str], args: argparse.Namespace
) -> dict[str, list[list[float]]]:
    """{key: [[word, row, column], ...]}: a place for each word, and the images nearest to one by the cosine, one of each patient.

    Raises:
        UserError: fewer patients than words, or than images of a word.
    """
    import numpy as np

    from models.transforms.visual_words import drawn_places
    from shards.tables.identity import person
    from trainer.errors import UserError

    rng = np.random.default_rng(args.seed)
    chosen: dict[str, int] = {}
    for i in rng.permutation(len(keys)):
        chosen.setdefault(person(patients[i]), int(i))
    at_P = np.array(sorted(chosen.values()))
    if len(at_P) < max(args.words, args.instances):
        raise UserError(
            f"{len(at_P)} patients have training images, fewer than --words {args.words} or --instances {args.instances}; give less"
        )
    unit_PD = np.asarray(x_ND, np.float64)[at_P]
    unit_PD = unit_PD / np.maximum(np.linalg.norm(unit_PD, axis=1, keepdims=True), 1e-12)
    places_W2 = drawn_places(args.words, args.margin, args.apart, rng)
    found: dict[str, list[list[float]]] = {}
    for word, reference in enumerate(rng.permutation(len(at_P))[: args.words]):
        nearest = np.argsort(-(unit_PD @ unit_PD[reference]), kind="stable")[: args.instances]
        for p in nearest:
            found.setdefault(keys[at_P[p]], []).append([word, *(round(float(v), 6) for v in places_W2[word])])
    return dict(sorted(found.items()))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
