"""YAML as people mean it: numbers in decimals, `1e-4` among them, words as words, every key once.

PyYAML follows YAML 1.1, where `010` is 8, `1:30` is 90, `1_0` is 10, `1e-4` is text and a key's last line wins in silence. Here
scalars are those of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/, section 10.3.2), decimals alone; `yes` and `no` stay words,
which a typed key reads.
"""

from __future__ import annotations

import copy
import functools
import re
from typing import Any

import yaml

from shards.untyped import Json

_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
)


MOST = 100_000
"""Values in a file that a person wrote."""
MOST_BYTES = 4_000_000
Key = str | int | float | bool | None


class Loader(yaml.SafeLoader):
    """Plain data alone: no objects, no dates, no numbers of other bases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - replaced for this class, as PyYAML does it


for _tag, _pattern, _first in _SCALARS:
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


def _int(loader: Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _float(loader: Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Key, Json]:
    """A mapping whose keys stand once each."""
    first: dict[Key, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key, line = loader.construct_object(key_node, deep=True), key_node.start_mark.line + 1
        if not isinstance(key, (str, int, float, bool, type(None))):
            raise yaml.constructor.ConstructorError(None, None, f"line {line}: a key must be a word or a number")
        if key in first:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{key}' stands in line {first[key]} and in line {line}; keep one of them"
            )
        first[key] = line
    loader.flatten_mapping(node)
    return {loader.construct_object(k, deep=True): loader.construct_object(v, deep=True) for k, v in node.value}


Loader.add_constructor("tag:yaml.org,2002:int", _int)
Loader.add_constructor("tag:yaml.org,2002:float", _float)
Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse(text: str) -> Json:
    """One YAML document.

    Raises:
        yaml.YAMLError: not YAML, a key that stands twice, nested too deep, or aliases of aliases without end.
    """
    try:
        content: Any = copy.deepcopy(_parsed(text))
        return content
    except RecursionError as e:
        raise yaml.YAMLError("nested too deep") from e
    except ValueError as e:  # a number of more digits than Python reads
        raise yaml.YAMLError(str(e)) from e


@functools.lru_cache(maxsize=256)
def _parsed(text: str) -> object:
    """Kept: the many runs of a sweep read the same few files."""
    content = yaml.load(text, Loader)
    if _count(content, MOST) > MOST:
        raise yaml.YAMLError(f"more than {MOST:,} values, with those that *aliases repeat")
    return content


def _count(value: Json, most: int) -> int:
    """Values in `value`, aliases counted as often as they stand for something; no further than a little over `most`."""
    total = 1
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in parts:
        if total > most:
            break
        total += _count(part, most - total)
    return total
