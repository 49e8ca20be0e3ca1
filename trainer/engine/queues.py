"""Queues: rows of earlier steps that a loss compares with (memory banks), kept in buffers of the method.

`forward` only reads them and says in `Output.enqueue` what is to enter; here it enters, after a real step, on all ranks alike: the rows
of the whole global batch in the order of its samples, whatever the number of ranks and micro batches.

Shape letters: B samples of a micro batch, G of the global batch, V rows a sample, C channels, N rows of a queue.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.contract import Method, Output
from models.parallel import gather
from trainer.errors import UserError

Rows = dict[str, tuple[Tensor, Tensor]]


def check_queues(method: Method, global_batch: int) -> None:
    """Refuses a queue that one step would overrun.

    Raises:
        UserError: with the queue and both numbers.
    """
    problems = [
        f"global_batch={global_batch}: {method.name}'s queue '{name}' holds {size} rows, fewer than the {rows * global_batch} that a "
        f"step adds; make it longer, or the global batch {size // rows} at most"
        for name, (size, rows) in method.queues.items()
        if size < rows * global_batch
    ]
    if problems:
        raise UserError(problems)


def enqueued(outputs: Sequence[Output]) -> Rows:
    """What the micro batches of a step, in their order, want to enter: {queue: (rows [B, C] or [B, V, C], weights [B])}."""
    waiting = [o.enqueue for o in outputs]
    assert all(w.keys() == waiting[0].keys() for w in waiting), "micro batches of a step fill other queues"
    return {n: (torch.cat([w[n][0] for w in waiting]), torch.cat([w[n][1] for w in waiting])) for n in waiting[0]}


@torch.no_grad()
def write(method: Method, rows: Rows) -> None:
    """Enters them, of samples of weight above 0, over the oldest. All ranks must call, after a real step.

    Of V rows a sample the first of all samples enter first, then the second.
    """
    for name, (rows_B, weight_B) in rows.items():
        queue_NC, valid_N = method.get_buffer(f"queue_{name}"), method.get_buffer(f"queue_{name}_valid")
        at = method.get_buffer(f"queue_{name}_at")
        # Micro batches of a rank are neighbours in the global batch: joined first, then gathered in rank order, they lie as its samples do.
        rows_G, counts_G = gather(rows_B.detach()), gather(weight_B) > 0
        rows_VGC = rows_G[None] if rows_G.ndim == 2 else rows_G.transpose(0, 1)
        new_KC = rows_VGC[:, counts_G].flatten(0, 1)
        assert len(new_KC) <= len(queue_NC), f"queue {name}: {len(new_KC)} rows for {len(queue_NC)} places"
        places_K = (at + torch.arange(len(new_KC), device=at.device)) % len(queue_NC)
        queue_NC[places_K] = new_KC.to(queue_NC.dtype)
        valid_N[places_K] = True
        at.copy_((at + len(new_KC)) % len(queue_NC))
