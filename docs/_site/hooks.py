"""What MkDocs calls while it builds the site (mkdocs.yml): pages from the code are added, links out of docs/ lead to pages of the site."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

# MkDocs loads this file by its path: neither its folder nor the checkout is found otherwise.
# ruff: noqa: E402
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference import PAGES

DOCS = Path(__file__).parents[1]
LINKS = {
    "../README.md": "overview.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../CHANGELOG.md": "changelog.md",
    "methods": "methods/index.md",
    "results": "results.md",
}
"""Where a link of a page in docs/ leads that means a file of the repository, or a folder."""
MARK = re.compile(r"^```(\w+) (?:run|worked|output|file=).*$", re.M)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Completes the navigation: pages of methods and results, and guides that it does not name."""
    given: dict[str, str | list[str]] = {n: pages for part in config.nav or [] for n, pages in part.items()}
    given |= {"Methods": _pages("methods", "methods/index.md"), "Results": _pages("results", "results.md")}
    named = {p for pages in given.values() for p in _plain(pages)}
    guides = given["Guides"]
    assert isinstance(guides, list)
    given["Guides"] = [*guides, *sorted(p.name for p in DOCS.glob("*.md") if p.name not in named)]
    config.nav = [{n: pages} for n, pages in given.items()]
    return config


def _plain(pages: str | list[Any]) -> list[str]:
    """Names of pages, also of those that have a title."""
    if isinstance(pages, str):
        return [pages]
    return [n for p in pages for n in (_plain(list(p.values())) if isinstance(p, dict) else [p])]


def _pages(folder: str, first: str) -> list[str]:
    return [first, *(f"{folder}/{p.name}" for p in sorted((DOCS / folder).glob("*.md")))]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    # What the tests and tests/site/worked.py know a block by is nothing for a reader.
    markdown = MARK.sub(r"```\1", markdown)
    deeper = page.file.src_uri.count("/")
    links = {"../" * deeper + k: "../" * deeper + v for k, v in LINKS.items() if not deeper or k.startswith("../")}
    return re.sub(r"\]\(([^)#\s]+)", lambda m: f"]({links.get(m[1], m[1])}", markdown)
