"""A twentieth of the fuzz of the readers (tests/fuzz/readers.py); a tenth under `grid`."""

from __future__ import annotations

import pytest

from tests.fuzz.readers import SHARE, Failed, Outcomes, campaign, one, table


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("species", SHARE)
@pytest.mark.parametrize("cases", [500, pytest.param(1_000, marks=pytest.mark.grid)])
def test_mutated_inputs_are_read_rightly_or_refused_by_name(species: str, cases: int) -> None:
    found = campaign(round(cases * SHARE[species]), seed=0, only=species)
    print(table(found))
    [outcomes] = found.values()
    assert not outcomes.failures, "\n".join(outcomes.failures)
    assert outcomes.counts["refused"], "mutations reach the guards"


def test_the_fuzz_sees_other_exceptions_and_strays(tmp_path) -> None:
    out = Outcomes()

    def case(base, work, rng, before):
        if before == "stray":
            (work.parent / "stray").write_text("")
        elif before == "crash":
            raise KeyError("x")
        elif before == "changed":
            raise Failed("samples changed")
        return "nothing", "the same"

    for i, kind in enumerate(("stray", "crash", "changed", "fine")):
        one(case, tmp_path, kind, tmp_path / "case", None, str(i), out)
        (tmp_path / "stray").unlink(missing_ok=True)
    assert out.counts == {"FAILED": 3, "the same": 1}
    assert ["outside" in out.failures[0], "KeyError" in out.failures[1]] == [True, True]
