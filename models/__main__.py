"""`python -m models list | describe NAME [--markdown] | docs [--check] | tokenizer ...`: the methods, and what each says about itself.

Exit status: 0 done, 1 `docs --check` found a page that is stale, 2 something to change in the input.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TOKENIZER = Path(__file__).resolve().parent.parent / "launch" / "tokenizer.py"


def build_parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m models", description="The methods, and what each says about itself.")
    verbs = p.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="all methods by family, what they learn from and their papers")
    one = verbs.add_parser("describe", help="paper, stages, fields and every option of a method, with defaults")
    one.add_argument("name", help="a method, for example gimp")
    one.add_argument("--markdown", action="store_true", help="as a page")
    docs = verbs.add_parser("docs", help="write the generated tables of README.md and docs/methods/ anew")
    docs.add_argument("--check", action="store_true", help="write nothing; say which pages are stale")
    made = verbs.add_parser("tokenizer", help="a code book of a data set's images (medpair tokenizer)", add_help=False)
    made.add_argument("words", nargs=argparse.REMAINDER)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["tokenizer"]:
        # Models see no data: it is another command, which is started and not imported.
        return subprocess.run([sys.executable, str(TOKENIZER), *argv[1:]]).returncode
    args = build_parser().parse_args(argv)
    from models.contract import MethodError

    try:
        if args.verb == "docs":
            return _docs(args.check)
        from models.describe import description, listing

        print(listing() if args.verb == "list" else description(args.name, args.markdown))
    except MethodError as e:
        print("\n".join(f"error: {p}" for p in e.problems), file=sys.stderr)
        return 2
    return 0


def _docs(check: bool) -> int:
    from models.contract import MethodError
    from models.describe import ROOT, stale

    if not (ROOT / "docs").is_dir():
        raise MethodError([f"{ROOT} holds no docs/: the tables are written in a checkout"])
    found = stale()
    for page, text in found.items():
        if not check:
            page.write_text(text)
        print(f"{page.relative_to(ROOT)}: {'stale; renew it with python -m models docs' if check else 'renewed'}")
    return 1 if check and found else 0


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # `... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    sys.exit(status)
