"""The demo cohort of an eighth of its patients, as tests of training have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trainer.launching import small_cohort


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_cohort(tmp_path_factory.mktemp("few"))
