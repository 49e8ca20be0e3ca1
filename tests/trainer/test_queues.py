"""What enters a queue: rows of a whole step in the order of the global batch, over the oldest, padding left out."""

from __future__ import annotations

import pytest
import torch

from models.contract import Method, Options, Output, Schema
from trainer.engine.queues import check_queues, enqueued, write
from trainer.errors import UserError


class Keeps(Method):
    name = "keeps"

    def __init__(self, size: int = 5) -> None:
        super().__init__(Options(), Schema({}))
        self.add_queue("image", size, 1)


def output(rows: torch.Tensor, weights: list[float] | None = None) -> Output:
    weight_B = torch.ones(len(rows)) if weights is None else torch.tensor(weights)
    return Output({}, torch.zeros(()), enqueue={"image": (rows, weight_B)})


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)[:, None]


def in_queue(method: Method) -> list[float | None]:
    return [
        round(float(x), 4) if ok else None
        for x, ok in zip(method.queue_image[:, 0], method.queue_image_valid, strict=True)
    ]


def test_rows_enter_in_order_and_leave_the_oldest_first() -> None:
    method = Keeps()
    assert in_queue(method) == [None] * 5
    # Two micro batches of a step.
    write(method, enqueued([output(column(1, 2)), output(column(3, 4))]))
    assert in_queue(method) == [1, 2, 3, 4, None]
    assert int(method.queue_image_at) == 4
    write(method, enqueued([output(column(5, 6, 7))]))
    assert in_queue(method) == [6, 7, 3, 4, 5]
    assert int(method.queue_image_at) == 2
    assert not method.queue_image.requires_grad
    assert set(method.state_dict()) == {"queue_image", "queue_image_valid", "queue_image_at"}


def test_padding_does_not_enter() -> None:
    method = Keeps()
    write(method, enqueued([output(column(1, float("nan"), 3), [1, 0, 1])]))
    assert in_queue(method) == [1, 3, None, None, None]
    write(method, enqueued([output(column(8, 9), [0, 0])]))
    assert in_queue(method) == [1, 3, None, None, None]


def test_several_rows_a_sample_enter_view_by_view() -> None:
    """So that the order is the same on any number of ranks, each of which holds all views of its samples."""
    method = Keeps(8)
    views_BVC = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])[..., None]
    write(method, enqueued([output(views_BVC[:2]), output(views_BVC[2:], [0.0])]))
    assert in_queue(method) == [1, 2, 10, 20, None, None, None, None]


def test_a_step_without_rows_changes_nothing() -> None:
    method = Keeps()
    write(method, enqueued([Output({}, torch.zeros(()))]))
    assert in_queue(method) == [None] * 5


def test_a_queue_that_one_step_would_overrun_is_refused() -> None:
    check_queues(Keeps(8), 8)
    with pytest.raises(
        UserError, match=r"keeps's queue 'image' holds 7 rows, fewer than the 8 .*the global batch 7 at most"
    ):
        check_queues(Keeps(7), 8)


def test_several_rows_a_sample_count_as_many() -> None:
    method = Keeps(9)
    method.add_queue("more", 23, 1, rows=3)
    check_queues(method, 7)
    with pytest.raises(
        UserError, match="fewer than the 24 that a step adds; make it longer, or the global batch 7 at most"
    ):
        check_queues(method, 8)
