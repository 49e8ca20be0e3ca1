"""What a study is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainer.gwas.clumping import Rules
from trainer.gwas.embeddings import PerPerson
from trainer.gwas.kinship import CUTOFF
from trainer.gwas.scan import cores


@dataclass(frozen=True)
class Settings:
    """random: a seed of random weights in place of the run's. permute: a seed by which people are given each other's embeddings."""

    run: Path
    data: str
    bed: Path
    covariates: Path
    out: Path
    split: str = "test"
    components: int = 10
    per_person: PerPerson = "mean"
    id_column: str | None = None
    leave_out: tuple[str, ...] = ()
    kinship: Path | None = None
    cutoff: float = CUTOFF
    drop_relatives: bool = False
    random: int | None = None
    permute: int | None = None
    rules: Rules = field(default_factory=Rules)
    workers: int = field(default_factory=cores)
