"""Matrices drawn for people: the scale is each column's own, and numbers stand in the cells."""

from __future__ import annotations

import numpy as np
import torch

from models.pictures import CELL, COLOURS, matrices, row_of_images


def corner(picture: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    return tuple(int(v) for v in picture[row * CELL + 1, column * CELL + 1])


def test_each_column_has_its_own_scale_over_all_rows():
    near, far = torch.tensor([[0.90, 0.92], [0.91, 0.91]]), torch.tensor([[-1.0, 1.0], [0.0, 0.5]])
    made = matrices([[near, far], [near - 0.02, far]])
    step = 2 * CELL + 2
    assert made.shape == (2 * step, 2 * step, 3)
    dark, middle, yellow = (tuple(int(v) for v in c) for c in COLOURS)
    assert corner(made, 0, 1) == yellow
    assert corner(made, 0, 0) == middle, "0.90 lies half way from 0.88 to 0.92"
    lower = made[step:]
    assert corner(lower, 0, 0) == dark
    right = made[:, step:]
    assert (corner(right, 0, 0), corner(right, 1, 0), corner(right, 0, 1)) == (dark, middle, yellow)


def test_cells_hold_numbers_and_equal_values_are_drawn():
    made = matrices([[torch.full((2, 2), 0.5)]])
    cell = made[:CELL, :CELL].reshape(-1, 3)
    assert len(np.unique(cell, axis=0)) > 1, "a number is written on the ground"


def test_a_row_of_images_is_grey_where_they_have_one_channel():
    images = torch.arange(2 * 2 * 3, dtype=torch.uint8).view(2, 2, 3, 1)
    made = row_of_images(images)
    assert made.shape == (2, 6, 3)
    assert made[0, :, 0].tolist() == [0, 1, 2, 6, 7, 8]
