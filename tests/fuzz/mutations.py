"""Seeded changes of bytes, text and JSON, for files that this project writes and for tables as people bring them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator
ODD_WORDS = (
    "", "NA", "nan", "-", "None", "inf", "-inf", "1e999", "-0", "0x10", "1_0", "1e-400", "3,5",
    "TRUE", '"', "'", "\x00", "../x", "/x", "ä" * 40,
    "٣", "=1+1", " ", "\t", ";", "9" * 400, "p0 ", "P0", "0.1.2", "{}", "[1]", "#",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None,
    -1,
    0,
    1,
    2**31,
    2**63,
    1e308,
    "",
    "x",
    [],
    {},
    [[]],
    True,
    "../../x",
    0.5,
    "\ud800",
)


def block(data: bytes, rng: Rng) -> slice:
    at = int(rng.integers(0, max(1, len(data))))
    return slice(at, min(len(data), at + int(rng.integers(1, 1 + max(1, min(512, len(data) // 4))))))


def flipped(data: bytes, rng: Rng) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 4]))):
        if out:
            out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def cut(data: bytes, rng: Rng) -> bytes:
    return data[: int(rng.integers(0, max(1, len(data))))]


def removed(data: bytes, rng: Rng) -> bytes:
    b = block(data, rng)
    return data[: b.start] + data[b.stop :]


def doubled(data: bytes, rng: Rng) -> bytes:
    b = block(data, rng)
    return data[: b.stop] + data[b] + data[b.stop :]


def zeroed(data: bytes, rng: Rng) -> bytes:
    b = block(data, rng)
    return data[: b.start] + bytes(b.stop - b.start) + data[b.stop :]


def noisy(data: bytes, rng: Rng) -> bytes:
    b = block(data, rng)
    return data[: b.start] + rng.bytes(b.stop - b.start) + data[b.stop :]


def extended(data: bytes, rng: Rng) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 1024)))


BYTES: tuple[Callable[[bytes, Rng], bytes], ...] = (
    flipped, flipped, flipped, cut, removed, doubled, zeroed, noisy, extended,
)  # fmt: skip


def any_bytes(data: bytes, rng: Rng) -> tuple[str, bytes]:
    change = BYTES[int(rng.integers(len(BYTES)))]
    return change.__name__, change(data, rng)


# ------------------------------------------------------------------------------------------------------------------ text


def other_form(text: str, rng: Rng) -> tuple[str, bytes]:
    """The same table, written otherwise: what it says must not change."""
    lines = text.splitlines()
    forms: dict[str, Callable[[], bytes]] = {
        "byte-order mark": lambda: b"\xef\xbb\xbf" + text.encode(),
        "windows line ends": lambda: "\r\n".join(lines).encode() + b"\r\n",
        "no last line end": lambda: "\n".join(lines).encode(),
        "empty last lines": lambda: text.encode() + b"\n\n",
        "tabs": lambda: text.replace(",", "\t").encode(),
        "quotes": lambda: "\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in lines).encode(),
    }
    name = list(forms)[int(rng.integers(len(forms)))]
    return name, forms[name]()


TEXT = (
    "cell",
    "cell",
    "cell",
    "header",
    "line twice",
    "line gone",
    "cell gone",
    "cell more",
    "column gone",
    "columns swapped",
)


def other_text(text: str, rng: Rng) -> tuple[str, bytes]:
    """Another table: cells, lines and columns changed."""
    rows = [line.split(",") for line in text.splitlines()]
    y = int(rng.integers(len(rows)))
    x = int(rng.integers(len(rows[y]))) if rows[y] else 0
    kind = str(
        rng.choice(
            [
                "cell",
                "cell",
                "cell",
                "header",
                "line twice",
                "line gone",
                "cell gone",
                "cell more",
                "column gone",
                "columns swapped",
            ]
        )
    )
    word = str(rng.choice(ODD_WORDS))
    if kind == "cell":
        rows[y][x] = word
    elif kind == "header":
        rows[0][int(rng.integers(len(rows[0])))] = word
    elif kind == "line twice":
        rows.insert(y, list(rows[y]))
    elif kind == "line gone":
        del rows[y]
    elif kind == "cell gone":
        del rows[y][x]
    elif kind == "cell more":
        rows[y].insert(x, word)
    elif kind == "column gone":
        rows = [r[:x] + r[x + 1 :] for r in rows]
    else:
        rows = [[*r[1:], r[0]] for r in rows]
    return kind, "\n".join(",".join(r) for r in rows).encode("utf-8", "surrogatepass") + b"\n"


# ------------------------------------------------------------------------------------------------------------------ JSON


def odd_json(data: bytes, rng: Rng) -> tuple[str, bytes]:
    """One value somewhere in a JSON document replaced, left out or doubled under another name."""
    content = json.loads(data)
    place, steps = content, []
    while isinstance(place, (dict, list)) and place and (not steps or rng.random() < 0.8):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = keys[int(rng.integers(len(keys)))]
        steps.append((place, key))
        place = place[key]
    holder, key = steps[-1]
    kind = str(rng.choice(["odd", "odd", "gone", "more"]))
    if kind == "odd":
        holder[key] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    elif kind == "gone":
        del holder[key]
    elif isinstance(holder, dict):
        holder[f"{key}x"] = holder[key]
    else:
        holder.append(holder[key])
    return f"{kind} at {'.'.join(str(k) for _, k in steps)}", json.dumps(content).encode("utf-8", "surrogatepass")
