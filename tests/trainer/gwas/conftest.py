"""A run of one step on the demo cohort, and genotypes of its held-back people of which one variant follows a component."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.downstream.conftest import pretraining
from tests.trainer.forking import Forks
from tests.trainer.gwas.plink import blocks, file_set

PLANTED, VARIANTS = 62, 120


@dataclass(frozen=True)
class Study:
    """people: the names of the test split. `words` are those of the command but --out and what a test changes."""

    folder: Path
    run: Path
    data: Path
    people: tuple[str, ...]

    def words(self, **changes: object) -> list[str]:
        """The command line with other files or values: covariates=PATH, None to leave one out."""
        given = {"data": self.data, "bed": self.folder / "g.bed", "covariates": self.folder / "covariates.csv",
                 "components": 4, "p1": 1e-6, "p2": 1e-4, **changes}  # fmt: skip
        return [
            str(self.run),
            *(w for k, v in given.items() if v is not None for w in (f"--{k.replace('_', '-')}", str(v))),
        ]


@pytest.fixture(scope="session")
def study(demo_cohort: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Two chromosomes of variants in blocks; variant 62 is planted: it follows the second component, with noise."""
    from shards.read.dataset import Dataset
    from trainer.gwas.embeddings import embed, held_back, source_of
    from trainer.gwas.phenotypes import principal_components
    from trainer.state.finished import open_run

    folder = tmp_path_factory.mktemp("gwas")
    ended = forks.launch(1, pretraining("mgi", demo_cohort, folder / "run"))
    assert ended.codes == [0], ended.text
    with Dataset.open(demo_cohort) as data:
        run = open_run(folder / "run")
        people = held_back(data, "test", run, False)
        x_ND = embed(source_of(run, False), data, "test", people, "mean", folder / "features")
    score_NP, _ = principal_components(x_ND, 4)
    rng = np.random.default_rng(11)
    names = people.names_N
    count_NM = blocks(rng, len(names), VARIANTS, missing=0.03)
    rank = score_NP[:, 1].argsort().argsort() / len(names) + rng.normal(0, 0.08, len(names))
    count_NM[:, PLANTED] = np.digitize(rank, [0.4, 0.75])
    file_set(folder, count_NM, names, chromosome=["1"] * 60 + ["2"] * 60)
    age_N = rng.normal(60, 8, len(names))
    table(
        folder / "covariates.csv", names, age=age_N.round(1).tolist(), sex=rng.choice(["F", "M"], len(names)).tolist()
    )
    return Study(folder, folder / "run", demo_cohort, names)


def table(path: Path, names: tuple[str, ...], **columns: list[object]) -> Path:
    """A CSV of people and columns."""
    rows = zip(names, *columns.values(), strict=True)
    path.write_text("\n".join([",".join(["person", *columns]), *(",".join(map(str, r)) for r in rows)]) + "\n")
    return path
