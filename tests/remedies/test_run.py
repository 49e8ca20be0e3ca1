"""Each remedy, typed as it is printed, gets its command past the refusal."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remedies import scenario
from tests.remedies.rooms import SCENARIOS
from tests.remedies.scenario import Command, Place, Scenario, applied, commands, read, run


@pytest.fixture(autouse=True)
def _surroundings(demo_cohort: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cohort at hand; a command's own handling of signals ends with the test."""
    monkeypatch.setenv("MEDPAIR_CACHE", str(demo_cohort.parent))
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)}
    yield
    for s, handler in before.items():
        signal.signal(s, handler)


@pytest.mark.slow  # all of them are the dearest file: `make check` asks for coverage alone
@pytest.mark.parametrize("one", SCENARIOS, ids=[s.name for s in SCENARIOS])
def test_the_remedy_works_when_it_is_typed(
    one: Scenario, tmp_path: Path, demo_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path, demo_cohort)
    command = one.build(place)
    status, said = run(command)
    assert (status, one.says in said) == (one.status, True), f"status {status}, without {one.says!r}:\n{said}"
    text = read(one, said, place)
    if one.mend:
        one.mend(place)
        again = Command(command.program, applied(command.words, (), one.instead))
    elif whole := commands(text):
        for typed in [Command("shell", [one.first.format(folder=tmp_path)])] * bool(one.first) + whole:
            status, said = run(typed)
            assert status == 0, f"`{text}` ends with {status}:\n{said}"
        again = command
    else:
        again = Command(command.program, applied(command.words, shlex.split(text), one.instead))
    status, said = run(again)
    assert status == 0, f"with `{text}`: status {status}\n{said}"
    assert one.says not in said, f"with `{text}` it still says:\n{said}"


def test_words_take_the_place_of_what_they_mend() -> None:
    assert applied(["pack", "--dtype", "rna=x"], ["--dtype", "rna=float32"]) == ["pack", "--dtype", "rna=float32"]
    assert applied(["--dtype", "a=x"], ["--dtype", "b=y"]) == ["--dtype", "a=x", "--dtype", "b=y"]
    assert applied(["--out", "a", "m"], ["--out", "b"]) == ["m", "--out", "b"]
    assert applied(["--frozen", "lr=1", "p.lr=2"], ["lr=3"], ["--frozen"]) == ["p.lr=2", "lr=3"]
    assert scenario.commands("python -m shards seal 'a b'") == [Command("shards", ["seal", "a b"])]
