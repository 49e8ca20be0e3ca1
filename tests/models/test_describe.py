"""What methods say about themselves, and that the tables of the docs are what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Literal

import pytest

from models import describe
from models.__main__ import main
from models.claims import claim_list, claims, recipes
from models.contract import Method, MethodError, Options
from models.registry import get_method, method_names


def test_the_tables_of_the_docs_are_those_of_the_code():
    """`python -m models docs` renews them."""
    assert not [str(p) for p in describe.stale()]


class Part(Options):
    size: int = 7
    """Pixels | of
    a side."""


class Example(Method):
    class Options(Options):
        image: Part = Part()
        mode: Literal["a", "b"] | None = None
        """One of two."""
        on: bool = True
        """Whether."""
        scale: tuple[float, float] = (0.5, 1.0)
        """From, to."""


def test_a_row_an_option_with_default_choices_and_meaning():
    assert describe.option_table(Example).splitlines()[2:] == [
        "| `image.size` | `7` | Pixels \\| of a side. |",
        "| `mode` | `none given` | One of two. (`a`, `b`) |",
        "| `on` | `true` | Whether. |",
        "| `scale` | `[0.5, 1.0]` | From, to. |",
    ]


def write_docs(root):
    """Pages of all methods with empty blocks."""
    (root / "docs" / "methods").mkdir(parents=True)
    for page, parts in describe.blocks().items():
        empty = "\n\n".join(f"{describe.BEGIN.format(name)}\n{describe.END.format(name)}" for name in parts)
        text = f"# A page\n\nState: tried\nonce.\n\n{empty}\n\nThe end.\n"
        (root / page.relative_to(describe.ROOT)).write_text(text)


def test_blocks_are_written_and_then_fresh(tmp_path, monkeypatch, capsys):
    write_docs(tmp_path)
    monkeypatch.setattr(describe, "ROOT", tmp_path)
    monkeypatch.setattr(describe.stale, "__defaults__", (tmp_path,))
    assert main(["docs", "--check"]) == 1
    assert "README.md: stale" in capsys.readouterr().out
    assert main(["docs"]) == 0
    assert main(["docs", "--check"]) == 0
    text = (tmp_path / "README.md").read_text()
    table = (tmp_path / "docs" / "systems.md").read_text()
    assert text.startswith("# A page\n")
    assert text.endswith("\nThe end.\n")
    for name in method_names():
        assert f"[`{name}`](docs/methods/{name}.md)" in text
        assert re.search(
            rf"^\| \[`{name}`\]\(methods/{name}.md\) \| {describe.places()[name].family} \|.*\| tried once \|$",
            table,
            re.M,
        )
        first = next(describe.options_of(get_method(name).Options)).name
        assert f"| `{first}` |" in (tmp_path / "docs" / "methods" / f"{name}.md").read_text()


def test_pages_without_their_lines_are_told_all_at_once(tmp_path):
    write_docs(tmp_path)
    (tmp_path / "docs" / "methods" / "gimp.md").write_text("State: tried.\n")
    (tmp_path / "docs" / "methods" / "mgi.md").write_text("State: tried.\n")
    with pytest.raises(MethodError) as raised:
        describe.stale(tmp_path)
    assert [p.partition(":")[0] for p in raised.value.problems] == ["docs/methods/gimp.md"] * 2 + [
        "docs/methods/mgi.md"
    ] * 2
    assert "write these two lines where its recipes go" in raised.value.problems[1]
    (tmp_path / "docs" / "methods" / "gimp.md").unlink()
    (tmp_path / "docs" / "methods" / "mae.md").write_text("# MAE\n")
    with pytest.raises(MethodError) as raised:
        describe.stale(tmp_path)
    told = [p.partition(": write")[0] for p in raised.value.problems]
    without = "docs/methods/{}.md has no paragraph 'State: ...', which docs/systems.md shows; write it"
    assert told[:2] == [without.format("mae"), without.format("gimp")]  # as the families stand
    assert sorted(told[2:]) == sorted([f"docs/methods/{n}.md" for n in ("gimp", "mae", "mgi")] * 2)


def test_recipes_that_are_not_there_are_told(tmp_path):
    (tmp_path / "demo.yaml").write_text(RECIPE)
    with pytest.raises(MethodError) as raised:
        describe.recipe_list(tmp_path)
    assert [p.split(";")[0] for p in raised.value.problems] == [
        f"configs/methods/{tmp_path.name} has no {n}.yaml" for n in ("recommended", "paper")
    ]


RECIPE = """# Toy as recommended:
# small.
# Command:   medpair toy out=runs/toy      (no data given)
# Hardware:  a laptop
# Time:      a minute
# Expected:  acc above 0.9,
#            from 0.5
seed: 0  # Measured:  not here
"""


def test_claims_of_a_recipe(tmp_path):
    for name in ("demo", "multi", "recommended"):
        (tmp_path / f"{name}.yaml").write_text(RECIPE)
    assert [p.stem for p in recipes(tmp_path)] == ["recommended", "demo", "multi"]
    assert claims(tmp_path / "demo.yaml")["Expected"] == "acc above 0.9, from 0.5"
    assert claim_list(tmp_path).split("\n\n**")[0].splitlines() == [
        "**`recommended`** Toy as recommended: small.",
        "",
        "- Command: `medpair toy out=runs/toy` (no data given)",
        "- Hardware: a laptop",
        "- Time: a minute",
        "- Expected: acc above 0.9, from 0.5",
    ]
    (tmp_path / "demo.yaml").write_text(RECIPE.replace("# Time:", "# Took:").replace("# Hardware:", "# On:"))
    with pytest.raises(MethodError, match=r"no claim '# Hardware: (?s:.*)no claim '# Time: "):
        claims(tmp_path / "demo.yaml")


def test_list_and_describe_say_it(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert all(n in said and get_method(n).paper in said for n in method_names())
    assert main(["describe", "gimp"]) == 0
    said = capsys.readouterr().out
    for part in (
        "MICCAI 2023",
        "slides",
        "stage gene",
        "reads rna",
        "  margin = 0.8",
        "Triplet margin (delta).",
        "semi_hard",
    ):
        assert part in said
    assert main(["describe", "gimp", "--markdown"]) == 0
    assert describe.option_table(get_method("gimp")) in capsys.readouterr().out


def test_an_unknown_method_is_one_error_with_the_nearest_name(capsys):
    assert main(["describe", "gimb"]) == 2
    assert capsys.readouterr().err == "error: no method 'gimb'; did you mean 'gimp'?\n"


def test_a_reader_that_leaves_is_no_crash():
    run = f"set -o pipefail; {sys.executable} -m models describe mrm_relation | head -c 1"
    done = subprocess.run(["bash", "-c", run], cwd=describe.ROOT, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 141)
