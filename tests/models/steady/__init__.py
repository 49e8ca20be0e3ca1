"""What a system whose rounding grows needs where its numbers are compared: NAME.yaml beside this file, which says why.

method: options under which it does not grow, for whole runs. double: whether losses and gradients of ranks are compared in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def _said(name: str) -> dict[str, Any]:
    path = Path(__file__).parent / f"{name}.yaml"
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def steady_words(name: str) -> list[str]:
    """Of a command line."""
    return [f"method.{option}={value}" for option, value in _said(name).get("method", {}).items()]


def in_double(name: str) -> bool:
    return bool(_said(name).get("double", False))
