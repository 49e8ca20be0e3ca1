"""Each block of commands of the docs is run by a test, or docs/site.md names it with the reason."""

from __future__ import annotations

import ast
import re
from collections import Counter

from tests.cluster import test_guides as on_slurm
from tests.site import test_guides_data as of_data
from tests.site import test_guides_runs as of_runs
from tests.site.guides import ROOT, commands, guides, the

ELSEWHERE = {
    on_slurm.GUIDE: "tests/cluster/test_guides.py::test_the_blocks_run",
    on_slurm.EXAMPLE: "tests/cluster/test_guides.py::test_the_blocks_run",
    "api.md: encoder =": "tests/trainer/test_embedding.py::test_the_lines_of_the_docs",
    "api.md: data =": "tests/trainer/test_embedding.py::test_the_lines_of_the_docs",
    "predict.md: image, rows": "tests/site/test_commands.py::test_cohorts_of_two_hospitals_are_made",
    "sites.md: image, rows": "tests/site/test_commands.py::test_cohorts_of_two_hospitals_are_made",
    "webdataset.md: def loader_of": "tests/shards/test_stream.py::test_the_example_of_the_docs_runs",
    "webdataset.md: source =": "tests/shards/test_stream.py::test_the_example_of_the_docs_runs",
}
"""By the beginning of a block's name: the test that runs it."""
RUN = (
    of_data.PLACES,
    of_runs.PLACES,
    of_runs.ON_RANKS,
    of_runs.ON_REAL_DATA,
    of_runs.ON_RANKS_AND_REAL_DATA,
    ELSEWHERE,
)
LISTED = re.compile(r"^\| `([^`]+)` \| ([^|]+) \|$", re.M)


def test_every_block_is_run_or_named_with_its_reason() -> None:
    known = [the(name).name for some in RUN for name in some]
    left_out = dict(LISTED.findall((ROOT / "docs/site.md").read_text()))
    assert not (set(known) & set(left_out)), "run, and named as not run"
    assert Counter(g.name for g in guides()) == Counter([*known, *left_out])
    assert len(left_out) <= 10, "a short list"


def test_the_tests_that_are_named_exist() -> None:
    for path, name in (t.split("::") for t in ELSEWHERE.values()):
        tree = ast.parse((ROOT / path).read_text())
        assert name in {f.name for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)}, f"{path}::{name}"


def test_what_a_line_asks_for() -> None:
    words = [(c.words, c.world) for c in commands(the("finetune.md: deepspeed --num_gpus 2"), {"runs/mgi": "there"})]
    assert words == [(("finetune", "--task", "demo_lesions", "--method", "mgi", "--init", "there", "inputs=multimodal",
                       "output.decoder=two_way", "controls=[shuffled, missing]", "protocol.epochs=2", "seeds=0"), 2)]  # fmt: skip
    (first, *_) = commands(the("data.md: python -m shards lint"), {"N": "2", "DIR": "there"})
    assert first.words == ("shards", "lint", "there", "--jobs", "2", "--reference", "rna=known_genes.txt")
