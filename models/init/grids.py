"""The grid of a vision transformer's patches, beside its weights.

A list of positions does not tell rows from columns: 196 of them are 14 x 14 or 7 x 28. So a ViT writes its grid beside its weights: the
state dict's metadata, which `torch.save` keeps; `grid` in the metadata of a safetensors file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

Grid = tuple[int, int]
KEY = "grid"


class Gridded(Protocol):
    """A module whose positions lie on a grid."""

    @property
    def grid(self) -> Grid: ...


def note_grid(module: Gridded, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any]) -> None:
    """A state dict's hook: the grid goes into its metadata, under the module's name."""
    metadata[KEY] = list(module.grid)


def grids_in(state: Mapping[str, Tensor]) -> dict[str, Grid]:
    """{name of the module: its grid}, as far as the state dict says."""
    found = {}
    for name, metadata in getattr(state, "_metadata", {}).items():
        grid = metadata.get(KEY) if isinstance(metadata, Mapping) else None
        if isinstance(grid, list | tuple) and len(grid) == 2 and all(isinstance(n, int) and n > 0 for n in grid):
            found[name] = (grid[0], grid[1])
    return found


def grid_text(module: nn.Module) -> dict[str, str]:
    """Metadata for a safetensors file of `module`: {"grid": "7x28"}, or {"grid.NAME": ...} for a module in it."""
    grids = grids_in(module.state_dict()).items()
    return {f"{KEY}.{name}" if name else KEY: f"{rows}x{columns}" for name, (rows, columns) in grids}


def grids_of_text(metadata: Mapping[str, str] | None) -> dict[str, Grid]:
    """The inverse of `grid_text`; what is no grid is passed over."""
    found = {}
    for key, text in (metadata or {}).items():
        rows, _, columns = text.partition("x")
        if (key == KEY or key.startswith(f"{KEY}.")) and rows.isdecimal() and columns.isdecimal():
            found[key[len(KEY) + 1 :]] = (int(rows), int(columns))
    return found
