"""On a GPU a tensor that a layer makes on the CPU ends the first step. Every system with its tensors elsewhere (elsewhere.py)."""

from __future__ import annotations

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, There, here
from synthetic import batch, records
from test_contract import NAMES, STAGES, entered

from models.finetuned import STAGE
from trainer.engine import queues

# A head on what is pre-trained: the same code for all of them, but for how they encode.
TUNED = [(n, STAGE) for n in NAMES if (n, STAGE) not in STAGES]
grid = [pytest.param(n, s, marks=[pytest.mark.grid] if i else [], id=f"{n}-{s}") for i, (n, s) in enumerate(TUNED)]


def test_tensors_of_two_devices_do_not_meet() -> None:
    with Elsewhere():
        there = torch.tensor([[1.0, 2.0]], device=DEVICE, requires_grad=True)
        assert isinstance(there * torch.tensor(2.0), There), "a single number may lie on the CPU"
        for mixed in (lambda: there + torch.ones(1, 2), lambda: there @ torch.ones(2, 1), there.detach().numpy):
            with pytest.raises((RuntimeError, TypeError)):
                mixed()
        (there.new_tensor([3.0]) * there).sum().backward()
        assert there.grad is not None
        assert there.grad.device == DEVICE
        assert there.grad.tolist() == [[3.0, 3.0]]
        assert torch.arange(2, device=there.device).cpu().numpy().tolist() == [0, 1]
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.ones(2, device=DEVICE).cpu()


@pytest.mark.parametrize(("name", "stage"), [*STAGES, *grid])
def test_every_system_makes_its_tensors_where_its_batch_is(name: str, stage: str) -> None:
    method = entered(name, stage)
    expected = method(batch(method, records(8))).total
    with Elsewhere():
        method.to(DEVICE)
        data = batch(method, records(8)).to(DEVICE)
        assert here(method(data).total.detach()).item() == pytest.approx(expected.item(), rel=1e-5)
        method.train()
        out = method(data)
        out.total.backward()
        queues.write(method, queues.enqueued([out]))
    assert all(p.grad is None or p.grad.device == DEVICE for p in method.parameters())
