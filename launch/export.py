"""A finished run, or a fine-tune of one, for others: `python launch/export.py RUN --to timm|safetensors [--out DIR] [--results PATH ...]
[--licence TERMS] [--commercial yes|no|unknown] [--citation TEXT]`.

`timm`: the image encoder, as a folder that `timm.create_model("local-dir:DIR", pretrained=True)` loads. `safetensors`: all of the
method, as a folder that medpair builds again without the data set. Both come with a model card (docs/finetune.md).
Exit status: 0 done, 2 something to change in the input, 1 anything else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def parser() -> argparse.ArgumentParser:
    from shards.errors import add_all

    p = argparse.ArgumentParser(prog="export.py", description="A finished run as files for others.")
    p.add_argument("run", type=Path, help="the out=FOLDER of a finished run, or of a fine-tune of one")
    p.add_argument("--to", required=True, choices=("timm", "safetensors"))
    p.add_argument("--out", type=Path, help="a new folder; RUN/export/TO by default")
    p.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="PATH",
        help="fine-tuning results of this run for the card: result.json files, or folders of them",
    )  # fmt: skip
    of = "of every part that states none, or NAME=%s of a data set or a file of first weights; may be given again"
    p.add_argument("--licence", action="append", default=[], metavar="[NAME=]TERMS", help=f"licence {of % 'TERMS'}")
    p.add_argument("--commercial", action="append", default=[], metavar="[NAME=]yes|no|unknown",
                   help=f"whether commercial use is allowed {of % 'WORD'}")  # fmt: skip
    p.add_argument("--citation", action="append", default=[], metavar="[NAME=]TEXT", help=f"citation {of % 'TEXT'}")
    add_all(p)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from models.contract import MethodError
    from shards.errors import told
    from trainer.errors import EXIT_OK, EXIT_USER, UserError
    from trainer.export.export import export
    from trainer.export.terms import Stated

    stated = Stated(args.licence, args.commercial, args.citation)
    try:
        folder, said = export(args.run, args.to, args.out, args.results, stated)
    except (UserError, MethodError) as e:
        print(f"error: {told(e)}", file=sys.stderr)
        return EXIT_USER
    print(f"{folder}: {said}\n{folder / 'README.md'} is its model card: read it before passing the folder on")
    return EXIT_OK


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from shards.terminal import ends_with_its_reader

    sys.exit(ends_with_its_reader(main)())
