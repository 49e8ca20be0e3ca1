"""Files by patterns: those that pathlib finds, in the order of sorted paths."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shards.format.archive import no_twins
from shards.layout.walk import Walk, misnamed, other_case

PATTERNS = (
    "*",
    "a*",
    "**/*.x",
    "*/b*",
    "**/b/*",
    "a/**/c*",
    "**/a/**/*.x",
    "a/b",
    "*/*/*",
    "?",
    "[ab]*",
    "**",
    "a/*/b",
    "b/**",
)


def tree(root: Path, rng: random.Random) -> None:
    (root / "a").mkdir(parents=True)
    (root / "b").mkdir()
    for _ in range(200):
        path = root / "/".join(rng.choice(["a", "b", "c", "ab", "b.x", "._c", ".h"]) for _ in range(rng.randint(1, 4)))
        if any(p.is_file() for p in (path, *path.parents)) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if rng.random() < 0.4 else path.touch()
    (root / "a" / "link").symlink_to(root / "b")
    (root / "broken").symlink_to(root / "nowhere")


@pytest.mark.parametrize("seed", range(3))
def test_finds_what_pathlib_does(seed: int, tmp_path: Path) -> None:
    rng, root = random.Random(seed), tmp_path / "root"
    tree(root, rng)
    for _ in range(60):
        patterns = rng.sample(PATTERNS, rng.randint(1, 3))
        paths = no_twins({p for pattern in patterns for p in root.glob(pattern) if p != root})
        wanted = [p.relative_to(root).as_posix() for p in paths]
        walk = Walk(root, patterns)
        assert [*walk.names()] == wanted, patterns
        assert sorted(walk.names(in_order=False)) == sorted(wanted), patterns
        files = [n for n in wanted if (root / n).is_file()]
        assert sorted(walk.files()) == sorted(files), patterns
        assert walk.passed == len(wanted) - len(files)


def test_a_folder_that_may_not_be_read_or_is_none_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert [*Walk(tmp_path, ["file/*", "nowhere/*", "*/x"]).names()] == []


def test_a_command_that_renames_names_no_other_file(tmp_path: Path) -> None:
    """By the ending alone masks of another field would be renamed with the films, and a film that is there written over."""
    for name in ("f/1.PNG", "f/2.PNG", "m/1.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pairs = [("f/1.PNG", "f/1.png"), ("f/2.PNG", "f/2.png")]
    fix = other_case(pairs, "", tmp_path).fix
    assert fix.startswith(f"find {tmp_path}/f -name ")
    assert "mv -n " in fix
    assert other_case(pairs[:1], "", tmp_path).fix == "rename these alone, such as f/1.PNG to f/1.png"
    assert misnamed(pairs, tmp_path) == pairs
    (tmp_path / "f/1.png").touch()
    assert misnamed(pairs, tmp_path) == pairs[1:], "the right name is there: the other is of no row"


def test_where_case_makes_no_difference_the_right_name_is_the_same_file(tmp_path: Path) -> None:
    """Of such a disk both names open one file: two hard links here."""
    (tmp_path / "1.PNG").touch()
    (tmp_path / "1.png").hardlink_to(tmp_path / "1.PNG")
    assert misnamed([("1.PNG", "1.png")], tmp_path) == [("1.PNG", "1.png")]
