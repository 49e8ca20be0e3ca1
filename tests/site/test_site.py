"""The documentation as a site: it is built without a warning, holds every page, and asks nobody for anything."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

from tests.launch import chromium

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def built(out: Path, **changes: Any) -> Any:
    """The site in a folder, as `make docs` builds it."""
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(out), **changes)
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    config.plugins.run_event("startup", command="build", dirty=False)
    build(config)
    return config


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built(out)
    return out


def listed(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for part in entry.values() if isinstance(entry, dict) else [entry]:
            yield from listed(part) if isinstance(part, list) else [part]


def test_every_page_is_built_and_in_the_navigation(site: Path) -> None:
    pages = [p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md") if "_site" not in p.parts]
    config = load_config(str(ROOT / "mkdocs.yml"))
    nav = [*listed(config.plugins.run_event("config", config).nav)]
    assert len(nav) == len(set(nav))
    assert set(pages) <= set(nav)
    assert nav.index("sites.md") < nav.index("methods/index.md"), "a page that mkdocs.yml does not name is a guide"
    for name in nav:
        assert (site / name.replace("README.md", "index.md")).with_suffix(".html").is_file(), name


def test_no_page_fetches_from_elsewhere(site: Path) -> None:
    """Neither scripts nor fonts nor pictures: many hospitals have no way out."""
    asked = re.compile(r"<(?:script|img|iframe|link)[^>]+(?:src|href)=\"?(https?://[^\s\">]+)")
    found = {u for p in site.rglob("*.html") for u in asked.findall(p.read_text())}
    assert not found
    assert not [p.name for p in site.rglob("*.css") if "fonts.googleapis" in p.read_text()]


SHOWN = (
    "index",
    "start",
    "examples/compare",
    "layouts",
    "methods/index",
    "methods/gimp",
    "reference/messages",
    "results/tables",
)


def test_pages_fit_their_window_and_have_their_pictures(site: Path, tmp_path: Path) -> None:
    """In a browser on a desk and on a phone: tables and blocks scroll by themselves, the page never sideways."""
    chromium.needed()
    with chromium.browser(tmp_path) as b:
        for width in (1280, 390):
            for name in SHOWN:
                b.open(site / f"{name}.html", width)
                assert b.run("document.documentElement.scrollWidth") <= width, f"{name} at {width}"
                assert not b.run("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)"), name


def test_links_lead_to_files(site: Path) -> None:
    """Somebody opens site/index.html without a server: a link to a folder would show its files."""
    of_pages = re.compile(r"<a [^>]*href=\"?([^\"#>\s:]+)[\"#>\s]")
    for page in site.rglob("*.html"):
        if page.name != "404.html":
            for link in of_pages.findall(page.read_text()):
                assert (page.parent / link).is_file(), f"{page.relative_to(site)}: {link}"


def test_what_is_made_from_the_code_is_there(site: Path) -> None:
    said = {
        n: (site / f"reference/{n}.html").read_text() for n in ("commands", "keys", "exit-status", "files", "messages")
    }
    assert "medpair shards terms" in said["commands"]
    assert "protocol.batch" in said["keys"]
    assert "<td>75</td>" in said["exit-status"]
    assert "patients.txt" in said["files"]
    assert "no such folder" in said["messages"]
    differ = (site / "differ.html").read_text()
    assert "Table 1 of Jin et al. 2023" in differ
    assert "is no fraction of 189 or 190 cases" in differ
    assert 'href="methods/gimp.html#why-might-my-number-differ"' in differ


def test_each_published_table_says_why_a_number_might_differ() -> None:
    tables = {p.stem for p in (ROOT / "configs/sweep").glob("*-table*.yaml")}
    assert {p.stem for p in (ROOT / "docs/_site/differ").glob("*.md")} == tables


def test_a_dead_link_ends_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# A\n\n[b](gone.md) [c](#nowhere)\n")
    with pytest.raises(Abort, match="2 warnings in strict mode"):
        built(tmp_path / "out", docs_dir=str(docs), hooks=[], nav=["index.md"])
