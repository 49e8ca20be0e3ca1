"""What a launch does not load: every rank, every restart and every command pays for it again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.trainer.forking import ROOT, Forks
from trainer.engine import giants
from trainer.tracking.metrics_file import read_metrics

UNUSED = {
    "torch._dynamo": "nothing is compiled on a CPU; with what it brings, a third of the start",
    "torch._inductor": "as torch._dynamo",
    "sympy": "of torch's compiler and of tensors without memory",
    "torch.distributed.tensor": "of torch's compiler",
    "pandas": "of pyarrow's conversions, whose results numpy reads as they lie",
    "pyarrow.parquet": "a packed set has no Parquet file",
    "matplotlib": "figures are drawn by reports",
    "scipy": "of reports and of tables of expression",
    "sklearn": "of probes",
    "timm": "of image encoders",
    "transformers": "of text encoders",
    "tensorboard": "where the log wants none",
    "webdataset": "shards are read by offset",
    "submitit": "of submissions",
}
"""Modules that a plain pre-training must not load, with the reason why it has no use for them."""
WORDS = [
    "--method", "gimp", "steps=3", "global_batch=8", "epochs=null", "stages.gene.epochs=0", "log.tensorboard=false", "method.dim=16",
    "method.heads=2", "method.window=24", "method.landmarks=8", "method.genes.groups=4", "data.val_split=''",
]  # fmt: skip


@pytest.mark.parametrize(
    ("rooms", "unused"),
    [
        (
            "launch.slurm, trainer.cluster.status, trainer.cluster.logs, trainer.cluster.life",
            ("torch", "models.contract", "deepspeed"),
        ),
        (
            "launch.finetune, trainer.downstream.run, trainer.downstream.task",
            ("torch._dynamo", "timm", "torchvision", "sklearn", "scipy"),
        ),
    ],
    ids=["a look at a job", "a fine-tune"],
)
def test_rooms_load_what_they_use(rooms: str, unused: tuple[str, ...]) -> None:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        f"import json, sys, {rooms}; print(json.dumps(sorted(sys.modules)))",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=True)
    assert not set(unused) & set(json.loads(done.stdout))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pre_training_loads_what_it_uses(demo_cohort: Path, forks: Forks, tmp_path: Path) -> None:
    code = (
        "import json, sys; from launch.pretrain import main; status = main(sys.argv[2:]); "
        "open(sys.argv[1], 'w').write(json.dumps([status, sorted(sys.modules)]))"
    )
    told = tmp_path / "told"
    mine = [*WORDS, f"data.path={demo_cohort}"]
    command = [sys.executable, "-W", "ignore", "-c", code, str(told), *mine, f"out={tmp_path / 'fresh'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    status, loaded = json.loads(told.read_text())
    assert status == 0, done.stderr
    assert not {name: why for name, why in UNUSED.items() if name in loaded}
    # With all of it loaded, optimisers are as torch makes them: the same numbers.
    ended = forks.launch(1, [*mine, f"out={tmp_path / 'forked'}"])
    assert ended.codes == [0], ended.text
    what = ("loss", "grad_norm", "lr")
    fresh, forked = ([[row[k] for k in what] for row in read_metrics(tmp_path / n)] for n in ("fresh", "forked"))
    assert fresh == forked
    assert len(fresh) == 3
    assert (tmp_path / "fresh" / "weights.safetensors").read_bytes() == (
        tmp_path / "forked" / "weights.safetensors"
    ).read_bytes()


def test_a_small_method_is_counted_without_going_over_what_is_small() -> None:
    x, y = torch.zeros(3, 5), torch.zeros(5, 7)
    calls = [
        (torch.empty, [(3, 5)]), (torch.randn, [3, 5]), (torch.arange, [9]), (torch.eye, [4]), (torch.full, [[2, 3], 1.5]),
        (torch.linspace, [0, 1, 12]), (torch.matmul, [x, y]), (torch.add, [x, torch.zeros(4, 1, 5)]),
        (torch.outer, [x[0], y[0]]), (torch.Tensor.repeat, [x, 2, 3]), (torch.Tensor.new_zeros, [x, (4, 6)]),
        (torch.einsum, ["i,j->ij", x[0], y[0]]), (torch.mul, [x, 2]),
    ]  # fmt: skip
    for func, given in calls:
        assert giants._at_most(func, given) >= func(*given).numel(), func
    with giants._Small() as small:
        torch.zeros(giants.SMALL // 2)
        with pytest.raises(MemoryError):
            torch.randn(10, giants.SMALL)
    assert small.held == giants.SMALL // 2


def test_a_machine_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.state.run_folder import _versions

    monkeypatch.setenv("PATH", "/nowhere")
    assert "commit" not in _versions.__wrapped__()
