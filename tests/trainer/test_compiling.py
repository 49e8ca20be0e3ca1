"""Compiled blocks: what an uncompiled run has, to a tolerance; the same run wherever it stops; never a choice that nobody made."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.encoders.mamba import MambaBlock
from models.layers.vit_block import Block
from tests.trainer.downstream.test_resume_states import held
from tests.trainer.forking import Forks
from tests.trainer.launching import rows, series
from trainer.config.schema import by_todays_names, differences, parse
from trainer.engine import compiling
from trainer.errors import UserError

CPU = torch.device("cpu")
WHAT = ("step", "loss", "grad_norm", "lr", "keys")
SMALL = [
    "--method", "mae", "--recipe", "demo", "epochs=null", "steps=4", "global_batch=4", "checkpoint.every=2", "log.tensorboard=false",
    "data.val_split=''", "method.image={image_size: 24, patch: 6, dim: 16, depth: 2, heads: 2}", "method.decoder_dim=16",
    "method.decoder_heads=2",
]  # fmt: skip
LOSS, WEIGHT = 1e-5, 2e-3
"""How far losses of a compiled run may lie from those of an uncompiled one (relative), and its weights from theirs after a few steps, in
learning rates' worth of updates: AdamW makes a whole one of a gradient of rounding alone."""


class Network(nn.Module):
    """Lists of blocks, one inside another module, among what is not compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 8), nn.GELU())
        self.inner = nn.ModuleDict({"blocks": nn.ModuleList(Block(8, 2) for _ in range(3))})
        self.scans = nn.ModuleList([MambaBlock(8)])
        self.alone = Block(8, 2)


def asked(
    monkeypatch: pytest.MonkeyPatch, cannot: float | None = None
) -> tuple[compiling.Compiled, nn.Module, list[str]]:
    """compile=auto on one rank; `cannot` of all ranks together, where others have a say."""
    said: list[str] = []
    monkeypatch.setattr(compiling, "agree_sum", lambda v, _: v if cannot is None else {"cannot": cannot})
    runtime: Any = SimpleNamespace(device=CPU, say=said.append)
    network = Network()
    found = compiling.compiled("auto", network, runtime)
    assert found is not None
    return found, network, said


@pytest.fixture(autouse=True)
def as_found(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compiled"))
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    compiling.why_not.cache_clear()
    yield
    compiling.why_not.cache_clear()


# ------------------------------------------------------------------------------------------------------------ what is asked for


def test_the_default_compiles_nothing_and_is_what_old_runs_had() -> None:
    assert parse({"method_name": "mae"}).compile == "off"
    network: Any = Network()
    assert compiling.compiled("off", network, SimpleNamespace(device=CPU)) is None  # type: ignore[arg-type]
    assert os.environ["TORCHDYNAMO_DISABLE"] == "1"
    new = {"precision": "fp32", "matmul": "torch", "compile": "off"}
    assert differences(by_todays_names({"precision": "fp32"}), new) == []
    assert differences(by_todays_names({"precision": "fp32"}), new | {"compile": "auto"}) == ["compile: off -> auto"]


@pytest.mark.parametrize(
    ("words", "says"),
    [({"zero": {"stage": 3}}, "with zero.stage=3"), ({"activation_checkpointing": True}, "with activation_checkpointing=true")],
    ids=["sharded weights", "recomputed activations"],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_at_once(words: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse({"method_name": "mae", "compile": "auto", **words})
    parse({"method_name": "mae", **words})


def test_blocks_are_members_of_lists_that_hold_no_scan() -> None:
    network = Network()
    assert list(compiling.blocks(network)) == list(network.inner["blocks"].children())


# ---------------------------------------------------------------------------------------------------------- where it cannot be


@pytest.mark.parametrize("cxx", [None, "/nowhere/c++"])
def test_without_a_compiler_it_says_so_and_goes_on(cxx: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    if cxx:
        monkeypatch.setenv("CXX", cxx)
    found, network, said = asked(monkeypatch)
    assert said == [f"compile=auto: the network runs uncompiled (no C++ compiler: {cxx or 'g++'} is not on PATH)"]
    assert found.readings() == {"compiled_graphs": 0}
    assert not any(m._compiled_call_impl for m in network.modules())
    assert os.environ["TORCHDYNAMO_DISABLE"] == "1"


def fails(device: str) -> float:
    raise RuntimeError("Python.h: no such\nfile")


@pytest.mark.parametrize(
    ("measured", "cannot", "says"),
    [
        (fails, None, "torch.compile does not work here (RuntimeError: Python.h: no such file)"),
        (lambda _: 3e-3, None, "a compiled function is off by 3e-03 here"),
        (lambda _: 0.0, 1.0, "the machine of another rank cannot"),
    ],
    ids=["an error", "other numbers", "another rank"],
)
def test_a_trial_decides_for_all_ranks(
    measured: Callable[[str], float], cannot: float | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "largest_error", measured)
    found, network, said = asked(monkeypatch, cannot)
    assert said == [f"compile=auto: the network runs uncompiled ({says})"]
    assert found.blocks == []
    assert not any(m._compiled_call_impl for m in network.modules())


def test_too_many_graphs_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    graphs = 5
    monkeypatch.setattr(compiling, "_graphs", lambda: graphs)
    found = compiling.Compiled([Block(8, 2)], said.append, before=5)
    assert found.readings() == {"compiled_graphs": 0}
    graphs = 5 + compiling.MOST
    assert found.readings() == found.readings() == {"compiled_graphs": compiling.MOST}
    assert len(said) == 1
    assert "compile=off may be the faster one" in said[0]


def test_doctor_says_what_auto_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from launch.doctor import compiled_blocks

    monkeypatch.setattr(compiling, "missing", lambda device: "")
    assert "compiled where a first small function passes (not tried now)" in compiled_blocks(False, tries=False)
    monkeypatch.setattr(compiling, "largest_error", lambda device: 0.0)
    assert "compiled: a small function passed just now" in compiled_blocks(False, tries=True)
    monkeypatch.setattr(compiling, "missing", lambda device: "none of its kind")
    assert compiled_blocks(False, tries=False) == "  compile=auto   networks run uncompiled: none of its kind"


# --------------------------------------------------------------------------------------------------------------------- real runs


def run(
    forks: Forks, out: Path, words: Sequence[str], faults: dict[str, Any] | None = None, code: int = 0, ranks: int = 1
) -> str:
    ended = forks.launch(ranks, [*words, f"out={out}"], faults, limit=1200)
    assert ended.codes == [code] * ranks, ended.text
    return str(ended.text)


def states(to: Path, at: int = 4) -> dict[str, Any]:
    """Not a fault: writes down all that the ranks hold at the save of step `at` (the last), and after a load."""
    to.mkdir(exist_ok=True)
    return {"states": {"to": str(to), "at": at}}


def weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / "weights.safetensors")


def close(mine: Path, other: Path, rate: float, loss: float = LOSS) -> None:
    """A compiled run, and the same uncompiled: losses, norms of gradients, weights; one set of names."""
    for here, there in zip(rows(mine), rows(other), strict=True):
        assert here["keys"] == there["keys"]
        assert here["loss"] == pytest.approx(there["loss"], rel=loss)
        assert here["grad_norm"] == pytest.approx(there["grad_norm"], rel=100 * loss)
    found, true = weights(mine), weights(other)
    assert list(found) == list(true)
    for name, value in true.items():
        torch.testing.assert_close(found[name], value, rtol=WEIGHT, atol=len(rows(mine)) * rate)


def processes_with(text: str) -> list[str]:
    """Processes whose environment has it, but for this one and what forks the ranks."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            ours = int(path.parent.name) == os.getpid() or b"forking.py" in (path.parent / "cmdline").read_bytes()
            if text.encode() in path.read_bytes() and not ours:
                found.append(path.parent.name)
        except OSError:
            continue  # ended, or another user's
    return found


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_run_is_the_uncompiled_one_and_goes_on_alike(cohort: Path, forks: Forks, tmp_path: Path) -> None:
    if compiling.missing("cpu"):
        pytest.skip(f"of this machine: {compiling.missing('cpu')}")
    words = [*SMALL, f"data.path={cohort}"]
    run(forks, tmp_path / "off", words)
    said = run(forks, tmp_path / "whole", [*words, "compile=auto"], states(tmp_path / "whole-states"))
    assert said.count("compile=auto: 3 blocks (Block) are compiled in their first steps") == 1
    graphs = [row["compiled_graphs"] for row in rows(tmp_path / "whole")]
    assert 0 < graphs[0] == graphs[1] <= graphs[2] == graphs[3]  # a save looks at the probe batch, in another mode
    assert "compiled_graphs" not in rows(tmp_path / "off")[0]
    close(tmp_path / "whole", tmp_path / "off", 2e-3)
    run(forks, tmp_path / "cut", [*words, "compile=auto"], {"die": {"step": 3}}, -9)
    assert "going on from" in run(forks, tmp_path / "cut", [*words, "compile=auto"], states(tmp_path / "cut-states"))
    assert series(tmp_path / "cut", *WHAT) == series(tmp_path / "whole", *WHAT)  # to the last bit
    whole, cut = ((tmp_path / n / "weights.safetensors").read_bytes() for n in ("whole", "cut"))
    assert cut == whole
    kept = [held(tmp_path / n, "saved", 4, 0) for n in ("whole-states", "cut-states")]
    assert kept[0].keys() == kept[1].keys()
    assert [n for n in kept[0] if not torch.equal(kept[0][n], kept[1][n])] == []
    assert "compile: auto -> off" in run(forks, tmp_path / "cut", words, code=2)
    assert processes_with(os.environ["TORCHINDUCTOR_CACHE_DIR"]) == []


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_compiled_ranks_go_on_as_one(cohort: Path, forks: Forks, tmp_path: Path) -> None:
    """Gradients sharded; a rank that compiles for longer than `health.notice` is said to. What the test before compiled is found."""
    if compiling.missing("cpu"):
        pytest.skip(f"of this machine: {compiling.missing('cpu')}")
    words = [*SMALL, "zero.stage=2", "checkpoint.every=1", "steps=2", f"data.path={cohort}"]
    run(forks, tmp_path / "off", words, ranks=2)
    auto, kept = [*words, "compile=auto", "health.notice=0.05"], tmp_path / "states"
    said = run(forks, tmp_path / "auto", auto, states(kept, 1) | {"die": {"step": 2}}, -9, ranks=2)
    assert "has compiled blocks of the network for" in said
    assert "going on from" in run(forks, tmp_path / "auto", auto, states(kept))
    saved, loaded = held(kept, "saved", 1, 0), held(kept, "loaded", 1, 0)
    assert saved.keys() == loaded.keys()
    assert [n for n in saved if not torch.equal(saved[n], loaded[n])] == []
    close(tmp_path / "auto", tmp_path / "off", 2e-3)


PAPERS = {"gimp": ["stages.gene.epochs=0"], "mgi": [], "mrm_relation": [], "mrm_record": []}


@pytest.mark.grid
@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("method", "more"), PAPERS.items(), ids=list(PAPERS))
def test_methods_of_the_papers_compiled(
    method: str, more: list[str], cohort: Path, forks: Forks, tmp_path: Path
) -> None:
    words = [
        "--method",
        method,
        "--recipe",
        "demo",
        "epochs=null",
        "steps=3",
        "log.tensorboard=false",
        f"data.path={cohort}",
        *more,
    ]
    run(forks, tmp_path / "off", words)
    assert "are compiled in their first steps" in run(forks, tmp_path / "auto", [*words, "compile=auto"])
    assert rows(tmp_path / "auto")[-1]["compiled_graphs"] > 0
    close(tmp_path / "auto", tmp_path / "off", 2e-3)


@pytest.mark.grid
@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_bf16_compiled(cohort: Path, forks: Forks, tmp_path: Path) -> None:
    """Products are fused in float32 here, so that losses are apart by a rounding to bf16."""
    words = [*SMALL, f"data.path={cohort}", "precision=bf16"]
    run(forks, tmp_path / "off", words)
    run(forks, tmp_path / "auto", [*words, "compile=auto"])
    close(tmp_path / "auto", tmp_path / "off", 4e-3, loss=5e-3)
