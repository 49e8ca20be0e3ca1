"""Under which terms data are, and how they are to be cited: words of people, which decide nothing of what a run reads.

licence     the terms by name, such as CC-BY-4.0, or of an agreement
commercial  whether commercial use is allowed: yes, no, unknown
citation    what its owners ask to be cited

They stand in dataset.json and do not count for its fingerprint. An empty word was never stated; `unknown` is a statement.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from shards.errors import bad
from shards.format.info import DatasetInfo, load_info, save_info
from shards.format.staging import disk_errors, locked, settle

Commercial = Literal["yes", "no", "unknown"]
COMMERCIAL: tuple[Commercial, ...] = ("yes", "no", "unknown")


@dataclass(frozen=True)
class Terms:
    licence: str = ""
    commercial: str = ""
    citation: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """What was never stated."""
        return tuple(name for name, word in asdict(self).items() if not word)


def add_terms(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """--licence, --commercial and --citation of a command that packs, adopts or states."""
    parser.add_argument(
        "--licence", default=default, metavar="TERMS", help="under which terms, such as CC-BY-4.0; stored"
    )
    parser.add_argument(
        "--commercial", default=default, choices=COMMERCIAL, help="whether commercial use is allowed; stored"
    )
    parser.add_argument("--citation", default=default, metavar="TEXT", help="how its owners ask to be cited; stored")


def restate_terms(folder: Path, licence: str | None, commercial: str | None, citation: str | None) -> DatasetInfo:
    """States terms of a packed data set, those that are given; its fingerprint stays as it is.

    Raises:
        DataError: nothing was given, no data set, a disk that cannot be written.
    """
    given = {"licence": licence, "commercial": commercial, "citation": citation}
    changes = {name: word for name, word in given.items() if word is not None}
    if not changes:
        raise bad(
            "nothing is stated", folder, "give --licence TERMS, --commercial yes, no or unknown, or --citation TEXT"
        )
    settle(folder)
    load_info(folder)  # a folder that is none is refused before anything is made beside it
    with disk_errors(folder, "the data set is as it was"), locked(Path(os.path.realpath(folder))):
        return save_info(folder, load_info(folder).model_copy(update=changes))
