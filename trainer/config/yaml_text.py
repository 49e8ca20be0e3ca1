"""Files of YAML that a person wrote, by the rules of `shards.yaml_text`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from shards.yaml_text import MOST_BYTES, parse
from trainer.errors import UserError

__all__ = ["parse", "read"]


def read(path: Path, what: str = "a recipe") -> dict[str, Any]:
    """The mapping in a file; an empty file is an empty one.

    Raises:
        UserError: not there, not readable, not UTF-8, not YAML, or no mapping.
    """
    try:
        data = path.read_bytes() if path.stat().st_size <= MOST_BYTES else None
        if data is None:
            raise UserError(
                f"{path}: more than {MOST_BYTES:,} bytes: {what} is a text that a person wrote; give the right file"
            )
        content = parse(data.decode("utf-8-sig"))
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 (byte {e.start}); save it as UTF-8 text") from e
    except yaml.YAMLError as e:
        raise UserError(f"{path}: not YAML: {' '.join(str(e).split())}") from e
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: {what} is a mapping of keys to values, this is a {type(content).__name__}")
    if odd := [k for k in content if not isinstance(k, str)]:
        raise UserError(
            f"{path}: keys are words, {', '.join(map(repr, odd[:3]))} is none; quote it if it is meant as one"
        )
    return content
