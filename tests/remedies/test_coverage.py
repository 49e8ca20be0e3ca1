"""Every message that names something to type is typed by a scenario, or stands in a table with its reason."""

from __future__ import annotations

import ast

import pytest

from tests.remedies.exemptions import EXEMPT, PARTS
from tests.remedies.messages import fixes, names_a_remedy, said
from tests.remedies.rooms import SCENARIOS

WHOLE = 12  # characters of a message between two values that are enough to know it by


def types(says: str, text: str) -> bool:
    return says in text or any(len(part) >= WHOLE and part in says for part in text.split("\x00"))


def untold(messages: tuple[tuple[str, int, str], ...]) -> list[str]:
    """`file:line text` of the messages that nothing types and no table excuses."""
    return [
        f"{file}:{line} {text!r}"
        for file, line, text in messages
        if not any(types(s.says, text) for s in SCENARIOS) and not any(part in text for part in (*EXEMPT, *PARTS))
    ]


def test_every_remedy_is_typed_by_a_scenario_or_excused() -> None:
    assert len(said()) > 200
    assert not untold(said())


def test_the_tables_hold_nothing_that_is_gone() -> None:
    texts = [text for _, _, text in said()]
    assert not [part for part in (*EXEMPT, *PARTS) if not any(part in text for text in texts)]
    assert not set(PARTS.values()) - {s.build.__name__ for s in SCENARIOS}


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("give --overwrite to replace it", True), ("set optim.lr=0.1, or less", True), ("run `python -m shards seal` on it", True),
        ("--jobs 0: at least 1", False), ("data.path=x: not a folder", False), ("mend the cell", False),
    ],
)  # fmt: skip
def test_what_counts_as_a_remedy(text: str, is_one: bool) -> None:
    assert names_a_remedy(text) == is_one


@pytest.mark.parametrize(
    "code",
    [
        "raise bad(what, path, 'mend the cell')", "Problem('no', where, f'mend the {name} cell' if name else 'mend the cell')",
        "fix = 'mend the cell'\nraise bad(what, path, fix)", "here, fix = Side.of(a), 'mend the cell'\npartners(a, b, c, fix)",
        "FIXES = {'no file': 'mend the cell'}",
    ],
)  # fmt: skip
def test_a_remedy_in_words_is_found_where_it_is_given(code: str) -> None:
    assert "mend the cell" in [text for _, text in fixes(ast.parse(code))]


def test_a_new_message_is_asked_for() -> None:
    assert untold((("a.py", 1, "give --never-heard-of to go on"),)) == ["a.py:1 'give --never-heard-of to go on'"]
