"""Where float32 products of a CPU run: as exact as before, back to the last bit, and never by a choice that nobody made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from models.contract import Group
from trainer.config.schema import Optim, by_todays_names, differences, parse
from trainer.engine import matmul
from trainer.engine.optimizers import make_optimizer, one_kernel

CPU = torch.device("cpu")
IN_ONEDNN = "matmul=auto: float32 products run in oneDNN (AVX-512, compared with float64)"


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    matmul.why_not.cache_clear()
    yield
    matmul.choose("torch", CPU)
    matmul.why_not.cache_clear()


def product() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(96, 500) @ torch.randn(500, 64)


def test_the_default_leaves_every_bit_and_is_what_old_runs_had() -> None:
    config = parse({"method_name": "mae"})
    assert config.matmul == "torch"
    before = product()
    assert matmul.choose("torch", CPU) is None
    assert torch.equal(product(), before)
    new = {"precision": "fp32", "matmul": "torch", "compile": "off"}
    assert differences(by_todays_names({"precision": "fp32"}), new) == []
    assert differences(by_todays_names({"precision": "fp32"}), new | {"matmul": "auto"}) == ["matmul: torch -> auto"]


def test_auto_is_as_exact_says_so_once_and_ends_with_the_next_engine() -> None:
    before, said = product(), matmul.choose("auto", CPU)
    if said != IN_ONEDNN:
        pytest.skip(f"of this machine's processor: {said}")
    torch.manual_seed(0)
    true = torch.randn(96, 500).double() @ torch.randn(500, 64).double()
    assert not torch.equal(product(), before)
    assert (product() - true).abs().max() / true.abs().max() < matmul.EXACT
    assert matmul.choose("auto", CPU) is None
    assert matmul.choose("torch", CPU) is None
    assert torch.equal(product(), before)


def test_elsewhere_auto_says_why_not_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = product()
    monkeypatch.setattr(matmul, "_vendor", lambda: "GenuineIntel")
    assert "on AMD processors with AVX-512 alone" in (matmul.choose("auto", CPU) or "")
    assert torch.equal(product(), before)
    assert "a GPU has its own" in (matmul.choose("auto", torch.device("cuda")) or "")


def test_products_of_rounded_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "_vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    rounded = Tensor.__matmul__
    monkeypatch.setattr(
        Tensor,
        "__matmul__",
        lambda a, b: rounded(a.bfloat16(), b.bfloat16()).float() if a.dtype == torch.float32 else rounded(a, b),
    )
    said = matmul.choose("auto", CPU) or ""
    assert "oneDNN rounds its numbers here: an error of" in said
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_an_update_in_one_kernel_is_that_of_many(kind: str) -> None:
    def trained(fused: bool) -> Tensor:
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(300))
        optimizer = make_optimizer([Group("all", [p])], Optim(kind=kind, lr=1e-2, weight_decay=0.1), fused)
        assert bool(optimizer.defaults["fused"]) is fused
        for _ in range(20):
            p.grad = torch.randn(300)
            optimizer.step()
        return p.detach()

    torch.testing.assert_close(trained(True), trained(False), rtol=1e-6, atol=1e-6)


def test_one_kernel_is_for_gpus_and_bf16() -> None:
    assert not one_kernel(parse({"method_name": "mae"}), cuda=False)
    assert one_kernel(parse({"method_name": "mae"}), cuda=True)
    assert one_kernel(parse({"method_name": "mae", "precision": "bf16"}), cuda=False)


def test_doctor_says_where_products_run_and_how_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.doctor import products_on_cpu

    monkeypatch.setattr(matmul, "why_not", lambda device: "none of its kind")
    assert products_on_cpu() == "  matmul=auto    PyTorch's own kernels run: none of its kind"
    monkeypatch.setattr(matmul, "why_not", lambda device: "")
    monkeypatch.setattr(matmul, "speeds", lambda: (100.0, 210.0))
    assert "oneDNN: 210 GFLOP/s a core, measured now, 2.1 times those of matmul=torch" in products_on_cpu()
    monkeypatch.undo()
    assert min(matmul.speeds()) > 0
    assert torch.get_float32_matmul_precision() == "highest"
